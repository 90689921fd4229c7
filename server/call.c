/* See call.h. */
#include "call.h"

#include <string.h>
#include <time.h>

#include "framing.h"
#include "keys_decode.h"
#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "record_decode.h"
#include "wire_check.h"

/* Unpacking takes 2 to 16 times the message, hostile ones up to 50; small messages get a fixed
 * slack. */
#define BUDGET_FACTOR 16
#define BUDGET_SLACK  ((size_t)2 * 1024 * 1024)
#define HEADER_BUDGET ((size_t)256 * 1024)
#define HANDLER_BUDGET                                                                             \
    ((size_t)16 * 1024 * 1024) /* arrays of a handler beside the unpacked request */
#define TIMEOUT_MAX_MS 600000
#define REPLY_KEEP     ((size_t)64 * 1024)
#define TRY_BODY_MAX   4096 /* a few hundred keys: more would hold a thread of nng's up for long */

static int64_t
clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t
clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t
ptier_monotonic_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

int64_t
ptier_boottime_ms(void)
{
    return clock_ms(CLOCK_BOOTTIME);
}

void
ptier_call_init(ptier_call *call, ptier_service *service)
{
    memset(call, 0, sizeof *call);
    call->service = service;
    ptier_arena_init(&call->arena);
}

void
ptier_call_fini(ptier_call *call)
{
    ptier_arena_fini(&call->arena);
    ptier_bytes_fini(&call->reply);
}

void
ptier_call_fail(ptier_call *call, ptier_status status, const char *format, ...)
{
    char message[PTIER_ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args); /* cut is fine */
    va_end(args);
    call->status = ptier_fail(&call->error, status, "%s", message);
}

void
ptier_call_fail_as(ptier_call *call, ptier_status status, const ptier_error *error)
{
    ptier_call_fail(call, status, "%s",
                    error->message[0] ? error->message : ptier_status_text(status));
}

void
ptier_call_no_memory(ptier_call *call)
{
    ptier_call_fail(call, PTIER_RESOURCE_EXHAUSTED,
                    "the request needs more memory than one call may take: send smaller batches");
}

bool
ptier_call_expired(const ptier_call *call)
{
    return ptier_monotonic_ms() >= call->deadline_ms || atomic_load(&call->service->hurrying);
}

/* Which call it is, and of which earlier try it is another one. */
static ptier_status
read_ids(ptier_call *call, const Proxytier__V1__RequestHeader *header)
{
    if (header->request_id.len != 0 && header->request_id.len != PTIER_ID_BYTES)
        return ptier_fail(&call->error, PTIER_INVALID_ARGUMENT,
                          "request_id must have %d bytes, not %zu", PTIER_ID_BYTES,
                          header->request_id.len);
    if (header->boot_id.len != 0 && header->boot_id.len != PTIER_ID_BYTES)
        return ptier_fail(&call->error, PTIER_INVALID_ARGUMENT,
                          "boot_id must have %d bytes, not %zu", PTIER_ID_BYTES,
                          header->boot_id.len);
    call->has_id = header->request_id.len != 0;
    if (call->has_id)
        memcpy(call->id, header->request_id.data, PTIER_ID_BYTES);
    call->retry = header->boot_id.len != 0;
    call->other_run =
        call->retry && memcmp(header->boot_id.data, call->service->boot_id, PTIER_ID_BYTES) != 0;
    call->first_sent_ms = header->first_sent_ms > 0 ? header->first_sent_ms : 0;
    return PTIER_OK;
}

/* A token that is given always counts, see auth.h. */
static ptier_status
log_in(ptier_call *call, const char *token)
{
    if (!*token)
        return PTIER_OK;
    return ptier_auth_login(call->service->auth, &call->peer, token, &call->role, &call->identity,
                            &call->error);
}

/* The header's fields that count now; the request id is for deduplication. */
static ptier_status
read_header(ptier_call *call, const ptier_frame *frame, int64_t received_ms)
{
    ptier_status status = ptier_wire_check(&proxytier__v1__request_header__descriptor,
                                           frame->header, frame->header_length, &call->error);
    if (status != PTIER_OK)
        return status;
    ptier_arena_reset(&call->arena, HEADER_BUDGET);
    Proxytier__V1__RequestHeader *header = proxytier__v1__request_header__unpack(
        &call->arena.allocator, frame->header_length, frame->header);
    if (!header)
        return ptier_fail(&call->error, PTIER_INVALID_ARGUMENT,
                          "the request header cannot be read");
    status = read_ids(call, header);
    if (status != PTIER_OK)
        return status;
    uint32_t timeout = header->timeout_ms ? header->timeout_ms : PTIER_TIMEOUT_DEFAULT_MS;
    call->deadline_ms = received_ms + (timeout < TIMEOUT_MAX_MS ? timeout : TIMEOUT_MAX_MS);
    call->method = ptier_method_find(header->method);
    if (!call->method)
        return ptier_fail(&call->error, PTIER_UNIMPLEMENTED, "this daemon has no method %.100s",
                          *header->method ? header->method : "\"\"");
    return log_in(call, header->token);
}

