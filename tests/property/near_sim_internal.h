/* For near_sim*.c only. */
#ifndef PTIER_TEST_NEAR_SIM_INTERNAL_H
#define PTIER_TEST_NEAR_SIM_INTERNAL_H

#include "near_sim.h"

#define SIM_MS        INT64_C(1000000)
#define SIM_STALENESS (1000 * SIM_MS)
#define SIM_QUEUE     4096 /* actions under way at most */

/* One state of a key, from `time` to the next one. */
typedef struct sim_state {
    bool present;
    uint32_t failures;
    uint64_t revision;
    int64_t time, expires;
} sim_state;

typedef struct sim_key {
    char name[16];
    sim_state *states;
    size_t count, room;
    size_t own; /* states[own - 1] is the latest own write that was acknowledged; 0: none */
} sim_key;

/* An event of the journal. */
typedef struct sim_event {
    ptier_event_type type;
    uint32_t key; /* CLEARED: none */
    uint32_t failures;
    uint64_t revision;
} sim_event;

typedef enum sim_kind {
    SIM_GET_ASK,     /* a Get arrives: as_of is read */
    SIM_GET_LOOK,    /* ... and a little later the key is looked up */
    SIM_GET_REPLY,   /* ... and the reply arrives */
    SIM_WRITE,       /* an own write arrives */
    SIM_WRITE_REPLY, /* ... and its reply */
    SIM_MESSAGE,     /* a batch arrives at the subscriber */
    SIM_REPLAY,      /* a Replay arrives */
    SIM_REPLAY_REPLY,
} sim_kind;

typedef struct sim_action {
    int64_t at;
    uint64_t order; /* of those at one time */
    sim_kind kind;
    uint32_t key, run;
    int64_t sent, daemon_ms;
    ptier_near_ticket ticket;
    uint64_t as_of, revision;
    bool absent;
    uint32_t failures;
    size_t state; /* WRITE_REPLY: index of the state, plus one */
    int64_t remaining_ms;
    /* of the streams: events from `first` on, `last` included */
    uint64_t first, last;
    bool truncated;
    ptier_near_beat beat;
} sim_action;

typedef struct sim {
    const sim_plan *plan;
    sim_verdict *verdict;
    ptier_near *near;
    uint64_t random;
    int64_t now;

    /* The daemon. */
    uint32_t run, store;
    uint64_t revision;
    sim_key keys[SIM_KEYS];
    sim_event *journal; /* of this run: [sequence - 1] */
    size_t journal_count, journal_room;
    uint64_t published, published_revision;
    int64_t next_publish, next_beat;
    int64_t clock_ahead; /* its clock at 0 of ours */
    int clock_ppm;

    /* The link, of the present phase. */
    int64_t phase_end;
    int64_t event_delay, call_delay, arrived_last;
    unsigned drop_percent;

    /* The subscriber. */
    bool started, replaying;
    uint32_t sub_run, sub_store;
    uint64_t position;
    sim_action held[SIM_QUEUE]; /* messages that came while a Replay was under way */
    size_t held_count;

    sim_action *heap;
    size_t heap_count;
    uint64_t order;
    size_t calls; /* under way */
} sim;

uint64_t sim_random(sim *s, uint64_t below);
void sim_schedule(sim *s, sim_action action); /* to be done at action.at; a full queue drops it */
int64_t sim_daemon_ms(const sim *s);
int64_t sim_call_delay(sim *s);

/* near_sim_daemon.c */
void sim_daemon_change(sim *s); /* by others than us */
size_t sim_daemon_write(sim *s, uint32_t key, bool present, ptier_event_type type);
const sim_state *sim_current(const sim *s, uint32_t key);
void sim_daemon_publish(sim *s);
void sim_daemon_restart(sim *s);
ptier_near_beat sim_daemon_beat(const sim *s);
void sim_check(sim *s, uint32_t key, const ptier_near_record *record);

/* near_sim_link.c */
void sim_new_phase(sim *s);
void sim_send_message(sim *s, sim_action message);
void sim_begin_get(sim *s, uint32_t key);
void sim_begin_write(sim *s, uint32_t key);
void sim_act(sim *s, const sim_action *action);

#endif
