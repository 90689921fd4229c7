/* Pick and list: walking the index by slots, then reading what fits. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cache/cache_internal.h"

enum {
    TRIES_PER_PICK = 32, /* random slots looked at before the whole index is */
    LIST_SLOTS = 4096,   /* slots looked at in one hold of the lock */
    REREADS = 4,
};

typedef struct found {
    uint64_t hash, revision;
    uint32_t slot;
} found;

/* ---- filters ---- */

/* A filter as the index can answer it. */
typedef struct slot_filter {
    uint16_t source;
    uint8_t scheme;
    bool any_source, any_scheme, nothing;
    ptier_health health;
    bool usable_only; /* pick without a stated health */
    int64_t now;
} slot_filter;

static slot_filter
slot_filter_locked(const ptier_cache *cache, const ptier_filter *filter, bool pick)
{
    slot_filter f = {
        .any_source = true, .any_scheme = true, .now = ptier_clock_boot(&cache->clock)};
    if (filter && filter->source && *filter->source) {
        f.source = ptier_index_source(cache->index, filter->source);
        f.any_source = false;
    }
    if (filter && filter->scheme && *filter->scheme) {
        f.scheme = ptier_scheme_id(filter->scheme);
        f.any_scheme = false;
        f.nothing = f.scheme == 0;
    }
    f.health = filter ? filter->health : PTIER_HEALTH_UNSPECIFIED;
    f.usable_only = pick && f.health == PTIER_HEALTH_UNSPECIFIED;
    return f;
}

static bool
slot_matches(const slot_filter *f, const ptier_slot *slot)
{
    if (slot->revision == 0 || slot->expires_boot_ms <= f->now || f->nothing)
        return false;
    if (!f->any_source && slot->source != f->source)
        return false;
    if (!f->any_scheme && slot->scheme != f->scheme)
        return false;
    if (f->usable_only)
        return slot->health != PTIER_HEALTH_UNHEALTHY && slot->health != PTIER_HEALTH_DEAD;
    return f->health == PTIER_HEALTH_UNSPECIFIED || slot->health == f->health;
}

static bool
has_label(const ptier_entry *entry, const ptier_label *wanted)
{
    const char *text = entry->text + entry->labels_at;
    for (unsigned i = 0; i < entry->label_count; i++) {
        const char *name = text;
        const char *value = name + strlen(name) + 1;
        if (strcmp(name, wanted->name) == 0)
            return strcmp(value, wanted->value) == 0;
        text = value + strlen(value) + 1;
    }
    return false;
}

/* What the index cannot answer: labels, and sources beyond those it can number. */
static bool
entry_matches(const ptier_cache *cache, const ptier_filter *filter, const ptier_entry *entry)
{
    if (ptier_entry_expired(entry, ptier_clock_boot(&cache->clock)))
        return false;
    if (filter && filter->source && *filter->source &&
        strcmp(filter->source, ptier_entry_source(entry)) != 0)
        return false;
    for (size_t i = 0; filter && i < filter->label_count; i++)
        if (!has_label(entry, &filter->labels[i]))
            return false;
    return true;
}

/* ---- pick ---- */

typedef struct picking {
    ptier_cache *cache;
    const ptier_filter *filter;
    const char *const *exclude;
    size_t exclude_count;
    ptier_entry **entries;
    size_t wanted, count;
    uint64_t random;
} picking;

/* xorshift64*: uniform enough for choosing, seeded by the kernel for each call. */
static uint64_t
next_random(picking *p)
{
    p->random ^= p->random >> 12;
    p->random ^= p->random << 25;
    p->random ^= p->random >> 27;
    return p->random * UINT64_C(2685821657736338717);
}

static uint32_t
random_below(picking *p, uint32_t limit)
{
    return (uint32_t)(((next_random(p) >> 32) * limit) >> 32);
}

