/*
 * L3's bound: sampled LRU. An exact order would need an index on the last access, and with it a
 * random page a use; the oldest of a few random rows comes close.
 */
#include "l3/l3_internal.h"

#define SAMPLES 16

static uint64_t
next_random(ptier_l3 *l3)
{
    uint64_t x = l3->random; /* xorshift64: no secret depends on it */
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return l3->random = x;
}

static bool
is_spared(ptier_l3 *l3, uint64_t hash)
{
    for (int i = 0; i < PTIER_L3_SPARED; i++)
        if (atomic_load_explicit(&l3->spared[i], memory_order_relaxed) == hash)
            return true;
    return false;
}

/* Last use, or when it was written: a new record is not the oldest because nobody has asked for it
 * yet. */
static int64_t
recency(sqlite3_stmt *sample)
{
    int64_t used = sqlite3_column_int64(sample, 2); /* NULL: 0 */
    int64_t wall = sqlite3_column_int64(sample, 3), ttl = sqlite3_column_int64(sample, 4), written;
    if (ttl <= 0 || __builtin_sub_overflow(wall, ttl, &written))
        written = sqlite3_column_int64(sample, 5);
    return used > written ? used : written;
}

static int
last_row(ptier_l3 *l3, int64_t *id)
{
    sqlite3_stmt *query = l3->writer.statements[L3_LAST_ROW];
    int code = sqlite3_step(query);
    *id = code == SQLITE_ROW ? sqlite3_column_int64(query, 0) : 0;
    (void)sqlite3_reset(query); /* repeats code */
    return code == SQLITE_ROW ? SQLITE_OK : code;
}

/* The least recently used of the samples; one that was spared only when there is no other. */
static bool
choose(ptier_l3 *l3, int64_t last, uint64_t *hash, uint64_t *revision)
{
    sqlite3_stmt *sample = l3->writer.statements[L3_SAMPLE];
    bool have = false, have_spared = false;
    int64_t oldest = 0;
    for (int i = 0; i < SAMPLES; i++) {
        int64_t at = (int64_t)(next_random(l3) % (uint64_t)last) + 1;
        (void)sqlite3_bind_int64(sample, 1, at); /* cannot fail */
        int code = sqlite3_step(sample);
        if (code == SQLITE_ROW) {
            uint64_t its_hash = (uint64_t)sqlite3_column_int64(sample, 0);
            int64_t its_recency = recency(sample);
            bool spared = is_spared(l3, its_hash);
            if (!have || (have_spared && !spared) ||
                (spared == have_spared && its_recency < oldest)) {
                have = true;
                have_spared = spared;
                oldest = its_recency;
                *hash = its_hash;
                *revision = (uint64_t)sqlite3_column_int64(sample, 1);
            }
        }
        (void)sqlite3_reset(sample); /* repeats code: a row that cannot be read is no candidate */
        ptier_l3_note(l3, code);
    }
    return have;
}

ptier_status
ptier_l3_victim(ptier_tier *tier, uint64_t *hash, uint64_t *revision)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    if (l3->capacity == 0 || atomic_load(&l3->count) <= l3->capacity)
        return PTIER_NOT_FOUND;
    ptier_status status = ptier_l3_writable(l3, NULL);
    if (status != PTIER_OK)
        return status; /* it could not be dropped */
    uint64_t chosen = atomic_load(&l3->victim_hash);
    if (chosen) {
        *hash = chosen;
        *revision = l3->victim_revision;
        return PTIER_OK;
    }
    int64_t last;
    int code = last_row(l3, &last);
    if (code != SQLITE_OK)
        return ptier_l3_fail(l3, &l3->writer, code, "read", NULL);
    if (last <= 0 || !choose(l3, last, hash, revision))
        return PTIER_NOT_FOUND;
    l3->victim_revision = *revision;
    atomic_store(&l3->victim_hash, *hash);
    return PTIER_OK;
}

void
ptier_l3_touch(ptier_tier *tier, const ptier_ref *ref)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    uint64_t chosen = ref->hash;
    if (atomic_load_explicit(&l3->victim_hash, memory_order_relaxed) != chosen ||
        !atomic_compare_exchange_strong(&l3->victim_hash, &chosen, 0))
        return; /* recency itself comes with write_usage */
    uint32_t slot = atomic_fetch_add(&l3->spared_at, 1) % PTIER_L3_SPARED;
    atomic_store(&l3->spared[slot], ref->hash);
}
