/*
 * See record_decode.h. Fields are taken in the order in which daemons send them, each at most once:
 * a line of comparisons, and whatever else there may be is left over at its end.
 */
#include "record_decode.h"

#include <math.h>
#include <string.h>

#include "proxytier/v1/cache.pb-c.h"
#include "wire_read.h"

enum {
    LABELS_AT_ONCE = 128,
    FIELDS_OF_REPLIES = 3,
    FIELDS_OF_RECORDS = 21,
    FIELDS_OF_LABELS = 2,
    TOKEN_MAX = 2048, /* as in convert.c */
};

typedef struct decoder {
    ptier_arena *arena;
    wire_copy bytes;
    ptier_label *labels; /* room for some more */
    size_t labels_left;
    bool request; /* newer fields are counted elsewhere: here there may be none */
} decoder;

/* ---- parts of the wire format ---- */

/* Of one byte or two; a zero as the second one would make it longer than need be. */
static bool
tag(wire_span *in, unsigned *value)
{
    *value = *in->at++;
    if (*value < 0x80)
        return true;
    if (in->at == in->end || *in->at == 0 || *in->at >= 0x80)
        return false;
    *value = (*value & 0x7f) | (unsigned)*in->at++ << 7;
    return true;
}

/* A field that is not known. */
static bool
skip(wire_span *in, unsigned wire_type)
{
    uint64_t value;
    wire_span part;
    ptrdiff_t fixed = wire_type == FIXED64 ? 8 : 4;
    if (wire_type == NUMBER)
        return wire_number(in, &value);
    if (wire_type == DELIMITED)
        return wire_delimited(in, &part);
    if ((wire_type != FIXED64 && wire_type != FIXED32) || in->end - in->at < fixed)
        return false;
    in->at += fixed;
    return true;
}

/* Fields that are newer than this library. False: there is something else. */
static bool
skip_newer(wire_span *in, unsigned known)
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
text(const decoder *d, wire_span *in, unsigned field, size_t limit, const char **string)
{
    return !wire_next_is(in, WIRE_TAG(field, DELIMITED)) || wire_text(in, &d->bytes, limit, string);
}

/* A text where "" is none. */
static inline bool
stated(const decoder *d, wire_span *in, unsigned field, size_t limit, const char **string)
{
    if (!text(d, in, field, limit, string))
        return false;
    if (*string && !**string)
        *string = NULL;
    return true;
}

static inline bool
count64(wire_span *in, unsigned field, uint64_t *value)
{
    return !wire_next_is(in, WIRE_TAG(field, NUMBER)) || wire_number(in, value);
}

static inline bool
count32(wire_span *in, unsigned field, uint32_t limit, uint32_t *value)
{
    uint64_t wide;
    if (!wire_next_is(in, WIRE_TAG(field, NUMBER)))
        return true;
    if (!wire_number(in, &wide) || wide > limit)
        return false;
    *value = (uint32_t)wide;
    return true;
}

static inline bool
time_ms(wire_span *in, unsigned field, int64_t *value)
{
    uint64_t bits;
    if (!wire_next_is(in, WIRE_TAG(field, NUMBER)))
        return true;
    if (!wire_number(in, &bits))
        return false;
    *value = (int64_t)bits;
    return true;
}

