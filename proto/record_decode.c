/*
 * See record_decode.h. Fields are taken in the order in which daemons send them, each at most once:
 * a line of comparisons, and whatever else there may be is left over at its end. The bytes are
 * copied once: strings stay where they are in the copy, where the byte behind each becomes its NUL;
 * so tags and numbers are read from the original.
 */
#include "record_decode.h"

#include <endian.h>
#include <math.h>
#include <string.h>

#include "wire_check.h"

enum { NUMBER = 0, FIXED64 = 1, DELIMITED = 2, FIXED32 = 5 }; /* wire types */
enum { LABELS_AT_ONCE = 128, FIELDS_OF_REPLIES = 3, FIELDS_OF_RECORDS = 21, FIELDS_OF_LABELS = 2 };
#define TAG(field, wire_type) ((field) << 3 | (wire_type))

typedef struct span {
    const uint8_t *at, *end;
} span;

typedef struct decoder {
    ptier_arena *arena;
    const uint8_t *original;
    uint8_t *copy;
    ptier_label *labels; /* room for some more */
    size_t labels_left;
} decoder;

/* ---- parts of the wire format ---- */

/* Of one byte or two; a zero as the second one would make it longer than need be. */
static bool
tag(span *in, unsigned *value)
{
    *value = *in->at++;
    if (*value < 0x80)
        return true;
    if (in->at == in->end || *in->at == 0 || *in->at >= 0x80)
        return false;
    *value = (*value & 0x7f) | (unsigned)*in->at++ << 7;
    return true;
}

/* Steps over the tag `key` if it is what comes next. */
static inline bool
next_is(span *in, unsigned key)
{
    if (key < 0x80) {
        if (in->at == in->end || *in->at != key)
            return false;
        in->at++;
        return true;
    }
    if (in->end - in->at < 2 || in->at[0] != (uint8_t)(key | 0x80) || in->at[1] != key >> 7)
        return false;
    in->at += 2;
    return true;
}

static bool
number_by_bytes(span *in, uint64_t *value)
{
    uint64_t result = 0;
    for (unsigned shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;
        if (shift == 63 && byte > 1)
            return false; /* bits that would be cut off */
        result |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = result;
            return true;
        }
    }
    return false;
}

/* Up to eight bytes at once: the groups of seven bits are moved together in three steps. */
static inline bool
number(span *in, uint64_t *value)
{
    uint64_t word;
    if (in->at < in->end && *in->at < 0x80) {
        *value = *in->at++;
        return true;
    }
    if (in->end - in->at < 8)
        return number_by_bytes(in, value);
    memcpy(&word, in->at, sizeof word);
    word = le64toh(word);
    uint64_t ends = ~word & UINT64_C(0x8080808080808080);
    if (!ends)
        return number_by_bytes(in, value);
    in->at += (__builtin_ctzll(ends) >> 3) + 1;
    word &= (ends ^ (ends - 1)) & UINT64_C(0x7f7f7f7f7f7f7f7f);
    word = (word & UINT64_C(0x007f007f007f007f)) | (word & UINT64_C(0x7f007f007f007f00)) >> 1;
    word = (word & UINT64_C(0x00003fff00003fff)) | (word & UINT64_C(0x3fff00003fff0000)) >> 2;
    *value = (word & UINT64_C(0x000000000fffffff)) | (word & UINT64_C(0x0fffffff00000000)) >> 4;
    return true;
}

static inline bool
delimited(span *in, span *part)
{
    uint64_t length;
    if (!number(in, &length) || length > (uint64_t)(in->end - in->at))
        return false;
    part->at = in->at;
    part->end = in->at += length;
    return true;
}

/* A field that is not known. */
static bool
skip(span *in, unsigned wire_type)
{
    uint64_t value;
    span part;
    ptrdiff_t fixed = wire_type == FIXED64 ? 8 : 4;
    if (wire_type == NUMBER)
        return number(in, &value);
    if (wire_type == DELIMITED)
        return delimited(in, &part);
    if ((wire_type != FIXED64 && wire_type != FIXED32) || in->end - in->at < fixed)
        return false;
    in->at += fixed;
    return true;
}

/* Fields that are newer than this library. False: there is something else. */
static bool
skip_newer(span *in, unsigned known)
{
    while (in->at < in->end) {
        unsigned key;
        if (!tag(in, &key) || key >> 3 <= known || !skip(in, key & 7))
            return false;
    }
    return true;
}

/* ---- one field: its value if it comes next; false: it is not as it should be ---- */

static inline bool
text(const decoder *d, span *in, unsigned field, size_t limit, const char **string)
{
    span part;
    if (!next_is(in, TAG(field, DELIMITED)))
        return true;
    if (!delimited(in, &part))
        return false;
    size_t length = (size_t)(part.end - part.at);
    if (length > limit || !ptier_wire_text_valid(part.at, length))
        return false;
    uint8_t *copy = d->copy + (part.at - d->original);
    copy[length] = 0;
    *string = (const char *)copy;
    return true;
}

/* A text where "" is none. */
static inline bool
stated(const decoder *d, span *in, unsigned field, size_t limit, const char **string)
{
    if (!text(d, in, field, limit, string))
        return false;
    if (*string && !**string)
        *string = NULL;
    return true;
}

static inline bool
count64(span *in, unsigned field, uint64_t *value)
{
    return !next_is(in, TAG(field, NUMBER)) || number(in, value);
}

static inline bool
count32(span *in, unsigned field, uint32_t limit, uint32_t *value)
{
    uint64_t wide;
    if (!next_is(in, TAG(field, NUMBER)))
        return true;
    if (!number(in, &wide) || wide > limit)
        return false;
    *value = (uint32_t)wide;
    return true;
}

