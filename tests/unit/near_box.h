/* A near cache on a clock of the test's own, and the daemon played by the test. Fails the test when
 * anything goes wrong. */
#ifndef PTIER_TEST_NEAR_BOX_H
#define PTIER_TEST_NEAR_BOX_H

#include "near_cache.h"

#define MS    INT64_C(1000000)
#define START (1000000 * MS)

typedef struct near_box {
    ptier_near *near;
    int64_t now;
} near_box;

/* What a read gives: MISS, or HIT and STALE with `absent` and failure count. */
typedef struct near_seen {
    ptier_near_outcome outcome;
    bool absent;
    uint32_t failures;
    uint64_t as_of;
    int64_t remaining_ms;
} near_seen;

/* start and stop are for cmocka: *state is the box, which follows run 1 at revision 10. */
ptier_near_beat near_beat_of(uint8_t run, uint64_t revision, int64_t now);
void near_hear(near_box *b, uint8_t run, uint64_t revision);
void near_box_open(near_box *b, size_t entries, size_t bytes);
int near_box_start(void **state);
int near_box_stop(void **state);
bool near_fill_with(near_box *b, const ptier_near_ticket *ticket, const char *key, bool absent,
                    uint64_t as_of, int64_t expires);
bool near_fill(near_box *b, const char *key, uint64_t as_of);
bool near_fill_absent(near_box *b, const char *key, uint64_t as_of);
void near_tell(near_box *b, ptier_event_type type, const char *key, uint64_t revision);
near_seen near_look(near_box *b, const char *key);

#define assert_hit(b, key)  assert_int_equal(near_look(b, key).outcome, PTIER_NEAR_HIT)
#define assert_miss(b, key) assert_int_equal(near_look(b, key).outcome, PTIER_NEAR_MISS)

#endif
