/*
 * server/dispatch.c over a cache in memory whose changes can be held up: what runs, waits, is
 * refused, is repeated.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <time.h>

#include <cmocka.h>

#include "dispatch.h"
#include "framing.h"
#include "methods.h"
#include "proxytier/v1/rpc.pb-c.h"

#define LANE_LIMIT 4
#define WORKERS    2 /* of a lane */
#define PATIENCE   20000

typedef struct fixture {
    ptier_service service;
    ptier_dispatch *dispatch;
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    bool held; /* changes of the cache wait */
    unsigned waiting, answered;
} fixture;

typedef struct request {
    ptier_request base; /* first */
    fixture *f;
    uint8_t message[2048];
    size_t length;
    bool answered;
    ptier_status status;
    uint8_t body[512];
    size_t body_length;
} request;

static void
on_change(void *context, const ptier_change *change)
{
    fixture *f = context;
    (void)change;
    pthread_mutex_lock(&f->lock);
    f->waiting++;
    pthread_cond_broadcast(&f->changed);
    while (f->held)
        pthread_cond_wait(&f->changed, &f->lock);
    f->waiting--;
    pthread_mutex_unlock(&f->lock);
}

static void
hold(fixture *f, bool held)
{
    pthread_mutex_lock(&f->lock);
    f->held = held;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

/* Waits until a number has been reached, or fails. */
static void
wait_for(fixture *f, const unsigned *number, unsigned wanted)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE / 1000;
    pthread_mutex_lock(&f->lock);
    while (*number < wanted)
        if (pthread_cond_timedwait(&f->changed, &f->lock, &until) != 0)
            break;
    bool reached = *number >= wanted;
    pthread_mutex_unlock(&f->lock);
    assert_true(reached);
}

static int
set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    ptier_cache_options options;
    ptier_dispatch_limits limits = {
        .in_flight = 100,
        .lane = {[PTIER_LANE_READ] = LANE_LIMIT, [PTIER_LANE_WRITE] = LANE_LIMIT},
        .dedup = {.entries = 100, .outcome_bytes = 100000, .window_ms = 60000}};
    assert_non_null(f);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    ptier_cache_options_init(&options);
    options.l2_enabled = options.l3_enabled = false;
    options.on_change = on_change;
    options.change_context = f;
    assert_int_equal(ptier_cache_open(&options, &f->service.cache, NULL), PTIER_OK);
    memset(f->service.boot_id, 0xb0, PTIER_ID_BYTES);
    assert_int_equal(ptier_dispatch_start(&f->service, &limits, &f->dispatch, NULL), PTIER_OK);
    *state = f;
    return 0;
}

static int
tear_down(void **state)
{
    fixture *f = *state;
    hold(f, false);
    if (f->dispatch)
        ptier_dispatch_drain(f->dispatch);
    ptier_dispatch_destroy(f->dispatch);
    ptier_cache_close(f->service.cache);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
    return 0;
}

static void
on_answer(ptier_request *base)
{
    request *r = (request *)base;
    ptier_bytes out = {0};
    ptier_frame frame;
    assert_int_equal(ptier_call_finish(&base->call, &out), PTIER_OK);
    assert_int_equal(ptier_frame_split(out.data, out.length, &frame, NULL), PTIER_OK);
    Proxytier__V1__ResponseHeader *header =
        proxytier__v1__response_header__unpack(NULL, frame.header_length, frame.header);
    pthread_mutex_lock(&r->f->lock);
    assert_false(r->answered);
    r->status = (ptier_status)header->code;
    r->body_length = frame.body_length;
    memcpy(r->body, frame.body, frame.body_length);
    r->answered = true;
    r->f->answered++;
    pthread_cond_broadcast(&r->f->changed);
    pthread_mutex_unlock(&r->f->lock);
    proxytier__v1__response_header__free_unpacked(header, NULL);
    ptier_bytes_fini(&out);
}

/* A call by its parts: id 0 none; boot 0 a first try, else the byte that fills the boot_id. */
typedef struct parts {
    const char *method;
    const ProtobufCMessage *body;
    uint8_t id, boot;
    uint32_t timeout_ms;
    uint64_t identity;
    bool crowded;
} parts;

