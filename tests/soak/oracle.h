/*
 * What the daemon must have of a key: the state that was acknowledged last, and those that a change
 * on its way when the daemon died may have led to. One writer a key, so the order is known.
 */
#ifndef PTIER_SOAK_ORACLE_H
#define PTIER_SOAK_ORACLE_H

#include <proxytier/types.h>

enum {
    PTIER_SOAK_WRITERS = 8,
    PTIER_SOAK_KEYS = 150, /* of each writer */
    PTIER_SOAK_THRESHOLD = 3,
    PTIER_SOAK_STATES = 1 + PTIER_SOAK_THRESHOLD,
};

typedef struct ptier_soak_state {
    uint32_t version; /* of what was put; 0: the key is not there */
    uint32_t failures;
} ptier_soak_state;

typedef struct ptier_soak_key {
    ptier_soak_state possible[PTIER_SOAK_STATES]; /* [0]: acknowledged */
    unsigned count;
    bool fleeting; /* the last put had a time to live of 1 ms: it may still be seen for a moment */
} ptier_soak_key;

typedef enum ptier_soak_verdict {
    PTIER_SOAK_RIGHT,
    PTIER_SOAK_LOST,        /* an acknowledged put, report or removal is not there */
    PTIER_SOAK_RESURRECTED, /* what was removed is there again */
    PTIER_SOAK_WRONG,       /* what was never put */
} ptier_soak_verdict;

static inline const ptier_soak_state *
ptier_soak_acknowledged(const ptier_soak_key *key)
{
    return &key->possible[0];
}

/* A change is about to be asked for: from now on this may be its state. */
void ptier_soak_announce(ptier_soak_key *key, ptier_soak_state state);

/* It was acknowledged, or seen after a restart: this is its state. */
void ptier_soak_settle(ptier_soak_key *key, ptier_soak_state state);

/* What a read after a restart says of what was acknowledged before. */
ptier_soak_verdict ptier_soak_judge(const ptier_soak_key *key, ptier_soak_state seen);

/* The state after one report of a failure, and after one of success. */
ptier_soak_state ptier_soak_failed(ptier_soak_state state);
ptier_soak_state ptier_soak_succeeded(ptier_soak_state state);

/* ---- records that say which key and version they are ---- */

typedef struct ptier_soak_text {
    char key[24], url[40], password[40];
} ptier_soak_text;

/* Strings of the record are in *text. */
void ptier_soak_record(ptier_record *record, ptier_soak_text *text, int writer, int key,
                       uint32_t version);
void ptier_soak_key_text(char text[24], int writer, int key);

/* False: it is not a record that was put under this key. */
bool ptier_soak_read(const ptier_record *record, int writer, int key, ptier_soak_state *state);

#endif
