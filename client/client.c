#include "client_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "async_engine.h"
#include "event_link.h"
#include "monotonic.h"
#include "near_client.h"
#include "nng_workaround_stream.h"

#define TIMEOUT_DEFAULT_MS 5000
#define RETRIES_DEFAULT    3
#define RETRIES_MAX        100
#define ASYNC_DEFAULT      4096
#define TOKEN_MAX          4096

/*
 * The process that first used the transport. nng aborts when it is started again in a child of that
 * process; this is a fact of the process, not of a client, hence the one global.
 */
static _Atomic pid_t transport_pid;

/* Which generation of children this process is: also a fact of the process. */
static _Atomic unsigned forks;
static pthread_once_t forks_once = PTHREAD_ONCE_INIT;

static void
count_fork(void)
{
    atomic_fetch_add(&forks, 1);
}

static void
watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, count_fork); /* no memory: near caches serve in children */
}

void
ptier_client_options_init(ptier_client_options *options)
{
    *options = (ptier_client_options){.size = sizeof *options,
                                      .timeout_ms = TIMEOUT_DEFAULT_MS,
                                      .retries = RETRIES_DEFAULT,
                                      .async_calls = ASYNC_DEFAULT};
}

size_t
ptier_default_url(char *url, size_t room)
{
    const char *configured = getenv("PROXYTIER_URL");
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int length;
    if (configured && *configured)
        length = snprintf(url, room, "%s", configured);
    else if (runtime && *runtime)
        length = snprintf(url, room, "ipc://%s/proxytier/rpc.sock", runtime);
    else
        length =
            snprintf(url, room, "ipc:///tmp/proxytier-%" PRIuMAX "/rpc.sock", (uintmax_t)geteuid());
    return length < 0 ? 0 : (size_t)length;
}

/* Takes over what the caller's (perhaps older, smaller) struct has. */
static ptier_status
read_options(const ptier_client_options *given, ptier_client_options *options, ptier_error *error)
{
    ptier_client_options_init(options);
    if (!given)
        return PTIER_OK;
    if (given->size == 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "start the options from ptier_client_options_init");
    memcpy(options, given, given->size < sizeof *options ? given->size : sizeof *options);
    if (options->timeout_ms == 0)
        options->timeout_ms = TIMEOUT_DEFAULT_MS;
    if (options->timeout_ms > INT32_MAX)
        options->timeout_ms = INT32_MAX;
    if (options->async_calls == 0)
        options->async_calls = ASYNC_DEFAULT;
    if (options->retries > RETRIES_MAX)
        options->retries = RETRIES_MAX;
    return PTIER_OK;
}

static ptier_status
choose_url(const ptier_client_options *options, char *url, size_t room, ptier_error *error)
{
    size_t length;
    if (options->url && *options->url)
        length = (size_t)snprintf(url, room, "%s", options->url);
    else
        length = ptier_default_url(url, room);
    if (length >= room)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "address of the daemon is longer than %zu bytes", room - 1);
    return ptier_transport_check_url(url, error);
}

static ptier_status
copy_token(ptier_client *client, const char *token, ptier_error *error)
{
    if (!token)
        token = getenv("PROXYTIER_TOKEN");
    if (!token)
        token = "";
    if (strlen(token) > TOKEN_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "the token is longer than %d bytes",
                          TOKEN_MAX);
    client->token = strdup(token);
    return client->token ? PTIER_OK : ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
}

static ptier_status
claim_process(pid_t pid, ptier_error *error)
{
    pid_t nobody = 0;
    if (atomic_compare_exchange_strong(&transport_pid, &nobody, pid) || nobody == pid)
        return PTIER_OK;
    return ptier_fail(
        error, PTIER_FAILED_PRECONDITION,
        "this process was forked from one that had opened a client: open clients after the fork, "
        "in one of the two");
}

static void
free_client(ptier_client *client)
{
    if (client->token) {
        explicit_bzero(client->token, strlen(client->token));
        free(client->token);
    }
    ptier_tls_fini(&client->tls);
    pthread_cond_destroy(&client->left);
    pthread_mutex_destroy(&client->lock);
    free(client);
}

