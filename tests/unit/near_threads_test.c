/*
 * Many threads on one near cache: hits, fills, own writes, events. Each key has one writer, whose
 * state only grows, so that what is read can be judged without a lock. For ThreadSanitizer, too.
 * And single flight.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "monotonic.h"
#include "near_flight.h"

enum { KEYS = 64, THREADS = 4, ROUNDS = 20000 };

#define MS      INT64_C(1000000)
#define EXPIRES (3600000 * MS)

typedef struct stage {
    ptier_near *near;
    _Atomic uint64_t revision;     /* the daemon's */
    _Atomic uint64_t states[KEYS]; /* revision that last touched each, as the daemon has it */
    _Atomic uint64_t told[KEYS];   /* ... as the near cache was told */
    _Atomic uint64_t wrong, served;
    _Atomic bool stopping;
} stage;

static ptier_near_record *
make(const char *key, uint64_t revision, uint64_t as_of)
{
    ptier_record record;
    ptier_record_init(&record);
    record.key = key;
    record.url = "http://192.0.2.1:80";
    record.revision = revision;
    ptier_near_record *made = ptier_near_record_create(&record, false, as_of, EXPIRES);
    assert_non_null(made);
    return made;
}

/* A hit as ptier_get takes it. NULL: none. */
static ptier_near_record *
hit(stage *s, const char *key, int64_t now)
{
    ptier_near_look look;
    ptier_near_look_up(s->near, key, &look);
    bool lent = false, served = ptier_near_take(s->near, &look, now) == PTIER_NEAR_HIT;
    if (served)
        lent = ptier_near_record_lend(look.record, now);
    ptier_near_leave(&look);
    const int64_t left = (EXPIRES - now) / MS;
    if (lent) { /* to us alone */
        atomic_fetch_add(&s->wrong, look.record->record.remaining_ttl_ms != left);
        ptier_near_record_take_back(ptier_near_record_retain(look.record));
    } else if (served) {
        ptier_record view;
        ptier_near_record_view(look.record, now, &view);
        atomic_fetch_add(&s->wrong, view.remaining_ttl_ms != left);
    }
    if (served)
        return look.record;
    ptier_near_record_release(look.record); /* stale: between a resync and the next heartbeat */
    return NULL;
}

static void *
read_and_fill(void *context)
{
    stage *s = context;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < ROUNDS; i++) {
        char key[16];
        ptier_near_record *record;
        ptier_near_ticket ticket;
        unsigned number = (unsigned)rand_r(&seed) % KEYS;
        snprintf(key, sizeof key, "k%u", number);
        uint64_t told = atomic_load(&s->told[number]);
        if ((record = hit(s, key, i * (MS / 4)))) {
            atomic_fetch_add(&s->served, 1);
            atomic_fetch_add(&s->wrong, record->record.revision < told);
        } else {
            ptier_near_begin(s->near, key, &ticket);
            uint64_t as_of = atomic_load(&s->revision);
            record = make(key, atomic_load(&s->states[number]), as_of);
            (void)ptier_near_fill(s->near, &ticket, record);
        }
        ptier_near_record_release(record);
    }
    return NULL;
}

static void *
tell_events(void *context)
{
    stage *s = context;
    unsigned seed = 5;
    while (!atomic_load(&s->stopping)) {
        char key[16];
        unsigned number = (unsigned)rand_r(&seed) % KEYS;
        uint64_t revision = atomic_load(&s->revision) + 1;
        snprintf(key, sizeof key, "k%u", number);
        atomic_store(&s->states[number], revision);
        atomic_store(&s->revision, revision);
        ptier_event event = {.type = PTIER_EVENT_UPDATED, .revision = revision};
        ptier_record_init(&event.record);
        event.record.key = key;
        ptier_near_event(s->near, &event);
        atomic_store(&s->told[number], revision);
        if (rand_r(&seed) % 64 == 0)
            ptier_near_wrote(s->near, key, revision);
        if (rand_r(&seed) % 512 == 0) {
            ptier_near_resync(s->near, revision);
            ptier_near_beat beat = {.revision = revision, .daemon_ms = 1, .contiguous = true};
            ptier_near_heartbeat(s->near, &beat, 0);
        }
    }
    return NULL;
}

