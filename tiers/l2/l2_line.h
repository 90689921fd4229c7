/*
 * One line of an L2 shard: a JSON object with its fields in a fixed order, closed by a keyed check
 * over all the bytes before it. Anything that this module did not write reads as DATA_LOSS.
 * Thread-safe (no state but the keyring's).
 *
 *   {"rev":7,"prev":3,"op":"put","key":…,"proxy_url":…,"username_encrypted":…,"password_encrypted":…,"source":…,
 *    "fetch_time":…,"ttl":…,"expires":…,"boot_expires":…,"boot":"16
 * hex","health":"healthy","failures":0,"revalidate":0,
 *    "latency_us":…,"successes":…,"reports":…,"accesses":…,"last_access":…,"labels":{…},"check":"16
 * hex"}
 *   {"rev":8,"prev":7,"op":"remove","key":…,"check":…} {"rev":9,"prev":0,"op":"clear","check":…}
 */
#ifndef PTIER_L2_LINE_H
#define PTIER_L2_LINE_H

#include "buffer.h"
#include "clock.h"
#include "crypto/keyring.h"
#include "tier.h"

/* Longest line, line break included: every byte of every field escaped as \u00XX would still fit.
 */
#define PTIER_L2_LINE_MAX 131072

/* Appends one line. RESOURCE_EXHAUSTED: memory; INTERNAL: crypto. */
PTIER_MUST_CHECK ptier_status ptier_l2_line_write(ptier_buffer *buffer, const ptier_op *op,
                                                  const ptier_clock *clock, ptier_keyring *keyring);

/* What a line is read with; borrowed. */
typedef struct ptier_l2_reader {
    const ptier_clock *clock;
    ptier_keyring *keyring;
    uint64_t (*hash_key)(const char *key);
    bool decrypt; /* false leaves the credentials out of the entry (start-up: the tokens are enough)
                   */
} ptier_l2_reader;

/* A parsed line: owns its entry and tokens. Tombstones have an entry too: it names only the key. */
typedef struct ptier_l2_line {
    ptier_op op;
} ptier_l2_line;

/* Parses one line without its line break. DATA_LOSS: not one of our lines, or altered, or no key of
 * ours decrypts it. */
PTIER_MUST_CHECK ptier_status ptier_l2_line_parse(const char *text, size_t length,
                                                  const ptier_l2_reader *reader,
                                                  ptier_l2_line *line);
void ptier_l2_line_fini(ptier_l2_line *line);

#endif
