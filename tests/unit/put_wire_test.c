/* PutMany's requests and replies by the quick ways (record_decode.c, record_encode.c,
 * results_decode.c): beside protobuf-c, which they must equal. PTIER_SEED=N is another run,
 * PTIER_RUNS=N a longer one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "convert.h"
#include "proxytier/v1/cache.pb-c.h"
#include "record_encode.h"
#include "results_decode.h"
#include "support/record_pairs.h"
#include "support/settings.h"
#include "unpack.h"
#include "wire_check.h"

#define ROOM   (128 * 1024)
#define BUDGET ((size_t)16 * 1024 * 1024)
#define ITEMS  4

static ptier_test_record drawn[ITEMS];
static uint8_t data[ROOM];

static int
setup(void **state)
{
    (void)state;
    ptier_test_draw_from(ptier_test_setting("PTIER_SEED", 1));
    return 0;
}

/* Runs `agree` on messages as they are made, and on changed ones. */
static void
compare_ways(size_t (*make)(void), bool (*agree)(const uint8_t *bytes, size_t length, bool *taken))
{
    uint64_t runs = ptier_test_setting("PTIER_RUNS", 40000), changed = 0, taken = 0;
    for (uint64_t run = 0; run < runs; run++) {
        bool took;
        size_t length = make();
        assert_true(agree(data, length, &took));
        assert_true(took);
        if (length == 0)
            continue;
        length = ptier_test_change(data, length, ROOM);
        uint8_t *exact = malloc(length); /* the sanitiser watches its end */
        assert_non_null(exact);
        memcpy(exact, data, length);
        assert_true(agree(exact, length, &took));
        free(exact);
        changed++;
        taken += took;
    }
    assert_in_range(taken, changed / 50, changed - changed / 50); /* they got somewhere */
}

/* ---- requests ---- */

static size_t
make_request(void)
{
    Proxytier__V1__PutManyRequest rest = PROXYTIER__V1__PUT_MANY_REQUEST__INIT;
    size_t length = 0;
    for (size_t count = ptier_test_draw(ITEMS + 1), i = 0; i < count; i++) {
        ptier_record *record = &drawn[i].record;
        ptier_test_record_draw(&drawn[i]);
        if (ptier_test_draw(2))
            record->key = NULL; /* to be derived */
        if (ptier_test_draw(4) == 0)
            record->username_token = record->password_token = "token";
        length += ptier_record_encode(record, true, 1, data + length, ROOM - length);
    }
    rest.durability = (Proxytier__V1__Durability)ptier_test_draw(4);
    rest.mode = (Proxytier__V1__PutMode)ptier_test_draw(2);
    rest.restore = ptier_test_draw(2);
    return length + proxytier__v1__put_many_request__pack(&rest, data + length);
}

static bool
same_request(const Proxytier__V1__PutManyRequest *quick, const ptier_record *records, size_t count,
             const uint8_t *bytes, size_t length)
{
    Proxytier__V1__PutManyRequest *careful =
        proxytier__v1__put_many_request__unpack(NULL, length, bytes);
    bool same = careful && careful->n_proxies == count && quick->n_proxies == 0 &&
                careful->durability == quick->durability && careful->mode == quick->mode &&
                careful->restore == quick->restore &&
                ptier_wire_check(careful->base.descriptor, bytes, length, NULL) == PTIER_OK;
    for (size_t i = 0; same && i < count; i++) {
        ptier_label labels[PTIER_LABELS_MAX];
        ptier_record record;
        same = ptier_record_from_proxy(&record, labels, careful->proxies[i], NULL) == PTIER_OK &&
               ptier_test_records_equal(&record, &records[i]);
    }
    proxytier__v1__put_many_request__free_unpacked(careful, NULL);
    return same;
}

static bool
requests_agree(const uint8_t *bytes, size_t length, bool *taken)
{
    ptier_record *records;
    size_t count;
    ptier_arena arena;
    ptier_arena_init(&arena);
    ptier_arena_reset(&arena, BUDGET);
    const Proxytier__V1__PutManyRequest *quick =
        (const void *)ptier_puts_decode(&arena, bytes, length, &records, &count);
    *taken = quick != NULL;
    bool agree = !quick || same_request(quick, records, count, bytes, length);
    ptier_arena_fini(&arena);
    return agree;
}

static void
requests_are_read_as_protobuf_reads_them(void **state)
{
    (void)state;
    compare_ways(make_request, requests_agree);
}

static void
other_requests_take_the_long_way(void **state)
{
    (void)state;
    static const struct {
        const char *what, *bytes;
        size_t length;
    } forms[] = {
#define FORM(what, text) {what, text, sizeof text - 1}
        FORM("url before key", "\x0a\x07\x12\x02yz\x0a\x01k"),
        FORM("a newer field", "\x0a\x06\x0a\x01k\xb2\x01\x00"),
        FORM("a newer field of a label", "\x0a\x0a\x0a\x01k\x5a\x05\x0a\x01n\x18\x01"),
        FORM("a label without name", "\x0a\x05\x0a\x01k\x5a\x00"),
        FORM("a TTL over the limit", "\x0a\x0a\x0a\x01k\x38\xff\xff\xff\xff\xff\x7f"),
        FORM("an unknown health", "\x0a\x05\x0a\x01k\x40\x06"),
        FORM("NUL in a key", "\x0a\x03\x0a\x01\x00"),
        FORM("cut off", "\x0a\x05\x0a\x01k"),
#undef FORM
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        ptier_arena arena;
        ptier_record *records;
        size_t count;
        ptier_arena_init(&arena);
        ptier_arena_reset(&arena, ROOM);
        if (ptier_puts_decode(&arena, (const uint8_t *)forms[i].bytes, forms[i].length, &records,
                              &count))
            fail_msg("%s: taken", forms[i].what);
        ptier_arena_fini(&arena);
    }
}

