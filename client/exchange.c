/*
 * Exchanges, which any number of threads make at once, each with a slot of its own from a pool:
 * those that wait, and what both kinds need. Those that call back are in exchange_async.c. See
 * transport.c for locks.
 */
#include <string.h>

#include "monotonic.h"
#include "transport_internal.h"

#define PATIENCE_MS     150  /* a caller waits this long for a daemon that went down a moment ago */
#define FRESHLY_DOWN_MS 1000 /* "a moment ago" */
#define DIAL_BOUND_MS   3000 /* an attempt that takes longer is given up */
#define MUTE_BOUND_MS   2000 /* nothing answered for so long: the connection is given up */

static bool
should_give_up_locked(const ptier_transport *t, int64_t start, uint64_t failures, int64_t now)
{
    if (t->failures == failures)
        return false; /* no attempt has ended since the call began */
    int64_t patience = start - t->down_since < FRESHLY_DOWN_MS ? PATIENCE_MS : 0;
    return now - start >= patience;
}

/* Abandons an attempt that hangs, so that the supervisor can make another. Drops the lock
 * meanwhile. */
static void
abandon_dial_locked(ptier_transport *t)
{
    t->dial_started = 0;
    t->abandoned = true;
    t->carrier->abandon_locked(t);
}

void
ptier_transport_tell_locked(ptier_transport *t)
{
    pthread_cond_broadcast(&t->changed);
    if (t->wake)
        t->wake(t->watch);
}

ptier_status
ptier_transport_connected_locked(ptier_transport *t, int64_t start, uint64_t failures,
                                 int64_t deadline, bool *connected, int64_t *until,
                                 ptier_error *error)
{
    for (;;) {
        int64_t now = ptier_monotonic_ms();
        *connected = t->connected;
        *until = 0;
        if (t->connected)
            return PTIER_OK;
        if (t->closing)
            return ptier_fail(error, PTIER_CANCELLED, "the client was closed");
        if (ptier_transport_is_cut_off(t) && ptier_transport_is_foreign(t))
            return ptier_transport_fail_not_allowed(t, error);
        if (now >= deadline || should_give_up_locked(t, start, failures, now))
            return ptier_transport_fail_unreachable(t, t->failures != failures ? t->last_error : 0,
                                                    error);
        if (t->dial_started != 0 && now - t->dial_started >= DIAL_BOUND_MS) {
            abandon_dial_locked(t);
            continue;
        }
        int64_t end = t->failures == failures ? deadline : start + PATIENCE_MS;
        if (t->dial_started != 0 && t->dial_started + DIAL_BOUND_MS < end)
            end = t->dial_started + DIAL_BOUND_MS;
        if (!t->wanted && t->dial_started == 0) {
            t->wanted = true;
            pthread_cond_broadcast(&t->changed); /* the supervisor's only */
        }
        *until = end < deadline ? end : deadline;
        return PTIER_OK;
    }
}

static ptier_status
wait_connected_locked(ptier_transport *t, int64_t deadline, ptier_error *error)
{
    int64_t start = ptier_monotonic_ms();
    uint64_t failures = t->failures;
    for (;;) {
        bool connected;
        int64_t until;
        ptier_status status = ptier_transport_connected_locked(t, start, failures, deadline,
                                                               &connected, &until, error);
        if (status != PTIER_OK || connected)
            return status;
        ptier_monotonic_wait(&t->changed, &t->lock, until);
    }
}

ptier_slot *
ptier_slot_take_locked(ptier_transport *t)
{
    ptier_slot *s = t->idle;
    if (s) {
        t->idle = s->next_idle;
    } else if (t->slot_count < PTIER_SLOTS_MAX) {
        s = &t->slots[t->slot_count];
        s->index = t->slot_count++;
    } else {
        return NULL;
    }
    s->busy = true;
    s->exchange = NULL;
    return s;
}

/* Threads that call again at once would take every slot before those that call back are awake:
 * hence what is owed to these. */
static ptier_status
find_slot_locked(ptier_transport *t, int64_t deadline, ptier_slot **result, ptier_error *error)
{
    while (!t->closing) {
        int64_t now = ptier_monotonic_ms();
        bool owed = now < t->room_owed && t->waited_count >= PTIER_WAITED_MAX;
        *result = owed ? NULL : ptier_slot_take_locked(t);
        if (*result) {
            t->waited_count++;
            return PTIER_OK;
        }
        if (now >= deadline)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED,
                              "all %d calls that one client can have under way are busy",
                              PTIER_SLOTS_MAX);
        ptier_monotonic_wait(&t->slot_idle, &t->lock,
                             owed && t->room_owed < deadline ? t->room_owed : deadline);
    }
    return ptier_fail(error, PTIER_CANCELLED, "the client was closed");
}

void
ptier_slot_release(ptier_transport *t, ptier_slot *s)
{
    pthread_mutex_lock(&t->lock);
    s->busy = false;
    t->waited_count -= !s->exchange;
    s->next_idle = t->idle;
    t->idle = s;
    pthread_cond_signal(&t->slot_idle);
    if (t->wake && t->room_wanted) {
        t->room_wanted = false;
        t->wake(t->watch);
    }
    pthread_mutex_unlock(&t->lock);
}

ptier_status
ptier_slot_make_ready(ptier_transport *t, ptier_slot *s, ptier_error *error)
{
    int rv = t->carrier->make_ready(t, s);
    if (rv == 0)
        return PTIER_OK;
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot make a call: %s", nng_strerror(rv));
}

void
ptier_message_discard(nng_msg *message)
{
    explicit_bzero(nng_msg_body(message), nng_msg_len(message));
    nng_msg_free(message);
}

static ptier_status
take_slot(ptier_transport *t, int64_t deadline, ptier_slot **result, ptier_error *error)
{
    pthread_mutex_lock(&t->lock);
    ptier_status status = wait_connected_locked(t, deadline, error);
    if (status == PTIER_OK)
        status = find_slot_locked(t, deadline, result, error);
    pthread_mutex_unlock(&t->lock);
    if (status != PTIER_OK)
        return status;
    status = ptier_slot_make_ready(t, *result, error);
    if (status != PTIER_OK)
        ptier_slot_release(t, *result);
    return status;
}

void
ptier_transport_sent_locked(ptier_transport *t)
{
    if (t->unanswered_since == 0)
        t->unanswered_since = ptier_monotonic_ms();
}

void
ptier_transport_answered_locked(ptier_transport *t)
{
    t->unanswered_since = 0;
    t->answered = true;
}

bool
ptier_transport_is_mute_locked(const ptier_transport *t)
{
    return t->unanswered_since != 0 && ptier_monotonic_ms() - t->unanswered_since >= MUTE_BOUND_MS;
}

ptier_status
ptier_transport_exchange(ptier_transport *t, nng_msg *request, int64_t deadline, nng_msg **reply,
                         ptier_fate *fate, ptier_error *error)
{
    ptier_slot *s = NULL;
    *fate = PTIER_FATE_UNSENT;
    ptier_status status = take_slot(t, deadline, &s, error);
    if (status != PTIER_OK) {
        ptier_message_discard(request);
        return status;
    }
    bool sent = false;
    int rv = t->carrier->exchange(t, s, request, deadline, reply, &sent);
    if (rv != 0)
        status = ptier_exchange_explain(t, rv, sent, fate, error);
    ptier_slot_release(t, s);
    return status;
}
