/* The SDK against a real proxytierd: every call once, and what its users live through when the
 * daemon stops, dies or hangs. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "support/daemon.h"
#include "support/monotonic.h"

#define PATIENCE_MS 20000
#define EVENTS_ROOM 20000

static void
short_pause(void)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    nanosleep(&pause, NULL);
}

static ptier_client *
open_client(const test_daemon *daemon, uint32_t timeout_ms)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = daemon->url;
    options.timeout_ms = timeout_ms;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        ptier_error error = {.message = ""};                                                       \
        ptier_status status_ = (call);                                                             \
        if (status_ != PTIER_OK)                                                                   \
            fail_msg("%s: %s: %s", #call, ptier_status_text(status_), error.message);              \
    } while (0)

static void
make_record(ptier_record *record, char url[64], unsigned i)
{
    snprintf(url, 64, "http://10.%u.%u.%u:8080", i >> 16 & 255, i >> 8 & 255, i & 255);
    ptier_record_init(record);
    record->url = url;
    record->source = "test";
}

static void
put_range(ptier_client *client, unsigned first, unsigned count)
{
    ptier_record *records = calloc(count, sizeof *records);
    char(*urls)[64] = calloc(count, sizeof *urls);
    ptier_put_results results;
    assert_true(records && urls);
    for (unsigned i = 0; i < count; i++)
        make_record(&records[i], urls[i], first + i);
    assert_ok(ptier_put_many(client, records, count, NULL, &results, &error));
    assert_int_equal(results.count, count);
    for (unsigned i = 0; i < count; i++)
        assert_true(results.items[i].outcome == PTIER_PUT_CREATED ||
                    results.items[i].outcome == PTIER_PUT_UPDATED);
    ptier_put_results_free(&results);
    free(records);
    free(urls);
}

/* ---- calls ---- */

static void
record_that_is_put_is_found_by_every_way_of_reading(void **state)
{
    test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon, 10000);
    ptier_label labels[] = {{"anonymity", "elite"}, {"country", "DE"}};
    ptier_record record;
    ptier_records found;
    ptier_put_results results;
    char key[PTIER_KEY_MAX + 1];

    ptier_record_init(&record);
    record.url = "http://someone:pass%20word@192.0.2.1:3128";
    record.source = "list-a";
    record.ttl_ms = 60000;
    record.labels = labels;
    record.label_count = 2;
    assert_ok(ptier_put(client, &record, NULL, &results, &error));
    assert_int_equal(results.items[0].outcome, PTIER_PUT_CREATED);
    assert_true(results.items[0].revision > 0);
    assert_true(results.durability >= PTIER_DURABILITY_LOGGED);
    snprintf(key, sizeof key, "%s", results.items[0].key);
    ptier_put_results_free(&results);

    assert_ok(ptier_get(client, key, &found, &error));
    assert_int_equal(found.count, 1);
    assert_string_equal(found.records[0].url, "http://192.0.2.1:3128");
    assert_string_equal(found.records[0].username, "someone");
    assert_string_equal(found.records[0].password, "pass word");
    assert_int_equal(found.records[0].label_count, 2);
    assert_true(found.records[0].remaining_ttl_ms > 0 &&
                found.records[0].remaining_ttl_ms <= 60000);
    ptier_records_free(&found);

    const char *keys[] = {"0000000000000000", key};
    assert_ok(ptier_get_many(client, keys, 2, &found, &error));
    assert_int_equal(found.count, 1);
    ptier_records_free(&found);

    ptier_filter filter = {.source = "list-a", .labels = &labels[1], .label_count = 1};
    ptier_pick_options pick = {.count = 5, .filter = &filter};
    assert_ok(ptier_pick(client, &pick, &found, &error));
    assert_int_equal(found.count, 1);
    assert_string_equal(found.records[0].key, key);
    ptier_records_free(&found);
    pick.exclude = &keys[1];
    pick.exclude_count = 1;
    assert_int_equal(ptier_pick(client, &pick, &found, NULL), PTIER_NOT_FOUND);

    assert_ok(ptier_list(client, &filter, 0, NULL, &found, &error));
    assert_int_equal(found.count, 1);
    assert_string_equal(found.next_page_token, "");
    ptier_records_free(&found);

    ptier_delete_result deleted;
    assert_ok(ptier_delete(client, keys, 2, NULL, &deleted, &error));
    assert_int_equal(deleted.deleted, 1);
    assert_int_equal(ptier_get(client, key, &found, NULL), PTIER_NOT_FOUND);
    ptier_client_close(client);
}

