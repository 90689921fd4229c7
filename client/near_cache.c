#include "near_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ENTRIES_PER_SHARD 1024 /* fewer do not pay */
#define BYTES_PER_SHARD   ((size_t)1 << 20)
#define ABSENT_SHARE      8 /* of the bytes are for keys that are not cached: one part in so many */
#define MS                INT64_C(1000000)

/* ---- life cycle ---- */

static size_t
choose_shards(const ptier_near_options *options)
{
    size_t count = 1;
    while (count < PTIER_NEAR_SHARDS_MAX && options->entries / count >= 2 * ENTRIES_PER_SHARD &&
           options->bytes / count >= 2 * BYTES_PER_SHARD)
        count *= 2;
    return count;
}

static bool
init_shard(ptier_near *near, ptier_near_shard *shard)
{
    const ptier_near_options *o = &near->options;
    size_t bytes = o->bytes / near->shard_count;
    size_t absent_bytes = o->absent_entries ? bytes / ABSENT_SHARE : 0;
    ptier_near_table_init(&shard->present, o->entries / near->shard_count, bytes - absent_bytes);
    ptier_near_table_init(&shard->absent,
                          (o->absent_entries + near->shard_count - 1) / near->shard_count,
                          absent_bytes);
    shard->stripes = calloc(near->stripes, sizeof *shard->stripes);
    shard->touched = calloc(near->touched_room, sizeof(ptier_near_record *));
    return shard->stripes && shard->touched;
}

static void
fini_shard(ptier_near_shard *shard)
{
    for (size_t i = 0; shard->touched && i < shard->touched_count; i++)
        ptier_near_record_release(shard->touched[i]);
    ptier_near_table_fini(&shard->present);
    ptier_near_table_fini(&shard->absent);
    free(shard->stripes);
    free(shard->touched);
}

ptier_status
ptier_near_create(const ptier_near_options *options, ptier_near **result, ptier_error *error)
{
    *result = NULL;
    if (options->entries == 0 || options->entries > PTIER_NEAR_ENTRIES_MAX ||
        options->absent_entries > PTIER_NEAR_ENTRIES_MAX || options->max_staleness <= 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "a near cache needs entries and max_staleness, within reason");
    ptier_near *near = aligned_alloc(_Alignof(ptier_near), sizeof *near);
    if (!near)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    memset(near, 0, sizeof *near);
    near->options = *options;
    atomic_init(&near->fresh_until, PTIER_NEAR_NEVER);
    ptier_near_clock_init(&near->clock);
    if (pthread_mutex_init(&near->lock, NULL) != 0) {
        free(near);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot make a lock");
    }
    size_t wanted = choose_shards(options);
    near->shard_count = wanted;
    near->stripes = PTIER_NEAR_STRIPES / wanted;
    near->touched_room = PTIER_NEAR_TOUCHED / wanted;
    for (size_t i = 0; i < wanted; i++)
        if (!init_shard(near, &near->shards[i])) {
            near->shard_count = i + 1;
            ptier_near_destroy(near);
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
        }
    *result = near;
    return PTIER_OK;
}

void
ptier_near_destroy(ptier_near *near)
{
    if (!near)
        return;
    for (size_t i = 0; i < near->shard_count; i++)
        fini_shard(&near->shards[i]);
    pthread_mutex_destroy(&near->lock);
    free(near);
}

void
ptier_near_begin_generation(const ptier_near *near, ptier_near_shard *shard, uint64_t generation)
{
    memset(shard->stripes, 0, near->stripes * sizeof *shard->stripes);
    shard->generation = generation;
}

/* ---- reading ---- */

void
ptier_near_look_up(ptier_near *near, const char *key, ptier_near_look *look)
{
    ptier_near_key_of(&look->key, key);
    look->shard = ptier_near_enter(near, look->key.hash);
    look->lock = &look->shard->lock;
    look->at = ptier_near_table_seek(&look->shard->present, &look->key);
    look->fresh_until = atomic_load_explicit(&near->fresh_until, memory_order_acquire);
    look->revision = ptier_near_revision(near);
}

