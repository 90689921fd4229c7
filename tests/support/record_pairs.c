#include "support/record_pairs.h"

#include <stdio.h>
#include <string.h>

#define BUDGET(length) (((size_t)64 << 10) + (length)*32)

static uint64_t state_of_random = 1;

void
ptier_test_draw_from(uint64_t seed)
{
    state_of_random = seed;
}

uint32_t
ptier_test_draw(uint32_t limit)
{
    state_of_random = state_of_random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state_of_random >> 33) % limit;
}

size_t
ptier_test_change(uint8_t *data, size_t length, size_t room)
{
    static const uint8_t telling[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0x0a, 0x12, 0x5a, 0xc0, 0xed};
    size_t at = ptier_test_draw((uint32_t)length), count = 1 + ptier_test_draw(8);
    switch (ptier_test_draw(6)) {
    case 0:
        data[at] ^= (uint8_t)(1u << ptier_test_draw(8));
        return length;
    case 1:
        data[at] = telling[ptier_test_draw(sizeof telling)];
        return length;
    case 2:
        return at > 0 ? at : length;
    case 3:
        if (at + count >= length)
            return length;
        memmove(data + at, data + at + count, length - at - count);
        return length - count;
    case 4:
        if (length + count > room || at + count > length)
            return length;
        memmove(data + at + count, data + at, length - at);
        return length + count;
    default:
        data[at] = (uint8_t)ptier_test_draw(256);
        return length;
    }
}

/* A string of up to `limit` bytes: short, long, plain or not. */
static const char *
draw_text(ptier_test_record *made, uint32_t limit)
{
    static const char *const letters[] = {
        "a", "B", "7", ":", "/", "\x01", "\x7f", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\x8d"};
    uint32_t kinds = ptier_test_draw(2) ? 7 : 10;
    size_t wanted = ptier_test_draw(8) == 0 ? ptier_test_draw(limit + 1)
                                            : ptier_test_draw(limit < 24 ? limit + 1 : 24);
    char *text = made->text + made->used;
    size_t length = 0;
    for (;;) {
        const char *letter = letters[ptier_test_draw(kinds)];
        if (length + strlen(letter) > wanted)
            break;
        length = (size_t)(stpcpy(text + length, letter) - text);
    }
    text[length] = '\0';
    made->used += length + 1;
    return text;
}

static uint64_t
draw_number(void)
{
    uint64_t number = (uint64_t)ptier_test_draw(UINT32_MAX) << 32 | ptier_test_draw(UINT32_MAX);
    return number >> ptier_test_draw(64);
}

static const char *
maybe(const char *text)
{
    return ptier_test_draw(4) && *text ? text : NULL;
}

void
ptier_test_record_draw(ptier_test_record *made)
{
    ptier_record *r = &made->record;
    made->used = 0;
    ptier_record_init(r);
    do
        r->key = draw_text(made, PTIER_KEY_MAX);
    while (!*r->key);
    r->url = draw_text(made, PTIER_URL_MAX);
    r->username = maybe(draw_text(made, PTIER_CREDENTIAL_MAX));
    r->password = maybe(draw_text(made, PTIER_CREDENTIAL_MAX));
    r->source = draw_text(made, PTIER_SOURCE_MAX);
    r->fetch_time_ms = (int64_t)draw_number();
    if (ptier_test_draw(4))
        r->ttl_ms = ptier_test_draw(3) ? ptier_test_draw(86400000) : PTIER_TTL_MAX_MS;
    if (ptier_test_draw(4))
        r->failure_count = ptier_test_draw(2) ? ptier_test_draw(5) : ptier_test_draw(UINT32_MAX);
    r->health = (ptier_health)ptier_test_draw(PTIER_HEALTH_UNKNOWN + 1);
    r->needs_revalidation = ptier_test_draw(2);
    r->label_count =
        ptier_test_draw(8) ? ptier_test_draw(4) : ptier_test_draw(PTIER_LABELS_MAX + 1);
    r->labels = made->labels;
    for (size_t i = 0; i < r->label_count; i++) {
        do
            made->labels[i].name = draw_text(made, PTIER_LABEL_NAME_MAX);
        while (!*made->labels[i].name);
        made->labels[i].value = draw_text(made, PTIER_LABEL_VALUE_MAX);
    }
    r->revision = draw_number();
    r->expires_at_ms = (int64_t)draw_number();
    r->remaining_ttl_ms = ptier_test_draw(3) ? (int64_t)draw_number() : -1;
    r->last_access_ms = (int64_t)draw_number();
    r->access_count = draw_number();
    r->latency_ms = ptier_test_draw(2) ? ptier_test_draw(100000) / 7.0 : 0;
    r->success_count = draw_number();
    r->report_count = draw_number();
}

static bool
same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool
ptier_test_records_equal(const ptier_record *a, const ptier_record *b)
{
    if (!same_text(a->key, b->key) || !same_text(a->url, b->url) ||
        !same_text(a->username, b->username) || !same_text(a->password, b->password) ||
        !same_text(a->username_token, b->username_token) ||
        !same_text(a->password_token, b->password_token) || !same_text(a->source, b->source) ||
        a->label_count != b->label_count)
        return false;
    for (size_t i = 0; i < a->label_count; i++)
        if (!same_text(a->labels[i].name, b->labels[i].name) ||
            !same_text(a->labels[i].value, b->labels[i].value))
            return false;
    return a->fetch_time_ms == b->fetch_time_ms && a->ttl_ms == b->ttl_ms &&
           a->health == b->health && a->failure_count == b->failure_count &&
           a->needs_revalidation == b->needs_revalidation && a->revision == b->revision &&
           a->expires_at_ms == b->expires_at_ms && a->remaining_ttl_ms == b->remaining_ttl_ms &&
           a->last_access_ms == b->last_access_ms && a->access_count == b->access_count &&
           a->latency_ms == b->latency_ms && a->success_count == b->success_count &&
           a->report_count == b->report_count;
}

bool
ptier_test_lists_equal(const ptier_record_list *a, const ptier_record_list *b)
{
    if (a->count != b->count || a->as_of != b->as_of || a->unreadable != b->unreadable ||
        a->tier != b->tier || !same_text(a->next_page_token, b->next_page_token))
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!ptier_test_records_equal(&a->records[i], &b->records[i]))
            return false;
    return true;
}

bool
ptier_test_ways_agree(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t length,
                      bool *taken)
{
    const ptier_list_layout *layout = ptier_list_layout_of(type);
    ptier_record_list quick = {0}, careful = {0};
    ptier_arena one, other;
    ptier_arena_init(&one);
    ptier_arena_init(&other);
    ptier_arena_reset(&one, BUDGET(length));
    ptier_arena_reset(&other, SIZE_MAX / 2); /* the long way takes more of it for the same */
    bool took = ptier_record_decode(layout, &one, data, length, &quick);
    bool agree =
        !took || (ptier_record_convert(layout, &other, data, length, &careful, NULL) == PTIER_OK &&
                  ptier_test_lists_equal(&quick, &careful));
    ptier_arena_fini(&one);
    ptier_arena_fini(&other);
    if (taken)
        *taken = took;
    return agree;
}
