/*
 * A load of puts, deletes, health removals, clears and reads on a cache box, which notes what its
 * callers were told. So it knows what may be found in the cache later. Each thread has keys of its
 * own; a version of a key is in its URL and in its password. Failures fail the running cmocka test,
 * in threads of the load once they are joined.
 */
#ifndef PTIER_TEST_LOAD_H
#define PTIER_TEST_LOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "support/cache_box.h"

enum { LOAD_KEYS = 120, LOAD_THREADS = 2, LOAD_BATCH = 8, LOAD_TEXT = 300 };

/* Of one key, by one change. */
typedef struct ptier_load_state {
    int version;                 /* 0: not there */
    ptier_durability durability; /* as the reply named it; DEFAULT (0): there was none */
    size_t began, ended;         /* ptier_io_position around the call */
    uint64_t revision;           /* of a put; 0: not known */
} ptier_load_state;

typedef struct ptier_load_key {
    ptier_load_state *states; /* the first is what there was before the load */
    size_t count, room;
} ptier_load_key;

typedef struct ptier_load {
    ptier_test_box *box;
    ptier_load_key keys[LOAD_KEYS];
    atomic_int version; /* the latest given */
    bool clears;        /* wanted */
    bool refused;       /* calls may be refused, with a reason */
    bool blind;         /* reads may fail, but not lie */
    bool weak;          /* replies may name less durability than was asked for */

    pthread_rwlock_t clearing;   /* for writing while the cache is cleared: keys have one order of
                                    changes */
    struct ptier_load_revision { /* the highest that had been seen, over time */
        size_t ended;
        uint64_t revision;
    } * revisions;
    size_t revision_count, revision_room;
    pthread_mutex_t lock;      /* of revisions and of complaint */
    char complaint[LOAD_TEXT]; /* the first; "": none */
} ptier_load;

/* Nothing is there yet. The box must outlive it; it is opened, closed and reopened by the test. */
void ptier_load_init(ptier_load *load, ptier_test_box *box);
void ptier_load_fini(ptier_load *load);

/* Threads at once, so many calls each. */
void ptier_load_run(ptier_load *load, int threads, int calls, uint64_t seed);

/* The test itself has removed a key, and the reply named this durability. */
void ptier_load_note_removal(ptier_load *load, int key, ptier_durability durability);

/* The version of a key in a cache; 0: not there; -2: a value that was never its own; -1: it could
 * not be read (*status says why). Fails when it is a value that was never this key's. */
int ptier_load_read(ptier_cache *cache, int key, ptier_status *status);

/* The present state of a key. */
const ptier_load_state *ptier_load_now(const ptier_load *load, int key);

/* Whether what was told before the position `cut` allows for this version after a crash there, when
 * replies of at least `durability` are to be held. *floor: the oldest state that it may be in. */
bool ptier_load_allows(const ptier_load *load, int key, int version, ptier_durability durability,
                       size_t cut, const ptier_load_state **floor);

/* Reads all keys and says what is wrong with the first that is in no state that is allowed. False:
 * none is. */
bool ptier_load_wrong(const ptier_load *load, ptier_cache *cache, ptier_durability durability,
                      size_t cut, char text[LOAD_TEXT]);

/* The same, and fails. `when` tells the reader. */
void ptier_load_check(const ptier_load *load, ptier_cache *cache, ptier_durability durability,
                      size_t cut, const char *when);

/* A cut after everything. */
#define LOAD_NOW (SIZE_MAX - 1)

/* The highest revision that had been seen at a position. */
uint64_t ptier_load_revision_at(const ptier_load *load, size_t cut);

/* Whether anything was there, or had been acknowledged so, before the position. */
bool ptier_load_any(const ptier_load *load, ptier_durability durability, size_t cut);

/* What is in the cache now is the beginning of a new history, and durable. `cut`: up to which
 * position the one before really happened. */
void ptier_load_rebase(ptier_load *load, ptier_cache *cache, size_t cut);

/* One line that says something. */
bool ptier_load_is_reason(const ptier_error *error);

#endif
