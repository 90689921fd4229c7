/*
 * A daemon as far as the SDK can tell: answers requests as a test says, publishes what it says,
 * keeps a journal for Replay. One thread answers; the publishing functions are for the test's
 * thread.
 */
#ifndef PTIER_TESTS_SCRIPTED_PEER_H
#define PTIER_TESTS_SCRIPTED_PEER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <nng/nng.h>
#include <protobuf-c/protobuf-c.h>

#include "proxytier/v1/events.pb-c.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "support/monotonic.h"

#define PEER_ID_BYTES 16
#define PEER_STREAMS  3
#define PEER_BOOT     0xb0 /* every byte of the ids at first */
#define PEER_STORE    0x50

/* protobuf-c wants char * for strings that it only reads. */
#define PEER_TEXT(s) ((char *)(uintptr_t)(s))

/* What a handler answers with. Zeroed before each call. */
typedef struct peer_answer {
    bool silent; /* no reply at all */
    int code;
    char message[300];
    uint8_t *body; /* owned by the peer afterwards; see peer_answer_with */
    size_t body_length;
    bool raw; /* body is the whole message, header and all */
} peer_answer;

typedef struct peer_request {
    const char *method; /* last word: "Get" */
    const Proxytier__V1__RequestHeader *header;
    const uint8_t *body;
    size_t body_length;
} peer_request;

typedef void (*peer_handler)(void *context, const peer_request *request, peer_answer *answer);

typedef struct scripted_peer {
    char rpc_url[128], event_url[128];
    peer_handler
        handler; /* of everything but GetInfo and Replay; NULL: answers with an empty body */
    void *context;
    char **features; /* that GetInfo lists; borrowed */
    size_t feature_count;
    uint32_t heartbeat_ms;
    bool tells_time;   /* so that near caches serve: replies and heartbeats have its clock */
    uint64_t nameless; /* the event of this sequence of CHANGES is a removal without a key */

    nng_socket rpc, events;
    bool running, thread_running;
    pthread_t thread;

    pthread_mutex_t lock; /* guards the rest */
    uint8_t boot_id[PEER_ID_BYTES], store_id[PEER_ID_BYTES];
    uint64_t last[PEER_STREAMS], oldest[PEER_STREAMS];
    uint32_t replay_page;
    unsigned requests, infos, replays;
    bool mute_info; /* GetInfo gets no reply */
} scripted_peer;

/* Addresses of its own, nobody listening yet. */
void peer_init(scripted_peer *peer);
void peer_fini(scripted_peer *peer);

/* Listens. Asserts that it can. */
void peer_start(scripted_peer *peer);
/* Closes both sockets: connections are lost. Start again at the same addresses with peer_start. */
void peer_stop(scripted_peer *peer);

/* Of events alone: the second by the calling thread's user. */
void peer_stop_events(scripted_peer *peer);
void peer_start_events(scripted_peer *peer);

/* Packs a message as the answer's body. */
void peer_answer_with(peer_answer *answer, const ProtobufCMessage *message);

unsigned peer_count(scripted_peer *peer, const unsigned *counter);

/* Adds `count` events to the journal; published only if `publish`. */
void peer_emit(scripted_peer *peer, Proxytier__V1__Stream stream, unsigned count, bool publish);
/* Publishes a mere heartbeat. */
void peer_heartbeat(scripted_peer *peer);
/* The journal forgets everything before `oldest`. */
void peer_forget(scripted_peer *peer, Proxytier__V1__Stream stream, uint64_t oldest);

/* From now on another run (sequences start again), or another store. */
void peer_become(scripted_peer *peer, int boot, int store);

/* Sleeps a little; for loops that poll a condition until a deadline. */
void test_pause(void);

#endif
