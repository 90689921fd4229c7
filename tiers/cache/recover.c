/*
 * Start-up, single-threaded: the index from L3, then what the log has beyond L3's prefix, which
 * also goes on its way to L3 again; without L3 the index from L2.
 */
#include <inttypes.h>

#include "cache/cache_internal.h"

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
    if (item->revision > r->limit) { /* damaged: nothing that was applied can be newer */
        ptier_cache_log(r->cache, PTIER_LOG_WARN, "l3_damaged",
                        "record %016" PRIx64 " has a revision from the future; skipped",
                        item->hash);
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

/* The state of the key before a replayed change; NULL: none. */
static ptier_entry *
replay_old(ptier_cache *cache, const ptier_entry *entry)
{
    ptier_entry *old = NULL;
    if (ptier_load_current(cache, ptier_entry_key(entry), entry->hash, &old, NULL))
        return NULL;
    return old;
}

/* One logged change that L3 does not have: into the index, and on its way to L3 again. */
static bool
replay_op(void *context, const ptier_op *op)
{
    recovery *r = context;
    ptier_cache *cache = r->cache;
    r->replayed++;
    ptier_op copy = *op;
    if (op->kind == PTIER_OP_CLEAR) {
        ptier_index *fresh;
        r->status = ptier_index_create(ptier_clock_boot(&cache->clock), &fresh);
        if (r->status)
            return false;
        ptier_index_destroy(cache->index);
        cache->index = fresh;
        ptier_map_fini(&cache->pending);
    } else {
        ptier_entry *old = replay_old(cache, op->entry);
        uint32_t slot =
            old ? ptier_index_find(cache->index, old->hash, old->revision) : PTIER_SLOT_NONE;
        const ptier_index_facts facts = ptier_facts_of(op->entry);
        if (old)
            ptier_map_remove(&cache->pending, old->hash, old);
        copy.replaces = old ? old->revision : 0;
        if (op->kind == PTIER_OP_PUT && old)
            ptier_index_update(cache->index, slot, &facts);
        else if (op->kind == PTIER_OP_PUT)
            r->status = ptier_index_insert(cache->index, op->entry->hash, &facts);
        else if (old)
            ptier_index_remove(cache->index, slot);
        ptier_entry_release(old);
        if (!r->status && op->kind == PTIER_OP_PUT &&
            !ptier_map_insert(&cache->pending, op->entry->hash, op->entry))
            r->status = PTIER_RESOURCE_EXHAUSTED;
    }
    if (!r->status && !ptier_op_list_push(&cache->l3_queue, &copy))
        r->status = PTIER_RESOURCE_EXHAUSTED;
    cache->pending_count++;
    return r->status == PTIER_OK;
}

static bool
is_current(void *context, uint64_t hash, uint64_t revision)
{
    const ptier_cache *cache = context;
    return ptier_index_find(cache->index, hash, revision) != PTIER_SLOT_NONE;
}

ptier_status
ptier_recover(ptier_cache *cache, ptier_error *error)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2], *l3 = cache->tiers[PTIER_TIER_L3];
    recovery r = {.cache = cache, .limit = UINT64_MAX};
    ptier_status status = PTIER_OK;
    if (l3) {
        /* L2's log lets go of what L3 has: so let it really have that. */
        ptier_error why;
        if (ptier_l3_checkpoint(l3, true, &why))
            ptier_cache_log(cache, PTIER_LOG_WARN, "l3_open", "the first checkpoint failed: %s",
                            why.message);
        cache->l3_prefix = ptier_l3_prefix(l3);
        cache->l3_synced = ptier_l3_synced_prefix(l3);
        r.highest = r.limit = cache->l3_prefix;
        status = l3->ops->scan(l3, index_item, &r, error);
    }
    if (!status && !r.status && l2) {
        status = ptier_l2_replay(l2, l3 ? cache->l3_prefix : UINT64_MAX, replay_op, &r, error);
        if (!status && !r.status && !l3)
            status = l2->ops->scan(l2, index_item, &r, error);
        ptier_l2_cull(l2, is_current, cache);
        if (ptier_l2_last_revision(l2) > r.highest)
            r.highest = ptier_l2_last_revision(l2);
    }
    if (!status && r.status)
        status = ptier_fail(error, r.status, "no memory for the index");
    if (status)
        return status;
    cache->opened_l3 = cache->l3_queue.count
                           ? cache->l3_queue.ops[cache->l3_queue.count - 1].revision
                           : cache->l3_prefix;
    if (r.highest >= cache->state.reserved)
        cache->state.reserved = r.highest + 1; /* issue of an older state file: never go back */
    ptier_cache_log(cache, PTIER_LOG_INFO, "cache_open",
                    "%" PRIu64 " entries, %" PRIu64 " changes from the log on their way to L3",
                    ptier_index_count(cache->index), r.replayed);
    return PTIER_OK;
}
