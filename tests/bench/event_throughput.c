/*
 * event_throughput: 100,000 changes a second, told to four subscribers that are processes of their
 * own, each by a callback; nothing may be lost on the way, or asked for again by Replay. In memory
 * only: what is measured is the way of events, not that of puts through L2 and L3. Beside it, for
 * information: what a bare nng PUB/SUB, a message of the same size for each event, loses of the
 * same flood on its way to as many processes.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/pubsub0/sub.h>

#include "load.h"
#include "pool.h"
#include "result.h"

#define SUBSCRIBERS 4
#define RATE        101000 /* offered: what arrives can't be faster, and its end comes later */
#define GOAL        100000
#define BATCH       500
#define KEYS        100000
#define WITHIN_S    10
#define EVENT_BYTES 150 /* of one event on our wire */

/* Of one subscriber, in memory that is shared with it. */
typedef struct seen {
    pid_t pid;
    atomic_bool following;
    _Atomic uint64_t events, missed, resyncs;
    _Atomic uint64_t revision; /* of the last event */
    uint64_t sequence;         /* the subscriber's own */
} seen;

typedef struct fixture {
    const bench_run *bench;
    bench_process daemon;
    char url[120]; /* of the bare publisher */
    seen *seen;
    size_t events; /* a round */
} fixture;

static void
await(const fixture *f, bool (*done)(const seen *s, uint64_t value), uint64_t value,
      const char *what)
{
    double until = bench_seconds() + WITHIN_S;
    for (size_t i = 0; i < SUBSCRIBERS; i++)
        while (!done(&f->seen[i], value)) {
            if (bench_seconds() > until || waitpid(f->seen[i].pid, NULL, WNOHANG) != 0)
                bench_fail("event_throughput: subscriber %zu: %s", i, what);
            bench_sleep_until(bench_seconds() + 0.001);
        }
}

static bool
follows(const seen *s, uint64_t value)
{
    (void)value; /* of no use here */
    return atomic_load(&s->following);
}

static bool
has_revision(const seen *s, uint64_t revision)
{
    return atomic_load(&s->revision) >= revision;
}

static void
start(fixture *f, void (*run)(const fixture *f, seen *mine))
{
    memset(f->seen, 0, SUBSCRIBERS * sizeof *f->seen);
    for (size_t i = 0; i < SUBSCRIBERS; i++) {
        pid_t pid = fork(); /* before this process has opened anything of nng */
        if (pid < 0)
            bench_fail("cannot fork");
        if (pid == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            run(f, &f->seen[i]);
            _exit(1);
        }
        f->seen[i].pid = pid;
    }
}

static void
stop(const fixture *f)
{
    for (size_t i = 0; i < SUBSCRIBERS; i++) {
        (void)kill(f->seen[i].pid, SIGKILL); /* ours, and not waited for yet */
        (void)waitpid(f->seen[i].pid, NULL, 0);
    }
}

static double
cpu(const fixture *f)
{
    double seconds = 0;
    for (size_t i = 0; i < SUBSCRIBERS; i++)
        seconds += bench_process_cpu(f->seen[i].pid);
    return seconds;
}

/* ---- ours ---- */

static void
on_event(void *context, const ptier_event *event)
{
    seen *mine = context;
    if (mine->sequence && event->sequence != mine->sequence + 1)
        atomic_fetch_add(&mine->missed, 1);
    mine->sequence = event->sequence;
    atomic_fetch_add_explicit(&mine->events, 1, memory_order_relaxed);
    atomic_store(&mine->revision, event->revision);
}

static void
on_state(void *context, ptier_subscription_state state)
{
    seen *mine = context;
    if (state == PTIER_SUBSCRIPTION_CONNECTED)
        atomic_store(&mine->following, true);
    else if (state == PTIER_SUBSCRIPTION_RESYNC)
        atomic_fetch_add(&mine->resyncs, 1);
}

static void
subscriber(const fixture *f, seen *mine)
{
    ptier_subscription_options options;
    ptier_subscription *subscription;
    ptier_error error;
    ptier_subscription_options_init(&options);
    options.on_event = on_event;
    options.on_state = on_state;
    options.context = mine;
    if (ptier_subscribe(bench_client(&f->daemon), &options, &subscription, &error))
        bench_fail("event_throughput: %s", error.message);
    for (;;)
        (void)pause();
}

/* Makes the changes; returns the last one's revision. */
static uint64_t
flood(const fixture *f, ptier_client *client, const ptier_record *records)
{
    uint64_t revision = 0;
    double begun = bench_seconds();
    for (size_t i = 0; i < f->events; i += BATCH) {
        ptier_put_results results;
        ptier_error error;
        bench_sleep_until(begun + (double)i / RATE);
        if (ptier_put_many(client, records + i % KEYS, BATCH, NULL, &results, &error))
            bench_fail("event_throughput: %s", error.message);
        revision = results.items[BATCH - 1].revision;
        ptier_put_results_free(&results);
    }
    return revision;
}

/* As the daemon's log has them: a line for each call. */
static double
count_replays(const fixture *f)
{
    char path[256], line[1024];
    double count = 0;
    (void)snprintf(path, sizeof path, "%s/events.log", f->bench->work); /* fits: process.h */
    FILE *log = fopen(path, "r");
    if (!log)
        bench_fail("event_throughput: no log of the daemon");
    while (fgets(line, sizeof line, log))
        count += strstr(line, "Replay") != NULL;
    fclose(log);
    return count;
}

