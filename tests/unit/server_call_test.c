/* server/call.c, methods.c, wire_check.c, bytes.c: a request's way without a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "framing.h"
#include "methods.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "wire_check.h"

static size_t
frame(uint8_t *out, const char *method, uint32_t timeout_ms, size_t request_id_bytes)
{
    static uint8_t id[64];
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = (char *)(uintptr_t)method;
    header.timeout_ms = timeout_ms;
    header.request_id.data = id;
    header.request_id.len = request_id_bytes;
    size_t length = proxytier__v1__request_header__pack(&header, out + PTIER_FRAME_PREFIX);
    ptier_frame_prefix(out, length);
    return PTIER_FRAME_PREFIX + length;
}

static ptier_status
reply_status(ptier_call *call)
{
    ptier_bytes out = {0};
    ptier_frame parts;
    assert_int_equal(ptier_call_finish(call, &out), PTIER_OK);
    assert_int_equal(ptier_frame_split(out.data, out.length, &parts, NULL), PTIER_OK);
    Proxytier__V1__ResponseHeader *header =
        proxytier__v1__response_header__unpack(NULL, parts.header_length, parts.header);
    assert_non_null(header);
    assert_int_equal(header->boot_id.len, PTIER_ID_BYTES);
    ptier_status status = (ptier_status)header->code;
    proxytier__v1__response_header__free_unpacked(header, NULL);
    ptier_bytes_fini(&out);
    return status;
}

/* What becomes of one call of Health.Check, which needs no cache. */
static ptier_status
check_with(ptier_service *service, ptier_role role, const char *method, int64_t age_ms,
           uint32_t timeout_ms, size_t id_bytes)
{
    uint8_t message[256];
    ptier_call call;
    ptier_call_init(&call, service);
    size_t length = frame(message, method, timeout_ms, id_bytes);
    ptier_peer peer = {.role = role};
    if (ptier_call_begin(&call, &peer, ptier_monotonic_ms() - age_ms, message, length) ==
            PTIER_OK &&
        ptier_call_admit(&call))
        ptier_call_run(&call);
    ptier_status status = reply_status(&call);
    ptier_call_fini(&call);
    return status;
}

static const char check[] = "/proxytier.v1.Health/Check";

static void
methods_follow_their_descriptors(void **state)
{
    (void)state;
    const ProtobufCServiceDescriptor *const services[] = {
        &proxytier__v1__proxy_cache__descriptor, &proxytier__v1__events__descriptor,
        &proxytier__v1__admin__descriptor,       &proxytier__v1__server_info__descriptor,
        &proxytier__v1__health__descriptor,      &proxytier__v1__reflection__descriptor,
    };
    for (size_t s = 0; s < sizeof services / sizeof *services; s++)
        for (unsigned m = 0; m < services[s]->n_methods; m++) {
            char name[128];
            (void)snprintf(name, sizeof name, "/%s/%s", services[s]->name,
                           services[s]->methods[m].name);
            const ptier_method *method = ptier_method_find(name);
            assert_non_null(method);
            assert_int_equal(method->index, m);
            assert_ptr_equal(method->service->descriptor, services[s]);
        }
    assert_null(ptier_method_find("/proxytier.v1.Health"));
    assert_null(ptier_method_find("/proxytier.v1.Healt/Check"));
    assert_null(ptier_method_find("proxytier.v1.Health/Check"));
}

static void
roles_are_compared_before_anything_runs(void **state)
{
    (void)state;
    ptier_service service = {0};
    assert_int_equal(check_with(&service, PTIER_ROLE_NONE, check, 0, 0, 0), PTIER_OK);
    const char *clear = "/proxytier.v1.Admin/Clear", *put = "/proxytier.v1.ProxyCache/Put";
    const char *reset = "/proxytier.v1.Admin/ResetStatistics";
    assert_int_equal(check_with(&service, PTIER_ROLE_ROTATOR, clear, 0, 0, 0),
                     PTIER_PERMISSION_DENIED);
    assert_int_equal(check_with(&service, PTIER_ROLE_ROTATOR, reset, 0, 0, 0),
                     PTIER_PERMISSION_DENIED);
    assert_int_equal(check_with(&service, PTIER_ROLE_READER, put, 0, 0, 0),
                     PTIER_PERMISSION_DENIED);
    assert_int_equal(check_with(&service, PTIER_ROLE_NONE, "/proxytier.v1.ProxyCache/Get", 0, 0, 0),
                     PTIER_UNAUTHENTICATED);
}

static void
call_past_its_deadline_is_not_executed(void **state)
{
    (void)state;
    ptier_service service = {0};
    assert_int_equal(check_with(&service, PTIER_ROLE_ADMIN, check, 101, 100, 0),
                     PTIER_DEADLINE_EXCEEDED);
    assert_int_equal(check_with(&service, PTIER_ROLE_ADMIN, check, 101, 60000, 0), PTIER_OK);
    assert_int_equal(
        check_with(&service, PTIER_ROLE_ADMIN, check, PTIER_TIMEOUT_DEFAULT_MS + 1, 0, 0),
        PTIER_DEADLINE_EXCEEDED);
}

static void
request_id_has_sixteen_bytes_or_none(void **state)
{
    (void)state;
    ptier_service service = {0};
    assert_int_equal(check_with(&service, PTIER_ROLE_ADMIN, check, 0, 0, 16), PTIER_OK);
    assert_int_equal(check_with(&service, PTIER_ROLE_ADMIN, check, 0, 0, 15),
                     PTIER_INVALID_ARGUMENT);
}

