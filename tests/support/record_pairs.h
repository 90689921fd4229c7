/* Random records, damage to bytes, and the comparison of what two ways of decoding made of the same
 * bytes. */
#ifndef PTIER_TEST_RECORD_PAIRS_H
#define PTIER_TEST_RECORD_PAIRS_H

#include "record_decode.h"

/* What a random record is made of: its strings and labels live here. */
typedef struct ptier_test_record {
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    char text[16384];
    size_t used;
} ptier_test_record;

/* Random numbers below `limit`, the same ones after each start from a seed. One thread. */
void ptier_test_draw_from(uint64_t seed);
uint32_t ptier_test_draw(uint32_t limit);

/* Any record that a daemon may send. */
void ptier_test_record_draw(ptier_test_record *made);

/* Changes `length` bytes, at least one, in some place of their `room`. Returns how many are left.
 */
size_t ptier_test_change(uint8_t *data, size_t length, size_t room);

bool ptier_test_records_equal(const ptier_record *a, const ptier_record *b);

/* Whether both say the same of every record and all else. */
bool ptier_test_lists_equal(const ptier_record_list *a, const ptier_record_list *b);

/*
 * Decodes the bytes both ways. False: the quick way took what the long way refuses, or made
 * something else of it. *taken (may be NULL): the quick way took it.
 */
bool ptier_test_ways_agree(const ProtobufCMessageDescriptor *type, const uint8_t *data,
                           size_t length, bool *taken);

#endif
