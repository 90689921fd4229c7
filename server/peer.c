/* See peer.h. */
#include "peer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Any numbers will do that keep the kinds apart; tokens have the highest bit, see auth.c. */
#define IDENTITY_UID     ((uint64_t)1 << 32)
#define IDENTITY_NETWORK ((uint64_t)2 << 32)

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

static ptier_role
role_of_user(const ptier_peer_rules *rules, uint32_t uid, uint32_t gid)
{
    if (uid == 0 || uid == geteuid())
        return PTIER_ROLE_ADMIN;
    for (size_t i = 0; rules && i < rules->rotator_uid_count; i++)
        if (rules->rotator_uids[i] == uid)
            return PTIER_ROLE_ROTATOR;
    if (rules && rules->has_gid && gid == rules->rotator_gid)
        return PTIER_ROLE_ROTATOR;
    return PTIER_ROLE_NONE;
}

ptier_peer
ptier_peer_of_user(const ptier_peer_rules *rules, uint32_t uid, uint32_t gid)
{
    return (ptier_peer){.role = role_of_user(rules, uid, gid),
                        .identity = IDENTITY_UID | uid,
                        .door = PTIER_DOOR_IPC,
                        .uid = uid};
}

static void
read_address(nng_pipe pipe, uint8_t address[16])
{
    nng_sockaddr from;
    if (nng_pipe_get_addr(pipe, NNG_OPT_REMADDR, &from) != 0)
        return;
    if (from.s_family == NNG_AF_INET) {
        memcpy(address, mapped, sizeof mapped);
        memcpy(address + sizeof mapped, &from.s_in.sa_addr, 4);
    } else if (from.s_family == NNG_AF_INET6) {
        memcpy(address, from.s_in6.sa_addr, 16);
    }
}

ptier_peer
ptier_peer_of(const ptier_peer_rules *rules, nng_pipe pipe)
{
    ptier_peer peer = {.role = PTIER_ROLE_NONE, .identity = IDENTITY_NETWORK};
    uint64_t uid, gid;
    bool verified;
    if (nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_UID, &uid) == 0) {
        if (nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_GID, &gid) != 0)
            gid = UINT32_MAX; /* nobody's */
        return ptier_peer_of_user(rules, (uint32_t)uid, (uint32_t)gid);
    }
    peer.door = nng_pipe_get_bool(pipe, NNG_OPT_TLS_VERIFIED, &verified) == 0 ? PTIER_DOOR_TLS
                                                                              : PTIER_DOOR_TCP;
    read_address(pipe, peer.address);
    return peer;
}

ptier_door
ptier_door_of(const char *url)
{
    if (strncmp(url, "ipc://", 6) == 0)
        return PTIER_DOOR_IPC;
    return strncmp(url, "tls", 3) == 0 ? PTIER_DOOR_TLS : PTIER_DOOR_TCP;
}

void
ptier_peer_text(const ptier_peer *peer, char text[PTIER_PEER_TEXT])
{
    char address[INET6_ADDRSTRLEN] = "?";
    if (peer->door == PTIER_DOOR_IPC) {
        (void)snprintf(text, PTIER_PEER_TEXT, "uid %u over ipc", (unsigned)peer->uid);
        return;
    }
    if (memcmp(peer->address, mapped, sizeof mapped) == 0)
        (void)inet_ntop(AF_INET, peer->address + sizeof mapped, address, sizeof address);
    else
        (void)inet_ntop(AF_INET6, peer->address, address, sizeof address);
    (void)snprintf(text, PTIER_PEER_TEXT, "%s over %s", address,
                   peer->door == PTIER_DOOR_TLS ? "tls" : "tcp");
}
