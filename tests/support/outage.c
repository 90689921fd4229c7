#include "support/outage.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/sample_entry.h"

enum { PROBE_MS = 20, PAGE = 100 };

static void
count_event(void *context, const ptier_tier_event *event)
{
    ptier_outage *o = context;
    if (event->type == PTIER_EVENT_TIER_DEGRADED)
        atomic_fetch_add(&o->down[event->tier], 1);
    else if (event->type == PTIER_EVENT_TIER_RECOVERED)
        atomic_fetch_add(&o->up[event->tier], 1);
}

void
ptier_outage_set_up(ptier_outage *o, int tiers)
{
    memset(o, 0, sizeof *o);
    ptier_test_box_init(&o->box, tiers);
    o->random = 1;
    o->box.options.l1_entries = 10;
    if (!(tiers & BOX_L3))
        o->box.options.l2_entries = 0;
    o->box.options.on_tier_event = count_event;
    o->box.options.tier_event_context = o;
    o->box.hooks.probe_period_ms = PROBE_MS;
    o->box.hooks.l2_shard_bytes = 16384;
    ptier_io_watch(o->box.directory);
}

void
ptier_outage_tear_down(ptier_outage *o)
{
    if (!o->box.directory[0])
        return;
    ptier_io_heal();
    ptier_outage_drop_copy(o);
    ptier_test_box_close(&o->box);
    ptier_io_unwatch();
    ptier_test_box_fini(&o->box);
    o->box.directory[0] = '\0';
}

void
ptier_outage_begin(const char *pattern)
{
    const ptier_io_fault fault = {.kinds = PTIER_IO_CHANGE | PTIER_IO_SYNC,
                                  .pattern = pattern,
                                  .nth = 1,
                                  .lasting = true,
                                  .error = EIO};
    ptier_io_fail(&fault);
}

/* ---- waits ---- */

static bool
are_down(ptier_outage *o, int tiers)
{
    ptier_statistics s = ptier_test_box_statistics(&o->box);
    for (int id = PTIER_TIER_L2; id <= PTIER_TIER_L3; id++)
        if (tiers & 1 << (id - 1) && !s.tiers[id].degraded)
            return false;
    return true;
}

static bool
put_until_down(ptier_outage *o, int tiers)
{
    (void)ptier_outage_put(o, 0, PTIER_DURABILITY_SYNCED);
    return are_down(o, tiers);
}

void
ptier_outage_await_down(ptier_outage *o, int tiers)
{
    BOX_AWAIT(are_down(o, tiers) || put_until_down(o, tiers));
}

static bool
is_settled(ptier_outage *o)
{
    ptier_statistics s = ptier_test_box_statistics(&o->box);
    return !s.tiers[PTIER_TIER_L2].degraded && !s.tiers[PTIER_TIER_L3].degraded &&
           s.pending_writes == 0;
}

void
ptier_outage_await_up(ptier_outage *o)
{
    BOX_AWAIT(is_settled(o));
}

/* ---- changes ---- */

ptier_written
ptier_outage_put(ptier_outage *o, int number, ptier_durability durability)
{
    ptier_record record;
    char key[16], url[40];
    ptier_put_result result;
    ptier_written written = {0};
    const ptier_put_options options = {.durability = durability};
    ptier_test_box_record(&record, number, key, url);
    if (ptier_cache_put(o->box.cache, &record, 1, &options, &result, &written, &o->box.error))
        fail_msg("put of %s: %s", key, o->box.error.message);
    assert_true(result.outcome <= PTIER_PUT_UPDATED);
    o->expected[number] = result.revision;
    return written;
}

ptier_written
ptier_outage_delete(ptier_outage *o, int number, ptier_durability durability)
{
    char key[16];
    const char *keys[] = {key};
    ptier_written written = {0};
    size_t deleted;
    (void)snprintf(key, sizeof key, "p%d", number);
    if (ptier_cache_delete(o->box.cache, keys, 1, durability, &deleted, &written, &o->box.error))
        fail_msg("delete of %s: %s", key, o->box.error.message);
    assert_int_equal(deleted, o->expected[number] != 0);
    o->expected[number] = 0;
    return written;
}

