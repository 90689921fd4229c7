/* The daemon from outside: frames over nng without the SDK, its life cycle as a process, rude
 * clients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <nng/nng.h>
#include <nng/protocol/pubsub0/sub.h>

#include "framing.h"
#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/events.pb-c.h"
#include "proxytier/v1/info.pb-c.h"
#include "support/daemon.h"
#include "support/raw_client.h"
#include "support/monotonic.h"

#define TEXT(constant) ((char *)(uintptr_t)(constant))
#define CALL(f, service, Method, request, response)                                                \
    raw_client_call(&(f)->client, "/proxytier.v1." service "/" Method, &(request)->base,           \
                    &proxytier__v1__##response##__descriptor)

typedef struct fixture {
    test_daemon daemon;
    raw_client client;
} fixture;

static int
set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    test_daemon_init(&f->daemon);
    test_daemon_start(&f->daemon, NULL);
    raw_client_open(&f->client, f->daemon.url);
    *state = f;
    return 0;
}

/* The client anew as well: the old one may not have noticed yet that its connection is gone. */
static void
start_again(fixture *f, const char *const *extra)
{
    raw_client_close(&f->client);
    test_daemon_start(&f->daemon, extra);
    raw_client_open(&f->client, f->daemon.url);
}

static void
restart(fixture *f, const char *const *extra)
{
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
    start_again(f, extra);
}

static int
tear_down(void **state)
{
    fixture *f = *state;
    raw_client_close(&f->client);
    test_daemon_fini(&f->daemon);
    free(f);
    return 0;
}

/* ---- small helpers ---- */

static void
expect_fails(raw_reply reply, ptier_status status, const char *part)
{
    assert_int_equal(raw_status(&reply), status);
    if (!strstr(reply.header->message, part))
        fail_msg("'%s' does not mention '%s'", reply.header->message, part);
    raw_reply_free(&reply);
}

