/* server/dedup.c: single facts, then many calls against a plain reference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dedup.h"

#define WINDOW 60000

static ptier_dedup *
make(size_t entries, size_t bytes)
{
    ptier_dedup_limits limits = {
        .entries = entries, .outcome_bytes = bytes, .window_ms = WINDOW, .seed = 7};
    ptier_dedup *dedup = ptier_dedup_create(&limits);
    assert_non_null(dedup);
    return dedup;
}

static ptier_dedup_call
call_of(uint32_t number)
{
    ptier_dedup_call call = {.identity = 1, .digest = {number, 2}};
    memcpy(call.id, &number, sizeof number);
    return call;
}

static ptier_dedup_call
retry_of(uint32_t number, int64_t first_sent_ms)
{
    ptier_dedup_call call = call_of(number);
    call.retry = true;
    call.first_sent_ms = first_sent_ms;
    return call;
}

static ptier_dedup_verdict
begin(ptier_dedup *dedup, ptier_dedup_call call, int64_t now, ptier_dedup_entry **entry)
{
    static ptier_dedup_waiter unused; /* for calls that do not wait */
    return ptier_dedup_begin(dedup, &call, now, &unused, entry);
}

/* Makes a whole call, whose outcome is its number. */
static void
perform(ptier_dedup *dedup, uint32_t number, int64_t now)
{
    ptier_dedup_entry *entry;
    assert_int_equal(begin(dedup, call_of(number), now, &entry), PTIER_DEDUP_NEW);
    assert_null(ptier_dedup_finish(dedup, entry, now, true, (uint8_t *)&number, sizeof number));
}

static void
expect_outcome(const ptier_dedup_entry *entry, uint32_t number)
{
    size_t length;
    const uint8_t *outcome = ptier_dedup_outcome(entry, &length);
    assert_int_equal(length, sizeof number);
    assert_memory_equal(outcome, &number, sizeof number);
}

static void
ended_call_is_told_again_until_its_window_ends(void **state)
{
    (void)state;
    ptier_dedup *dedup = make(8, 1000);
    ptier_dedup_entry *entry;
    perform(dedup, 5, 1000);
    assert_int_equal(begin(dedup, call_of(5), 1001, &entry), PTIER_DEDUP_DONE);
    expect_outcome(entry, 5);
    assert_int_equal(begin(dedup, retry_of(5, 999), 1000 + WINDOW - 1, &entry), PTIER_DEDUP_DONE);
    assert_int_equal(begin(dedup, call_of(5), 1000 + WINDOW, &entry), PTIER_DEDUP_NEW);
    ptier_dedup_destroy(dedup);
}

static void
equal_ids_of_others_are_other_calls(void **state)
{
    (void)state;
    ptier_dedup *dedup = make(8, 1000);
    ptier_dedup_entry *entry;
    perform(dedup, 5, 1000);
    ptier_dedup_call other = call_of(5);
    other.identity = 2;
    assert_int_equal(begin(dedup, other, 1000, &entry), PTIER_DEDUP_NEW);
    ptier_dedup_destroy(dedup);
}

static void
same_id_with_another_body_is_refused(void **state)
{
    (void)state;
    ptier_dedup *dedup = make(8, 1000);
    ptier_dedup_entry *entry, *running;
    ptier_dedup_call other = call_of(5), third = call_of(6);
    other.digest[1]++;
    third.digest[0]++;
    perform(dedup, 5, 1000);
    assert_int_equal(begin(dedup, other, 1000, &entry), PTIER_DEDUP_OTHER);
    assert_int_equal(begin(dedup, call_of(6), 1000, &running), PTIER_DEDUP_NEW);
    assert_int_equal(begin(dedup, third, 1000, &entry), PTIER_DEDUP_OTHER);
    assert_null(ptier_dedup_finish(dedup, running, 1000, true, NULL, 0));
    ptier_dedup_destroy(dedup);
}

