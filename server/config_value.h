/* Values of options as text: durations, counts, sizes, switches, words. Thread-safe (no state). */
#ifndef PTIER_CONFIG_VALUE_H
#define PTIER_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/cache.h>

/* Each returns false and leaves *value alone when the text is none. */

/* A whole number with a unit (ms, s, m, h, d), or 0: in milliseconds, at most 100 years. */
bool ptier_parse_duration(const char *text, int64_t *ms);
/* A whole number without sign. */
bool ptier_parse_count(const char *text, uint64_t *value);
/* A whole number of bytes, or with a unit: K, M, G or T, 1024 each of the one before. */
bool ptier_parse_size(const char *text, uint64_t *bytes);
/* on, yes, true, 1, off, no, false, 0. */
bool ptier_parse_switch(const char *text, bool *value);
/* error, warn, info, debug. */
bool ptier_parse_level(const char *text, ptier_log_level *level);
/* memory, logged, synced. */
bool ptier_parse_durability(const char *text, ptier_durability *durability);
/* lru, lfu, fifo, sieve. */
bool ptier_parse_eviction(const char *text, ptier_eviction *eviction);

#endif
