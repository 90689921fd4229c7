/* See sp_replies.h. */
#include "sp_replies.h"

#include <string.h>

#include "sp_wire.h"

#define FRAME_BYTES (PTIER_SP_HEAD_BYTES + PTIER_SP_ID_BYTES)
#define LARGE_BYTES 8192
#define TASTE_BYTES                                                                                \
    1024 /* what is read of a reply that is probably large before it has a place                   \
          */

void
ptier_sp_replies_init(ptier_sp_replies *r, size_t reply_max)
{
    r->max = reply_max;
    r->start = r->end = 0;
    r->message = NULL;
    r->filled = 0;
    r->large = false;
}

void
ptier_sp_replies_fini(ptier_sp_replies *r)
{
    if (r->message) {
        explicit_bzero(nng_msg_body(r->message), r->filled);
        nng_msg_free(r->message);
    }
    explicit_bzero(r->buffer, r->end);
    ptier_sp_replies_init(r, r->max);
}

int
ptier_sp_replies_room(ptier_sp_replies *r, struct iovec room[2])
{
    int count = 0;
    size_t limit = r->large ? TASTE_BYTES : sizeof r->buffer;
    if (r->message)
        room[count++] = (struct iovec){(uint8_t *)nng_msg_body(r->message) + r->filled,
                                       nng_msg_len(r->message) - r->filled};
    /* Without a begun reply the buffer has at most the beginning of a head. */
    room[count++] = (struct iovec){r->buffer + r->end, limit - r->end};
    return count;
}

void
ptier_sp_replies_take(ptier_sp_replies *r, size_t length)
{
    if (r->message) {
        size_t missing = nng_msg_len(r->message) - r->filled;
        size_t taken = length < missing ? length : missing;
        r->filled += taken;
        length -= taken;
    }
    r->end += length;
}

/* The buffer's first `length` bytes are not needed any more. */
static void
consume(ptier_sp_replies *r, size_t length)
{
    explicit_bzero(r->buffer + r->start, length);
    r->start += length;
    if (r->start == r->end)
        r->start = r->end = 0;
}

/* Less than a head and an id: it moves to the beginning. */
static int
want_more(ptier_sp_replies *r)
{
    size_t there = r->end - r->start;
    if (r->start > 0) {
        uint8_t rest[FRAME_BYTES];
        memcpy(rest, r->buffer + r->start, there);
        explicit_bzero(r->buffer + r->start, there);
        memcpy(r->buffer, rest, there);
        r->start = 0;
        r->end = there;
    }
    return NNG_EAGAIN;
}

static uint32_t
get_id(const uint8_t *in)
{
    return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

/* Begins the next reply with what is there of it. 0 or an error. */
static int
begin(ptier_sp_replies *r)
{
    uint64_t length;
    const uint8_t *in = r->buffer + r->start;
    size_t there = r->end - r->start;
    if (there < PTIER_SP_HEAD_BYTES)
        return want_more(r);
    if (!ptier_sp_get_head(in, &length) || length < PTIER_SP_ID_BYTES)
        return NNG_EPROTO;
    if (length > r->max)
        return NNG_EMSGSIZE;
    if (there < FRAME_BYTES)
        return want_more(r);
    size_t body = (size_t)length - PTIER_SP_ID_BYTES;
    if (nng_msg_alloc(&r->message, body) != 0) {
        r->message = NULL;
        return NNG_ENOMEM;
    }
    r->id = get_id(in + PTIER_SP_HEAD_BYTES);
    r->filled = there - FRAME_BYTES < body ? there - FRAME_BYTES : body;
    r->large = body >= LARGE_BYTES;
    if (r->filled > 0)
        memcpy(nng_msg_body(r->message), in + FRAME_BYTES, r->filled);
    consume(r, FRAME_BYTES + r->filled);
    return 0;
}

int
ptier_sp_replies_next(ptier_sp_replies *r, uint32_t *id, nng_msg **message)
{
    int rv = r->message ? 0 : begin(r);
    if (rv != 0)
        return rv;
    if (r->filled < nng_msg_len(r->message))
        return NNG_EAGAIN;
    *id = r->id;
    *message = r->message;
    r->message = NULL;
    return 0;
}