void
ptier_outage_change_any(ptier_outage *o, int keys)
{
    int number = (int)ptier_test_random(&o->random, (uint64_t)keys);
    if (ptier_test_random(&o->random, 3))
        (void)ptier_outage_put(o, number, PTIER_DURABILITY_DEFAULT);
    else
        (void)ptier_outage_delete(o, number, PTIER_DURABILITY_DEFAULT);
}

/* ---- checks ---- */

void
ptier_outage_list(ptier_test_box *box, uint64_t revisions[OUTAGE_KEYS])
{
    ptier_entry *entries[PAGE];
    uint64_t cursor = 0;
    size_t count;
    memset(revisions, 0, OUTAGE_KEYS * sizeof *revisions);
    do {
        if (ptier_cache_list(box->cache, &cursor, NULL, PTIER_TIER_NONE, PAGE, entries, &count,
                             &box->error))
            fail_msg("%s", box->error.message);
        for (size_t i = 0; i < count; i++) {
            long number = strtol(ptier_entry_key(entries[i]) + 1, NULL, 10);
            assert_in_range(number, 0, OUTAGE_KEYS - 1);
            assert_int_equal(revisions[number], 0);
            revisions[number] = entries[i]->revision;
            ptier_entry_release(entries[i]);
        }
    } while (cursor);
}

static uint64_t
revision_of(ptier_test_box *box, int number)
{
    char key[16];
    ptier_entry *entry;
    (void)snprintf(key, sizeof key, "p%d", number);
    ptier_status status = ptier_cache_get(box->cache, key, &entry, NULL);
    if (status == PTIER_NOT_FOUND)
        return 0;
    if (status)
        fail_msg("%s: %s", key, ptier_status_text(status));
    uint64_t revision = entry->revision;
    ptier_entry_release(entry);
    return revision;
}

void
ptier_outage_check(ptier_outage *o, ptier_test_box *box)
{
    static uint64_t listed[OUTAGE_KEYS];
    uint64_t entries = 0;
    ptier_outage_list(box, listed);
    for (int i = 0; i < OUTAGE_KEYS; i++) {
        uint64_t got = revision_of(box, i);
        if (got != o->expected[i] || listed[i] != o->expected[i])
            fail_msg("p%d: read %llu, listed %llu, expected %llu", i, (unsigned long long)got,
                     (unsigned long long)listed[i], (unsigned long long)o->expected[i]);
        entries += o->expected[i] != 0;
    }
    assert_int_equal(ptier_test_box_entries(box), entries);
}

/* ---- copies ---- */

void
ptier_outage_open_copy(ptier_outage *o, int tiers)
{
    ptier_test_box *copy = &o->copy;
    *copy = o->box;
    copy->cache = NULL;
    copy->options.on_change = NULL;
    copy->options.on_tier_event = NULL;
    copy->options.l1_enabled = tiers & BOX_L1;
    copy->options.l2_enabled = tiers & BOX_L2;
    copy->options.l3_enabled = tiers & BOX_L3;
    (void)snprintf(copy->directory, sizeof copy->directory, "%.200s-copy", o->box.directory);
    copy->options.data_dir = copy->directory;
    ptier_io_copy(copy->directory);
    ptier_test_box_open(copy);
}

void
ptier_outage_drop_copy(ptier_outage *o)
{
    if (!o->copy.directory[0])
        return;
    ptier_test_box_close(&o->copy);
    ptier_test_dir_remove(o->copy.directory);
    o->copy.directory[0] = '\0';
}

void
ptier_outage_check_copy(ptier_outage *o, int tiers)
{
    ptier_outage_open_copy(o, tiers);
    ptier_outage_check(o, &o->copy);
    ptier_outage_drop_copy(o);
}
