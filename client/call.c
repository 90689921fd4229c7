#include "call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>

#include "framing.h"
#include "info_call.h"
#include "monotonic.h"
#include "near_client.h"
#include "proxytier/v1/info.pb-c.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "unpack.h"

#define REQUEST_ID_BYTES 16
#define RETRY_PAUSE_MS   40    /* before the second try; doubles */
#define RETRY_WINDOW_MS  45000 /* the daemon remembers what it did for 60 s */
#define UNASKED_BODY_MAX                                                                           \
    ((size_t)1 << 20) /* larger requests are compared with the daemon's limit first */

typedef struct method_facts {
    const char *name;
    bool twice, secret;
} method_facts;

static const method_facts methods[] = {
#define METHOD_FACTS(name, text, twice, secret) {text, twice, secret},
    PTIER_METHOD_TABLE(METHOD_FACTS)
#undef METHOD_FACTS
};

/* What stays the same over all tries of one call. */
typedef struct attempt {
    ptier_client *client;
    method_facts facts;
    const ProtobufCMessage *request; /* NULL: `raw` is the packed body */
    const void *raw;
    size_t body_length;
    int64_t deadline;
    int64_t begun; /* ptier_near_now before the first try */
    uint8_t request_id[REQUEST_ID_BYTES];
    bool tried;
    ptier_run run;         /* of the daemon that may have seen the first try */
    int64_t first_sent;    /* ptier_monotonic_ms */
    int64_t first_sent_ms; /* the same on the daemon's clock, or before */
    bool answered;         /* the last failure is the daemon's own word */
    ptier_fate fate;
    ptier_frame frame; /* of the reply; borrowed from it */
} attempt;

static ptier_status
make_request_id(uint8_t id[REQUEST_ID_BYTES], ptier_error *error)
{
    ssize_t got;
    do
        got = getrandom(id, REQUEST_ID_BYTES, 0);
    while (got < 0 && errno == EINTR);
    if (got != REQUEST_ID_BYTES)
        return ptier_fail(error, PTIER_INTERNAL, "no random numbers from the kernel");
    return PTIER_OK;
}

static void
recall_run(attempt *a)
{
    pthread_mutex_lock(&a->client->lock);
    a->run = a->client->run;
    pthread_mutex_unlock(&a->client->lock);
    a->first_sent = ptier_monotonic_ms();
    a->first_sent_ms = a->run.known ? ptier_run_clock(&a->run, a->first_sent) : 0;
}

static void
learn_run(ptier_client *client, const Proxytier__V1__ResponseHeader *header)
{
    pthread_mutex_lock(&client->lock);
    ptier_run_learn(&client->run, header->boot_id.data, header->boot_id.len, header->boottime_ms,
                    ptier_monotonic_ms());
    pthread_mutex_unlock(&client->lock);
}

static nng_msg *
pack_request(attempt *a)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    int64_t left = a->deadline - ptier_monotonic_ms();
    nng_msg *message = NULL;

    header.method = (char *)a->facts.name;
    header.timeout_ms = left < 1 ? 1 : (uint32_t)left;
    header.request_id = (ProtobufCBinaryData){REQUEST_ID_BYTES, a->request_id};
    header.token = a->client->token;
    if (a->tried && a->run.known) {
        header.boot_id = (ProtobufCBinaryData){PTIER_BOOT_ID_BYTES, a->run.boot_id};
        header.first_sent_ms = a->first_sent_ms;
    }
    size_t header_length = proxytier__v1__request_header__get_packed_size(&header);
    if (nng_msg_alloc(&message, PTIER_FRAME_PREFIX + header_length + a->body_length) != 0)
        return NULL;
    uint8_t *out = nng_msg_body(message);
    ptier_frame_prefix(out, header_length);
    out += PTIER_FRAME_PREFIX;
    (void)proxytier__v1__request_header__pack(&header, out); /* its size is known */
    out += header_length;
    if (a->request)
        (void)protobuf_c_message_pack(a->request, out); /* as above */
    else if (a->body_length > 0)
        memcpy(out, a->raw, a->body_length);
    return message;
}

