/*
 * A client without the SDK: nng REQ, frames made by hand. For tests that look at the wire. Every
 * call ends within its timeout. Not thread-safe.
 */
#ifndef PTIER_TEST_RAW_CLIENT_H
#define PTIER_TEST_RAW_CLIENT_H

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>
#include <protobuf-c/protobuf-c.h>

#include <proxytier/status.h>

#include "proxytier/v1/rpc.pb-c.h"

typedef struct raw_client {
    nng_socket socket;
    int timeout_ms; /* of a call; 10,000 */
} raw_client;

typedef struct raw_reply {
    Proxytier__V1__ResponseHeader *header; /* NULL: no answer */
    ProtobufCMessage *body;                /* NULL: the status is not OK */
    int nng_error;                         /* of the transport */
} raw_reply;

/* Does not need the daemon to be there. Fails the test for lack of resources only. */
void raw_client_open(raw_client *client, const char *url);
/* The same over tls+tcp; `tls` is borrowed for the call. */
void raw_client_open_tls(raw_client *client, const char *url, nng_tls_config *tls);
void raw_client_close(raw_client *client);

/* Sends any bytes and reads the reply; `schema` unpacks its body. Free with raw_reply_free. */
raw_reply raw_client_send(raw_client *client, const void *message, size_t length,
                          const ProtobufCMessageDescriptor *schema);

/* A well-formed call. */
raw_reply raw_client_call(raw_client *client, const char *method, const ProtobufCMessage *request,
                          const ProtobufCMessageDescriptor *schema);
/* The same with header and body of one's own; body NULL: empty. */
raw_reply raw_client_call_bytes(raw_client *client, const Proxytier__V1__RequestHeader *header,
                                const void *body, size_t body_length,
                                const ProtobufCMessageDescriptor *schema);
void raw_reply_free(raw_reply *reply);

/* Status of a reply; fails the test when there was no answer. */
ptier_status raw_status(const raw_reply *reply);

#endif
