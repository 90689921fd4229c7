/*
 * A cache box under a load, with its tiers watched and the shim on its directory, and copies of it
 * that are opened to see what is there. Zero the struct before the first use; end it after a
 * failure, too. Failures fail the running cmocka test.
 */
#ifndef PTIER_TEST_STAGE_H
#define PTIER_TEST_STAGE_H

#include "load.h"
#include "tier_watch.h"

typedef struct ptier_stage {
    ptier_test_box box;
    ptier_test_box copy; /* directory "": there is none */
    ptier_load load;
    ptier_tier_watch watch;
    char path[PTIER_TEST_PATH + 64];
} ptier_stage;

/* Not open yet; options may be changed. L1 is tiny, each disk tier has room for all; shards are
 * small. */
void ptier_stage_begin(ptier_stage *stage, int tiers);

void ptier_stage_end(ptier_stage *stage);

/* One thread of load. */
void ptier_stage_run(ptier_stage *stage, int calls, uint64_t seed);

/* Below the box's directory; until the next call. */
const char *ptier_stage_path(ptier_stage *stage, const char *name);

/* Everything is read as it was put, whatever goes wrong on the disk. */
void ptier_stage_check_reads(ptier_stage *stage, const char *when);

/* The tiers are whole again (after a wait), and so is what a kill would leave, and what a restart
 * finds. */
void ptier_stage_check_healed(ptier_stage *stage);

/* Names the directory of a copy, which the caller makes next. */
void ptier_stage_prepare_copy(ptier_stage *stage);

/* Opens it, checks that what was acknowledged so before the position is there, closes and removes
 * it. */
void ptier_stage_check_copy(ptier_stage *stage, ptier_durability durability, size_t cut,
                            const char *when);

/* Makes a copy as a kill would leave the directory now, and checks that. */
void ptier_stage_check_kill(ptier_stage *stage, ptier_durability durability, const char *when);

/* The same, again and again until nothing is wrong. */
void ptier_stage_await_kill(ptier_stage *stage, ptier_durability durability, const char *when);

#endif
