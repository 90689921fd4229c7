/*
 * A daemon and a client without the SDK as the fixture of a case, and the calls that most cases
 * need. One thread. Failures fail the running cmocka test.
 */
#ifndef PTIER_TEST_SERVER_BOX_H
#define PTIER_TEST_SERVER_BOX_H

#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>

#include "support/daemon.h"
#include "support/raw_client.h"

/* protobuf-c wants char * for strings that it only reads. */
#define TEXT(constant) ((char *)(uintptr_t)(constant))
#define CALL(f, service, Method, request, response)                                                \
    raw_client_call(&(f)->client, "/proxytier.v1." service "/" Method, &(request)->base,           \
                    &proxytier__v1__##response##__descriptor)

typedef struct fixture {
    test_daemon daemon;
    raw_client client;
} fixture;

/* The set-up and tear-down of a case: *state is the fixture, its daemon runs with the usual
 * options. */
int set_up(void **state);
int tear_down(void **state);
#define WITH_DAEMON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

/* After the daemon's end: it and the client anew, as the old client may not have noticed yet that
 * its connection is gone. */
void start_again(fixture *f, const char *const *extra);
/* The same with a SIGTERM before, which must give exit code 0. */
void restart(fixture *f, const char *const *extra);

/* This status, with `part` in the message. Frees the reply. */
void expect_fails(raw_reply reply, ptier_status status, const char *part);

/* ttl_ms < 0: the daemon's default. `key`: where to put the record's key, or NULL. */
void put_one(fixture *f, const char *url, const char *user, const char *password, int64_t ttl_ms,
             char key[300]);
/* Puts `count` records http://10.1.x.y:8080 in one call, their sources in turn "even" and "odd". */
void put_many(fixture *f, size_t count);
raw_reply get(fixture *f, const char *key);
ptier_status get_status(fixture *f, const char *key);

#endif