/* Reads the reply's header. OK: a->frame's body is the method's reply. */
static ptier_status
read_header(attempt *a, const nng_msg *message, ptier_error *error)
{
    ptier_error detail = {.message = ""};
    if (ptier_frame_split(nng_msg_body((nng_msg *)message), nng_msg_len(message), &a->frame,
                          &detail) != PTIER_OK)
        return ptier_fail(error, PTIER_INTERNAL, "the reply is not one of proxytier: %s",
                          detail.message);
    ptier_arena *arena = ptier_arena_create(PTIER_REPLY_BUDGET(a->frame.header_length));
    if (!arena)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_status status = PTIER_OK;
    const Proxytier__V1__ResponseHeader *header =
        (const void *)ptier_unpack_reply(&proxytier__v1__response_header__descriptor, arena,
                                         a->frame.header, a->frame.header_length, &detail);
    if (!header) {
        status = ptier_fail(error, PTIER_INTERNAL, "the header of the reply is damaged: %s",
                            detail.message);
    } else {
        learn_run(a->client, header);
        ptier_near_client_told(a->client->near, &header->boot_id, a->begun, header->boottime_ms);
        a->answered = true;
        if (header->code != PROXYTIER__V1__STATUS_CODE__STATUS_CODE_OK) {
            bool known = header->code > 0 && header->code <= (int)PTIER_UNAUTHENTICATED;
            status = known ? (ptier_status)header->code : PTIER_UNKNOWN;
            const char *text = header->message[0] ? header->message : ptier_status_text(status);
            (void)ptier_fail(error, status, "%s", text); /* returned below */
        }
    }
    ptier_arena_destroy(arena);
    return status;
}

static void
free_message(nng_msg *message, bool secret)
{
    if (!message)
        return;
    if (secret)
        explicit_bzero(nng_msg_body(message), nng_msg_len(message));
    nng_msg_free(message);
}

static ptier_status
try_once(attempt *a, nng_msg **reply, ptier_error *error)
{
    a->answered = false;
    *reply = NULL;
    if (!a->tried)
        recall_run(a);
    nng_msg *message = pack_request(a);
    if (!message)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_status status = ptier_transport_exchange(a->client->transport, message, a->deadline,
                                                   reply, &a->fate, error);
    if (status == PTIER_OK)
        status = read_header(a, *reply, error);
    if (status != PTIER_OK) {
        free_message(*reply, a->facts.secret);
        *reply = NULL;
    }
    return status;
}

/*
 * What may not be done twice is tried again as long as the daemon remembers what it did, and can
 * tell whether it is the one that was asked first.
 */
static bool
may_repeat(const attempt *a)
{
    return a->facts.twice ||
           (a->run.known && ptier_monotonic_ms() - a->first_sent < RETRY_WINDOW_MS);
}

/* A daemon that says UNAVAILABLE is stopping: it did nothing, and another one may be about to
 * start. */
static bool
worth_retrying(const attempt *a, ptier_status status)
{
    if (status != PTIER_UNAVAILABLE)
        return false;
    if (!a->answered && a->fate == PTIER_FATE_UNSENT)
        return a->tried && may_repeat(a); /* the transport has waited for a first connection */
    return may_repeat(a);
}

/* Whether the daemon's answer to a retry says what became of the tries before it: it looks that up
 * first, but who is not let in learns nothing. */
static bool
settles(const attempt *a, ptier_status status)
{
    return a->answered && status != PTIER_PERMISSION_DENIED && status != PTIER_UNAUTHENTICATED &&
           status != PTIER_UNIMPLEMENTED;
}

static void
pause_before_retry(const attempt *a, uint32_t tries)
{
    int64_t pause = (int64_t)RETRY_PAUSE_MS << (tries < 5 ? tries : 5);
    pause = pause / 2 + (int64_t)(nng_random() % (uint32_t)(pause / 2 + 1));
    int64_t left = a->deadline - ptier_monotonic_ms();
    if (left > 0)
        nng_msleep((nng_duration)(pause < left ? pause : left));
}

static bool
is_closing(ptier_client *client)
{
    pthread_mutex_lock(&client->lock);
    bool closing = client->closing;
    pthread_mutex_unlock(&client->lock);
    return closing;
}

/* Before the first call that may not be done twice: whose run is it? What the daemon says to the
 * question itself does not matter. */
static ptier_status
get_acquainted(const attempt *a, ptier_error *error)
{
    ptier_server_info info;
    pthread_mutex_lock(&a->client->lock);
    bool known = a->client->run.known;
    pthread_mutex_unlock(&a->client->lock);
    int64_t left = a->deadline - ptier_monotonic_ms();
    if (known || a->facts.twice || left < 1)
        return PTIER_OK;
    ptier_status status = ptier_get_info_within(a->client, (uint32_t)left, &info, error);
    pthread_mutex_lock(&a->client->lock);
    known = a->client->run.known;
    pthread_mutex_unlock(&a->client->lock);
    return known ? PTIER_OK : status;
}

/* OK: *reply is owned by the caller, a->frame says where the body is in it. */
static ptier_status
exchange(attempt *a, nng_msg **reply, ptier_error *error)
{
    ptier_error failure = {.message = ""};
    a->begun = ptier_near_now();
    bool uncertain = false; /* a try was sent and nobody said what became of it */
    ptier_status status = make_request_id(a->request_id, error);
    if (status == PTIER_OK)
        status = get_acquainted(a, error);
    if (status != PTIER_OK)
        return status;
    for (uint32_t tries = 0;; tries++) {
        status = try_once(a, reply, &failure);
        if (status == PTIER_OK)
            return PTIER_OK;
        if (!a->answered && a->fate == PTIER_FATE_LOST)
            uncertain = true;
        else if (settles(a, status))
            uncertain = false;
        bool again = worth_retrying(a, status);
        a->tried = true;
        if (!again || tries >= a->client->retries || is_closing(a->client))
            break;
        pause_before_retry(a, tries);
        if (ptier_monotonic_ms() >= a->deadline)
            break;
    }
    if (uncertain && !a->facts.twice)
        return ptier_fail(
            error, PTIER_ABORTED,
            "the connection was lost before the answer: the daemon may or may not have done it");
    return ptier_fail(error, status, "%s", failure.message);
}

