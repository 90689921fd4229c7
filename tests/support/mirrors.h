/*
 * Subscribers that are processes of their own (event_mirror.c), and load for them. Fails the test
 * when anything goes wrong. Not thread-safe, except the load on a client of its own.
 */
#ifndef PTIER_TEST_MIRRORS_H
#define PTIER_TEST_MIRRORS_H

#include <proxytier/client.h>

#include "support/daemon.h"
#include "support/program.h"

typedef struct mirror_report {
    unsigned long long events, resyncs, disorder, clears;
} mirror_report;

ptier_client *test_client_open(const test_daemon *daemon, uint32_t timeout_ms);

/* Puts `count` records, whose URLs are numbered from `first` on, in batches of 500. */
void test_put_range(ptier_client *client, unsigned first, unsigned count, const char *source);

/* Deletes them, as test_put_range numbers them. Returns how many were there. */
size_t test_delete_range(ptier_client *client, unsigned first, unsigned count);

/* The key of the record with that number. */
void test_key(unsigned number, char key[24]);

/* Starts one; it waits for the daemon by itself. callback_us: how long each callback takes. */
void mirror_start(ptier_test_program *program, const test_daemon *daemon, unsigned callback_us);

/* Waits until its first listing is done. */
void mirror_wait_following(ptier_test_program *program);

/* The last change, by which mirrors know that they have everything. */
void mirror_put_sentinel(ptier_client *client);

/* Waits for its end, and compares what it holds with what the daemon lists: key and revision. */
mirror_report mirror_check(ptier_test_program *program, ptier_client *client);

#endif
