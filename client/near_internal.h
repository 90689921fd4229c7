/* For near_cache.c and near_feed.c only: the inside of a near cache. */
#ifndef PTIER_NEAR_INTERNAL_H
#define PTIER_NEAR_INTERNAL_H

#include <pthread.h>

#include "near_cache.h"
#include "near_lock.h"
#include "near_table.h"

enum {
    PTIER_NEAR_SHARDS_MAX = 16,
    PTIER_NEAR_STRIPES = 16384, /* of all shards together */
    PTIER_NEAR_TOUCHED = 4096,  /* likewise: keys whose hits wait to be collected */
};

typedef struct ptier_near_counts {
    uint64_t hits, absent_hits, misses, declined;
    uint64_t fills, refused, evictions, patches, invalidations;
} ptier_near_counts;

typedef struct ptier_near_shard {
    _Alignas(64) ptier_near_lock lock;
    ptier_near_table present, absent;
    uint64_t generation; /* that `stripes` is of */
    uint64_t *stripes;   /* the latest revision that touched a key of each */
    ptier_near_record **touched;
    size_t touched_count;
    ptier_near_counts count;
} ptier_near_shard;

struct ptier_near {
    ptier_near_options options;
    size_t shard_count, stripes, touched_room; /* the latter two: of a shard */
    size_t collect_at;                         /* shard where collecting goes on */

    /*
     * Whoever reads these without a lock reads fresh_until first: what is looked up after that is
     * at least as new as what fresh_until vouches for.
     */
    _Atomic int64_t fresh_until;
    _Atomic uint64_t generation; /* grows whenever following begins or ends */
    _Atomic uint64_t watermark;
    _Atomic uint64_t revision;
    _Atomic bool following; /* no gap behind which events might be missing */
    _Atomic size_t uncollected;

    _Alignas(64)
        pthread_mutex_t lock; /* guards what follows, and writing of what precedes; alone */
    ptier_near_clock clock;
    bool known;
    uint8_t boot_id[PTIER_NEAR_ID_BYTES], store_id[PTIER_NEAR_ID_BYTES];

    ptier_near_shard shards[PTIER_NEAR_SHARDS_MAX];
};

void ptier_near_begin_generation(const ptier_near *near, ptier_near_shard *shard,
                                 uint64_t generation);

/* The shard of a hash, locked, its stripes of the present generation. */
static inline ptier_near_shard *
ptier_near_enter(ptier_near *near, uint64_t hash)
{
    ptier_near_shard *shard =
        &near->shards[(hash % PTIER_NEAR_SHARDS_MAX) & (near->shard_count - 1)];
    ptier_near_lock_enter(&shard->lock);
    uint64_t generation = atomic_load_explicit(&near->generation, memory_order_acquire);
    if (shard->generation != generation) /* another store may number its revisions anew */
        ptier_near_begin_generation(near, shard, generation);
    return shard;
}

/* What is valid now; `now` INT64_MIN: whatever its time to live. */
static inline ptier_near_validity
ptier_near_validity_at(const ptier_near *near, int64_t now)
{
    return (ptier_near_validity){
        .generation = atomic_load_explicit(&near->generation, memory_order_acquire),
        .watermark = atomic_load_explicit(&near->watermark, memory_order_acquire),
        .now = now,
    };
}

static inline uint64_t *
ptier_near_stripe(const ptier_near *near, const ptier_near_shard *shard, uint64_t hash)
{
    return &shard->stripes[(hash / PTIER_NEAR_SHARDS_MAX) & (near->stripes - 1)];
}

/* The key was touched by this revision: removes what is older. `event`: patches instead where that
 * tells enough; NULL: does not say how the key was touched. */
void ptier_near_touch(ptier_near *near, const char *key, uint64_t revision,
                      const ptier_event *event);

#endif
