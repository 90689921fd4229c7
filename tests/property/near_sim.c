/* See near_sim.h: the virtual clock, and what happens when. */
#include "near_sim_internal.h"

#include <stdlib.h>
#include <string.h>

#define READ_PERIOD INT64_C(100000) /* ns */

uint64_t
sim_random(sim *s, uint64_t below)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return (s->random >> 16) % below;
}

int64_t
sim_daemon_ms(const sim *s)
{
    return (s->now + s->clock_ahead + s->now / 1000000 * s->clock_ppm) / SIM_MS;
}

/* ---- actions under way: a heap by time ---- */

static bool
before(const sim_action *a, const sim_action *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void
sim_schedule(sim *s, sim_action action)
{
    if (s->heap_count == SIM_QUEUE) {
        s->calls -= action.kind < SIM_MESSAGE;
        return;
    }
    action.order = s->order++;
    size_t i = s->heap_count++;
    while (i > 0 && before(&action, &s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = action;
}

static sim_action
take_first(sim *s)
{
    sim_action first = s->heap[0], last = s->heap[--s->heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->heap_count)
            break;
        if (child + 1 < s->heap_count && before(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!before(&s->heap[child], &last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return first;
}

/* ---- the run ---- */

static void
catch_up(sim *s, int64_t until)
{
    while (s->heap_count && s->heap[0].at <= until) {
        sim_action action = take_first(s);
        s->now = action.at;
        sim_act(s, &action);
    }
    s->now = until;
    if (s->now >= s->next_publish)
        sim_daemon_publish(s);
    if (s->now >= s->phase_end) {
        sim_new_phase(s);
        if (sim_random(s, 6) == 0)
            sim_daemon_restart(s);
    }
}

static void
read_one(sim *s)
{
    uint32_t key = (uint32_t)sim_random(s, sim_random(s, 2) ? SIM_HOT : SIM_KEYS);
    ptier_near_record *record;
    ptier_near_outcome outcome = ptier_near_get(s->near, s->keys[key].name, s->now, &record);
    s->verdict->reads++;
    if (outcome == PTIER_NEAR_HIT) {
        s->verdict->served++;
        sim_check(s, key, record);
    } else {
        sim_begin_get(s, key);
    }
    ptier_near_record_release(record);
}

static void
begin(sim *s)
{
    ptier_near_options options = {.entries = SIM_KEYS / 2,
                                  .bytes = (size_t)4 << 20,
                                  .absent_entries = 500,
                                  .absent_ttl = 5000 * SIM_MS,
                                  .max_staleness = SIM_STALENESS,
                                  .faults = s->plan->faults};
    s->heap = malloc(SIM_QUEUE * sizeof *s->heap);
    if (!s->heap || ptier_near_create(&options, &s->near, NULL) != PTIER_OK)
        abort();
    s->random = s->plan->seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    s->now = 1000 * SIM_MS;
    s->run = s->store = 1;
    s->revision = 100;
    s->clock_ahead = (int64_t)sim_random(s, 1000000) * SIM_MS;
    s->clock_ppm = 150;
    for (uint32_t i = 0; i < SIM_KEYS; i++) {
        snprintf(s->keys[i].name, sizeof s->keys[i].name, "key-%05u", i);
        sim_daemon_write(s, i, true, PTIER_EVENT_CREATED);
    }
    sim_new_phase(s);
}

void
sim_run(const sim_plan *plan, sim_verdict *verdict)
{
    sim *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    memset(verdict, 0, sizeof *verdict);
    s->plan = plan;
    s->verdict = verdict;
    begin(s);
    for (uint64_t i = 0; i < plan->reads; i++) {
        catch_up(s, s->now + READ_PERIOD);
        read_one(s);
        while (verdict->changes < SIM_KEYS + i * plan->changes / plan->reads) {
            if (sim_random(s, 3) == 0)
                sim_begin_write(s, (uint32_t)sim_random(s, sim_random(s, 2) ? SIM_HOT : SIM_KEYS));
            sim_daemon_change(s);
        }
    }
    ptier_near_read_statistics(s->near, s->now, &verdict->near);
    ptier_near_destroy(s->near);
    for (uint32_t i = 0; i < SIM_KEYS; i++)
        free(s->keys[i].states);
    free(s->journal);
    free(s->heap);
    free(s);
}
