/* The simulated link with its two sockets, and what an SDK does at its ends. */
#include "near_sim_internal.h"

#include <stdlib.h>
#include <string.h>

static int64_t
jitter(sim *s, int64_t base)
{
    return base / 2 + (int64_t)sim_random(s, (uint64_t)base + 1);
}

int64_t
sim_call_delay(sim *s)
{
    /* Of many calls a few take much longer. */
    return jitter(s, sim_random(s, 200) == 0 ? 400 * SIM_MS : s->call_delay);
}

void
sim_new_phase(sim *s)
{
    static const int64_t event_delays[] = {1, 1, 1, 1, 20, 150, 300, 700, 2500};
    static const int64_t call_delays[] = {1, 1, 2, 5, 40, 100, 1500};
    static const unsigned drops[] = {0, 0, 0, 0, 0, 2, 30, 100};
    s->event_delay = event_delays[sim_random(s, 9)] * SIM_MS;
    s->call_delay = call_delays[sim_random(s, 7)] * SIM_MS / 2;
    s->drop_percent = drops[sim_random(s, 8)];
    s->phase_end = s->now + (int64_t)(500 + sim_random(s, 4000)) * SIM_MS;
}

/* ---- calls ---- */

static void
send(sim *s, sim_action action)
{
    action.at = s->now + sim_call_delay(s);
    sim_schedule(s, action);
}

void
sim_begin_get(sim *s, uint32_t key)
{
    sim_action a = {.kind = SIM_GET_ASK, .key = key, .sent = s->now, .run = s->run};
    if (s->calls >= SIM_QUEUE / 8)
        return;
    s->calls++;
    ptier_near_begin(s->near, s->keys[key].name, &a.ticket);
    send(s, a);
}

void
sim_begin_write(sim *s, uint32_t key)
{
    if (s->calls >= SIM_QUEUE / 8)
        return;
    s->calls++;
    send(s, (sim_action){.kind = SIM_WRITE, .key = key, .sent = s->now, .run = s->run});
}

static void
get_look(sim *s, sim_action a)
{
    const sim_state *state = sim_current(s, a.key);
    a.revision = state->revision;
    a.absent = !state->present || state->expires <= s->now;
    if (!a.absent) {
        a.failures = state->failures;
        a.remaining_ms = (state->expires - s->now) / SIM_MS;
    }
    a.kind = SIM_GET_REPLY;
    a.daemon_ms = sim_daemon_ms(s);
    send(s, a);
}

static void
told(sim *s, const sim_action *a)
{
    uint8_t boot_id[PTIER_NEAR_ID_BYTES] = {0};
    memcpy(boot_id, &a->run, sizeof a->run);
    ptier_near_reply(s->near, boot_id, a->sent, s->now, a->daemon_ms);
}

static void
get_reply(sim *s, const sim_action *a)
{
    ptier_record record;
    int64_t expires =
        !a->absent ? ptier_near_expiry(a->sent, a->remaining_ms) : a->sent + 5000 * SIM_MS;
    ptier_record_init(&record);
    record.key = s->keys[a->key].name;
    record.url = "http://10.0.0.1:80";
    record.health = PTIER_HEALTH_HEALTHY;
    record.failure_count = a->failures;
    record.revision = a->revision;
    told(s, a);
    ptier_near_record *near = ptier_near_record_create(&record, a->absent, a->as_of, expires);
    if (!near)
        abort();
    near->record.revision = a->revision; /* of an absent one, too: for the judge */
    (void)ptier_near_fill(s->near, &a->ticket, near);
    ptier_near_record_release(near);
}

static void
write_arrives(sim *s, sim_action a)
{
    const sim_state *old = sim_current(s, a.key);
    bool there = old && old->present;
    if (there && sim_random(s, 3) == 0)
        a.state = sim_daemon_write(s, a.key, false, PTIER_EVENT_REMOVED);
    else
        a.state =
            sim_daemon_write(s, a.key, true, there ? PTIER_EVENT_UPDATED : PTIER_EVENT_CREATED);
    a.revision = s->revision;
    a.daemon_ms = sim_daemon_ms(s);
    a.kind = SIM_WRITE_REPLY;
    send(s, a);
}

static void
write_reply(sim *s, const sim_action *a)
{
    sim_key *key = &s->keys[a->key];
    told(s, a);
    ptier_near_wrote(s->near, key->name, a->revision);
    key->own = a->state > key->own ? a->state : key->own;
}

/* ---- the stream ---- */

