/*
 * A server that behaves badly, in one way after the other, to whoever connects. Bytes by hand, one
 * thread of its own. Failures to listen fail the running cmocka test.
 */
#ifndef PTIER_TEST_BAD_SERVER_H
#define PTIER_TEST_BAD_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define BAD_CONNECTIONS 64

typedef enum bad_manner {
    BAD_ACCEPT_CLOSE, /* says nothing and goes */
    BAD_GARBAGE,      /* any bytes instead of SP's greeting, or behind it */
    BAD_HALF_HELLO,   /* half a greeting, and the end */
    BAD_STALLED,      /* a frame that ends in its middle, and silence */
    BAD_STALLED_RST,  /* the same, and the end a moment later */
    BAD_OVERSIZE,     /* a frame of 2^64 - 40 bytes */
    BAD_WRONG_IDS,    /* well-formed replies that nobody asked for */
    BAD_HALF_TLS,     /* half of a TLS answer */
    BAD_MANNERS,
} bad_manner;

typedef struct bad_connection {
    int fd; /* -1: free */
    size_t heard;
} bad_connection;

typedef struct bad_server {
    char url[128];
    bool events, tls; /* tls: no greeting */
    _Atomic bad_manner manner;
    atomic_uint accepted;
    atomic_bool stopping;
    int listener;
    pthread_t thread;
    unsigned serial;
    bad_connection connections[BAD_CONNECTIONS];
} bad_server;

const char *bad_manner_name(bad_manner manner);

/* ipc://, tcp:// and tls+tcp:// (below TLS). `events`: greets as PUB instead of REP. */
void bad_server_start(bad_server *server, const char *url, bool events);
void bad_server_stop(bad_server *server);

#endif