static void
list_gives_every_record_page_by_page(void **state)
{
    test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon, 10000);
    ptier_records page = {.next_page_token = ""};
    size_t total = 0, pages = 0;
    assert_ok(ptier_clear(client, PTIER_TIER_NONE, NULL, NULL, &error));
    put_range(client, 1, 250);
    do {
        char token[sizeof page.next_page_token];
        strcpy(token, page.next_page_token);
        assert_ok(ptier_list(client, NULL, 100, token, &page, &error));
        total += page.count;
        pages++;
        strcpy(token, page.next_page_token);
        ptier_records_free(&page);
        strcpy(page.next_page_token, token);
    } while (page.next_page_token[0] && pages < 100);
    assert_int_equal(total, 250);
    assert_true(pages >= 3);
    ptier_client_close(client);
}

static bool
count_lines(void *context, const char *jsonl, size_t length, uint32_t entries)
{
    size_t *lines = context;
    size_t here = 0;
    for (size_t i = 0; i < length; i++)
        here += jsonl[i] == '\n';
    assert_int_equal(here, entries);
    *lines += here;
    return true;
}

static void
administrators_calls_answer(void **state)
{
    test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon, 10000);
    ptier_server_info info;
    ptier_statistics stats;
    ptier_clear_result cleared;
    size_t lines = 0, length;
    void *reply;
    assert_ok(ptier_clear(client, PTIER_TIER_NONE, NULL, NULL, &error));
    put_range(client, 1, 30);
    assert_ok(ptier_get_info(client, &info, &error));
    assert_string_equal(info.protocol, "proxytier.v1");
    assert_string_equal(info.role, "admin"); /* the same user, over ipc */
    assert_string_equal(info.event_url, daemon->events_url);
    assert_int_equal(info.limits.batch_items, PTIER_BATCH_MAX);
    assert_int_equal(info.limits.label_value_bytes, PTIER_LABEL_VALUE_MAX);
    assert_ok(ptier_get_statistics(client, &stats, &error));
    assert_int_equal(stats.entries, 30);
    assert_true(stats.tiers[PTIER_TIER_L1].enabled);
    assert_true(stats.puts >= 30);
    assert_true(stats.latency[PTIER_OPERATION_LOG_COMMIT].max_ns > 0);
    assert_ok(ptier_reset_statistics(client, &stats, &error));
    assert_true(stats.puts >= 30);
    assert_ok(ptier_reset_statistics(client, NULL, &error));
    assert_ok(ptier_get_statistics(client, &stats, &error));
    assert_int_equal(stats.puts, 0);
    assert_int_equal(stats.entries, 30);
    assert_ok(ptier_export(client, PTIER_TIER_NONE, false, count_lines, &lines, &error));
    assert_int_equal(lines, 30);
    assert_ok(
        ptier_call_raw(client, "/proxytier.v1.Health/Check", NULL, 0, &reply, &length, &error));
    assert_true(length > 2);
    assert_memory_equal(reply, "\x08\x01", 2); /* SERVING, and the components */
    free(reply);
    assert_int_equal(
        ptier_call_raw(client, "/proxytier.v1.Health/Nothing", NULL, 0, &reply, &length, NULL),
        PTIER_UNIMPLEMENTED);
    assert_ok(ptier_clear(client, PTIER_TIER_NONE, NULL, &cleared, &error));
    assert_int_equal(cleared.cleared, 30);
    ptier_client_close(client);
}

