/*
 * A cache in a directory of its own, on a virtual clock, with its change feed recorded. One thread,
 * but for the feed. Failures fail the running cmocka test.
 */
#ifndef PTIER_TEST_CACHE_BOX_H
#define PTIER_TEST_CACHE_BOX_H

#include <pthread.h>
#include <time.h>

#include "cache/cache_internal.h"
#include "support/temp_dir.h"
#include "support/virtual_clock.h"
#include "support/monotonic.h"

typedef struct ptier_test_change {
    ptier_event_type type;
    ptier_reason reason;
    uint64_t revision,
        of;       /* of the change; of the entry that it is about: a removed one's is older */
    char key[80]; /* "": CLEARED, or a loss that nobody can name */
} ptier_test_change;

typedef struct ptier_test_box {
    char directory[PTIER_TEST_PATH];
    ptier_test_clock clock;
    ptier_cache_options options;
    ptier_cache_hooks hooks;
    ptier_cache *cache;
    ptier_error error;

    pthread_mutex_t lock; /* of the feed */
    ptier_test_change *changes;
    size_t change_count, change_room;
} ptier_test_box;

/* Tiers as a set of bits. */
enum { BOX_L1 = 1, BOX_L2 = 2, BOX_L3 = 4, BOX_ALL = 7 };

/* Options at their defaults but for the tiers; not open yet. */
void ptier_test_box_init(ptier_test_box *box, int tiers);
void ptier_test_box_open(ptier_test_box *box);
void ptier_test_box_close(ptier_test_box *box);
void ptier_test_box_reopen(ptier_test_box *box);
void ptier_test_box_fini(ptier_test_box *box); /* closes and removes the directory */

/* Puts http://10.x.y.z:8080 for the number, under the key "p<number>". Returns the revision. */
uint64_t ptier_test_box_put(ptier_test_box *box, int number);
ptier_put_result ptier_test_box_put_record(ptier_test_box *box, const ptier_record *record,
                                           const ptier_put_options *options);
void ptier_test_box_record(ptier_record *record, int number, char key[16], char url[40]);

bool ptier_test_box_has(ptier_test_box *box, int number); /* a Get */
ptier_tier_id ptier_test_box_where(ptier_test_box *box, int number);
bool ptier_test_box_delete(ptier_test_box *box, int number);
ptier_report_result ptier_test_box_report(ptier_test_box *box, const char *key,
                                          ptier_outcome outcome, double latency);
uint64_t ptier_test_box_entries(ptier_test_box *box);
ptier_statistics ptier_test_box_statistics(ptier_test_box *box);

/* Moves the clock and removes what is due (the cache's own thread may be the one to do it). */
void ptier_test_box_advance(ptier_test_box *box, int64_t ms);

/* How many changes of the feed so far are of this type (0: any) and reason (NONE: any), for this
 * key (NULL: any). */
size_t ptier_test_box_changes(ptier_test_box *box, ptier_event_type type, ptier_reason reason,
                              const char *key);

/* Polls until the condition holds, for at most 20 s. What held once may not hold a moment later. */
#define BOX_AWAIT(condition)                                                                       \
    do {                                                                                           \
        int64_t box_deadline_ = ptier_test_now() + 20000;                                          \
        bool box_held_;                                                                            \
        while (!(box_held_ = (condition)) && ptier_test_now() < box_deadline_)                     \
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);                               \
        if (!box_held_)                                                                            \
            fail_msg("not within 20 s: %s", #condition);                                           \
    } while (0)

/* Changes the last byte of the first copy of this text in a file of the cache's directory. */
void ptier_test_box_damage(const ptier_test_box *box, const char *name, const char *text);

#endif
