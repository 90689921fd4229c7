/*
 * For tiers/ only: the inside of an entry. One allocation: this header, then NUL-terminated strings
 * at 16-bit offsets. Everything but the atomics and L1's links is immutable once the entry is
 * published (its revision is set under the change lock just before that).
 */
#ifndef PTIER_ENTRY_INTERNAL_H
#define PTIER_ENTRY_INTERNAL_H

#include <stdatomic.h>

#include <proxytier/entry.h>

#include "clock.h"

struct ptier_entry {
    uint64_t hash; /* of the key: xxh3, see ptier_hash_key */
    uint64_t revision;
    int64_t fetch_time_ms;
    int64_t ttl_ms;          /* 0 never expires */
    int64_t expires_wall_ms; /* 0 never */
    uint32_t failure_count;
    /* Usage: moves without a revision. Relaxed atomics; a lost race costs a count, never sense. */
    _Atomic uint32_t success_count;
    _Atomic uint32_t report_count;
    _Atomic uint32_t
        latency_us; /* whole microseconds: the same in memory, lines, rows and exports */
    uint8_t health;
    uint8_t needs_revalidation;
    uint8_t label_count;
    uint16_t username_at, password_at; /* offsets into text; 0: none (the key is at 0) */
    uint16_t url_at, source_at;
    uint16_t labels_at;  /* name NUL value NUL ..., in name order */
    uint16_t text_bytes; /* credentials are never empty strings: an empty one is none */

    /* What a hit looks at and moves, and the key behind it: together, since among a million
     * entries each line of memory is a miss of the processor's cache. */
    _Atomic uint32_t refs;
    _Atomic uint8_t usage_dirty; /* usage at rest is older than this */
    /* Its place in L1's order of eviction (l1/l1_policy.h): under the lock of its shard there. An
     * entry is in one L1 at most. Both links are always in one line. */
    uint8_t l1_uses, l1_list;
    _Alignas(16) ptier_entry *l1_newer;
    ptier_entry *l1_older;
    int64_t expires_boot_ms; /* PTIER_NEVER never; decides while this kernel runs */
    _Atomic int64_t last_access_ms;
    _Atomic uint64_t access_count;
    char text[]; /* the key first */
};

static inline uint64_t
ptier_word_at(const char *bytes)
{
    uint64_t word;
    __builtin_memcpy(&word, bytes, sizeof word);
    return word;
}

/* As memcmp says it, but without a call: most keys are two words long. */
static inline bool
ptier_same_bytes(const char *a, const char *b, size_t length)
{
    if (length < sizeof(uint64_t)) {
        while (length > 0 && a[length - 1] == b[length - 1])
            length--;
        return length == 0;
    }
    const size_t last = length - sizeof(uint64_t); /* where the last word begins */
    for (size_t at = 0; at < last; at += sizeof(uint64_t))
        if (ptier_word_at(a + at) != ptier_word_at(b + at))
            return false;
    return ptier_word_at(a + last) == ptier_word_at(b + last);
}

static inline const char *
ptier_entry_key(const ptier_entry *entry)
{
    return entry->text;
}

static inline const char *
ptier_entry_url(const ptier_entry *entry)
{
    return entry->text + entry->url_at;
}

static inline const char *
ptier_entry_source(const ptier_entry *entry)
{
    return entry->text + entry->source_at;
}

/* The url follows the key, so where it begins says how long that is. */
static inline bool
ptier_entry_has_key(const ptier_entry *entry, const char *key, size_t length)
{
    return entry->url_at == length + 1 && ptier_same_bytes(entry->text, key, length);
}

/* NULL: none. */
static inline const char *
ptier_entry_username(const ptier_entry *entry)
{
    return entry->username_at ? entry->text + entry->username_at : NULL;
}

static inline const char *
ptier_entry_password(const ptier_entry *entry)
{
    return entry->password_at ? entry->text + entry->password_at : NULL;
}

/* ptier_entry_retain, without a call. */
static inline ptier_entry *
ptier_entry_share(ptier_entry *entry)
{
    atomic_fetch_add_explicit(&entry->refs, 1, memory_order_relaxed);
    return entry;
}

/* Uses, the last one at this wall time. Where there is an L1, under the lock of the entry's shard
 * there, whether it is in it or not: so none is lost, and none takes a locked instruction. */
static inline void
ptier_entry_count_uses(ptier_entry *entry, uint32_t count, int64_t last_ms)
{
    uint64_t before = atomic_load_explicit(&entry->access_count, memory_order_relaxed);
    atomic_store_explicit(&entry->access_count, before + count, memory_order_relaxed);
    atomic_store_explicit(&entry->last_access_ms, last_ms, memory_order_relaxed);
    atomic_store_explicit(&entry->usage_dirty, 1, memory_order_relaxed);
}

/* Milliseconds as the entry keeps them: 0 for what is no latency (negative, not a number, over 71
 * minutes). */
static inline uint32_t
ptier_latency_us(double ms)
{
    return ms > 0 && ms < UINT32_MAX / 1000 ? (uint32_t)(ms * 1000.0 + 0.5) : 0;
}

static inline bool
ptier_entry_expired(const ptier_entry *entry, int64_t boot_ms)
{
    return entry->expires_boot_ms <= boot_ms;
}

/*
 * Makes an entry from a complete, valid record (key, url without user information, ttl_ms, health,
 * failure_count set; labels in name order). Usage fields are taken from the record; expiry from the
 * two arguments. NULL: out of memory. Owned, one reference.
 */
ptier_entry *ptier_entry_create(const ptier_record *record, uint64_t hash, int64_t expires_wall_ms,
                                int64_t expires_boot_ms);

/* See ptier_cache_read. boot_ms: now. */
void ptier_entry_view(const ptier_entry *entry, int64_t boot_ms, ptier_record *record,
                      ptier_label labels[PTIER_LABELS_MAX]);

/* Memory of one entry, malloc's own share included. */
size_t ptier_entry_bytes(const ptier_entry *entry);

#endif
