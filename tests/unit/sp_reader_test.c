/* server/sp_reader.c: frames come out whole wherever the bytes were split, and nothing else does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sp_reader.h"

#define FRAME_MAX   1000
#define FRAMES      40
#define STREAM_ROOM (FRAMES * (FRAME_MAX + PTIER_SP_HEAD_BYTES))

typedef struct seen {
    size_t count, bytes;
    size_t lengths[FRAMES];
    bool more[FRAMES];
    uint8_t content[STREAM_ROOM];
} seen;

static void
on_frame(void *context, const uint8_t *frame, size_t length, bool more)
{
    seen *s = context;
    assert_true(s->count < FRAMES);
    s->lengths[s->count] = length;
    s->more[s->count++] = more;
    memcpy(s->content + s->bytes, frame, length);
    s->bytes += length;
}

/* Reads as a socket would: into the places that the reader names. */
static ptier_status
feed(ptier_sp_reader *reader, const uint8_t *bytes, size_t count, seen *s)
{
    uint8_t scratch[4096];
    struct iovec places[2];
    assert_true(count <= sizeof scratch);
    int used = ptier_sp_reader_places(reader, scratch, sizeof scratch, places);
    size_t left = count;
    for (int i = 0; i < used && left > 0; i++) {
        size_t part = left < places[i].iov_len ? left : places[i].iov_len;
        memcpy(places[i].iov_base, bytes, part);
        bytes += part;
        left -= part;
    }
    assert_int_equal(left, 0);
    return ptier_sp_reader_take(reader, scratch, count, on_frame, s);
}

static size_t
append_frame(uint8_t *out, size_t length, uint8_t first)
{
    ptier_sp_put_head(out, length);
    for (size_t i = 0; i < length; i++)
        out[PTIER_SP_HEAD_BYTES + i] = (uint8_t)(first + i);
    return PTIER_SP_HEAD_BYTES + length;
}

/* Lengths 4, 5, ... and one that is the longest allowed. */
static size_t
make_stream(uint8_t *out)
{
    size_t length = 0;
    for (size_t i = 0; i < FRAMES; i++)
        length += append_frame(out + length, i == FRAMES / 2 ? FRAME_MAX : 4 + i, (uint8_t)i);
    return length;
}

static void
assert_whole_stream(const seen *s)
{
    size_t at = 0;
    assert_int_equal(s->count, FRAMES);
    for (size_t i = 0; i < FRAMES; i++) {
        assert_int_equal(s->lengths[i], i == FRAMES / 2 ? FRAME_MAX : 4 + i);
        for (size_t j = 0; j < s->lengths[i]; j++)
            assert_int_equal(s->content[at++], (uint8_t)(i + j));
    }
}

static void
read_in_pieces(size_t piece)
{
    static uint8_t stream[STREAM_ROOM];
    static seen s;
    ptier_sp_reader reader = {.frame_max = FRAME_MAX};
    size_t length = make_stream(stream);
    s.count = s.bytes = 0;
    for (size_t at = 0; at < length; at += piece) {
        size_t part = length - at < piece ? length - at : piece;
        assert_int_equal(feed(&reader, stream + at, part, &s), PTIER_OK);
    }
    assert_whole_stream(&s);
    assert_false(ptier_sp_reader_is_amid(&reader));
    ptier_sp_reader_fini(&reader);
}

static void
frames_come_out_whole_wherever_they_were_split(void **state)
{
    (void)state;
    for (size_t piece = 1; piece <= 64; piece++)
        read_in_pieces(piece);
    read_in_pieces(FRAME_MAX);
    read_in_pieces(4096);
}

static void
more_is_said_while_bytes_follow(void **state)
{
    (void)state;
    uint8_t bytes[200];
    seen s = {.count = 0};
    ptier_sp_reader reader = {.frame_max = FRAME_MAX};
    size_t length = append_frame(bytes, 10, 0);
    length += append_frame(bytes + length, 20, 1);
    assert_int_equal(feed(&reader, bytes, length, &s), PTIER_OK);
    assert_true(s.more[0]);
    assert_false(s.more[1]);
    assert_int_equal(feed(&reader, bytes, 12, &s), PTIER_OK);
    assert_int_equal(feed(&reader, bytes + 12, length - 12, &s), PTIER_OK);
    assert_true(s.more[2]);
    assert_false(s.more[3]);
}

static void
a_frame_that_was_begun_is_owed(void **state)
{
    (void)state;
    uint8_t bytes[200];
    seen s = {.count = 0};
    ptier_sp_reader reader = {.frame_max = FRAME_MAX};
    size_t length = append_frame(bytes, 50, 0);
    assert_false(ptier_sp_reader_is_amid(&reader));
    assert_int_equal(feed(&reader, bytes, 3, &s), PTIER_OK);
    assert_true(ptier_sp_reader_is_amid(&reader));
    assert_int_equal(feed(&reader, bytes + 3, length - 4, &s), PTIER_OK);
    assert_true(ptier_sp_reader_is_amid(&reader));
    assert_int_equal(s.count, 0);
    assert_int_equal(feed(&reader, bytes + length - 1, 1, &s), PTIER_OK);
    assert_false(ptier_sp_reader_is_amid(&reader));
    assert_int_equal(s.count, 1);
    assert_int_equal(feed(&reader, bytes, length - 1, &s), PTIER_OK);
    ptier_sp_reader_fini(&reader); /* frees what was begun */
}

static void
what_is_no_frame_is_refused(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {
        0, 3, FRAME_MAX + 1, (uint64_t)1 << 40, UINT64_MAX, -(uint64_t)40};
    uint8_t head[PTIER_SP_HEAD_BYTES];
    seen s = {.count = 0};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        ptier_sp_reader reader = {.frame_max = FRAME_MAX};
        ptier_sp_put_head(head, lengths[i]);
        assert_int_equal(feed(&reader, head, sizeof head, &s), PTIER_INVALID_ARGUMENT);
        ptier_sp_reader_fini(&reader);
    }
    ptier_sp_reader reader = {.frame_max = FRAME_MAX};
    ptier_sp_put_head(head, 10);
    head[0] = 2;
    assert_int_equal(feed(&reader, head, sizeof head, &s), PTIER_INVALID_ARGUMENT);
    assert_int_equal(s.count, 0);
    ptier_sp_reader_fini(&reader);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_come_out_whole_wherever_they_were_split),
        cmocka_unit_test(more_is_said_while_bytes_follow),
        cmocka_unit_test(a_frame_that_was_begun_is_owed),
        cmocka_unit_test(what_is_no_frame_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