static ptier_status
check_role(ptier_call *call)
{
    const ptier_method *method = call->method;
    if (call->role == PTIER_ROLE_NONE && method->role > PTIER_ROLE_NONE)
        return ptier_fail(&call->error, PTIER_UNAUTHENTICATED,
                          "%s needs a token: `proxytier token add` makes one, PROXYTIER_TOKEN or "
                          "--token-file hands it over",
                          method->name);
    if (call->role < method->role)
        return ptier_fail(&call->error, PTIER_PERMISSION_DENIED,
                          "%s needs the role %s; yours is %s", method->name,
                          ptier_role_name(method->role), ptier_role_name(call->role));
    return PTIER_OK;
}

bool
ptier_call_admit(ptier_call *call)
{
    if (call->method->while_stopping || !atomic_load(&call->service->stopping))
        return true;
    ptier_call_fail(call, PTIER_UNAVAILABLE, "the daemon is stopping");
    return false;
}

ptier_status
ptier_call_begin(ptier_call *call, const ptier_peer *peer, int64_t received_ms, const void *message,
                 size_t length)
{
    call->peer = *peer;
    call->role = peer->role;
    call->identity = peer->identity;
    call->method = NULL;
    call->has_id = call->retry = call->other_run = false;
    call->executed = call->must_not_wait = call->put_off = false;
    call->request = NULL;
    call->records = NULL;
    call->found = (ptier_found){.entries = NULL};
    call->items = 0;
    call->started_us =
        ptier_log_enabled(call->service->log, PTIER_LOG_DEBUG) ? clock_us(CLOCK_MONOTONIC) : 0;
    call->answered = false;
    call->error.message[0] = '\0';
    ptier_frame frame = {0};
    ptier_status status = ptier_frame_split(message, length, &frame, &call->error);
    if (status == PTIER_OK)
        status = read_header(call, &frame, received_ms);
    if (status == PTIER_OK)
        status = check_role(call);
    call->body = frame.body;
    call->body_length = frame.body_length;
    call->status = status;
    return status;
}

/* Every closure of every method: the response is packed at once, so that handlers may keep it on
 * their stack. */
static void
answer(const ProtobufCMessage *response, void *data)
{
    ptier_call *call = data;
    call->answered = true;
    if (ptier_bytes_append_message(&call->reply, response) != PTIER_OK)
        ptier_call_no_memory(call);
}

static ProtobufCMessage *
check_and_unpack(ptier_call *call, const ProtobufCMessageDescriptor *schema)
{
    call->status = ptier_wire_check(schema, call->body, call->body_length, &call->error);
    if (call->status != PTIER_OK)
        return NULL;
    ProtobufCMessage *message =
        protobuf_c_message_unpack(schema, &call->arena.allocator, call->body_length, call->body);
    if (!message && call->arena.exhausted)
        ptier_call_no_memory(call);
    else if (!message)
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "the bytes are not a %s message",
                        schema->name);
    return message;
}

static ProtobufCMessage *
unpack_body(ptier_call *call, const ProtobufCMessageDescriptor *schema)
{
    size_t budget = call->body_length * BUDGET_FACTOR + BUDGET_SLACK;
    ProtobufCMessage *message = NULL;
    ptier_arena_reset(&call->arena, budget);
    if (schema == &proxytier__v1__get_many_request__descriptor)
        message = ptier_keys_decode(&call->arena, call->body, call->body_length);
    else if (schema == &proxytier__v1__put_many_request__descriptor)
        message = ptier_puts_decode(&call->arena, call->body, call->body_length, &call->records,
                                    &call->record_count);
    if (!message) {
        call->records = NULL;
        ptier_arena_reset(&call->arena, budget);
        message = check_and_unpack(call, schema);
    }
    call->arena.budget = budget + HANDLER_BUDGET;
    return message;
}

void
ptier_call_run(ptier_call *call)
{
    if (atomic_load(&call->service->hurrying) && !call->method->while_stopping) {
        ptier_call_fail(call, PTIER_UNAVAILABLE, "the daemon is stopping");
        return;
    }
    if (ptier_monotonic_ms() >= call->deadline_ms) {
        ptier_call_fail(call, PTIER_DEADLINE_EXCEEDED,
                        "the deadline passed before the call could start");
        return;
    }
    /* protobuf-c's invoke takes a mutable service; ours have no state. */
    ProtobufCService *service = (ProtobufCService *)(uintptr_t)call->method->service;
    unsigned index = call->method->index;
    if (!call->request)
        call->request = unpack_body(call, service->descriptor->methods[index].input);
    if (!call->request)
        return;
    call->executed = true;
    call->put_off = false;
    service->invoke(service, index, call->request, answer, call);
    if (call->put_off)
        return;
    if (call->status == PTIER_OK && !call->answered)
        ptier_call_fail(call, PTIER_INTERNAL, "%s gave no answer", call->method->name);
    if (call->status == PTIER_OK && call->reply.length > PTIER_MESSAGE_MAX - PTIER_HEADER_MAX)
        ptier_call_fail(call, PTIER_RESOURCE_EXHAUSTED,
                        "the reply has %zu bytes, over the limit: ask for less",
                        call->reply.length);
    if (call->status == PTIER_INTERNAL || call->status == PTIER_DATA_LOSS)
        ptier_log_write(call->service->log, PTIER_LOG_WARN, "call_failed", "%s: %s",
                        call->method->name, call->error.message);
}