static void
no_more_records_than_a_call_may_have(void **state)
{
    (void)state;
    static uint8_t many[5 * (PTIER_BATCH_MAX + 1)];
    ptier_arena arena;
    ptier_record *records;
    size_t count;
    for (size_t at = 0; at < sizeof many; at += 5)
        memcpy(many + at, "\x0a\x03\x0a\x01k", 5);
    ptier_arena_init(&arena);
    ptier_arena_reset(&arena, BUDGET);
    assert_non_null(ptier_puts_decode(&arena, many, 5 * (size_t)PTIER_BATCH_MAX, &records, &count));
    assert_int_equal(count, PTIER_BATCH_MAX);
    assert_null(ptier_puts_decode(&arena, many, sizeof many, &records, &count));
    ptier_arena_reset(&arena, ROOM); /* too little for so many */
    assert_null(ptier_puts_decode(&arena, many, 5 * (size_t)PTIER_BATCH_MAX, &records, &count));
    ptier_arena_fini(&arena);
}

/* ---- results ---- */

static void
draw_text(char *text, size_t limit)
{
    size_t length = ptier_test_draw((uint32_t)limit + 1);
    for (size_t i = 0; i < length; i++)
        text[i] = (char)('a' + ptier_test_draw(26));
    text[length] = '\0';
}

static size_t
make_reply(void)
{
    static Proxytier__V1__Tier tiers[] = {PROXYTIER__V1__TIER__TIER_L1,
                                          PROXYTIER__V1__TIER__TIER_L3};
    Proxytier__V1__PutManyResponse rest = PROXYTIER__V1__PUT_MANY_RESPONSE__INIT;
    size_t length = 0;
    for (size_t count = ptier_test_draw(ITEMS + 1); count > 0; count--) {
        char key[PTIER_KEY_MAX + 1], message[120];
        draw_text(key, ptier_test_draw(2) ? PTIER_KEY_MAX : 16);
        draw_text(message, ptier_test_draw(2) ? sizeof message - 1 : 0);
        const ptier_put_words words = {.key = key,
                                       .message = message,
                                       .revision =
                                           ptier_test_draw(2) ? ptier_test_draw(1u << 31) : 0,
                                       .outcome = ptier_test_draw(7)};
        Proxytier__V1__PutResult result = PROXYTIER__V1__PUT_RESULT__INIT, *list[] = {&result};
        Proxytier__V1__PutManyResponse one = PROXYTIER__V1__PUT_MANY_RESPONSE__INIT;
        uint8_t expected[PTIER_PUT_RESULT_ROOM];
        result.key = key;
        result.message = message;
        result.revision = words.revision;
        result.outcome = (Proxytier__V1__PutOutcome)words.outcome;
        one.results = list;
        one.n_results = 1;
        size_t size = proxytier__v1__put_many_response__pack(&one, expected);
        assert_int_equal(ptier_put_result_encode(&words, 1, data + length), size);
        assert_memory_equal(data + length, expected, size);
        length += size;
    }
    rest.durability = (Proxytier__V1__Durability)ptier_test_draw(4);
    rest.tiers = tiers;
    rest.n_tiers = ptier_test_draw(3);
    return length + proxytier__v1__put_many_response__pack(&rest, data + length);
}

/* Both ways say the same, a refusal included. */
static bool
replies_agree(const uint8_t *bytes, size_t length, bool *taken)
{
    static uint8_t again[2 * ROOM];
    ptier_arena one, other;
    ptier_error error;
    ptier_arena_init(&one);
    ptier_arena_init(&other);
    ptier_arena_reset(&one, BUDGET);
    ptier_arena_reset(&other, BUDGET);
    const ProtobufCMessage *quick = ptier_put_results_unpack(&one, bytes, length, &error);
    const ProtobufCMessage *careful = ptier_unpack_reply(
        &proxytier__v1__put_many_response__descriptor, &other, bytes, length, &error);
    *taken = quick != NULL;
    bool agree = !quick == !careful;
    if (agree && quick) {
        uint8_t *expected = again + ROOM;
        size_t size = protobuf_c_message_get_packed_size(quick);
        agree = size <= ROOM && size == protobuf_c_message_get_packed_size(careful) &&
                protobuf_c_message_pack(quick, again) == size &&
                protobuf_c_message_pack(careful, expected) == size &&
                memcmp(again, expected, size) == 0;
    }
    ptier_arena_fini(&one);
    ptier_arena_fini(&other);
    return agree;
}

static void
results_are_read_as_protobuf_reads_them(void **state)
{
    (void)state;
    compare_ways(make_reply, replies_agree);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(requests_are_read_as_protobuf_reads_them, setup),
        cmocka_unit_test(other_requests_take_the_long_way),
        cmocka_unit_test(no_more_records_than_a_call_may_have),
        cmocka_unit_test_setup(results_are_read_as_protobuf_reads_them, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
