/*
 * The authorisation matrix: each method of the daemon's own table, by each door, with each kind of
 * token. A method that has no row here fails the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "methods.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "support/raw_client.h"
#include "support/security_box.h"

#define ANSWER_MS 5000 /* a refusal that takes longer has failed */

/* The least role, and what an empty request gives to those who may make it. */
static const struct row {
    const char *name;
    ptier_role least;
    ptier_status outcome;
} rows[] = {
    {"/proxytier.v1.ProxyCache/Get", PTIER_ROLE_READER, PTIER_INVALID_ARGUMENT},
    {"/proxytier.v1.ProxyCache/GetMany", PTIER_ROLE_READER, PTIER_OK},
    {"/proxytier.v1.ProxyCache/Put", PTIER_ROLE_ROTATOR, PTIER_INVALID_ARGUMENT},
    {"/proxytier.v1.ProxyCache/PutMany", PTIER_ROLE_ROTATOR, PTIER_OK},
    {"/proxytier.v1.ProxyCache/Delete", PTIER_ROLE_ROTATOR, PTIER_OK},
    {"/proxytier.v1.ProxyCache/ReportHealth", PTIER_ROLE_ROTATOR, PTIER_OK},
    {"/proxytier.v1.ProxyCache/Pick", PTIER_ROLE_READER, PTIER_NOT_FOUND},
    {"/proxytier.v1.ProxyCache/List", PTIER_ROLE_READER, PTIER_OK},
    {"/proxytier.v1.ProxyCache/GetStatistics", PTIER_ROLE_READER, PTIER_OK},
    {"/proxytier.v1.ProxyCache/ReportAccess", PTIER_ROLE_READER, PTIER_OK},
    {"/proxytier.v1.Events/Replay", PTIER_ROLE_READER, PTIER_INVALID_ARGUMENT},
    {"/proxytier.v1.Admin/Clear", PTIER_ROLE_ADMIN, PTIER_OK},
    {"/proxytier.v1.Admin/Export", PTIER_ROLE_ADMIN, PTIER_OK},
    {"/proxytier.v1.Admin/RotateKeys", PTIER_ROLE_ADMIN, PTIER_OK},
    {"/proxytier.v1.Admin/Shutdown", PTIER_ROLE_ADMIN, PTIER_OK},
    {"/proxytier.v1.Admin/ResetStatistics", PTIER_ROLE_ADMIN, PTIER_OK},
    {"/proxytier.v1.Admin/Backup", PTIER_ROLE_ADMIN, PTIER_INVALID_ARGUMENT},
    {"/proxytier.v1.ServerInfo/GetInfo", PTIER_ROLE_READER, PTIER_OK},
    {"/proxytier.v1.Health/Check", PTIER_ROLE_NONE, PTIER_OK},
    {"/proxytier.v1.Reflection/GetDescriptors", PTIER_ROLE_READER, PTIER_OK},
};

typedef enum way { WAY_OWNER, WAY_ROTATOR, WAY_NOBODY, WAY_TCP, WAY_TLS, WAY_MUTUAL, WAYS } way;

static const char *const way_names[] = {"ipc of the daemon's user",
                                        "ipc of a rotator user",
                                        "ipc of another user",
                                        "tcp",
                                        "tls",
                                        "mutual tls"};

typedef enum shown {
    SHOWN_NONE,
    SHOWN_READER,
    SHOWN_ROTATOR,
    SHOWN_ADMIN,
    SHOWN_EXPIRED,
    SHOWN_WRONG,
    SHOWN_MALFORMED,
    SHOWN_COUNT
} shown;

static const char *
token_of(const security_box *box, shown kind)
{
    switch (kind) {
    case SHOWN_READER:
    case SHOWN_ROTATOR:
    case SHOWN_ADMIN:
        return box->tokens[kind];
    case SHOWN_EXPIRED:
        return box->tokens[PTIER_ROLE_NONE];
    case SHOWN_WRONG:
        return box->wrong;
    case SHOWN_MALFORMED:
        return "let me in";
    case SHOWN_NONE:
    case SHOWN_COUNT:
        break;
    }
    return "";
}