static void
stopping_service_refuses_all_but_check(void **state)
{
    (void)state;
    ptier_service service = {.stopping = true};
    assert_int_equal(check_with(&service, PTIER_ROLE_ADMIN, check, 0, 0, 0), PTIER_OK);
    assert_int_equal(
        check_with(&service, PTIER_ROLE_ADMIN, "/proxytier.v1.ProxyCache/Get", 0, 0, 0),
        PTIER_UNAVAILABLE);
}

/* ---- wire_check ---- */

static ptier_status
check_key(const char *bytes, size_t length)
{
    uint8_t message[64] = {0x0a, (uint8_t)length};
    memcpy(message + 2, bytes, length);
    return ptier_wire_check(&proxytier__v1__get_request__descriptor, message, length + 2, NULL);
}
#define CHECK_KEY(bytes) check_key(bytes, sizeof(bytes) - 1)

static void
strings_must_be_utf8_without_nul(void **state)
{
    (void)state;
    assert_int_equal(CHECK_KEY("plain"), PTIER_OK);
    assert_int_equal(CHECK_KEY(""), PTIER_OK);
    assert_int_equal(CHECK_KEY("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"), PTIER_OK);
    assert_int_equal(CHECK_KEY("\xf4\x8f\xbf\xbf"), PTIER_OK);
    assert_int_equal(CHECK_KEY("a\0b"), PTIER_INVALID_ARGUMENT);
    assert_int_equal(CHECK_KEY("\x80"), PTIER_INVALID_ARGUMENT);
    assert_int_equal(CHECK_KEY("\xc0\x80"), PTIER_INVALID_ARGUMENT);         /* overlong */
    assert_int_equal(CHECK_KEY("\xe0\x9f\xbf"), PTIER_INVALID_ARGUMENT);     /* overlong */
    assert_int_equal(CHECK_KEY("\xed\xa0\x80"), PTIER_INVALID_ARGUMENT);     /* surrogate */
    assert_int_equal(CHECK_KEY("\xf4\x90\x80\x80"), PTIER_INVALID_ARGUMENT); /* beyond Unicode */
    assert_int_equal(CHECK_KEY("\xe2\x82"), PTIER_INVALID_ARGUMENT);         /* cut */
}

static void
wire_check_sees_into_nested_messages(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *put = &proxytier__v1__put_request__descriptor;
    const uint8_t bad_url[] = {0x0a, 4, 0x12, 2, 'a', 0xff};
    const uint8_t bad_health[] = {0x0a, 2, 0x40, 6};
    const uint8_t good_health[] = {0x0a, 2, 0x40, 5};
    const uint8_t negative[] = {0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    const uint8_t unknown_field[] = {0xf8, 0x07, 0x01};
    ptier_error error;
    assert_int_equal(ptier_wire_check(put, bad_url, sizeof bad_url, &error),
                     PTIER_INVALID_ARGUMENT);
    assert_string_equal(error.message, "field url is not valid UTF-8");
    assert_int_equal(ptier_wire_check(put, bad_health, sizeof bad_health, &error),
                     PTIER_INVALID_ARGUMENT);
    assert_int_equal(ptier_wire_check(put, good_health, sizeof good_health, &error), PTIER_OK);
    assert_int_equal(ptier_wire_check(put, negative, sizeof negative, &error),
                     PTIER_INVALID_ARGUMENT);
    assert_int_equal(ptier_wire_check(put, unknown_field, sizeof unknown_field, &error), PTIER_OK);
}

static void
cut_messages_are_refused(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *put = &proxytier__v1__put_request__descriptor;
    const uint8_t whole[] = {0x0a, 4, 0x12, 2, 'a', 'b', 0x10, 0x01};
    for (size_t length = 0; length <= sizeof whole; length++) {
        ptier_status expected =
            length == 0 || length == 6 || length == 8 ? PTIER_OK : PTIER_INVALID_ARGUMENT;
        assert_int_equal(ptier_wire_check(put, whole, length, NULL), expected);
    }
}

/* ---- bytes ---- */

static void
appended_fields_read_as_one_message(void **state)
{
    (void)state;
    ptier_bytes bytes = {0};
    char long_key[301];
    memset(long_key, 'k', 300);
    long_key[300] = '\0';
    for (int i = 0; i < 100; i++) {
        Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
        proxy.key = i % 2 ? long_key : long_key + 290;
        assert_int_equal(ptier_bytes_append_field(&bytes, 1, &proxy.base), PTIER_OK);
    }
    Proxytier__V1__GetManyResponse rest = PROXYTIER__V1__GET_MANY_RESPONSE__INIT;
    rest.as_of = 7;
    assert_int_equal(ptier_bytes_append_message(&bytes, &rest.base), PTIER_OK);
    Proxytier__V1__GetManyResponse *whole =
        proxytier__v1__get_many_response__unpack(NULL, bytes.length, bytes.data);
    assert_non_null(whole);
    assert_int_equal(whole->n_proxies, 100);
    assert_int_equal(strlen(whole->proxies[0]->key), 10);
    assert_int_equal(strlen(whole->proxies[99]->key), 300);
    assert_int_equal(whole->as_of, 7);
    proxytier__v1__get_many_response__free_unpacked(whole, NULL);
    ptier_bytes_fini(&bytes);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_follow_their_descriptors),
        cmocka_unit_test(roles_are_compared_before_anything_runs),
        cmocka_unit_test(call_past_its_deadline_is_not_executed),
        cmocka_unit_test(request_id_has_sixteen_bytes_or_none),
        cmocka_unit_test(stopping_service_refuses_all_but_check),
        cmocka_unit_test(strings_must_be_utf8_without_nul),
        cmocka_unit_test(wire_check_sees_into_nested_messages),
        cmocka_unit_test(cut_messages_are_refused),
        cmocka_unit_test(appended_fields_read_as_one_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
