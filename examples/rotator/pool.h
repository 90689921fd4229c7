/*
 * The rotator's own list of proxies. It is filled by picking from the daemon, and a proxy leaves it
 * only when the daemon says so by an event.
 *
 * Threads: every function may be called from any thread. No call to the daemon is made under the
 * pool's lock.
 */
#ifndef ROTATOR_POOL_H
#define ROTATOR_POOL_H

#include <proxytier/client.h>

#include <pthread.h>

#define POOL_SLOTS 64

/* A proxy to use, copied out of the pool: it stays valid whatever happens to the pool meanwhile. */
typedef struct pool_proxy {
    char key[PTIER_KEY_MAX + 1];
    char url[PTIER_URL_MAX + 1];
    char username[PTIER_CREDENTIAL_MAX + 1]; /* "" none */
    char password[PTIER_CREDENTIAL_MAX + 1];
} pool_proxy;

typedef enum pool_state {
    POOL_FREE = 0,
    POOL_LIVE,
    POOL_REFUSED, /* not on this machine: kept only so that it is not picked again */
    POOL_GONE,    /* dropped after an event; kept for the closing report */
} pool_state;

typedef struct pool_slot {
    pool_state state;
    ptier_reason reason; /* POOL_GONE */
    pool_proxy proxy;
    unsigned long used, failed;
} pool_slot;

typedef struct proxy_pool {
    pthread_mutex_t lock; /* guards everything below */
    pool_slot slots[POOL_SLOTS];
    size_t next;             /* round robin */
    unsigned long removals;  /* removal events heard so far: see pool_refill */
    unsigned long picks;     /* calls made */
    unsigned long came_back; /* picked although an event had said that it is gone */
    size_t wanted;           /* proxies to hold */
    const char *source;      /* borrowed for the pool's life */
    bool allow_remote;
} proxy_pool;

void pool_init(proxy_pool *pool, size_t wanted, const char *source, bool allow_remote);
void pool_fini(proxy_pool *pool);

/* Copies the next proxy in turn. False when the pool is empty. */
bool pool_next(proxy_pool *pool, pool_proxy *proxy);

/* Counts one use. */
void pool_count_use(proxy_pool *pool, const char *key, bool ok);

/* Live proxies. */
size_t pool_size(proxy_pool *pool);

/* Picks what is missing. NOT_FOUND: the daemon has no more that match. */
PTIER_MUST_CHECK ptier_status pool_refill(proxy_pool *pool, ptier_client *client,
                                          ptier_error *error);

/* An event said that the key is gone (NULL: that everything is). Returns how many were dropped. */
size_t pool_drop(proxy_pool *pool, const char *key, ptier_reason reason);

#endif
