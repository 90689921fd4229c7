/* What a call of the SDK carries to a scripted peer, and what of its answer reaches the caller. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/cache.pb-c.h"
#include "support/peer_client.h"

static const struct {
    const char *bytes;
    size_t length;
} garbage[] = {
    {"", 0},
    {"\0\0", 2},
    {"\xff\xff\xff\xff", 4},
    {"\0\0\0\x05\xff\xff\xff\xff\xff", 9},
    {"\0\0\0\0\x0a\x7f\x01", 7},     /* an empty header is OK; the body's string is cut off */
    {"\0\0\0\0\x0a\x02\x0a\xff", 8}, /* nested message cut off */
    {"\0\0\0\0", 4},                 /* OK without the record it should hold */
    {"HTTP/1.1 400 Bad Request\r\n\r\n", 28},
};

static void
answer_garbage(void *context, const peer_request *request, peer_answer *answer)
{
    size_t *next = context;
    (void)request;
    answer->raw = true;
    answer->body_length = garbage[*next].length;
    answer->body = malloc(answer->body_length + 1);
    assert_non_null(answer->body);
    memcpy(answer->body, garbage[*next].bytes, answer->body_length);
    (*next)++;
}

static void
garbage_reply_is_an_internal_error(void **state)
{
    (void)state;
    scripted_peer peer;
    size_t next = 0;
    peer_init(&peer);
    peer.handler = answer_garbage;
    peer.context = &next;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 5000);
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        ptier_records records;
        ptier_error error = {.message = ""};
        assert_int_equal(ptier_get(client, "k", &records, &error), PTIER_INTERNAL);
        assert_true(error.message[0] != '\0');
        assert_null(records.internal);
    }
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
answer_code(void *context, const peer_request *request, peer_answer *answer)
{
    (void)request;
    answer->code = *(int *)context;
    strcpy(answer->message, "say\nwhat to do");
}

static void
status_and_message_are_carried_over(void **state)
{
    (void)state;
    scripted_peer peer;
    int code = 0;
    peer_init(&peer);
    peer.handler = answer_code;
    peer.context = &code;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 5000);
    for (code = 1; code <= 18; code++) {
        ptier_records records;
        ptier_error error;
        int expected = code <= 16 ? code : PTIER_UNKNOWN;
        assert_int_equal(ptier_get(client, "k", &records, &error), expected);
        assert_int_equal(error.status, expected);
        assert_string_equal(error.message, "say what to do");
    }
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
record_arrives_with_all_its_fields(void **state)
{
    (void)state;
    scripted_peer peer;
    ptier_records records;
    peer_init(&peer);
    peer.handler = answer_well;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 5000);
    assert_int_equal(ptier_get(client, "abc", &records, NULL), PTIER_OK);
    assert_int_equal(records.count, 1);
    assert_int_equal(records.as_of, 77);
    assert_int_equal(records.tier, PTIER_TIER_L2);
    assert_string_equal(records.records[0].key, "abc");
    assert_string_equal(records.records[0].password, "secret");
    assert_int_equal(records.records[0].health, PTIER_HEALTH_HEALTHY);
    assert_int_equal(records.records[0].label_count, 1);
    assert_string_equal(records.records[0].labels[0].value, "DE");
    ptier_records_free(&records);
    ptier_records_free(&records); /* freeing twice is fine */
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
check_put(void *context, const peer_request *request, peer_answer *answer)
{
    Proxytier__V1__PutManyResponse reply = PROXYTIER__V1__PUT_MANY_RESPONSE__INIT;
    Proxytier__V1__PutResult results[2], *list[2] = {&results[0], &results[1]};
    Proxytier__V1__Tier tiers[] = {PROXYTIER__V1__TIER__TIER_L1, PROXYTIER__V1__TIER__TIER_L3};
    (void)context;
    if (strcmp(request->method, "PutMany") != 0) {
        answer->code = PTIER_UNIMPLEMENTED;
        return;
    }
    Proxytier__V1__PutManyRequest *put =
        proxytier__v1__put_many_request__unpack(NULL, request->body_length, request->body);
    bool good =
        put->n_proxies == 2 && put->durability == PROXYTIER__V1__DURABILITY__DURABILITY_SYNCED &&
        put->mode == PROXYTIER__V1__PUT_MODE__PUT_MODE_WARM &&
        strcmp(put->proxies[0]->url, "http://a:1") == 0 && put->proxies[0]->n_labels == 2 &&
        strcmp(put->proxies[0]->labels[1]->value, "two") == 0 && put->proxies[1]->n_labels == 1 &&
        strcmp(put->proxies[1]->labels[0]->name, "three") == 0 &&
        strcmp(put->proxies[1]->password, "pw") == 0;
    answer->code = good ? 0 : PTIER_FAILED_PRECONDITION;
    proxytier__v1__put_many_request__free_unpacked(put, NULL);
    for (int i = 0; i < 2; i++) {
        proxytier__v1__put_result__init(&results[i]);
        results[i].key = PEER_TEXT(i ? "second" : "first");
        results[i].revision = 5 + (uint64_t)i;
        results[i].outcome = i ? PROXYTIER__V1__PUT_OUTCOME__PUT_OUTCOME_REJECTED
                               : PROXYTIER__V1__PUT_OUTCOME__PUT_OUTCOME_CREATED;
        results[i].message = PEER_TEXT(i ? "no such scheme" : "");
    }
    reply.results = list;
    reply.n_results = 2;
    reply.tiers = tiers;
    reply.n_tiers = 2;
    reply.durability = PROXYTIER__V1__DURABILITY__DURABILITY_LOGGED;
    peer_answer_with(answer, &reply.base);
}