static void
request_beyond_the_daemons_limit_is_refused_with_advice(void **state)
{
    test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon, 10000);
    ptier_error error = {.message = ""};
    enum { COUNT = PTIER_BATCH_MAX, LABELS = 24 };
    static char value[PTIER_LABEL_VALUE_MAX + 1];
    static char names[LABELS][16];
    ptier_label labels[LABELS];
    ptier_record *records = calloc(COUNT, sizeof *records);
    assert_non_null(records);
    memset(value, 'v', PTIER_LABEL_VALUE_MAX);
    for (int i = 0; i < LABELS; i++) {
        snprintf(names[i], sizeof names[i], "n%d", i);
        labels[i] = (ptier_label){names[i], value};
    }
    for (int i = 0; i < COUNT; i++) {
        ptier_record_init(&records[i]);
        records[i].url = "http://192.0.2.9:80";
        records[i].labels = labels;
        records[i].label_count = LABELS;
    }
    assert_int_equal(ptier_put_many(client, records, COUNT, NULL, NULL, &error),
                     PTIER_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "split"));
    free(records);
    ptier_client_close(client);
}

/* ---- events ---- */

typedef struct heard {
    pthread_mutex_t lock;
    uint64_t floor; /* revision at the start: what is told late of before does not count */
    size_t count;
    uint64_t last_sequence, last_revision;
    bool disordered, credentials;
    size_t by_type[PTIER_EVENT_CLEARED + 1];
    size_t removals[PTIER_REASON_COUNT];
    ptier_subscription_state state;
    size_t lost, resyncs;
} heard;

static void
on_event(void *context, const ptier_event *event)
{
    heard *h = context;
    pthread_mutex_lock(&h->lock);
    h->disordered = h->disordered ||
                    (h->last_sequence != 0 && event->sequence != h->last_sequence + 1) ||
                    event->revision <= h->last_revision;
    h->last_sequence = event->sequence;
    h->last_revision = event->revision;
    h->credentials = h->credentials || event->record.username || event->record.password;
    if (event->revision <= h->floor) {
        pthread_mutex_unlock(&h->lock);
        return;
    }
    h->count++;
    if (event->type <= PTIER_EVENT_CLEARED)
        h->by_type[event->type]++;
    if (event->type == PTIER_EVENT_REMOVED)
        h->removals[event->reason]++;
    pthread_mutex_unlock(&h->lock);
}

static void
on_state(void *context, ptier_subscription_state state)
{
    heard *h = context;
    pthread_mutex_lock(&h->lock);
    if (state == PTIER_SUBSCRIPTION_RESYNC) {
        h->resyncs++;
        h->last_sequence = 0;
        h->last_revision = 0;
        h->floor = 0;
    } else {
        h->state = state;
    }
    h->lost += state == PTIER_SUBSCRIPTION_LOST;
    pthread_mutex_unlock(&h->lock);
}

static ptier_subscription *
subscribe(ptier_client *client, heard *h)
{
    ptier_subscription_options options;
    ptier_subscription *subscription;
    ptier_server_info info;
    memset(h, 0, sizeof *h);
    assert_ok(ptier_get_info(client, &info, &error));
    h->floor = info.revision;
    pthread_mutex_init(&h->lock, NULL);
    ptier_subscription_options_init(&options);
    options.on_event = on_event;
    options.on_state = on_state;
    options.context = h;
    assert_ok(ptier_subscribe(client, &options, &subscription, &error));
    return subscription;
}

static void
wait_count(heard *h, const size_t *counter, size_t value)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    size_t seen;
    do {
        pthread_mutex_lock(&h->lock);
        seen = *counter;
        pthread_mutex_unlock(&h->lock);
        if (seen < value)
            short_pause();
    } while (seen < value && ptier_test_now() < until);
    if (seen < value)
        fail_msg("%zu of %zu came", seen, value);
}

static void
wait_state(heard *h, ptier_subscription_state wanted)
{
    int64_t until = ptier_test_now() + PATIENCE_MS;
    ptier_subscription_state state;
    do {
        pthread_mutex_lock(&h->lock);
        state = h->state;
        pthread_mutex_unlock(&h->lock);
        if (state != wanted)
            short_pause();
    } while (state != wanted && ptier_test_now() < until);
    assert_int_equal(state, wanted);
}

