/*
 * The index of all keys: what exists, which revision of it is current, and when it expires. Compact
 * (40 bytes a slot and a bucket of 4), so that it holds millions; it stores no key text, only its
 * hash. Answers existence, expiry and currency without the disk. Not thread-safe: the cache's
 * change lock guards it.
 */
#ifndef PTIER_INDEX_H
#define PTIER_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>
#include <proxytier/types.h>

#define PTIER_SLOT_NONE UINT32_MAX

/* The id of a scheme, or of that of a URL, for filters; 0 is anything else. */
uint8_t ptier_scheme_id(const char *text);

typedef struct ptier_slot {
    uint64_t hash;
    uint64_t revision; /* 0: free */
    int64_t expires_boot_ms;
    uint32_t next;       /* in the bucket, or in the free list */
    uint32_t wheel_next; /* in the expiry list */
    uint32_t wheel_prev;
    uint16_t source; /* interned; PTIER_SOURCE_OTHER when there are too many sources */
    uint8_t scheme;
    uint8_t health;
} ptier_slot;

#define PTIER_SOURCE_OTHER UINT16_MAX

typedef struct ptier_index ptier_index;

PTIER_MUST_CHECK ptier_status ptier_index_create(int64_t boot_ms, ptier_index **index);
void ptier_index_destroy(ptier_index *index);

/* first[i]: as ptier_index_first(hashes[i]), for many at a time, whose memory is waited for at
 * once.
 */
void ptier_index_first_of(const ptier_index *index, const uint64_t *hashes, size_t count,
                          uint32_t *first);

/* The first slot under a hash, and the next one under the same; PTIER_SLOT_NONE ends. */
uint32_t ptier_index_first(const ptier_index *index, uint64_t hash);
uint32_t ptier_index_next(const ptier_index *index, uint32_t slot);

/* The slot of exactly this revision. */
uint32_t ptier_index_find(const ptier_index *index, uint64_t hash, uint64_t revision);

/* Borrowed until the next insert or remove. */
const ptier_slot *ptier_index_slot(const ptier_index *index, uint32_t slot);

/* What the index keeps of a record besides its hash. */
typedef struct ptier_index_facts {
    uint64_t revision;
    int64_t expires_boot_ms;
    const char *url;
    const char *source;
    uint8_t health;
} ptier_index_facts;

/* RESOURCE_EXHAUSTED: no memory or 2^32 entries; nothing changed. */
PTIER_MUST_CHECK ptier_status ptier_index_insert(ptier_index *index, uint64_t hash,
                                                 const ptier_index_facts *facts);
void ptier_index_update(ptier_index *index, uint32_t id, const ptier_index_facts *facts);
void ptier_index_remove(ptier_index *index, uint32_t id);

uint64_t ptier_index_count(const ptier_index *index);
size_t ptier_index_bytes(const ptier_index *index);

/* Slots are numbered 0 .. limit-1; some are free (revision 0). */
uint32_t ptier_index_limit(const ptier_index *index);

/* The id of a source, or PTIER_SOURCE_OTHER when no slot can have it... see
 * ptier_index_source_known. */
uint16_t ptier_index_source(const ptier_index *index, const char *source);

/* Moves what has expired by boot_ms to the due list. */
void ptier_index_advance(ptier_index *index, int64_t boot_ms);

/* What is due, about in order of expiry, without the first `skip`: at most `limit` slots, which
 * stay due until removed or updated. */
size_t ptier_index_due(const ptier_index *index, size_t skip, uint32_t *slots, size_t limit);
uint64_t ptier_index_due_count(const ptier_index *index);

/*
 * How many entries expire until boot_ms, those that are due included. PTIER_NEVER: all that ever
 * do, exactly. Otherwise never too few; counted along are some that expire later, by up to 1/13 of
 * the distance (rarely more: while the wheel has a turn of a high level ahead on the way).
 */
uint64_t ptier_index_expiring(const ptier_index *index, int64_t boot_ms);

#endif
