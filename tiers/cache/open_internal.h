/* Between options.c, directory.c, open.c and close.c: the parts of opening a cache. One thread, but
 * for ptier_tell_missing_key. */
#ifndef PTIER_CACHE_OPEN_INTERNAL_H
#define PTIER_CACHE_OPEN_INTERNAL_H

#include "cache/cache_internal.h"
#include "cache/inspect.h"

/* ---- options.c ---- */

PTIER_MUST_CHECK ptier_status ptier_options_check(const ptier_cache_options *options,
                                                  ptier_error *error);
/* Deep: the caller only lends them. On failure what was copied goes with the cache. */
PTIER_MUST_CHECK ptier_status ptier_options_copy(ptier_cache *cache,
                                                 const ptier_cache_options *options,
                                                 ptier_error *error);
ptier_l1_options ptier_l1_options_of(const ptier_cache_options *options);

/* ---- directory.c ---- */

/* The lock, what is known of earlier runs, and the keys; without a directory only these. */
PTIER_MUST_CHECK ptier_status ptier_directory_open(ptier_cache *cache,
                                                   const ptier_cache_options *options,
                                                   ptier_findings *found, ptier_error *error);

/* Once the tiers are open. Without `state`, the records themselves have to tell whether the key is
 * theirs. */
PTIER_MUST_CHECK ptier_status ptier_confirm_key(ptier_cache *cache, const ptier_findings *found,
                                                ptier_error *error);

/* Room that is kept for a start on a full disk: all `but` so many bytes are let go, or it is taken
 * again. */
void ptier_reserve_give_up(ptier_cache *cache, uint64_t but);
void ptier_reserve_take(ptier_cache *cache);

/* Why it did not open, said as what can be done about it, where that is making room. */
ptier_status ptier_explain_full_disk(const ptier_cache *cache, ptier_status status,
                                     ptier_error *error);

#endif
