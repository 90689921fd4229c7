/* proto/record_encode.c, record_decode.c, record_list.c, keys_decode.c: beside protobuf-c, which
 * they must equal. PTIER_SEED=N is another run, PTIER_RUNS=N a longer one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "convert.h"
#include "keys_decode.h"
#include "proxytier/v1/cache.pb-c.h"
#include "record_encode.h"
#include "support/record_pairs.h"
#include "wire_check.h"
#include "support/settings.h"

#define ROOM    (128 * 1024)
#define RECORDS 4

static const ProtobufCMessageDescriptor *const types[] = {
    &proxytier__v1__get_response__descriptor, &proxytier__v1__get_many_response__descriptor,
    &proxytier__v1__pick_response__descriptor, &proxytier__v1__list_response__descriptor};
enum { GET, GET_MANY, PICK, LIST, TYPES };

static ptier_test_record drawn[RECORDS];
static uint8_t data[ROOM];

static int
setup(void **state)
{
    (void)state;
    ptier_test_draw_from(ptier_test_setting("PTIER_SEED", 1));
    return 0;
}

/* ---- encoding ---- */

static void
encoding_gives_the_bytes_of_protobuf(void **state)
{
    (void)state;
    ptier_test_record *one = &drawn[0];
    for (uint64_t run = ptier_test_setting("PTIER_RUNS", 20000); run > 0; run--) {
        ptier_proxy_message message;
        bool credentials = ptier_test_draw(2);
        ptier_test_record_draw(one);
        if (ptier_test_draw(2))
            one->record.username_token = "token";
        ptier_proxy_from_record(&message, &one->record, credentials);
        Proxytier__V1__Proxy *list[] = {&message.proxy};
        Proxytier__V1__GetManyResponse reply = PROXYTIER__V1__GET_MANY_RESPONSE__INIT;
        reply.n_proxies = 1;
        reply.proxies = list;
        static uint8_t expected[ROOM];
        size_t length = proxytier__v1__get_many_response__pack(&reply, expected);
        assert_int_equal(ptier_record_encode(&one->record, credentials, 1, data, ROOM), length);
        assert_memory_equal(data, expected, length);
    }
}

static void
encoding_never_writes_beyond_its_room(void **state)
{
    (void)state;
    for (int run = 0; run < 100; run++) {
        ptier_test_record_draw(&drawn[0]);
        size_t length = ptier_record_encode(&drawn[0].record, true, 1, data, ROOM), fits = 0;
        for (size_t room = 0; room < length + 400; room++) {
            uint8_t *exact = malloc(room + 1); /* the sanitiser watches its end */
            assert_non_null(exact);
            size_t written = ptier_record_encode(&drawn[0].record, true, 1, exact, room);
            assert_true(written == 0 || (written == length && written <= room));
            assert_true(written == 0 || memcmp(exact, data, length) == 0);
            fits += written != 0;
            free(exact);
        }
        assert_true(fits > 0);
    }
}

/* ---- decoding ---- */

/* A reply as our daemons send it. */
static size_t
draw_reply(unsigned type)
{
    size_t count = type == GET ? ptier_test_draw(2) : ptier_test_draw(RECORDS + 1), length = 0;
    for (size_t i = 0; i < count; i++) {
        ptier_test_record_draw(&drawn[i]);
        length += ptier_record_encode(&drawn[i].record, ptier_test_draw(2), 1, data + length,
                                      ROOM - length);
    }
    switch (type) {
    case GET: {
        Proxytier__V1__GetResponse rest = PROXYTIER__V1__GET_RESPONSE__INIT;
        rest.as_of = ptier_test_draw(100000);
        rest.tier = (Proxytier__V1__Tier)ptier_test_draw(4);
        return length + proxytier__v1__get_response__pack(&rest, data + length);
    }
    case GET_MANY: {
        Proxytier__V1__GetManyResponse rest = PROXYTIER__V1__GET_MANY_RESPONSE__INIT;
        rest.as_of = ptier_test_draw(100000);
        rest.unreadable = ptier_test_draw(3);
        return length + proxytier__v1__get_many_response__pack(&rest, data + length);
    }
    case PICK: {
        Proxytier__V1__PickResponse rest = PROXYTIER__V1__PICK_RESPONSE__INIT;
        rest.as_of = ptier_test_draw(100000);
        return length + proxytier__v1__pick_response__pack(&rest, data + length);
    }
    default: {
        Proxytier__V1__ListResponse rest = PROXYTIER__V1__LIST_RESPONSE__INIT;
        rest.next_page_token = (char *)(uintptr_t)(ptier_test_draw(2) ? "0123456789abcdef" : "");
        rest.as_of = ptier_test_draw(100000);
        return length + proxytier__v1__list_response__pack(&rest, data + length);
    }
    }
}

static void
replies_of_daemons_take_the_quick_way(void **state)
{
    (void)state;
    for (uint64_t run = ptier_test_setting("PTIER_RUNS", 20000); run > 0; run--) {
        unsigned type = ptier_test_draw(TYPES);
        size_t length = draw_reply(type);
        bool taken;
        assert_true(ptier_test_ways_agree(types[type], data, length, &taken));
        assert_true(taken);
    }
}

