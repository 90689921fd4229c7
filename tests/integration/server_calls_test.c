/* The daemon's calls as they are on the wire: what goes in and what comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/info.pb-c.h"
#include "support/server_box.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