static void
every_kind_of_change_is_told(void **state)
{
    test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon, 10000);
    static heard h; /* outlives a failed test, whose subscription goes on */
    ptier_records found;
    assert_ok(ptier_clear(client, PTIER_TIER_NONE, NULL, NULL, &error));
    ptier_subscription *subscription = subscribe(client, &h);
    wait_state(&h, PTIER_SUBSCRIPTION_CONNECTED);
    put_range(client, 1, 5);
    put_range(client, 1, 1); /* UPDATED */
    assert_ok(ptier_list(client, NULL, 0, NULL, &found, &error));
    assert_int_equal(found.count, 5);
    const char *key = found.records[0].key, *other = found.records[1].key;
    ptier_report report = {.key = key, .outcome = PTIER_REPORT_FAILED};
    bool removed = false;
    for (int i = 0; i < 10 && !removed; i++) {
        ptier_report_results results;
        assert_ok(ptier_report_health(client, &report, 1, NULL, &results, &error));
        removed = results.items[0].removed;
        ptier_report_results_free(&results);
    }
    assert_true(removed);
    assert_ok(ptier_delete(client, &other, 1, NULL, NULL, &error));
    ptier_records_free(&found);
    assert_ok(ptier_clear(client, PTIER_TIER_NONE, NULL, NULL, &error));
    wait_count(&h, &h.removals[PTIER_REASON_DELETED], 1);
    wait_count(&h, &h.by_type[PTIER_EVENT_CLEARED], 1);
    ptier_subscription_close(subscription);
    assert_int_equal(h.by_type[PTIER_EVENT_CREATED], 5);
    assert_int_equal(h.by_type[PTIER_EVENT_UPDATED], 1);
    assert_true(h.by_type[PTIER_EVENT_HEALTH] >= 1);
    assert_int_equal(h.removals[PTIER_REASON_HEALTH], 1);
    assert_int_equal(h.removals[PTIER_REASON_DELETED], 1);
    assert_false(h.disordered);
    assert_false(h.credentials);
    assert_int_equal(h.resyncs, 0);
    ptier_client_close(client);
}

static void
burst_of_changes_arrives_complete_and_in_order(void **state)
{
    test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon, 30000);
    static heard h; /* outlives a failed test, whose subscription goes on */
    assert_ok(ptier_clear(client, PTIER_TIER_NONE, NULL, NULL, &error));
    ptier_subscription *subscription = subscribe(client, &h);
    wait_state(&h, PTIER_SUBSCRIPTION_CONNECTED);
    for (unsigned i = 0; i < 10; i++)
        put_range(client, 1 + i * 1000, 1000);
    wait_count(&h, &h.by_type[PTIER_EVENT_CREATED], 10000);
    ptier_subscription_close(subscription);
    assert_int_equal(h.by_type[PTIER_EVENT_CREATED], 10000);
    assert_false(h.disordered);
    assert_int_equal(h.resyncs, 0);
    ptier_client_close(client);
}

/* ---- a daemon in trouble ---- */

static void
hanging_daemon_is_told_as_lost_and_nothing_is_missed(void **state)
{
    test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon, 500);
    ptier_client *writer = open_client(daemon, 30000);
    static heard h; /* outlives a failed test, whose subscription goes on */
    ptier_statistics stats;
    ptier_subscription *subscription = subscribe(client, &h);
    wait_state(&h, PTIER_SUBSCRIPTION_CONNECTED);
    put_range(writer, 1, 10);
    wait_count(&h, &h.count, 10);
    int stopped;
    assert_int_equal(kill(daemon->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(daemon->pid, &stopped, WUNTRACED), daemon->pid);
    assert_true(WIFSTOPPED(stopped));
    int64_t start = ptier_test_now();
    ptier_status status = ptier_get_statistics(client, &stats, NULL);
    assert_true(ptier_test_now() - start < 5000);
    wait_count(&h, &h.lost, 1);
    assert_int_equal(kill(daemon->pid, SIGCONT), 0);
    assert_int_equal(status, PTIER_DEADLINE_EXCEEDED);
    put_range(writer, 1, 10); /* perhaps before the subscription is back */
    wait_state(&h, PTIER_SUBSCRIPTION_CONNECTED);
    wait_count(&h, &h.count, 20);
    ptier_subscription_close(subscription);
    assert_false(h.disordered);
    assert_int_equal(h.resyncs, 0);
    ptier_client_close(writer);
    ptier_client_close(client);
}