static void
both_ways_agree_on_changed_replies(void **state)
{
    (void)state;
    uint64_t runs = ptier_test_setting("PTIER_RUNS", 100000), taken = 0;
    size_t length = 0;
    for (uint64_t run = 0; run < runs; run++) {
        unsigned type = ptier_test_draw(TYPES);
        bool took;
        if (run % 4 == 0 || length == 0)
            length = draw_reply(type);
        if (length == 0)
            continue;
        length = ptier_test_change(data, length, ROOM);
        uint8_t *exact = malloc(length); /* the sanitiser watches its end */
        assert_non_null(exact);
        memcpy(exact, data, length);
        assert_true(ptier_test_ways_agree(types[type], exact, length, &took));
        free(exact);
        taken += took;
    }
    assert_in_range(taken, runs / 50, runs - runs / 50); /* they got somewhere */
}

/* What daemons do not send, and protobuf takes. */
static void
other_forms_are_read_the_long_way(void **state)
{
    (void)state;
    static const struct {
        const char *what, *bytes;
        size_t length, count;
    } forms[] = {
#define FORM(what, text, count) {what, text, sizeof text - 1, count}
        FORM("url before key", "\x0a\x07\x12\x02yz\x0a\x01k", 1),
        FORM("key twice", "\x0a\x06\x0a\x01x\x0a\x01k", 1),
        FORM("longer tag", "\x0a\x04\x8a\x00\x01k", 1),
        FORM("as_of before the record", "\x10\x05\x0a\x03\x0a\x01k", 1),
        FORM("newer fields", "\x0a\x06\x0a\x01k\xb2\x01\x00\x20\x05", 1),
        FORM("no record", "\x10\x05", 0),
#undef FORM
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        ptier_error error = {.message = ""};
        ptier_arena arena;
        ptier_arena_init(&arena);
        ptier_arena_reset(&arena, ROOM);
        const ptier_record_list *list = ptier_record_list_unpack(
            types[GET_MANY], &arena, (const uint8_t *)forms[i].bytes, forms[i].length, &error);
        if (!list)
            fail_msg("%s: %s", forms[i].what, error.message);
        assert_int_equal(list->count, forms[i].count);
        if (list->count)
            assert_string_equal(list->records[0].key, "k");
        ptier_arena_fini(&arena);
    }
}

static void
refused_replies_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        const char *why;
    } wrong[] = {
#define WRONG(text, why) {text, sizeof text - 1, why}
        WRONG("\x0a\x02\x12\x00", "no key"),
        WRONG("\x0a\x05\x0a\x01k\x40\x06", "health"),
        WRONG("\x0a\x03\x0a\x01\x00", "NUL"),
        WRONG("\x0a\x03\x0a\x01\x80", "UTF-8"),
        WRONG("\x0a\x05\x0a\x01k", "not a"),
        WRONG("\x0a\x0a\x0a\x01k\x38\xff\xff\xff\xff\xff\x7f", "ttl_ms"),
#undef WRONG
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ptier_error error = {.message = ""};
        ptier_arena arena;
        ptier_arena_init(&arena);
        ptier_arena_reset(&arena, ROOM);
        assert_null(ptier_record_list_unpack(
            types[GET_MANY], &arena, (const uint8_t *)wrong[i].bytes, wrong[i].length, &error));
        if (!strstr(error.message, wrong[i].why))
            fail_msg("%zu: \"%s\" does not say \"%s\"", i, error.message, wrong[i].why);
        ptier_arena_fini(&arena);
    }
}

/* Two bytes of a reply must not become a whole record of memory each. */
static void
replies_are_bounded_by_the_budget(void **state)
{
    (void)state;
    size_t length = 0;
    for (; length + 5 <= ROOM; length += 5)
        memcpy(data + length, "\x0a\x03\x0a\x01k", 5);
    ptier_error error = {.message = ""};
    ptier_arena arena;
    ptier_arena_init(&arena);
    ptier_arena_reset(&arena, ((size_t)64 << 10) + length * 32);
    assert_null(ptier_record_list_unpack(types[LIST], &arena, data, length, &error));
    assert_non_null(strstr(error.message, "memory"));
    assert_true(arena.used <= arena.budget);
    ptier_arena_fini(&arena);
}

/* ---- requests that are lists of keys ---- */

static size_t
draw_request(void)
{
    char *keys[RECORDS];
    Proxytier__V1__GetManyRequest request = PROXYTIER__V1__GET_MANY_REQUEST__INIT;
    request.keys = keys;
    request.n_keys = ptier_test_draw(RECORDS + 1);
    for (size_t i = 0; i < request.n_keys; i++) {
        ptier_test_record_draw(&drawn[i]);
        keys[i] = (char *)(uintptr_t)drawn[i].record.key;
    }
    return proxytier__v1__get_many_request__pack(&request, data);
}