static void *
collect_uses(void *context)
{
    stage *s = context;
    ptier_near_use uses[16];
    ptier_near_statistics statistics;
    while (!atomic_load(&s->stopping)) {
        size_t count = ptier_near_collect(s->near, uses, 16);
        for (size_t i = 0; i < count; i++)
            ptier_near_record_release(uses[i].record);
        ptier_near_read_statistics(s->near, 0, &statistics);
    }
    return NULL;
}

static void
threads_read_nothing_older_than_what_was_told(void **state)
{
    (void)state;
    const ptier_near_options options = {
        .entries = KEYS / 2, .bytes = 1 << 20, .max_staleness = INT64_C(1000000) * MS};
    const uint8_t boot_id[PTIER_NEAR_ID_BYTES] = {0};
    stage s = {.revision = 1};
    pthread_t readers[THREADS], teller, collector;
    assert_int_equal(ptier_near_create(&options, &s.near, NULL), PTIER_OK);
    ptier_near_beat beat = {.revision = 1, .daemon_ms = 1, .contiguous = true};
    ptier_near_reply(s.near, boot_id, 0, 0, 1);
    ptier_near_heartbeat(s.near, &beat, 0);
    pthread_create(&teller, NULL, tell_events, &s);
    pthread_create(&collector, NULL, collect_uses, &s);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&readers[i], NULL, read_and_fill, &s);
    for (int i = 0; i < THREADS; i++)
        pthread_join(readers[i], NULL);
    atomic_store(&s.stopping, true);
    pthread_join(teller, NULL);
    pthread_join(collector, NULL);
    assert_int_equal(s.wrong, 0);
    assert_true(s.served > 0);
    ptier_near_destroy(s.near);
}

/* ---- single flight ---- */

static void
answer_serves_only_who_may_see_something_that_old(void **state)
{
    (void)state;
    ptier_flights flights;
    ptier_near_ticket old = {.generation = 1, .known = 10}, own = {.generation = 1, .known = 20};
    ptier_near_ticket other = {.generation = 2, .known = 0};
    bool lead;
    assert_true(ptier_flights_init(&flights));
    ptier_flight *first = ptier_flight_board(&flights, "k", &old, 1000, 100, &lead);
    assert_true(lead);
    ptier_flight *second = ptier_flight_board(&flights, "k", &own, 1100, 100, &lead);
    assert_false(lead);
    assert_ptr_equal(first, second);
    ptier_flight *late = ptier_flight_board(&flights, "k", &old, 1101, 100, &lead);
    assert_true(lead); /* what was asked so long ago is too old by now */
    ptier_flight *apart = ptier_flight_board(&flights, "other", &old, 1000, 100, &lead);
    assert_true(lead);
    assert_false(ptier_flight_wait(&flights, second, ptier_monotonic_ms() + 1));
    ptier_near_record *record = make("k", 15, 15);
    ptier_flight_land(&flights, first, PTIER_OK, NULL, record);
    ptier_near_record_release(record);
    assert_true(ptier_flight_wait(&flights, second, ptier_monotonic_ms() + 10000));
    assert_true(ptier_flight_serves(second, &old, 0));
    assert_false(ptier_flight_serves(second, &own, 0)); /* wrote at 20 */
    assert_false(ptier_flight_serves(second, &other, 0));
    ptier_flight_leave(&flights, first);
    ptier_flight_leave(&flights, second);
    const ptier_error error = {.status = PTIER_UNAVAILABLE, .message = "gone"};
    ptier_flight_land(&flights, late, PTIER_UNAVAILABLE, &error, NULL);
    ptier_flight_land(&flights, apart, PTIER_UNAVAILABLE, &error, NULL);
    assert_string_equal(late->error.message, "gone");
    ptier_flight_leave(&flights, late);
    ptier_flight_leave(&flights, apart);
    assert_int_equal(ptier_flights_joined(&flights), 1);
    ptier_flights_fini(&flights);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_read_nothing_older_than_what_was_told),
        cmocka_unit_test(answer_serves_only_who_may_see_something_that_old),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
