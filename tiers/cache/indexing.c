/*
 * A quick start: after a run of which L3 has everything it should have, the cache serves at once
 * and reads the index from L3 meanwhile. Until that is complete, a hash that is not in the index is
 * looked up in L3 before it counts as missing, and is settled from then on: the rows that the
 * thread here meets later under a settled hash may be older than what has become of them.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/cache_internal.h"
#include "cache/inspect.h"

enum {
    RETRY_PAUSE_MS = 50,
    PATIENCE = 1200, /* times that L3 cannot be read, a minute in all */
};

static const char settled_mark; /* the map holds pointers: any will do */

static bool
is_settled_locked(const ptier_cache *cache, uint64_t hash)
{
    return ptier_map_find(&cache->settled, hash, NULL, NULL) != NULL;
}

void
ptier_settle_hash_locked(ptier_cache *cache, uint64_t hash)
{
    if (!cache->indexing || is_settled_locked(cache, hash) ||
        ptier_map_insert(&cache->settled, hash, (void *)(uintptr_t)&settled_mark))
        return;
    cache->index_incomplete = true; /* no memory: rather without the rest than with stale rows */
    ptier_end_indexing_locked(cache);
}

static void
insert_locked(ptier_cache *cache, const ptier_scan_item *item)
{
    const ptier_index_facts facts = {
        .revision = item->revision,
        .expires_boot_ms = item->expires_boot_ms,
        .url = item->url,
        .source = item->source,
        .health = item->health,
    };
    if (ptier_index_find(cache->index, item->hash, item->revision) == PTIER_SLOT_NONE &&
        ptier_index_insert(cache->index, item->hash, &facts))
        cache->index_incomplete = true; /* no memory: these records cannot be found */
}

/* ---- one hash, at once ---- */

typedef struct found_row {
    ptier_scan_item item;
    char url[PTIER_URL_MAX + 1], source[PTIER_SOURCE_MAX + 1];
} found_row;

typedef struct found_rows {
    found_row *rows; /* more than one is a collision of 64-bit hashes */
    size_t count;
    bool no_memory;
} found_rows;

static bool
collect_row(void *context, const ptier_scan_item *item)
{
    found_rows *found = context;
    found_row *grown = realloc(found->rows, (found->count + 1) * sizeof *grown);
    if (!grown) {
        found->no_memory = true;
        return false;
    }
    found->rows = grown;
    found_row *row = &grown[found->count++];
    row->item = *item;
    (void)snprintf(row->url, sizeof row->url, "%s", item->url);
    (void)snprintf(row->source, sizeof row->source, "%s", item->source);
    return true;
}

static void
settle_locked(ptier_cache *cache, uint64_t hash, found_rows *found)
{
    ptier_settle_hash_locked(cache, hash);
    for (size_t i = 0; i < found->count; i++) {
        found->rows[i].item.url = found->rows[i].url;
        found->rows[i].item.source = found->rows[i].source;
        insert_locked(cache, &found->rows[i].item);
    }
}

ptier_status
ptier_settle_hash(ptier_cache *cache, uint64_t hash)
{
    pthread_mutex_lock(&cache->lock);
    bool needed = cache->indexing && !is_settled_locked(cache, hash);
    pthread_mutex_unlock(&cache->lock);
    if (!needed)
        return PTIER_OK;
    found_rows found = {0};
    ptier_status status =
        ptier_l3_find_hash(cache->tiers[PTIER_TIER_L3], hash, collect_row, &found);
    if (!status && found.no_memory)
        status = PTIER_RESOURCE_EXHAUSTED;
    pthread_mutex_lock(&cache->lock);
    if (status) /* should it be settled by a change of one key, the rows of others are left out */
        ptier_doubt_rows_locked(cache);
    /* Nobody can have changed a key of this hash in between: that takes a settled hash. */
    if (!status && cache->indexing && !is_settled_locked(cache, hash))
        settle_locked(cache, hash, &found);
    pthread_mutex_unlock(&cache->lock);
    free(found.rows);
    return status;
}

/* ---- all of them ---- */

static bool
index_row(void *context, const ptier_scan_item *item)
{
    ptier_cache *cache = context;
    pthread_mutex_lock(&cache->lock);
    bool go_on = cache->indexing && !cache->stopping;
    if (go_on && item->revision <= cache->opened_revision && !is_settled_locked(cache, item->hash))
        insert_locked(cache, item);
    pthread_mutex_unlock(&cache->lock);
    return go_on;
}

void
ptier_end_indexing_locked(ptier_cache *cache)
{
    if (!cache->indexing)
        return;
    cache->indexing = false;
    ptier_map_fini(&cache->settled);
    pthread_cond_broadcast(&cache->progress);
}

/* What cannot be read now can be read later: the next call goes on where this one had to end. */
static ptier_status
index_some(ptier_cache *cache, ptier_l3_scan_state *scan, unsigned *tries, ptier_error *error)
{
    ptier_status status = ptier_l3_scan_some(cache->tiers[PTIER_TIER_L3], scan,
                                             cache->indexing_rows, index_row, cache, error);
    *tries = status ? *tries + 1 : 0;
    if (status != PTIER_UNAVAILABLE || *tries >= PATIENCE)
        return status;
    ptier_tier_read_failed(cache, PTIER_TIER_L3);
    nanosleep(&(struct timespec){.tv_nsec = RETRY_PAUSE_MS * 1000000L}, NULL);
    return PTIER_OK;
}

void *
ptier_indexing_thread(void *context)
{
    ptier_cache *cache = context;
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    ptier_l3_scan_state scan = {0};
    ptier_error error = {0};
    ptier_status status = PTIER_OK;
    unsigned tries = 0;
    bool go_on = true;
    while (!status && go_on && !scan.done) {
        status = index_some(cache, &scan, &tries, &error);
        pthread_mutex_lock(&cache->lock);
        go_on = cache->indexing && !cache->stopping;
        pthread_mutex_unlock(&cache->lock);
        if (cache->indexing_pause_us)
            nanosleep(&(struct timespec){.tv_nsec = cache->indexing_pause_us * 1000}, NULL);
    }
    pthread_mutex_lock(&cache->lock);
    bool damaged = cache->index_incomplete ||
                   (go_on && (status || ptier_l3_condition_of(l3) != PTIER_L3_SOUND));
    if (damaged) { /* something of the runs before is missing that nobody can name */
        cache->start_report.new_store = true;
        cache->start_report.damaged++;
        cache->new_store_wanted = true;
        pthread_cond_signal(&cache->maintenance_work);
    }
    if (!damaged && scan.done)
        ptier_note_rows_known_locked(cache);
    if (!cache->stopping) /* else it stays known that the index does not have all rows */
        ptier_end_indexing_locked(cache);
    pthread_mutex_unlock(&cache->lock);
    if (damaged)
        ptier_report_start(cache, true, "L3: its file is damaged (%s); what can be read is kept",
                           status ? error.message : "rows are missing or out of date");
    else if (go_on)
        ptier_cache_log(cache, PTIER_LOG_INFO, "index_complete", "%" PRIu64 " rows read from L3",
                        scan.rows);
    return NULL;
}

void
ptier_wait_indexed(ptier_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    while (cache->indexing && !cache->stopping)
        pthread_cond_wait(&cache->progress, &cache->lock);
    pthread_mutex_unlock(&cache->lock);
}
