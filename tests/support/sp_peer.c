/* See sp_peer.h. */
#include "support/sp_peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "framing.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "sp_wire.h"
#include "support/monotonic.h"

#define PATIENCE_MS 20000
#define SLICE_MS    20

static void *
run(void *argument)
{
    sp_peer *peer = argument;
    while (!atomic_load(&peer->stopping)) {
        int fd = accept(peer->listener, NULL, NULL);
        if (fd < 0)
            break;
        unsigned number = atomic_fetch_add(&peer->accepted, 1);
        peer->serve(peer, fd, number);
        close(fd);
    }
    return NULL;
}

void
sp_peer_start(sp_peer *peer, sp_peer_serve serve)
{
    static int serial;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memset(peer, 0, sizeof *peer);
    snprintf(peer->url, sizeof peer->url, "ipc:///tmp/ptier-sp-%d-%d.sock", (int)getpid(),
             ++serial);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", peer->url + strlen("ipc://"));
    peer->serve = serve;
    peer->request = malloc(SP_PEER_REQUEST_MAX);
    assert_non_null(peer->request);
    peer->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(peer->listener >= 0);
    assert_int_equal(bind(peer->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(peer->listener, 64), 0);
    assert_int_equal(pthread_create(&peer->thread, NULL, run, peer), 0);
}

void
sp_peer_stop(sp_peer *peer)
{
    atomic_store(&peer->stopping, true);
    shutdown(peer->listener, SHUT_RDWR);
    pthread_join(peer->thread, NULL);
    close(peer->listener);
    unlink(peer->url + strlen("ipc://"));
    free(peer->request);
}

bool
sp_peer_hears(const sp_peer *peer, int fd, int ms)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    for (int64_t end = ptier_test_now() + ms; !atomic_load(&peer->stopping);) {
        int64_t left = end - ptier_test_now();
        if (poll(&one, 1, left < 0 ? 0 : left > SLICE_MS ? SLICE_MS : (int)left) > 0)
            return true;
        if (left <= 0)
            return false;
    }
    return false;
}

static bool
receive_all(const sp_peer *peer, int fd, uint8_t *out, size_t length)
{
    while (length > 0) {
        if (!sp_peer_hears(peer, fd, SLICE_MS)) {
            if (atomic_load(&peer->stopping))
                return false;
            continue;
        }
        ssize_t got = recv(fd, out, length, 0);
        if (got <= 0)
            return false;
        out += got;
        length -= (size_t)got;
    }
    return true;
}

void
sp_peer_greet(sp_peer *peer, int fd)
{
    uint8_t greeting[PTIER_SP_GREETING_BYTES];
    ptier_sp_greeting(greeting, PTIER_SP_REP);
    sp_peer_say(fd, greeting, sizeof greeting, 3);
    if (receive_all(peer, fd, greeting, sizeof greeting))
        assert_true(ptier_sp_greets(greeting, PTIER_SP_REQ));
}

bool
sp_peer_receive(sp_peer *peer, int fd, sp_request *request)
{
    uint8_t head[PTIER_SP_HEAD_BYTES], id[PTIER_SP_ID_BYTES];
    uint64_t length;
    ptier_frame frame;
    if (!receive_all(peer, fd, head, sizeof head))
        return false;
    assert_true(ptier_sp_get_head(head, &length));
    assert_true(length > sizeof id && length <= SP_PEER_REQUEST_MAX);
    if (!receive_all(peer, fd, id, sizeof id) ||
        !receive_all(peer, fd, peer->request, (size_t)length - sizeof id))
        return false;
    request->id = (uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 | id[3];
    assert_true(request->id & 0x80000000);
    assert_int_equal(ptier_frame_split(peer->request, (size_t)length - sizeof id, &frame, NULL),
                     PTIER_OK);
    request->body = frame.body;
    request->length = frame.body_length;
    atomic_fetch_add(&peer->requests, 1);
    return true;
}

uint8_t *
sp_peer_put_reply(uint8_t *out, uint32_t id, int status, const void *body, size_t length)
{
    Proxytier__V1__ResponseHeader header = PROXYTIER__V1__RESPONSE_HEADER__INIT;
    uint8_t boot_id[16] = {1};
    header.code = (Proxytier__V1__StatusCode)status;
    header.boot_id = (ProtobufCBinaryData){sizeof boot_id, boot_id};
    size_t header_length = proxytier__v1__response_header__get_packed_size(&header);
    ptier_sp_put_head(out, PTIER_SP_ID_BYTES + PTIER_FRAME_PREFIX + header_length + length);
    out += PTIER_SP_HEAD_BYTES;
    for (int shift = 24; shift >= 0; shift -= 8)
        *out++ = (uint8_t)(id >> shift);
    ptier_frame_prefix(out, header_length);
    out += PTIER_FRAME_PREFIX;
    out += proxytier__v1__response_header__pack(&header, out);
    if (length > 0)
        memcpy(out, body, length);
    return out + length;
}

void
sp_peer_say(int fd, const uint8_t *bytes, size_t length, size_t piece)
{
    while (length > 0) {
        ssize_t sent = send(fd, bytes, length < piece ? length : piece, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        bytes += sent;
        length -= (size_t)sent;
    }
}

void
sp_peer_wait(const atomic_uint *number, unsigned at_least)
{
    for (int64_t end = ptier_test_now() + PATIENCE_MS; atomic_load(number) < at_least;) {
        if (ptier_test_now() > end)
            fail_msg("%u instead of %u", atomic_load(number), at_least);
        (void)poll(NULL, 0, 2);
    }
}
