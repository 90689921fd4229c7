#include "echo.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>

#define CONTEXTS      128
#define IN_FLIGHT_MAX 256
#define REQUEST_MAX   4096
#define START_TRIES   5000

static void
check(int rv, const char *what)
{
    if (rv != 0)
        bench_fail("echo: %s: %s", what, nng_strerror(rv));
}

/* ---- the server ---- */

typedef struct server_context {
    nng_ctx ctx;
    nng_aio *aio;
    bool sending;
    size_t reply_bytes;
} server_context;

static void
serve(void *argument)
{
    server_context *c = argument;
    int rv = nng_aio_result(c->aio);
    if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
        return;
    if (rv == 0 && !c->sending) {
        nng_msg *message = nng_aio_get_msg(c->aio);
        nng_msg_clear(message);
        if (nng_msg_realloc(message, c->reply_bytes) != 0)
            abort();
        nng_aio_set_msg(c->aio, message);
        c->sending = true;
        nng_ctx_send(c->ctx, c->aio);
        return;
    }
    c->sending = false;
    nng_ctx_recv(c->ctx, c->aio);
}

__attribute__((noreturn)) static void
run_server(const char *url, size_t reply_bytes)
{
    static server_context contexts[CONTEXTS];
    nng_socket socket;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    check(nng_rep0_open(&socket), "open");
    check(nng_listen(socket, url, NULL, 0), "listen");
    for (size_t i = 0; i < CONTEXTS; i++) {
        contexts[i].reply_bytes = reply_bytes;
        check(nng_ctx_open(&contexts[i].ctx, socket), "context");
        check(nng_aio_alloc(&contexts[i].aio, serve, &contexts[i]), "aio");
        nng_ctx_recv(contexts[i].ctx, contexts[i].aio);
    }
    for (;;)
        (void)pause();
}

void
bench_echo_start(bench_process *process, const bench_run *bench, size_t reply_bytes)
{
    (void)snprintf(process->socket, sizeof process->socket, "%s/echo.sock", bench->work);
    (void)snprintf(process->url, sizeof process->url, "ipc://%s", process->socket);
    process->pid = fork(); /* before this process has opened any socket of nng */
    if (process->pid < 0)
        bench_fail("cannot fork");
    if (process->pid == 0)
        run_server(process->url, reply_bytes);
    /* To connect and go at once would end its listener: nng 1.5. */
    for (int tries = 0; access(process->socket, F_OK) != 0; tries++) {
        if (tries == START_TRIES)
            bench_fail("echo does not listen");
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

/* ---- the client ---- */

typedef struct slot {
    bench_echo_client *client;
    nng_ctx ctx;
    nng_aio *aio;
    bool receiving;
} slot;

struct bench_echo_client {
    nng_socket socket;
    size_t request_bytes, in_flight;
    slot slots[IN_FLIGHT_MAX];
    pthread_mutex_t lock;
    pthread_cond_t done;
    size_t to_send, unanswered;
};

static nng_msg *
make_request(const bench_echo_client *c)
{
    static const char zeroes[REQUEST_MAX];
    nng_msg *message;
    check(nng_msg_alloc(&message, 0), "message");
    check(nng_msg_append(message, zeroes, c->request_bytes), "message");
    return message;
}

/* With the lock held. */
static bool
take_one(bench_echo_client *c)
{
    bool more = c->to_send > 0;
    c->to_send -= more;
    return more;
}

static void
send_one(slot *s)
{
    s->receiving = false;
    nng_aio_set_msg(s->aio, make_request(s->client));
    nng_ctx_send(s->ctx, s->aio);
}

static void
step(void *argument)
{
    slot *s = argument;
    bench_echo_client *c = s->client;
    int rv = nng_aio_result(s->aio);
    if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
        return;
    check(rv, "call");
    if (!s->receiving) {
        s->receiving = true;
        nng_ctx_recv(s->ctx, s->aio);
        return;
    }
    nng_msg_free(nng_aio_get_msg(s->aio));
    pthread_mutex_lock(&c->lock);
    bool more = take_one(c); /* before the last answer is told: then the next run may begin */
    if (--c->unanswered == 0)
        pthread_cond_signal(&c->done);
    pthread_mutex_unlock(&c->lock);
    if (more)
        send_one(s);
}

bench_echo_client *
bench_echo_client_open(const bench_process *echo, size_t request_bytes, size_t in_flight)
{
    bench_echo_client *c = calloc(1, sizeof *c);
    if (!c || in_flight > IN_FLIGHT_MAX || request_bytes > REQUEST_MAX)
        bench_fail("echo: out of bounds");
    c->request_bytes = request_bytes;
    c->in_flight = in_flight;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->done, NULL);
    check(nng_req0_open(&c->socket), "open");
    check(nng_dial(c->socket, echo->url, NULL, 0), "dial");
    for (size_t i = 0; in_flight > 1 && i < in_flight; i++) {
        c->slots[i].client = c;
        check(nng_ctx_open(&c->slots[i].ctx, c->socket), "context");
        check(nng_aio_alloc(&c->slots[i].aio, step, &c->slots[i]), "aio");
    }
    return c;
}

void
bench_echo_client_run(bench_echo_client *c, size_t requests)
{
    if (c->in_flight == 1) {
        for (size_t i = 0; i < requests; i++) {
            nng_msg *reply;
            check(nng_sendmsg(c->socket, make_request(c), 0), "send");
            check(nng_recvmsg(c->socket, &reply, 0), "receive");
            nng_msg_free(reply);
        }
        return;
    }
    c->to_send = c->unanswered = requests; /* nothing is under way */
    for (size_t i = 0; i < c->in_flight; i++) {
        pthread_mutex_lock(&c->lock);
        bool more = take_one(c);
        pthread_mutex_unlock(&c->lock);
        if (more)
            send_one(&c->slots[i]);
    }
    pthread_mutex_lock(&c->lock);
    while (c->unanswered)
        pthread_cond_wait(&c->done, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

void
bench_echo_client_close(bench_echo_client *c)
{
    for (size_t i = 0; c->in_flight > 1 && i < c->in_flight; i++) {
        (void)nng_ctx_close(c->slots[i].ctx); /* nothing is under way */
        nng_aio_free(c->slots[i].aio);
    }
    (void)nng_close(c->socket); /* nothing is under way */
    pthread_cond_destroy(&c->done);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
