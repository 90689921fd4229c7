/* See unix_connection.h. */
#include "unix_connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define WORKING_MAX     256 /* unanswered calls; nobody who waits for replies has so many */
#define GREETING_MS     10000
#define FRAME_MS        30000 /* for the rest of a message that was begun */
#define STUCK_MS        10000 /* replies that are taken drop by drop */
#define OUT_KEEP        ((size_t)8 * 1024)
#define CORK_BYTES      ((size_t)64 * 1024) /* so many are sent although more are about to come */
#define REQUESTS_KEPT   128
#define REQUEST_KEEP    ((size_t)64 * 1024)
#define TRACE_BYTES_MAX 36 /* ids of 8 devices of nng on the way, and of the request */

typedef struct ptier_unix_request {
    ptier_request request; /* first: its answer finds the rest by it */
    ptier_unix_requests *home;
    struct ptier_unix_request *next;
    ptier_unix_connection *connection;
    uint8_t trace[TRACE_BYTES_MAX];
    size_t trace_length;
    ptier_bytes message, frame;
} unix_request;

/* ---- calls ---- */

void
ptier_unix_requests_init(ptier_unix_requests *requests)
{
    pthread_mutex_init(&requests->lock, NULL);
    requests->free = NULL;
    requests->free_count = 0;
}

static void
free_request(unix_request *r)
{
    ptier_call_fini(&r->request.call);
    ptier_bytes_fini(&r->message);
    ptier_bytes_fini(&r->frame);
    free(r);
}

void
ptier_unix_requests_fini(ptier_unix_requests *requests)
{
    for (unix_request *r = requests->free, *next; r; r = next) {
        next = r->next;
        free_request(r);
    }
    pthread_mutex_destroy(&requests->lock);
}

static void answer(ptier_request *request);

static unix_request *
take_request(ptier_unix_connection *c)
{
    ptier_unix_requests *requests = c->requests;
    pthread_mutex_lock(&requests->lock);
    unix_request *r = requests->free;
    if (r) {
        requests->free = r->next;
        requests->free_count--;
    }
    pthread_mutex_unlock(&requests->lock);
    if (!r) {
        r = calloc(1, sizeof *r);
        if (!r)
            return NULL;
        r->home = requests;
        r->request.answer = answer;
        ptier_call_init(&r->request.call, c->front->service);
    }
    r->connection = c;
    return r;
}

static void
give_request_back(unix_request *r)
{
    ptier_unix_requests *requests = r->home;
    ptier_bytes_reset(&r->message, REQUEST_KEEP);
    ptier_bytes_reset(&r->frame, REQUEST_KEEP);
    pthread_mutex_lock(&requests->lock);
    bool kept = requests->free_count < REQUESTS_KEPT;
    if (kept) {
        r->next = requests->free;
        requests->free = r;
        requests->free_count++;
    }
    pthread_mutex_unlock(&requests->lock);
    if (!kept)
        free_request(r);
}

/* ---- sending ---- */

static bool
is_stuck(const ptier_unix_connection *c)
{
    return c->stuck_since_ms != 0;
}

/* While its replies are not taken nothing more is read, and nothing that was read begins. */
static void
watch_locked(ptier_unix_connection *c)
{
    struct epoll_event event = {.events = is_stuck(c) ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    (void)epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->fd, &event); /* it is watched already */
}

static void
note_progress_locked(ptier_unix_connection *c, bool all, bool some)
{
    bool before = is_stuck(c);
    if (all) {
        c->stuck_since_ms = c->stuck_first_ms = 0;
    } else if (!before || some) {
        c->stuck_since_ms = ptier_monotonic_ms();
        if (!before)
            c->stuck_first_ms = c->stuck_since_ms;
    }
    if (before != is_stuck(c))
        watch_locked(c);
}

/* The loop hears of it, and closes; the peer, if it is there still, has to know that a reply is
 * missing. */
static void
give_up_locked(ptier_unix_connection *c)
{
    c->lost = true;
    (void)shutdown(c->fd, SHUT_RDWR);
}