void
sim_send_message(sim *s, sim_action message)
{
    if (sim_random(s, 100) < s->drop_percent)
        return;
    message.kind = SIM_MESSAGE;
    message.run = s->run;
    message.at = s->now + jitter(s, s->event_delay);
    if (message.at < s->arrived_last) /* one connection keeps its order */
        message.at = s->arrived_last;
    s->arrived_last = message.at;
    sim_schedule(s, message);
}

static void
tell(sim *s, uint64_t sequence)
{
    const sim_event *e = &s->journal[sequence - 1];
    ptier_event event = {.type = e->type, .sequence = sequence, .revision = e->revision};
    ptier_record_init(&event.record);
    if (e->type != PTIER_EVENT_CLEARED)
        event.record.key = s->keys[e->key].name;
    event.record.health = e->type == PTIER_EVENT_HEALTH ? PTIER_HEALTH_HEALTHY : 0;
    event.record.failure_count = e->failures;
    ptier_near_event(s->near, &event);
}

static void
tell_range(sim *s, uint32_t run, uint64_t last)
{
    for (; s->position < last; s->position++)
        if (run == s->run) /* the journal of an older run is gone, with what it was about */
            tell(s, s->position + 1);
}

static void
ask_replay(sim *s)
{
    s->replaying = true;
    send(s, (sim_action){.kind = SIM_REPLAY, .sent = s->now, .run = s->run});
}

/* False: it waits for a Replay. */
static bool
take_message(sim *s, const sim_action *m)
{
    ptier_near_beat beat = m->beat;
    if (!s->started || s->sub_run != m->run) {
        if (s->started)
            ptier_near_resync(s->near, 0);
        s->started = true;
        s->sub_run = m->run;
        s->position = m->first - 1;
    }
    if (m->first > s->position + 1) {
        ask_replay(s);
        return false;
    }
    if (m->run != s->run) /* of a run that has ended meanwhile: only time passes */
        return true;
    tell_range(s, m->run, m->last);
    beat.contiguous = s->position >= m->last;
    ptier_near_heartbeat(s->near, &beat, s->now);
    return true;
}

static void
take_or_hold(sim *s, const sim_action *m)
{
    if ((s->replaying || !take_message(s, m)) && s->held_count < SIM_QUEUE)
        s->held[s->held_count++] = *m;
}

static void
release_held(sim *s)
{
    static sim_action held[SIM_QUEUE];
    size_t count = s->held_count;
    memcpy(held, s->held, count * sizeof *held);
    s->held_count = 0;
    for (size_t i = 0; i < count; i++)
        take_or_hold(s, &held[i]);
}

static void
replay_arrives(sim *s, sim_action a)
{
    a.kind = SIM_REPLAY_REPLY;
    a.truncated = sim_random(s, 3) == 0 || a.run != s->run;
    a.last = s->journal_count;
    a.revision = s->journal_count ? s->journal[a.last - 1].revision : s->revision;
    a.daemon_ms = sim_daemon_ms(s);
    send(s, a);
}

static void
replay_reply(sim *s, const sim_action *a)
{
    told(s, a);
    s->replaying = false;
    if (a->truncated) {
        s->verdict->resyncs++;
        ptier_near_resync(s->near, a->revision);
        s->position = a->last > s->position ? a->last : s->position;
    } else {
        s->verdict->replays++;
        tell_range(s, a->run, a->last);
    }
    release_held(s);
}

void
sim_act(sim *s, const sim_action *a)
{
    sim_action next = *a;
    bool call = a->kind < SIM_MESSAGE, end = a->kind == SIM_GET_REPLY || a->kind == SIM_WRITE_REPLY;
    if (a->kind != SIM_MESSAGE && a->run != s->run) { /* lost with the daemon */
        s->calls -= call;
        if (!call) {
            s->replaying = false;
            s->held_count = 0;
        }
        return;
    }
    s->calls -= end;
    switch (a->kind) {
    case SIM_GET_ASK:
        next.as_of = s->revision;
        next.kind = SIM_GET_LOOK;
        next.at = s->now + (int64_t)sim_random(s, 3) * SIM_MS;
        sim_schedule(s, next);
        break;
    case SIM_GET_LOOK:
        get_look(s, next);
        break;
    case SIM_GET_REPLY:
        get_reply(s, a);
        break;
    case SIM_WRITE:
        write_arrives(s, next);
        break;
    case SIM_WRITE_REPLY:
        write_reply(s, a);
        break;
    case SIM_MESSAGE:
        take_or_hold(s, a);
        break;
    case SIM_REPLAY:
        replay_arrives(s, next);
        break;
    case SIM_REPLAY_REPLY:
        replay_reply(s, a);
        break;
    }
}
