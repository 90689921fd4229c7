/* The SDK's calls against a scripted peer: what reaches the caller when the other side behaves,
 * misbehaves, or is not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/cache.pb-c.h"
#include "support/scripted_peer.h"

static ptier_client *
open_client(const char *url, uint32_t timeout_ms)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = url;
    options.timeout_ms = timeout_ms;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

/* Answers Get with a record of the key that was asked for, PutMany and ReportHealth with results.
 */
static void
answer_well(void *context, const peer_request *request, peer_answer *answer)
{
    (void)context;
    if (strcmp(request->method, "Get") == 0) {
        Proxytier__V1__GetRequest *get =
            proxytier__v1__get_request__unpack(NULL, request->body_length, request->body);
        Proxytier__V1__GetResponse reply = PROXYTIER__V1__GET_RESPONSE__INIT;
        Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
        Proxytier__V1__Label label = PROXYTIER__V1__LABEL__INIT, *labels[] = {&label};
        label.name = PEER_TEXT("country");
        label.value = PEER_TEXT("DE");
        proxy.key = get->key;
        proxy.url = PEER_TEXT("http://10.0.0.1:8080");
        proxy.username = PEER_TEXT("user");
        proxy.password = PEER_TEXT("secret");
        proxy.health = PROXYTIER__V1__HEALTH_STATUS__HEALTH_STATUS_HEALTHY;
        proxy.labels = labels;
        proxy.n_labels = 1;
        reply.proxy = &proxy;
        reply.as_of = 77;
        reply.tier = PROXYTIER__V1__TIER__TIER_L2;
        peer_answer_with(answer, &reply.base);
        proxytier__v1__get_request__free_unpacked(get, NULL);
    } else if (strcmp(request->method, "ReportHealth") == 0) {
        Proxytier__V1__ReportHealthResponse reply = PROXYTIER__V1__REPORT_HEALTH_RESPONSE__INIT;
        Proxytier__V1__ReportResult result = PROXYTIER__V1__REPORT_RESULT__INIT,
                                    *results[] = {&result};
        result.found = result.removed = true;
        result.failure_count = 3;
        reply.results = results;
        reply.n_results = 1;
        peer_answer_with(answer, &reply.base);
    }
}

static void
assert_answers(ptier_client *client)
{
    ptier_records records;
    ptier_error error = {.message = ""};
    ptier_status status = ptier_get(client, "some-key", &records, &error);
    if (status != PTIER_OK)
        fail_msg("status %d: %s", (int)status, error.message);
    assert_int_equal(records.count, 1);
    ptier_records_free(&records);
}

static void
call_to_nobody_is_unavailable_at_once(void **state)
{
    (void)state;
    scripted_peer peer;
    ptier_records records;
    ptier_error error;
    peer_init(&peer);
    ptier_client *client = open_client(peer.rpc_url, 20000);
    int64_t start = ptier_test_now();
    assert_int_equal(ptier_get(client, "k", &records, &error), PTIER_UNAVAILABLE);
    assert_true(ptier_test_now() - start <
                2000); /* a fraction of the timeout, with room for a busy machine */
    assert_non_null(strstr(error.message, peer.rpc_url));
    assert_non_null(strstr(error.message, "start proxytierd"));
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
answer_never(void *context, const peer_request *request, peer_answer *answer)
{
    (void)context;
    (void)request;
    answer->silent = true;
}

static void
mute_peer_gives_deadline_exceeded_within_the_timeout(void **state)
{
    (void)state;
    scripted_peer peer;
    ptier_records records;
    ptier_error error;
    peer_init(&peer);
    peer.handler = answer_never;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 300);
    int64_t start = ptier_test_now();
    assert_int_equal(ptier_get(client, "k", &records, &error), PTIER_DEADLINE_EXCEEDED);
    int64_t took = ptier_test_now() - start;
    assert_true(took >= 250 && took < 2000);
    ptier_client_close(client);
    peer_fini(&peer);
}

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

static void
client_reconnects_after_the_peer_restarts(void **state)
{
    (void)state;
    scripted_peer peer;
    peer_init(&peer);
    peer.handler = answer_well;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 5000);
    for (int i = 0; i < 5; i++) {
        assert_answers(client);
        peer_stop(&peer);
        if (i % 2) { /* with a failed call between, or without */
            ptier_records records;
            assert_int_equal(ptier_get(client, "k", &records, NULL), PTIER_UNAVAILABLE);
        }
        peer_start(&peer);
    }
    assert_answers(client);
    ptier_client_close(client);
    peer_fini(&peer);
}

