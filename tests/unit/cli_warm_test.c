/* What warming is made of: batches and the sender, over a daemon that is played by this file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "warm_progress.h"
#include "warm_sender.h"

/* ---- the daemon that is played; used by the sender's thread alone while it runs ---- */

static struct {
    uint64_t calls, records;
    uint64_t fail_at_call; /* 0: never */
    uint64_t next;         /* the number expected in the next record's URL */
    bool in_order;
} daemon_played;

ptier_status
ptier_put_many(ptier_client *client, const ptier_record *records, size_t count,
               const ptier_put_call *call, ptier_put_results *results, ptier_error *error)
{
    char url[64];

    (void)client;
    (void)call;
    memset(results, 0, sizeof *results);
    if (++daemon_played.calls == daemon_played.fail_at_call)
        return ptier_fail(error, PTIER_UNAVAILABLE, "gone");
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(url, sizeof url, "http://h:%llu", (unsigned long long)daemon_played.next++);
        daemon_played.in_order &= strcmp(records[i].url, url) == 0;
    }
    daemon_played.records += count;
    results->count = count;
    return PTIER_OK;
}

void
ptier_put_results_free(ptier_put_results *results)
{
    memset(results, 0, sizeof *results);
}

static bool
count_sent(void *context, const ptier_warm_batch *batch, const ptier_put_results *results)
{
    uint64_t *sent = context;
    assert_int_equal(batch->count, results->count);
    *sent += results->count;
    return true;
}

/* Feeds `count` numbered records as warming does. Returns how many were taken. */
static uint64_t
feed(ptier_warm_sender *sender, uint64_t count)
{
    ptier_warm_batch *batch = NULL;
    uint64_t taken = 0;

    for (; taken < count; taken++) {
        char url[64];
        ptier_record record;

        (void)snprintf(url, sizeof url, "http://h:%llu", (unsigned long long)taken);
        ptier_record_init(&record);
        record.url = url;
        if (batch && !ptier_warm_batch_takes(batch, "f", false)) {
            ptier_warm_sender_submit(sender, batch);
            batch = NULL;
        }
        if (!batch)
            batch = ptier_warm_sender_take(sender);
        if (!batch)
            break;
        assert_true(ptier_warm_batch_add(batch, "f", &record, false,
                                         (ptier_warm_place){.line = taken + 1}));
    }
    if (batch)
        ptier_warm_sender_submit(sender, batch);
    return taken;
}

static ptier_status
send_numbered(uint64_t count, uint64_t fail_at_call, uint64_t *taken, uint64_t *sent)
{
    ptier_warm_sender *sender = malloc(sizeof *sender);
    ptier_warm_sender_options options = {.on_sent = count_sent, .context = sent};
    ptier_error error = {0};

    assert_non_null(sender);
    memset(&daemon_played, 0, sizeof daemon_played);
    daemon_played.in_order = true;
    daemon_played.fail_at_call = fail_at_call;
    *sent = 0;
    assert_true(ptier_warm_sender_start(sender, &options));
    *taken = feed(sender, count);
    ptier_status status = ptier_warm_sender_finish(sender, &error);
    free(sender);
    return status;
}

static void
every_record_is_sent_once_and_in_order(void **state)
{
    static const uint64_t counts[] = {0, 1, PTIER_WARM_BATCH, PTIER_WARM_BATCH + 1, 12345};

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        uint64_t taken, sent;
        assert_int_equal(send_numbered(counts[i], 0, &taken, &sent), PTIER_OK);
        assert_int_equal(taken, counts[i]);
        assert_int_equal(sent, counts[i]);
        assert_int_equal(daemon_played.records, counts[i]);
        assert_true(daemon_played.in_order);
    }
}

static void
a_failed_batch_ends_sending(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 5; n++) {
        uint64_t taken, sent;
        assert_int_equal(send_numbered(20 * PTIER_WARM_BATCH, n, &taken, &sent), PTIER_UNAVAILABLE);
        assert_int_equal(sent, (n - 1) * PTIER_WARM_BATCH);
        assert_int_equal(daemon_played.calls, n);
        assert_true(taken < 20 * PTIER_WARM_BATCH);
    }
}

/* ---- batches ---- */

