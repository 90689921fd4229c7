/* For put.c and put_record.c: one record on its way into the cache. */
#ifndef PTIER_PUT_ITEM_H
#define PTIER_PUT_ITEM_H

#include <proxytier/import.h>

#include "cache/cache_internal.h"

typedef struct ptier_put_time {
    int64_t wall, boot;
} ptier_put_time;

typedef struct ptier_put_item {
    const ptier_record *record;
    ptier_url url;
    char key[PTIER_KEY_MAX + 1];
    ptier_label labels[PTIER_LABELS_MAX];
    uint64_t hash;
    bool derived;
    uint64_t
        seen; /* revision when its key was looked up: a newer slot under its hash may be its key */
    bool absent; /* as of `seen` nothing is cached under its hash */
    bool done;
    ptier_entry *old;     /* owned: the state that this put was merged with; NULL: none */
    ptier_entry *hidden;  /* owned: stands for a state that a failing disk hides; NULL: none */
    ptier_entry *entry;   /* owned */
    ptier_sealed *sealed; /* owned */
    ptier_put_result result;
} ptier_put_item;

/* Checks a record and derives its key. What is wrong with it is in the result: then it is done. */
void ptier_put_item_take(ptier_cache *cache, ptier_put_item *item, const ptier_record *record);

/* Reads the current state of the key, merges as of `now`, encrypts; may be called again when that
 * state has changed. Done if it fails. */
void ptier_put_item_prepare(ptier_cache *cache, ptier_put_item *item,
                            const ptier_put_options *options, const ptier_put_time *now);

void ptier_put_item_finish(ptier_put_item *item, ptier_put_outcome outcome, const char *message);

/* Gives back what it owns and wipes its credentials. */
void ptier_put_item_drop(ptier_put_item *item);

#endif