bool
ptier_call_try(ptier_call *call)
{
    if (call->body_length > TRY_BODY_MAX)
        return false;
    call->must_not_wait = true;
    ptier_call_run(call);
    call->must_not_wait = false;
    return !call->put_off;
}

void
ptier_call_put_off(ptier_call *call)
{
    call->put_off = true;
}

/* The message of a failure is left out: it may quote the client. */
static void
log_call(const ptier_call *call)
{
    const ptier_method *method = call->method;
    ptier_log_write(
        call->service->log, PTIER_LOG_DEBUG, "call", "%s%s%s: %s, %zu items, %lld us, %s",
        method ? method->service->descriptor->short_name : "unknown method", method ? "." : "",
        method ? method->name : "", ptier_status_text(call->status), call->items,
        (long long)(clock_us(CLOCK_MONOTONIC) - call->started_us), ptier_role_name(call->role));
}

/* ---- outcomes to be told again: status, length of the message, message, reply ---- */

typedef struct saved_head {
    uint32_t status;
    uint32_t message_length;
} saved_head;

ptier_status
ptier_call_save(const ptier_call *call, ptier_bytes *out)
{
    saved_head head = {.status = (uint32_t)call->status};
    size_t body_length = call->status == PTIER_OK ? call->reply.length : 0;
    if (call->status != PTIER_OK)
        head.message_length = (uint32_t)strlen(call->error.message);
    uint8_t *at = ptier_bytes_reserve(out, sizeof head + head.message_length + body_length);
    if (!at)
        return PTIER_RESOURCE_EXHAUSTED;
    memcpy(at, &head, sizeof head);
    memcpy(at + sizeof head, call->error.message, head.message_length);
    if (body_length)
        memcpy(at + sizeof head + head.message_length, call->reply.data, body_length);
    out->length += sizeof head + head.message_length + body_length;
    return PTIER_OK;
}

void
ptier_call_restore(ptier_call *call, const uint8_t *saved, size_t length)
{
    saved_head head;
    if (length < sizeof head) { /* there was no memory to save it */
        ptier_call_fail(call, PTIER_RESOURCE_EXHAUSTED,
                        "it was done, but there was no memory to keep the reply");
        return;
    }
    memcpy(&head, saved, sizeof head);
    const uint8_t *message = saved + sizeof head;
    size_t body_length = length - sizeof head - head.message_length;
    call->status = (ptier_status)head.status;
    memcpy(call->error.message, message, head.message_length); /* it came from such a field */
    call->error.message[head.message_length] = '\0';
    uint8_t *at = ptier_bytes_reserve(&call->reply, body_length ? body_length : 1);
    if (!at) {
        ptier_call_fail(call, PTIER_RESOURCE_EXHAUSTED,
                        "it was done, but there is no memory to repeat the reply");
        return;
    }
    if (body_length)
        memcpy(at, message + head.message_length, body_length);
    call->reply.length += body_length;
}

ptier_status
ptier_call_finish(ptier_call *call, ptier_bytes *out)
{
    Proxytier__V1__ResponseHeader header = PROXYTIER__V1__RESPONSE_HEADER__INIT;
    ptier_utf8_clean(call->error.message); /* it may quote the client, and be cut */
    header.code = (Proxytier__V1__StatusCode)call->status;
    if (call->status != PTIER_OK)
        header.message = call->error.message;
    header.boottime_ms = ptier_boottime_ms();
    header.boot_id.data = call->service->boot_id;
    header.boot_id.len = PTIER_ID_BYTES;
    size_t header_length = proxytier__v1__response_header__get_packed_size(&header);
    size_t body_length = call->status == PTIER_OK ? call->reply.length : 0;

    uint8_t *at = ptier_bytes_reserve(out, PTIER_FRAME_PREFIX + header_length + body_length);
    if (at) {
        ptier_frame_prefix(at, header_length);
        proxytier__v1__response_header__pack(&header, at + PTIER_FRAME_PREFIX);
        if (body_length)
            memcpy(at + PTIER_FRAME_PREFIX + header_length, call->reply.data, body_length);
        out->length += PTIER_FRAME_PREFIX + header_length + body_length;
    }
    if (call->started_us)
        log_call(call);
    for (size_t i = 0; i < call->found.count; i++)
        ptier_entry_release(call->found.entries[i]);
    call->found = (ptier_found){.entries = NULL};
    ptier_bytes_reset(&call->reply, REPLY_KEEP);
    ptier_arena_reset(&call->arena, 0);
    return at ? PTIER_OK : PTIER_RESOURCE_EXHAUSTED;
}
