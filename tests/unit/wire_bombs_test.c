/* proto/wire_check.c against messages that swell or nest when they are unpacked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "framing.h"
#include "methods.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "support/bombs.h"
#include "wire_check.h"

#define BODY_MAX (PTIER_MESSAGE_MAX - PTIER_HEADER_MAX)

static const ProtobufCServiceDescriptor *const services[] = {
    &proxytier__v1__proxy_cache__descriptor, &proxytier__v1__events__descriptor,
    &proxytier__v1__admin__descriptor,       &proxytier__v1__server_info__descriptor,
    &proxytier__v1__health__descriptor,      &proxytier__v1__reflection__descriptor,
};

/* Of the message and all in it; fails at a recursive one. */
static void
look_at(const ProtobufCMessageDescriptor *schema, unsigned depth)
{
    assert_true(depth <= PTIER_WIRE_DEPTH_MAX);
    assert_int_equal(ptier_wire_check(schema, NULL, 0, NULL), PTIER_OK); /* not too many fields */
    for (unsigned i = 0; i < schema->n_fields; i++)
        if (schema->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            look_at(schema->fields[i].descriptor, depth + 1);
}

static void
no_message_of_ours_is_recursive(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof services / sizeof *services; s++)
        for (unsigned m = 0; m < services[s]->n_methods; m++) {
            look_at(services[s]->methods[m].input, 0);
            look_at(services[s]->methods[m].output, 0);
        }
    look_at(&proxytier__v1__request_header__descriptor, 0);
    look_at(&proxytier__v1__response_header__descriptor, 0);
    look_at(&proxytier__v1__event_batch__descriptor, 0);
}

static size_t
write_header(uint8_t *out, const char *method)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = (char *)(uintptr_t)method;
    size_t length = proxytier__v1__request_header__pack(&header, out + PTIER_FRAME_PREFIX);
    ptier_frame_prefix(out, length);
    return PTIER_FRAME_PREFIX + length;
}

static void
bombs_are_refused_before_anything_is_allocated(void **state)
{
    (void)state;
    ptier_service service = {0};
    const ptier_peer peer = {.role = PTIER_ROLE_ADMIN};
    uint8_t *message = malloc(PTIER_MESSAGE_MAX);
    assert_non_null(message);
    for (size_t i = 0; i < bomb_count; i++) {
        ptier_call call;
        ptier_bytes out = {0};
        size_t length = write_header(message, bombs[i].method);
        length += bombs[i].fill(message + length, BODY_MAX);
        ptier_call_init(&call, &service);
        assert_int_equal(ptier_call_begin(&call, &peer, ptier_monotonic_ms(), message, length),
                         PTIER_OK);
        ptier_call_run(&call);
        if (call.status != PTIER_INVALID_ARGUMENT || !strstr(call.error.message, bombs[i].message))
            fail_msg("%s: %d %s", bombs[i].name, (int)call.status, call.error.message);
        assert_false(call.executed);
        assert_int_equal(call.arena.used, 0);
        assert_int_equal(ptier_call_finish(&call, &out), PTIER_OK);
        ptier_bytes_fini(&out);
        ptier_call_fini(&call);
    }
    free(message);
}

/* What the check lets through at most: its struct form is bounded too. */
static void
largest_batch_of_small_items_stays_within_its_budget(void **state)
{
    (void)state;
    const size_t labels = PTIER_WIRE_NESTED_MAX, item = 3 + 2 * labels;
    size_t length = PTIER_BATCH_MAX * item;
    uint8_t *body = malloc(length), *at = body;
    assert_non_null(body);
    for (size_t i = 0; i < PTIER_BATCH_MAX; i++) {
        *at++ = 0x0a;
        *at++ = (uint8_t)(2 * labels | 0x80);
        *at++ = (uint8_t)(2 * labels >> 7);
        for (size_t k = 0; k < labels; k++) {
            *at++ = 0x5a;
            *at++ = 0;
        }
    }
    const ProtobufCMessageDescriptor *schema = &proxytier__v1__put_many_request__descriptor;
    assert_int_equal(ptier_wire_check(schema, body, length, NULL), PTIER_OK);
    ptier_arena *arena = ptier_arena_create((size_t)128 * 1024 * 1024);
    assert_non_null(arena);
    assert_non_null(protobuf_c_message_unpack(schema, &arena->allocator, length, body));
    assert_true(arena->used < (size_t)100 * 1024 * 1024);
    ptier_arena_destroy(arena);
    free(body);
}

