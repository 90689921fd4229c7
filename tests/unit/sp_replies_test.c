/* Replies are cut out of the bytes of SP over ipc however these come, and nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sp_replies.h"
#include "sp_wire.h"

#define MAX   200000
#define COUNT 7

/* With more than the reader's buffer holds, and replies around what it thinks is large. */
static const size_t lengths[COUNT] = {5, 0, 300, 70000, 8192, 1, 66000};

static uint8_t stream[MAX];
static size_t stream_length;

static uint8_t
byte_of(size_t reply, size_t at)
{
    return (uint8_t)(reply * 31 + at * 7 + at / 251);
}

static void
make_stream(void)
{
    uint8_t *out = stream;
    for (size_t i = 0; i < COUNT; i++) {
        ptier_sp_put_head(out, lengths[i] + PTIER_SP_ID_BYTES);
        out += PTIER_SP_HEAD_BYTES;
        const uint8_t id[PTIER_SP_ID_BYTES] = {0x80, 0, 1, (uint8_t)i};
        memcpy(out, id, sizeof id);
        out += sizeof id;
        for (size_t k = 0; k < lengths[i]; k++)
            *out++ = byte_of(i, k);
    }
    stream_length = (size_t)(out - stream);
}

static void
expect_reply(size_t i, uint32_t id, nng_msg *message)
{
    assert_true(i < COUNT);
    assert_int_equal(id, 0x80000100 + i);
    assert_int_equal(nng_msg_len(message), lengths[i]);
    const uint8_t *body = nng_msg_body(message);
    for (size_t k = 0; k < lengths[i]; k++)
        assert_int_equal(body[k], byte_of(i, k));
    nng_msg_free(message);
}

/* As recvmsg would. */
static size_t
feed(ptier_sp_replies *reader, const uint8_t *bytes, size_t length)
{
    struct iovec room[2];
    int count = ptier_sp_replies_room(reader, room);
    size_t fed = 0;
    for (int i = 0; i < count; i++) {
        size_t part = length - fed < room[i].iov_len ? length - fed : room[i].iov_len;
        memcpy(room[i].iov_base, bytes + fed, part);
        fed += part;
    }
    assert_true(fed > 0);
    ptier_sp_replies_take(reader, fed);
    return fed;
}

/* All of the stream, at most so many bytes at a time. */
static void
read_in_pieces(ptier_sp_replies *reader, size_t (*piece)(void *), void *context)
{
    size_t got = 0;
    for (size_t at = 0; at < stream_length;) {
        size_t length = piece(context);
        uint32_t id;
        nng_msg *message;
        int rv;
        at += feed(reader, stream + at, length < stream_length - at ? length : stream_length - at);
        while ((rv = ptier_sp_replies_next(reader, &id, &message)) == 0)
            expect_reply(got++, id, message);
        assert_int_equal(rv, NNG_EAGAIN);
    }
    assert_int_equal(got, COUNT);
    for (size_t i = 0; i < sizeof reader->buffer; i++)
        assert_int_equal(reader->buffer[i], 0); /* what passed through is wiped */
}

static size_t
same(void *context)
{
    return *(size_t *)context;
}

static size_t
random_piece(void *context)
{
    unsigned *seed = context;
    return 1 + (size_t)rand_r(seed) % (rand_r(seed) % 3 == 0 ? 30000 : 20);
}

static void
replies_are_read_in_pieces_of_any_size(void **state)
{
    static ptier_sp_replies reader;
    (void)state;
    make_stream();
    for (size_t size = 1; size <= stream_length; size = size < 20 ? size + 1 : size * 2 + 1) {
        ptier_sp_replies_init(&reader, MAX);
        read_in_pieces(&reader, same, &size);
        ptier_sp_replies_fini(&reader);
    }
    for (unsigned seed = 1; seed <= 50; seed++) {
        unsigned state_of_seed = seed;
        ptier_sp_replies_init(&reader, MAX);
        read_in_pieces(&reader, random_piece, &state_of_seed);
        ptier_sp_replies_fini(&reader);
    }
}

static void
expect_error(const uint8_t *bytes, size_t length, int error)
{
    static ptier_sp_replies reader;
    uint32_t id;
    nng_msg *message;
    ptier_sp_replies_init(&reader, MAX);
    (void)feed(&reader, bytes, length);
    assert_int_equal(ptier_sp_replies_next(&reader, &id, &message), error);
    ptier_sp_replies_fini(&reader);
}

static void
what_is_no_reply_is_refused_before_there_is_room_for_it(void **state)
{
    uint8_t head[PTIER_SP_HEAD_BYTES];
    (void)state;
    ptier_sp_put_head(head, MAX);
    expect_error(head, sizeof head, NNG_EAGAIN);
    ptier_sp_put_head(head, MAX + 1);
    expect_error(head, sizeof head, NNG_EMSGSIZE);
    ptier_sp_put_head(head, UINT64_MAX);
    expect_error(head, sizeof head, NNG_EMSGSIZE);
    ptier_sp_put_head(head, PTIER_SP_ID_BYTES - 1);
    expect_error(head, sizeof head, NNG_EPROTO);
    ptier_sp_put_head(head, 100);
    head[0] = 2;
    expect_error(head, sizeof head, NNG_EPROTO);
}

static void
a_reply_that_ends_amid_is_let_go(void **state)
{
    static ptier_sp_replies reader;
    uint32_t id;
    nng_msg *message;
    (void)state;
    make_stream();
    ptier_sp_replies_init(&reader, MAX);
    (void)feed(&reader, stream, 100);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ptier_sp_replies_next(&reader, &id, &message), 0);
        expect_reply((size_t)i, id, message);
    }
    assert_int_equal(ptier_sp_replies_next(&reader, &id, &message), NNG_EAGAIN);
    ptier_sp_replies_fini(&reader); /* the leak checker sees whether it is */
    (void)feed(&reader, stream, 18);
    assert_int_equal(ptier_sp_replies_next(&reader, &id, &message), 0); /* from the beginning */
    expect_reply(0, id, message);
    ptier_sp_replies_fini(&reader);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_are_read_in_pieces_of_any_size),
        cmocka_unit_test(what_is_no_reply_is_refused_before_there_is_room_for_it),
        cmocka_unit_test(a_reply_that_ends_amid_is_let_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
