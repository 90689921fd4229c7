/*
 * A client's one link to the daemon's events: one SUB socket and one thread, which follows the
 * streams, fills gaps by Replay, redials with a jittered back-off, and tells the listeners. It
 * starts with the first listener and stops with the last. Thread-safe.
 *
 * Callbacks run on the link's thread, one at a time, under the link's lock: they never block, never
 * call the link or the daemon, and take no lock under which either is called.
 */
#ifndef PTIER_EVENT_LINK_H
#define PTIER_EVENT_LINK_H

#include <proxytier/client.h>

#include "feed.h"

typedef struct ptier_event_link ptier_event_link;

/* Where the link stands. Borrowed for the callback. */
typedef struct ptier_link_view {
    const uint8_t *boot_id, *store_id;     /* PTIER_FEED_ID_BYTES each */
    uint64_t position[PTIER_FEED_STREAMS]; /* sequence of the last event told, or skipped */
    /*
     * The highest one known. Events that were skipped may have higher ones: a reply of the daemon
     * can be relied upon to include them only if it was asked for after the callback that shows
     * this view (on_following, on_resync).
     */
    uint64_t revision;
} ptier_link_view;

/*
 * Filled by the listener, who owns it, before it joins; not to be touched until it has left. Every
 * callback may be NULL. The order in which they come:
 *
 *     [on_lost] on_following (on_event | on_batch | on_resync)* [on_lost on_following ...]
 *
 * and on_rights at any time.
 */
typedef struct ptier_listener {
    bool tiers; /* wants the stream TIERS as well as CHANGES */
    void *context;

    /*
     * Every event behind view->position will be told from here on, or on_resync. The first call
     * after joining, and again when on_lost has been called and the link is back (nothing lies
     * between unless on_resync said so, which then came before).
     */
    void (*on_following)(void *context, const ptier_link_view *view);

    /*
     * In order per stream, each once, without gaps. Types that this library does not know come too.
     * A removal that names no key is told by on_resync instead.
     */
    void (*on_event)(void *context, int stream, const Proxytier__V1__Event *event);

    /*
     * After the events of a batch, whose heartbeat this is. received_ns: CLOCK_MONOTONIC, when it
     * was taken from the socket. `contiguous`: every change that the heartbeat counts has been told
     * to this listener; if not, events are on their way or are about to be asked for.
     */
    void (*on_batch)(void *context, const Proxytier__V1__Heartbeat *heartbeat, int64_t received_ns,
                     bool contiguous);

    /* Events of a stream that it wants were missed for good: another run, another store, or too far
     * behind. It goes on at view->position, of view->boot_id. */
    void (*on_resync)(void *context, const ptier_link_view *view);

    /*
     * Somebody's rights at the daemon have changed, and may be ours: what is kept of replies to
     * calls that were begun before this may be more than we would be told now. If we may listen no
     * more, nothing comes after it but on_lost.
     */
    void (*on_rights)(void *context);

    /* Nothing was heard for four heartbeats. */
    void (*on_lost)(void *context);

    /* The link's own. */
    struct ptier_listener *next;
    bool following; /* on_following was called once */
    bool connected; /* and on_lost not since */
    bool lost;      /* on_lost was the last word */
} ptier_listener;

/* `client` is borrowed until destroy. Nothing runs before somebody joins. */
PTIER_MUST_CHECK ptier_status ptier_event_link_create(ptier_client *client, ptier_event_link **link,
                                                      ptier_error *error);

/* Stops it, whoever still listens. NULL is fine. */
void ptier_event_link_destroy(ptier_event_link *link);

/* RESOURCE_EXHAUSTED: no thread, no memory. */
PTIER_MUST_CHECK ptier_status ptier_event_link_join(ptier_event_link *link,
                                                    ptier_listener *listener, ptier_error *error);

/* No callback of it runs after this returned. The last one to leave waits for the thread to end,
 * about a second at most. */
void ptier_event_link_leave(ptier_event_link *link, ptier_listener *listener);

#endif
