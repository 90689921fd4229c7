#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "fault.h"
#include "stage.h"
#include "support/io_shim.h"

enum { PATIENCE_MS = 20000 };

void
ptier_stage_begin(ptier_stage *stage, int tiers)
{
    ptier_test_box_init(&stage->box, tiers);
    stage->box.options.l1_entries = 8;
    stage->box.options.l2_entries = tiers & BOX_L3 ? 1000000 : 0;
    stage->box.options.failure_threshold = 1;
    stage->box.hooks.l2_shard_bytes = 8192;
    ptier_tier_watch_init(&stage->watch, &stage->box);
    ptier_load_init(&stage->load, &stage->box);
    ptier_io_watch(stage->box.directory);
}

static void
drop_copy(ptier_stage *stage)
{
    ptier_test_box_close(&stage->copy);
    ptier_test_dir_remove(stage->copy.directory);
    stage->copy.directory[0] = '\0';
}

void
ptier_stage_end(ptier_stage *stage)
{
    if (!stage->box.directory[0])
        return;
    ptier_io_heal();
    if (stage->copy.directory[0])
        drop_copy(stage);
    ptier_test_box_close(&stage->box);
    ptier_io_unwatch();
    ptier_load_fini(&stage->load);
    ptier_test_box_fini(&stage->box);
    stage->box.directory[0] = '\0';
}

void
ptier_stage_run(ptier_stage *stage, int calls, uint64_t seed)
{
    ptier_load_run(&stage->load, 1, calls, seed);
}

const char *
ptier_stage_path(ptier_stage *stage, const char *name)
{
    (void)snprintf(stage->path, sizeof stage->path, "%s/%s", stage->box.directory, name);
    return stage->path;
}

void
ptier_stage_check_reads(ptier_stage *stage, const char *when)
{
    ptier_load_check(&stage->load, stage->box.cache, PTIER_DURABILITY_MEMORY, LOAD_NOW, when);
}

/* L3 has a row of each entry, and no other. */
static void
check_rows(ptier_stage *stage)
{
    ptier_statistics s;
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    while (stage->box.cache->tiers[PTIER_TIER_L3]) {
        s = ptier_test_box_statistics(&stage->box);
        if (s.l3_lag == 0 && s.tiers[PTIER_TIER_L3].entries == s.entries)
            break;
        if (ptier_test_now() >= deadline)
            fail_msg("%s: L3 has %llu rows of %llu entries", ptier_fault_doing(),
                     (unsigned long long)s.tiers[PTIER_TIER_L3].entries,
                     (unsigned long long)s.entries);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

void
ptier_stage_check_healed(ptier_stage *stage)
{
    ptier_tier_await_healed(&stage->watch, &stage->box, &stage->load);
    check_rows(stage);
    ptier_stage_check_reads(stage, "healed");
    ptier_stage_check_kill(stage, PTIER_DURABILITY_MEMORY, "killed when all was healed");
    ptier_test_box_reopen(&stage->box);
    ptier_stage_check_reads(stage, "reopened");
}

void
ptier_stage_prepare_copy(ptier_stage *stage)
{
    ptier_test_box *copy = &stage->copy;
    *copy = stage->box;
    copy->cache = NULL;
    copy->options.on_change = NULL;
    copy->options.on_tier_event = NULL;
    (void)snprintf(copy->directory, sizeof copy->directory, "%.200s-copy", stage->box.directory);
    copy->options.data_dir = copy->directory;
}

static void
open_copy(ptier_stage *stage, const char *when)
{
    ptier_test_box *copy = &stage->copy;
    if (ptier_cache_open_with(&copy->options, &copy->hooks, &copy->cache, &copy->error))
        fail_msg("%s, %s: it cannot be opened: %s", ptier_fault_doing(), when, copy->error.message);
}

void
ptier_stage_check_copy(ptier_stage *stage, ptier_durability durability, size_t cut,
                       const char *when)
{
    open_copy(stage, when);
    ptier_load_check(&stage->load, stage->copy.cache, durability, cut, when);
    drop_copy(stage);
}

void
ptier_stage_check_kill(ptier_stage *stage, ptier_durability durability, const char *when)
{
    ptier_stage_prepare_copy(stage);
    ptier_io_copy(stage->copy.directory);
    ptier_stage_check_copy(stage, durability, LOAD_NOW, when);
}

/* Not even opening is certain: somebody may have done things to the files. */
static bool
copy_is_wrong(ptier_stage *stage, ptier_durability durability, char text[LOAD_TEXT])
{
    ptier_test_box *copy = &stage->copy;
    bool wrong = true;
    ptier_stage_prepare_copy(stage);
    ptier_io_copy(copy->directory);
    if (ptier_cache_open_with(&copy->options, &copy->hooks, &copy->cache, &copy->error)) {
        (void)snprintf(text, LOAD_TEXT, "%s", copy->error.message);
        copy->cache = NULL;
    } else {
        wrong = ptier_load_wrong(&stage->load, copy->cache, durability, LOAD_NOW, text);
    }
    drop_copy(stage);
    return wrong;
}

void
ptier_stage_await_kill(ptier_stage *stage, ptier_durability durability, const char *when)
{
    char text[LOAD_TEXT];
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    while (copy_is_wrong(stage, durability, text))
        if (ptier_test_now() >= deadline)
            fail_msg("%s, %s: %s", ptier_fault_doing(), when, text);
}
