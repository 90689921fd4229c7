/* The end of a cache: refuse, write everything out, stop the threads, close the tiers. */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "cache/open_internal.h"

enum {
    MEND_MS = 2000, /* of a close that finishes what compaction has begun */
};

static void
stop_threads(ptier_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    cache->stopping = true;
    pthread_cond_broadcast(&cache->l3_work);
    pthread_cond_broadcast(&cache->maintenance_work);
    pthread_cond_broadcast(&cache->progress);
    pthread_mutex_unlock(&cache->lock);
    if (cache->indexing_started)
        pthread_join(cache->indexing_thread, NULL);
    if (cache->maintenance_started)
        pthread_join(cache->maintenance_thread, NULL);
    ptier_flush_log(cache); /* what the maintenance thread did last */
    pthread_mutex_lock(&cache->lock);
    cache->l3_may_stop = true; /* nothing comes any more */
    pthread_cond_broadcast(&cache->l3_work);
    pthread_mutex_unlock(&cache->lock);
    if (cache->l3_started)
        pthread_join(cache->l3_thread, NULL);
}

static void
free_cache(ptier_cache *cache)
{
    for (int id = PTIER_TIER_L1; id <= PTIER_TIER_L3; id++)
        if (cache->tiers[id])
            cache->tiers[id]->ops->close(cache->tiers[id]);
    ptier_reserve_take(cache); /* L2 gave room back */
    for (size_t i = 0; cache->writeback.cells && i <= cache->writeback.mask; i++)
        ptier_entry_release(cache->writeback.cells[i].value);
    ptier_map_fini(&cache->writeback);
    ptier_map_fini(&cache->pending);
    ptier_map_fini(&cache->settled);
    ptier_map_fini(&cache->removals_waiting);
    free(cache->missed);
    ptier_quarantine_fini(cache);
    ptier_op_list_fini(&cache->log_queue);
    ptier_op_list_fini(&cache->l3_queue);
    ptier_op_list_fini(&cache->l3_batch);
    ptier_op_list_fini(&cache->l3_given_up);
    ptier_op_list_fini(&cache->removal_queue);
    ptier_op_list_fini(&cache->usage_queue);
    ptier_index_destroy(cache->index);
    ptier_keyring_destroy(cache->keyring);
    for (size_t i = 0; cache->source_ttls && cache->source_ttls[i].source; i++)
        free((char *)(uintptr_t)cache->source_ttls[i].source); /* our copy */
    free(cache->source_ttls);
    free(cache->data_dir);
    if (cache->lock_fd >= 0)
        close(cache->lock_fd);
    if (cache->directory_fd >= 0)
        close(cache->directory_fd);
    ptier_progress_fini(&cache->progress_file);
    pthread_cond_destroy(&cache->progress);
    pthread_cond_destroy(&cache->l3_work);
    pthread_cond_destroy(&cache->maintenance_work);
    pthread_mutex_destroy(&cache->count.collecting);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

/* Damage that was reported is gone from the files before the next start looks at them, if that is
 * not too much work. */
static void
mend_l2(ptier_cache *cache)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2];
    ptier_l2_found found;
    ptier_error error;
    int64_t deadline = ptier_monotonic_ms() + MEND_MS;
    ptier_l2_found_at_open(l2, &found);
    bool worked = found.damaged && !found.unverified;
    while (worked && ptier_monotonic_ms() < deadline)
        if (ptier_l2_compact(l2, &worked, &error))
            break;
}

/* What the tiers have becomes safe from power loss, and `state` and `progress` say that it is all
 * there. Single-threaded. */
static ptier_status
end_run(ptier_cache *cache)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2], *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_error error;
    ptier_status status = PTIER_OK;
    if (ptier_tier_active(cache, PTIER_TIER_L3)) {
        status = ptier_l3_checkpoint(l3, true, &error);
        if (status)
            ptier_cache_log(cache, PTIER_LOG_WARN, "l3_close", "the last checkpoint failed: %s",
                            error.message);
    }
    if (ptier_tier_active(cache, PTIER_TIER_L2)) {
        mend_l2(cache);
        status = l2->ops->apply(l2, NULL, 0, true, &error);
        ptier_note_log(cache, 0);
    }
    /* What L3 has not applied is in the log, where there is one. */
    uint64_t waiting = ptier_tier_active(cache, PTIER_TIER_L2) ? 0 : ptier_waiting_locked(cache);
    if (waiting)
        ptier_cache_log(cache, PTIER_LOG_ERROR, "changes_lost",
                        "%" PRIu64 " changes end with the process: no disk tier took them",
                        waiting);
    ptier_progress_begin(&cache->progress_file)->memory_only = waiting != 0;
    ptier_progress_end(&cache->progress_file);
    if (!status)
        status = ptier_progress_sync(&cache->progress_file, &error);
    cache->state.clean = true;
    cache->state.reserved = cache->assigned + 1;
    if (!status)
        status = ptier_state_save(cache->data_dir, &cache->state, &error);
    if (status)
        ptier_cache_log(cache, PTIER_LOG_ERROR, "cache_close", "%s", error.message);
    ptier_tell_missing_key(cache);
    return waiting ? PTIER_DATA_LOSS : status;
}

ptier_status
ptier_cache_close(ptier_cache *cache)
{
    if (!cache)
        return PTIER_OK;
    ptier_status status = PTIER_OK;
    bool opened = cache->maintenance_started;
    if (opened) {
        ptier_flush_log(cache);
        ptier_write_back_all(cache);
    }
    stop_threads(cache);
    if (opened)
        ptier_quarantine_flush(cache);
    if (opened && cache->data_dir)
        status = end_run(cache);
    free_cache(cache);
    return status;
}
