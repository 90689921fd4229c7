/* For handle_*.c only: what several handlers share. */
#ifndef PTIER_HANDLE_COMMON_H
#define PTIER_HANDLE_COMMON_H

#include "methods.h"

/* Checks a list of keys: at most PTIER_BATCH_MAX, none empty or too long. False: the call has
 * failed. */
bool ptier_keys_valid(ptier_call *call, char *const *keys, size_t count);

/* The filter of a request; `labels` is arena memory. False: the call has failed. */
bool ptier_filter_from_message(ptier_call *call, const Proxytier__V1__Filter *message,
                               ptier_filter *filter);

/*
 * Appends entries as repeated field `number` of the reply, with credentials when the role allows,
 * and releases them. NULL ones are skipped. False: the call has failed (all are released all the
 * same).
 */
bool ptier_reply_entries(ptier_call *call, unsigned number, ptier_entry **entries, size_t count);

/* Which tiers a write reached, as the wire's list. Returns the number. */
size_t ptier_tiers_from_mask(uint32_t mask, Proxytier__V1__Tier tiers[PTIER_TIER_COUNT]);

/* Position in a listing as an opaque page token. Tokens of another run of the daemon are refused.
 */
typedef struct ptier_page {
    uint64_t cursor; /* 0: the first page */
    uint64_t as_of;
} ptier_page;
#define PTIER_PAGE_TOKEN 40 /* bytes, NUL included */

/* Reads a token ("": the first page, as of now). False: the call has failed. */
bool ptier_page_read(ptier_call *call, const char *token, ptier_page *page);
/* Writes the token of the next page; "" when the cursor says the end. */
void ptier_page_write(const ptier_call *call, const ptier_page *page, char token[PTIER_PAGE_TOKEN]);

/* page_size of a request → entries to give. */
size_t ptier_page_size(uint32_t asked);

#endif