/* Sends what the kernel takes at once. How many bytes; -1: the connection is lost. */
static ssize_t
send_some_locked(ptier_unix_connection *c, const uint8_t *bytes, size_t length)
{
    ssize_t sent;
    do
        sent = send(c->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        sent = 0;
    if (sent < 0) {
        give_up_locked(c);
        return -1;
    }
    note_progress_locked(c, (size_t)sent == length, sent > 0);
    atomic_store_explicit(&c->front->last_sent_ms, ptier_monotonic_ms(), memory_order_relaxed);
    return sent;
}

static bool
flush_locked(ptier_unix_connection *c)
{
    size_t left = c->out.length - c->out_sent;
    ssize_t sent = left ? send_some_locked(c, c->out.data + c->out_sent, left) : 0;
    if (sent < 0)
        return false;
    c->out_sent += (size_t)sent;
    atomic_fetch_sub(&c->front->unsent, (size_t)sent);
    if (c->out_sent == c->out.length) {
        c->out_sent = 0;
        ptier_bytes_reset(&c->out, OUT_KEEP);
    }
    return true;
}

/* Puts bytes behind those that wait, or sends them at once if there are none. False: it is lost. */
static bool
put_locked(ptier_unix_connection *c, const uint8_t *bytes, size_t length)
{
    size_t sent = 0;
    if (c->fd < 0 || c->lost)
        return false;
    if (c->out.length == 0 && !c->corked) {
        ssize_t count = send_some_locked(c, bytes, length);
        if (count < 0)
            return false;
        sent = (size_t)count;
    }
    if (sent == length)
        return true;
    uint8_t *at = ptier_bytes_reserve(&c->out, length - sent);
    if (!at) {
        give_up_locked(c);
        return false;
    }
    memcpy(at, bytes + sent, length - sent);
    c->out.length += length - sent;
    atomic_fetch_add(&c->front->unsent, length - sent);
    if (is_stuck(c) || (c->corked && c->out.length - c->out_sent < CORK_BYTES))
        return true;
    return flush_locked(c);
}

/* The reply as a frame. False: no memory. */
static bool
frame_reply(unix_request *r)
{
    size_t before = PTIER_SP_HEAD_BYTES + r->trace_length;
    uint8_t *at = ptier_bytes_reserve(&r->frame, before);
    bool done = at != NULL;
    r->frame.length = done ? before : 0;
    if (ptier_call_finish(&r->request.call, &r->frame) != PTIER_OK || !done)
        return false;
    ptier_sp_put_head(r->frame.data, r->frame.length - PTIER_SP_HEAD_BYTES);
    memcpy(r->frame.data + PTIER_SP_HEAD_BYTES, r->trace, r->trace_length);
    return true;
}

/* On any thread. Without memory for a reply the client's deadline has to tell it. */
static void
answer(ptier_request *request)
{
    unix_request *r = (unix_request *)request;
    ptier_unix_connection *c = r->connection;
    ptier_front *front = c->front;
    bool framed = frame_reply(r);
    atomic_fetch_sub(&c->working, 1); /* first: the reply may bring the next call */
    if (framed) {
        pthread_mutex_lock(&c->lock);
        (void)put_locked(c, r->frame.data, r->frame.length); /* or it is being closed */
        pthread_mutex_unlock(&c->lock);
    }
    give_request_back(r);
    ptier_unix_connection_release(c);
    ptier_front_leave(front);
}

static void
cork(ptier_unix_connection *c, bool corked)
{
    pthread_mutex_lock(&c->lock);
    c->corked = corked;
    if (!corked && !is_stuck(c) && !flush_locked(c))
        c->doomed = true;
    pthread_mutex_unlock(&c->lock);
}

/* ---- receiving ---- */

static void
doom(ptier_unix_connection *c, const char *why)
{
    if (!c->doomed)
        ptier_front_tell_cut_off(c->front, why);
    c->doomed = true;
}

/* The ids in front of the message, the request's own last. 0: there are none. */
static size_t
trace_length(const uint8_t *frame, size_t length)
{
    for (size_t at = 0; at + PTIER_SP_ID_BYTES <= length && at < TRACE_BYTES_MAX;
         at += PTIER_SP_ID_BYTES)
        if (frame[at] & 0x80)
            return at + PTIER_SP_ID_BYTES;
    return 0;
}

static bool
keep_message(unix_request *r, const uint8_t *frame, size_t length)
{
    size_t message_length = length - r->trace_length;
    uint8_t *at = ptier_bytes_reserve(&r->message, message_length ? message_length : 1);
    if (!at)
        return false;
    memcpy(r->trace, frame, r->trace_length);
    memcpy(at, frame + r->trace_length, message_length);
    r->message.length = message_length;
    return true;
}

static void
run(ptier_unix_connection *c, unix_request *r)
{
    ptier_front *front = c->front;
    ptier_call *call = &r->request.call;
    unsigned own = atomic_fetch_add(&c->working, 1) + 1;
    atomic_fetch_add(&c->references, 1);
    ptier_front_enter(front);
    if (ptier_call_begin(call, &c->peer, ptier_monotonic_ms(), r->message.data,
                         r->message.length) != PTIER_OK) {
        answer(&r->request);
        return;
    }
    bool crowded = call->method->lane != PTIER_LANE_INLINE && ptier_front_is_crowded(front, own);
    ptier_dispatch_run(front->dispatch, &r->request, crowded);
}

static void
begin_call(ptier_unix_connection *c, const uint8_t *frame, size_t length, bool more)
{
    size_t trace = trace_length(frame, length);
    if (trace == 0)
        return; /* nobody could be answered: nng drops these, too */
    if (atomic_load(&c->working) >= WORKING_MAX) {
        doom(c, "a client sends on and on without waiting for replies");
        return;
    }
    if (more && !c->corked)
        cork(c, true);
    unix_request *r = take_request(c);
    if (r)
        r->trace_length = trace;
    if (!r || !keep_message(r, frame, length)) {
        doom(c, "there is no memory for the call of a client");
        if (r)
            give_request_back(r);
        return;
    }
    run(c, r);
}

/* A read may bring thousands of calls, which all would be run although nobody takes a reply. */
static bool
on_frame(void *context, const uint8_t *frame, size_t length, bool more)
{
    ptier_unix_connection *c = context;
    c->owing_since_ms = 0; /* what it owes now, if anything, is another one */
    begin_call(c, frame, length, more);
    pthread_mutex_lock(&c->lock);
    bool stuck = is_stuck(c);
    c->doomed |= c->lost;
    pthread_mutex_unlock(&c->lock);
    return !stuck && !c->doomed;
}

/* The first bytes. Returns how many of them were part of the greeting. */
static size_t
take_greeting(ptier_unix_connection *c, const uint8_t *bytes, size_t count)
{
    ptier_gate *gate = c->front->service->gate;
    size_t wanted = sizeof c->greeting - c->greeting_length;
    size_t taken = count < wanted ? count : wanted;
    memcpy(c->greeting + c->greeting_length, bytes, taken);
    c->greeting_length += taken;
    if (c->greeting_length < sizeof c->greeting)
        return taken;
    if (ptier_sp_greets(c->greeting, PTIER_SP_REQ))
        c->admitted = ptier_gate_enter(gate, &c->peer, c->id);
    c->doomed = !c->admitted;
    return taken;
}

static void
note_owing(ptier_unix_connection *c)
{
    bool owes = !c->admitted || ptier_sp_reader_is_amid(&c->reader);
    if (!owes)
        c->owing_since_ms = 0;
    else if (c->owing_since_ms == 0)
        c->owing_since_ms = ptier_monotonic_ms();
}

static void
take_frames(ptier_unix_connection *c, const uint8_t *bytes, size_t count)
{
    ptier_status status = ptier_sp_reader_take(&c->reader, &bytes, &count, on_frame, c);
    if (status == PTIER_OK && count > 0 && !c->doomed) {
        uint8_t *kept = ptier_bytes_reserve(&c->ahead, count);
        status = kept ? PTIER_OK : PTIER_RESOURCE_EXHAUSTED;
        if (kept)
            memcpy(kept, bytes, count);
        c->ahead.length = kept ? count : 0;
    }
    if (status == PTIER_INVALID_ARGUMENT)
        doom(c, "a client sent what is no message, or one over the limit");
    else if (status != PTIER_OK)
        doom(c, "there is no memory for the call of a client");
    if (c->corked)
        cork(c, false);
}

/* What was put off. */
static void
catch_up(ptier_unix_connection *c)
{
    ptier_bytes ahead = c->ahead;
    c->ahead = (ptier_bytes){0};
    take_frames(c, ahead.data, ahead.length);
    ptier_bytes_fini(&ahead);
    note_owing(c);
}

bool
ptier_unix_connection_read(ptier_unix_connection *c, uint8_t *scratch, size_t room)
{
    struct iovec places[2];
    int count = ptier_sp_reader_places(&c->reader, scratch, room, places);
    ssize_t got = readv(c->fd, places, count); /* only this thread changes fd */
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
    size_t length = (size_t)got, in_frame = 0;
    if (count == 2)
        in_frame = length < places[0].iov_len ? length : places[0].iov_len;
    size_t taken = c->admitted ? 0 : take_greeting(c, scratch, length);
    if (c->admitted && length > taken)
        take_frames(c, scratch + taken, length - taken);
    explicit_bzero(scratch, length - in_frame);
    note_owing(c);
    return !c->doomed;
}

bool
ptier_unix_connection_write(ptier_unix_connection *c)
{
    pthread_mutex_lock(&c->lock);
    bool well = flush_locked(c);
    bool stuck = is_stuck(c);
    pthread_mutex_unlock(&c->lock);
    if (well && !stuck && c->ahead.length > 0)
        catch_up(c);
    return well && !c->doomed;
}

bool
ptier_unix_connection_is_overdue(ptier_unix_connection *c, int64_t now_ms)
{
    int64_t patience = c->admitted ? FRAME_MS : GREETING_MS;
    if (c->owing_since_ms != 0 && now_ms - c->owing_since_ms >= patience) {
        if (c->admitted)
            doom(c, "a client did not send the rest of its message");
        return true;
    }
    pthread_mutex_lock(&c->lock);
    bool stuck = is_stuck(c) && (now_ms - c->stuck_since_ms >= PTIER_SEND_PATIENCE_MS ||
                                 now_ms - c->stuck_first_ms >= STUCK_MS);
    pthread_mutex_unlock(&c->lock);
    if (stuck)
        doom(c, "a client did not read its replies");
    return stuck;
}

/* ---- life ---- */

static bool
greet(ptier_unix_connection *c)
{
    uint8_t greeting[PTIER_SP_GREETING_BYTES];
    ptier_sp_greeting(greeting, PTIER_SP_REP);
    pthread_mutex_lock(&c->lock);
    bool well = put_locked(c, greeting, sizeof greeting);
    pthread_mutex_unlock(&c->lock);
    return well;
}

ptier_unix_connection *
ptier_unix_connection_create(ptier_front *front, ptier_unix_requests *requests, int epoll, int fd,
                             uint32_t id)
{
    struct ucred user;
    socklen_t length = sizeof user;
    struct epoll_event event = {.events = EPOLLIN};
    ptier_unix_connection *c = calloc(1, sizeof *c);
    event.data.ptr = c;
    if (!c || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &user, &length) != 0 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        (void)close(fd); /* nothing was written */
        free(c);
        return NULL;
    }
    c->front = front;
    c->requests = requests;
    atomic_init(&c->references, 1);
    c->id = id;
    c->peer = ptier_auth_peer_of_user(front->service->auth, user.uid, user.gid);
    c->reader.frame_max = PTIER_MESSAGE_MAX + TRACE_BYTES_MAX;
    c->owing_since_ms = ptier_monotonic_ms();
    pthread_mutex_init(&c->lock, NULL);
    c->fd = fd;
    c->epoll = epoll;
    if (!greet(c)) {
        ptier_unix_connection_close(c);
        return NULL;
    }
    return c;
}

void
ptier_unix_connection_close(ptier_unix_connection *c)
{
    if (c->admitted)
        ptier_gate_leave(c->front->service->gate, c->id);
    pthread_mutex_lock(&c->lock);
    (void)close(c->fd); /* also ends its being watched */
    c->fd = -1;
    atomic_fetch_sub(&c->front->unsent, c->out.length - c->out_sent);
    ptier_bytes_fini(&c->out); /* nobody wants it any more */
    pthread_mutex_unlock(&c->lock);
    ptier_unix_connection_release(c);
}

void
ptier_unix_connection_release(ptier_unix_connection *c)
{
    if (atomic_fetch_sub(&c->references, 1) != 1)
        return;
    ptier_sp_reader_fini(&c->reader);
    ptier_bytes_fini(&c->ahead);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
