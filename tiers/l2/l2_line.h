/*
 * One line of an L2 shard: a JSON object with its fields in a fixed order, closed by a keyed check
 * over all the bytes before it. Anything that this module did not write reads as DATA_LOSS.
 * Thread-safe (no state but the keyring's).
 *
 *   {"rev":7,"prev":3,"op":"put","key":…,"proxy_url":…,"username_encrypted":…,"password_encrypted":…,"source":…,
 *    "fetch_time":…,"ttl":…,"expires":…,"boot_expires":…,"boot":"16
 * hex","health":"healthy","failures":0,"revalidate":0,
 *    "latency_us":…,"successes":…,"reports":…,"accesses":…,"last_access":…,"labels":{…},"check":"16
 * hex"} (from failures to last_access only what is not 0)
 *   {"rev":8,"prev":7,"op":"remove","key":…,"check":…} {"rev":9,"prev":0,"op":"clear","check":…}
 *
 * and the line at the head of each shard, repeated in the newest when the oldest one goes:
 *
 *   {"op":"shard","number":7,"first":3,"after":16776999,"highest":1234,"check":…}
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

/* The word of each ptier_op_kind. */
extern const char *const ptier_l2_op_names[PTIER_OP_CLEAR + 1];

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
    bool tokens;  /* false leaves those out (a get, which has no use for them) */
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

/* ---- the line that names a shard ---- */

#define PTIER_L2_HEADER_PREFIX "{\"op\":\"shard\",\"number\":"
#define PTIER_L2_HEADER_MAX    192 /* line break included */

typedef struct ptier_l2_header {
    uint32_t number;  /* of the shard that the line is in */
    uint32_t first;   /* of the oldest shard that is needed */
    uint64_t after;   /* length of shard number - 1 when this one followed it; 0: there was none */
    uint64_t highest; /* no line before has a higher revision; UINT64_MAX: not known */
} ptier_l2_header;

PTIER_MUST_CHECK ptier_status ptier_l2_header_write(char text[PTIER_L2_HEADER_MAX], size_t *length,
                                                    const ptier_l2_header *header,
                                                    ptier_keyring *keyring);

/* Whether a line looks like one. */
bool ptier_l2_is_header(const char *text, size_t length);
PTIER_MUST_CHECK ptier_status ptier_l2_header_parse(const char *text, size_t length,
                                                    ptier_keyring *keyring,
                                                    ptier_l2_header *header);

/* The key in a line whose check fails, if there is text in its place: it may be damaged as well. */
bool ptier_l2_legible_key(const char *text, size_t length, char key[PTIER_KEY_MAX + 1]);

#endif