static ptier_status
expected(way door, shown kind, const struct row *row)
{
    ptier_role role = PTIER_ROLE_NONE;
    if (kind >= SHOWN_EXPIRED)
        return PTIER_UNAUTHENTICATED; /* a token that is given counts, even for root */
    if (kind != SHOWN_NONE)
        role = (ptier_role)kind;
    else if (door == WAY_OWNER)
        role = PTIER_ROLE_ADMIN;
    else if (door == WAY_ROTATOR)
        role = PTIER_ROLE_ROTATOR;
    if (role >= row->least)
        return row->outcome;
    return role == PTIER_ROLE_NONE ? PTIER_UNAUTHENTICATED : PTIER_PERMISSION_DENIED;
}

/* False: this way cannot be tried here. */
static bool
open_way(const security_box *box, way door, raw_client *client)
{
    static const unsigned users[] = {0, SECURITY_BOX_USER, SECURITY_BOX_NOBODY};
    nng_tls_config *tls = NULL;
    if (door <= WAY_NOBODY) {
        if (door != WAY_OWNER && !security_box_become(users[door]))
            return false;
        raw_client_open(client, box->daemon.url);
        assert_true(door == WAY_OWNER || security_box_become(0));
    } else if (door == WAY_TCP) {
        raw_client_open(client, box->tcp_url);
    } else {
        tls = security_box_tls(box, "ca", door == WAY_MUTUAL ? "client" : NULL, SECURITY_BOX_HOST);
        raw_client_open_tls(client, box->tls_url, tls);
        nng_tls_config_free(tls);
    }
    client->timeout_ms = ANSWER_MS;
    return true;
}

static raw_reply
call_with(raw_client *client, const char *method, const char *token, const ProtobufCMessage *body,
          const ProtobufCMessageDescriptor *schema)
{
    uint8_t bytes[512];
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    size_t length = body ? protobuf_c_message_pack(body, bytes) : 0;
    assert_true(length <= sizeof bytes);
    header.method = (char *)(uintptr_t)method;
    header.token = (char *)(uintptr_t)token;
    return raw_client_call_bytes(client, &header, bytes, length, schema);
}

static const struct row *
row_of(const ptier_method *method)
{
    char name[128];
    (void)snprintf(name, sizeof name, "/%s/%s", method->service->descriptor->name, method->name);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    fail_msg("%s has no row in the matrix", name);
    return NULL;
}

static bool
is_shutdown(const struct row *row)
{
    return strstr(row->name, "/Shutdown") != NULL;
}

/* Returns whether the daemon was asked to end, and did. */
static bool
try_cell(security_box *box, raw_client *client, way door, shown kind, const struct row *row)
{
    ptier_status want = expected(door, kind, row);
    raw_reply reply = call_with(client, row->name, token_of(box, kind), NULL, NULL);
    if (!reply.header || (ptier_status)reply.header->code != want)
        fail_msg("%s, %s, token %d: %s instead of %s", row->name, way_names[door], kind,
                 reply.header ? ptier_status_text((ptier_status)reply.header->code)
                              : nng_strerror(reply.nng_error),
                 ptier_status_text(want));
    if (want != PTIER_OK && want != PTIER_NOT_FOUND)
        assert_true(reply.header->message && *reply.header->message);
    raw_reply_free(&reply);
    return is_shutdown(row) && want == PTIER_OK;
}

static void
every_method_by_every_door_with_every_token(void **state)
{
    security_box *box = *state;
    size_t cells = 0;
    for (int door = WAY_OWNER; door < WAYS; door++) {
        raw_client client;
        static const char *const many[] = {"--failed-logins", "100000", NULL};
        security_box_start(box, door == WAY_MUTUAL, many);
        if (!open_way(box, (way)door, &client)) {
            print_message("not root: nothing tried over %s\n", way_names[door]);
            assert_int_equal(test_daemon_end(&box->daemon, SIGTERM), 0);
            continue;
        }
        for (size_t i = 0; i < ptier_method_count; i++)
            for (int kind = SHOWN_NONE; kind < SHOWN_COUNT; kind++, cells++) {
                if (!try_cell(box, &client, (way)door, (shown)kind, row_of(&ptier_methods[i])))
                    continue;
                raw_client_close(&client); /* it has ended as it was asked to */
                assert_int_equal(test_daemon_end(&box->daemon, SIGTERM), 0);
                security_box_start(box, door == WAY_MUTUAL, many);
                assert_true(open_way(box, (way)door, &client));
            }
        raw_client_close(&client);
        assert_int_equal(test_daemon_end(&box->daemon, SIGTERM), 0);
    }
    assert_true(cells >= 4 * SHOWN_COUNT * ptier_method_count);
}

