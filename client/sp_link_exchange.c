/* Exchanges over sp_link.h. */
#include <poll.h>
#include <stdint.h>

#include "monotonic.h"
#include "sp_link.h"

#define BLOCKED_SLICE_MS 20 /* who cannot send looks again so often */

static int
make_ready(ptier_transport *t, ptier_slot *s)
{
    (void)t;
    (void)s;
    return 0;
}

void
ptier_link_end_locked(ptier_transport *t, ptier_slot *s, int rv, nng_msg *reply)
{
    ptier_link_slot *ls = ptier_link_slot_of(t, s);
    ptier_link_unqueue_locked(t, s);
    ls->id = 0;
    ls->ended = true;
    ls->rv = rv;
    ls->reply = reply;
    if (ls->waited) {
        pthread_cond_signal(&ls->told);
        return;
    }
    ptier_exchange *x = s->exchange;
    t->link->flying--;
    x->rv = rv;
    x->reply = reply;
    x->sent = ls->sent;
    x->done(x);
}

static void
begin_locked(ptier_transport *t, ptier_slot *s, nng_msg *request, int64_t deadline, bool waited)
{
    ptier_link_slot *ls = ptier_link_slot_of(t, s);
    ls->uses++;
    ls->id = PTIER_LINK_ID_BIT | (uint32_t)(ls->uses * PTIER_SLOTS_MAX + s->index);
    ls->waited = waited;
    ls->sent = ls->turned_away = ls->ended = false;
    ls->reply = NULL;
    ls->deadline = deadline;
    if (!waited)
        t->link->flying++;
    if (t->closing) {
        ptier_message_discard(request);
        ptier_link_end_locked(t, s, NNG_ECANCELED, NULL);
        return;
    }
    if (!t->connected && !t->wanted) {
        t->wanted = true;
        pthread_cond_broadcast(&t->changed);
    }
    ptier_link_queue_locked(t, s, request);
}

static void
time_out_locked(ptier_transport *t, ptier_slot *s)
{
    ptier_link_end_locked(t, s, NNG_ETIMEDOUT, NULL);
    if (t->connected && ptier_transport_is_mute_locked(t))
        ptier_link_lost_locked(t, false);
}

/* Its request is not sent, or not all of it: whoever began may give up. */
static bool
is_to_send(const ptier_transport *t, const ptier_slot *s)
{
    const struct ptier_link *l = t->link;
    return !ptier_link_slot_of(t, s)->sent || (l->out_count > 0 && l->out[0].slot == s);
}

/* While another one reads. */
static void
wait_writable_locked(ptier_transport *t)
{
    struct ptier_link *l = t->link;
    struct pollfd fd = {.fd = l->fd, .events = POLLOUT};
    l->users++;
    pthread_mutex_unlock(&t->lock);
    int ready = poll(&fd, 1, BLOCKED_SLICE_MS);
    pthread_mutex_lock(&t->lock);
    l->users--;
    if (!t->connected)
        pthread_cond_broadcast(&t->changed); /* that we have left the socket */
    else if (ready > 0)
        ptier_link_unblock_locked(t);
}

static int
exchange(ptier_transport *t, ptier_slot *s, nng_msg *request, int64_t deadline, nng_msg **reply,
         bool *sent)
{
    struct ptier_link *l = t->link;
    ptier_link_slot *ls = ptier_link_slot_of(t, s);
    pthread_mutex_lock(&t->lock);
    begin_locked(t, s, request, deadline, true);
    while (!ls->ended) {
        ptier_link_flush_locked(t);
        if (ls->ended)
            break;
        int64_t now = ptier_monotonic_ms();
        if (now >= deadline)
            time_out_locked(t, s);
        else if (t->connected && !l->reading)
            ptier_link_read_locked(t, deadline, -1);
        else if (t->connected && l->blocked && !l->writing && is_to_send(t, s))
            wait_writable_locked(t);
        else if (is_to_send(t, s) && deadline - now > BLOCKED_SLICE_MS)
            ptier_monotonic_wait(&ls->told, &t->lock, now + BLOCKED_SLICE_MS);
        else
            ptier_monotonic_wait(&ls->told, &t->lock, deadline);
    }
    *reply = ls->reply;
    *sent = ls->sent;
    int rv = ls->rv;
    ls->waited = false;
    ptier_link_pass_on_locked(t);
    pthread_mutex_unlock(&t->lock);
    return rv;
}