static bool
latency(wire_span *in, unsigned field, double *value)
{
    uint64_t bits;
    if (!wire_next_is(in, WIRE_TAG(field, FIXED64)))
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
decode_label(const decoder *d, wire_span in, ptier_label *label)
{
    label->name = label->value = "";
    return text(d, &in, 1, PTIER_LABEL_NAME_MAX, &label->name) &&
           text(d, &in, 2, PTIER_LABEL_VALUE_MAX, &label->value) &&
           (d->request ? in.at == in.end : skip_newer(&in, FIELDS_OF_LABELS)) && *label->name;
}

static bool
decode_labels(decoder *d, wire_span *in, ptier_record *record)
{
    while (wire_next_is(in, WIRE_TAG(11, DELIMITED))) {
        wire_span part;
        if (record->label_count == PTIER_LABELS_MAX || !wire_delimited(in, &part))
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
decode_texts(decoder *d, wire_span *in, ptier_record *r)
{
    r->url = r->source = "";
    return stated(d, in, 1, PTIER_KEY_MAX, &r->key) &&
           text(d, in, 2, PTIER_URL_MAX, &r->url) && /* longer ones have credentials inside */
           stated(d, in, 3, PTIER_CREDENTIAL_MAX, &r->username) &&
           stated(d, in, 4, PTIER_CREDENTIAL_MAX, &r->password) &&
           text(d, in, 5, PTIER_SOURCE_MAX, &r->source);
}

static bool
decode_state(wire_span *in, ptier_record *r)
{
    uint32_t health = PTIER_HEALTH_UNSPECIFIED, revalidate = 0;
    uint64_t ttl_ms;
    if (!time_ms(in, 6, &r->fetch_time_ms))
        return false;
    if (wire_next_is(in, WIRE_TAG(7, NUMBER))) {
        if (!wire_number(in, &ttl_ms) || ttl_ms > PTIER_TTL_MAX_MS)
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
decode_figures(wire_span *in, ptier_record *r)
{
    return count64(in, 12, &r->revision) && time_ms(in, 13, &r->expires_at_ms) &&
           time_ms(in, 14, &r->remaining_ttl_ms) && time_ms(in, 15, &r->last_access_ms) &&
           count64(in, 16, &r->access_count) && latency(in, 17, &r->latency_ms) &&
           count64(in, 18, &r->success_count) && count64(in, 19, &r->report_count);
}

static bool
decode_fields(decoder *d, wire_span *in, ptier_record *record)
{
    ptier_record_init(record);
    return decode_texts(d, in, record) && decode_state(in, record) &&
           decode_labels(d, in, record) && decode_figures(in, record);
}

static bool
decode_record(decoder *d, wire_span in, ptier_record *record)
{
    return decode_fields(d, &in, record) && skip_newer(&in, FIELDS_OF_RECORDS) && record->key;
}

/* ---- the reply ---- */

/* Everything but the records, which come first and are counted. */
static bool
decode_rest(const decoder *d, const ptier_list_layout *layout, wire_span in,
            ptier_record_list *list)
{
    uint32_t tier = PTIER_TIER_NONE;
    wire_span part;
    list->next_page_token = "";
    for (; wire_next_is(&in, WIRE_TAG(1, DELIMITED)); list->count++)
        if (!wire_delimited(&in, &part) || (layout->single && list->count == 1))
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
    wire_span in = {data, data + length};
    decoder d = {.arena = arena, .bytes = {data, ptier_arena_copy(arena, data, length)}};
    if (!d.bytes.copy || !decode_rest(&d, layout, in, list))
        return false;
    list->records = ptier_arena_array(arena, list->count, sizeof *list->records);
    if (!list->records)
        return false;
    for (size_t i = 0; i < list->count; i++) {
        wire_span part;
        if (!wire_next_is(&in, WIRE_TAG(1, DELIMITED)) || !wire_delimited(&in, &part) ||
            !decode_record(&d, part, &list->records[i]))
            return false;
    }
    return true;
}

/* ---- the request ---- */

static bool
decode_put(decoder *d, wire_span in, ptier_record *r)
{
    return decode_fields(d, &in, r) && stated(d, &in, 20, TOKEN_MAX, &r->username_token) &&
           stated(d, &in, 21, TOKEN_MAX, &r->password_token) && in.at == in.end;
}

/* What is behind the records. */
static ProtobufCMessage *
decode_options(ptier_arena *arena, wire_span in)
{
    const ProtobufCMessageDescriptor *schema = &proxytier__v1__put_many_request__descriptor;
    size_t length = (size_t)(in.end - in.at);
    ptier_error ignored; /* the long way says it */
    if (ptier_wire_check(schema, in.at, length, &ignored) != PTIER_OK)
        return NULL;
    Proxytier__V1__PutManyRequest *request =
        (void *)protobuf_c_message_unpack(schema, &arena->allocator, length, in.at);
    return request && !request->n_proxies ? &request->base : NULL;
}

ProtobufCMessage *
ptier_puts_decode(ptier_arena *arena, const uint8_t *data, size_t length, ptier_record **records,
                  size_t *count)
{
    wire_span in = {data, data + length}, part;
    decoder d = {.arena = arena, .bytes = {data, NULL}, .request = true};
    for (*count = 0; wire_next_is(&in, WIRE_TAG(1, DELIMITED)); ++*count)
        if (*count == PTIER_BATCH_MAX || !wire_delimited(&in, &part))
            return NULL;
    ProtobufCMessage *request = decode_options(arena, in);
    d.bytes.copy = ptier_arena_copy(arena, data, (size_t)(in.at - data));
    *records = ptier_arena_array(arena, *count, sizeof **records);
    if (!request || !d.bytes.copy || !*records)
        return NULL;
    in.at = data;
    for (size_t i = 0; i < *count; i++)
        if (!wire_next_is(&in, WIRE_TAG(1, DELIMITED)) || !wire_delimited(&in, &part) ||
            !decode_put(&d, part, &(*records)[i]))
            return NULL;
    return request;
}
