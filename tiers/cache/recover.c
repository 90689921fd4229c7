/*
 * Start-up, single-threaded: the index from L3, then what the log has beyond L3's prefix (L3's
 * thread applies that later); without L3 the index from L2.
 */
#include <inttypes.h>

#include "cache/cache_internal.h"
#include "cache/inspect.h"

typedef struct recovery {
    ptier_cache *cache;
    ptier_status status;
    uint64_t replayed;
    uint64_t highest;
    uint64_t limit; /* no record can have a higher revision */
} recovery;

static bool
index_item(void *context, const ptier_scan_item *item)
{
    recovery *r = context;
    if (item->revision > r->limit) { /* damaged */
        ptier_cache_log(r->cache, PTIER_LOG_WARN, "l3_damaged",
                        "record %016" PRIx64 " has a revision from the future; skipped",
                        item->hash);
        ptier_doubt_rows_locked(r->cache); /* nobody else is there yet */
        return true;
    }
    const ptier_index_facts facts = {
        .revision = item->revision,
        .expires_boot_ms = item->expires_boot_ms,
        .url = item->url,
        .source = item->source,
        .health = item->health,
    };
    if (item->revision > r->highest)
        r->highest = item->revision;
    r->status = ptier_index_insert(r->cache->index, item->hash, &facts);
    return r->status == PTIER_OK;
}

/* The state of the key before a replayed change; NULL: none. An error: a disk cannot be read. */
static ptier_status
replay_old(ptier_cache *cache, const ptier_entry *entry, ptier_entry **old)
{
    ptier_status status = ptier_load_current(cache, ptier_entry_key(entry), entry->hash, old, NULL);
    if (status)
        *old = NULL;
    return status == PTIER_NOT_FOUND ? PTIER_OK : status;
}

/* One logged change that L3 does not have, into the index. */
static bool
replay_op(void *context, const ptier_op *op)
{
    recovery *r = context;
    ptier_cache *cache = r->cache;
    r->replayed++;
    cache->opened_l3 = op->revision;
    if (op->kind == PTIER_OP_CLEAR) {
        ptier_index *fresh;
        r->status = ptier_index_create(ptier_clock_boot(&cache->clock), &fresh);
        if (r->status)
            return false;
        ptier_index_destroy(cache->index);
        cache->index = fresh;
        ptier_end_indexing_locked(cache); /* nobody else is there yet */
        return true;
    }
    ptier_entry *old;
    r->status = replay_old(cache, op->entry, &old);
    if (r->status)
        return false;
    if (old && old->revision >= op->revision) { /* L3 is further than its prefix says */
        ptier_entry_release(old);
        return true;
    }
    uint32_t slot =
        old ? ptier_index_find(cache->index, old->hash, old->revision) : PTIER_SLOT_NONE;
    const ptier_index_facts facts = ptier_facts_of(op->entry);
    if (op->kind == PTIER_OP_PUT && old)
        ptier_index_update(cache->index, slot, &facts);
    else if (op->kind == PTIER_OP_PUT)
        r->status = ptier_index_insert(cache->index, op->entry->hash, &facts);
    else if (old)
        ptier_index_remove(cache->index, slot);
    ptier_entry_release(old);
    return r->status == PTIER_OK;
}

static bool
is_current(void *context, uint64_t hash, uint64_t revision)
{
    ptier_cache *cache = context;
    if (ptier_settle_hash(cache, hash))
        return false; /* L3, which has it too, cannot be read now */
    return ptier_index_find(cache->index, hash, revision) != PTIER_SLOT_NONE;
}

/* ---- the tiers ---- */

/* L3 is exactly as far as it was left; and few enough are resident in L2 to be looked up one by
 * one. */
static bool
may_start_quickly(ptier_cache *cache, const ptier_findings *f)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2], *l3 = cache->tiers[PTIER_TIER_L3];
    return l3->ops->count(l3) >= cache->quick_start_rows && f->progress_known &&
           cache->l3_prefix == cache->progress_file.now.l3_prefix &&
           (!l2 || cache->quick_start_always || l2->ops->count(l2) <= l3->ops->count(l3) / 4);
}

/* A file that was made anew may have rows beyond its prefix, but none of a revision that was never
 * given away. */