static request *
send_call(fixture *f, parts p)
{
    request *r = calloc(1, sizeof *r);
    uint8_t id[16], boot[16];
    assert_non_null(r);
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = (char *)(uintptr_t)p.method;
    header.timeout_ms = p.timeout_ms ? p.timeout_ms : PATIENCE;
    memset(id, p.id, sizeof id);
    memset(boot, p.boot, sizeof boot);
    header.request_id = (ProtobufCBinaryData){p.id ? sizeof id : 0, id};
    header.boot_id = (ProtobufCBinaryData){p.boot ? sizeof boot : 0, boot};
    size_t head = proxytier__v1__request_header__pack(&header, r->message + PTIER_FRAME_PREFIX);
    ptier_frame_prefix(r->message, head);
    r->length = PTIER_FRAME_PREFIX + head;
    assert_true(r->length + protobuf_c_message_get_packed_size(p.body) <= sizeof r->message);
    r->length += protobuf_c_message_pack(p.body, r->message + r->length);
    r->f = f;
    r->base.answer = on_answer;
    ptier_call_init(&r->base.call, &f->service);
    const ptier_peer peer = {.role = PTIER_ROLE_ADMIN, .identity = p.identity};
    assert_int_equal(
        ptier_call_begin(&r->base.call, &peer, ptier_monotonic_ms(), r->message, r->length),
        PTIER_OK);
    ptier_dispatch_run(f->dispatch, &r->base, p.crowded);
    return r;
}

static bool
is_answered(request *r)
{
    pthread_mutex_lock(&r->f->lock);
    bool answered = r->answered;
    pthread_mutex_unlock(&r->f->lock);
    return answered;
}

/* Waits for the answer, frees the request. */
static ptier_status
status_of(request *r)
{
    int64_t until = ptier_monotonic_ms() + PATIENCE;
    while (!is_answered(r)) {
        assert_true(ptier_monotonic_ms() < until);
        pthread_mutex_lock(&r->f->lock);
        struct timespec soon;
        clock_gettime(CLOCK_REALTIME, &soon);
        soon.tv_sec++;
        if (!r->answered)
            (void)pthread_cond_timedwait(&r->f->changed, &r->f->lock, &soon); /* looked at again */
        pthread_mutex_unlock(&r->f->lock);
    }
    ptier_status status = r->status;
    ptier_call_fini(&r->base.call);
    free(r);
    return status;
}

static const char put_method[] = "/proxytier.v1.ProxyCache/Put";

/* Put of http://10.0.0.NUMBER:1. */
static request *
send_put(fixture *f, unsigned number, parts p)
{
    char url[40];
    Proxytier__V1__PutRequest put = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    (void)snprintf(url, sizeof url, "http://10.0.0.%u:1", number);
    proxy.url = url;
    put.proxy = &proxy;
    p.method = put_method;
    p.body = &put.base;
    return send_call(f, p);
}

static uint64_t
puts_done(fixture *f)
{
    ptier_statistics statistics;
    ptier_cache_statistics(f->service.cache, &statistics);
    return statistics.puts;
}

static void
call_with_a_known_id_is_repeated_not_executed(void **state)
{
    fixture *f = *state;
    uint8_t body[512];
    request *first = send_put(f, 1, (parts){.id = 7});
    wait_for(f, &f->answered, 1);
    size_t length = first->body_length;
    memcpy(body, first->body, length);
    assert_int_equal(status_of(first), PTIER_OK);
    request *again = send_put(f, 1, (parts){.id = 7, .boot = 0xb0});
    assert_true(is_answered(again));
    assert_int_equal(again->body_length, length);
    assert_memory_equal(again->body, body, length);
    assert_int_equal(status_of(again), PTIER_OK);
    assert_int_equal(puts_done(f), 1);
    assert_int_equal(status_of(send_put(f, 2, (parts){.id = 7})), PTIER_INVALID_ARGUMENT);
    assert_int_equal(status_of(send_put(f, 1, (parts){.id = 7, .identity = 5})), PTIER_OK);
    assert_int_equal(puts_done(f), 2);
}

