/* proto/framing.c: u32 big-endian header length | header | body. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <stdlib.h>

#include "framing.h"

static void
frame_splits_into_header_and_body(void **state)
{
    (void)state;
    uint8_t message[9] = {0, 0, 0, 2, 'h', 'd', 'b', 'o', 'y'};
    ptier_frame frame;
    assert_int_equal(ptier_frame_split(message, sizeof message, &frame, NULL), PTIER_OK);
    assert_ptr_equal(frame.header, message + 4);
    assert_int_equal(frame.header_length, 2);
    assert_ptr_equal(frame.body, message + 6);
    assert_int_equal(frame.body_length, 3);
}

static void
frame_prefix_is_big_endian_and_is_read_back(void **state)
{
    (void)state;
    uint8_t *message = calloc(1, PTIER_FRAME_PREFIX + 0x1234);
    assert_non_null(message);
    ptier_frame_prefix(message, 0x1234);
    assert_int_equal(message[2], 0x12);
    assert_int_equal(message[3], 0x34);
    ptier_frame frame;
    assert_int_equal(ptier_frame_split(message, PTIER_FRAME_PREFIX + 0x1234, &frame, NULL),
                     PTIER_OK);
    assert_int_equal(frame.header_length, 0x1234);
    assert_int_equal(frame.body_length, 0);
    free(message);
}

static void
short_messages_are_no_frames(void **state)
{
    (void)state;
    uint8_t message[4] = {0, 0, 0, 0};
    ptier_frame frame;
    ptier_error error;
    for (size_t length = 0; length < PTIER_FRAME_PREFIX; length++)
        assert_int_equal(ptier_frame_split(message, length, &frame, &error),
                         PTIER_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "too short"));
    assert_int_equal(ptier_frame_split(message, 4, &frame, &error), PTIER_OK);
    assert_int_equal(frame.header_length, 0);
    assert_int_equal(frame.body_length, 0);
}

static void
header_lengths_beyond_the_message_or_the_limit_are_refused(void **state)
{
    (void)state;
    uint8_t beyond[6] = {0, 0, 0, 3, 'a', 'b'};
    uint8_t huge[6] = {0xff, 0xff, 0xff, 0xff, 'a', 'b'};
    ptier_frame frame;
    ptier_error error;
    assert_int_equal(ptier_frame_split(beyond, sizeof beyond, &frame, &error),
                     PTIER_INVALID_ARGUMENT);
    assert_string_equal(error.message, "header length 3 does not fit a message of 6 bytes");
    assert_int_equal(ptier_frame_split(huge, sizeof huge, &frame, &error), PTIER_INVALID_ARGUMENT);
    size_t length = PTIER_FRAME_PREFIX + PTIER_HEADER_MAX + 1;
    uint8_t *large = calloc(1, length);
    assert_non_null(large);
    ptier_frame_prefix(large, PTIER_HEADER_MAX + 1);
    assert_int_equal(ptier_frame_split(large, length, &frame, &error), PTIER_INVALID_ARGUMENT);
    assert_string_equal(error.message, "header length 8193 is over the limit of 8192");
    ptier_frame_prefix(large, PTIER_HEADER_MAX);
    assert_int_equal(ptier_frame_split(large, length, &frame, &error), PTIER_OK);
    free(large);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frame_splits_into_header_and_body),
        cmocka_unit_test(frame_prefix_is_big_endian_and_is_read_back),
        cmocka_unit_test(short_messages_are_no_frames),
        cmocka_unit_test(header_lengths_beyond_the_message_or_the_limit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
