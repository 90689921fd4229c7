#include "event_socket.h"

#include <stdlib.h>
#include <string.h>

#include "framing.h"
#include "monotonic.h"

#define CONNECT_MS  3000
#define MESSAGE_MAX ((size_t)4 << 20)
#define BUFFER_MIN  ((size_t)128 << 10)
#define HELLO_BYTES 8
#define LENGTH_MAX  9 /* bytes before a message: on ipc a byte 01, then its length */

bool
ptier_event_socket_init(ptier_event_socket *s)
{
    memset(s, 0, sizeof *s);
    return nng_aio_alloc(&s->aio, NULL, NULL) == 0;
}

void
ptier_event_socket_fini(ptier_event_socket *s)
{
    nng_aio_free(s->aio);
    free(s->buffer);
}

void
ptier_event_socket_close(ptier_event_socket *s)
{
    if (!s->stream)
        return;
    nng_stream_close(s->stream);
    nng_stream_free(s->stream);
    s->stream = NULL;
}

void
ptier_event_socket_cancel(ptier_event_socket *s)
{
    nng_aio_cancel(s->aio);
}

/* ---- bytes ---- */

static void
set_deadline(ptier_event_socket *s, int64_t until)
{
    int64_t left = until - ptier_monotonic_ms();
    nng_aio_set_timeout(s->aio, left < 1 ? 1 : left > INT32_MAX ? INT32_MAX : (nng_duration)left);
}

/* Sends or receives some of `length` bytes; *count says how many. 0 or an nng error. */
static int
move_bytes(ptier_event_socket *s, void (*move)(nng_stream *, nng_aio *), void *bytes, size_t length,
           int64_t until, size_t *count)
{
    nng_iov iov = {.iov_buf = bytes, .iov_len = length};
    int rv = nng_aio_set_iov(s->aio, 1, &iov);
    if (rv != 0)
        return rv;
    set_deadline(s, until);
    move(s->stream, s->aio);
    nng_aio_wait(s->aio);
    rv = nng_aio_result(s->aio);
    *count = rv == 0 ? nng_aio_count(s->aio) : 0;
    return rv == 0 && *count == 0 ? NNG_ECONNRESET : rv;
}

static int
move_all(ptier_event_socket *s, void (*move)(nng_stream *, nng_aio *), uint8_t *bytes,
         size_t length, int64_t until)
{
    for (size_t done = 0, count; done < length; done += count) {
        int rv = move_bytes(s, move, bytes + done, length - done, until, &count);
        if (rv != 0)
            return rv;
    }
    return 0;
}

/* ---- connecting ---- */

static int
dial(ptier_event_socket *s, const char *url, nng_tls_config *tls, int64_t until)
{
    nng_stream_dialer *dialer;
    bool secure = strncmp(url, "tls+", strlen("tls+")) == 0;
    if (secure && !tls)
        return NNG_EPEERAUTH;
    int rv = nng_stream_dialer_alloc(&dialer, url);
    if (rv != 0)
        return rv;
    if (secure)
        rv = nng_stream_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls);
    if (rv == 0) {
        set_deadline(s, until);
        nng_stream_dialer_dial(dialer, s->aio);
        nng_aio_wait(s->aio);
        rv = nng_aio_result(s->aio);
    }
    if (rv == 0)
        s->stream = nng_aio_get_output(s->aio, 0);
    nng_stream_dialer_close(dialer);
    nng_stream_dialer_free(dialer);
    return rv;
}

/* Of a unix socket; see owner.h. */
static int
check_owner(const ptier_event_socket *s, const ptier_owner *owner)
{
    uint64_t uid;
    if (!s->ipc)
        return 0;
    if (nng_stream_get_uint64(s->stream, NNG_OPT_IPC_PEER_UID, &uid) != 0)
        uid = PTIER_OWNER_UNKNOWN;
    return ptier_owner_is_trusted(owner, uid) ? 0 : NNG_EPEERAUTH;
}

