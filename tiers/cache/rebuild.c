/*
 * L3's file made anew from what the cache has: from memory, L2, and whatever of the old file can be
 * read. The cache goes on meanwhile; its later changes follow from the log or the queue.
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "file.h"

enum {
    CHUNK = 512,
    PATIENCE = 30, /* times that a rebuild ends because a disk cannot be read */
};

typedef struct rebuild {
    ptier_cache *cache;
    ptier_l3_builder *builder;
    uint32_t next_slot;
    uint64_t kept, lost;
    bool patient; /* what cannot be read now is not given up yet */
} rebuild;

/* The records of the next slots; false: there are no more. */
static bool
collect_slots(rebuild *r, ptier_ref refs[CHUNK], size_t *count)
{
    ptier_cache *cache = r->cache;
    *count = 0;
    pthread_mutex_lock(&cache->lock);
    uint32_t limit = cache->stopping ? 0 : ptier_index_limit(cache->index);
    for (; r->next_slot < limit && *count < CHUNK; r->next_slot++) {
        const ptier_slot *slot = ptier_index_slot(cache->index, r->next_slot);
        if (slot->revision)
            refs[(*count)++] = (ptier_ref){.hash = slot->hash, .revision = slot->revision};
    }
    bool more = r->next_slot < limit;
    pthread_mutex_unlock(&cache->lock);
    return more || *count;
}

static ptier_status
add_record(rebuild *r, const ptier_ref *ref, ptier_error *error)
{
    ptier_entry *entry;
    ptier_sealed *sealed = NULL;
    ptier_status status = ptier_load_revision(r->cache, ref->hash, ref->revision, &entry, NULL);
    if (status == PTIER_NOT_FOUND)
        return PTIER_OK; /* changed meanwhile: the change follows */
    if (status && status != PTIER_DATA_LOSS && r->patient)
        return ptier_fail(error, status, "a record cannot be read at present");
    if (status) {
        r->lost++;
        ptier_lose_record(r->cache, ref->hash, ref->revision, NULL);
        return PTIER_OK;
    }
    status = ptier_sealed_create(r->cache->keyring, entry, &sealed);
    const ptier_op op = {
        .kind = PTIER_OP_PUT, .revision = entry->revision, .entry = entry, .sealed = sealed};
    if (status)
        (void)ptier_fail(error, status, "cannot encrypt a record");
    else
        status = ptier_l3_builder_add(r->builder, &op, 1, error);
    ptier_sealed_release(sealed);
    ptier_entry_release(entry);
    r->kept++;
    return status;
}

static ptier_status
add_all(rebuild *r, ptier_error *error)
{
    ptier_ref refs[CHUNK];
    size_t count;
    ptier_status status = PTIER_OK;
    while (!status && collect_slots(r, refs, &count))
        for (size_t i = 0; !status && i < count; i++)
            status = add_record(r, &refs[i], error);
    return status;
}

ptier_status
ptier_rebuild_l3(ptier_cache *cache, ptier_error *error)
{
    char path[PTIER_PATH_MAX];
    rebuild r = {.cache = cache, .patient = cache->rebuild_tries < PATIENCE};
    const ptier_l3_options options = {
        .path = path,
        .keyring = cache->keyring,
        .clock = &cache->clock,
        .on_log = cache->options.on_log,
        .log_context = cache->options.log_context,
    };
    (void)snprintf(path, sizeof path, "%s/l3.sqlite.new", cache->data_dir);
    (void)unlink(path); /* of a rebuild that was cut short */
    pthread_mutex_lock(&cache->lock);
    uint64_t as_of = cache->assigned; /* all of it can be found, and what comes later follows */
    pthread_mutex_unlock(&cache->lock);
    ptier_cache_log(cache, PTIER_LOG_INFO, "l3_rebuild", "L3 is made anew from what can be read");
    ptier_status status = ptier_l3_builder_create(path, &options, &r.builder, error);
    if (status)
        return status;
    status = add_all(&r, error);
    cache->rebuild_tries = status ? cache->rebuild_tries + 1 : 0;
    pthread_mutex_lock(&cache->lock);
    if (!status && cache->stopping)
        status = ptier_fail(error, PTIER_UNAVAILABLE, "the cache is closing");
    pthread_mutex_unlock(&cache->lock);
    if (status) {
        ptier_l3_builder_abort(r.builder);
        return status;
    }
    status = ptier_l3_builder_finish(r.builder, as_of, error);
    if (!status)
        status = ptier_l3_adopt(cache->tiers[PTIER_TIER_L3], path, true, error);
    if (!status)
        ptier_cache_log(cache, PTIER_LOG_INFO, "l3_rebuild",
                        "%" PRIu64 " records kept, %" PRIu64 " lost", r.kept, r.lost);
    return status;
}