/* Answers nothing until told otherwise, and remembers the headers. */
typedef struct call_script {
    pthread_mutex_t lock;
    bool answering;
    unsigned seen;
    uint8_t ids[8][16];
    size_t boot_lengths[8];
} call_script;

static void
follow_script(void *context, const peer_request *request, peer_answer *answer)
{
    call_script *s = context;
    pthread_mutex_lock(&s->lock);
    if (s->seen < 8) {
        assert_int_equal(request->header->request_id.len, 16);
        memcpy(s->ids[s->seen], request->header->request_id.data, 16);
        s->boot_lengths[s->seen] = request->header->boot_id.len;
    }
    s->seen++;
    answer->silent = !s->answering;
    pthread_mutex_unlock(&s->lock);
    if (!answer->silent)
        answer_well(NULL, request, answer);
}

static unsigned
seen(call_script *s)
{
    pthread_mutex_lock(&s->lock);
    unsigned count = s->seen;
    pthread_mutex_unlock(&s->lock);
    return count;
}

static void
set_answering(call_script *s, bool answering)
{
    pthread_mutex_lock(&s->lock);
    s->answering = answering;
    pthread_mutex_unlock(&s->lock);
}

typedef struct running_call {
    ptier_client *client;
    bool report;
    ptier_status status;
    ptier_error error;
} running_call;

static void *
run_call(void *argument)
{
    running_call *call = argument;
    if (call->report) {
        ptier_report report = {.key = "k", .outcome = PTIER_REPORT_FAILED};
        call->status = ptier_report_health(call->client, &report, 1, NULL, NULL, &call->error);
    } else {
        ptier_records records;
        call->status = ptier_get(call->client, "k", &records, &call->error);
        ptier_records_free(&records);
    }
    return NULL;
}

static void
wait_seen(call_script *s, unsigned count)
{
    int64_t until = ptier_test_now() + 10000;
    while (seen(s) < count && ptier_test_now() < until)
        test_pause();
    assert_true(seen(s) >= count);
}

static void
lost_call_is_retried_under_the_same_id_and_names_the_first_run(void **state)
{
    (void)state;
    scripted_peer peer;
    call_script script = {.lock = PTHREAD_MUTEX_INITIALIZER, .answering = true};
    peer_init(&peer);
    peer.handler = follow_script;
    peer.context = &script;
    peer_start(&peer);
    running_call call = {.client = open_client(peer.rpc_url, 20000)};
    pthread_t thread;
    assert_answers(call.client); /* learns the run */
    set_answering(&script, false);
    assert_int_equal(pthread_create(&thread, NULL, run_call, &call), 0);
    wait_seen(&script, 2);
    peer_stop(&peer);
    set_answering(&script, true);
    peer_start(&peer);
    pthread_join(thread, NULL);
    assert_int_equal(call.status, PTIER_OK);
    assert_int_equal(seen(&script), 3);
    assert_memory_not_equal(script.ids[0], script.ids[1], 16);
    assert_memory_equal(script.ids[1], script.ids[2], 16);
    assert_int_equal(script.boot_lengths[1], 0);
    assert_int_equal(script.boot_lengths[2], 16);
    ptier_client_close(call.client);
    peer_fini(&peer);
}

/* The daemon tells by the id whether it did it already; ABORTED when nobody can be asked. */
static void
lost_report_is_sent_again_or_its_outcome_unknown(void **state)
{
    (void)state;
    scripted_peer peer;
    call_script script = {.lock = PTHREAD_MUTEX_INITIALIZER};
    peer_init(&peer);
    peer.handler = follow_script;
    peer.context = &script;
    peer_start(&peer);
    running_call call = {.client = open_client(peer.rpc_url, 20000), .report = true};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_call, &call), 0);
    wait_seen(&script, 1);
    assert_int_equal(peer_count(&peer, &peer.infos), 1); /* whose run it is was asked before */
    peer_stop(&peer);
    set_answering(&script, true);
    peer_start(&peer);
    pthread_join(thread, NULL);
    assert_int_equal(call.status, PTIER_OK);
    assert_int_equal(seen(&script), 2);
    assert_memory_equal(script.ids[0], script.ids[1], 16);
    assert_int_equal(script.boot_lengths[0], 0);
    assert_int_equal(script.boot_lengths[1], 16);

    set_answering(&script, false);
    assert_int_equal(pthread_create(&thread, NULL, run_call, &call), 0);
    wait_seen(&script, 3);
    peer_stop(&peer); /* for good */
    pthread_join(thread, NULL);
    assert_int_equal(call.status, PTIER_ABORTED);
    assert_non_null(strstr(call.error.message, "may or may not"));
    ptier_client_close(call.client);
    peer_fini(&peer);
}

