/* See self_probe_wire.h. */
#include "self_probe_wire.h"

#include <stdlib.h>
#include <string.h>

#include "framing.h"
#include "proxytier/v1/events.pb-c.h"
#include "proxytier/v1/rpc.pb-c.h"

#define HELLO_BYTES 8
#define MESSAGE_MAX ((size_t)1 << 20) /* an event may be large; a reply here is small */
#define REQUEST_ID  UINT32_C(0x80000001)
#define ID_BYTES    4

bool
ptier_probe_wire_init(ptier_probe_wire *wire)
{
    *wire = (ptier_probe_wire){.buffer = malloc(MESSAGE_MAX)};
    atomic_init(&wire->cancelled, false);
    if (wire->buffer && nng_aio_alloc(&wire->aio, NULL, NULL) == 0)
        return true;
    free(wire->buffer);
    return false;
}

void
ptier_probe_wire_fini(ptier_probe_wire *wire)
{
    nng_aio_free(wire->aio);
    free(wire->buffer);
}

void
ptier_probe_wire_cancel(ptier_probe_wire *wire)
{
    atomic_store(&wire->cancelled, true);
    nng_aio_cancel(wire->aio);
}

/* ---- bytes ---- */

/* False: the time is over, or it was cancelled. */
static bool
set_timeout(ptier_probe_wire *wire)
{
    int64_t left = wire->deadline_ms - ptier_monotonic_ms();
    if (left < 1 || atomic_load(&wire->cancelled))
        return false;
    nng_aio_set_timeout(wire->aio, left > INT32_MAX ? INT32_MAX : (nng_duration)left);
    return true;
}

static int
move_all(ptier_probe_wire *wire, void (*move)(nng_stream *, nng_aio *), void *bytes, size_t length)
{
    for (size_t done = 0; done < length; done += nng_aio_count(wire->aio)) {
        nng_iov iov = {.iov_buf = (uint8_t *)bytes + done, .iov_len = length - done};
        int rv = nng_aio_set_iov(wire->aio, 1, &iov);
        if (rv == 0 && !set_timeout(wire))
            rv = NNG_ETIMEDOUT;
        if (rv != 0)
            return rv;
        move(wire->stream, wire->aio);
        nng_aio_wait(wire->aio);
        if ((rv = nng_aio_result(wire->aio)) != 0)
            return rv;
        if (nng_aio_count(wire->aio) == 0)
            return NNG_ECONNRESET;
    }
    return 0;
}

static int
dial(ptier_probe_wire *wire, const char *url, nng_tls_config *tls)
{
    nng_stream_dialer *dialer;
    int rv = nng_stream_dialer_alloc(&dialer, url);
    if (rv != 0)
        return rv;
    if (strncmp(url, "tls", 3) == 0)
        rv = tls ? nng_stream_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls) : NNG_EINVAL;
    if (rv == 0 && !set_timeout(wire))
        rv = NNG_ETIMEDOUT;
    if (rv == 0) {
        nng_stream_dialer_dial(dialer, wire->aio);
        nng_aio_wait(wire->aio);
        rv = nng_aio_result(wire->aio);
    }
    if (rv == 0)
        wire->stream = nng_aio_get_output(wire->aio, 0);
    nng_stream_dialer_close(dialer);
    nng_stream_dialer_free(dialer);
    return rv;
}

static int
shake_hands(ptier_probe_wire *wire, bool events)
{
    const uint8_t ours = events ? 0x21 : 0x30, theirs = events ? 0x20 : 0x31;
    uint8_t hello[HELLO_BYTES] = {0, 'S', 'P', 0, 0, ours, 0, 0};
    const uint8_t expected[HELLO_BYTES] = {0, 'S', 'P', 0, 0, theirs, 0, 0};
    int rv = move_all(wire, nng_stream_send, hello, sizeof hello);
    if (rv == 0)
        rv = move_all(wire, nng_stream_recv, hello, sizeof hello);
    return rv == 0 && memcmp(hello, expected, sizeof hello) != 0 ? NNG_EPROTO : rv;
}

/* ---- messages ---- */

static int
receive_message(ptier_probe_wire *wire, size_t *length)
{
    uint8_t before[9];
    size_t count = wire->ipc ? 9 : 8;
    int rv = move_all(wire, nng_stream_recv, before, count);
    if (rv != 0)
        return rv;
    uint64_t bytes = 0;
    for (size_t i = count - 8; i < count; i++)
        bytes = bytes << 8 | before[i];
    if ((wire->ipc && before[0] != 1) || bytes > MESSAGE_MAX)
        return NNG_EPROTO;
    *length = (size_t)bytes;
    return move_all(wire, nng_stream_recv, wire->buffer, *length);
}

