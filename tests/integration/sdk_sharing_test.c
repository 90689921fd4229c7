/* One SDK client in many threads, and in a child that was forked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "support/peer_client.h"

static void
forked_child_gets_failed_precondition(void **state)
{
    (void)state;
    scripted_peer peer;
    peer_init(&peer);
    peer.handler = answer_well;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 5000);
    assert_answers(client);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        ptier_records records;
        ptier_client *another;
        ptier_subscription *subscription;
        ptier_subscription_options options;
        ptier_subscription_options_init(&options);
        options.on_event = (void (*)(void *, const ptier_event *))abort;
        int bad = ptier_get(client, "k", &records, NULL) != PTIER_FAILED_PRECONDITION;
        bad |= (ptier_client_open(NULL, &another, NULL) != PTIER_FAILED_PRECONDITION) << 1;
        bad |= (ptier_subscribe(client, &options, &subscription, NULL) != PTIER_FAILED_PRECONDITION)
               << 2;
        ptier_client_close(client); /* must do nothing */
        _exit(bad);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
    assert_answers(client); /* the parent's is as it was */
    ptier_client_close(client);
    peer_fini(&peer);
}

#define SHARING_THREADS 80 /* more than a client has contexts */
#define SHARING_CALLS   25

static void *
get_own_key(void *argument)
{
    ptier_client *client = argument;
    char key[32];
    for (int i = 0; i < SHARING_CALLS; i++) {
        ptier_records records;
        snprintf(key, sizeof key, "%lu-%d", (unsigned long)pthread_self(), i);
        if (ptier_get(client, key, &records, NULL) != PTIER_OK)
            return PEER_TEXT("a call failed");
        bool own = records.count == 1 && strcmp(records.records[0].key, key) == 0;
        ptier_records_free(&records);
        if (!own)
            return PEER_TEXT("the answer is somebody else's");
    }
    return NULL;
}

static void
threads_that_share_a_client_get_their_own_answers(void **state)
{
    (void)state;
    scripted_peer peer;
    pthread_t threads[SHARING_THREADS];
    peer_init(&peer);
    peer.handler = answer_well;
    peer_start(&peer);
    ptier_client *client = open_client(peer.rpc_url, 60000);
    for (int i = 0; i < SHARING_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_own_key, client), 0);
    for (int i = 0; i < SHARING_THREADS; i++) {
        void *complaint;
        pthread_join(threads[i], &complaint);
        if (complaint)
            fail_msg("%s", (char *)complaint);
    }
    ptier_client_close(client);
    peer_fini(&peer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forked_child_gets_failed_precondition),
        cmocka_unit_test(threads_that_share_a_client_get_their_own_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
