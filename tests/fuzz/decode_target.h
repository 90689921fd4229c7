/*
 * Everything that decodes bytes of the other end, in this process: of the daemon frame, header,
 * check, unpacking, validation and handlers (over a small cache in memory); of the SDK the replies
 * and event batches. Not thread-safe.
 */
#ifndef PTIER_DECODE_TARGET_H
#define PTIER_DECODE_TARGET_H

#include <stddef.h>
#include <stdint.h>

/*
 * One input: the first byte says which decoder, the rest is what it gets. Aborts when a promise is
 * broken: a reply of ours that our own reader refuses, memory beyond the budget.
 */
void decode_one(const uint8_t *data, size_t size);

/* How many decoders there are. */
unsigned decode_kinds(void);

/* A valid input for decoder `kind`, to be changed. Returns its length; `room` ≥ 4096. */
size_t decode_seed(unsigned kind, uint8_t *out, size_t room);

/* What happened so far, to see that inputs get anywhere. */
typedef struct decode_counts {
    uint64_t runs;
    uint64_t accepted;  /* requests answered with OK */
    uint64_t unpacked;  /* replies and batches */
    uint64_t converted; /* records in them */
} decode_counts;
decode_counts decode_counted(void);

void decode_fini(void);

#endif
