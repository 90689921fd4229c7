/* For transport.c, exchange*.c and supervisor.c only: what a transport is made of. */
#ifndef PTIER_TRANSPORT_INTERNAL_H
#define PTIER_TRANSPORT_INTERNAL_H

#include "transport.h"

/* More contexts make nng 1.5's timers slow; further callers wait for one. */
#define PTIER_SLOTS_MAX 64

/* So many of them at most for exchanges that call back: the others are for callers that wait. */
#define PTIER_CALLED_MAX 48

#define PTIER_GONE_KEPT 8

typedef enum ptier_slot_phase {
    PTIER_SLOT_IDLE,
    PTIER_SLOT_SENDING,
    PTIER_SLOT_WAITING
} ptier_slot_phase;

typedef struct ptier_slot {
    nng_ctx ctx;
    nng_aio *aio; /* in use: one of */
    nng_aio *waited;
    nng_aio *called; /* has a callback; NULL until it is needed */
    bool open;       /* ctx is */
    ptier_slot_phase phase;
    ptier_exchange *exchange; /* whose it is, of `called` */
    struct ptier_slot *next_idle;
} ptier_slot;

struct ptier_transport {
    char *url;
    const ptier_tls *tls;     /* borrowed */
    const ptier_owner *owner; /* borrowed */
    nng_socket socket;
    pthread_t supervisor;
    pthread_mutex_t lock;
    pthread_cond_t changed;   /* connection state, closing, a caller's wish */
    pthread_cond_t slot_idle; /* a slot came back, or closing */
    bool closing, connected, mute, wanted;
    bool answered;             /* once, by whoever listens there */
    bool dropped;              /* the peer ended a connection before it ever answered */
    bool abandoned;            /* the attempt under way was given up by a caller */
    bool strange;              /* it led to a user whom we do not trust: */
    uint64_t stranger;         /* uid */
    int strange_pipe;          /* id */
    int pipe;                  /* id of the pipe in use */
    int gone[PTIER_GONE_KEPT]; /* ids of the last pipes that ended while they were not in use */
    unsigned gone_count;
    nng_dialer dialer;
    int64_t dial_started;   /* 0: no attempt is running */
    atomic_bool dial_begun; /* the attempt is so far that its dialer may be closed */
    int64_t down_since;
    int64_t unanswered_since; /* oldest request sent since the last answer; 0 none */
    uint64_t failures;        /* attempts that failed */
    int last_error;           /* of the last one */
    ptier_slot slots[PTIER_SLOTS_MAX];
    size_t slot_count;
    ptier_slot *idle;
    size_t called_count;       /* slots in exchanges that call back */
    bool room_wanted;          /* by one of those: wake it when a slot comes back */
    void (*wake)(void *watch); /* see ptier_transport_watch */
    void *watch;
};

/* After each change of `connected`, `failures` and `closing`. */
void ptier_transport_tell_locked(ptier_transport *t);

/* A step of waiting for a connection. OK: *connected, or wait until *until, or until told. */
PTIER_MUST_CHECK ptier_status ptier_transport_connected_locked(ptier_transport *t, int64_t start,
                                                               uint64_t failures, int64_t deadline,
                                                               bool *connected, int64_t *until,
                                                               ptier_error *error);

/* A slot nobody uses, in phase SENDING; *slot NULL: all are busy. */
PTIER_MUST_CHECK ptier_status ptier_slot_take_locked(ptier_transport *t, ptier_slot **slot,
                                                     ptier_error *error);
PTIER_MUST_CHECK ptier_status ptier_slot_open(ptier_transport *t, ptier_slot *s,
                                              ptier_error *error);
void ptier_slot_release(ptier_transport *t, ptier_slot *s);

/* After a send or receive on s->aio ended with `rv`: 0 or an nng error. */
void ptier_slot_sent(ptier_transport *t, ptier_slot *s, int rv);
void ptier_slot_received(ptier_transport *t, ptier_slot *s, int rv, nng_msg **reply);

/* How long nng may take: until the deadline. */
nng_duration ptier_slot_time(int64_t deadline);

/* What the caller is told of an exchange that failed. */
ptier_status ptier_exchange_explain(ptier_transport *t, int rv, bool sent, ptier_fate *fate,
                                    ptier_error *error);

/* The supervisor's thread: keeps a connection until `closing`. The argument, as the context below,
 * is the transport. */
void *ptier_transport_supervise(void *argument);

/* nng's callbacks, which tell the supervisor. */
void ptier_transport_pipe_offered(nng_pipe pipe, nng_pipe_ev event, void *context);
void ptier_transport_pipe_added(nng_pipe pipe, nng_pipe_ev event, void *context);
void ptier_transport_pipe_removed(nng_pipe pipe, nng_pipe_ev event, void *context);

#endif
