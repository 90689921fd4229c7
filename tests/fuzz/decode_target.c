/* See decode_target.h. */
#include "fuzz/decode_target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "feed.h"
#include "framing.h"
#include "methods.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "support/record_pairs.h"
#include "unpack.h"
#include "wire_check.h"

#define PROMISE(holds)                                                                             \
    do {                                                                                           \
        if (!(holds)) {                                                                            \
            (void)fprintf(stderr, "broken promise: %s\n", #holds);                                 \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define INPUT_MAX     ((size_t)64 * 1024)
#define FRAME_BUDGET  ((size_t)16 * 1024 * 1024)
#define CACHE_ENTRIES 16

/* Kind 0 is a whole message as it comes from the socket; then the requests, then what clients read.
 */
static const ProtobufCServiceDescriptor *const services[] = {
    &proxytier__v1__proxy_cache__descriptor, &proxytier__v1__events__descriptor,
    &proxytier__v1__admin__descriptor,       &proxytier__v1__server_info__descriptor,
    &proxytier__v1__health__descriptor,      &proxytier__v1__reflection__descriptor,
};
#define SERVICE_COUNT (sizeof services / sizeof *services)

static struct {
    ptier_service service;
    ptier_call call;
    ptier_bytes reply;
    ptier_arena *arena;
    decode_counts counts;
    bool ready;
} target;

static void
prepare(void)
{
    ptier_cache_options options;
    static ptier_gate gate;
    ptier_cache_options_init(&options);
    options.l2_enabled = false;
    options.l3_enabled = false;
    options.l1_entries = CACHE_ENTRIES;
    PROMISE(ptier_journal_create(1024, 16, &target.service.journal, NULL) == PTIER_OK);
    options.on_change = ptier_journal_on_change;
    options.change_context = target.service.journal;
    PROMISE(ptier_cache_open(&options, &target.service.cache, NULL) == PTIER_OK);
    target.service.gate = &gate;
    memset(target.service.boot_id, 0xb0, PTIER_ID_BYTES);
    ptier_call_init(&target.call, &target.service);
    target.arena = ptier_arena_create(FRAME_BUDGET);
    PROMISE(target.arena);
    target.ready = true;
}

void
decode_fini(void)
{
    if (!target.ready)
        return;
    ptier_call_fini(&target.call);
    ptier_bytes_fini(&target.reply);
    ptier_arena_destroy(target.arena);
    ptier_cache_close(target.service.cache);
    ptier_journal_destroy(target.service.journal);
    memset(&target, 0, sizeof target);
}

decode_counts
decode_counted(void)
{
    return target.counts;
}

static unsigned
method_count(void)
{
    unsigned count = 0;
    for (size_t s = 0; s < SERVICE_COUNT; s++)
        count += services[s]->n_methods;
    return count;
}

static const ProtobufCMethodDescriptor *
method_at(unsigned number, const ProtobufCServiceDescriptor **service)
{
    size_t s = 0;
    for (; number >= services[s]->n_methods; s++)
        number -= services[s]->n_methods;
    *service = services[s];
    return &services[s]->methods[number];
}

unsigned
decode_kinds(void)
{
    return 1 + 2 * method_count() + 2;
}

/* ---- what got through the check, looked at once more and in another way ---- */

/* By code points, not by bytes. */
static void
check_text(const char *text)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *at = (const uint8_t *)text;
    while (*at) {
        unsigned length = *at < 0x80 ? 1 : *at >> 5 == 6 ? 2 : *at >> 4 == 14 ? 3 : 4;
        PROMISE(length < 4 || *at >> 3 == 30);
        uint32_t letter = length == 1 ? *at : *at & (0x7fu >> length);
        for (unsigned i = 1; i < length; i++) {
            PROMISE(at[i] >> 6 == 2);
            letter = letter << 6 | (at[i] & 0x3f);
        }
        PROMISE(letter >= least[length] && letter <= 0x10ffff);
        PROMISE(letter < 0xd800 || letter > 0xdfff);
        at += length;
    }
}

static void check_unpacked(const ProtobufCMessage *message, bool request);

static void
check_member(const ProtobufCFieldDescriptor *field, const char *member, bool request)
{
    const void *pointer;
    int number;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        memcpy(&pointer, member, sizeof pointer);
        if (pointer)
            check_text(pointer);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        memcpy(&pointer, member, sizeof pointer);
        if (pointer)
            check_unpacked(pointer, request);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        memcpy(&number, member, sizeof number);
        PROMISE(!request || protobuf_c_enum_descriptor_get_value(field->descriptor, number));
        break;
    default:
        break;
    }
}

static void
check_unpacked(const ProtobufCMessage *message, bool request)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const char *base = (const char *)message;
        size_t count = 1, step = field->type == PROTOBUF_C_TYPE_ENUM ? sizeof(int) : sizeof(void *);
        const char *members = base + field->offset;
        uint32_t chosen = field->id;
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
            memcpy(&chosen, base + field->quantifier_offset, sizeof chosen);
        if (chosen != field->id)
            continue;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            memcpy(&count, base + field->quantifier_offset, sizeof count);
            memcpy(&members, base + field->offset, sizeof members);
        }
        for (size_t k = 0; k < count; k++)
            check_member(field, members + k * step, request);
    }
}