/* ---- those that call back ---- */

static void
start(ptier_exchange *x, nng_msg *request)
{
    ptier_transport *t = x->transport;
    struct ptier_link *l = t->link;
    pthread_mutex_lock(&t->lock);
    if (l->flying == 0 || x->deadline < l->flying_until)
        l->flying_until = x->deadline;
    begin_locked(t, x->slot, request, x->deadline, false);
    pthread_mutex_unlock(&t->lock);
}

static void
cancel(ptier_exchange *x)
{
    ptier_transport *t = x->transport;
    pthread_mutex_lock(&t->lock);
    if (ptier_link_slot_of(t, x->slot)->id != 0)
        ptier_link_end_locked(t, x->slot, NNG_ECANCELED, NULL);
    pthread_mutex_unlock(&t->lock);
}

static void
cancel_all_locked(ptier_transport *t, bool unsent_only)
{
    for (size_t i = 0; i < t->slot_count; i++) {
        const ptier_link_slot *ls = &t->link->slots[i];
        if (ls->id != 0 && !(unsent_only && ls->sent))
            ptier_link_end_locked(t, &t->slots[i], NNG_ECANCELED, NULL);
    }
    if (!unsent_only && t->connected)
        ptier_link_lost_locked(t, false); /* the reader comes back */
}

/* Returns whether some ended. */
static bool
time_out_flying_locked(ptier_transport *t)
{
    struct ptier_link *l = t->link;
    int64_t now = ptier_monotonic_ms();
    bool some = false;
    if (l->flying == 0 || now < l->flying_until)
        return false;
    l->flying_until = INT64_MAX;
    for (size_t i = 0; i < t->slot_count; i++) {
        const ptier_link_slot *ls = &l->slots[i];
        if (ls->id == 0 || ls->waited)
            continue;
        if (ls->deadline <= now) {
            time_out_locked(t, &t->slots[i]);
            some = true;
        } else if (ls->deadline < l->flying_until) {
            l->flying_until = ls->deadline;
        }
    }
    return some;
}

/* Not the reader: waits to be roused, and to send. */
static void
sleep_locked(ptier_transport *t, int64_t until)
{
    struct ptier_link *l = t->link;
    bool blocked = l->blocked && t->connected;
    struct pollfd fds[2] = {{.fd = l->rouse, .events = POLLIN},
                            {.fd = blocked ? l->fd : -1, .events = POLLOUT}};
    int64_t left = until - ptier_monotonic_ms();
    l->dozing = true;
    l->users += blocked;
    pthread_mutex_unlock(&t->lock);
    int ready = poll(fds, 2, left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left);
    if (ready > 0 && fds[0].revents)
        ptier_link_hush(l->rouse);
    pthread_mutex_lock(&t->lock);
    l->users -= blocked;
    l->dozing = false;
    if (blocked && !t->connected)
        pthread_cond_broadcast(&t->changed); /* that we have left the socket */
    else if (blocked && ready > 0 && fds[1].revents)
        ptier_link_unblock_locked(t);
}

static void
doze(ptier_transport *t, int64_t until)
{
    struct ptier_link *l = t->link;
    pthread_mutex_lock(&t->lock);
    bool was_connected = t->connected;
    ptier_link_flush_locked(t);
    /* Who ends exchanges here is not roused for it. */
    bool lost = was_connected && !t->connected;
    if (!time_out_flying_locked(t) && !lost) {
        if (l->flying > 0 && l->flying_until < until)
            until = l->flying_until;
        if (l->flying > 0 && t->connected && !l->reading)
            ptier_link_read_locked(t, until, l->rouse);
        else
            sleep_locked(t, until);
    }
    ptier_link_pass_on_locked(t);
    pthread_mutex_unlock(&t->lock);
}

static void
rouse(ptier_transport *t)
{
    ptier_link_ring(t->link->rouse);
}

const ptier_carrier ptier_link_carrier = {
    .open = ptier_link_open,
    .close = ptier_link_close,
    .dial = ptier_link_dial,
    .attend = ptier_link_attend,
    .hang_up = ptier_link_hang_up,
    .abandon_locked = ptier_link_abandon_locked,
    .make_ready = make_ready,
    .exchange = exchange,
    .start = start,
    .cancel = cancel,
    .cancel_all_locked = cancel_all_locked,
    .doze = doze,
    .rouse = rouse,
};