static void
double_of_a_running_call_gets_its_reply_within_its_own_deadline(void **state)
{
    fixture *f = *state;
    hold(f, true);
    request *first = send_put(f, 1, (parts){.id = 7});
    wait_for(f, &f->waiting, 1);
    request *patient = send_put(f, 1, (parts){.id = 7, .boot = 0xb0});
    request *hasty = send_put(f, 1, (parts){.id = 7, .boot = 0xb0, .timeout_ms = 1});
    int64_t until = ptier_monotonic_ms() + PATIENCE;
    while (!is_answered(hasty) && ptier_monotonic_ms() < until)
        ptier_dispatch_tick(f->dispatch);
    assert_int_equal(status_of(hasty), PTIER_DEADLINE_EXCEEDED);
    assert_false(is_answered(patient));
    hold(f, false);
    assert_int_equal(status_of(first), PTIER_OK);
    assert_int_equal(status_of(patient), PTIER_OK);
    assert_int_equal(puts_done(f), 1);
}

/* Keeps both writing workers busy. */
static void
occupy(fixture *f, request *busy[WORKERS])
{
    hold(f, true);
    for (unsigned i = 0; i < WORKERS; i++)
        busy[i] = send_put(f, 100 + i, (parts){0});
    wait_for(f, &f->waiting, 1); /* the other one waits for the lock, or is about to */
}

static void
call_whose_time_ends_in_the_queue_is_not_executed_but_its_double_is(void **state)
{
    fixture *f = *state;
    request *busy[WORKERS];
    occupy(f, busy);
    request *late = send_put(f, 1, (parts){.id = 8, .timeout_ms = 1});
    request *twin = send_put(f, 2, (parts){.id = 9, .timeout_ms = 1});
    request *twins_double = send_put(f, 2, (parts){.id = 9, .boot = 0xb0});
    int64_t over = ptier_monotonic_ms() + 2;
    while (ptier_monotonic_ms() < over)
        ;
    hold(f, false);
    assert_int_equal(status_of(late), PTIER_DEADLINE_EXCEEDED);
    assert_int_equal(status_of(twin), PTIER_DEADLINE_EXCEEDED);
    assert_int_equal(status_of(twins_double), PTIER_OK);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(status_of(busy[i]), PTIER_OK);
    assert_int_equal(puts_done(f), WORKERS + 1);
}

static void
full_queue_refuses_at_once_and_the_id_stays_free(void **state)
{
    fixture *f = *state;
    request *busy[WORKERS], *queued[LANE_LIMIT + WORKERS];
    occupy(f, busy);
    unsigned refused = 0;
    for (unsigned i = 0; i < LANE_LIMIT + WORKERS; i++) { /* a worker may not have begun yet */
        queued[i] = send_put(f, i, (parts){.id = (uint8_t)(10 + i)});
        refused += is_answered(queued[i]);
    }
    assert_in_range(refused, 1, WORKERS + 1);
    hold(f, false);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(status_of(busy[i]), PTIER_OK);
    for (unsigned i = 0; i < LANE_LIMIT + WORKERS; i++) {
        ptier_status status = status_of(queued[i]);
        if (status == PTIER_OK)
            continue;
        assert_int_equal(status, PTIER_RESOURCE_EXHAUSTED);
        assert_int_equal(status_of(send_put(f, i, (parts){.id = (uint8_t)(10 + i), .boot = 0xb0})),
                         PTIER_OK);
        refused--;
    }
    assert_int_equal(refused, 0);
    assert_int_equal(puts_done(f), WORKERS + LANE_LIMIT + WORKERS);
}

static void
crowded_connection_is_refused_unless_the_call_is_done(void **state)
{
    fixture *f = *state;
    assert_int_equal(status_of(send_put(f, 1, (parts){.id = 7})), PTIER_OK);
    assert_int_equal(status_of(send_put(f, 1, (parts){.id = 7, .crowded = true})), PTIER_OK);
    assert_int_equal(status_of(send_put(f, 1, (parts){.id = 8, .crowded = true})),
                     PTIER_RESOURCE_EXHAUSTED);
    assert_int_equal(status_of(send_put(f, 1, (parts){.crowded = true})), PTIER_RESOURCE_EXHAUSTED);
    assert_int_equal(puts_done(f), 1);
}

