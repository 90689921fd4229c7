/*
 * Hundreds of connections over ipc in processes of their own, without the SDK: clients that call at
 * once, that are idle, or that are hostile at a given rate. Failures fail the running cmocka test
 * (or end a program that is none).
 */
#ifndef PTIER_TEST_CROWD_H
#define PTIER_TEST_CROWD_H

#include <stddef.h>
#include <sys/types.h>

#define CROWD_PROCESSES 4

typedef enum crowd_manner {
    CROWD_CALLS,   /* every connection has a Get answered, all at once, and tells it; then idle */
    CROWD_IDLE,    /* connected, and silent */
    CROWD_HOSTILE, /* breaks off, garbage, oversize, half greetings, unread replies; nice 19 */
} crowd_manner;

typedef struct crowd {
    pid_t pids[CROWD_PROCESSES];
    int told[CROWD_PROCESSES]; /* ends of pipes */
} crowd;

/* One descriptor a connection, here and in what is started from here. */
void crowd_raise_limit(void);

/* Starts `size` connections in all and returns when they are there (CALLS: answered). `key` is
 * asked for; `rate`: hostile actions a second, of all together. */
void crowd_start(crowd *made, const char *url, crowd_manner manner, size_t size, const char *key,
                 unsigned rate);

/* How many of the connections were served so far (CALLS), or how many actions were done (HOSTILE);
 * ends them. */
size_t crowd_stop(crowd *made);

#endif
