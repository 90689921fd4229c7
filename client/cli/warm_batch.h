/*
 * Records copied out of an importer's callback, until they are sent. Not thread-safe: one owner at
 * a time. The copies hold credentials: they are wiped on clear and fini.
 */
#ifndef PTIER_CLI_WARM_BATCH_H
#define PTIER_CLI_WARM_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/import.h>
#include <proxytier/types.h>

#define PTIER_WARM_BATCH 1000
#define PTIER_WARM_BATCH_BYTES                                                                     \
    ((size_t)1 << 20) /* a request stays far below the daemon's message limit */

/* Where in its input a record is. */
typedef struct ptier_warm_place {
    uint64_t line;   /* of a database: rowid */
    uint64_t record; /* 1-based, of all that were found; 0: the line says enough */
} ptier_warm_place;

typedef struct ptier_warm_batch {
    ptier_record records[PTIER_WARM_BATCH];
    ptier_warm_place places[PTIER_WARM_BATCH];
    size_t count;
    const char *file; /* borrowed: the input they came from */
    bool restore;     /* all of them, or none */
    struct ptier_warm_chunk *chunks;
    size_t bytes;
} ptier_warm_batch;

void ptier_warm_batch_init(ptier_warm_batch *batch);
void ptier_warm_batch_fini(ptier_warm_batch *batch);

/* Wipes and empties; keeps the memory for the next round. */
void ptier_warm_batch_clear(ptier_warm_batch *batch);

/* Whether `record` may join those already there. */
bool ptier_warm_batch_takes(const ptier_warm_batch *batch, const char *file, bool restore);

/* Copies one record. The batch must take it. False: out of memory. */
bool ptier_warm_batch_add(ptier_warm_batch *batch, const char *file, const ptier_record *record,
                          bool restore, ptier_warm_place place);

#endif
