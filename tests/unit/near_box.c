#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "near_box.h"

ptier_near_beat
near_beat_of(uint8_t run, uint64_t revision, int64_t now)
{
    return (ptier_near_beat){.boot_id = {run},
                             .store_id = {1},
                             .daemon_ms = now / MS,
                             .revision = revision,
                             .contiguous = true};
}

/* The daemon of this run says that all up to `revision` was told by now. */
void
near_hear(near_box *b, uint8_t run, uint64_t revision)
{
    const uint8_t boot_id[PTIER_NEAR_ID_BYTES] = {run};
    ptier_near_beat beat = near_beat_of(run, revision, b->now);
    ptier_near_reply(b->near, boot_id, b->now, b->now, b->now / MS);
    ptier_near_heartbeat(b->near, &beat, b->now);
}

void
near_box_open(near_box *b, size_t entries, size_t bytes)
{
    const ptier_near_options options = {.entries = entries,
                                        .bytes = bytes,
                                        .absent_entries = 4,
                                        .absent_ttl = 5000 * MS,
                                        .max_staleness = 1000 * MS};
    b->now = START;
    assert_int_equal(ptier_near_create(&options, &b->near, NULL), PTIER_OK);
}

int
near_box_start(void **state)
{
    near_box *b = calloc(1, sizeof *b);
    assert_non_null(b);
    near_box_open(b, 100, 1 << 20);
    near_hear(b, 1, 10);
    *state = b;
    return 0;
}

int
near_box_stop(void **state)
{
    near_box *b = *state;
    ptier_near_destroy(b->near);
    free(b);
    return 0;
}

bool
near_fill_with(near_box *b, const ptier_near_ticket *ticket, const char *key, bool absent,
               uint64_t as_of, int64_t expires)
{
    ptier_record record;
    ptier_record_init(&record);
    record.key = key;
    record.url = "http://192.0.2.1:80";
    record.password = "secret";
    record.health = PTIER_HEALTH_HEALTHY;
    record.failure_count = 0;
    record.revision = as_of;
    ptier_near_record *near = ptier_near_record_create(&record, absent, as_of, expires);
    assert_non_null(near);
    bool kept = ptier_near_fill(b->near, ticket, near);
    ptier_near_record_release(near);
    return kept;
}

bool
near_fill(near_box *b, const char *key, uint64_t as_of)
{
    ptier_near_ticket ticket;
    ptier_near_begin(b->near, key, &ticket);
    return near_fill_with(b, &ticket, key, false, as_of, PTIER_NEAR_FOREVER);
}

bool
near_fill_absent(near_box *b, const char *key, uint64_t as_of)
{
    ptier_near_ticket ticket;
    ptier_near_begin(b->near, key, &ticket);
    return near_fill_with(b, &ticket, key, true, as_of, b->now + 5000 * MS);
}

void
near_tell(near_box *b, ptier_event_type type, const char *key, uint64_t revision)
{
    ptier_event event = {.type = type, .revision = revision};
    ptier_record_init(&event.record);
    event.record.key = key;
    if (type == PTIER_EVENT_HEALTH) {
        event.record.health = PTIER_HEALTH_DEGRADED;
        event.record.failure_count = 2;
        event.record.needs_revalidation = true;
    }
    ptier_near_event(b->near, &event);
}

near_seen
near_look(near_box *b, const char *key)
{
    ptier_near_record *record;
    near_seen s = {.outcome = ptier_near_get(b->near, key, b->now, &record)};
    if (record) {
        ptier_record view;
        ptier_near_record_view(record, b->now, &view);
        assert_string_equal(view.key, key);
        assert_true(record->absent || strcmp(view.password, "secret") == 0);
        s.absent = record->absent;
        s.failures = view.failure_count;
        s.as_of = record->as_of;
        s.remaining_ms = view.remaining_ttl_ms;
    }
    ptier_near_record_release(record);
    return s;
}
