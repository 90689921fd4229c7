/*
 * A listener that speaks SP over ipc by hand (proto/sp_wire.h), so that a test decides about every
 * byte. One thread accepts, and serves one connection after the other. Failures are asserted.
 */
#ifndef PTIER_TESTS_SP_PEER_H
#define PTIER_TESTS_SP_PEER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SP_PEER_REQUEST_MAX ((size_t)2 << 20)

typedef struct sp_peer sp_peer;

/* Serves a connection, number 0, 1, …; it is closed afterwards. */
typedef void (*sp_peer_serve)(sp_peer *peer, int fd, unsigned number);

struct sp_peer {
    char url[128];
    sp_peer_serve serve;
    int listener;
    pthread_t thread;
    atomic_uint accepted, requests;
    atomic_bool stopping, go; /* go: the test's, for its `serve` */
    uint8_t *request;         /* the last one */
};

typedef struct sp_request {
    uint32_t id;
    const uint8_t *body; /* of proxytier's frame; in the peer until the next one */
    size_t length;
} sp_request;

void sp_peer_start(sp_peer *peer, sp_peer_serve serve);
void sp_peer_stop(sp_peer *peer);

/* Whether something can be read (the end, too); false after `ms`, or when the test stops. */
bool sp_peer_hears(const sp_peer *peer, int fd, int ms);

/* Hello, both ways. */
void sp_peer_greet(sp_peer *peer, int fd);

/* False: the other end is gone, or the test stops. */
bool sp_peer_receive(sp_peer *peer, int fd, sp_request *request);

/* Puts a reply (OK, or another status; body) at `out`; returns its end. */
uint8_t *sp_peer_put_reply(uint8_t *out, uint32_t id, int status, const void *body, size_t length);

/* Sends all, at most `piece` bytes at a time. The other end may be gone. */
void sp_peer_say(int fd, const uint8_t *bytes, size_t length, size_t piece);

/* Waits for a number, for long. Fails the test. */
void sp_peer_wait(const atomic_uint *number, unsigned at_least);

#endif
