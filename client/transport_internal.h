/* For the transport's sources only: what a transport is made of. */
#ifndef PTIER_TRANSPORT_INTERNAL_H
#define PTIER_TRANSPORT_INTERNAL_H

#include "transport.h"

/* More contexts make nng 1.5's timers slow; further callers wait for one. */
#define PTIER_SLOTS_MAX 64

/* So many of them at most for exchanges that call back: the others are for callers that wait. And
 * the other way round, for a while after one that calls back found no room. */
#define PTIER_CALLED_MAX   48
#define PTIER_WAITED_MAX   48
#define PTIER_ROOM_OWED_MS 2000 /* whoever still wants it asks more often */

#define PTIER_REPLY_MAX ((size_t)64 << 20)

#define PTIER_DIAL_GRACE_MS 100 /* for an attempt to connect that does not hang */

/* The right to have one exchange under way. */
typedef struct ptier_slot {
    size_t index;
    bool busy;
    ptier_exchange *exchange; /* whose it is; NULL: of a caller that waits */
    struct ptier_slot *next_idle;
} ptier_slot;

/*
 * What brings messages to the daemon: nng, or our own link over a unix socket. Those with _locked
 * are called with the transport's lock, the others without. Errors are nng's.
 */
typedef struct ptier_carrier {
    int (*open)(ptier_transport *t);   /* a failed one leaves nothing to close */
    void (*close)(ptier_transport *t); /* nothing is under way */

    /* The supervisor's: an attempt to connect, which sets `connected`; to stay while the connection
     * is good; to end it. */
    int (*dial)(ptier_transport *t);
    void (*attend)(ptier_transport *t);
    void (*hang_up)(ptier_transport *t);

    /* Ends the attempt to connect, from another thread; may drop the lock meanwhile. */
    void (*abandon_locked)(ptier_transport *t);

    /* Before the first use of a slot that was just taken. */
    int (*make_ready)(ptier_transport *t, ptier_slot *s);

    /* Moves the request. *sent: the daemon may have seen it. */
    int (*exchange)(ptier_transport *t, ptier_slot *s, nng_msg *request, int64_t deadline,
                    nng_msg **reply, bool *sent);

    /* Of exchanges that call back: see transport.h. */
    void (*start)(ptier_exchange *x, nng_msg *request);
    void (*cancel)(ptier_exchange *x);

    /* All, or those that are not sent; to be repeated until they have ended. */
    void (*cancel_all_locked)(ptier_transport *t, bool unsent_only);

    /* See transport.h. NULL: exchanges that call back do so by themselves. */
    void (*doze)(ptier_transport *t, int64_t until);
    void (*rouse)(ptier_transport *t);
} ptier_carrier;

extern const ptier_carrier ptier_nng_carrier, ptier_link_carrier;

struct ptier_transport {
    char *url;
    const ptier_tls *tls;     /* borrowed */
    const ptier_owner *owner; /* borrowed */
    const ptier_carrier *carrier;
    struct ptier_nng *nng;   /* of the one */
    struct ptier_link *link; /* or of the other */
    pthread_t supervisor;
    pthread_mutex_t lock;
    pthread_cond_t changed;   /* connection state, closing, a caller's wish */
    pthread_cond_t slot_idle; /* a slot came back, or closing */
    bool closing, connected, mute, wanted;
    bool answered;          /* once, by whoever listens there */
    bool dropped;           /* the peer ended a connection before it ever answered */
    bool abandoned;         /* the attempt under way was given up by a caller */
    bool strange;           /* it led to a user whom we do not trust: */
    uint64_t stranger;      /* uid */
    int64_t dial_started;   /* 0: no attempt is running */
    atomic_bool dial_begun; /* the attempt is so far that it may be abandoned */
    int64_t down_since;
    int64_t unanswered_since; /* oldest request sent since the last answer; 0 none */
    uint64_t failures;        /* attempts that failed */
    int last_error;           /* of the last one */
    ptier_slot slots[PTIER_SLOTS_MAX];
    size_t slot_count;
    ptier_slot *idle;
    size_t called_count;       /* slots in exchanges that call back */
    size_t waited_count;       /* slots of callers that wait */
    bool room_wanted;          /* by one that calls back: wake it when a slot comes back */
    int64_t room_owed;         /* until then to those */
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

/* NULL: all are busy. */
ptier_slot *ptier_slot_take_locked(ptier_transport *t);
void ptier_slot_release(ptier_transport *t, ptier_slot *s);
PTIER_MUST_CHECK ptier_status ptier_slot_make_ready(ptier_transport *t, ptier_slot *s,
                                                    ptier_error *error);

/* Frees a message, wiped: it may hold credentials, or a token. */
void ptier_message_discard(nng_msg *message);

/* For carriers: a request was sent, a reply came, and whether the connection is to be given up now
 * that one did not come in time: it may look open and lead nowhere. */
void ptier_transport_sent_locked(ptier_transport *t);
void ptier_transport_answered_locked(ptier_transport *t);
bool ptier_transport_is_mute_locked(const ptier_transport *t);

/* What became of attempts and exchanges that failed. */
bool ptier_transport_is_cut_off(const ptier_transport *t);
bool ptier_transport_is_foreign(const ptier_transport *t);
ptier_status ptier_transport_fail_not_allowed(const ptier_transport *t, ptier_error *error);
ptier_status ptier_transport_fail_unreachable(const ptier_transport *t, int rv, ptier_error *error);
ptier_status ptier_exchange_explain(ptier_transport *t, int rv, bool sent, ptier_fate *fate,
                                    ptier_error *error);

/* The supervisor's thread: keeps a connection until `closing`. The argument is the transport. */
void *ptier_transport_supervise(void *argument);

/* For `dial`, when the attempt can be abandoned. False: closing, make none. */
bool ptier_transport_dials_locked(ptier_transport *t);

#endif