static void
print_ours(fixture *f, double rate, double peer_lost, double client_cpu)
{
    double lost = count_replays(f);
    for (size_t i = 0; i < SUBSCRIBERS; i++) {
        const seen *s = &f->seen[i];
        lost += (double)(s->missed + s->resyncs) + (double)f->events - (double)s->events;
    }
    char note[200];
    (void)snprintf(
        note, sizeof note,
        "without L2 and L3; nng PUB/SUB with a message an event lost %.1f %% of the flood",
        peer_lost * 100); /* fits */
    const bench_details details = {.server_cpu = bench_process_cpu(f->daemon.pid),
                                   .client_cpu = client_cpu,
                                   .server_peak_kb = bench_process_peak_kb(f->daemon.pid)};
    bench_print(&(bench_row){.name = "event_throughput",
                             .unit = "events/s",
                             .note = note,
                             .goal = BENCH_VALUE_AT_LEAST,
                             .bound = GOAL},
                &rate, 1, &details);
    bench_print(&(bench_row){.name = "event_throughput_lost",
                             .unit = "events",
                             .note = "events that a subscriber did not get, and Replays",
                             .goal = BENCH_VALUE_AT_MOST,
                             .bound = 0},
                &lost, 1, NULL);
}

static void
ours(fixture *f, double peer_lost)
{
    ptier_record *records = bench_records(0, KEYS);
    bench_daemon_start(&f->daemon, f->bench, "events",
                       (const char *[]){"--log-level", "debug", "--l2", "off", "--l3", "off",
                                        "--l1-entries", "200000", NULL});
    start(f, subscriber);
    await(f, follows, 0, "does not follow");
    ptier_client *client = bench_client(&f->daemon);
    double begun = bench_seconds();
    uint64_t last = flood(f, client, records);
    await(f, has_revision, last, "did not get the last event");
    double seconds = bench_seconds() - begun, client_cpu = cpu(f);
    ptier_client_close(client);
    stop(f);
    print_ours(f, (double)f->events / seconds, peer_lost, client_cpu);
    bench_process_stop(&f->daemon);
    free(records);
}

/* ---- bare nng ---- */

static void
bare_subscriber(const fixture *f, seen *mine)
{
    nng_socket socket;
    nng_msg *message;
    if (nng_sub0_open(&socket) || nng_socket_set(socket, NNG_OPT_SUB_SUBSCRIBE, "", 0) ||
        nng_dial(socket, f->url, NULL, 0))
        bench_fail("event_throughput: a bare subscriber does not work");
    atomic_store(&mine->following, true);
    while (nng_recvmsg(socket, &message, 0) == 0) {
        nng_msg_free(message);
        atomic_fetch_add(&mine->events, 1);
    }
}

/* In a process of its own, as the daemon is. */
__attribute__((noreturn)) static void
bare_publisher(const fixture *f, int go)
{
    nng_socket socket;
    char byte;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (nng_pub0_open(&socket) || nng_listen(socket, f->url, NULL, 0) || read(go, &byte, 1) != 1)
        bench_fail("event_throughput: the bare publisher does not work");
    double begun = bench_seconds();
    for (size_t i = 0; i < f->events; i++) {
        nng_msg *message;
        if (i % BATCH == 0)
            bench_sleep_until(begun + (double)i / RATE);
        if (nng_msg_alloc(&message, EVENT_BYTES) || nng_sendmsg(socket, message, 0))
            bench_fail("event_throughput: the bare publisher cannot send");
    }
    bench_sleep_until(bench_seconds() + 0.5); /* what is queued still goes out */
    _exit(0);
}

/* The share of events that did not arrive. */
static double
bare(fixture *f)
{
    int go[2];
    pid_t publisher;
    uint64_t events = 0;
    (void)snprintf(f->url, sizeof f->url, "ipc://%s/bare.sock", f->bench->work);
    if (pipe(go) || (publisher = fork()) < 0)
        bench_fail("cannot fork");
    if (publisher == 0)
        bare_publisher(f, go[0]);
    while (access(f->url + strlen("ipc://"), F_OK) != 0)
        bench_sleep_until(bench_seconds() + 0.002);
    start(f, bare_subscriber);
    await(f, follows, 0, "does not follow");
    bench_sleep_until(bench_seconds() + 0.2); /* until the publisher knows what they want */
    if (write(go[1], "", 1) != 1 || waitpid(publisher, NULL, 0) != publisher)
        bench_fail("event_throughput: the bare publisher does not work");
    stop(f);
    close(go[0]);
    close(go[1]);
    for (size_t i = 0; i < SUBSCRIBERS; i++)
        events += f->seen[i].events;
    return 1 - (double)events / (double)(f->events * SUBSCRIBERS);
}

int
main(int argc, char **argv)
{
    bench_run bench;
    if (!bench_init(&bench, argc, argv))
        return 2;
    fixture f = {.bench = &bench, .events = bench_size(&bench, 10, 2) * RATE};
    f.seen = mmap(NULL, SUBSCRIBERS * sizeof *f.seen, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (f.seen == MAP_FAILED)
        bench_fail("out of memory");
    double lost = bare(&f);
    ours(&f, lost);
    return EXIT_SUCCESS;
}