static ptier_status
check_size(attempt *a, ptier_error *error)
{
    if (a->body_length <= UNASKED_BODY_MAX)
        return PTIER_OK;
    uint32_t limit = atomic_load(&a->client->message_limit);
    if (limit == 0) {
        ptier_server_info info;
        ptier_status status = ptier_get_info(a->client, &info, error);
        if (status != PTIER_OK)
            return status;
        limit = atomic_load(&a->client->message_limit);
    }
    if (limit == 0 || a->body_length + PTIER_HEADER_MAX <= limit)
        return PTIER_OK;
    return ptier_fail(
        error, PTIER_INVALID_ARGUMENT,
        "the request takes %zu bytes, the daemon allows %u: split it into several calls",
        a->body_length, limit);
}

static ptier_status
unpack_reply(const attempt *a, const ProtobufCMessageDescriptor *type, ptier_arena **arena,
             void *reply, ptier_error *error)
{
    *arena = ptier_arena_create(PTIER_REPLY_BUDGET(a->frame.body_length));
    if (!*arena)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_error detail = {.message = ""};
    ProtobufCMessage *message =
        ptier_unpack_reply(type, *arena, a->frame.body, a->frame.body_length, &detail);
    if (!message) {
        ptier_arena_destroy(*arena);
        *arena = NULL;
        return ptier_fail(error, PTIER_INTERNAL, "the reply to %s is damaged: %s", a->facts.name,
                          detail.message);
    }
    memcpy(reply, &message, sizeof message);
    return PTIER_OK;
}

ptier_status
ptier_call_perform(ptier_client *client, const ptier_call *call, ptier_arena **arena, void *reply,
                   ptier_error *error)
{
    nng_msg *message = NULL;
    *arena = NULL;
    ptier_status status = ptier_client_enter(client, error);
    if (status != PTIER_OK)
        return status;
    attempt a = {.client = client, .facts = methods[call->method], .request = call->request};
    uint32_t timeout_ms = call->timeout_ms ? call->timeout_ms : client->timeout_ms;
    a.facts.twice = a.facts.twice && !call->once;
    a.body_length = protobuf_c_message_get_packed_size(call->request);
    a.deadline = ptier_monotonic_ms() + timeout_ms;
    status = check_size(&a, error);
    if (status == PTIER_OK)
        status = exchange(&a, &message, error);
    if (status == PTIER_OK)
        status = unpack_reply(&a, call->reply_type, arena, reply, error);
    free_message(message, a.facts.secret);
    ptier_client_leave(client);
    return status;
}

static method_facts
find_facts(const char *method)
{
    for (size_t i = 0; i < PTIER_METHOD_COUNT; i++)
        if (strcmp(methods[i].name, method) == 0)
            return (method_facts){method, methods[i].twice, methods[i].secret};
    return (method_facts){method, false, true}; /* of a newer daemon: the careful assumption */
}

ptier_status
ptier_call_raw(ptier_client *client, const char *method, const void *request, size_t request_length,
               void **reply, size_t *reply_length, ptier_error *error)
{
    nng_msg *message = NULL;
    *reply = NULL;
    *reply_length = 0;
    if (!method || method[0] != '/' || strlen(method) > 256)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "name the method as in /proxytier.v1.ProxyCache/Get");
    ptier_status status = ptier_client_enter(client, error);
    if (status != PTIER_OK)
        return status;
    attempt a = {.client = client, .facts = find_facts(method), .raw = request};
    /* Whether a packed PutMany restores is not visible here. */
    if (strcmp(method, methods[PTIER_METHOD_PUT_MANY].name) == 0)
        a.facts.twice = false;
    a.body_length = request_length;
    a.deadline = ptier_monotonic_ms() + client->timeout_ms;
    status = check_size(&a, error);
    if (status == PTIER_OK)
        status = exchange(&a, &message, error);
    if (status == PTIER_OK) {
        *reply = malloc(a.frame.body_length + 1); /* an empty reply has an address too */
        if (*reply) {
            memcpy(*reply, a.frame.body, a.frame.body_length);
            *reply_length = a.frame.body_length;
        } else {
            status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
        }
    }
    free_message(message, a.facts.secret);
    ptier_client_leave(client);
    return status;
}