static inline bool
time_ms(span *in, unsigned field, int64_t *value)
{
    uint64_t bits;
    if (!next_is(in, TAG(field, NUMBER)))
        return true;
    if (!number(in, &bits))
        return false;
    *value = (int64_t)bits;
    return true;
}

static bool
latency(span *in, unsigned field, double *value)
{
    uint64_t bits;
    if (!next_is(in, TAG(field, FIXED64)))
        return true;
    if (in->end - in->at < 8)
        return false;
    memcpy(&bits, in->at, sizeof bits);
    bits = le64toh(bits);
    memcpy(value, &bits, sizeof bits);
    in->at += 8;
    return isfinite(*value) && *value >= 0;
}

/* ---- records ---- */

static bool
decode_label(const decoder *d, span in, ptier_label *label)
{
    label->name = label->value = "";
    return text(d, &in, 1, PTIER_LABEL_NAME_MAX, &label->name) &&
           text(d, &in, 2, PTIER_LABEL_VALUE_MAX, &label->value) &&
           skip_newer(&in, FIELDS_OF_LABELS) && *label->name;
}

static bool
decode_labels(decoder *d, span *in, ptier_record *record)
{
    while (next_is(in, TAG(11, DELIMITED))) {
        span part;
        if (record->label_count == PTIER_LABELS_MAX || !delimited(in, &part))
            return false;
        if (record->label_count == 0 && d->labels_left < PTIER_LABELS_MAX) {
            d->labels = ptier_arena_array(d->arena, LABELS_AT_ONCE, sizeof *d->labels);
            d->labels_left = LABELS_AT_ONCE;
        }
        if (!d->labels || !decode_label(d, part, d->labels))
            return false;
        if (record->label_count++ == 0)
            record->labels = d->labels;
        d->labels++;
        d->labels_left--;
    }
    return true;
}

static bool
decode_texts(decoder *d, span *in, ptier_record *r)
{
    r->url = r->source = "";
    return stated(d, in, 1, PTIER_KEY_MAX, &r->key) &&
           text(d, in, 2, PTIER_URL_MAX, &r->url) && /* longer ones have credentials inside */
           stated(d, in, 3, PTIER_CREDENTIAL_MAX, &r->username) &&
           stated(d, in, 4, PTIER_CREDENTIAL_MAX, &r->password) &&
           text(d, in, 5, PTIER_SOURCE_MAX, &r->source);
}

static bool
decode_state(span *in, ptier_record *r)
{
    uint32_t health = PTIER_HEALTH_UNSPECIFIED, revalidate = 0;
    uint64_t ttl_ms;
    if (!time_ms(in, 6, &r->fetch_time_ms))
        return false;
    if (next_is(in, TAG(7, NUMBER))) {
        if (!number(in, &ttl_ms) || ttl_ms > PTIER_TTL_MAX_MS)
            return false;
        r->ttl_ms = (int64_t)ttl_ms;
    }
    if (!count32(in, 8, PTIER_HEALTH_UNKNOWN, &health) ||
        !count32(in, 9, UINT32_MAX, &r->failure_count) || !count32(in, 10, 1, &revalidate))
        return false;
    r->health = (ptier_health)health;
    r->needs_revalidation = revalidate != 0;
    return true;
}

static bool
decode_figures(span *in, ptier_record *r)
{
    return count64(in, 12, &r->revision) && time_ms(in, 13, &r->expires_at_ms) &&
           time_ms(in, 14, &r->remaining_ttl_ms) && time_ms(in, 15, &r->last_access_ms) &&
           count64(in, 16, &r->access_count) && latency(in, 17, &r->latency_ms) &&
           count64(in, 18, &r->success_count) && count64(in, 19, &r->report_count);
}

static bool
decode_record(decoder *d, span in, ptier_record *record)
{
    ptier_record_init(record);
    return decode_texts(d, &in, record) && decode_state(&in, record) &&
           decode_labels(d, &in, record) && decode_figures(&in, record) &&
           skip_newer(&in, FIELDS_OF_RECORDS) && record->key;
}

/* ---- the reply ---- */

/* Everything but the records, which come first and are counted. */
static bool
decode_rest(const decoder *d, const ptier_list_layout *layout, span in, ptier_record_list *list)
{
    uint32_t tier = PTIER_TIER_NONE;
    span part;
    list->next_page_token = "";
    for (; next_is(&in, TAG(1, DELIMITED)); list->count++)
        if (!delimited(&in, &part) || (layout->single && list->count == 1))
            return false;
    if ((layout->next_page_token &&
         !text(d, &in, layout->next_page_token, SIZE_MAX, &list->next_page_token)) ||
        !count64(&in, layout->as_of, &list->as_of) ||
        (layout->unreadable && !count32(&in, layout->unreadable, UINT32_MAX, &list->unreadable)) ||
        (layout->tier && !count32(&in, layout->tier, PTIER_TIER_L3, &tier)))
        return false;
    list->tier = (ptier_tier_id)tier;
    return skip_newer(&in, FIELDS_OF_REPLIES);
}

bool
ptier_record_decode(const ptier_list_layout *layout, ptier_arena *arena, const uint8_t *data,
                    size_t length, ptier_record_list *list)
{
    span in = {data, data + length};
    decoder d = {.arena = arena, .original = data};
    d.copy = ptier_arena_copy(arena, data, length);
    if (!d.copy || !decode_rest(&d, layout, in, list))
        return false;
    list->records = ptier_arena_array(arena, list->count, sizeof *list->records);
    if (!list->records)
        return false;
    for (size_t i = 0; i < list->count; i++) {
        span part;
        if (!next_is(&in, TAG(1, DELIMITED)) || !delimited(&in, &part) ||
            !decode_record(&d, part, &list->records[i]))
            return false;
    }
    return true;
}