/* True: it is the first hit of those that are to be collected. */
static bool
note_hit(ptier_near *near, ptier_near_shard *shard, ptier_near_record *record, int64_t now)
{
    record->hits += record->hits < UINT32_MAX;
    record->last_hit = now;
    if (record->touched || shard->touched_count == near->touched_room)
        return false; /* there is no room: its hits wait for its next one */
    record->touched = true;
    ptier_near_record_give(record);
    shard->touched[shard->touched_count++] = record;
    atomic_fetch_add_explicit(&near->uncollected, 1, memory_order_relaxed);
    return true;
}

/* The valid record of a key in one of the tables; NULL: none. What is not valid any more goes. */
static inline ptier_near_record *
find_valid(ptier_near_table *table, uint32_t at, const ptier_near_key *key,
           const ptier_near_validity *v)
{
    at = ptier_near_table_find_from(table, at, key);
    if (at == PTIER_NEAR_NONE)
        return NULL;
    ptier_near_record *record = ptier_near_table_record(table, at);
    if (!ptier_near_valid(record, v)) {
        ptier_near_table_remove(table, at);
        return NULL;
    }
    record->used = true;
    return record;
}

/* Apart, so that hits do not pay for it. */
__attribute__((noinline)) static ptier_near_record *
find_absent(ptier_near_shard *shard, const ptier_near_key *key, const ptier_near_validity *v)
{
    return find_valid(&shard->absent, ptier_near_table_seek(&shard->absent, key), key, v);
}

static ptier_near_outcome
count_hit(ptier_near *near, ptier_near_look *look, int64_t now)
{
    if (look->record->absent) {
        look->shard->count.absent_hits++;
    } else {
        look->shard->count.hits++;
        look->first = note_hit(near, look->shard, look->record, now);
    }
    return PTIER_NEAR_HIT;
}

ptier_near_outcome
ptier_near_take(ptier_near *near, ptier_near_look *look, int64_t now)
{
    ptier_near_shard *shard = look->shard;
    const ptier_near_validity v = ptier_near_validity_at(near, now);
    ptier_near_record *record = find_valid(&shard->present, look->at, &look->key, &v);
    if (!record)
        record = find_absent(shard, &look->key, &v);
    look->record = record;
    look->first = false;
    if (!record) {
        shard->count.misses++;
        return PTIER_NEAR_MISS;
    }
    ptier_near_record_give(record);
    if (now <= look->fresh_until)
        return count_hit(near, look, now);
    shard->count.declined++;
    return PTIER_NEAR_STALE;
}

ptier_near_outcome
ptier_near_get(ptier_near *near, const char *key, int64_t now, ptier_near_record **result)
{
    ptier_near_look look;
    ptier_near_look_up(near, key, &look);
    ptier_near_outcome outcome = ptier_near_take(near, &look, now);
    ptier_near_leave(&look);
    *result = look.record;
    return outcome;
}

void
ptier_near_wait_for_readers(ptier_near *near)
{
    const struct timespec moment = {.tv_nsec = 100000};
    for (size_t i = 0; i < near->shard_count; i++)
        while (!ptier_near_lock_idle(&near->shards[i].lock))
            (void)nanosleep(&moment, NULL); /* woken early: looks again */
}

uint64_t
ptier_near_revision(const ptier_near *near)
{
    return atomic_load_explicit(&near->revision, memory_order_acquire);
}

/* ---- filling ---- */

void
ptier_near_begin(ptier_near *near, const char *key, ptier_near_ticket *ticket)
{
    ptier_near_key asked;
    ptier_near_key_of(&asked, key);
    ptier_near_shard *shard = ptier_near_enter(near, asked.hash);
    ticket->generation = shard->generation;
    uint64_t watermark = atomic_load_explicit(&near->watermark, memory_order_acquire);
    uint64_t stripe = *ptier_near_stripe(near, shard, asked.hash);
    ticket->known = stripe > watermark ? stripe : watermark;
    ptier_near_lock_leave(&shard->lock);
}

static bool
may_fill_locked(const ptier_near *near, const ptier_near_shard *shard,
                const ptier_near_ticket *ticket, const ptier_near_record *record, uint64_t hash)
{
    if (!atomic_load_explicit(&near->following, memory_order_acquire) ||
        ticket->generation != shard->generation)
        return false;
    if (near->options.faults & PTIER_NEAR_NO_FILL_CHECK)
        return true;
    return record->as_of >= atomic_load_explicit(&near->watermark, memory_order_acquire) &&
           record->as_of >= *ptier_near_stripe(near, shard, hash);
}