static bool
picked_already(const picking *p, const ptier_entry *entry)
{
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(ptier_entry_key(p->entries[i]), ptier_entry_key(entry)) == 0)
            return true;
    for (size_t i = 0; i < p->exclude_count; i++)
        if (strcmp(p->exclude[i], ptier_entry_key(entry)) == 0)
            return true;
    return false;
}

static void
consider(picking *p, const found *f)
{
    ptier_entry *entry;
    if (ptier_load_revision(p->cache, f->hash, f->revision, &entry, NULL))
        return; /* changed meanwhile */
    if (entry_matches(p->cache, p->filter, entry) && !picked_already(p, entry))
        p->entries[p->count++] = entry;
    else
        ptier_entry_release(entry);
}

/* Random slots; for most filters this is all. */
static void
pick_by_sampling(picking *p)
{
    size_t tries = p->wanted * TRIES_PER_PICK + 64;
    found batch[64];
    while (p->count < p->wanted && tries) {
        size_t hits = 0, room = p->wanted - p->count < 64 ? p->wanted - p->count : 64;
        pthread_mutex_lock(&p->cache->lock);
        const slot_filter f = slot_filter_locked(p->cache, p->filter, true);
        uint32_t limit = ptier_index_limit(p->cache->index);
        for (; limit && tries && hits < room; tries--) {
            const ptier_slot *slot = ptier_index_slot(p->cache->index, random_below(p, limit));
            if (slot_matches(&f, slot))
                batch[hits++] = (found){.hash = slot->hash, .revision = slot->revision};
        }
        pthread_mutex_unlock(&p->cache->lock);
        if (limit == 0)
            return;
        for (size_t i = 0; i < hits && p->count < p->wanted; i++)
            consider(p, &batch[i]);
    }
}

/* All slots that fit, in random order: exact, for filters that little matches. */
static void
pick_by_walking(picking *p)
{
    pthread_mutex_lock(&p->cache->lock);
    const slot_filter f = slot_filter_locked(p->cache, p->filter, true);
    uint32_t limit = ptier_index_limit(p->cache->index), count = 0;
    found *all = malloc(((size_t)ptier_index_count(p->cache->index) + 1) * sizeof *all);
    for (uint32_t id = 0; all && id < limit; id++) {
        const ptier_slot *slot = ptier_index_slot(p->cache->index, id);
        if (slot_matches(&f, slot))
            all[count++] = (found){.hash = slot->hash, .revision = slot->revision};
    }
    pthread_mutex_unlock(&p->cache->lock);
    for (uint32_t left = count; left && p->count < p->wanted; left--) {
        uint32_t at = random_below(p, left);
        consider(p, &all[at]);
        all[at] = all[left - 1];
    }
    free(all);
}

size_t
ptier_cache_pick(ptier_cache *cache, size_t count, const ptier_filter *filter,
                 const char *const *exclude, size_t exclude_count, ptier_entry **entries)
{
    picking p = {
        .cache = cache,
        .filter = filter,
        .exclude = exclude,
        .exclude_count = exclude_count,
        .entries = entries,
        .wanted = count,
    };
    if (getrandom(&p.random, sizeof p.random, 0) != sizeof p.random || p.random == 0)
        p.random = (uint64_t)ptier_clock_boot(&cache->clock) | 1;
    pick_by_sampling(&p);
    if (p.count < p.wanted) {
        ptier_wait_indexed(cache);
        pick_by_walking(&p);
    }
    return p.count;
}

/* ---- list ---- */

static bool
resident_in(ptier_cache *cache, ptier_tier_id tier, const ptier_entry *entry)
{
    const ptier_ref ref = {.hash = entry->hash, .revision = entry->revision, .quiet = true};
    ptier_entry *there;
    switch (tier) {
    case PTIER_TIER_L1:
        if (cache->tiers[tier]->ops->get(cache->tiers[tier], &ref, &there))
            return false;
        ptier_entry_release(there);
        return true;
    case PTIER_TIER_L2:
        return ptier_l2_resident(cache->tiers[tier], entry->hash, entry->revision);
    default:
        return true; /* L3 has them all */
    }
}