static void
restarted_daemon_is_found_again_and_told_as_resync(void **state)
{
    test_daemon *daemon = *state;
    ptier_client *client = open_client(daemon, 20000);
    static heard h; /* outlives a failed test, whose subscription goes on */
    ptier_records found;
    ptier_subscription *subscription = subscribe(client, &h);
    wait_state(&h, PTIER_SUBSCRIPTION_CONNECTED);
    put_range(client, 1, 3);
    for (size_t i = 1; i <= 2; i++) {
        if (i == 1) {
            test_daemon_restart(daemon, NULL);
        } else {
            assert_int_equal(test_daemon_end(daemon, SIGKILL), 128 + SIGKILL);
            assert_int_equal(ptier_list(client, NULL, 0, NULL, &found, NULL), PTIER_UNAVAILABLE);
            test_daemon_start(daemon, NULL);
        }
        assert_ok(ptier_list(client, NULL, 0, NULL, &found, &error));
        assert_true(found.count >= 3);
        ptier_records_free(&found);
        wait_count(&h, &h.resyncs, i);
        wait_state(&h, PTIER_SUBSCRIPTION_CONNECTED);
        size_t before = h.count; /* nothing happens now */
        put_range(client, 1, 3);
        wait_count(&h, &h.count, before + 3);
    }
    ptier_subscription_close(subscription);
    assert_false(h.disordered);
    ptier_client_close(client);
}

#define CALLERS 64 /* what a client has under way at most */
#define PUTS    150

static void *
put_often(void *client)
{
    ptier_record record;
    char url[64];
    make_record(&record, url, 0);
    for (int i = 0; i < PUTS; i++) {
        ptier_status status = ptier_put(client, &record, NULL, NULL, NULL);
        if (status != PTIER_OK)
            return (void *)(uintptr_t)status;
    }
    return NULL;
}

/* Each sends the next one as soon as it has its reply. */
static void
daemon_takes_as_many_calls_as_a_client_makes(void **state)
{
    ptier_client *client = open_client(*state, 60000);
    pthread_t threads[CALLERS];
    for (size_t i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, put_often, client), 0);
    for (size_t i = 0; i < CALLERS; i++) {
        void *status;
        pthread_join(threads[i], &status);
        assert_int_equal((uintptr_t)status, PTIER_OK);
    }
    ptier_client_close(client);
}

static int
start_daemon(void **state)
{
    test_daemon *daemon = calloc(1, sizeof *daemon);
    if (!daemon)
        return -1;
    test_daemon_init(daemon);
    test_daemon_start(daemon, NULL);
    *state = daemon;
    return 0;
}

static int
end_daemon(void **state)
{
    test_daemon *daemon = *state;
    int code = test_daemon_end(daemon, SIGTERM);
    test_daemon_fini(daemon);
    free(daemon);
    return code;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_that_is_put_is_found_by_every_way_of_reading),
        cmocka_unit_test(list_gives_every_record_page_by_page),
        cmocka_unit_test(administrators_calls_answer),
        cmocka_unit_test(request_beyond_the_daemons_limit_is_refused_with_advice),
        cmocka_unit_test(daemon_takes_as_many_calls_as_a_client_makes),
        cmocka_unit_test(every_kind_of_change_is_told),
        cmocka_unit_test(burst_of_changes_arrives_complete_and_in_order),
        cmocka_unit_test(hanging_daemon_is_told_as_lost_and_nothing_is_missed),
        cmocka_unit_test(restarted_daemon_is_found_again_and_told_as_resync),
    };
    return cmocka_run_group_tests(tests, start_daemon, end_daemon);
}