static void
put_one(fixture *f, const char *url, const char *user, const char *password, int64_t ttl_ms,
        char key[300])
{
    Proxytier__V1__PutRequest request = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    proxy.url = TEXT(url);
    proxy.username = TEXT(user);
    proxy.password = TEXT(password);
    if (ttl_ms >= 0) {
        proxy.ttl_case = PROXYTIER__V1__PROXY__TTL_TTL_MS;
        proxy.ttl_ms = ttl_ms;
    }
    request.proxy = &proxy;
    raw_reply reply = CALL(f, "ProxyCache", "Put", &request, put_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    const Proxytier__V1__PutResponse *put = (const Proxytier__V1__PutResponse *)reply.body;
    assert_non_null(put->result);
    assert_true(put->result->revision > 0);
    if (key)
        (void)snprintf(key, 300, "%s", put->result->key);
    raw_reply_free(&reply);
}

static raw_reply
get(fixture *f, const char *key)
{
    Proxytier__V1__GetRequest request = PROXYTIER__V1__GET_REQUEST__INIT;
    request.key = TEXT(key);
    return CALL(f, "ProxyCache", "Get", &request, get_response);
}

static ptier_status
get_status(fixture *f, const char *key)
{
    raw_reply reply = get(f, key);
    ptier_status status = raw_status(&reply);
    raw_reply_free(&reply);
    return status;
}

/* Puts `count` records http://10.1.x.y:8080 in one call. */
static void
put_many(fixture *f, size_t count)
{
    Proxytier__V1__PutManyRequest request = PROXYTIER__V1__PUT_MANY_REQUEST__INIT;
    Proxytier__V1__Proxy *proxies = calloc(count, sizeof *proxies);
    Proxytier__V1__Proxy **list = calloc(count, sizeof *list);
    char(*urls)[40] = calloc(count, sizeof *urls);
    assert_true(proxies && list && urls);
    for (size_t i = 0; i < count; i++) {
        proxytier__v1__proxy__init(&proxies[i]);
        (void)snprintf(urls[i], sizeof urls[i], "http://10.1.%zu.%zu:8080", i / 250, i % 250 + 1);
        proxies[i].url = urls[i];
        proxies[i].source = TEXT(i % 2 ? "odd" : "even");
        list[i] = &proxies[i];
    }
    request.proxies = list;
    request.n_proxies = count;
    raw_reply reply = CALL(f, "ProxyCache", "PutMany", &request, put_many_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    const Proxytier__V1__PutManyResponse *put = (const Proxytier__V1__PutManyResponse *)reply.body;
    assert_int_equal(put->n_results, count);
    assert_int_equal(put->durability, PROXYTIER__V1__DURABILITY__DURABILITY_LOGGED);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(put->results[i]->outcome, PROXYTIER__V1__PUT_OUTCOME__PUT_OUTCOME_CREATED);
    raw_reply_free(&reply);
    free(proxies);
    free(list);
    free(urls);
}

/* ---- calls ---- */

static void
put_record_comes_back_whole(void **state)
{
    fixture *f = *state;
    char key[300];
    put_one(f, "http://user-a:secret-a@10.0.0.1:8080", "", "", 60000, key);
    raw_reply reply = get(f, key);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    assert_int_equal(reply.header->boot_id.len, 16);
    assert_true(reply.header->boottime_ms > 0);
    const Proxytier__V1__GetResponse *response = (const Proxytier__V1__GetResponse *)reply.body;
    assert_string_equal(response->proxy->url, "http://10.0.0.1:8080");
    assert_string_equal(response->proxy->username, "user-a");
    assert_string_equal(response->proxy->password, "secret-a");
    assert_int_equal(response->proxy->ttl_ms, 60000);
    assert_true(response->proxy->remaining_ttl_ms > 0 &&
                response->proxy->remaining_ttl_ms <= 60000);
    assert_int_equal(response->tier, PROXYTIER__V1__TIER__TIER_L1);
    assert_true(response->as_of >= response->proxy->revision);
    raw_reply_free(&reply);
}

static void
missing_key_is_not_found(void **state)
{
    fixture *f = *state;
    expect_fails(get(f, "nothing-has-this-key"), PTIER_NOT_FOUND, "no entry");
    expect_fails(get(f, ""), PTIER_INVALID_ARGUMENT, "key 1 is empty");
}

static void
bad_records_of_a_batch_are_rejected_alone(void **state)
{
    fixture *f = *state;
    Proxytier__V1__Proxy good = PROXYTIER__V1__PROXY__INIT, bad = PROXYTIER__V1__PROXY__INIT,
                         labels = PROXYTIER__V1__PROXY__INIT;
    Proxytier__V1__Label nameless = PROXYTIER__V1__LABEL__INIT, *label_list[] = {&nameless};
    Proxytier__V1__Proxy *list[] = {&bad, &labels, &good};
    good.url = TEXT("socks5://10.0.0.7:1080");
    bad.url = TEXT("not a url");
    labels.url = TEXT("http://10.0.0.8:80");
    labels.labels = label_list;
    labels.n_labels = 1;
    Proxytier__V1__PutManyRequest request = PROXYTIER__V1__PUT_MANY_REQUEST__INIT;
    request.proxies = list;
    request.n_proxies = 3;
    raw_reply reply = CALL(f, "ProxyCache", "PutMany", &request, put_many_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    const Proxytier__V1__PutManyResponse *put = (const Proxytier__V1__PutManyResponse *)reply.body;
    assert_int_equal(put->results[0]->outcome, PROXYTIER__V1__PUT_OUTCOME__PUT_OUTCOME_REJECTED);
    assert_true(strlen(put->results[0]->message) > 0);
    assert_int_equal(put->results[1]->outcome, PROXYTIER__V1__PUT_OUTCOME__PUT_OUTCOME_REJECTED);
    assert_string_equal(put->results[1]->message, "label 1 has no name");
    assert_int_equal(put->results[2]->outcome, PROXYTIER__V1__PUT_OUTCOME__PUT_OUTCOME_CREATED);
    raw_reply_free(&reply);

    Proxytier__V1__PutRequest single = PROXYTIER__V1__PUT_REQUEST__INIT;
    expect_fails(CALL(f, "ProxyCache", "Put", &single, put_response), PTIER_INVALID_ARGUMENT,
                 "no proxy");
    single.proxy = &labels;
    expect_fails(CALL(f, "ProxyCache", "Put", &single, put_response), PTIER_INVALID_ARGUMENT,
                 "no name");
}

static void
get_many_answers_in_order_without_the_missing(void **state)
{
    fixture *f = *state;
    char first[300], second[300];
    put_one(f, "http://10.0.0.1:1", "", "", -1, first);
    put_one(f, "http://10.0.0.2:2", "", "", -1, second);
    char *keys[] = {second, TEXT("missing"), first};
    Proxytier__V1__GetManyRequest request = PROXYTIER__V1__GET_MANY_REQUEST__INIT;
    request.keys = keys;
    request.n_keys = 3;
    raw_reply reply = CALL(f, "ProxyCache", "GetMany", &request, get_many_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    const Proxytier__V1__GetManyResponse *response =
        (const Proxytier__V1__GetManyResponse *)reply.body;
    assert_int_equal(response->n_proxies, 2);
    assert_string_equal(response->proxies[0]->key, second);
    assert_string_equal(response->proxies[1]->key, first);
    assert_true(response->as_of > 0);
    raw_reply_free(&reply);
}

static void
third_failure_removes_the_entry(void **state)
{
    fixture *f = *state;
    char key[300];
    put_one(f, "http://10.0.0.3:3", "", "", -1, key);
    Proxytier__V1__HealthReport report = PROXYTIER__V1__HEALTH_REPORT__INIT, *list[] = {&report};
    Proxytier__V1__ReportHealthRequest request = PROXYTIER__V1__REPORT_HEALTH_REQUEST__INIT;
    report.key = key;
    request.reports = list;
    request.n_reports = 1;
    expect_fails(CALL(f, "ProxyCache", "ReportHealth", &request, report_health_response),
                 PTIER_INVALID_ARGUMENT, "no outcome");
    report.outcome = PROXYTIER__V1__REPORT_OUTCOME__REPORT_OUTCOME_FAILED;
    for (unsigned i = 1; i <= 3; i++) {
        raw_reply reply = CALL(f, "ProxyCache", "ReportHealth", &request, report_health_response);
        assert_int_equal(raw_status(&reply), PTIER_OK);
        const Proxytier__V1__ReportResult *result =
            ((const Proxytier__V1__ReportHealthResponse *)reply.body)->results[0];
        assert_true(result->found);
        assert_int_equal(result->failure_count, i);
        assert_int_equal(result->removed, i == 3);
        raw_reply_free(&reply);
    }
    assert_int_equal(get_status(f, key), PTIER_NOT_FOUND);
}

static void
delete_counts_what_was_there(void **state)
{
    fixture *f = *state;
    char key[300];
    put_one(f, "http://10.0.0.4:4", "", "", -1, key);
    char *keys[] = {key, TEXT("missing")};
    Proxytier__V1__DeleteRequest request = PROXYTIER__V1__DELETE_REQUEST__INIT;
    request.keys = keys;
    request.n_keys = 2;
    raw_reply reply = CALL(f, "ProxyCache", "Delete", &request, delete_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    const Proxytier__V1__DeleteResponse *response =
        (const Proxytier__V1__DeleteResponse *)reply.body;
    assert_int_equal(response->deleted, 1);
    assert_int_equal(response->not_found, 1);
    raw_reply_free(&reply);
    assert_int_equal(get_status(f, key), PTIER_NOT_FOUND);
}

static void
pick_gives_distinct_entries_that_match(void **state)
{
    fixture *f = *state;
    Proxytier__V1__PickRequest request = PROXYTIER__V1__PICK_REQUEST__INIT;
    Proxytier__V1__Filter filter = PROXYTIER__V1__FILTER__INIT;
    expect_fails(CALL(f, "ProxyCache", "Pick", &request, pick_response), PTIER_NOT_FOUND,
                 "matches");
    put_many(f, 100);
    filter.source = TEXT("odd");
    request.filter = &filter;
    request.count = 60;
    raw_reply reply = CALL(f, "ProxyCache", "Pick", &request, pick_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    const Proxytier__V1__PickResponse *response = (const Proxytier__V1__PickResponse *)reply.body;
    assert_int_equal(response->n_proxies, 50);
    for (size_t i = 0; i < response->n_proxies; i++) {
        assert_string_equal(response->proxies[i]->source, "odd");
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(response->proxies[i]->key, response->proxies[k]->key);
    }
    raw_reply_free(&reply);
}

static void
list_pages_cover_everything_with_one_as_of(void **state)
{
    fixture *f = *state;
    put_many(f, 1500);
    Proxytier__V1__ListRequest request = PROXYTIER__V1__LIST_REQUEST__INIT;
    char token[64] = "";
    uint64_t as_of = 0;
    size_t listed = 0, pages = 0;
    request.page_size = 400;
    do {
        request.page_token = token;
        raw_reply reply = CALL(f, "ProxyCache", "List", &request, list_response);
        assert_int_equal(raw_status(&reply), PTIER_OK);
        const Proxytier__V1__ListResponse *page = (const Proxytier__V1__ListResponse *)reply.body;
        assert_true(page->n_proxies <= 400);
        assert_true(pages == 0 || page->as_of == as_of);
        as_of = page->as_of;
        listed += page->n_proxies;
        pages++;
        assert_true(pages < 100);
        assert_true(strlen(page->next_page_token) < 40);
        strcpy(token, page->next_page_token);
        if (pages == 1)
            put_one(f, "http://10.9.9.9:9", "", "", -1, NULL); /* as_of does not move */
        raw_reply_free(&reply);
    } while (*token);
    assert_true(listed == 1500 || listed == 1501);
    request.page_token = TEXT("junk");
    expect_fails(CALL(f, "ProxyCache", "List", &request, list_response), PTIER_INVALID_ARGUMENT,
                 "page_token");
    request.page_token = TEXT("00000000000000010000000000000001000000");
    expect_fails(CALL(f, "ProxyCache", "List", &request, list_response), PTIER_ABORTED,
                 "restarted");
}

static void
export_gives_lines_without_plain_credentials(void **state)
{
    fixture *f = *state;
    put_one(f, "http://10.0.0.5:5", "plain-user", "plain-secret", -1, NULL);
    Proxytier__V1__ExportRequest request = PROXYTIER__V1__EXPORT_REQUEST__INIT;
    for (int plain = 0; plain < 2; plain++) {
        request.plain_credentials = plain;
        raw_reply reply = CALL(f, "Admin", "Export", &request, export_response);
        assert_int_equal(raw_status(&reply), PTIER_OK);
        const Proxytier__V1__ExportResponse *page =
            (const Proxytier__V1__ExportResponse *)reply.body;
        assert_int_equal(page->entries, 1);
        assert_int_equal(page->jsonl.data[page->jsonl.len - 1], '\n');
        assert_int_equal(memmem(page->jsonl.data, page->jsonl.len, "plain-secret", 12) != NULL,
                         plain);
        assert_int_equal(memmem(page->jsonl.data, page->jsonl.len, "plain-user", 10) != NULL,
                         plain);
        raw_reply_free(&reply);
    }
}

static void
expect_reset_gives_the_puts(fixture *f, uint64_t puts)
{
    Proxytier__V1__ResetStatisticsRequest request = PROXYTIER__V1__RESET_STATISTICS_REQUEST__INIT;
    raw_reply reply = CALL(f, "Admin", "ResetStatistics", &request, get_statistics_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    assert_int_equal(((const Proxytier__V1__GetStatisticsResponse *)reply.body)->puts, puts);
    raw_reply_free(&reply);
}

static void
clear_empties_and_statistics_count(void **state)
{
    fixture *f = *state;
    put_many(f, 300);
    Proxytier__V1__ClearRequest clear = PROXYTIER__V1__CLEAR_REQUEST__INIT;
    raw_reply reply = CALL(f, "Admin", "Clear", &clear, clear_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    assert_int_equal(((const Proxytier__V1__ClearResponse *)reply.body)->cleared, 300);
    raw_reply_free(&reply);
    clear.tier = PROXYTIER__V1__TIER__TIER_L3;
    expect_fails(CALL(f, "Admin", "Clear", &clear, clear_response), PTIER_FAILED_PRECONDITION, "");

    Proxytier__V1__GetStatisticsRequest request = PROXYTIER__V1__GET_STATISTICS_REQUEST__INIT;
    reply = CALL(f, "ProxyCache", "GetStatistics", &request, get_statistics_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    const Proxytier__V1__GetStatisticsResponse *statistics =
        (const Proxytier__V1__GetStatisticsResponse *)reply.body;
    assert_int_equal(statistics->entries, 0);
    assert_int_equal(statistics->puts, 300);
    assert_int_equal(statistics->n_tiers, 3);
    assert_int_equal(statistics->n_removals, 6);
    assert_true(statistics->revision >= 301);
    assert_int_equal(statistics->n_latencies, 10);
    raw_reply_free(&reply);
    expect_reset_gives_the_puts(f, 300);
    expect_reset_gives_the_puts(f, 0);
}

static void
info_and_health_describe_the_daemon(void **state)
{
    fixture *f = *state;
    Proxytier__V1__GetInfoRequest info_request = PROXYTIER__V1__GET_INFO_REQUEST__INIT;
    raw_reply reply = CALL(f, "ServerInfo", "GetInfo", &info_request, get_info_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    const Proxytier__V1__GetInfoResponse *info = (const Proxytier__V1__GetInfoResponse *)reply.body;
    assert_string_equal(info->protocol, "proxytier.v1");
    assert_string_equal(info->role, "admin");
    assert_int_equal(info->n_event_urls, 1);
    assert_string_equal(info->event_urls[0], f->daemon.events_url);
    assert_int_equal(info->limits->batch_items, 10000);
    assert_int_equal(info->failure_threshold, 3);
    assert_int_equal(info->default_ttl_ms, 3600000);
    assert_memory_equal(info->boot_id.data, reply.header->boot_id.data, 16);
    raw_reply_free(&reply);
    Proxytier__V1__CheckRequest check = PROXYTIER__V1__CHECK_REQUEST__INIT;
    reply = CALL(f, "Health", "Check", &check, check_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    assert_int_equal(((const Proxytier__V1__CheckResponse *)reply.body)->status,
                     PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_SERVING);
    raw_reply_free(&reply);
}

/* ---- bad input ---- */

static raw_reply
call_bytes(fixture *f, const char *method, const void *body, size_t length)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = TEXT(method);
    return raw_client_call_bytes(&f->client, &header, body, length, NULL);
}

static void
bytes_that_are_no_frame_are_refused_and_harmless(void **state)
{
    fixture *f = *state;
    const uint8_t huge_header[] = {0xff, 0xff, 0xff, 0xff, 1, 2, 3};
    const uint8_t bad_header[] = {0, 0, 0, 3, 0xff, 0xff, 0xff};
    expect_fails(raw_client_send(&f->client, "ab", 2, NULL), PTIER_INVALID_ARGUMENT, "too short");
    expect_fails(raw_client_send(&f->client, huge_header, sizeof huge_header, NULL),
                 PTIER_INVALID_ARGUMENT, "over the limit of 8192");
    expect_fails(raw_client_send(&f->client, bad_header, sizeof bad_header, NULL),
                 PTIER_INVALID_ARGUMENT, "RequestHeader");
    expect_fails(call_bytes(f, "/proxytier.v1.ProxyCache/Nonsense", NULL, 0), PTIER_UNIMPLEMENTED,
                 "Nonsense");
    expect_fails(call_bytes(f, "", NULL, 0), PTIER_UNIMPLEMENTED, "no method");
    expect_fails(call_bytes(f, "/proxytier.v1.ProxyCache/Get", "\xff\xff\xff", 3),
                 PTIER_INVALID_ARGUMENT, "GetRequest");
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL);
}

static void
what_protobuf_lets_through_is_refused_by_name(void **state)
{
    fixture *f = *state;
    const char *get_method = "/proxytier.v1.ProxyCache/Get";
    const char *clear_method = "/proxytier.v1.Admin/Clear";
    expect_fails(call_bytes(f, get_method, "\x0a\x03\x61\x00\x62", 5), PTIER_INVALID_ARGUMENT,
                 "field key has a NUL");
    expect_fails(call_bytes(f, get_method, "\x0a\x02\xc0\xaf", 4), PTIER_INVALID_ARGUMENT,
                 "key is not valid UTF-8");
    expect_fails(call_bytes(f, get_method, "\x0a\x03\xed\xa0\x80", 5), PTIER_INVALID_ARGUMENT,
                 "UTF-8");
    expect_fails(call_bytes(f, clear_method, "\x08\x09", 2), PTIER_INVALID_ARGUMENT, "tier");
    expect_fails(call_bytes(f, clear_method, "\x10\x09", 2), PTIER_INVALID_ARGUMENT, "durability");
}

static void
too_many_keys_are_refused(void **state)
{
    fixture *f = *state;
    size_t count = 10001;
    uint8_t *body = malloc(count * 3);
    assert_non_null(body);
    for (size_t i = 0; i < count; i++)
        memcpy(body + 3 * i, "\x0a\x01k", 3);
    expect_fails(call_bytes(f, "/proxytier.v1.ProxyCache/GetMany", body, count * 3),
                 PTIER_INVALID_ARGUMENT, "more than 10000 keys");
    free(body);
}

/* Many empty sub-messages would take some 50 times their size. */
static void
messages_that_swell_are_refused(void **state)
{
    fixture *f = *state;
    size_t count = 2 * 1024 * 1024;
    uint8_t *body = calloc(count, 2);
    assert_non_null(body);
    for (size_t i = 0; i < count; i++)
        body[2 * i] = 0x0a;
    expect_fails(call_bytes(f, "/proxytier.v1.ProxyCache/PutMany", body, count * 2),
                 PTIER_INVALID_ARGUMENT, "more than 10000 proxies");
    free(body);
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL);
}

/* ---- events ---- */

static void
subscribe(fixture *f, nng_socket *socket)
{
    assert_int_equal(nng_sub0_open(socket), 0);
    assert_int_equal(
        nng_socket_set(*socket, NNG_OPT_SUB_SUBSCRIBE, PTIER_TOPIC_CHANGES, PTIER_TOPIC_BYTES), 0);
    assert_int_equal(nng_socket_set_ms(*socket, NNG_OPT_RECVTIMEO, 10000), 0);
    assert_int_equal(nng_dial(*socket, f->daemon.events_url, NULL, 0), 0);
}

/* The next batch; to be freed. Every one is searched for `secret`. */
static Proxytier__V1__EventBatch *
next_batch(nng_socket socket, const char *secret)
{
    nng_msg *message;
    assert_int_equal(nng_recvmsg(socket, &message, 0), 0);
    size_t length = nng_msg_len(message);
    const uint8_t *bytes = nng_msg_body(message);
    assert_true(length > PTIER_TOPIC_BYTES);
    assert_null(memmem(bytes, length, secret, strlen(secret)));
    Proxytier__V1__EventBatch *batch = proxytier__v1__event_batch__unpack(
        NULL, length - PTIER_TOPIC_BYTES, bytes + PTIER_TOPIC_BYTES);
    nng_msg_free(message);
    assert_non_null(batch);
    assert_non_null(batch->heartbeat);
    assert_int_equal(batch->heartbeat->n_streams, 2);
    return batch;
}

static void
changes_are_published_in_order_without_credentials(void **state)
{
    fixture *f = *state;
    nng_socket socket;
    char key[300];
    subscribe(f, &socket);
    proxytier__v1__event_batch__free_unpacked(next_batch(socket, "event-secret"),
                                              NULL); /* it follows now */
    put_one(f, "http://10.0.0.9:9", "event-user", "event-secret", 300, key);

    Proxytier__V1__EventType expected[] = {PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_CREATED,
                                           PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_REMOVED};
    uint64_t sequence = 0, revision = 0;
    for (size_t seen = 0; seen < 2;) {
        Proxytier__V1__EventBatch *batch = next_batch(socket, "event-secret");
        for (size_t i = 0; i < batch->n_events; i++, seen++) {
            const Proxytier__V1__Event *event = batch->events[i];
            assert_true(seen < 2);
            assert_int_equal(event->sequence, ++sequence);
            assert_int_equal(event->type, expected[seen]);
            assert_string_equal(event->key, key);
            assert_true(event->revision > revision);
            revision = event->revision;
            assert_string_equal(event->proxy->url, "http://10.0.0.9:9");
            assert_string_equal(event->proxy->username, "");
        }
        if (batch->n_events) {
            assert_int_equal(batch->heartbeat->streams[0]->last_sequence, sequence);
            assert_int_equal(batch->heartbeat->streams[0]->oldest_sequence, 1);
        }
        if (seen == 2)
            assert_int_equal(batch->events[batch->n_events - 1]->reason,
                             PROXYTIER__V1__REMOVAL_REASON__REMOVAL_REASON_TTL);
        proxytier__v1__event_batch__free_unpacked(batch, NULL);
    }
    (void)nng_close(socket); /* fails only for a bad handle */
}

static raw_reply
replay(fixture *f, ProtobufCBinaryData boot_id, uint64_t after, uint32_t page_size)
{
    Proxytier__V1__ReplayRequest request = PROXYTIER__V1__REPLAY_REQUEST__INIT;
    request.boot_id = boot_id;
    request.stream = PROXYTIER__V1__STREAM__STREAM_CHANGES;
    request.after_sequence = after;
    request.page_size = page_size;
    raw_reply reply = CALL(f, "Events", "Replay", &request, replay_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    return reply;
}

static void
replay_gives_what_was_missed_page_by_page(void **state)
{
    fixture *f = *state;
    put_many(f, 700);
    uint8_t other_run[16] = {1}, this_run[16];
    ProtobufCBinaryData id = {.len = 16, .data = other_run};
    raw_reply reply = replay(f, id, 0, 0);
    assert_true(((const Proxytier__V1__ReplayResponse *)reply.body)->truncated);
    memcpy(this_run, reply.header->boot_id.data, 16);
    raw_reply_free(&reply);

    id.data = this_run;
    uint64_t after = 100;
    for (bool more = true; more;) {
        reply = replay(f, id, after, 300);
        const Proxytier__V1__ReplayResponse *page =
            (const Proxytier__V1__ReplayResponse *)reply.body;
        assert_false(page->truncated);
        assert_true(page->n_events > 0 && page->n_events <= 300);
        for (size_t i = 0; i < page->n_events; i++)
            assert_int_equal(page->events[i]->sequence, ++after);
        assert_int_equal(page->heartbeat->streams[0]->last_sequence, 700);
        more = page->more;
        raw_reply_free(&reply);
    }
    assert_int_equal(after, 700);
    reply = replay(f, id, 701, 0); /* a position that was never reached */
    assert_true(((const Proxytier__V1__ReplayResponse *)reply.body)->truncated);
    raw_reply_free(&reply);
}

static void
replay_older_than_the_journal_is_truncated(void **state)
{
    fixture *f = *state;
    const char *small[] = {"--journal-events", "100", NULL};
    restart(f, small);
    put_many(f, 150);
    Proxytier__V1__CheckRequest check = PROXYTIER__V1__CHECK_REQUEST__INIT;
    raw_reply reply = CALL(f, "Health", "Check", &check, check_response);
    uint8_t run[16];
    assert_int_equal(raw_status(&reply), PTIER_OK);
    memcpy(run, reply.header->boot_id.data, 16);
    raw_reply_free(&reply);
    ProtobufCBinaryData id = {.len = 16, .data = run};
    reply = replay(f, id, 49, 0);
    assert_true(((const Proxytier__V1__ReplayResponse *)reply.body)->truncated);
    raw_reply_free(&reply);
    reply = replay(f, id, 50, 0);
    assert_false(((const Proxytier__V1__ReplayResponse *)reply.body)->truncated);
    assert_int_equal(((const Proxytier__V1__ReplayResponse *)reply.body)->n_events, 100);
    raw_reply_free(&reply);
}

/* ---- rude clients ---- */

static int
connect_raw(const test_daemon *daemon)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, daemon->url + strlen("ipc://"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    int rv;
    do
        rv = connect(fd, (struct sockaddr *)&address, sizeof address);
    while (rv != 0 && errno == EINTR);
    if (rv != 0)
        fail_msg("connect: %s", strerror(errno));
    return fd;
}

/* Without the sendmsg replacement the listener is dead after the first few. */
static void
three_thousand_connect_and_close_leave_the_service_up(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 3000; i++)
        close(connect_raw(&f->daemon));
    raw_client late;
    raw_client_open(&late, f->daemon.url);
    Proxytier__V1__CheckRequest check = PROXYTIER__V1__CHECK_REQUEST__INIT;
    raw_reply reply = raw_client_call(&late, "/proxytier.v1.Health/Check", &check.base,
                                      &proxytier__v1__check_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    raw_reply_free(&reply);
    raw_client_close(&late);
}

static size_t
descriptors_of(const test_daemon *daemon)
{
    char path[64];
    size_t count = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)daemon->pid);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* An ipc SP frame with a List call. */
static size_t
make_list_frame(uint8_t *out, uint8_t id)
{
    static const char method[] = "/proxytier.v1.ProxyCache/List";
    const uint8_t body[] = {0x10, 0xe8, 0x07}; /* page_size 1000 */
    size_t header = 2 + sizeof method - 1;
    size_t length = 4 + PTIER_FRAME_PREFIX + header + sizeof body;
    uint8_t *at = out;
    *at++ = 1;
    memset(at, 0, 8);
    at[7] = (uint8_t)length;
    at += 8;
    const uint8_t request_id[] = {0x80, 0, 0, id};
    memcpy(at, request_id, 4);
    at += 4;
    ptier_frame_prefix(at, header);
    at += PTIER_FRAME_PREFIX;
    *at++ = 0x0a;
    *at++ = sizeof method - 1;
    memcpy(at, method, sizeof method - 1);
    at += sizeof method - 1;
    memcpy(at, body, sizeof body);
    return (size_t)(at + sizeof body - out);
}

static const uint8_t req_hello[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};

/* Sends pipelined requests whose replies are far larger than the socket's buffer, and vanishes
 * without reading. */
static void
be_rude(const test_daemon *daemon, int requests)
{
    uint8_t hello[8], frame[128];
    int fd = connect_raw(daemon);
    assert_int_equal(write(fd, req_hello, sizeof req_hello), sizeof req_hello);
    assert_int_equal(recv(fd, hello, sizeof hello, MSG_WAITALL), sizeof hello);
    for (int i = 0; i < requests; i++) {
        size_t length = make_list_frame(frame, (uint8_t)(i + 1));
        if (send(fd, frame, length, MSG_NOSIGNAL) != (ssize_t)length)
            break; /* cut off already: fine */
    }
    close(fd);
}

/* Without the stream replacements the reap thread hangs and every later connection leaks. */
static void
rude_clients_leak_no_descriptors(void **state)
{
    fixture *f = *state;
    restart(f, (const char *[]){"--core-dumps", "on", NULL}); /* else /proc/PID is root's */
    put_many(f, 1000);
    size_t before = descriptors_of(&f->daemon);
    for (int i = 0; i < 400; i++)
        be_rude(&f->daemon, 30);
    /* Closing is done by a thread of nng: wait for it, bounded. */
    int64_t deadline = ptier_test_now() + 20000;
    while (descriptors_of(&f->daemon) > before + 2 && ptier_test_now() < deadline)
        (void)poll(NULL, 0, 10);
    assert_true(descriptors_of(&f->daemon) <= before + 2);
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL);
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
}

/* One client that stays and never reads must not take the others' contexts for long. */
static void
client_that_never_reads_is_cut_off(void **state)
{
    fixture *f = *state;
    uint8_t hello[8], frame[128];
    put_many(f, 1000);
    int fd = connect_raw(&f->daemon);
    assert_int_equal(write(fd, req_hello, sizeof req_hello), sizeof req_hello);
    assert_int_equal(recv(fd, hello, sizeof hello, MSG_WAITALL), sizeof hello);
    for (int i = 0; i < 120; i++) {
        size_t length = make_list_frame(frame, (uint8_t)(i + 1));
        if (send(fd, frame, length, MSG_NOSIGNAL) != (ssize_t)length)
            break;
    }
    f->client.timeout_ms = 5000;
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL);
    /* The daemon closes it: reading ends after what the buffers held. */
    char sink[65536];
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    int64_t deadline = ptier_test_now() + 10000;
    ssize_t got = 1;
    (void)poll(NULL, 0, 1500); /* not reading is the point: longer than the daemon's patience */
    while (got > 0 && ptier_test_now() < deadline)
        if (poll(&readable, 1, 1000) > 0)
            got = recv(fd, sink, sizeof sink, 0);
    assert_true(got <= 0);
    close(fd);
    char *log = test_daemon_log(&f->daemon);
    assert_non_null(strstr(log, "peer_cut_off"));
    free(log);
}

/* ---- life cycle ---- */

static size_t
count_lines(const char *text)
{
    size_t lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* Runs a daemon that must not come up and looks at the last line of its output. */
static void
expect_refusal(test_daemon *daemon, const char *const *extra, int code, const char *part)
{
    (void)unlink(daemon->log_path); /* may not exist */
    assert_int_equal(test_daemon_run(daemon, extra), code);
    char *log = test_daemon_log(daemon);
    char *line = strstr(log, "proxytierd: ");
    if (!line || !strstr(line, part) || count_lines(line) != 1)
        fail_msg("not one line with '%s': %s", part, log);
    free(log);
}

static void
entries_survive_kill_and_stale_sockets_are_replaced(void **state)
{
    fixture *f = *state;
    char key[300];
    put_one(f, "http://10.0.0.10:10", "kept-user", "kept-secret", -1, key);
    assert_int_equal(test_daemon_end(&f->daemon, SIGKILL), 128 + SIGKILL);
    struct stat left;
    assert_int_equal(stat(f->daemon.url + strlen("ipc://"), &left),
                     0); /* the dead daemon's socket is still there */
    start_again(f, NULL);
    raw_reply reply = get(f, key);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    assert_string_equal(((const Proxytier__V1__GetResponse *)reply.body)->proxy->password,
                        "kept-secret");
    raw_reply_free(&reply);
    assert_int_equal(stat(f->daemon.url + strlen("ipc://"), &left), 0);
    assert_int_equal(left.st_mode & 0777, 0660);
}

static void
term_and_int_end_with_zero_and_keep_everything(void **state)
{
    fixture *f = *state;
    char key[300];
    put_one(f, "http://10.0.0.11:11", "", "", -1, key);
    restart(f, NULL);
    assert_int_equal(get_status(f, key), PTIER_OK);
    assert_int_equal(test_daemon_end(&f->daemon, SIGINT), 0);
    start_again(f, NULL);
    assert_int_equal(get_status(f, key), PTIER_OK);
}

static void
shutdown_call_ends_the_daemon(void **state)
{
    fixture *f = *state;
    Proxytier__V1__ShutdownRequest request = PROXYTIER__V1__SHUTDOWN_REQUEST__INIT;
    raw_reply reply = CALL(f, "Admin", "Shutdown", &request, shutdown_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    raw_reply_free(&reply);
    assert_int_equal(test_daemon_end(&f->daemon, 0), 0); /* signal 0: only wait */
}

static void
second_daemon_is_refused(void **state)
{
    fixture *f = *state;
    test_daemon other;
    test_daemon_init(&other);
    strcpy(other.data_dir, f->daemon.data_dir);
    expect_refusal(&other, NULL, 1, "in use");
    test_daemon_fini(&other);
    test_daemon_init(&other);
    strcpy(other.url, f->daemon.url);
    expect_refusal(&other, NULL, 1, f->daemon.url);
    test_daemon_fini(&other);
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL); /* the first one is not disturbed */
}

static void
write_file(const char *path, const char *text, mode_t mode)
{
    (void)unlink(path); /* may not exist */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void
bad_options_are_told_in_one_line(void **state)
{
    (void)state;
    test_daemon daemon;
    char path[96];
    test_daemon_init(&daemon);
    (void)snprintf(path, sizeof path, "%s/conf", daemon.directory);
    expect_refusal(&daemon, (const char *[]){"--no-such-option", NULL}, 2, "--no-such-option");
    expect_refusal(&daemon, (const char *[]){"--default-ttl", "5", NULL}, 2, "--default-ttl");
    expect_refusal(&daemon, (const char *[]){"--l1-entries=0", NULL}, 2, "--l1-entries");
    expect_refusal(&daemon, (const char *[]){"--l2-entries=10", NULL}, 2, "--l2-entries 10");
    expect_refusal(&daemon, (const char *[]){"--listen", "tcp://192.168.1.1:1", NULL}, 2,
                   "loopback");
    expect_refusal(&daemon, (const char *[]){"--l1", "off", "--l2=off", "--l3=off", NULL}, 2,
                   "at least one tier");
    expect_refusal(&daemon, (const char *[]){"--config", path, NULL}, 1, path);
    write_file(path, "# fine\nl1-entries = 10\nno-such = 1\n", 0600);
    expect_refusal(&daemon, (const char *[]){"--config", path, NULL}, 2,
                   "conf:3: unknown option 'no-such'");
    write_file(path, "no secret in here", 0644);
    expect_refusal(&daemon, (const char *[]){"--key-file", path, NULL}, 1, path);
    expect_refusal(&daemon, (const char *[]){"--key-file", "/nonexistent/key", NULL}, 1,
                   "/nonexistent/key");
    test_daemon_fini(&daemon);
}

static void
a_key_file_that_vanished_is_told_before_it_is_missed(void **state)
{
    fixture *f = *state;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/key", f->daemon.data_dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
    char *log = test_daemon_log(&f->daemon);
    const char *told = strstr(log, "ERROR key_missing");
    assert_non_null(told);
    assert_non_null(strstr(told, path));
    free(log);
    expect_refusal(&f->daemon, NULL, 1, "is missing, but the directory has data");
}

static void
variables_that_are_no_options_are_told(void **state)
{
    (void)state;
    test_daemon daemon;
    test_daemon_init(&daemon);
    assert_int_equal(setenv("PROXYTIER_L1_ENTRYS", "hunter2", 1), 0);
    assert_int_equal(setenv("PROXYTIER_URL", "ipc:///nowhere", 1), 0);
    assert_int_equal(setenv("PROXYTIER_HEARTBEAT", "300ms", 1), 0);
    test_daemon_start(&daemon, NULL);
    unsetenv("PROXYTIER_L1_ENTRYS");
    unsetenv("PROXYTIER_URL");
    unsetenv("PROXYTIER_HEARTBEAT");
    assert_int_equal(test_daemon_end(&daemon, SIGTERM), 0);
    char *log = test_daemon_log(&daemon);
    assert_non_null(strstr(log, "WARN  unknown_variable  PROXYTIER_L1_ENTRYS"));
    assert_null(strstr(log, "PROXYTIER_URL"));
    assert_null(strstr(log, "PROXYTIER_HEARTBEAT"));
    assert_null(strstr(log, "hunter2"));
    free(log);
    test_daemon_fini(&daemon);
}

static void
files_of_the_command_line_are_loaded_at_start(void **state)
{
    fixture *f = *state;
    char path[96];
    (void)snprintf(path, sizeof path, "%s/list.txt", f->daemon.directory);
    write_file(path, "10.2.0.1:8080\n10.2.0.2:8080\nnot a proxy at all\n", 0600);
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
    start_again(f, (const char *[]){"--warm", path, NULL});
    Proxytier__V1__GetStatisticsRequest request = PROXYTIER__V1__GET_STATISTICS_REQUEST__INIT;
    int64_t deadline = ptier_test_now() + 10000;
    uint64_t entries = 0;
    while (entries < 2 && ptier_test_now() < deadline) {
        raw_reply reply = CALL(f, "ProxyCache", "GetStatistics", &request, get_statistics_response);
        assert_int_equal(raw_status(&reply), PTIER_OK);
        entries = ((const Proxytier__V1__GetStatisticsResponse *)reply.body)->entries;
        raw_reply_free(&reply);
    }
    assert_int_equal(entries, 2);
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
    char *log = test_daemon_log(&f->daemon);
    assert_non_null(strstr(log, "2 created"));
    assert_non_null(strstr(log, "list.txt:3"));
    const char *made = strstr(log, "key_made"); /* of two starts, the first one */
    assert_non_null(made);
    assert_null(strstr(made + 1, "key_made"));
    free(log);
}

static void
credentials_are_neither_in_files_nor_in_the_log(void **state)
{
    fixture *f = *state;
    restart(f, (const char *[]){"--log-level", "debug", NULL});
    char key[300];
    put_one(f, "http://hidden-user:hidden-secret@10.0.0.12:12", "", "", -1, key);
    assert_int_equal(get_status(f, key), PTIER_OK);
    Proxytier__V1__PutRequest bad = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    proxy.url = TEXT("http://hidden-user:hidden-secret@");
    bad.proxy = &proxy;
    raw_reply reply = CALL(f, "ProxyCache", "Put", &bad, put_response);
    assert_int_equal(raw_status(&reply), PTIER_INVALID_ARGUMENT);
    assert_null(strstr(reply.header->message, "hidden"));
    raw_reply_free(&reply);
    restart(f, NULL);
    assert_false(test_directory_contains(f->daemon.directory, "hidden-secret"));
    assert_false(test_directory_contains(f->daemon.directory, "hidden-user"));
    assert_true(
        test_directory_contains(f->daemon.directory, "10.0.0.12")); /* it would have been found */
}

#define WITH_DAEMON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(put_record_comes_back_whole),
        WITH_DAEMON(missing_key_is_not_found),
        WITH_DAEMON(bad_records_of_a_batch_are_rejected_alone),
        WITH_DAEMON(get_many_answers_in_order_without_the_missing),
        WITH_DAEMON(third_failure_removes_the_entry),
        WITH_DAEMON(delete_counts_what_was_there),
        WITH_DAEMON(pick_gives_distinct_entries_that_match),
        WITH_DAEMON(list_pages_cover_everything_with_one_as_of),
        WITH_DAEMON(export_gives_lines_without_plain_credentials),
        WITH_DAEMON(clear_empties_and_statistics_count),
        WITH_DAEMON(info_and_health_describe_the_daemon),
        WITH_DAEMON(bytes_that_are_no_frame_are_refused_and_harmless),
        WITH_DAEMON(what_protobuf_lets_through_is_refused_by_name),
        WITH_DAEMON(too_many_keys_are_refused),
        WITH_DAEMON(messages_that_swell_are_refused),
        WITH_DAEMON(changes_are_published_in_order_without_credentials),
        WITH_DAEMON(replay_gives_what_was_missed_page_by_page),
        WITH_DAEMON(replay_older_than_the_journal_is_truncated),
        WITH_DAEMON(three_thousand_connect_and_close_leave_the_service_up),
        WITH_DAEMON(rude_clients_leak_no_descriptors),
        WITH_DAEMON(client_that_never_reads_is_cut_off),
        WITH_DAEMON(entries_survive_kill_and_stale_sockets_are_replaced),
        WITH_DAEMON(term_and_int_end_with_zero_and_keep_everything),
        WITH_DAEMON(shutdown_call_ends_the_daemon),
        WITH_DAEMON(second_daemon_is_refused),
        cmocka_unit_test(variables_that_are_no_options_are_told),
        cmocka_unit_test(bad_options_are_told_in_one_line),
        WITH_DAEMON(a_key_file_that_vanished_is_told_before_it_is_missed),
        WITH_DAEMON(files_of_the_command_line_are_loaded_at_start),
        WITH_DAEMON(credentials_are_neither_in_files_nor_in_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
