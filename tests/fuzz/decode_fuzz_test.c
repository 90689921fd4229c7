/*
 * The decoders against changed messages, from a seed: the short form of `./dev fuzz`. PTIER_SEED=N
 * is another run, PTIER_RUNS=N a longer one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fuzz/decode_target.h"
#include "support/settings.h"

#define ROOM 8192

static uint64_t state_of_random;

static uint32_t
draw(uint32_t limit)
{
    state_of_random = state_of_random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state_of_random >> 33) % limit;
}

/* One change of the kinds that decoders break on. Returns the new length. */
static size_t
change(uint8_t *data, size_t length)
{
    static const uint8_t telling[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0x0a, 0x12, 0x18, 0xc0, 0xed};
    size_t at = draw((uint32_t)length), count = 1 + draw(8);
    switch (draw(7)) {
    case 0: /* a bit */
        data[at] ^= (uint8_t)(1u << draw(8));
        return length;
    case 1:
        data[at] = telling[draw(sizeof telling)];
        return length;
    case 2: /* the rest is cut off */
        return at > 0 ? at : length;
    case 3: /* a piece is lost */
        if (at == 0 || at + count >= length)
            return length;
        memmove(data + at, data + at + count, length - at - count);
        return length - count;
    case 4: /* a piece comes twice */
        if (length + count > ROOM || at + count > length || at == 0)
            return length;
        memmove(data + at + count, data + at, length - at);
        return length + count;
    case 5: /* a length or number without end */
        for (size_t i = at; i < at + count && i < length; i++)
            data[i] = 0xff;
        return length;
    default:
        data[at] = (uint8_t)draw(256);
        return length;
    }
}

static void
changed_messages_never_break_a_decoder(void **state)
{
    (void)state;
    uint64_t runs = ptier_test_setting("PTIER_RUNS", 300000);
    state_of_random = ptier_test_setting("PTIER_SEED", 1);
    uint8_t data[ROOM];
    size_t length = 0;
    for (uint64_t i = 0; i < runs; i++) {
        if (i % 16 == 0)
            length = decode_seed((unsigned)(i / 16), data, sizeof data);
        decode_one(data, length);
        length = change(data, length);
    }
    decode_counts counts = decode_counted();
    assert_int_equal(counts.runs, runs);
    /* They got somewhere: neither all refused at the door nor all whole. */
    assert_in_range(counts.accepted, runs / 50, runs - runs / 50);
    assert_in_range(counts.unpacked, runs / 50, runs - runs / 50);
    decode_fini();
}

static void
seeds_are_valid(void **state)
{
    (void)state;
    uint8_t data[ROOM];
    for (unsigned kind = 1 + (decode_kinds() - 3) / 2; kind < decode_kinds(); kind++) {
        uint64_t before = decode_counted().unpacked;
        decode_one(data, decode_seed(kind, data, sizeof data));
        if (kind > 1 + (decode_kinds() - 3) / 2)
            assert_int_equal(decode_counted().unpacked, before + 1);
    }
    decode_fini();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_are_valid),
        cmocka_unit_test(changed_messages_never_break_a_decoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