static void
closing_the_client_cancels_running_calls(void **state)
{
    (void)state;
    scripted_peer peer;
    call_script script = {.lock = PTHREAD_MUTEX_INITIALIZER};
    running_call calls[8];
    pthread_t threads[8];
    peer_init(&peer);
    peer.handler = follow_script;
    peer.context = &script;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 60000);
    for (int i = 0; i < 8; i++) {
        calls[i] = (running_call){.client = client, .report = i % 2};
        assert_int_equal(pthread_create(&threads[i], NULL, run_call, &calls[i]), 0);
    }
    wait_seen(&script, 8);
    int64_t start = ptier_test_now();
    ptier_client_close(client);
    assert_true(ptier_test_now() - start < 10000);
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(calls[i].status, PTIER_CANCELLED);
    }
    peer_fini(&peer);
}

static void
forked_child_gets_failed_precondition(void **state)
{
    (void)state;
    scripted_peer peer;
    peer_init(&peer);
    peer.handler = answer_well;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 5000);
    assert_answers(client);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        ptier_records records;
        ptier_client *another;
        ptier_subscription *subscription;
        ptier_subscription_options options;
        ptier_subscription_options_init(&options);
        options.on_event = (void (*)(void *, const ptier_event *))abort;
        int bad = ptier_get(client, "k", &records, NULL) != PTIER_FAILED_PRECONDITION;
        bad |= (ptier_client_open(NULL, &another, NULL) != PTIER_FAILED_PRECONDITION) << 1;
        bad |= (ptier_subscribe(client, &options, &subscription, NULL) != PTIER_FAILED_PRECONDITION)
               << 2;
        ptier_client_close(client); /* must do nothing */
        _exit(bad);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
    assert_answers(client); /* the parent's is as it was */
    ptier_client_close(client);
    peer_fini(&peer);
}

#define SHARING_THREADS 80 /* more than a client has contexts */
#define SHARING_CALLS   25

static void *
get_own_key(void *argument)
{
    ptier_client *client = argument;
    char key[32];
    for (int i = 0; i < SHARING_CALLS; i++) {
        ptier_records records;
        snprintf(key, sizeof key, "%lu-%d", (unsigned long)pthread_self(), i);
        if (ptier_get(client, key, &records, NULL) != PTIER_OK)
            return PEER_TEXT("a call failed");
        bool own = records.count == 1 && strcmp(records.records[0].key, key) == 0;
        ptier_records_free(&records);
        if (!own)
            return PEER_TEXT("the answer is somebody else's");
    }
    return NULL;
}

static void
threads_that_share_a_client_get_their_own_answers(void **state)
{
    (void)state;
    scripted_peer peer;
    pthread_t threads[SHARING_THREADS];
    peer_init(&peer);
    peer.handler = answer_well;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 60000);
    for (int i = 0; i < SHARING_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_own_key, client), 0);
    for (int i = 0; i < SHARING_THREADS; i++) {
        void *complaint;
        pthread_join(threads[i], &complaint);
        if (complaint)
            fail_msg("%s", (char *)complaint);
    }
    ptier_client_close(client);
    peer_fini(&peer);
}

/* ---- peers that are no nng ---- */

typedef struct rude_listener {
    int fd;
    bool greet; /* speak the hello of a REP socket, and nothing more */
    pthread_t thread;
    pthread_mutex_t lock;
    unsigned accepted;
    int kept[64];
    unsigned kept_count;
} rude_listener;

