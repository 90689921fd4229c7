/*
 * A daemon with every door open, tokens of every kind, and certificates: what tests of rights need.
 * Loopback only; ports are free ones. One thread. Failures fail the running cmocka test.
 */
#ifndef PTIER_TEST_SECURITY_BOX_H
#define PTIER_TEST_SECURITY_BOX_H

#include <stdbool.h>

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#include "support/daemon.h"
#include "token_file.h"

#define SECURITY_BOX_USER   12345 /* rotator over ipc, without a token */
#define SECURITY_BOX_NOBODY 12346 /* nobody there */
#define SECURITY_BOX_HOST   "cache.test"

typedef struct security_box {
    test_daemon daemon; /* url and events_url are ipc */
    char token_path[96];
    char tokens[PTIER_ROLE_ADMIN + 1][PTIER_TOKEN_TEXT + 1]; /* by role; NONE: an expired admin's */
    char wrong[PTIER_TOKEN_TEXT + 1];                        /* has the form of one */
    char tcp_url[48], tls_url[48], tls_events_url[48];
} security_box;

/* Makes files; nothing runs yet. In the directory: ca, server, client, expired (of our CA) and
 * stranger (of another one), .pem and .key each. */
void security_box_init(security_box *box);
void security_box_fini(security_box *box);

/* The same as set-up and tear-down of a case: *state is the box. */
int security_box_set_up(void **state);
int security_box_tear_down(void **state);

/* mutual: over tls clients need a certificate, and events are offered. `extra` options may be NULL.
 */
void security_box_start(security_box *box, bool mutual, const char *const *extra);

/* "DIRECTORY/name", in one of a few static buffers. */
const char *security_box_file(const security_box *box, const char *name);

/* For raw clients: trusts ca `ca`, shows certificate `cert` (NULL: none), wants `host`. */
nng_tls_config *security_box_tls(const security_box *box, const char *ca, const char *cert,
                                 const char *host);

/* What this thread connects as from here on, where the test runs as root; false otherwise. 0 is
 * root again. Of the thread only: the C library would change all of them. */
bool security_box_become(unsigned uid);

#endif
