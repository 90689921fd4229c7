/* Messages that are small on the wire and large, or deep, when they are unpacked. Not thread-safe.
 */
#ifndef PTIER_TEST_BOMBS_H
#define PTIER_TEST_BOMBS_H

#include <stddef.h>
#include <stdint.h>

typedef struct bomb {
    const char *name;
    const char *method;
    const char *message; /* part of what the refusal says */
    size_t (*fill)(uint8_t *out, size_t room);
} bomb;

extern const bomb bombs[];
extern const size_t bomb_count;

#endif
