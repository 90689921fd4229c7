/*
 * A relay between clients and a unix socket that cuts connections after a random number of bytes:
 * within a request, between request and reply, within a reply. One thread of its own.
 */
#ifndef PTIER_TEST_CUT_PROXY_H
#define PTIER_TEST_CUT_PROXY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define CUT_LINKS_MAX 64

typedef struct cut_link {
    int client, server; /* -1: free */
    uint64_t left[2];   /* bytes until the cut, by direction: to the server, to the client */
} cut_link;

typedef struct cut_proxy {
    char url[120];    /* ipc:// where clients connect */
    char target[108]; /* path of the socket behind it */
    uint64_t mean;    /* bytes in one direction, about, after which a connection is cut; 0: never */
    atomic_uint cuts[2]; /* so far, by direction */
    int listener;
    atomic_bool stopping;
    pthread_t thread;
    uint64_t random;
    cut_link links[CUT_LINKS_MAX];
} cut_proxy;

/* Listens beside the target, ipc:///path. Asserts that it can. */
void cut_proxy_start(cut_proxy *proxy, const char *target_url, uint64_t mean, uint64_t seed);
void cut_proxy_stop(cut_proxy *proxy);

#endif
