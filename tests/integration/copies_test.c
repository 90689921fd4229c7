/* What a daemon tells and is told by clients that keep copies: revisions of writes, the entry that
 * a put made, uses of copies, and heartbeats that never say less than was published. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <nng/nng.h>
#include <nng/protocol/pubsub0/sub.h>

#include "framing.h"
#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/events.pb-c.h"
#include "proxytier/v1/info.pb-c.h"
#include "support/daemon.h"
#include "support/raw_client.h"

/* Requests are only read by packing, but the generated structs have no const. */
static char key_k[] = "k", key_unknown[] = "unknown", key_none[] = "";
static char url_k[] = "http://user:secret@192.0.2.1:80";

typedef struct fixture {
    test_daemon daemon;
    raw_client client;
} fixture;

static int
start(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    test_daemon_init(&f->daemon);
    test_daemon_start(&f->daemon, NULL);
    raw_client_open(&f->client, f->daemon.url);
    *state = f;
    return 0;
}

static int
stop(void **state)
{
    fixture *f = *state;
    raw_client_close(&f->client);
    test_daemon_fini(&f->daemon);
    free(f);
    return 0;
}

static raw_reply
put(fixture *f, bool return_proxy)
{
    Proxytier__V1__PutRequest request = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    proxy.key = key_k;
    proxy.url = url_k;
    request.proxy = &proxy;
    request.return_proxy = return_proxy;
    return raw_client_call(&f->client, "/proxytier.v1.ProxyCache/Put", &request.base,
                           &proxytier__v1__put_response__descriptor);
}

static void
put_returns_the_entry_when_asked(void **state)
{
    fixture *f = *state;
    raw_reply reply = put(f, false);
    const Proxytier__V1__PutResponse *response = (Proxytier__V1__PutResponse *)reply.body;
    assert_int_equal(raw_status(&reply), PTIER_OK);
    assert_null(response->proxy);
    raw_reply_free(&reply);
    reply = put(f, true);
    response = (Proxytier__V1__PutResponse *)reply.body;
    assert_int_equal(raw_status(&reply), PTIER_OK);
    assert_non_null(response->proxy);
    assert_string_equal(response->proxy->key, "k");
    assert_string_equal(response->proxy->url, "http://192.0.2.1:80");
    assert_string_equal(response->proxy->password, "secret");
    assert_int_equal(response->proxy->revision, response->result->revision);
    assert_true(response->as_of >= response->result->revision);
    assert_true(response->proxy->remaining_ttl_ms > 0);
    raw_reply_free(&reply);
}

