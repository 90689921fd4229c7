/*
 * event_latency: from just before the call that makes a change until the callback of another
 * client's subscription, at 200 changes a second, one record each, LOGGED.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "load.h"
#include "pool.h"
#include "result.h"

#define RATE     200 /* changes a second */
#define ROUNDS   5
#define KEYS     1000 /* the first change of each creates, later ones update */
#define WITHIN_S 5    /* the last event comes, or the program fails */

typedef struct fixture {
    ptier_client *writer, *listener;
    ptier_subscription *subscription;
    ptier_record *records;
    atomic_bool following;
    _Atomic uint64_t begun[KEYS]; /* of the change of each record that is under way; 0: none */
    atomic_size_t arrived;
    ptier_histogram round, all;
} fixture;

static void
on_event(void *context, const ptier_event *event)
{
    fixture *f = context;
    uint64_t now = ptier_now_ns();
    size_t i = strtoul(event->record.key + 1, NULL, 10);
    uint64_t begun = i < KEYS ? atomic_exchange(&f->begun[i], 0) : 0;
    if (!begun)
        bench_fail("event_latency: an event of no change: %s", event->record.key);
    ptier_histogram_add(&f->round, now - begun);
    ptier_histogram_add(&f->all, now - begun);
    atomic_fetch_add(&f->arrived, 1);
}

static void
on_state(void *context, ptier_subscription_state state)
{
    fixture *f = context;
    if (state == PTIER_SUBSCRIPTION_RESYNC)
        bench_fail("event_latency: events were lost");
    atomic_store(&f->following, state == PTIER_SUBSCRIPTION_CONNECTED);
}

static void
subscribe(fixture *f)
{
    ptier_subscription_options options;
    ptier_error error;
    ptier_subscription_options_init(&options);
    options.on_event = on_event;
    options.on_state = on_state;
    options.context = f;
    if (ptier_subscribe(f->listener, &options, &f->subscription, &error))
        bench_fail("event_latency: %s", error.message);
    for (double until = bench_seconds() + WITHIN_S; !atomic_load(&f->following);) {
        if (bench_seconds() > until)
            bench_fail("event_latency: the subscription does not follow");
        bench_sleep_until(bench_seconds() + 0.002);
    }
}

/* Milliseconds: p99 of one round. */
static double
run(fixture *f, size_t changes)
{
    ptier_histogram_sum sum = {0};
    double begin = bench_seconds();
    atomic_store(&f->arrived, 0);
    for (size_t i = 0; i < changes; i++) {
        ptier_error error;
        bench_sleep_until(begin + (double)i / RATE);
        atomic_store(&f->begun[i % KEYS], ptier_now_ns());
        if (ptier_put(f->writer, &f->records[i % KEYS], NULL, NULL, &error))
            bench_fail("event_latency: %s", error.message);
    }
    for (double until = bench_seconds() + WITHIN_S; atomic_load(&f->arrived) < changes;) {
        if (bench_seconds() > until)
            bench_fail("event_latency: %zu of %zu events came", atomic_load(&f->arrived), changes);
        bench_sleep_until(bench_seconds() + 0.002);
    }
    ptier_histogram_collect(&f->round, true, &sum);
    return (double)ptier_histogram_percentile(&sum, 0.99) / 1e6;
}

int
main(int argc, char **argv)
{
    static fixture f;
    static char keys[KEYS][16];
    bench_run bench;
    bench_process daemon;
    double rounds[ROUNDS];
    ptier_histogram_sum all = {0};
    if (!bench_init(&bench, argc, argv))
        return 2;
    f.records = bench_records(0, KEYS);
    for (size_t i = 0; i < KEYS; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "k%zu", i); /* fits */
        f.records[i].key = keys[i];
    }
    bench_daemon_start(&daemon, &bench, "events", NULL);
    f.writer = bench_client(&daemon);
    f.listener = bench_client(&daemon);
    subscribe(&f);
    for (size_t i = 0; i < ROUNDS; i++)
        rounds[i] = run(&f, bench_size(&bench, 2000, 400));
    ptier_histogram_collect(&f.all, false, &all);
    const bench_details details = {.latency = &all, .server_cpu = bench_process_cpu(daemon.pid)};
    bench_print(&(bench_row){.name = "event_latency",
                             .unit = "ms",
                             .note = "p99 of each round",
                             .goal = BENCH_VALUE_AT_MOST,
                             .bound = 15},
                rounds, ROUNDS, &details);
    ptier_subscription_close(f.subscription);
    ptier_client_close(f.listener);
    ptier_client_close(f.writer);
    bench_process_stop(&daemon);
    free(f.records);
    return EXIT_SUCCESS;
}
