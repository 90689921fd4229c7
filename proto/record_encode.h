/*
 * A plain record straight to its wire form, proxytier.v1.Proxy: the bytes that packing what
 * ptier_proxy_from_record makes of it would give, at a tenth of the price. Thread-safe (no state).
 */
#ifndef PTIER_RECORD_ENCODE_H
#define PTIER_RECORD_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/types.h>

/*
 * Writes the record as `field` (1 to 15) of a message. `credentials` false leaves them out.
 * Returns how many bytes it wrote; 0: `room` is too small.
 */
size_t ptier_record_encode(const ptier_record *record, bool credentials, unsigned field,
                           uint8_t *out, size_t room);

/* A result of PutMany, proxytier.v1.PutResult, whose key and message fit in a ptier_put_result. */
typedef struct ptier_put_words {
    const char *key, *message;
    uint64_t revision;
    unsigned outcome;
} ptier_put_words;
#define PTIER_PUT_RESULT_ROOM 512 /* enough for any */

/* Writes it as `field` (1 to 15) of a message; returns how many bytes it wrote. */
size_t ptier_put_result_encode(const ptier_put_words *result, unsigned field,
                               uint8_t out[PTIER_PUT_RESULT_ROOM]);

#endif
