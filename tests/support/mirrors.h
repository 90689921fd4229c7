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

/* The same, of 2 KiB each. */
void test_put_heavy(ptier_client *client, unsigned first, unsigned count);

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

/* A daemon whose journal has so many events, and whose entries do not expire; and a client. Closing
 * checks that the daemon ends well. */
typedef struct event_box {
    test_daemon daemon;
    ptier_client *client;
} event_box;
void event_box_open(event_box *box, const char *journal_events);
void event_box_close(event_box *box);

#endif
