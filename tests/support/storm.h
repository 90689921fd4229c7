/*
 * Rude clients by the thousand, one after the other, on any address of a daemon: what they leave
 * unfinished is what a crash, a scanner or an attacker leaves. Bytes by hand, no library that would
 * be polite. Failures fail the running cmocka test.
 */
#ifndef PTIER_TEST_STORM_H
#define PTIER_TEST_STORM_H

#include <stdbool.h>
#include <stddef.h>

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

typedef enum storm_kind {
    STORM_CONNECT_CLOSE, /* nothing said */
    STORM_FIN_RST,       /* the end, and then a reset */
    STORM_HALF_HELLO,    /* SP's greeting, cut */
    STORM_GARBAGE,       /* any bytes, as a greeting and after a good one */
    STORM_OVERSIZE,      /* frames of 2^64 - 40 bytes, and of 1 GiB */
    STORM_STALLED,       /* a frame that ends in its middle; 200 at once, then they go */
    STORM_TLS_ABORT,     /* a TLS hello, cut or whole, and a reset */
    STORM_KINDS,
} storm_kind;

const char *storm_name(storm_kind kind);

/* Over tls+tcp these are bytes below TLS. `events`: SUB's greeting instead of REQ's. */
void storm_run(const char *url, bool events, storm_kind kind, unsigned rounds);

/* The same by those who have got through TLS's own handshake with `tls`. */
void storm_run_inside_tls(const char *url, bool events, nng_tls_config *tls, storm_kind kind,
                          unsigned rounds);

/* A connection to an address, without a word; blocking, with a time limit. */
int storm_connect(const char *url);

#endif
