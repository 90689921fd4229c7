#include "call.h"

#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>

#include "attempt.h"
#include "info_call.h"
#include "monotonic.h"
#include "pause.h"

typedef struct method_facts {
    const char *name;
    bool twice, secret;
} method_facts;

static const method_facts methods[] = {
#define METHOD_FACTS(name, text, twice, secret) {text, twice, secret},
    PTIER_METHOD_TABLE(METHOD_FACTS)
#undef METHOD_FACTS
};

static ptier_status
try_once(ptier_attempt *a, nng_msg **reply, ptier_error *error)
{
    *reply = NULL;
    nng_msg *message = ptier_attempt_pack(a);
    if (!message)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    ptier_status status = ptier_transport_exchange(a->client->transport, message, a->deadline,
                                                   reply, &a->fate, error);
    if (status == PTIER_OK)
        status = ptier_attempt_read(a, *reply, error);
    if (status != PTIER_OK) {
        ptier_attempt_free_reply(a, *reply);
        *reply = NULL;
    }
    return status;
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
get_acquainted(const ptier_attempt *a, ptier_error *error)
{
    ptier_server_info info;
    pthread_mutex_lock(&a->client->lock);
    bool known = a->client->run.known;
    pthread_mutex_unlock(&a->client->lock);
    int64_t left = a->deadline - ptier_monotonic_ms();
    if (known || a->twice || left < 1)
        return PTIER_OK;
    ptier_status status = ptier_get_info_within(a->client, (uint32_t)left, &info, error);
    pthread_mutex_lock(&a->client->lock);
    known = a->client->run.known;
    pthread_mutex_unlock(&a->client->lock);
    return known ? PTIER_OK : status;
}

/* OK: *reply is owned by the caller, a->frame says where the body is in it. */
static ptier_status
exchange(ptier_attempt *a, nng_msg **reply, ptier_error *error)
{
    ptier_error failure = {.message = ""};
    ptier_status status = ptier_attempt_begin(a, error);
    if (status == PTIER_OK)
        status = get_acquainted(a, error);
    if (status != PTIER_OK)
        return status;
    for (;;) {
        int64_t pause;
        status = try_once(a, reply, &failure);
        if (status == PTIER_OK)
            return PTIER_OK;
        if (!ptier_attempt_again(a, status, &pause) || is_closing(a->client))
            break;
        int64_t left = a->deadline - ptier_monotonic_ms();
        if (left > 0)
            ptier_pause_sleep(pause < left ? pause : left);
        if (pause >= left)
            break;
    }
    return ptier_attempt_end(a, status, &failure, error);
}

ptier_status
ptier_call_check_size(size_t body_length, uint32_t limit, ptier_error *error)
{
    if (body_length <= PTIER_UNASKED_BODY_MAX || limit == 0 ||
        body_length + PTIER_HEADER_MAX <= limit)
        return PTIER_OK;
    return ptier_fail(
        error, PTIER_INVALID_ARGUMENT,
        "the request takes %zu bytes, the daemon allows %u: split it into several calls",
        body_length, limit);
}

static ptier_status
check_size(const ptier_attempt *a, ptier_error *error)
{
    if (a->body_length <= PTIER_UNASKED_BODY_MAX)
        return PTIER_OK;
    if (atomic_load(&a->client->message_limit) == 0) {
        ptier_server_info info;
        ptier_status status = ptier_get_info(a->client, &info, error);
        if (status != PTIER_OK)
            return status;
    }
    return ptier_call_check_size(a->body_length, atomic_load(&a->client->message_limit), error);
}

void
ptier_call_describe(ptier_method method, ptier_attempt *attempt)
{
    attempt->method = methods[method].name;
    attempt->twice = methods[method].twice;
    attempt->secret = methods[method].secret;
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
    ptier_attempt a = {.client = client, .request = call->request, .raw = call->raw};
    ptier_call_describe(call->method, &a);
    a.twice = a.twice && !call->once;
    uint32_t timeout_ms = call->timeout_ms ? call->timeout_ms : client->timeout_ms;
    a.body_length =
        call->request ? protobuf_c_message_get_packed_size(call->request) : call->raw_length;
    a.deadline = ptier_monotonic_ms() + timeout_ms;
    status = check_size(&a, error);
    if (status == PTIER_OK)
        status = exchange(&a, &message, error);
    if (status == PTIER_OK)
        status = ptier_attempt_unpack(&a, call->reply_type, arena, reply, error);
    ptier_attempt_free_reply(&a, message);
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
    const method_facts facts = find_facts(method);
    ptier_attempt a = {.client = client,
                       .method = facts.name,
                       .twice = facts.twice,
                       .secret = facts.secret,
                       .raw = request};
    /* Whether a packed PutMany restores is not visible here. */
    if (strcmp(method, methods[PTIER_METHOD_PUT_MANY].name) == 0)
        a.twice = false;
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
    ptier_attempt_free_reply(&a, message);
    ptier_client_leave(client);
    return status;
}
