/*
 * The near cache end to end: a real daemon, and between it and the client a proxy for each of the
 * two sockets, which delay and cut independently. Others change records meanwhile; whatever the
 * near cache serves is compared with what the daemon had acknowledged. PTIER_NEAR_SECONDS makes it
 * longer.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "support/daemon.h"
#include "support/slow_proxy.h"
#include "support/monotonic.h"

enum { KEYS = 600, HOT = 60, HISTORY = 64, READERS = 4, MANY = 40, SHORT_S = 13, BOUND_MS = 1000 };

/* A change that was sent. */
typedef struct change {
    uint64_t revision; /* 0: not acknowledged yet */
    int64_t acked_ms;
    bool present;
} change;

typedef struct known {
    pthread_mutex_t lock;
    change changes[HISTORY]; /* the latest; the newest at (count - 1) % HISTORY */
    size_t count;
} known;

typedef struct world {
    test_daemon daemon;
    known keys[KEYS];
    ptier_client *client; /* of the readers */
    slow_proxy *calls, *events;
    atomic_bool stopping;
    _Atomic uint64_t reads, served, changed, own, stale, own_missed;
} world;

static void
pause_ms(int ms)
{
    const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

static void
key_name(char name[24], unsigned number)
{
    snprintf(name, 24, "key-%u", number);
}

/* ---- changes by others ---- */

static change *
begin_change(known *k, bool present)
{
    pthread_mutex_lock(&k->lock);
    change *c = &k->changes[k->count++ % HISTORY];
    *c = (change){.present = present};
    pthread_mutex_unlock(&k->lock);
    return c;
}

static bool
put(ptier_client *client, const char *key, const char *source, uint64_t *revision)
{
    ptier_put_results results;
    ptier_record record;
    ptier_record_init(&record);
    record.key = key;
    record.url = "http://192.0.2.1:80";
    record.source = source;
    if (ptier_put(client, &record, NULL, &results, NULL) != PTIER_OK)
        return false;
    if (revision)
        *revision = results.items[0].revision;
    ptier_put_results_free(&results);
    return true;
}

static void
change_one(world *w, ptier_client *client, unsigned number, bool remove)
{
    char key[24];
    const char *keys[] = {key};
    known *k = &w->keys[number];
    key_name(key, number);
    change *c = begin_change(k, !remove);
    uint64_t revision = 0;
    ptier_server_info info;
    if (!remove) {
        assert_true(put(client, key, "s", &revision));
    } else {
        assert_int_equal(ptier_delete(client, keys, 1, NULL, NULL, NULL), PTIER_OK);
        assert_int_equal(ptier_get_info(client, &info, NULL), PTIER_OK);
        revision = info.revision;
    }
    pthread_mutex_lock(&k->lock);
    c->revision = revision;
    c->acked_ms = ptier_test_now();
    pthread_mutex_unlock(&k->lock);
    atomic_fetch_add(&w->changed, 1);
}

static ptier_client *
open_client(const char *url, const ptier_near_cache_options *near)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = url;
    options.near_cache = near;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static void *
write_all_the_time(void *context)
{
    world *w = context;
    unsigned seed = 7;
    ptier_client *client = open_client(w->daemon.url, NULL);
    while (!atomic_load(&w->stopping)) {
        unsigned number = (unsigned)rand_r(&seed) % (rand_r(&seed) % 2 ? HOT : KEYS);
        change_one(w, client, number, rand_r(&seed) % 5 == 0);
        pause_ms(1);
    }
    ptier_client_close(client);
    return NULL;
}

/* ---- judging ---- */

/* What was served was the daemon's state at an instant after `since`, as far as acknowledgements
 * tell. revision 0: the key was said not to be cached. */
static bool
in_time(known *k, uint64_t revision, int64_t since)
{
    bool right = true;
    pthread_mutex_lock(&k->lock);
    size_t oldest = k->count > HISTORY ? k->count - HISTORY : 0;
    for (size_t i = k->count; i-- > oldest;) {
        const change *c = &k->changes[i % HISTORY];
        if (revision == 0 && !c->present)
            break;                                     /* removed, then or by now */
        if (c->revision != 0 && c->acked_ms < since) { /* the last one of before */
            right = revision >= c->revision;
            break;
        }
    }
    pthread_mutex_unlock(&k->lock);
    return right;
}

static void
judge(world *w, unsigned number, uint64_t revision, int64_t begun)
{
    atomic_fetch_add(&w->reads, 1);
    if (!in_time(&w->keys[number], revision, begun - BOUND_MS))
        atomic_fetch_add(&w->stale, 1);
}

static void
read_one(world *w, unsigned number)
{
    char key[24];
    ptier_records found;
    key_name(key, number);
    int64_t begun = ptier_test_now();
    ptier_status status = ptier_get(w->client, key, &found, NULL);
    if (status == PTIER_OK || status == PTIER_NOT_FOUND)
        judge(w, number, status == PTIER_OK ? found.records[0].revision : 0, begun);
    atomic_fetch_add(&w->served, found.near_count);
    ptier_records_free(&found);
}

/* As many keys as one call takes in, some of them known here and some not. */
static void
read_many(world *w, unsigned first)
{
    char names[MANY][24];
    const char *keys[MANY];
    ptier_records found;
    for (unsigned i = 0; i < MANY; i++) {
        key_name(names[i], (first + i) % KEYS);
        keys[i] = names[i];
    }
    int64_t begun = ptier_test_now();
    if (ptier_get_many(w->client, keys, MANY, &found, NULL) != PTIER_OK)
        return;
    for (size_t i = 0, at = 0; i < MANY; i++) {
        bool there = at < found.count && strcmp(found.records[at].key, keys[i]) == 0;
        judge(w, (first + i) % KEYS, there ? found.records[at].revision : 0, begun);
        at += there;
    }
    atomic_fetch_add(&w->served, found.near_count);
    ptier_records_free(&found);
}

/* A key that only this thread writes: each read has its last write. */
static void
write_and_read_own(world *w, const char *key, unsigned version)
{
    char source[24];
    const char *keys[] = {key};
    ptier_records found;
    snprintf(source, sizeof source, "v%u", version);
    bool removed = version % 3 == 0;
    if (removed ? ptier_delete(w->client, keys, 1, NULL, NULL, NULL) != PTIER_OK
                : !put(w->client, key, source, NULL))
        return;
    for (int i = 0; i < 20; i++) {
        ptier_status status = ptier_get(w->client, key, &found, NULL);
        bool right = status == (removed ? PTIER_NOT_FOUND : PTIER_OK) &&
                     (removed || strcmp(found.records[0].source, source) == 0);
        if (status == PTIER_OK || status == PTIER_NOT_FOUND)
            atomic_fetch_add(&w->own_missed, !right);
        ptier_records_free(&found);
    }
    atomic_fetch_add(&w->own, 1);
}

typedef struct reader {
    world *world;
    unsigned number;
    pthread_t thread;
} reader;

static void *
read_all_the_time(void *context)
{
    const reader *r = context;
    world *w = r->world;
    unsigned seed = r->number + 1, version = 0;
    char own[24];
    snprintf(own, sizeof own, "own-%u", r->number);
    while (!atomic_load(&w->stopping)) {
        for (int i = 0; i < 50; i++) {
            read_one(w, (unsigned)rand_r(&seed) % (rand_r(&seed) % 2 ? HOT : KEYS));
            if (i % 10 == 0)
                read_many(w, (unsigned)rand_r(&seed) % KEYS);
        }
        write_and_read_own(w, own, ++version);
    }
    return NULL;
}

/* ---- the run ---- */

static void
start(world *w, char calls_url[96])
{
    char real_events[96];
    ptier_near_cache_options near;
    test_daemon_init(&w->daemon);
    test_daemon_start(&w->daemon, NULL);
    for (int i = 0; i < KEYS; i++)
        pthread_mutex_init(&w->keys[i].lock, NULL);
    /* The daemon tells clients where its events are: there the proxy is. */
    snprintf(real_events, sizeof real_events, "%.80s.real", w->daemon.events_url);
    assert_int_equal(
        rename(w->daemon.events_url + strlen("ipc://"), real_events + strlen("ipc://")), 0);
    snprintf(calls_url, 96, "%.80s.slow", w->daemon.url);
    w->events = slow_proxy_start(w->daemon.events_url, real_events);
    w->calls = slow_proxy_start(calls_url, w->daemon.url);
    ptier_near_cache_options_init(&near);
    near.max_staleness_ms = BOUND_MS;
    near.entries = KEYS / 2;
    w->client = open_client(calls_url, &near);
}

/* The events come later and later, without a pause in which they would be missed. */
static void
let_events_lag(world *w)
{
    slow_proxy_delay(w->calls, 0);
    for (int lag = 0; lag <= 2500; lag += 100) {
        slow_proxy_delay(w->events, lag);
        pause_ms(150);
    }
    pause_ms(1000);
    slow_proxy_delay(w->events, 0);
    pause_ms(2600);
}

/* Each phase the two sockets fare differently. */
static void
disturb(world *w, int64_t until)
{
    static const int event_delays[] = {0, 0, 2500, 0, 900, 30, 300};
    static const int call_delays[] = {150, 5, 0};
    unsigned seed = 3;
    let_events_lag(w);
    for (unsigned phase = 0; ptier_test_now() < until; phase++) {
        slow_proxy_delay(w->events, event_delays[phase % 7]);
        slow_proxy_delay(w->calls, call_delays[phase % 3]);
        if (rand_r(&seed) % 3 == 0)
            slow_proxy_cut(w->events);
        if (rand_r(&seed) % 4 == 0)
            slow_proxy_cut(w->calls);
        pause_ms(500 + rand_r(&seed) % 1000);
        if (phase % 20 == 19)
            let_events_lag(w);
    }
    slow_proxy_delay(w->events, 0);
    slow_proxy_delay(w->calls, 0);
}

static ptier_near_statistics
statistics_of(const world *w)
{
    ptier_near_statistics s;
    assert_int_equal(ptier_get_near_statistics(w->client, &s, NULL), PTIER_OK);
    return s;
}

static void
nothing_too_old_is_served_and_no_own_write_missed(void **state)
{
    (void)state;
    const char *text = getenv("PTIER_NEAR_SECONDS");
    int seconds = text ? atoi(text) : SHORT_S;
    char calls_url[96];
    reader readers[READERS];
    pthread_t writer;
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    start(w, calls_url);
    assert_int_equal(pthread_create(&writer, NULL, write_all_the_time, w), 0);
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (reader){.world = w, .number = i};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_all_the_time, &readers[i]),
                         0);
    }
    disturb(w, ptier_test_now() + seconds * INT64_C(1000));
    /* When all is well again, it serves again. */
    uint64_t hits = statistics_of(w).hits;
    int64_t until = ptier_test_now() + 20000;
    while (statistics_of(w).hits < hits + 1000 && ptier_test_now() < until)
        pause_ms(10);
    ptier_near_statistics s = statistics_of(w);
    atomic_store(&w->stopping, true);
    pthread_join(writer, NULL);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(readers[i].thread, NULL);
    print_message(
        "%lu reads, %lu served near, %lu changes, %lu own writes; stale %lu, missed %lu\n",
        w->reads, w->served, w->changed, w->own, w->stale, w->own_missed);
    print_message("hits %lu, absent %lu, misses %lu, declined %lu, fills %lu, refused %lu, joined "
                  "%lu, unreported %lu\n",
                  s.hits, s.absent_hits, s.misses, s.declined, s.fills, s.refused_fills, s.joined,
                  s.unreported_hits);
    assert_int_equal(w->stale, 0);
    assert_int_equal(w->own_missed, 0);
    assert_true(s.hits >= hits + 1000);
    assert_true(w->served > 1000 && w->own > 0 && s.declined > 0);
    ptier_client_close(w->client);
    slow_proxy_stop(w->calls);
    slow_proxy_stop(w->events);
    test_daemon_fini(&w->daemon);
    free(w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_too_old_is_served_and_no_own_write_missed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