static void
stopping_daemon_repeats_what_is_done_and_refuses_the_rest(void **state)
{
    fixture *f = *state;
    request *busy[WORKERS];
    Proxytier__V1__CheckRequest check = PROXYTIER__V1__CHECK_REQUEST__INIT;
    assert_int_equal(status_of(send_put(f, 1, (parts){.id = 7})), PTIER_OK);
    occupy(f, busy);
    request *queued = send_put(f, 2, (parts){.id = 8});
    atomic_store(&f->service.stopping, true);
    assert_int_equal(status_of(send_put(f, 1, (parts){.id = 7})), PTIER_OK);
    assert_int_equal(status_of(send_put(f, 3, (parts){.id = 9})), PTIER_UNAVAILABLE);
    atomic_store(&f->service.hurrying, true); /* the time to drain is over */
    hold(f, false);
    assert_int_equal(status_of(queued), PTIER_UNAVAILABLE);
    for (unsigned i = 0; i < WORKERS; i++)
        (void)status_of(busy[i]); /* the second one may not have begun */
    assert_int_equal(status_of(send_call(
                         f, (parts){.method = "/proxytier.v1.Health/Check", .body = &check.base})),
                     PTIER_OK);
}

static void
calls_that_count_twice_are_not_done_for_a_retry_from_another_run(void **state)
{
    fixture *f = *state;
    Proxytier__V1__ReportHealthRequest report = PROXYTIER__V1__REPORT_HEALTH_REQUEST__INIT;
    Proxytier__V1__ClearRequest clear = PROXYTIER__V1__CLEAR_REQUEST__INIT;
    Proxytier__V1__ResetStatisticsRequest reset = PROXYTIER__V1__RESET_STATISTICS_REQUEST__INIT;
    Proxytier__V1__ShutdownRequest stop = PROXYTIER__V1__SHUTDOWN_REQUEST__INIT;
    Proxytier__V1__BackupRequest backup = PROXYTIER__V1__BACKUP_REQUEST__INIT;
    Proxytier__V1__PutManyRequest puts = PROXYTIER__V1__PUT_MANY_REQUEST__INIT;
    Proxytier__V1__PutManyRequest restore = PROXYTIER__V1__PUT_MANY_REQUEST__INIT;
    Proxytier__V1__DeleteRequest none = PROXYTIER__V1__DELETE_REQUEST__INIT;
    restore.restore = true;
    const struct {
        const char *method;
        const ProtobufCMessage *body;
        ptier_status expected;
    } cases[] = {
        {"/proxytier.v1.ProxyCache/ReportHealth", &report.base, PTIER_ABORTED},
        {"/proxytier.v1.Admin/Clear", &clear.base, PTIER_ABORTED},
        {"/proxytier.v1.Admin/ResetStatistics", &reset.base, PTIER_ABORTED},
        {"/proxytier.v1.Admin/Shutdown", &stop.base, PTIER_ABORTED},
        {"/proxytier.v1.Admin/Backup", &backup.base, PTIER_ABORTED},
        {"/proxytier.v1.ProxyCache/PutMany", &restore.base, PTIER_ABORTED},
        {"/proxytier.v1.ProxyCache/PutMany", &puts.base, PTIER_OK},
        {"/proxytier.v1.ProxyCache/Delete", &none.base, PTIER_OK},
    };
    assert_int_equal(status_of(send_put(f, 1, (parts){0})), PTIER_OK);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        for (unsigned with_id = 0; with_id < 2; with_id++) {
            parts p = {.method = cases[i].method, .body = cases[i].body, .boot = 0xaa};
            p.id = (uint8_t)(with_id ? 20 + i : 0);
            assert_int_equal(status_of(send_call(f, p)), cases[i].expected);
        }
    assert_int_equal(puts_done(f), 1); /* no Clear, no reset */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(call_with_a_known_id_is_repeated_not_executed),
        TEST(double_of_a_running_call_gets_its_reply_within_its_own_deadline),
        TEST(call_whose_time_ends_in_the_queue_is_not_executed_but_its_double_is),
        TEST(full_queue_refuses_at_once_and_the_id_stays_free),
        TEST(crowded_connection_is_refused_unless_the_call_is_done),
        TEST(stopping_daemon_repeats_what_is_done_and_refuses_the_rest),
        TEST(calls_that_count_twice_are_not_done_for_a_retry_from_another_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
