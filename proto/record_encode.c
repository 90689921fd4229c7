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

typedef struct sink {
    uint8_t *at;
    const uint8_t *end;
} sink;

static inline void
number(sink *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out->at++ = (uint8_t)(value | 0x80);
    *out->at++ = (uint8_t)value;
}

static inline void
tag(sink *out, unsigned field, unsigned wire_type)
{
    number(out, field << 3 | wire_type);
}

static inline size_t
number_size(size_t value)
{
    size_t size = 1;
    for (; value >= 0x80; value >>= 7)
        size++;
    return size;
}

/* ---- fields; those with a result: false, there is no room ---- */

static inline bool
bytes(sink *out, unsigned field, const char *text, size_t length)
{
    if (length == 0)
        return true;
    if ((size_t)(out->end - out->at) < length + 2 + NUMBER_MAX)
        return false;
    tag(out, field, DELIMITED);
    number(out, length);
    memcpy(out->at, text, length);
    out->at += length;
    return true;
}

static inline bool
text(sink *out, unsigned field, const char *string)
{
    return !string || bytes(out, field, string, strlen(string));
}

static bool
label(sink *out, const ptier_label *l)
{
    size_t name = l->name ? strlen(l->name) : 0, value = l->value ? strlen(l->value) : 0;
    size_t length =
        (name ? 1 + number_size(name) + name : 0) + (value ? 1 + number_size(value) + value : 0);
    if ((size_t)(out->end - out->at) < 2 + NUMBER_MAX)
        return false;
    tag(out, 11, DELIMITED);
    number(out, length);
    return bytes(out, 1, l->name, name) && bytes(out, 2, l->value, value);
}

static inline void
figure(sink *out, unsigned field, uint64_t value)
{
    if (value == 0)
        return;
    tag(out, field, NUMBER);
    number(out, value);
}

static bool
state(sink *out, const ptier_record *r)
{
    if (out->end - out->at < FIGURES_MAX)
        return false;
    figure(out, 6, (uint64_t)r->fetch_time_ms);
    if (r->ttl_ms != PTIER_TTL_DEFAULT) {
        tag(out, 7, NUMBER);
        number(out, (uint64_t)r->ttl_ms);
    }
    figure(out, 8, (uint64_t)r->health);
    if (r->failure_count != PTIER_FAILURES_UNSTATED) {
        tag(out, 9, NUMBER);
        number(out, r->failure_count);
    }
    figure(out, 10, r->needs_revalidation);
    return true;
}

static bool
figures(sink *out, const ptier_record *r)
{
    if (out->end - out->at < FIGURES_MAX)
        return false;
    figure(out, 12, r->revision);
    figure(out, 13, (uint64_t)r->expires_at_ms);
    figure(out, 14, (uint64_t)r->remaining_ttl_ms);
    figure(out, 15, (uint64_t)r->last_access_ms);
    figure(out, 16, r->access_count);
    if (r->latency_ms != 0) {
        uint64_t bits;
        memcpy(&bits, &r->latency_ms, sizeof bits);
        bits = htole64(bits);
        tag(out, 17, FIXED64);
        memcpy(out->at, &bits, sizeof bits);
        out->at += sizeof bits;
    }
    figure(out, 18, r->success_count);
    figure(out, 19, r->report_count);
    return true;
}

static bool
body(sink *out, const ptier_record *r, bool credentials)
{
    size_t labels = r->label_count < PTIER_LABELS_MAX ? r->label_count : PTIER_LABELS_MAX;
    if (!text(out, 1, r->key) || !text(out, 2, r->url) ||
        (credentials && (!text(out, 3, r->username) || !text(out, 4, r->password))) ||
        !text(out, 5, r->source) || !state(out, r))
        return false;
    for (size_t i = 0; i < labels; i++)
        if (!label(out, &r->labels[i]))
            return false;
    return figures(out, r) &&
           (!credentials || (text(out, 20, r->username_token) && text(out, 21, r->password_token)));
}

size_t
ptier_record_encode(const ptier_record *record, bool credentials, unsigned field, uint8_t *out,
                    size_t room)
{
    const size_t usual = 1 + 2; /* of tag and length, where the length is 128 to 16383 */
    if (room < usual + 2)
        return 0;
    sink content = {out + usual, out + room - 2};
    if (!body(&content, record, credentials))
        return 0;
    size_t length = (size_t)(content.at - out) - usual;
    sink head = {.at = out};
    size_t needed = 1 + number_size(length);
    if (needed != usual)
        memmove(out + needed, out + usual, length);
    tag(&head, field, DELIMITED);
    number(&head, length);
    return needed + length;
}