/* The record takes the place of what is known of its key, unless that is newer. False: no room. */
static bool
store_locked(ptier_near_shard *shard, const ptier_near_key *key, ptier_near_record *record,
             const ptier_near_validity *v)
{
    ptier_near_table *tables[] = {&shard->present, &shard->absent};
    for (size_t i = 0; i < 2; i++) {
        uint32_t at = ptier_near_table_find(tables[i], key);
        if (at == PTIER_NEAR_NONE)
            continue;
        const ptier_near_record *old = ptier_near_table_record(tables[i], at);
        if (ptier_near_valid(old, v) && old->as_of >= record->as_of)
            return true;
        ptier_near_table_remove(tables[i], at);
    }
    return ptier_near_table_add(tables[record->absent], record, v, &shard->count.evictions);
}

bool
ptier_near_fill(ptier_near *near, const ptier_near_ticket *ticket, ptier_near_record *record)
{
    const ptier_near_key key = ptier_near_record_key(record);
    record->generation = ticket->generation;
    ptier_near_shard *shard = ptier_near_enter(near, key.hash);
    const ptier_near_validity v =
        ptier_near_validity_at(near, INT64_MIN); /* what expired is found out later */
    bool allowed = may_fill_locked(near, shard, ticket, record, key.hash);
    shard->count.refused += !allowed;
    if (allowed)
        allowed = store_locked(shard, &key, record, &v);
    shard->count.fills += allowed;
    ptier_near_lock_leave(&shard->lock);
    return allowed;
}

/* ---- upkeep ---- */

static size_t
collect_shard(ptier_near *near, ptier_near_shard *shard, ptier_near_use *uses, size_t room)
{
    ptier_near_lock_enter(&shard->lock);
    const size_t count = room < shard->touched_count ? room : shard->touched_count;
    for (size_t i = 0; i < count; i++) {
        ptier_near_record *record = shard->touched[i];
        uses[i] =
            (ptier_near_use){.record = record, .hits = record->hits, .last_hit = record->last_hit};
        record->touched = false;
        record->hits = 0;
    }
    shard->touched_count -= count; /* the oldest went */
    memmove(shard->touched, shard->touched + count, shard->touched_count * sizeof *shard->touched);
    ptier_near_lock_leave(&shard->lock);
    atomic_fetch_sub_explicit(&near->uncollected, count, memory_order_relaxed);
    return count;
}

size_t
ptier_near_collect(ptier_near *near, ptier_near_use *uses, size_t room)
{
    size_t count = 0;
    for (size_t i = 0; i < near->shard_count && count < room; i++) {
        count += collect_shard(near, &near->shards[near->collect_at], uses + count, room - count);
        near->collect_at = (near->collect_at + 1) % near->shard_count;
    }
    return count;
}

size_t
ptier_near_uncollected(const ptier_near *near)
{
    return atomic_load_explicit(&near->uncollected, memory_order_relaxed);
}

static void
add_shard(ptier_near_statistics *s, ptier_near_shard *shard)
{
    ptier_near_lock_enter(&shard->lock);
    const ptier_near_counts *c = &shard->count;
    s->hits += c->hits;
    s->absent_hits += c->absent_hits;
    s->misses += c->misses;
    s->declined += c->declined;
    s->fills += c->fills;
    s->refused_fills += c->refused;
    s->evictions += c->evictions;
    s->patches += c->patches;
    s->invalidations += c->invalidations;
    s->unreported_hits += shard->present.untold;
    s->entries += shard->present.count;
    s->absent_entries += shard->absent.count;
    s->bytes += shard->present.bytes + shard->absent.bytes;
    ptier_near_lock_leave(&shard->lock);
}

void
ptier_near_read_statistics(ptier_near *near, int64_t now, ptier_near_statistics *statistics)
{
    memset(statistics, 0, sizeof *statistics);
    for (size_t i = 0; i < near->shard_count; i++)
        add_shard(statistics, &near->shards[i]);
    pthread_mutex_lock(&near->lock);
    int64_t age = ptier_near_clock_age(&near->clock, now);
    statistics->following = atomic_load_explicit(&near->following, memory_order_relaxed);
    pthread_mutex_unlock(&near->lock);
    statistics->age_ms = age == INT64_MAX ? -1 : age / MS;
}
