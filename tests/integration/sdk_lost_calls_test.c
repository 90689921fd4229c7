/* Calls of the SDK that get no answer at first: nobody is there, the peer is mute or goes away, or
 * the client is closed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "support/peer_client.h"

static void
call_to_nobody_is_unavailable_at_once(void **state)
{
    (void)state;
    scripted_peer peer;
    ptier_records records;
    ptier_error error;
    peer_init(&peer);
    ptier_client *client = open_client(peer.rpc_url, 20000);
    int64_t start = ptier_test_now();
    assert_int_equal(ptier_get(client, "k", &records, &error), PTIER_UNAVAILABLE);
    assert_true(ptier_test_now() - start <
                2000); /* a fraction of the timeout, with room for a busy machine */
    assert_non_null(strstr(error.message, peer.rpc_url));
    assert_non_null(strstr(error.message, "start proxytierd"));
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
answer_never(void *context, const peer_request *request, peer_answer *answer)
{
    (void)context;
    (void)request;
    answer->silent = true;
}

static void
mute_peer_gives_deadline_exceeded_within_the_timeout(void **state)
{
    (void)state;
    scripted_peer peer;
    ptier_records records;
    ptier_error error;
    peer_init(&peer);
    peer.handler = answer_never;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 300);
    int64_t start = ptier_test_now();
    assert_int_equal(ptier_get(client, "k", &records, &error), PTIER_DEADLINE_EXCEEDED);
    int64_t took = ptier_test_now() - start;
    assert_true(took >= 250 && took < 2000);
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
client_reconnects_after_the_peer_restarts(void **state)
{
    (void)state;
    scripted_peer peer;
    peer_init(&peer);
    peer.handler = answer_well;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 5000);
    for (int i = 0; i < 5; i++) {
        assert_answers(client);
        peer_stop(&peer);
        if (i % 2) { /* with a failed call between, or without */
            ptier_records records;
            assert_int_equal(ptier_get(client, "k", &records, NULL), PTIER_UNAVAILABLE);
        }
        peer_start(&peer);
    }
    assert_answers(client);
    ptier_client_close(client);
    peer_fini(&peer);
}

/* Answers nothing until told otherwise, and remembers the headers. */
typedef struct call_script {
    pthread_mutex_t lock;
    bool answering;
    unsigned seen;
    uint8_t ids[8][16];
    size_t boot_lengths[8];
} call_script;

static void
follow_script(void *context, const peer_request *request, peer_answer *answer)
{
    call_script *s = context;
    pthread_mutex_lock(&s->lock);
    if (s->seen < 8) {
        assert_int_equal(request->header->request_id.len, 16);
        memcpy(s->ids[s->seen], request->header->request_id.data, 16);
        s->boot_lengths[s->seen] = request->header->boot_id.len;
    }
    s->seen++;
    answer->silent = !s->answering;
    pthread_mutex_unlock(&s->lock);
    if (!answer->silent)
        answer_well(NULL, request, answer);
}

static unsigned
seen(call_script *s)
{
    pthread_mutex_lock(&s->lock);
    unsigned count = s->seen;
    pthread_mutex_unlock(&s->lock);
    return count;
}

static void
set_answering(call_script *s, bool answering)
{
    pthread_mutex_lock(&s->lock);
    s->answering = answering;
    pthread_mutex_unlock(&s->lock);
}

typedef struct running_call {
    ptier_client *client;
    bool report;
    ptier_status status;
    ptier_error error;
} running_call;

static void *
run_call(void *argument)
{
    running_call *call = argument;
    if (call->report) {
        ptier_report report = {.key = "k", .outcome = PTIER_REPORT_FAILED};
        call->status = ptier_report_health(call->client, &report, 1, NULL, NULL, &call->error);
    } else {
        ptier_records records;
        call->status = ptier_get(call->client, "k", &records, &call->error);
        ptier_records_free(&records);
    }
    return NULL;
}

static void
wait_seen(call_script *s, unsigned count)
{
    int64_t until = ptier_test_now() + 10000;
    while (seen(s) < count && ptier_test_now() < until)
        test_pause();
    assert_true(seen(s) >= count);
}

