/* See raw_client.h. */
#include "support/raw_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <nng/protocol/reqrep0/req.h>

#include "framing.h"

#define CALL_TIMEOUT_MS 10000
#define MESSAGE_MAX     ((size_t)32 * 1024 * 1024)

void
raw_client_open(raw_client *client, const char *url)
{
    raw_client_open_tls(client, url, NULL);
}

void
raw_client_open_tls(raw_client *client, const char *url, nng_tls_config *tls)
{
    nng_dialer dialer;
    client->timeout_ms = CALL_TIMEOUT_MS;
    assert_int_equal(nng_req0_open(&client->socket), 0);
    assert_int_equal(nng_socket_set_ms(client->socket, NNG_OPT_RECONNMINT, 10), 0);
    assert_int_equal(nng_socket_set_ms(client->socket, NNG_OPT_RECONNMAXT, 50), 0);
    assert_int_equal(nng_dialer_create(&dialer, client->socket, url), 0);
    assert_int_equal(nng_dialer_set_size(dialer, NNG_OPT_RECVMAXSZ, MESSAGE_MAX), 0);
    if (tls)
        assert_int_equal(nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls), 0);
    assert_int_equal(nng_dialer_start(dialer, NNG_FLAG_NONBLOCK), 0);
}

void
raw_client_close(raw_client *client)
{
    (void)nng_close(client->socket); /* fails only for a bad handle */
}

static void
read_reply(raw_reply *reply, const void *bytes, size_t length,
           const ProtobufCMessageDescriptor *schema)
{
    ptier_frame frame;
    assert_int_equal(ptier_frame_split(bytes, length, &frame, NULL), PTIER_OK);
    reply->header = proxytier__v1__response_header__unpack(NULL, frame.header_length, frame.header);
    assert_non_null(reply->header);
    if (reply->header->code == PROXYTIER__V1__STATUS_CODE__STATUS_CODE_OK && schema) {
        reply->body = protobuf_c_message_unpack(schema, NULL, frame.body_length, frame.body);
        assert_non_null(reply->body);
    }
}

raw_reply
raw_client_send(raw_client *client, const void *message, size_t length,
                const ProtobufCMessageDescriptor *schema)
{
    raw_reply reply = {0};
    nng_ctx context;
    nng_aio *aio;
    nng_msg *request;
    assert_int_equal(nng_ctx_open(&context, client->socket), 0);
    assert_int_equal(nng_ctx_set_ms(context, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE), 0);
    assert_int_equal(nng_aio_alloc(&aio, NULL, NULL), 0);
    assert_int_equal(nng_msg_alloc(&request, 0), 0);
    assert_int_equal(nng_msg_append(request, message, length), 0);
    nng_aio_set_timeout(aio, client->timeout_ms);
    nng_aio_set_msg(aio, request);
    nng_ctx_send(context, aio);
    nng_aio_wait(aio);
    reply.nng_error = nng_aio_result(aio);
    if (reply.nng_error == 0) {
        nng_ctx_recv(context, aio);
        nng_aio_wait(aio);
        reply.nng_error = nng_aio_result(aio);
        if (reply.nng_error == 0) {
            nng_msg *answer = nng_aio_get_msg(aio);
            read_reply(&reply, nng_msg_body(answer), nng_msg_len(answer), schema);
            nng_msg_free(answer);
        }
    } else {
        nng_msg_free(request);
    }
    nng_aio_free(aio);
    (void)nng_ctx_close(context); /* fails only for a bad handle */
    return reply;
}

raw_reply
raw_client_call_bytes(raw_client *client, const Proxytier__V1__RequestHeader *header,
                      const void *body, size_t body_length,
                      const ProtobufCMessageDescriptor *schema)
{
    size_t header_length = proxytier__v1__request_header__get_packed_size(header);
    size_t length = PTIER_FRAME_PREFIX + header_length + body_length;
    uint8_t *message = malloc(length);
    assert_non_null(message);
    ptier_frame_prefix(message, header_length);
    proxytier__v1__request_header__pack(header, message + PTIER_FRAME_PREFIX);
    if (body_length)
        memcpy(message + PTIER_FRAME_PREFIX + header_length, body, body_length);
    raw_reply reply = raw_client_send(client, message, length, schema);
    free(message);
    return reply;
}

raw_reply
raw_client_call(raw_client *client, const char *method, const ProtobufCMessage *request,
                const ProtobufCMessageDescriptor *schema)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = (char *)(uintptr_t)method;
    size_t length = protobuf_c_message_get_packed_size(request);
    uint8_t *body = malloc(length + 1);
    assert_non_null(body);
    protobuf_c_message_pack(request, body);
    raw_reply reply = raw_client_call_bytes(client, &header, body, length, schema);
    free(body);
    return reply;
}

void
raw_reply_free(raw_reply *reply)
{
    if (reply->header)
        proxytier__v1__response_header__free_unpacked(reply->header, NULL);
    if (reply->body)
        protobuf_c_message_free_unpacked(reply->body, NULL);
    memset(reply, 0, sizeof *reply);
}

ptier_status
raw_status(const raw_reply *reply)
{
    if (!reply->header)
        fail_msg("no answer: %s", nng_strerror(reply->nng_error));
    return (ptier_status)reply->header->code;
}