static uint64_t
newest_possible(const ptier_cache *cache)
{
    uint64_t given = cache->state.reserved - 1;
    return given > cache->l3_prefix ? given : cache->l3_prefix;
}

/* Rows first: what can be read of them. */
static ptier_status
recover_l3(recovery *r, const ptier_findings *f, ptier_error *error)
{
    ptier_cache *cache = r->cache;
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_error why;
    /* L2's log lets go of what L3 has: so let it really have that. */
    if (ptier_l3_condition_of(l3) == PTIER_L3_SOUND && ptier_l3_checkpoint(l3, true, &why))
        ptier_cache_log(cache, PTIER_LOG_WARN, "l3_open", "the first checkpoint failed: %s",
                        why.message);
    cache->l3_prefix = cache->opened_l3 = ptier_l3_prefix(l3);
    cache->l3_synced = ptier_l3_synced_prefix(l3);
    bool sound = ptier_l3_condition_of(l3) == PTIER_L3_SOUND;
    r->highest = cache->l3_prefix;
    r->limit = sound ? newest_possible(cache) : UINT64_MAX;
    cache->indexing = sound && may_start_quickly(cache, f);
    if (cache->indexing)
        return PTIER_OK;
    ptier_status status = l3->ops->scan(l3, index_item, r, error);
    return r->status || sound ? status : PTIER_OK; /* damaged: whatever could be read */
}

/* Whether L3 can read this revision under the hash, and it is this key's. */
static bool
l3_has(ptier_cache *cache, const char *key, uint64_t hash, uint64_t revision)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    const ptier_ref ref = {.hash = hash, .revision = revision, .key = key, .quiet = true};
    ptier_entry *entry;
    if (l3->ops->get(l3, &ref, &entry))
        return false;
    ptier_entry_release(entry);
    return true;
}

/* What a damaged L3 should have as well: the newest of what the two have of the key counts. */
static bool
index_resident(void *context, const ptier_scan_item *item)
{
    recovery *r = context;
    ptier_index *index = r->cache->index;
    if (ptier_index_find(index, item->hash, item->revision) != PTIER_SLOT_NONE)
        return true;
    for (uint32_t next, id = ptier_index_first(index, item->hash); id != PTIER_SLOT_NONE;
         id = next) {
        next = ptier_index_next(index, id);
        uint64_t revision = ptier_index_slot(index, id)->revision;
        if (!l3_has(r->cache, item->key, item->hash, revision))
            continue;
        if (revision > item->revision)
            return true;
        ptier_index_remove(index, id);
    }
    return index_item(r, item);
}

/* Then the log: `from` is L3's prefix; UINT64_MAX: L2 is all there is. `rest`: what to do with each
 * record that is resident; NULL: nothing, L3 has them all. */
static ptier_status
recover_l2(recovery *r, uint64_t from, ptier_scan_fn rest, ptier_error *error)
{
    ptier_tier *l2 = r->cache->tiers[PTIER_TIER_L2];
    ptier_status status = ptier_l2_replay(l2, from, replay_op, r, error);
    if (!status && !r->status && rest) {
        r->limit = UINT64_MAX;
        status = l2->ops->scan(l2, rest, r, error);
    }
    ptier_l2_cull(l2, is_current, r->cache);
    if (ptier_l2_last_revision(l2) > r->highest)
        r->highest = ptier_l2_last_revision(l2);
    return status;
}

/* L2 has no line of a key without its newest change, unless it has missed changes. */
static bool
missed_none(ptier_cache *cache, const ptier_findings *f)
{
    uint32_t first, last;
    uint64_t bytes;
    ptier_l2_position(cache->tiers[PTIER_TIER_L2], &first, &last, &bytes);
    return !f->progress_known || cache->progress_file.now.stale_below <= first;
}

static ptier_status
recover_tiers(recovery *r, const ptier_findings *f, ptier_error *error)
{
    ptier_cache *cache = r->cache;
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2], *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_status status = PTIER_OK;
    if (l2 && f->l2_stale)
        status = ptier_l2_restart(l2, error);
    if (!status && l3 && !f->l3_stale)
        status = recover_l3(r, f, error);
    if (status || r->status || !l2)
        return status;
    if (!l3)
        return recover_l2(r, UINT64_MAX, index_item, error);
    if (f->l3_stale) /* everything L2 has goes to L3 in a rebuild */
        return recover_l2(r, ptier_l2_last_revision(l2), index_item, error);
    bool helps = ptier_l3_condition_of(l3) != PTIER_L3_SOUND && missed_none(cache, f);
    return recover_l2(r, cache->l3_prefix, helps ? index_resident : NULL, error);
}