static void
numbers_that_would_be_cut_are_refused(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *list = &proxytier__v1__list_request__descriptor;
    const uint8_t largest[] = {0x10, 0xff, 0xff, 0xff, 0xff, 0x0f};
    const uint8_t over[] = {0x10, 0x80, 0x80, 0x80, 0x80, 0x10};
    ptier_error error;
    assert_int_equal(ptier_wire_check(list, largest, sizeof largest, &error), PTIER_OK);
    assert_int_equal(ptier_wire_check(list, over, sizeof over, &error), PTIER_INVALID_ARGUMENT);
    assert_string_equal(error.message, "field page_size is over 4294967295");
}

static void
replies_may_say_words_of_newer_daemons(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *reply = &proxytier__v1__check_response__descriptor;
    const uint8_t newer[] = {0x08, 99}, bad_name[] = {0x12, 3, 0x0a, 1, 0xff};
    assert_int_equal(ptier_wire_check_reply(reply, newer, sizeof newer, NULL), PTIER_OK);
    assert_int_equal(ptier_wire_check(reply, newer, sizeof newer, NULL), PTIER_INVALID_ARGUMENT);
    assert_int_equal(ptier_wire_check_reply(reply, bad_name, sizeof bad_name, NULL),
                     PTIER_INVALID_ARGUMENT);
}

static void
text_is_made_valid(void **state)
{
    (void)state;
    char text[] = "a\xc3\xa4\xff\xe2\x82", whole[] = "\xe2\x82\xac";
    ptier_utf8_clean(text);
    assert_string_equal(text, "a\xc3\xa4???");
    ptier_utf8_clean(whole);
    assert_string_equal(whole, "\xe2\x82\xac");
}

/* A method's name may be cut in the middle of a letter by the error that quotes it. */
static void
replies_are_valid_whatever_they_quote(void **state)
{
    (void)state;
    ptier_service service = {0};
    const ptier_peer peer = {.role = PTIER_ROLE_ADMIN};
    uint8_t message[512];
    char method[200];
    for (size_t lead = 0; lead < 3; lead++) {
        ptier_call call;
        ptier_bytes out = {0};
        ptier_frame frame;
        memset(method, 'x', lead);
        for (size_t i = lead; i + 3 < sizeof method; i += 3)
            memcpy(method + i, "\xe2\x82\xac", 4);
        ptier_call_init(&call, &service);
        assert_int_equal(ptier_call_begin(&call, &peer, ptier_monotonic_ms(), message,
                                          write_header(message, method)),
                         PTIER_UNIMPLEMENTED);
        assert_int_equal(ptier_call_finish(&call, &out), PTIER_OK);
        assert_int_equal(ptier_frame_split(out.data, out.length, &frame, NULL), PTIER_OK);
        assert_int_equal(ptier_wire_check_reply(&proxytier__v1__response_header__descriptor,
                                                frame.header, frame.header_length, NULL),
                         PTIER_OK);
        ptier_bytes_fini(&out);
        ptier_call_fini(&call);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_message_of_ours_is_recursive),
        cmocka_unit_test(bombs_are_refused_before_anything_is_allocated),
        cmocka_unit_test(largest_batch_of_small_items_stays_within_its_budget),
        cmocka_unit_test(numbers_that_would_be_cut_are_refused),
        cmocka_unit_test(replies_may_say_words_of_newer_daemons),
        cmocka_unit_test(text_is_made_valid),
        cmocka_unit_test(replies_are_valid_whatever_they_quote),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
