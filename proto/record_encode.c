/* See record_encode.h. Fields in the order of their numbers, those that have the value that is
 * taken for absent left out: as protobuf-c has it. */
#include "record_encode.h"

#include <endian.h>
#include <string.h>

#define NUMBER_MAX  10 /* bytes of a number; tags have 1 or 2 */
#define FIGURES_MAX (14 * (2 + NUMBER_MAX))
#define NUMBER      0 /* wire types */
#define FIXED64     1
#define DELIMITED   2

/* ---- each writes at `at` and returns what is behind it ---- */

static inline uint8_t *
number(uint8_t *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (uint8_t)(value | 0x80);
    *at++ = (uint8_t)value;
    return at;
}

static inline uint8_t *
tag(uint8_t *at, unsigned field, unsigned wire_type)
{
    return number(at, field << 3 | wire_type);
}

static inline size_t
number_size(size_t value)
{
    size_t size = 1;
    for (; value >= 0x80; value >>= 7)
        size++;
    return size;
}

static inline uint8_t *
figure(uint8_t *at, unsigned field, uint64_t value)
{
    if (value == 0)
        return at;
    return number(tag(at, field, NUMBER), value);
}

/* ---- the same, up to `end`; NULL: there is no room, now or before ---- */

static inline uint8_t *
bytes(uint8_t *at, const uint8_t *end, unsigned field, const char *text, size_t length)
{
    if (!at || length == 0)
        return at;
    if ((size_t)(end - at) < length + 2 + NUMBER_MAX)
        return NULL;
    at = number(tag(at, field, DELIMITED), length);
    memcpy(at, text, length);
    return at + length;
}

static inline uint8_t *
text(uint8_t *at, const uint8_t *end, unsigned field, const char *string)
{
    return string ? bytes(at, end, field, string, strlen(string)) : at;
}

static uint8_t *
label(uint8_t *at, const uint8_t *end, const ptier_label *l)
{
    size_t name = l->name ? strlen(l->name) : 0, value = l->value ? strlen(l->value) : 0;
    size_t length =
        (name ? 1 + number_size(name) + name : 0) + (value ? 1 + number_size(value) + value : 0);
    if (!at || end - at < 2 + NUMBER_MAX)
        return NULL;
    at = number(tag(at, 11, DELIMITED), length);
    at = bytes(at, end, 1, l->name, name);
    return bytes(at, end, 2, l->value, value);
}

static uint8_t *
state(uint8_t *at, const uint8_t *end, const ptier_record *r)
{
    if (!at || end - at < FIGURES_MAX)
        return NULL;
    at = figure(at, 6, (uint64_t)r->fetch_time_ms);
    if (r->ttl_ms != PTIER_TTL_DEFAULT)
        at = number(tag(at, 7, NUMBER), (uint64_t)r->ttl_ms);
    at = figure(at, 8, (uint64_t)r->health);
    if (r->failure_count != PTIER_FAILURES_UNSTATED)
        at = number(tag(at, 9, NUMBER), r->failure_count);
    return figure(at, 10, r->needs_revalidation);
}

static uint8_t *
figures(uint8_t *at, const uint8_t *end, const ptier_record *r)
{
    if (!at || end - at < FIGURES_MAX)
        return NULL;
    at = figure(at, 12, r->revision);
    at = figure(at, 13, (uint64_t)r->expires_at_ms);
    at = figure(at, 14, (uint64_t)r->remaining_ttl_ms);
    at = figure(at, 15, (uint64_t)r->last_access_ms);
    at = figure(at, 16, r->access_count);
    if (r->latency_ms != 0) {
        uint64_t bits;
        memcpy(&bits, &r->latency_ms, sizeof bits);
        bits = htole64(bits);
        at = tag(at, 17, FIXED64);
        memcpy(at, &bits, sizeof bits);
        at += sizeof bits;
    }
    at = figure(at, 18, r->success_count);
    return figure(at, 19, r->report_count);
}

static uint8_t *
body(uint8_t *at, const uint8_t *end, const ptier_record *r, bool credentials)
{
    size_t labels = r->label_count < PTIER_LABELS_MAX ? r->label_count : PTIER_LABELS_MAX;
    at = text(at, end, 1, r->key);
    at = text(at, end, 2, r->url);
    if (credentials) {
        at = text(at, end, 3, r->username);
        at = text(at, end, 4, r->password);
    }
    at = text(at, end, 5, r->source);
    at = state(at, end, r);
    for (size_t i = 0; i < labels; i++)
        at = label(at, end, &r->labels[i]);
    at = figures(at, end, r);
    if (credentials) {
        at = text(at, end, 20, r->username_token);
        at = text(at, end, 21, r->password_token);
    }
    return at;
}

enum { HEAD_ROOM = 1 + 2 }; /* of tag and length, where the length is 128 to 16383 */

/* Tag and length in front of what was written behind HEAD_ROOM, which moves where they take another
 * size. Returns the size of it all. */
static size_t
enclose(unsigned field, uint8_t *out, const uint8_t *end)
{
    size_t length = (size_t)(end - out) - HEAD_ROOM, head = 1 + number_size(length);
    if (head != HEAD_ROOM)
        memmove(out + head, out + HEAD_ROOM, length);
    (void)number(tag(out, field, DELIMITED), length); /* `head` bytes */
    return head + length;
}

size_t
ptier_record_encode(const ptier_record *record, bool credentials, unsigned field, uint8_t *out,
                    size_t room)
{
    if (room < HEAD_ROOM + 2)
        return 0;
    const uint8_t *end = body(out + HEAD_ROOM, out + room - 2, record, credentials);
    return end ? enclose(field, out, end) : 0;
}

size_t
ptier_put_result_encode(const ptier_put_words *result, unsigned field,
                        uint8_t out[PTIER_PUT_RESULT_ROOM])
{
    const uint8_t *limit = out + PTIER_PUT_RESULT_ROOM;
    uint8_t *at = text(out + HEAD_ROOM, limit, 1, result->key);
    if (at) { /* it fits: see there */
        at = figure(at, 2, result->revision);
        at = figure(at, 3, result->outcome);
        at = text(at, limit, 4, result->message);
    }
    return at ? enclose(field, out, at) : 0;
}