ptier_status
ptier_client_open(const ptier_client_options *given, ptier_client **result, ptier_error *error)
{
    ptier_client_options options;
    char url[PTIER_URL_MAX + 1];
    pid_t pid = getpid();

    *result = NULL;
    ptier_status status = read_options(given, &options, error);
    if (status == PTIER_OK)
        status = choose_url(&options, url, sizeof url, error);
    if (status == PTIER_OK)
        status = claim_process(pid, error);
    if (status != PTIER_OK)
        return status;

    ptier_client *client = calloc(1, sizeof *client);
    if (!client)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (pthread_mutex_init(&client->lock, NULL) != 0 ||
        ptier_monotonic_cond_init(&client->left) != 0) {
        free(client);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "cannot make a lock");
    }
    (void)pthread_once(&forks_once, watch_forks); /* cannot fail */
    client->pid = pid;
    client->forks = atomic_load(&forks);
    client->timeout_ms = options.timeout_ms;
    client->retries = options.retries;
    client->separate_gets = options.separate_gets;
    status = copy_token(client, options.token, error);
    if (status == PTIER_OK)
        status = ptier_owner_init(&client->owner, options.daemon_user, error);
    if (status == PTIER_OK)
        status = ptier_tls_init(&client->tls, &options, url, error);
    if (status == PTIER_OK)
        status = ptier_transport_open(url, &client->tls, &client->owner, &client->transport, error);
    if (status == PTIER_OK)
        status = ptier_event_link_create(client, &client->link, error);
    if (status == PTIER_OK)
        status = ptier_async_engine_create(client, options.async_calls, &client->engine, error);
    if (status == PTIER_OK && options.near_cache)
        status = ptier_near_client_open(client, options.near_cache, &client->near, error);
    if (status != PTIER_OK) {
        ptier_async_engine_destroy(client->engine);
        ptier_event_link_destroy(client->link);
        ptier_transport_close(client->transport);
        free_client(client);
        return status;
    }
    *result = client;
    return PTIER_OK;
}

void
ptier_client_close(ptier_client *client)
{
    if (!client || client->pid != getpid())
        return; /* a forked child has the memory but none of the threads: leave it */
    pthread_mutex_lock(&client->lock);
    client->closing = true;
    atomic_store(&client->closed, true);
    pthread_mutex_unlock(&client->lock);
    ptier_transport_cancel(client->transport);
    pthread_mutex_lock(&client->lock);
    while (client->running > 0)
        pthread_cond_wait(&client->left, &client->lock);
    ptier_near_client_wait_for_readers(client->near); /* of whom some go on as the next ones */
    while (atomic_load(&client->readers) > 0) /* they do not signal: it is a matter of moments */
        ptier_monotonic_wait(&client->left, &client->lock, ptier_monotonic_ms() + 1);
    pthread_mutex_unlock(&client->lock);
    ptier_async_engine_destroy(client->engine);
    ptier_near_client_close(client->near);
    ptier_event_link_destroy(client->link);
    ptier_transport_close(client->transport);
    free_client(client);
}

bool
ptier_nng_is_cured(void)
{
    return ptier_nng_workaround_stream_acts();
}

static ptier_status
forked(ptier_error *error)
{
    return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                      "this client was opened before the fork: open another one in this process");
}

ptier_status
ptier_client_check_fork(const ptier_client *client, ptier_error *error)
{
    if (client->forks == atomic_load_explicit(&forks, memory_order_relaxed))
        return PTIER_OK;
    return forked(error);
}

ptier_status
ptier_client_was_closed(ptier_error *error)
{
    return ptier_fail(error, PTIER_CANCELLED, "the client was closed");
}

ptier_status
ptier_client_enter_read(ptier_client *client, ptier_error *error)
{
    ptier_status status = ptier_client_check_fork(client, error);
    if (status != PTIER_OK)
        return status;
    atomic_fetch_add(&client->readers, 1);
    if (!atomic_load(&client->closed))
        return PTIER_OK;
    ptier_client_leave_read(client);
    return ptier_client_was_closed(error);
}

void
ptier_client_leave_read(ptier_client *client)
{
    atomic_fetch_sub(&client->readers, 1);
}

ptier_status
ptier_client_enter(ptier_client *client, ptier_error *error)
{
    if (!client)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "no client: ptier_client_open makes one");
    if (client->pid != getpid())
        return forked(error);
    pthread_mutex_lock(&client->lock);
    bool closing = client->closing;
    if (!closing)
        client->running++;
    pthread_mutex_unlock(&client->lock);
    return closing ? ptier_client_was_closed(error) : PTIER_OK;
}

void
ptier_client_leave(ptier_client *client)
{
    pthread_mutex_lock(&client->lock);
    if (--client->running == 0)
        pthread_cond_broadcast(&client->left);
    pthread_mutex_unlock(&client->lock);
}