/* ---- the daemon's side ---- */

/* What goes out must be readable at the other end. */
static void
check_reply(const ProtobufCMessageDescriptor *schema)
{
    ptier_frame frame;
    ptier_error error = {.message = ""};
    PROMISE(ptier_frame_split(target.reply.data, target.reply.length, &frame, NULL) == PTIER_OK);
    ptier_arena_reset(target.arena, FRAME_BUDGET);
    const Proxytier__V1__ResponseHeader *header =
        (const void *)ptier_unpack_reply(&proxytier__v1__response_header__descriptor, target.arena,
                                         frame.header, frame.header_length, &error);
    PROMISE(header);
    if (header->code != PROXYTIER__V1__STATUS_CODE__STATUS_CODE_OK) {
        PROMISE(frame.body_length == 0 && *header->message);
        return;
    }
    target.counts.accepted++;
    PROMISE(ptier_unpack_reply(schema, target.arena, frame.body, frame.body_length, &error));
}

/* Of a call that came as far as its handler. */
static void
check_request(const ProtobufCMessageDescriptor *schema)
{
    ptier_arena_reset(target.arena, FRAME_BUDGET);
    PROMISE(ptier_wire_check(schema, target.call.body, target.call.body_length, NULL) == PTIER_OK);
    const ProtobufCMessage *request = protobuf_c_message_unpack(
        schema, &target.arena->allocator, target.call.body_length, target.call.body);
    PROMISE(request);
    check_unpacked(request, true);
}

static bool
touches_files(const ptier_method *method)
{
    return strcmp(method->name, "Backup") == 0;
}

static void
decode_request(const uint8_t *message, size_t length)
{
    const ptier_peer peer = {.role = PTIER_ROLE_ADMIN};
    const ProtobufCMessageDescriptor *schema = NULL;
    if (ptier_call_begin(&target.call, &peer, ptier_monotonic_ms(), message, length) == PTIER_OK) {
        const ptier_method *method = target.call.method;
        schema = method->service->descriptor->methods[method->index].output;
        if (touches_files(method))
            ptier_call_fail(&target.call, PTIER_UNIMPLEMENTED, "not here");
        else
            ptier_call_run(&target.call);
        PROMISE(target.call.arena.used <= target.call.arena.budget + 64);
        if (target.call.executed)
            check_request(method->service->descriptor->methods[method->index].input);
    }
    ptier_bytes_reset(&target.reply, INPUT_MAX);
    PROMISE(ptier_call_finish(&target.call, &target.reply) == PTIER_OK);
    check_reply(schema);
}

static size_t
write_header(uint8_t *out, unsigned number)
{
    char name[128];
    const ProtobufCServiceDescriptor *service;
    const ProtobufCMethodDescriptor *method = method_at(number, &service);
    (void)snprintf(name, sizeof name, "/%s/%s", service->name, method->name); /* they are short */
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = name;
    header.timeout_ms = 60000;
    size_t length = proxytier__v1__request_header__pack(&header, out + PTIER_FRAME_PREFIX);
    ptier_frame_prefix(out, length);
    return PTIER_FRAME_PREFIX + length;
}

/* ---- the client's side ---- */

static void
convert_all(Proxytier__V1__Proxy *const *proxies, size_t count)
{
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    for (size_t i = 0; i < count; i++)
        if (ptier_record_from_proxy(&record, labels, proxies[i], NULL) == PTIER_OK)
            target.counts.converted++;
}

static void
follow(const Proxytier__V1__EventBatch *batch)
{
    ptier_feed feed;
    ptier_feed_init(&feed, true, true);
    (void)ptier_feed_meet(&feed, batch, 0); /* any verdict is fine */
    for (size_t i = 0; i < batch->n_events; i++) {
        if ((int)batch->stream > 0 && (int)batch->stream < PTIER_FEED_STREAMS)
            (void)ptier_feed_take(&feed, (int)batch->stream, batch->events[i]->sequence);
        if (batch->events[i]->proxy)
            convert_all(&batch->events[i]->proxy, 1);
    }
}

