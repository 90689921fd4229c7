#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fault.h"
#include "hash.h"
#include "tier_watch.h"

enum { PROBE_MS = 50, EXTRA_KEYS = 1000000, PATIENCE_MS = 20000 };

static void
count_event(void *context, const ptier_tier_event *event)
{
    ptier_tier_watch *watch = context;
    if (event->type == PTIER_EVENT_TIER_DEGRADED)
        atomic_fetch_add(&watch->degraded[event->tier], 1);
    else if (event->type == PTIER_EVENT_TIER_RECOVERED)
        atomic_fetch_add(&watch->recovered[event->tier], 1);
    if (event->type == PTIER_EVENT_TIER_DEGRADED || event->type == PTIER_EVENT_TIER_RECOVERED)
        atomic_store(&watch->last[event->tier], (int)event->type);
}

void
ptier_tier_watch_init(ptier_tier_watch *watch, ptier_test_box *box)
{
    memset(watch, 0, sizeof *watch);
    box->options.on_tier_event = count_event;
    box->options.tier_event_context = watch;
    box->hooks.probe_period_ms = PROBE_MS;
}

static void
pause_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

bool
ptier_tier_degraded(ptier_test_box *box, ptier_tier_id tier)
{
    return ptier_test_box_statistics(box).tiers[tier].degraded;
}

/* May be refused. */
static void
put_extra(ptier_test_box *box, int number)
{
    ptier_record record;
    char key[16], url[40];
    const ptier_put_options options = {.durability = PTIER_DURABILITY_SYNCED};
    ptier_test_box_record(&record, EXTRA_KEYS + number, key, url);
    PTIER_IGNORE(
        ptier_cache_put(box->cache, &record, 1, &options, NULL, NULL, &box->error)); /* see above */
}

static bool
all_degraded(ptier_test_box *box, int tiers)
{
    bool all = true;
    EACH_DISK_TIER(id, box, tiers)
    all = all && ptier_tier_degraded(box, id);
    return all;
}

void
ptier_tier_await_degraded(ptier_tier_watch *watch, ptier_test_box *box, int tiers)
{
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    for (int i = 0; !all_degraded(box, tiers) && ptier_test_now() < deadline; i++) {
        put_extra(box, i);
        pause_ms(2);
    }
    EACH_DISK_TIER(id, box, tiers)
    {
        if (!ptier_tier_degraded(box, id))
            fail_msg("%s: %s fails all the time, and is not degraded", ptier_fault_doing(),
                     ptier_tier_name(id));
        if (atomic_load(&watch->degraded[id]) == 0)
            fail_msg("%s: no event said that %s is degraded", ptier_fault_doing(),
                     ptier_tier_name(id));
    }
}

/* The tier has the present state of the key. */
static bool
has_now(ptier_test_box *box, const ptier_load *load, int key, ptier_tier_id id)
{
    char text[16];
    ptier_entry *entry;
    ptier_tier *tier = box->cache->tiers[id];
    (void)snprintf(text, sizeof text, "p%d", key);
    const ptier_ref ref = {.hash = ptier_hash_key(text),
                           .revision = ptier_load_now(load, key)->revision,
                           .key = text,
                           .quiet = true};
    if (tier->ops->get(tier, &ref, &entry))
        return false;
    ptier_entry_release(entry);
    return true;
}

/* A key whose present state the tier lacks; -1: none. */
static int
missing_key(ptier_test_box *box, const ptier_load *load, ptier_tier_id id)
{
    for (int i = 0; i < LOAD_KEYS; i++) {
        const ptier_load_state *now = ptier_load_now(load, i);
        if (now->version && now->revision && !has_now(box, load, i, id))
            return i;
    }
    return -1;
}

void
ptier_tier_await_healed(ptier_tier_watch *watch, ptier_test_box *box, const ptier_load *load)
{
    int64_t deadline = ptier_test_now() + PATIENCE_MS;
    EACH_DISK_TIER(id, box, BOX_ALL)
    {
        while (ptier_tier_degraded(box, id) && ptier_test_now() < deadline)
            pause_ms(2);
        if (ptier_tier_degraded(box, id))
            fail_msg("%s: %s works again, but is still degraded", ptier_fault_doing(),
                     ptier_tier_name(id));
    }
    while (ptier_test_box_statistics(box).pending_writes && ptier_test_now() < deadline)
        pause_ms(2);
    if (ptier_test_box_statistics(box).pending_writes)
        fail_msg("%s: changes still wait to be written", ptier_fault_doing());
    EACH_DISK_TIER(id, box, BOX_ALL)
    {
        while (missing_key(box, load, id) >= 0 && ptier_test_now() < deadline)
            pause_ms(2);
        if (missing_key(box, load, id) >= 0)
            fail_msg("%s: %s is healed, but lacks key %d", ptier_fault_doing(), ptier_tier_name(id),
                     missing_key(box, load, id));
        int last;
        while ((last = atomic_load(&watch->last[id])) == PTIER_EVENT_TIER_DEGRADED &&
               ptier_test_now() < deadline)
            pause_ms(2); /* it may have failed once more meanwhile */
        assert_int_not_equal(last, PTIER_EVENT_TIER_DEGRADED);
        if (atomic_load(&watch->degraded[id]))
            assert_true(atomic_load(&watch->recovered[id]) > 0);
    }
}
