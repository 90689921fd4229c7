/* Results and requests made of records. Thread-safe (no state). */
#ifndef PTIER_RECORDS_H
#define PTIER_RECORDS_H

#include <string.h>

#include <proxytier/client.h>

#include "arena.h"
#include "convert.h"
#include "near_record.h"
#include "record_list.h"

/*
 * Fills *result with the records of the list, and as_of. The arena that the list is in is moved to
 * the result, on failure it is destroyed.
 */
PTIER_MUST_CHECK ptier_status ptier_records_fill(ptier_records *result, ptier_arena *arena,
                                                 const ptier_record_list *list, ptier_error *error);

/* Fills *result with a near record as of `now` (moved on success). False: out of memory. */
PTIER_MUST_CHECK bool ptier_records_from_near(ptier_records *result, ptier_near_record *record,
                                              int64_t now);

/* The same of a near record that was lent (moved): see ptier_near_record_lend. */
static inline void
ptier_records_lent(ptier_records *result, ptier_near_record *record)
{
    result->records = &record->record;
    result->count = 1;
    result->internal = record;
}

/* *result becomes an empty set. For calls that take nanoseconds: writing zeros over all of it at
 * once is an instruction that takes ten. */
static inline void
ptier_records_clear(ptier_records *result)
{
    result->records = NULL;
    result->count = 0;
    result->as_of = 0;
    memset(result->next_page_token, 0, sizeof result->next_page_token);
    result->tier = PTIER_TIER_NONE;
    result->near_count = 0;
    result->stale = false;
    result->internal = NULL;
}

/*
 * Adds near records to *result, in the order of the keys: near[i] is what is known of keys[i]
 * (NULL: *result may have it, or nobody has). Takes references of its own. False: out of memory,
 * nothing changed.
 */
PTIER_MUST_CHECK bool ptier_records_merge(ptier_records *result, const char *const *keys,
                                          ptier_near_record *const *near, size_t count,
                                          int64_t now);

/* A packed message with credentials in it. Start from zero bytes; fini wipes it. */
typedef struct ptier_packed {
    uint8_t *bytes;
    size_t length, room;
} ptier_packed;

/* The PutManyRequest of these records. INVALID_ARGUMENT: too many, one without URL, or with too
 * many labels. A failure leaves nothing to free. */
PTIER_MUST_CHECK ptier_status ptier_puts_pack(ptier_packed *packed, const ptier_record *records,
                                              size_t count, const ptier_put_call *put,
                                              ptier_error *error);
void ptier_packed_fini(ptier_packed *packed);

/* INVALID_ARGUMENT: record `number` of the call has no URL, or too many labels. */
PTIER_MUST_CHECK ptier_status ptier_record_checked(const ptier_record *record, size_t number,
                                                   ptier_error *error);

#endif