static void
decode_reply(const ProtobufCMessageDescriptor *schema, const uint8_t *data, size_t size)
{
    if (ptier_record_list_type(schema))
        PROMISE(ptier_test_ways_agree(schema, data, size, NULL));
    ptier_arena_reset(target.arena, ((size_t)64 << 10) + size * 32);
    void *message = ptier_unpack_reply(schema, target.arena, data, size, NULL);
    if (!message)
        return;
    target.counts.unpacked++;
    check_unpacked(message, false);
    if (schema == &proxytier__v1__event_batch__descriptor) {
        follow(message);
    } else if (schema == &proxytier__v1__get_many_response__descriptor) {
        const Proxytier__V1__GetManyResponse *reply = message;
        convert_all(reply->proxies, reply->n_proxies);
    } else if (schema == &proxytier__v1__list_response__descriptor) {
        const Proxytier__V1__ListResponse *reply = message;
        convert_all(reply->proxies, reply->n_proxies);
    } else if (schema == &proxytier__v1__get_response__descriptor) {
        const Proxytier__V1__GetResponse *reply = message;
        if (reply->proxy)
            convert_all(&reply->proxy, 1);
    }
}

static const ProtobufCMessageDescriptor *
reply_schema(unsigned number)
{
    const ProtobufCServiceDescriptor *service;
    if (number < method_count())
        return method_at(number, &service)->output;
    return number == method_count() ? &proxytier__v1__response_header__descriptor
                                    : &proxytier__v1__event_batch__descriptor;
}

void
decode_one(const uint8_t *data, size_t size)
{
    static uint8_t message[INPUT_MAX + 512];
    if (!target.ready)
        prepare();
    if (size == 0 || size > INPUT_MAX)
        return;
    target.counts.runs++;
    unsigned kind = *data++ % decode_kinds();
    size--;
    if (kind == 0) {
        decode_request(data, size);
    } else if (kind <= method_count()) {
        size_t length = write_header(message, kind - 1);
        if (size)
            memcpy(message + length, data, size);
        decode_request(message, length + size);
    } else {
        decode_reply(reply_schema(kind - 1 - method_count()), data, size);
    }
}

/* ---- seeds ---- */

/* Fills a message of any schema with something in every field, to the depth that ours have. */
static void
fill(ptier_bytes *out, const ProtobufCMessageDescriptor *schema, unsigned depth)
{
    for (unsigned i = 0; i < schema->n_fields && depth < 4; i++) {
        const ProtobufCFieldDescriptor *field = &schema->fields[i];
        static const char text[] = "http://10.1.2.3:8080";
        ptier_bytes inner = {0};
        uint8_t head[4];
        size_t length = 0;
        unsigned wire = field->type == PROTOBUF_C_TYPE_DOUBLE ? 1 : 0;
        if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES ||
            field->type == PROTOBUF_C_TYPE_MESSAGE)
            wire = 2;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
            fill(&inner, field->descriptor, depth + 1);
        } else if (wire != 0) {
            size_t size = wire == 1 ? 8 : field->type == PROTOBUF_C_TYPE_BYTES ? 16 : strlen(text);
            uint8_t *at = ptier_bytes_reserve(&inner, size);
            PROMISE(at);
            if (wire == 2)
                memcpy(at, text, size);
            else
                memset(at, 0, size);
            inner.length = size;
        } else {
            uint8_t *at = ptier_bytes_reserve(&inner, 1);
            PROMISE(at);
            *at = 1;
            inner.length = 1;
        }
        unsigned tag = field->id << 3 | wire;
        if (tag > 127)
            head[length++] = (uint8_t)(tag | 0x80);
        head[length++] = (uint8_t)(tag > 127 ? tag >> 7 : tag);
        if (wire == 2 && inner.length > 127)
            head[length++] = (uint8_t)(inner.length | 0x80);
        if (wire == 2)
            head[length++] = (uint8_t)(inner.length > 127 ? inner.length >> 7 : inner.length);
        uint8_t *at = ptier_bytes_reserve(out, length + inner.length);
        PROMISE(at);
        memcpy(at, head, length);
        if (inner.length)
            memcpy(at + length, inner.data, inner.length);
        out->length += length + inner.length;
        ptier_bytes_fini(&inner);
    }
}

size_t
decode_seed(unsigned kind, uint8_t *out, size_t room)
{
    ptier_bytes body = {0};
    const ProtobufCServiceDescriptor *service;
    uint8_t *at = out;
    kind %= decode_kinds();
    *at++ = (uint8_t)kind;
    if (kind == 0)
        at += write_header(at, 2); /* Put */
    const ProtobufCMessageDescriptor *schema = kind == 0 ? method_at(2, &service)->input
                                               : kind <= method_count()
                                                   ? method_at(kind - 1, &service)->input
                                                   : reply_schema(kind - 1 - method_count());
    fill(&body, schema, 0);
    PROMISE((size_t)(at - out) + body.length <= room);
    if (body.length)
        memcpy(at, body.data, body.length);
    size_t length = (size_t)(at - out) + body.length;
    ptier_bytes_fini(&body);
    return length;
}