static void
doubles_of_a_running_call_wait_for_it(void **state)
{
    (void)state;
    ptier_dedup *dedup = make(8, 1000);
    ptier_dedup_entry *running, *entry;
    ptier_dedup_waiter one = {.deadline_ms = 50}, two = {.deadline_ms = 40},
                       late = {.deadline_ms = 20};
    ptier_dedup_call call = call_of(5);
    assert_int_equal(begin(dedup, call, 0, &running), PTIER_DEDUP_NEW);
    assert_int_equal(ptier_dedup_begin(dedup, &call, 0, &one, &entry), PTIER_DEDUP_RUNNING);
    assert_int_equal(ptier_dedup_begin(dedup, &call, 0, &late, &entry), PTIER_DEDUP_RUNNING);
    assert_int_equal(ptier_dedup_begin(dedup, &call, 0, &two, &entry), PTIER_DEDUP_RUNNING);
    assert_int_equal(ptier_dedup_figure(dedup).waiters, 3);
    assert_null(ptier_dedup_overdue(dedup, 19));
    assert_ptr_equal(ptier_dedup_overdue(dedup, 20), &late);
    assert_null(late.next);
    const ptier_dedup_waiter *back = ptier_dedup_finish(dedup, running, 30, true, NULL, 0);
    assert_true((back == &one && one.next == &two) || (back == &two && two.next == &one));
    assert_int_equal(ptier_dedup_figure(dedup).waiters, 0);
    ptier_dedup_destroy(dedup);
}

static void
call_that_was_not_executed_leaves_no_trace(void **state)
{
    (void)state;
    ptier_dedup *dedup = make(8, 1000);
    ptier_dedup_entry *entry;
    assert_int_equal(begin(dedup, call_of(5), 0, &entry), PTIER_DEDUP_NEW);
    assert_null(ptier_dedup_finish(dedup, entry, 0, false, NULL, 0));
    assert_int_equal(ptier_dedup_figure(dedup).entries, 0);
    assert_int_equal(begin(dedup, retry_of(5, 1), 2, &entry), PTIER_DEDUP_NEW);
    ptier_dedup_destroy(dedup);
}

static void
retry_of_what_was_forgotten_is_unsure(void **state)
{
    (void)state;
    ptier_dedup *dedup = make(4, 1000);
    ptier_dedup_entry *entry;
    for (uint32_t i = 0; i < 6; i++)
        perform(dedup, i, 100 + i); /* 0 and 1, of 100 and 101, are forgotten early */
    assert_int_equal(ptier_dedup_figure(dedup).entries, 4);
    assert_int_equal(ptier_dedup_figure(dedup).early, 2);
    assert_int_equal(begin(dedup, retry_of(99, 101), 110, &entry), PTIER_DEDUP_UNSURE);
    assert_null(ptier_dedup_finish(dedup, entry, 110, false, NULL, 0));
    /* Its own begin made room: 2, of 102, is forgotten too. */
    assert_int_equal(begin(dedup, retry_of(98, 103), 110, &entry), PTIER_DEDUP_NEW);
    assert_null(ptier_dedup_finish(dedup, entry, 110, false, NULL, 0));
    /* One that does not say is as old as the window. */
    assert_int_equal(begin(dedup, retry_of(97, 0), 103 + WINDOW, &entry), PTIER_DEDUP_NEW);
    ptier_dedup_destroy(dedup);
}

static void
outcomes_have_a_bound_and_large_ones_are_not_kept(void **state)
{
    (void)state;
    static uint8_t large[1000];
    ptier_dedup *dedup = make(100, 1000);
    ptier_dedup_entry *entry;
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(begin(dedup, call_of(i), 10 + i, &entry), PTIER_DEDUP_NEW);
        assert_null(ptier_dedup_finish(dedup, entry, 10 + i, true, large, 250));
        assert_true(ptier_dedup_figure(dedup).outcome_bytes <= 1000);
    }
    assert_int_equal(ptier_dedup_figure(dedup).entries, 4);
    assert_int_equal(begin(dedup, call_of(50), 100, &entry), PTIER_DEDUP_NEW);
    assert_null(ptier_dedup_finish(dedup, entry, 100, true, large, 251));
    assert_int_equal(begin(dedup, retry_of(50, 99), 101, &entry), PTIER_DEDUP_UNSURE);
    ptier_dedup_destroy(dedup);
}

static void
running_calls_are_never_forgotten(void **state)
{
    (void)state;
    ptier_dedup *dedup = make(3, 1000);
    ptier_dedup_entry *entries[3], *entry;
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(begin(dedup, call_of(i), 0, &entries[i]), PTIER_DEDUP_NEW);
    assert_int_equal(begin(dedup, call_of(9), 10 * WINDOW, &entry), PTIER_DEDUP_FULL);
    for (uint32_t i = 0; i < 3; i++)
        assert_null(ptier_dedup_finish(dedup, entries[i], 10 * WINDOW, true, NULL, 0));
    assert_int_equal(begin(dedup, call_of(0), 10 * WINDOW + 1, &entry), PTIER_DEDUP_DONE);
    ptier_dedup_destroy(dedup);
}

