/*
 * One connection of unix_door.h: greeting, calls that come in, replies that go out. Belongs to the
 * thread of a loop; only its replies come from any thread, and are sent there as long as the peer
 * takes them. Lives until it is closed and its last call is answered.
 */
#ifndef PTIER_UNIX_CONNECTION_H
#define PTIER_UNIX_CONNECTION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bytes.h"
#include "front.h"
#include "sp_reader.h"

typedef struct ptier_unix_connection ptier_unix_connection;

/* Calls that wait to be used again, of one loop. Thread-safe. */
typedef struct ptier_unix_requests {
    pthread_mutex_t lock; /* guards the rest; a leaf */
    struct ptier_unix_request *free;
    size_t free_count;
} ptier_unix_requests;

void ptier_unix_requests_init(ptier_unix_requests *requests);
void ptier_unix_requests_fini(ptier_unix_requests *requests);

struct ptier_unix_connection {
    ptier_front *front;            /* borrowed */
    ptier_unix_requests *requests; /* borrowed */
    atomic_uint references;        /* the loop's, and one of each call */
    atomic_uint working;           /* calls under way */
    uint32_t id;                   /* never that of an nng pipe, nor 0 */
    ptier_peer peer;

    /* The loop's own. */
    ptier_unix_connection *previous, *next;
    bool admitted; /* it greeted, and the gate let it in */
    bool doomed;   /* it broke the rules, and is to be closed */
    uint8_t greeting[PTIER_SP_GREETING_BYTES];
    size_t greeting_length;
    ptier_sp_reader reader;
    int64_t owing_since_ms; /* the rest of its greeting or frame; 0: nothing */

    pthread_mutex_t lock; /* guards the rest; a leaf, but for sends that do not wait */
    int fd;               /* -1: closed */
    int epoll;            /* borrowed */
    ptier_bytes out;      /* replies that are not sent yet, */
    size_t out_sent;      /* but for so many bytes */
    bool corked;          /* more replies are about to come */
    int64_t stuck_since_ms, stuck_first_ms; /* the peer takes nothing more, of these; 0: it does */
};

/* Takes fd over, greets, and watches it by `epoll`, which tells of it by its pointer. NULL: no
 * memory, or it is gone; fd is closed. */
PTIER_MUST_CHECK ptier_unix_connection *ptier_unix_connection_create(ptier_front *front,
                                                                     ptier_unix_requests *requests,
                                                                     int epoll, int fd,
                                                                     uint32_t id);

/* What there is to read or to write. False: it has to be closed. */
PTIER_MUST_CHECK bool ptier_unix_connection_read(ptier_unix_connection *connection,
                                                 uint8_t *scratch, size_t room);
PTIER_MUST_CHECK bool ptier_unix_connection_write(ptier_unix_connection *connection);

/* Whether it keeps us waiting for too long, for what it owes or for what it does not take. */
bool ptier_unix_connection_is_overdue(ptier_unix_connection *connection, int64_t now_ms);

/* Ends it; the memory may live on until its calls are answered. By the loop, once, after it took it
 * out of its list. */
void ptier_unix_connection_close(ptier_unix_connection *connection);
void ptier_unix_connection_release(ptier_unix_connection *connection);

#endif
