/*
 * Sends batches on a thread of its own while the caller fills the next: two batches go back and
 * forth. Threads: `take`, `submit`, `finish` on the caller's thread; the callback runs on the
 * sender's thread, and never after finish has returned.
 */
#ifndef PTIER_CLI_WARM_SENDER_H
#define PTIER_CLI_WARM_SENDER_H

#include <pthread.h>

#include <proxytier/client.h>

#include "warm_batch.h"

typedef struct ptier_warm_sender_options {
    ptier_client *client; /* borrowed */
    ptier_durability durability;
    /* One acknowledged batch, with one result a record. False stops: later batches are not sent. */
    bool (*on_sent)(void *context, const ptier_warm_batch *batch, const ptier_put_results *results);
    void *context;
} ptier_warm_sender_options;

typedef struct ptier_warm_sender {
    ptier_warm_sender_options options;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    ptier_warm_batch *idle[2];   /* free to fill */
    ptier_warm_batch *queued[2]; /* to be sent, in order */
    bool finishing;
    bool stopped; /* by an error, or by on_sent */
    ptier_status status;
    ptier_error error;
    ptier_warm_batch batches[2];
} ptier_warm_sender;

/* Starts the thread. False: the system gives none. On failure nothing is left behind. */
bool ptier_warm_sender_start(ptier_warm_sender *sender, const ptier_warm_sender_options *options);

/* An empty batch to fill; waits for one. NULL: sending has stopped, call finish. */
ptier_warm_batch *ptier_warm_sender_take(ptier_warm_sender *sender);

/* Hands a batch over to be sent. */
void ptier_warm_sender_submit(ptier_warm_sender *sender, ptier_warm_batch *batch);

/* Waits until everything submitted was sent, ends the thread, wipes. OK, or what the daemon said to
 * the batch that failed. */
PTIER_MUST_CHECK ptier_status ptier_warm_sender_finish(ptier_warm_sender *sender,
                                                       ptier_error *error);

#endif