static void
lost_call_is_retried_under_the_same_id_and_names_the_first_run(void **state)
{
    (void)state;
    scripted_peer peer;
    call_script script = {.lock = PTHREAD_MUTEX_INITIALIZER, .answering = true};
    peer_init(&peer);
    peer.handler = follow_script;
    peer.context = &script;
    peer_start(&peer);
    running_call call = {.client = open_client(peer.rpc_url, 20000)};
    pthread_t thread;
    assert_answers(call.client); /* learns the run */
    set_answering(&script, false);
    assert_int_equal(pthread_create(&thread, NULL, run_call, &call), 0);
    wait_seen(&script, 2);
    peer_stop(&peer);
    set_answering(&script, true);
    peer_start(&peer);
    pthread_join(thread, NULL);
    assert_int_equal(call.status, PTIER_OK);
    assert_int_equal(seen(&script), 3);
    assert_memory_not_equal(script.ids[0], script.ids[1], 16);
    assert_memory_equal(script.ids[1], script.ids[2], 16);
    assert_int_equal(script.boot_lengths[1], 0);
    assert_int_equal(script.boot_lengths[2], 16);
    ptier_client_close(call.client);
    peer_fini(&peer);
}

/* The daemon tells by the id whether it did it already; ABORTED when nobody can be asked. */
static void
lost_report_is_sent_again_or_its_outcome_unknown(void **state)
{
    (void)state;
    scripted_peer peer;
    call_script script = {.lock = PTHREAD_MUTEX_INITIALIZER};
    peer_init(&peer);
    peer.handler = follow_script;
    peer.context = &script;
    peer_start(&peer);
    running_call call = {.client = open_client(peer.rpc_url, 20000), .report = true};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_call, &call), 0);
    wait_seen(&script, 1);
    assert_int_equal(peer_count(&peer, &peer.infos), 1); /* whose run it is was asked before */
    peer_stop(&peer);
    set_answering(&script, true);
    peer_start(&peer);
    pthread_join(thread, NULL);
    assert_int_equal(call.status, PTIER_OK);
    assert_int_equal(seen(&script), 2);
    assert_memory_equal(script.ids[0], script.ids[1], 16);
    assert_int_equal(script.boot_lengths[0], 0);
    assert_int_equal(script.boot_lengths[1], 16);

    set_answering(&script, false);
    assert_int_equal(pthread_create(&thread, NULL, run_call, &call), 0);
    wait_seen(&script, 3);
    peer_stop(&peer); /* for good */
    pthread_join(thread, NULL);
    assert_int_equal(call.status, PTIER_ABORTED);
    assert_non_null(strstr(call.error.message, "may or may not"));
    ptier_client_close(call.client);
    peer_fini(&peer);
}

static void
closing_the_client_cancels_running_calls(void **state)
{
    (void)state;
    scripted_peer peer;
    call_script script = {.lock = PTHREAD_MUTEX_INITIALIZER};
    running_call calls[8];
    pthread_t threads[8];
    peer_init(&peer);
    peer.handler = follow_script;
    peer.context = &script;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 60000);
    for (int i = 0; i < 8; i++) {
        calls[i] = (running_call){.client = client, .report = i % 2};
        assert_int_equal(pthread_create(&threads[i], NULL, run_call, &calls[i]), 0);
    }
    wait_seen(&script, 8);
    int64_t start = ptier_test_now();
    ptier_client_close(client);
    assert_true(ptier_test_now() - start < 10000);
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(calls[i].status, PTIER_CANCELLED);
    }
    peer_fini(&peer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(call_to_nobody_is_unavailable_at_once),
        cmocka_unit_test(mute_peer_gives_deadline_exceeded_within_the_timeout),
        cmocka_unit_test(client_reconnects_after_the_peer_restarts),
        cmocka_unit_test(lost_call_is_retried_under_the_same_id_and_names_the_first_run),
        cmocka_unit_test(lost_report_is_sent_again_or_its_outcome_unknown),
        cmocka_unit_test(closing_the_client_cancels_running_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