static int
shake_hands(ptier_event_socket *s, int64_t until)
{
    uint8_t hello[HELLO_BYTES] = {0x00, 'S', 'P', 0x00, 0x00, 0x21, 0x00, 0x00};
    static const uint8_t publisher[HELLO_BYTES] = {0x00, 'S', 'P', 0x00, 0x00, 0x20, 0x00, 0x00};
    int rv = move_all(s, nng_stream_send, hello, sizeof hello, until);
    if (rv == 0)
        rv = move_all(s, nng_stream_recv, hello, sizeof hello, until);
    if (rv == 0 && memcmp(hello, publisher, sizeof hello) != 0)
        rv = NNG_EPROTO;
    return rv;
}

int
ptier_event_socket_open(ptier_event_socket *s, const char *url, nng_tls_config *tls,
                        const ptier_owner *owner)
{
    int64_t until = ptier_monotonic_ms() + CONNECT_MS;
    s->ipc = ptier_owner_matters(url);
    s->start = s->end = 0;
    int rv = dial(s, url, tls, until);
    if (rv == 0)
        rv = shake_hands(s, until); /* first: breaking it off ends the listener of nng 1.5 */
    if (rv == 0)
        rv = check_owner(s, owner);
    if (rv != 0)
        ptier_event_socket_close(s);
    return rv;
}

/* ---- messages ---- */

/* Bytes of the message at `start`, its length in front included; 0 not yet known, SIZE_MAX: none
 * that a daemon would send. */
static size_t
frame_bytes(const ptier_event_socket *s)
{
    const size_t before = s->ipc ? LENGTH_MAX : LENGTH_MAX - 1;
    const uint8_t *at = s->buffer + s->start;
    if (s->end - s->start < before)
        return 0;
    if (s->ipc && *at++ != 0x01)
        return SIZE_MAX;
    uint64_t length = 0;
    for (int i = 0; i < 8; i++)
        length = length << 8 | at[i];
    return length > MESSAGE_MAX ? SIZE_MAX : before + (size_t)length;
}

/* Room for the message that begins at `start`, of `frame` bytes (0: unknown). */
static bool
make_room(ptier_event_socket *s, size_t frame)
{
    size_t wanted = frame > BUFFER_MIN ? frame : BUFFER_MIN;
    if (s->room < wanted) {
        uint8_t *grown = realloc(s->buffer, wanted);
        if (!grown)
            return false;
        s->buffer = grown;
        s->room = wanted;
    }
    if (s->start == s->end)
        s->start = s->end = 0;
    if (s->room - s->start < wanted) {
        memmove(s->buffer, s->buffer + s->start, s->end - s->start);
        s->end -= s->start;
        s->start = 0;
    }
    return true;
}

/* Takes a complete message out of the buffer; NULL with *length: none that is wanted. */
static const uint8_t *
take_message(ptier_event_socket *s, size_t frame, size_t *length)
{
    const size_t before = s->ipc ? LENGTH_MAX : LENGTH_MAX - 1;
    const uint8_t *message = s->buffer + s->start + before;
    *length = frame - before;
    s->start += frame;
    if (*length < PTIER_TOPIC_BYTES)
        return NULL;
    if (memcmp(message, PTIER_TOPIC_CHANGES, PTIER_TOPIC_BYTES) == 0)
        return message;
    return s->tiers && memcmp(message, PTIER_TOPIC_TIERS, PTIER_TOPIC_BYTES) == 0 ? message : NULL;
}

const uint8_t *
ptier_event_socket_receive(ptier_event_socket *s, int64_t until, size_t *length, int *rv)
{
    for (;;) {
        size_t frame = frame_bytes(s), count;
        if (frame == SIZE_MAX) {
            *rv = NNG_EPROTO;
            return NULL;
        }
        if (frame != 0 && s->end - s->start >= frame) {
            const uint8_t *message = take_message(s, frame, length);
            if (message)
                return message;
            continue;
        }
        if (!make_room(s, frame)) {
            *rv = NNG_ENOMEM;
            return NULL;
        }
        *rv = move_bytes(s, nng_stream_recv, s->buffer + s->end, s->room - s->end, until, &count);
        if (*rv != 0)
            return NULL;
        s->end += count;
    }
}
