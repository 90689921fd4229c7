/* Exchanges that call back: see transport.h. */
#include <string.h>

#include "monotonic.h"
#include "transport_internal.h"

void
ptier_transport_watch(ptier_transport *t, void (*wake)(void *watch), void *watch)
{
    pthread_mutex_lock(&t->lock);
    t->wake = wake;
    t->watch = watch;
    pthread_mutex_unlock(&t->lock);
}

static void
take_room_locked(ptier_transport *t, ptier_exchange *x)
{
    x->slot = t->called_count < PTIER_CALLED_MAX ? ptier_slot_take_locked(t) : NULL;
    if (!x->slot)
        return;
    t->called_count++;
    x->slot->exchange = x;
}

ptier_status
ptier_exchange_reserve(ptier_transport *t, ptier_exchange *x, int64_t deadline,
                       ptier_reserved *reserved, int64_t *until, ptier_error *error)
{
    bool connected;
    pthread_mutex_lock(&t->lock);
    if (!x->waiting) {
        x->waiting = true;
        x->transport = t;
        x->deadline = deadline;
        x->start = ptier_monotonic_ms();
        x->failures = t->failures;
    }
    ptier_status status = ptier_transport_connected_locked(t, x->start, x->failures, deadline,
                                                           &connected, until, error);
    *reserved = PTIER_RESERVE_NO_CONNECTION;
    if (status == PTIER_OK && connected) {
        *until = deadline;
        if (t->closing)
            status = ptier_fail(error, PTIER_CANCELLED, "the client was closed");
        else if (ptier_monotonic_ms() >= deadline)
            status = ptier_fail(error, PTIER_DEADLINE_EXCEEDED,
                                "it was not its turn in time: %zu calls that do not wait are "
                                "with the daemon, and more are before it",
                                t->called_count);
        else
            take_room_locked(t, x);
        if (!x->slot) {
            t->room_wanted = true;
            t->room_owed = ptier_monotonic_ms() + PTIER_ROOM_OWED_MS;
        }
        *reserved = x->slot ? PTIER_RESERVED : PTIER_RESERVE_NO_ROOM;
    }
    pthread_mutex_unlock(&t->lock);
    if (status == PTIER_OK && x->slot)
        status = ptier_slot_make_ready(t, x->slot, error);
    if (status != PTIER_OK && x->slot)
        ptier_exchange_release(x);
    return status;
}

void
ptier_exchange_release(ptier_exchange *x)
{
    ptier_transport *t = x->transport;
    pthread_mutex_lock(&t->lock);
    t->called_count--;
    pthread_mutex_unlock(&t->lock);
    ptier_slot_release(t, x->slot);
    x->slot = NULL;
}

void
ptier_exchange_hand_over(ptier_exchange *from, ptier_exchange *to)
{
    to->transport = from->transport;
    to->slot = from->slot;
    to->start = from->start;
    to->deadline = from->deadline;
    to->slot->exchange = to;
    from->slot = NULL;
    from->waiting = false;
}

void
ptier_exchange_start(ptier_exchange *x, nng_msg *request)
{
    x->transport->carrier->start(x, request);
}

void
ptier_exchange_cancel(ptier_exchange *x)
{
    atomic_store(&x->cancelled, true);
    x->transport->carrier->cancel(x);
}

bool
ptier_transport_can_doze(const ptier_transport *t)
{
    return t->carrier->doze;
}

void
ptier_transport_doze(ptier_transport *t, int64_t until)
{
    t->carrier->doze(t, until);
}

void
ptier_transport_rouse(ptier_transport *t)
{
    t->carrier->rouse(t);
}

ptier_status
ptier_exchange_finish(ptier_exchange *x, nng_msg **reply, ptier_fate *fate, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    *reply = x->reply;
    x->reply = NULL;
    if (x->rv != 0)
        status = ptier_exchange_explain(x->transport, x->rv, x->sent, fate, error);
    ptier_exchange_release(x);
    return status;
}
