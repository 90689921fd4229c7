/* For the sources of the SDK only: what a client is made of. */
#ifndef PTIER_CLIENT_INTERNAL_H
#define PTIER_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include <proxytier/client.h>

#include "owner.h"
#include "run.h"
#include "tls.h"
#include "transport.h"

struct ptier_client {
    pid_t pid; /* of the process that opened it */
    ptier_transport *transport;
    struct ptier_event_link *link;     /* idle until somebody listens */
    struct ptier_async_engine *engine; /* idle until an asynchronous call */
    char *token;                       /* "" when there is none */
    ptier_tls tls;
    ptier_owner owner; /* constant after open */
    uint32_t timeout_ms, retries;
    bool separate_gets;
    _Atomic uint32_t message_limit; /* of the daemon; 0 until it told */
    struct ptier_near_client *near; /* constant after open; NULL: none */
    unsigned forks;                 /* of this process, when it was opened */
    _Atomic size_t readers;         /* between ptier_client_enter_read and leave_read */
    _Atomic bool closed;            /* to readers; as `closing` */

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t left;  /* running went down */
    bool closing;
    size_t running; /* public calls under way */
    ptier_run run;  /* of the daemon that answered last */
};

/*
 * Every public call is between these two, so that close can wait for it. FAILED_PRECONDITION: in a
 * forked child; CANCELLED: being closed. Nests.
 */
PTIER_MUST_CHECK ptier_status ptier_client_enter(ptier_client *client, ptier_error *error);
void ptier_client_leave(ptier_client *client);

/*
 * The same for reads that the near cache may answer: without system call and lock. A look-up in the
 * near cache needs neither: who is in it looks whether the client is `closed`, and close waits for
 * look-ups before it waits for these.
 */
PTIER_MUST_CHECK ptier_status ptier_client_enter_read(ptier_client *client, ptier_error *error);
void ptier_client_leave_read(ptier_client *client);

/* FAILED_PRECONDITION: in a forked child. */
PTIER_MUST_CHECK ptier_status ptier_client_check_fork(const ptier_client *client,
                                                      ptier_error *error);
ptier_status ptier_client_was_closed(ptier_error *error); /* CANCELLED */

#endif
