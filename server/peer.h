/*
 * Who is at the other end of a connection, as far as the connection itself tells. Thread-safe (no
 * state).
 */
#ifndef PTIER_PEER_H
#define PTIER_PEER_H

#include <stddef.h>
#include <stdint.h>

#include <nng/nng.h>

#include "role.h"

/* How a peer came in. */
typedef enum ptier_door {
    PTIER_DOOR_IPC = 0,
    PTIER_DOOR_TCP = 1,
    PTIER_DOOR_TLS = 2,
    PTIER_DOOR_COUNT = 3,
} ptier_door;

typedef struct ptier_peer {
    ptier_role role;     /* without a token */
    uint64_t identity;   /* equal for equal callers: a hash of the user, or of the token's name */
    ptier_door door;     /* tells which of the next two counts */
    uint32_t uid;        /* IPC */
    uint8_t address[16]; /* TCP, TLS: IPv6, or IPv4 mapped into it */
} ptier_peer;

/* Who has a role over ipc without a token, beside the daemon's own user and root: admin. */
typedef struct ptier_peer_rules {
    const uint32_t *rotator_uids; /* borrowed */
    size_t rotator_uid_count;
    bool has_gid;
    uint32_t rotator_gid; /* primary group of the peer */
} ptier_peer_rules;

/* `rules` may be NULL. A pipe that is gone gives a peer without a role. */
ptier_peer ptier_peer_of(const ptier_peer_rules *rules, nng_pipe pipe);

/* The same of one who came in by a unix socket. */
ptier_peer ptier_peer_of_user(const ptier_peer_rules *rules, uint32_t uid, uint32_t gid);

/* The door of an address that ptier_listen_check found good. */
ptier_door ptier_door_of(const char *url);

#define PTIER_PEER_TEXT 80
/* "uid 1000 over ipc", "10.0.0.7 over tls". For the log. */
void ptier_peer_text(const ptier_peer *peer, char text[PTIER_PEER_TEXT]);

#endif