/* False: the quick way took what the check refuses, or made something else of it. */
static bool
keys_agree(const uint8_t *bytes, size_t length, bool *taken)
{
    ptier_arena arena;
    ptier_arena_init(&arena);
    ptier_arena_reset(&arena, ROOM);
    const Proxytier__V1__GetManyRequest *quick =
        (const void *)ptier_keys_decode(&arena, bytes, length);
    *taken = quick != NULL;
    bool agree = true;
    if (quick) {
        Proxytier__V1__GetManyRequest *careful =
            proxytier__v1__get_many_request__unpack(NULL, length, bytes);
        agree = careful && quick->n_keys == careful->n_keys &&
                ptier_wire_check(careful->base.descriptor, bytes, length, NULL) == PTIER_OK;
        for (size_t i = 0; agree && i < quick->n_keys; i++)
            agree = strcmp(quick->keys[i], careful->keys[i]) == 0;
        proxytier__v1__get_many_request__free_unpacked(careful, NULL);
    }
    ptier_arena_fini(&arena);
    return agree;
}

static void
keys_are_read_as_protobuf_reads_them(void **state)
{
    (void)state;
    uint64_t runs = ptier_test_setting("PTIER_RUNS", 40000), changed = 0, taken = 0;
    for (uint64_t run = 0; run < runs; run++) {
        size_t length = draw_request();
        bool took;
        assert_true(keys_agree(data, length, &took));
        assert_true(took);
        if (length == 0)
            continue;
        length = ptier_test_change(data, length, ROOM);
        uint8_t *exact = malloc(length); /* the sanitiser watches its end */
        assert_non_null(exact);
        memcpy(exact, data, length);
        assert_true(keys_agree(exact, length, &took));
        free(exact);
        changed++;
        taken += took;
    }
    assert_in_range(taken, changed / 50, changed - changed / 50);
}

static void
only_what_is_within_the_limits_is_read_quickly(void **state)
{
    (void)state;
    static char keys[PTIER_BATCH_MAX + 1][2];
    static char *list[PTIER_BATCH_MAX + 1];
    static uint8_t packed[4 * (PTIER_BATCH_MAX + 1)];
    char longer[PTIER_KEY_MAX + 2];
    bool took;
    Proxytier__V1__GetManyRequest request = PROXYTIER__V1__GET_MANY_REQUEST__INIT;
    request.keys = list;
    for (size_t i = 0; i <= PTIER_BATCH_MAX; i++) {
        keys[i][0] = 'k';
        list[i] = keys[i];
    }
    ptier_arena arena;
    ptier_arena_init(&arena);
    ptier_arena_reset(&arena, 16 * sizeof packed);
    request.n_keys = PTIER_BATCH_MAX;
    size_t length = proxytier__v1__get_many_request__pack(&request, packed);
    assert_non_null(ptier_keys_decode(&arena, packed, length));
    request.n_keys++;
    length = proxytier__v1__get_many_request__pack(&request, packed);
    assert_null(ptier_keys_decode(&arena, packed, length));
    ptier_arena_fini(&arena);

    memset(longer, 'k', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    list[0] = longer;
    request.n_keys = 1;
    assert_true(keys_agree(data, proxytier__v1__get_many_request__pack(&request, data), &took));
    assert_false(took);
    longer[PTIER_KEY_MAX] = '\0';
    assert_true(keys_agree(data, proxytier__v1__get_many_request__pack(&request, data), &took));
    assert_true(took);
}

/* ---- texts ---- */

static void
texts_are_plain_in_every_place_or_looked_at_closely(void **state)
{
    (void)state;
    uint8_t text[40];
    for (size_t length = 0; length < sizeof text; length++) {
        memset(text, 'a', sizeof text);
        assert_true(ptier_wire_text_valid(text, length));
        for (size_t at = 0; at < length; at++) {
            static const uint8_t wrong[] = {0x00, 0x80, 0xff};
            for (size_t i = 0; i < sizeof wrong; i++) {
                text[at] = wrong[i];
                assert_false(ptier_wire_text_valid(text, length));
            }
            text[at] = 0xc3;
            assert_false(ptier_wire_text_valid(text, length));
            if (at + 1 < length) {
                text[at + 1] = 0xa9;
                assert_true(ptier_wire_text_valid(text, length));
                text[at + 1] = 'a';
            }
            text[at] = 'a';
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(encoding_gives_the_bytes_of_protobuf, setup),
        cmocka_unit_test_setup(encoding_never_writes_beyond_its_room, setup),
        cmocka_unit_test_setup(replies_of_daemons_take_the_quick_way, setup),
        cmocka_unit_test_setup(both_ways_agree_on_changed_replies, setup),
        cmocka_unit_test(other_forms_are_read_the_long_way),
        cmocka_unit_test(refused_replies_say_why),
        cmocka_unit_test(replies_are_bounded_by_the_budget),
        cmocka_unit_test_setup(keys_are_read_as_protobuf_reads_them, setup),
        cmocka_unit_test(only_what_is_within_the_limits_is_read_quickly),
        cmocka_unit_test(texts_are_plain_in_every_place_or_looked_at_closely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
