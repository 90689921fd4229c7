/* Histograms of latencies. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "histogram.h"
#include "support/sample_entry.h"

enum { VALUES = 20000, THREADS = 4, EACH = 50000 };

static ptier_histogram histogram;
static ptier_histogram_sum sum;

static int
set_up(void **state)
{
    (void)state;
    memset(&histogram, 0, sizeof histogram);
    memset(&sum, 0, sizeof sum);
    return 0;
}

static int
by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Exactly right or up to 1/16 too high. */
static void
assert_close(uint64_t got, uint64_t exact)
{
    assert_in_range(got, exact, exact + exact / 16);
}

static void
every_value_is_told_to_a_sixteenth(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 3000; i++) {
        uint64_t value =
            ptier_test_random(&seed, UINT64_C(1) << (1 + ptier_test_random(&seed, 40)));
        set_up(NULL);
        ptier_histogram_add(&histogram, value);
        ptier_histogram_add(&histogram, (UINT64_C(1) << 40) - 1); /* the maximum is another */
        ptier_histogram_collect(&histogram, false, &sum);
        assert_close(ptier_histogram_percentile(&sum, 0.5), value);
    }
}

static void
percentiles_agree_with_a_sorted_list(void **state)
{
    (void)state;
    static uint64_t values[VALUES];
    static const double shares[] = {0, 0.01, 0.5, 0.9, 0.99, 0.999, 1};
    uint64_t seed = 2, total = 0;
    for (int i = 0; i < VALUES; i++) {
        values[i] = ptier_test_random(&seed, UINT64_C(1) << (8 + ptier_test_random(&seed, 24)));
        total += values[i];
        ptier_histogram_add(&histogram, values[i]);
    }
    qsort(values, VALUES, sizeof *values, by_value);
    ptier_histogram_collect(&histogram, false, &sum);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        size_t rank = (size_t)(shares[i] * VALUES);
        assert_close(ptier_histogram_percentile(&sum, shares[i]), values[rank ? rank - 1 : 0]);
    }
    ptier_latency latency = ptier_histogram_latency(&sum);
    assert_int_equal(latency.count, VALUES);
    assert_int_equal(latency.total_ns, total);
    assert_int_equal(latency.max_ns, values[VALUES - 1]);
    assert_close(latency.p50_ns, values[VALUES / 2 - 1]);
    assert_close(latency.p99_ns, values[VALUES * 99 / 100 - 1]);
    assert_close(latency.p999_ns, values[VALUES / 1000 * 999 - 1]);
}

static void
an_empty_one_tells_zeroes(void **state)
{
    (void)state;
    static const ptier_latency none;
    ptier_histogram_collect(&histogram, true, &sum);
    ptier_latency latency = ptier_histogram_latency(&sum);
    assert_memory_equal(&latency, &none, sizeof none);
}

static void
one_value_is_every_percentile(void **state)
{
    (void)state;
    ptier_histogram_add(&histogram, 1000003);
    ptier_histogram_collect(&histogram, false, &sum);
    ptier_latency latency = ptier_histogram_latency(&sum);
    assert_int_equal(latency.p50_ns, 1000003);
    assert_int_equal(latency.p999_ns, 1000003);
}

static void
what_is_longer_than_all_buckets_is_kept_in_the_last(void **state)
{
    (void)state;
    const uint64_t beyond = UINT64_C(1) << PTIER_HISTOGRAM_MAX_BITS;
    ptier_histogram_add(&histogram, 5);
    for (uint64_t value = beyond; value < UINT64_MAX / 2; value *= 2)
        ptier_histogram_add(&histogram, value);
    ptier_histogram_collect(&histogram, false, &sum);
    assert_int_equal(sum.count, 1 + 63 - PTIER_HISTOGRAM_MAX_BITS);
    assert_int_equal(sum.total, 5 + (UINT64_C(1) << 63) - beyond);
    assert_int_equal(sum.max, UINT64_C(1) << 62);
    assert_int_equal(ptier_histogram_percentile(&sum, 1), beyond - 1);
}

static void
several_are_collected_into_one(void **state)
{
    (void)state;
    static ptier_histogram other;
    for (uint64_t i = 1; i <= 100; i++)
        ptier_histogram_add(i % 2 ? &histogram : &other, i * 1000);
    ptier_histogram_collect(&histogram, false, &sum);
    ptier_histogram_collect(&other, false, &sum);
    assert_int_equal(sum.count, 100);
    assert_int_equal(sum.total, 5050000);
    assert_int_equal(sum.max, 100000);
    assert_close(ptier_histogram_percentile(&sum, 0.5), 50000);
}

static void
reset_takes_out_what_it_collects(void **state)
{
    (void)state;
    ptier_histogram_add(&histogram, 70);
    ptier_histogram_collect(&histogram, true, &sum);
    assert_int_equal(sum.count, 1);
    memset(&sum, 0, sizeof sum);
    ptier_histogram_collect(&histogram, true, &sum);
    assert_int_equal(sum.count, 0);
    assert_int_equal(sum.total, 0);
    assert_int_equal(sum.max, 0);
}

static void *
add_many(void *context)
{
    uint64_t seed = (uint64_t)(uintptr_t)context;
    for (int i = 0; i < EACH; i++)
        ptier_histogram_add(&histogram, ptier_test_random(&seed, 1000));
    return NULL;
}

static void
nothing_is_lost_or_doubled_while_others_collect(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, (void *)(i + 1)), 0);
    for (int i = 0; i < 200; i++)
        ptier_histogram_collect(&histogram, true, &sum);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ptier_histogram_collect(&histogram, true, &sum);
    uint64_t total = 0;
    for (uint64_t i = 0; i < THREADS; i++) {
        uint64_t seed = i + 1;
        for (int k = 0; k < EACH; k++)
            total += ptier_test_random(&seed, 1000);
    }
    assert_int_equal(sum.count, THREADS * EACH);
    assert_int_equal(sum.total, total);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_value_is_told_to_a_sixteenth, set_up),
        cmocka_unit_test_setup(percentiles_agree_with_a_sorted_list, set_up),
        cmocka_unit_test_setup(an_empty_one_tells_zeroes, set_up),
        cmocka_unit_test_setup(one_value_is_every_percentile, set_up),
        cmocka_unit_test_setup(what_is_longer_than_all_buckets_is_kept_in_the_last, set_up),
        cmocka_unit_test_setup(several_are_collected_into_one, set_up),
        cmocka_unit_test_setup(reset_takes_out_what_it_collects, set_up),
        cmocka_unit_test_setup(nothing_is_lost_or_doubled_while_others_collect, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