/* L3 goes on where it can, or is made anew. */
static void
settle_l3(ptier_cache *cache, const ptier_findings *f, uint64_t replayed)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    if (!l3)
        return;
    cache->l3_behind = replayed != 0;
    bool damaged = ptier_l3_condition_of(l3) != PTIER_L3_SOUND;
    if (!f->l3_stale && !damaged)
        return;
    ptier_error error;
    (void)ptier_fail(&error, PTIER_DATA_LOSS, "%s",
                     damaged ? "its file is damaged, and is made anew"
                             : "it was off in the last run, and is made anew from L2");
    cache->health[PTIER_TIER_L3].rebuild = true;
    ptier_l3_down(cache, &error);
}

/* Old shards of a tier that missed changes are rewritten without what is out of date in them.
 * *full: there is no room for that now, and L2 is to stay off. */
static ptier_status
settle_l2(ptier_cache *cache, const ptier_findings *f, uint32_t *stale_below, bool *full,
          ptier_error *error)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    const ptier_progress *p = &cache->progress_file.now;
    uint32_t first, last;
    uint64_t bytes;
    *stale_below = 0;
    *full = false;
    if (!l2)
        return PTIER_OK;
    ptier_l2_position(l2, &first, &last, &bytes);
    if (!f->progress_known || p->stale_below <= first || !cache->tiers[PTIER_TIER_L3])
        return PTIER_OK;
    ptier_status status = ptier_l2_resume(l2, error);
    ptier_l2_position(l2, &first, stale_below, &bytes);
    *full = status == PTIER_RESOURCE_EXHAUSTED;
    return *full ? PTIER_OK : status;
}

/* From here on `progress` is about this run. */
static void
restart_progress(ptier_cache *cache, uint32_t stale_below)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    ptier_progress *p = ptier_progress_begin(&cache->progress_file);
    *p = (ptier_progress){.stale_below = stale_below, .l3_prefix = cache->l3_prefix};
    if (l2) {
        ptier_l2_position(l2, &p->first_shard, &p->last_shard, &p->last_shard_bytes);
        p->logged = ptier_l2_last_revision(l2);
    }
    if (cache->tiers[PTIER_TIER_L3])
        p->log_from = cache->l3_synced;
    ptier_progress_end(&cache->progress_file);
}

ptier_status
ptier_recover(ptier_cache *cache, ptier_findings *f, ptier_error *error)
{
    recovery r = {.cache = cache, .limit = UINT64_MAX};
    ptier_inspect_tiers(cache, f);
    ptier_status status = recover_tiers(&r, f, error);
    if (!status && r.status)
        status =
            ptier_fail(error, r.status, "cannot make the index: %s", ptier_status_text(r.status));
    if (status)
        return status;
    ptier_inspect(cache, f);
    if (r.highest >= cache->state.reserved && f->has_data) {
        if (f->state_known)
            ptier_report_start(cache, true, "the state file is older than the tiers");
        cache->state.reserved = r.highest + 1; /* never go back */
    }
    uint32_t stale_below;
    bool full;
    ptier_error why = {0};
    status = settle_l2(cache, f, &stale_below, &full, &why);
    if (status)
        return ptier_fail(error, status, "%s", why.message);
    restart_progress(cache, stale_below);
    if (full) {
        ptier_op_list none = {0};
        ptier_l2_down(cache, &none, PTIER_RESOURCE_EXHAUSTED, &why);
    }
    settle_l3(cache, f, r.replayed);
    ptier_cache_log(cache, PTIER_LOG_INFO, "cache_open",
                    "%" PRIu64 " entries%s, %" PRIu64 " changes from the log on their way to L3",
                    ptier_index_count(cache->index),
                    cache->indexing ? " so far, the others are read while it serves" : "",
                    r.replayed);
    return PTIER_OK;
}