static void
put_many_carries_records_and_tells_each_result(void **state)
{
    (void)state;
    scripted_peer peer;
    ptier_record records[2];
    ptier_label labels[] = {{"one", "1"}, {"two", "two"}, {"three", "3"}};
    ptier_put_call put = {.durability = PTIER_DURABILITY_SYNCED, .mode = PTIER_PUT_MODE_WARM};
    ptier_put_results results;
    peer_init(&peer);
    peer.handler = check_put;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 5000);
    ptier_record_init(&records[0]);
    ptier_record_init(&records[1]);
    records[0].url = "http://a:1";
    records[0].labels = labels;
    records[0].label_count = 2;
    records[1].url = "http://b:2";
    records[1].password = "pw";
    records[1].labels = labels + 2;
    records[1].label_count = 1;
    assert_int_equal(ptier_put_many(client, records, 2, &put, &results, NULL), PTIER_OK);
    assert_int_equal(results.count, 2);
    assert_string_equal(results.items[0].key, "first");
    assert_int_equal(results.items[0].revision, 5);
    assert_int_equal(results.items[1].outcome, PTIER_PUT_REJECTED);
    assert_string_equal(results.items[1].message, "no such scheme");
    assert_int_equal(results.durability, PTIER_DURABILITY_LOGGED);
    assert_int_equal(results.tiers, 1u << PTIER_TIER_L1 | 1u << PTIER_TIER_L3);
    ptier_put_results_free(&results);
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
answer_pages(void *context, const peer_request *request, peer_answer *answer)
{
    Proxytier__V1__ExportResponse reply = PROXYTIER__V1__EXPORT_RESPONSE__INIT;
    Proxytier__V1__ExportRequest *export =
        proxytier__v1__export_request__unpack(NULL, request->body_length, request->body);
    int page = atoi(export->page_token);
    char line[32], token[16];
    (void)context;
    snprintf(line, sizeof line, "{\"page\":%d}\n", page);
    snprintf(token, sizeof token, "%d", page + 1);
    reply.jsonl = (ProtobufCBinaryData){strlen(line), (uint8_t *)line};
    reply.entries = 1;
    reply.next_page_token = page < 3 ? token : PEER_TEXT("");
    peer_answer_with(answer, &reply.base);
    proxytier__v1__export_request__free_unpacked(export, NULL);
}

typedef struct exported {
    char text[256];
    int pages, stop_at;
} exported;

static bool
collect_page(void *context, const char *jsonl, size_t length, uint32_t entries)
{
    exported *e = context;
    assert_int_equal(entries, 1);
    strncat(e->text, jsonl, length);
    return ++e->pages != e->stop_at;
}

static void
export_follows_the_pages_until_told_to_stop(void **state)
{
    (void)state;
    scripted_peer peer;
    exported all = {.stop_at = 0}, some = {.stop_at = 2};
    peer_init(&peer);
    peer.handler = answer_pages;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 5000);
    assert_int_equal(ptier_export(client, PTIER_TIER_NONE, false, collect_page, &all, NULL),
                     PTIER_OK);
    assert_string_equal(all.text, "{\"page\":0}\n{\"page\":1}\n{\"page\":2}\n{\"page\":3}\n");
    assert_int_equal(ptier_export(client, PTIER_TIER_NONE, false, collect_page, &some, NULL),
                     PTIER_CANCELLED);
    assert_int_equal(some.pages, 2);
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
raw_call_hands_back_the_reply_as_it_came(void **state)
{
    (void)state;
    scripted_peer peer;
    void *reply;
    size_t length;
    peer_init(&peer);
    peer.handler = answer_well;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 5000);
    assert_int_equal(ptier_call_raw(client, "/proxytier.v1.ProxyCache/Get", "\x0a\x01k", 3, &reply,
                                    &length, NULL),
                     PTIER_OK);
    Proxytier__V1__GetResponse *get = proxytier__v1__get_response__unpack(NULL, length, reply);
    assert_non_null(get);
    assert_string_equal(get->proxy->key, "k");
    proxytier__v1__get_response__free_unpacked(get, NULL);
    free(reply);
    assert_int_equal(ptier_call_raw(client, "Get", NULL, 0, &reply, &length, NULL),
                     PTIER_INVALID_ARGUMENT);
    ptier_client_close(client);
    peer_fini(&peer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(garbage_reply_is_an_internal_error),
        cmocka_unit_test(status_and_message_are_carried_over),
        cmocka_unit_test(record_arrives_with_all_its_fields),
        cmocka_unit_test(put_many_carries_records_and_tells_each_result),
        cmocka_unit_test(export_follows_the_pages_until_told_to_stop),
        cmocka_unit_test(raw_call_hands_back_the_reply_as_it_came),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
