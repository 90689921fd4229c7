/*
 * One of the writers that load the daemon until it is killed: its own connection, its own keys.
 * Each runs in a thread of its own; nothing here may fail a cmocka test, it says what is wrong
 * instead.
 */
#ifndef PTIER_SOAK_WRITER_H
#define PTIER_SOAK_WRITER_H

#include <pthread.h>
#include <stdatomic.h>

#include <proxytier/client.h>

#include "soak/oracle.h"

typedef struct ptier_soak_counts {
    uint64_t puts, deletes, removals, reports; /* acknowledged; removals: by health */
} ptier_soak_counts;

typedef struct ptier_soak_writer {
    int number;
    uint64_t seed;
    bool clears_l1; /* now and then; it is an upper tier */
    ptier_soak_key keys[PTIER_SOAK_KEYS];
    uint32_t version;
    uint64_t highest; /* acknowledged revision */
    ptier_soak_counts counts;

    /* Of this round. */
    ptier_client *client;
    const _Atomic bool *killed; /* set just before the daemon is */
    uint64_t *revisions;        /* acknowledged */
    size_t revision_count, revision_room;
    pthread_t thread;
    char wrong[200]; /* "": nothing */
} ptier_soak_writer;

void ptier_soak_writer_init(ptier_soak_writer *writer, int number, uint64_t seed);
void ptier_soak_writer_fini(ptier_soak_writer *writer);

/* Connects and goes on until a call fails, which it may after *killed only. False: no connection or
 * thread. */
bool ptier_soak_writer_start(ptier_soak_writer *writer, const char *url,
                             const _Atomic bool *killed);

/* Waits for the end, which comes within the time of a call after the daemon's. */
void ptier_soak_writer_join(ptier_soak_writer *writer);

#endif