static int
send_check(ptier_probe_wire *wire, int64_t patience_ms)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    uint8_t message[128];
    header.method = (char *)(uintptr_t) "/proxytier.v1.Health/Check"; /* packing only reads */
    header.timeout_ms = (uint32_t)patience_ms;
    size_t before = wire->ipc ? 9 : 8;
    size_t packed = proxytier__v1__request_header__pack(&header, message + before + ID_BYTES +
                                                                     PTIER_FRAME_PREFIX);
    size_t length = ID_BYTES + PTIER_FRAME_PREFIX + packed; /* far below 128 */
    memset(message, 0, before);
    message[0] = wire->ipc ? 1 : 0;
    message[before - 1] = (uint8_t)length;
    ptier_frame_prefix(message + before, REQUEST_ID);
    ptier_frame_prefix(message + before + ID_BYTES, packed);
    return move_all(wire, nng_stream_send, message, before + length);
}

static bool
is_boot(const ProtobufCBinaryData *told, const uint8_t boot_id[PTIER_ID_BYTES])
{
    return told->len == PTIER_ID_BYTES && memcmp(told->data, boot_id, PTIER_ID_BYTES) == 0;
}

static ptier_probe_stage
judge_reply(const ptier_probe_wire *wire, size_t length, const uint8_t boot_id[PTIER_ID_BYTES])
{
    ptier_frame frame;
    uint8_t id[ID_BYTES];
    ptier_frame_prefix(id, REQUEST_ID);
    if (length < ID_BYTES || memcmp(wire->buffer, id, ID_BYTES) != 0 ||
        ptier_frame_split(wire->buffer + ID_BYTES, length - ID_BYTES, &frame, NULL) != PTIER_OK)
        return PTIER_PROBE_SHAKEN;
    Proxytier__V1__ResponseHeader *header =
        proxytier__v1__response_header__unpack(NULL, frame.header_length, frame.header);
    if (!header)
        return PTIER_PROBE_SHAKEN;
    ptier_probe_stage stage = !is_boot(&header->boot_id, boot_id) ? PTIER_PROBE_OTHER
                              : header->code == PROXYTIER__V1__STATUS_CODE__STATUS_CODE_OK
                                  ? PTIER_PROBE_DONE
                                  : PTIER_PROBE_SHAKEN;
    proxytier__v1__response_header__free_unpacked(header, NULL);
    return stage;
}

static ptier_probe_stage
judge_batch(const ptier_probe_wire *wire, size_t length, const uint8_t boot_id[PTIER_ID_BYTES])
{
    if (length < PTIER_TOPIC_BYTES)
        return PTIER_PROBE_SHAKEN;
    Proxytier__V1__EventBatch *batch = proxytier__v1__event_batch__unpack(
        NULL, length - PTIER_TOPIC_BYTES, wire->buffer + PTIER_TOPIC_BYTES);
    if (!batch)
        return PTIER_PROBE_SHAKEN;
    ptier_probe_stage stage = PTIER_PROBE_SHAKEN;
    if (batch->heartbeat)
        stage = is_boot(&batch->heartbeat->boot_id, boot_id) ? PTIER_PROBE_DONE : PTIER_PROBE_OTHER;
    proxytier__v1__event_batch__free_unpacked(batch, NULL);
    return stage;
}

ptier_probe_stage
ptier_probe_wire_try(ptier_probe_wire *wire, const char *url, nng_tls_config *tls, bool events,
                     const uint8_t boot_id[PTIER_ID_BYTES], int64_t patience_ms, const char **why)
{
    ptier_probe_stage stage = PTIER_PROBE_NOTHING;
    size_t length = 0;
    wire->ipc = strncmp(url, "ipc:", 4) == 0;
    wire->deadline_ms = ptier_monotonic_ms() + patience_ms;
    int rv = dial(wire, url, tls);
    if (rv != 0) {
        *why = nng_strerror(rv);
        return stage;
    }
    if ((rv = shake_hands(wire, events)) == 0) {
        stage = PTIER_PROBE_SHAKEN;
        if (!events)
            rv = send_check(wire, patience_ms);
        if (rv == 0)
            rv = receive_message(wire, &length);
        if (rv == 0)
            stage =
                events ? judge_batch(wire, length, boot_id) : judge_reply(wire, length, boot_id);
    }
    *why = rv != 0                      ? nng_strerror(rv)
           : stage == PTIER_PROBE_OTHER ? "another daemon answers there"
                                        : "the answer is none";
    nng_stream_close(wire->stream);
    nng_stream_free(wire->stream);
    wire->stream = NULL;
    return stage;
}
