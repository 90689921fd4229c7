#include "attempt.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "call.h"
#include "client_internal.h"
#include "monotonic.h"
#include "near_client.h"
#include "pause.h"
#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/info.pb-c.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "record_list.h"
#include "results_decode.h"
#include "unpack.h"

#define REQUEST_ID_BYTES PTIER_REQUEST_ID_BYTES
#define RETRY_PAUSE_MS   40    /* before the second try; doubles */
#define RETRY_WINDOW_MS  45000 /* the daemon remembers what it did for 60 s */

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
recall_run(ptier_attempt *a)
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

nng_msg *
ptier_attempt_pack(ptier_attempt *a)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    int64_t left = a->deadline - ptier_monotonic_ms();
    nng_msg *message = NULL;

    a->answered = false;
    if (a->tries == 0)
        recall_run(a);
    header.method = (char *)a->method;
    header.timeout_ms = left < 1 ? 1 : (uint32_t)left;
    header.request_id = (ProtobufCBinaryData){REQUEST_ID_BYTES, a->request_id};
    header.token = a->client->token;
    if (a->tries > 0 && a->run.known) {
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

ptier_status
ptier_attempt_read(ptier_attempt *a, const nng_msg *message, ptier_error *error)
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

/*
 * What may not be done twice is tried again as long as the daemon remembers what it did, and can
 * tell whether it is the one that was asked first.
 */
static bool
may_repeat(const ptier_attempt *a)
{
    return a->twice || (a->run.known && ptier_monotonic_ms() - a->first_sent < RETRY_WINDOW_MS);
}

/* A daemon that says UNAVAILABLE is stopping: it did nothing, and another one may be about to
 * start. */
static bool
worth_retrying(const ptier_attempt *a, ptier_status status)
{
    if (status != PTIER_UNAVAILABLE)
        return false;
    if (!a->answered && a->fate == PTIER_FATE_UNSENT)
        return a->tries > 0 && may_repeat(a); /* the transport has waited for a first connection */
    return may_repeat(a);
}

/* Whether the daemon's answer to a retry says what became of the tries before it: it looks that up
 * first, but who is not let in learns nothing. */
static bool
settles(const ptier_attempt *a, ptier_status status)
{
    return a->answered && status != PTIER_PERMISSION_DENIED && status != PTIER_UNAUTHENTICATED &&
           status != PTIER_UNIMPLEMENTED;
}

ptier_status
ptier_attempt_begin(ptier_attempt *a, ptier_error *error)
{
    a->begun = ptier_near_now();
    return make_request_id(a->request_id, error);
}

bool
ptier_attempt_again(ptier_attempt *a, ptier_status status, int64_t *pause_ms)
{
    if (!a->answered && a->fate == PTIER_FATE_LOST)
        a->uncertain = true;
    else if (settles(a, status))
        a->uncertain = false;
    bool again = worth_retrying(a, status) && a->tries < a->client->retries;
    int64_t pause = (int64_t)RETRY_PAUSE_MS << (a->tries < 5 ? a->tries : 5);
    *pause_ms = again ? ptier_pause_jittered(pause) : 0;
    a->tries++;
    return again;
}

ptier_status
ptier_attempt_end(const ptier_attempt *a, ptier_status status, const ptier_error *failure,
                  ptier_error *error)
{
    if (a->uncertain && !a->twice)
        return ptier_fail(
            error, PTIER_ABORTED,
            "the connection was lost before the answer: the daemon may or may not have done it");
    return ptier_fail(error, status, "%s", failure->message);
}

void
ptier_attempt_free_reply(const ptier_attempt *a, nng_msg *reply)
{
    if (!reply)
        return;
    if (a->secret)
        explicit_bzero(nng_msg_body(reply), nng_msg_len(reply));
    nng_msg_free(reply);
}

ptier_status
ptier_attempt_unpack(const ptier_attempt *a, const ProtobufCMessageDescriptor *type,
                     ptier_arena **arena, void *reply, ptier_error *error)
{
    *arena = ptier_arena_create(PTIER_REPLY_BUDGET(a->frame.body_length));
    if (!*arena)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_error detail = {.message = ""};
    const uint8_t *body = a->frame.body;
    size_t length = a->frame.body_length;
    void *message;
    if (ptier_record_list_type(type))
        message = ptier_record_list_unpack(type, *arena, body, length, &detail);
    else if (type == &proxytier__v1__put_many_response__descriptor)
        message = ptier_put_results_unpack(*arena, body, length, &detail);
    else
        message = ptier_unpack_reply(type, *arena, body, length, &detail);
    if (!message) {
        ptier_arena_destroy(*arena);
        *arena = NULL;
        return ptier_fail(error, PTIER_INTERNAL, "the reply to %s is damaged: %s", a->method,
                          detail.message);
    }
    memcpy(reply, &message, sizeof message);
    return PTIER_OK;
}