/* Collects slots that fit, from *cursor on; *cursor is where to go on. */
static size_t
collect(ptier_cache *cache, uint64_t *cursor, const ptier_filter *filter, found *batch, size_t room)
{
    size_t count = 0;
    pthread_mutex_lock(&cache->lock);
    const slot_filter f = slot_filter_locked(cache, filter, false);
    uint32_t limit = ptier_index_limit(cache->index);
    uint64_t end = *cursor + LIST_SLOTS;
    for (; *cursor < limit && *cursor < end && count < room; ++*cursor) {
        const ptier_slot *slot = ptier_index_slot(cache->index, (uint32_t)*cursor);
        if (slot_matches(&f, slot))
            batch[count++] = (found){slot->hash, slot->revision, (uint32_t)*cursor};
    }
    if (*cursor >= limit)
        *cursor = 0;
    pthread_mutex_unlock(&cache->lock);
    return count;
}

/* The entry of a slot, also when it has changed since it was collected. */
static ptier_status
read_slot(ptier_cache *cache, found *f, ptier_entry **entry)
{
    ptier_status status = PTIER_NOT_FOUND;
    for (int i = 0; i < REREADS; i++) {
        status = ptier_load_revision(cache, f->hash, f->revision, entry, NULL);
        if (status != PTIER_NOT_FOUND)
            break;
        pthread_mutex_lock(&cache->lock);
        const ptier_slot *slot = f->slot < ptier_index_limit(cache->index)
                                     ? ptier_index_slot(cache->index, f->slot)
                                     : NULL;
        bool still =
            slot && slot->revision && slot->hash == f->hash && slot->revision != f->revision;
        if (still)
            f->revision = slot->revision;
        pthread_mutex_unlock(&cache->lock);
        if (!still)
            break;
    }
    return status;
}

/* What was removed meanwhile is left out, and what is damaged, which the next Get deals with. */
static ptier_status
take_slot(ptier_cache *cache, const ptier_filter *filter, ptier_tier_id tier, found *f,
          ptier_entry **entries, size_t *count)
{
    ptier_entry *entry;
    ptier_status status = read_slot(cache, f, &entry);
    if (status)
        return status == PTIER_NOT_FOUND || status == PTIER_DATA_LOSS ? PTIER_OK : status;
    if (entry_matches(cache, filter, entry) && resident_in(cache, tier, entry))
        entries[(*count)++] = entry;
    else
        ptier_entry_release(entry);
    return PTIER_OK;
}

ptier_status
ptier_cache_list(ptier_cache *cache, uint64_t *cursor, const ptier_filter *filter,
                 ptier_tier_id tier, size_t limit, ptier_entry **entries, size_t *count,
                 ptier_error *error)
{
    *count = 0;
    if ((unsigned)tier > PTIER_TIER_L3 || (tier && !cache->tiers[tier]))
        return ptier_fail(error, PTIER_FAILED_PRECONDITION, "tier %s is not enabled",
                          ptier_tier_name(tier));
    found *batch = malloc((limit ? limit : 1) * sizeof *batch);
    if (!batch)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for a page of %zu", limit);
    ptier_wait_indexed(cache);
    const uint64_t from = *cursor;
    ptier_status status = PTIER_OK;
    do {
        size_t hits = collect(cache, cursor, filter, batch, limit - *count);
        for (size_t i = 0; !status && i < hits; i++)
            status = take_slot(cache, filter, tier, &batch[i], entries, count);
    } while (!status && *cursor && *count < limit);
    free(batch);
    if (!status)
        return PTIER_OK;
    while (*count)
        ptier_entry_release(entries[--*count]);
    *cursor = from;
    return ptier_fail(error, status, "an entry of the page cannot be read at present");
}