static void
matrix_is_that_of_the_methods_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < ptier_method_count; i++)
        assert_int_equal(row_of(&ptier_methods[i])->least, ptier_methods[i].role);
    assert_int_equal(sizeof rows / sizeof *rows, ptier_method_count);
}

/* ---- credentials ---- */

#define SECRET_USER "hidden-user"
#define SECRET_WORD "hidden-word"

static void
put_secret(security_box *box, char key[300])
{
    raw_client client;
    Proxytier__V1__PutRequest request = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    static char url[] = "http://" SECRET_USER ":" SECRET_WORD "@10.0.0.1:81";
    proxy.url = url;
    request.proxy = &proxy;
    raw_client_open(&client, box->daemon.url);
    raw_reply reply = raw_client_call(&client, "/proxytier.v1.ProxyCache/Put", &request.base,
                                      &proxytier__v1__put_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    (void)snprintf(key, 300, "%s", ((const Proxytier__V1__PutResponse *)reply.body)->result->key);
    raw_reply_free(&reply);
    raw_client_close(&client);
}

static bool
holds(const raw_reply *reply, const char *text)
{
    size_t length = protobuf_c_message_get_packed_size(reply->body);
    uint8_t *bytes = malloc(length + 1);
    assert_non_null(bytes);
    (void)protobuf_c_message_pack(reply->body, bytes);
    bool found = memmem(bytes, length, text, strlen(text)) != NULL;
    free(bytes);
    return found;
}

/* All methods that give records, and Replay: whoever is asked, a reader gets none of the two. */
static void
ask_all(security_box *box, raw_client *client, const char *key, ptier_role role)
{
    char *keys[] = {(char *)(uintptr_t)key};
    Proxytier__V1__GetRequest get = PROXYTIER__V1__GET_REQUEST__INIT;
    Proxytier__V1__GetManyRequest many = PROXYTIER__V1__GET_MANY_REQUEST__INIT;
    Proxytier__V1__PickRequest pick = PROXYTIER__V1__PICK_REQUEST__INIT;
    Proxytier__V1__ListRequest list = PROXYTIER__V1__LIST_REQUEST__INIT;
    get.key = keys[0];
    many.keys = keys;
    many.n_keys = 1;
    const struct {
        const char *method;
        const ProtobufCMessage *request;
        const ProtobufCMessageDescriptor *schema;
    } calls[] = {
        {"/proxytier.v1.ProxyCache/Get", &get.base, &proxytier__v1__get_response__descriptor},
        {"/proxytier.v1.ProxyCache/GetMany", &many.base,
         &proxytier__v1__get_many_response__descriptor},
        {"/proxytier.v1.ProxyCache/Pick", &pick.base, &proxytier__v1__pick_response__descriptor},
        {"/proxytier.v1.ProxyCache/List", &list.base, &proxytier__v1__list_response__descriptor},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        raw_reply reply = call_with(client, calls[i].method, box->tokens[role], calls[i].request,
                                    calls[i].schema);
        assert_int_equal(raw_status(&reply), PTIER_OK);
        assert_true(holds(&reply, "http://10.0.0.1:81"));
        assert_int_equal(holds(&reply, SECRET_WORD), role >= PTIER_ROLE_ROTATOR);
        assert_int_equal(holds(&reply, SECRET_USER), role >= PTIER_ROLE_ROTATOR);
        raw_reply_free(&reply);
    }
}

static void
reader_gets_no_credentials_whoever_it_is(void **state)
{
    security_box *box = *state;
    char key[300];
    security_box_start(box, true, NULL);
    put_secret(box, key);
    for (int door = WAY_OWNER; door < WAYS; door++) {
        raw_client client;
        if (door == WAY_TLS || !open_way(box, (way)door, &client))
            continue;
        ask_all(box, &client, key, PTIER_ROLE_READER);
        ask_all(box, &client, key, PTIER_ROLE_ROTATOR);
        raw_reply reply = call_with(&client, "/proxytier.v1.Admin/Export",
                                    box->tokens[PTIER_ROLE_READER], NULL, NULL);
        assert_int_equal(raw_status(&reply), PTIER_PERMISSION_DENIED);
        raw_reply_free(&reply);
        raw_client_close(&client);
    }
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, security_box_set_up, security_box_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrix_is_that_of_the_methods_table),
        TEST(every_method_by_every_door_with_every_token),
        TEST(reader_gets_no_credentials_whoever_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
