/* The simulated daemon: a map with revisions, its journal, and what it really was at any time. */
#include "near_sim_internal.h"

#include <stdlib.h>
#include <string.h>

const sim_state *
sim_current(const sim *s, uint32_t key)
{
    const sim_key *k = &s->keys[key];
    return k->count ? &k->states[k->count - 1] : NULL;
}

static void
push_state(sim *s, uint32_t key, sim_state state)
{
    sim_key *k = &s->keys[key];
    if (k->count == k->room) {
        k->room = k->room ? k->room * 2 : 8;
        k->states = realloc(k->states, k->room * sizeof *k->states);
        if (!k->states)
            abort();
    }
    k->states[k->count++] = state;
}

static void
push_event(sim *s, sim_event event)
{
    if (s->journal_count == s->journal_room) {
        s->journal_room = s->journal_room ? s->journal_room * 2 : 1024;
        s->journal = realloc(s->journal, s->journal_room * sizeof *s->journal);
        if (!s->journal)
            abort();
    }
    s->journal[s->journal_count++] = event;
}

size_t
sim_daemon_write(sim *s, uint32_t key, bool present, ptier_event_type type)
{
    const sim_state *old = sim_current(s, key);
    uint32_t failures = type == PTIER_EVENT_HEALTH ? old->failures + 1 : 0;
    bool renewed = present && type != PTIER_EVENT_HEALTH;
    int64_t expires = renewed ? s->now + (int64_t)(1000 + sim_random(s, 60000)) * SIM_MS
                      : old   ? old->expires
                              : 0;
    s->revision += 1 + sim_random(s, 2); /* revisions may skip */
    push_state(s, key,
               (sim_state){.present = present,
                           .failures = failures,
                           .revision = s->revision,
                           .time = s->now,
                           .expires = expires});
    push_event(s, (sim_event){type, key, failures, s->revision});
    s->verdict->changes++;
    return s->keys[key].count;
}

static void
clear(sim *s)
{
    s->revision++;
    for (uint32_t key = 0; key < SIM_KEYS; key++)
        if (s->keys[key].count && sim_current(s, key)->present)
            push_state(s, key, (sim_state){.revision = s->revision, .time = s->now});
    push_event(s, (sim_event){PTIER_EVENT_CLEARED, 0, 0, s->revision});
    s->verdict->changes++;
}

void
sim_daemon_change(sim *s)
{
    if (sim_random(s, 20000) == 0) {
        clear(s);
        return;
    }
    bool hot = sim_random(s, 2);
    uint32_t key = (uint32_t)sim_random(s, hot ? SIM_HOT : SIM_KEYS);
    const sim_state *old = sim_current(s, key);
    unsigned what = (unsigned)sim_random(s, 10);
    if (!old || !old->present)
        sim_daemon_write(s, key, true, PTIER_EVENT_CREATED);
    else if (what < 2 || old->expires <= s->now)
        sim_daemon_write(s, key, false, PTIER_EVENT_REMOVED);
    else
        sim_daemon_write(s, key, true, what < 6 ? PTIER_EVENT_HEALTH : PTIER_EVENT_UPDATED);
}

ptier_near_beat
sim_daemon_beat(const sim *s)
{
    ptier_near_beat beat = {.daemon_ms = sim_daemon_ms(s), .revision = s->published_revision};
    memcpy(beat.boot_id, &s->run, sizeof s->run);
    memcpy(beat.store_id, &s->store, sizeof s->store);
    return beat;
}

/* All that is new, in batches; with a heartbeat on each, or a mere one when that is due. */
void
sim_daemon_publish(sim *s)
{
    do {
        uint64_t last = s->journal_count, first = s->published + 1;
        if (last > s->published + 64)
            last = s->published + 64;
        if (last < first && s->now < s->next_beat)
            break;
        s->published = last;
        if (last == s->journal_count)
            s->published_revision = s->revision;
        else
            s->published_revision = s->journal[last - 1].revision;
        ptier_near_beat beat = sim_daemon_beat(s);
        if (last < s->journal_count)
            beat.daemon_ms -= 5; /* what it promises is all of what had happened then */
        sim_send_message(s, (sim_action){.first = first, .last = last, .beat = beat});
        if (last < first)
            s->next_beat = s->now + 250 * SIM_MS;
    } while (s->published < s->journal_count);
    s->next_publish = s->now + 5 * SIM_MS;
}

/* Killed and started again: all kept, or (another store) all lost, and revisions from 1 on. */
void
sim_daemon_restart(sim *s)
{
    bool lost = sim_random(s, 2);
    s->run++;
    s->verdict->restarts++;
    s->journal_count = 0;
    s->published = 0;
    s->revision = lost ? 1 : s->revision + 1000;
    s->published_revision = s->revision;
    s->store += lost;
    s->next_beat = s->now;
    if (sim_random(s, 2)) { /* so was its machine */
        s->clock_ahead = -s->now + (int64_t)sim_random(s, 50000) * SIM_MS;
        s->clock_ppm = (int)sim_random(s, 300) - 150;
    }
    for (uint32_t key = 0; lost && key < SIM_KEYS; key++)
        if (s->keys[key].count && sim_current(s, key)->present)
            push_state(s, key, (sim_state){.revision = 1, .time = s->now});
}

/* ---- judging what was served ---- */

static bool
there(const sim_state *state, int64_t now)
{
    return state->present && state->expires > now;
}

void
sim_check(sim *s, uint32_t key, const ptier_near_record *record)
{
    const sim_key *k = &s->keys[key];
    size_t next = k->count; /* the state after the one that was served: that is a late one */
    while (next > 0 && k->states[next - 1].revision != record->record.revision)
        next--;
    const sim_state *served = next ? &k->states[next - 1] : NULL;
    bool was = served && there(served, s->now);
    s->verdict->wrong +=
        was == record->absent || (was && served->failures != record->record.failure_count);
    while (record->absent && next < k->count && !there(&k->states[next], s->now))
        next++; /* absent before and after */
    if (next < k->count && k->states[next].time < s->now - SIM_STALENESS)
        s->verdict->stale++;
    s->verdict->own_missed += next < k->own;
}
