/* See warm_sender.h. */
#include "warm_sender.h"

#include <string.h>

static ptier_warm_batch *
shift_locked(ptier_warm_batch *slots[2])
{
    ptier_warm_batch *first = slots[0];
    slots[0] = slots[1];
    slots[1] = NULL;
    return first;
}

static void
append_locked(ptier_warm_batch *slots[2], ptier_warm_batch *batch)
{
    slots[slots[0] ? 1 : 0] = batch;
}

/* Returns false when nothing more shall be sent. */
static bool
send_batch(ptier_warm_sender *sender, const ptier_warm_batch *batch)
{
    ptier_put_call call = {.durability = sender->options.durability,
                           .mode = PTIER_PUT_MODE_WARM,
                           .restore = batch->restore};
    ptier_put_results results = {0};
    ptier_error error = {0};
    bool go_on = false;

    ptier_status status = ptier_put_many(sender->options.client, batch->records, batch->count,
                                         &call, &results, &error);
    if (status == PTIER_OK)
        go_on = sender->options.on_sent(sender->options.context, batch, &results);
    ptier_put_results_free(&results);
    (void)pthread_mutex_lock(&sender->lock); /* cannot fail: a plain, initialised mutex */
    if (status != PTIER_OK) {
        sender->status = status;
        sender->error = error;
    }
    (void)pthread_mutex_unlock(&sender->lock);
    return go_on;
}

static void *
run(void *context)
{
    ptier_warm_sender *sender = context;

    (void)pthread_mutex_lock(&sender->lock);
    for (;;) {
        while (!sender->queued[0] && !sender->finishing)
            (void)pthread_cond_wait(&sender->changed, &sender->lock);
        ptier_warm_batch *batch = shift_locked(sender->queued);
        if (!batch)
            break;
        bool send = !sender->stopped;
        (void)pthread_mutex_unlock(&sender->lock);
        bool go_on = send && send_batch(sender, batch);
        ptier_warm_batch_clear(batch);
        (void)pthread_mutex_lock(&sender->lock);
        sender->stopped |= !go_on;
        append_locked(sender->idle, batch);
        (void)pthread_cond_broadcast(&sender->changed);
    }
    (void)pthread_mutex_unlock(&sender->lock);
    return NULL;
}

bool
ptier_warm_sender_start(ptier_warm_sender *sender, const ptier_warm_sender_options *options)
{
    sender->options = *options;
    sender->finishing = sender->stopped = false;
    sender->status = PTIER_OK;
    memset(&sender->error, 0, sizeof sender->error);
    for (int i = 0; i < 2; i++) {
        ptier_warm_batch_init(&sender->batches[i]);
        sender->idle[i] = &sender->batches[i];
        sender->queued[i] = NULL;
    }
    (void)pthread_mutex_init(&sender->lock, NULL); /* cannot fail on Linux without attributes */
    (void)pthread_cond_init(&sender->changed, NULL);
    if (pthread_create(&sender->thread, NULL, run, sender) == 0)
        return true;
    (void)pthread_cond_destroy(&sender->changed);
    (void)pthread_mutex_destroy(&sender->lock);
    return false;
}

ptier_warm_batch *
ptier_warm_sender_take(ptier_warm_sender *sender)
{
    ptier_warm_batch *batch = NULL;

    (void)pthread_mutex_lock(&sender->lock);
    while (!sender->idle[0] && !sender->stopped)
        (void)pthread_cond_wait(&sender->changed, &sender->lock);
    if (!sender->stopped)
        batch = shift_locked(sender->idle);
    (void)pthread_mutex_unlock(&sender->lock);
    return batch;
}

void
ptier_warm_sender_submit(ptier_warm_sender *sender, ptier_warm_batch *batch)
{
    (void)pthread_mutex_lock(&sender->lock);
    append_locked(sender->queued, batch);
    (void)pthread_cond_broadcast(&sender->changed);
    (void)pthread_mutex_unlock(&sender->lock);
}

ptier_status
ptier_warm_sender_finish(ptier_warm_sender *sender, ptier_error *error)
{
    (void)pthread_mutex_lock(&sender->lock);
    sender->finishing = true;
    (void)pthread_cond_broadcast(&sender->changed);
    (void)pthread_mutex_unlock(&sender->lock);
    (void)pthread_join(sender->thread, NULL); /* joinable, and joined once */
    for (int i = 0; i < 2; i++)
        ptier_warm_batch_fini(&sender->batches[i]);
    (void)pthread_cond_destroy(&sender->changed);
    (void)pthread_mutex_destroy(&sender->lock);
    if (sender->status != PTIER_OK && error)
        *error = sender->error;
    return sender->status;
}