static uint64_t
report(fixture *f, Proxytier__V1__ReportOutcome outcome)
{
    Proxytier__V1__ReportHealthRequest request = PROXYTIER__V1__REPORT_HEALTH_REQUEST__INIT;
    Proxytier__V1__HealthReport one = PROXYTIER__V1__HEALTH_REPORT__INIT, *list[] = {&one};
    one.key = key_k;
    one.outcome = outcome;
    request.reports = list;
    request.n_reports = 1;
    raw_reply reply =
        raw_client_call(&f->client, "/proxytier.v1.ProxyCache/ReportHealth", &request.base,
                        &proxytier__v1__report_health_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    uint64_t revision = ((Proxytier__V1__ReportHealthResponse *)reply.body)->results[0]->revision;
    raw_reply_free(&reply);
    return revision;
}

static void
reports_and_deletions_say_their_revision(void **state)
{
    fixture *f = *state;
    raw_reply reply = put(f, false);
    uint64_t last = ((Proxytier__V1__PutResponse *)reply.body)->result->revision;
    raw_reply_free(&reply);
    uint64_t first_success = report(f, PROXYTIER__V1__REPORT_OUTCOME__REPORT_OUTCOME_OK);
    assert_true(first_success > last); /* unknown → healthy */
    assert_int_equal(report(f, PROXYTIER__V1__REPORT_OUTCOME__REPORT_OUTCOME_OK), 0);
    for (int i = 0; i < 3; i++) { /* the third removes */
        uint64_t revision = report(f, PROXYTIER__V1__REPORT_OUTCOME__REPORT_OUTCOME_FAILED);
        assert_true(revision > last);
        last = revision;
    }
    assert_int_equal(report(f, PROXYTIER__V1__REPORT_OUTCOME__REPORT_OUTCOME_FAILED), 0); /* gone */
    reply = put(f, false);
    last = ((Proxytier__V1__PutResponse *)reply.body)->result->revision;
    raw_reply_free(&reply);
    Proxytier__V1__DeleteRequest request = PROXYTIER__V1__DELETE_REQUEST__INIT;
    char *keys[] = {key_k};
    request.keys = keys;
    request.n_keys = 1;
    reply = raw_client_call(&f->client, "/proxytier.v1.ProxyCache/Delete", &request.base,
                            &proxytier__v1__delete_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    assert_true(((Proxytier__V1__DeleteResponse *)reply.body)->revision > last);
    raw_reply_free(&reply);
}

static raw_reply
report_access(fixture *f, char *key, uint32_t count)
{
    Proxytier__V1__ReportAccessRequest request = PROXYTIER__V1__REPORT_ACCESS_REQUEST__INIT;
    Proxytier__V1__Access one = PROXYTIER__V1__ACCESS__INIT, *list[] = {&one};
    one.key = key;
    one.count = count;
    request.accesses = list;
    request.n_accesses = 1;
    return raw_client_call(&f->client, "/proxytier.v1.ProxyCache/ReportAccess", &request.base,
                           &proxytier__v1__report_access_response__descriptor);
}

static void
reported_uses_count_as_accesses(void **state)
{
    fixture *f = *state;
    raw_reply reply = put(f, false);
    raw_reply_free(&reply);
    reply = report_access(f, key_k, 41);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    assert_int_equal(((Proxytier__V1__ReportAccessResponse *)reply.body)->found, 1);
    raw_reply_free(&reply);
    reply = report_access(f, key_unknown, 1);
    assert_int_equal(((Proxytier__V1__ReportAccessResponse *)reply.body)->found, 0);
    raw_reply_free(&reply);
    reply = report_access(f, key_none, 1);
    assert_int_equal(raw_status(&reply), PTIER_INVALID_ARGUMENT);
    raw_reply_free(&reply);

    Proxytier__V1__GetRequest request = PROXYTIER__V1__GET_REQUEST__INIT;
    request.key = key_k;
    reply = raw_client_call(&f->client, "/proxytier.v1.ProxyCache/Get", &request.base,
                            &proxytier__v1__get_response__descriptor);
    assert_int_equal(((Proxytier__V1__GetResponse *)reply.body)->proxy->access_count, 42);
    raw_reply_free(&reply);
}

/* 2,000 changes at once: more than a batch holds, so that heartbeats lie in the middle. */
static void
put_burst(fixture *f)
{
    enum { BURST = 2000 };
    static Proxytier__V1__Proxy proxies[BURST], *list[BURST];
    static char urls[BURST][32];
    Proxytier__V1__PutManyRequest request = PROXYTIER__V1__PUT_MANY_REQUEST__INIT;
    for (int i = 0; i < BURST; i++) {
        snprintf(urls[i], sizeof urls[i], "http://10.0.%d.%d:80", i / 250, i % 250);
        proxytier__v1__proxy__init(&proxies[i]);
        proxies[i].url = urls[i];
        list[i] = &proxies[i];
    }
    request.proxies = list;
    request.n_proxies = BURST;
    raw_reply reply = raw_client_call(&f->client, "/proxytier.v1.ProxyCache/PutMany", &request.base,
                                      &proxytier__v1__put_many_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    raw_reply_free(&reply);
}

static void
heartbeats_never_say_a_lower_revision_than_was_published(void **state)
{
    fixture *f = *state;
    nng_socket socket;
    nng_msg *message;
    assert_int_equal(nng_sub0_open(&socket), 0);
    assert_int_equal(nng_socket_set_int(socket, NNG_OPT_RECVBUF, 1024), 0);
    assert_int_equal(nng_socket_set(socket, NNG_OPT_SUB_SUBSCRIBE, "PTC1", 4), 0);
    assert_int_equal(nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, 10000), 0);
    assert_int_equal(nng_dial(socket, f->daemon.events_url, NULL, 0), 0);
    assert_int_equal(nng_recvmsg(socket, &message, 0), 0); /* it follows now */
    nng_msg_free(message);
    put_burst(f);
    uint64_t revision = 0, sequence = 0;
    while (sequence < 2000) {
        assert_int_equal(nng_recvmsg(socket, &message, 0), 0);
        Proxytier__V1__EventBatch *batch = proxytier__v1__event_batch__unpack(
            NULL, nng_msg_len(message) - PTIER_TOPIC_BYTES,
            (uint8_t *)nng_msg_body(message) + PTIER_TOPIC_BYTES);
        nng_msg_free(message);
        assert_non_null(batch);
        for (size_t i = 0; i < batch->n_events; i++) {
            revision = batch->events[i]->revision;
            sequence = batch->events[i]->sequence;
        }
        assert_true(batch->heartbeat->revision >= revision);
        proxytier__v1__event_batch__free_unpacked(batch, NULL);
    }
    assert_int_equal(nng_close(socket), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(put_returns_the_entry_when_asked),
        CASE(reports_and_deletions_say_their_revision),
        CASE(reported_uses_count_as_accesses),
        CASE(heartbeats_never_say_a_lower_revision_than_was_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