/* ---- against a reference: what was executed, and when ---- */

#define IDS 200

typedef struct reference {
    uint32_t generation[IDS]; /* how many calls each has made */
    bool executed[IDS];
    int64_t first_sent[IDS]; /* 0: never */
    ptier_dedup_entry *running[IDS];
    unsigned done_again, unsure, repeated;
} reference;

static void
step(ptier_dedup *dedup, reference *r, int64_t now, uint32_t number)
{
    ptier_dedup_entry *entry;
    ptier_dedup_waiter waiter;
    bool retry = r->first_sent[number] != 0;
    uint32_t id = number + IDS * r->generation[number];
    if (r->running[number] && rand() % 2) {
        bool executed = rand() % 4 != 0;
        assert_null(ptier_dedup_finish(dedup, r->running[number], now, executed, (uint8_t *)&id,
                                       sizeof id));
        r->executed[number] = executed;
        r->running[number] = NULL;
        return;
    }
    ptier_dedup_call call = retry ? retry_of(id, r->first_sent[number] - rand() % 3) : call_of(id);
    if (!retry)
        r->first_sent[number] = now;
    if (!retry && rand() % 4 == 0)
        return; /* the first try is lost on its way */
    switch (ptier_dedup_begin(dedup, &call, now, &waiter, &entry)) {
    case PTIER_DEDUP_NEW: /* the promise: never when it was done */
        assert_false(r->executed[number]);
        assert_null(r->running[number]);
        r->running[number] = entry;
        break;
    case PTIER_DEDUP_UNSURE:
        assert_null(r->running[number]);
        r->done_again += r->executed[number];
        r->unsure++;
        assert_null(ptier_dedup_finish(dedup, entry, now, false, NULL, 0));
        break;
    case PTIER_DEDUP_RUNNING:
        assert_non_null(r->running[number]);
        assert_ptr_equal(ptier_dedup_overdue(dedup, INT64_MAX), &waiter);
        break;
    case PTIER_DEDUP_DONE:
        assert_true(r->executed[number]);
        expect_outcome(entry, id);
        r->repeated++;
        break;
    case PTIER_DEDUP_OTHER:
    case PTIER_DEDUP_FULL:
        fail_msg("id %u at %lld", number, (long long)now);
    }
}

/* Its caller is content, or has given up. */
static void
next_call(reference *r, uint32_t number)
{
    r->generation[number]++;
    r->executed[number] = false;
    r->first_sent[number] = 0;
}

static void
no_call_is_ever_new_twice(void **state)
{
    (void)state;
    reference total = {0};
    for (unsigned seed = 1; seed <= 60; seed++) {
        static reference r;
        ptier_dedup *dedup = make(seed % 2 ? 150 : 220, seed % 3 ? 400 : 10000);
        int64_t now = 1000;
        memset(&r, 0, sizeof r);
        srand(seed);
        for (unsigned i = 0; i < 20000; i++) {
            now += rand() % 1000 == 0 ? rand() % (WINDOW / 2) : rand() % 50;
            uint32_t number = (uint32_t)rand() % IDS;
            step(dedup, &r, now, number);
            assert_true(ptier_dedup_figure(dedup).entries <= (seed % 2 ? 150 : 220));
            if (!r.running[number] && (rand() % 40 == 0 || now > r.first_sent[number] + WINDOW / 2))
                next_call(&r, number);
        }
        total.done_again += r.done_again;
        total.unsure += r.unsure;
        total.repeated += r.repeated;
        for (unsigned i = 0; i < IDS; i++)
            if (r.running[i])
                assert_null(ptier_dedup_finish(dedup, r.running[i], now, false, NULL, 0));
        ptier_dedup_destroy(dedup);
    }
    assert_true(total.repeated > 10000); /* all of it happened */
    assert_true(total.unsure > 1000);
    assert_true(total.done_again > 100);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ended_call_is_told_again_until_its_window_ends),
        cmocka_unit_test(equal_ids_of_others_are_other_calls),
        cmocka_unit_test(same_id_with_another_body_is_refused),
        cmocka_unit_test(doubles_of_a_running_call_wait_for_it),
        cmocka_unit_test(call_that_was_not_executed_leaves_no_trace),
        cmocka_unit_test(retry_of_what_was_forgotten_is_unsure),
        cmocka_unit_test(outcomes_have_a_bound_and_large_ones_are_not_kept),
        cmocka_unit_test(running_calls_are_never_forgotten),
        cmocka_unit_test(no_call_is_ever_new_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