static void *
be_rude(void *argument)
{
    rude_listener *r = argument;
    for (;;) {
        int fd = accept(r->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        bool keep = r->greet && send(fd, "\0SP\0\0\x31\0\0", 8, MSG_NOSIGNAL) == 8;
        pthread_mutex_lock(&r->lock);
        r->accepted++;
        if (keep && r->kept_count < 64)
            r->kept[r->kept_count++] = fd;
        else
            close(fd);
        pthread_mutex_unlock(&r->lock);
    }
}

static unsigned
accepted(rude_listener *r)
{
    pthread_mutex_lock(&r->lock);
    unsigned count = r->accepted;
    pthread_mutex_unlock(&r->lock);
    return count;
}

/* `accepting` false: connections wait in the backlog for ever. */
static void
rude_start(rude_listener *r, const char *url, bool accepting)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", url + strlen("ipc://"));
    r->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(r->fd >= 0);
    assert_int_equal(bind(r->fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(r->fd, 64), 0);
    pthread_mutex_init(&r->lock, NULL);
    if (accepting)
        assert_int_equal(pthread_create(&r->thread, NULL, be_rude, r), 0);
}

static void
rude_stop(rude_listener *r, const char *url, bool accepting)
{
    shutdown(r->fd, SHUT_RDWR);
    if (accepting)
        pthread_join(r->thread, NULL);
    close(r->fd);
    for (unsigned i = 0; i < r->kept_count; i++)
        close(r->kept[i]);
    unlink(url + strlen("ipc://"));
}

static void
client_outlives_a_listener_that_hangs_up_before_the_handshake(void **state)
{
    (void)state;
    scripted_peer peer;
    rude_listener rude = {.greet = false};
    ptier_records records;
    peer_init(&peer);
    rude_start(&rude, peer.rpc_url, true);
    ptier_client *client = open_client(peer.rpc_url, 10000);
    int64_t until = ptier_test_now() + 20000;
    while (accepted(&rude) < 5 && ptier_test_now() < until)
        assert_int_equal(ptier_get(client, "k", &records, NULL), PTIER_UNAVAILABLE);
    assert_true(accepted(&rude) >= 5); /* it goes on trying */
    rude_stop(&rude, peer.rpc_url, true);
    peer.handler = answer_well;
    peer_start(&peer);
    assert_answers(client);
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
call_to_a_hanging_listener_ends_within_its_timeout(void **state)
{
    (void)state;
    scripted_peer peer;
    rude_listener hanging = {.greet = false};
    ptier_records records;
    peer_init(&peer);
    rude_start(&hanging, peer.rpc_url, false);
    ptier_client *client = open_client(peer.rpc_url, 300);
    int64_t start = ptier_test_now();
    assert_int_equal(ptier_get(client, "k", &records, NULL), PTIER_DEADLINE_EXCEEDED);
    assert_true(ptier_test_now() - start < 2000);
    start = ptier_test_now();
    ptier_client_close(client); /* while the attempt hangs */
    assert_true(ptier_test_now() - start < 2000);
    rude_stop(&hanging, peer.rpc_url, false);
    peer_fini(&peer);
}

static void
mute_connection_is_given_up_and_dialed_anew(void **state)
{
    (void)state;
    scripted_peer peer;
    rude_listener mute = {.greet = true};
    ptier_records records;
    peer_init(&peer);
    rude_start(&mute, peer.rpc_url, true);
    ptier_client *client = open_client(peer.rpc_url, 700);
    int64_t until = ptier_test_now() + 20000;
    while (accepted(&mute) < 2 && ptier_test_now() < until)
        assert_int_not_equal(ptier_get(client, "k", &records, NULL), PTIER_OK);
    assert_true(accepted(&mute) >= 2);
    ptier_client_close(client);
    rude_stop(&mute, peer.rpc_url, true);
    peer_fini(&peer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(call_to_nobody_is_unavailable_at_once),
        cmocka_unit_test(mute_peer_gives_deadline_exceeded_within_the_timeout),
        cmocka_unit_test(garbage_reply_is_an_internal_error),
        cmocka_unit_test(status_and_message_are_carried_over),
        cmocka_unit_test(record_arrives_with_all_its_fields),
        cmocka_unit_test(put_many_carries_records_and_tells_each_result),
        cmocka_unit_test(export_follows_the_pages_until_told_to_stop),
        cmocka_unit_test(raw_call_hands_back_the_reply_as_it_came),
        cmocka_unit_test(client_reconnects_after_the_peer_restarts),
        cmocka_unit_test(lost_call_is_retried_under_the_same_id_and_names_the_first_run),
        cmocka_unit_test(lost_report_is_sent_again_or_its_outcome_unknown),
        cmocka_unit_test(closing_the_client_cancels_running_calls),
        cmocka_unit_test(forked_child_gets_failed_precondition),
        cmocka_unit_test(threads_that_share_a_client_get_their_own_answers),
        cmocka_unit_test(client_outlives_a_listener_that_hangs_up_before_the_handshake),
        cmocka_unit_test(call_to_a_hanging_listener_ends_within_its_timeout),
        cmocka_unit_test(mute_connection_is_given_up_and_dialed_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