static void
a_batch_keeps_its_own_copies(void **state)
{
    ptier_warm_batch *batch = malloc(sizeof *batch);
    char text[] = "secret", name[] = "country", value[] = "DE";
    ptier_label label = {name, value};
    ptier_record record;

    (void)state;
    assert_non_null(batch);
    ptier_warm_batch_init(batch);
    ptier_record_init(&record);
    record.url = record.password = record.source = record.key = text;
    record.username = record.username_token = record.password_token = text;
    record.labels = &label;
    record.label_count = 1;
    assert_true(ptier_warm_batch_add(batch, "f", &record, true, (ptier_warm_place){.line = 7}));
    memset(text, 'x', sizeof text - 1);
    memset(name, 'x', sizeof name - 1);
    memset(value, 'x', sizeof value - 1);
    label.name = NULL;
    const ptier_record *copy = &batch->records[0];
    assert_string_equal(copy->url, "secret");
    assert_string_equal(copy->password, "secret");
    assert_string_equal(copy->source, "secret");
    assert_string_equal(copy->key, "secret");
    assert_string_equal(copy->username, "secret");
    assert_string_equal(copy->username_token, "secret");
    assert_string_equal(copy->password_token, "secret");
    assert_string_equal(copy->labels[0].name, "country");
    assert_string_equal(copy->labels[0].value, "DE");
    assert_int_equal(batch->places[0].line, 7);
    ptier_warm_batch_fini(batch);
    free(batch);
}

static void
a_batch_takes_one_kind_of_record_and_so_many(void **state)
{
    ptier_warm_batch *batch = malloc(sizeof *batch);
    const char *file = "f", *other = "g";
    char *big = calloc(1, PTIER_WARM_BATCH_BYTES + 1);
    ptier_record record;

    (void)state;
    assert_non_null(batch);
    assert_non_null(big);
    ptier_warm_batch_init(batch);
    ptier_record_init(&record);
    record.url = "http://h:1";
    assert_true(ptier_warm_batch_add(batch, file, &record, false, (ptier_warm_place){.line = 1}));
    assert_true(ptier_warm_batch_takes(batch, file, false));
    assert_false(ptier_warm_batch_takes(batch, file, true));
    assert_false(ptier_warm_batch_takes(batch, other, false));
    memset(big, 'a', PTIER_WARM_BATCH_BYTES);
    record.source = big;
    assert_true(ptier_warm_batch_add(batch, file, &record, false, (ptier_warm_place){.line = 2}));
    assert_false(ptier_warm_batch_takes(batch, file, false));
    ptier_warm_batch_clear(batch);
    record.source = NULL;
    for (uint64_t i = 0; i < PTIER_WARM_BATCH; i++) {
        assert_true(ptier_warm_batch_takes(batch, file, false));
        assert_true(
            ptier_warm_batch_add(batch, file, &record, false, (ptier_warm_place){.line = i}));
    }
    assert_false(ptier_warm_batch_takes(batch, file, false));
    ptier_warm_batch_fini(batch);
    free(big);
    free(batch);
}

/* ---- tally ---- */

static void
reasons_are_counted_and_the_many_share_one_place(void **state)
{
    ptier_warm_progress progress;
    char reason[32];

    (void)state;
    ptier_warm_progress_init(&progress);
    progress.tally.shown = PTIER_WARM_SHOWN; /* keep the test's own output clean */
    for (int i = 0; i < 40; i++) {
        (void)snprintf(reason, sizeof reason, "reason %d", i);
        ptier_warm_progress_skip(&progress, "f", (ptier_warm_place){.line = 1}, reason, false);
        ptier_warm_progress_skip(&progress, "f", (ptier_warm_place){.line = 1}, "reason 0",
                                 i % 2 == 0);
    }
    assert_int_equal(progress.tally.skipped, 60);
    assert_int_equal(progress.tally.rejected, 20);
    assert_int_equal(progress.tally.reason_count, PTIER_WARM_REASONS);
    assert_int_equal(progress.tally.reasons[0].count, 41);
    assert_string_equal(progress.tally.reasons[PTIER_WARM_REASONS - 1].text, "other reasons");
    assert_int_equal(progress.tally.reasons[PTIER_WARM_REASONS - 1].count,
                     40 - (PTIER_WARM_REASONS - 1));
    ptier_warm_progress_fini(&progress);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_record_is_sent_once_and_in_order),
        cmocka_unit_test(a_failed_batch_ends_sending),
        cmocka_unit_test(a_batch_keeps_its_own_copies),
        cmocka_unit_test(a_batch_takes_one_kind_of_record_and_so_many),
        cmocka_unit_test(reasons_are_counted_and_the_many_share_one_place),
    };
    return cmocka_run_group_tests_name("cli_warm", tests, NULL, NULL);
}
