/* Daemons inside the test's process: two at once, and stopping while calls run. What thread
 * sanitizers can watch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <cmocka.h>

#include "daemon.h"
#include "nng_workaround.h"
#include "proxytier/v1/admin.pb-c.h"
#include "proxytier/v1/cache.pb-c.h"
#include "support/daemon.h"
#include "support/raw_client.h"

typedef struct instance {
    test_daemon place; /* only its paths: nothing is spawned */
    ptier_config *config;
    ptier_log *log;
    ptier_daemon *daemon;
    atomic_bool shutdown_asked;
} instance;

static void
on_shutdown(void *context)
{
    atomic_store(&((instance *)context)->shutdown_asked, true);
}

static void
start(instance *one)
{
    const char *argv[] = {"proxytierd",   "--data-dir", one->place.data_dir,  "--listen",
                          one->place.url, "--events",   one->place.events_url};
    ptier_error error = {0};
    bool done;
    if (ptier_config_load(7, argv, &one->config, &done, &error) != PTIER_OK ||
        ptier_log_open(one->place.log_path, PTIER_LOG_DEBUG, &one->log, &error) != PTIER_OK ||
        ptier_daemon_start(one->config, one->log, on_shutdown, one, &one->daemon, &error) !=
            PTIER_OK)
        fail_msg("%s", error.message);
}

static void
stop(instance *one)
{
    assert_int_equal(ptier_daemon_stop(one->daemon), PTIER_OK);
    ptier_log_close(one->log);
    ptier_config_destroy(one->config);
    one->daemon = NULL;
}

static instance *
make(void)
{
    instance *one = calloc(1, sizeof *one);
    assert_non_null(one);
    test_daemon_init(&one->place);
    start(one);
    return one;
}

static void
unmake(instance *one)
{
    test_daemon_fini(&one->place);
    free(one);
}

static ptier_status
put(raw_client *client, const char *url, char key[300])
{
    Proxytier__V1__PutRequest request = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    proxy.url = (char *)(uintptr_t)url;
    request.proxy = &proxy;
    raw_reply reply = raw_client_call(client, "/proxytier.v1.ProxyCache/Put", &request.base,
                                      &proxytier__v1__put_response__descriptor);
    ptier_status status = reply.header ? (ptier_status)reply.header->code : PTIER_UNAVAILABLE;
    if (status == PTIER_OK)
        (void)snprintf(key, 300, "%s", ((Proxytier__V1__PutResponse *)reply.body)->result->key);
    raw_reply_free(&reply);
    return status;
}

static ptier_status
get(raw_client *client, const char *key)
{
    Proxytier__V1__GetRequest request = PROXYTIER__V1__GET_REQUEST__INIT;
    request.key = (char *)(uintptr_t)key;
    raw_reply reply = raw_client_call(client, "/proxytier.v1.ProxyCache/Get", &request.base,
                                      &proxytier__v1__get_response__descriptor);
    ptier_status status = reply.header ? (ptier_status)reply.header->code : PTIER_UNAVAILABLE;
    raw_reply_free(&reply);
    return status;
}

static void
replacements_are_exported_here_too(void **state)
{
    (void)state;
    ptier_error error = {0};
    if (ptier_nng_workaround_check(&error) != PTIER_OK)
        fail_msg("%s", error.message);
}

static void
two_daemons_share_nothing(void **state)
{
    (void)state;
    instance *first = make(), *second = make();
    raw_client to_first, to_second;
    char key[300];
    raw_client_open(&to_first, first->place.url);
    raw_client_open(&to_second, second->place.url);
    assert_int_equal(put(&to_first, "http://10.0.0.1:1", key), PTIER_OK);
    assert_int_equal(get(&to_first, key), PTIER_OK);
    assert_int_equal(get(&to_second, key), PTIER_NOT_FOUND);
    stop(first);
    assert_int_equal(put(&to_second, "http://10.0.0.1:1", key), PTIER_OK);
    Proxytier__V1__ShutdownRequest request = PROXYTIER__V1__SHUTDOWN_REQUEST__INIT;
    raw_reply reply = raw_client_call(&to_second, "/proxytier.v1.Admin/Shutdown", &request.base,
                                      &proxytier__v1__shutdown_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    raw_reply_free(&reply);
    assert_true(atomic_load(&second->shutdown_asked));
    assert_false(atomic_load(&first->shutdown_asked));
    stop(second);
    raw_client_close(&to_first);
    raw_client_close(&to_second);
    unmake(first);
    unmake(second);
}

#define WRITERS   6
#define PUTS_EACH 2000

typedef struct writer {
    const instance *target;
    unsigned number;
    char (*keys)[300];
    atomic_uint acknowledged;
    bool failed; /* by something else than the stop */
} writer;

static void *
write_until_refused(void *argument)
{
    writer *w = argument;
    raw_client client;
    raw_client_open(&client, w->target->place.url);
    client.timeout_ms = 3000;
    for (unsigned i = 0; i < PUTS_EACH; i++) {
        char url[64];
        (void)snprintf(url, sizeof url, "http://10.%u.%u.%u:80", w->number, i / 200, i % 200 + 1);
        ptier_status status = put(&client, url, w->keys[i]);
        if (status == PTIER_OK && get(&client, w->keys[i]) == PTIER_NOT_FOUND)
            w->failed = true; /* read your writes */
        if (status == PTIER_OK) {
            atomic_store(&w->acknowledged, i + 1);
            continue;
        }
        w->failed |= status != PTIER_UNAVAILABLE;
        break;
    }
    raw_client_close(&client);
    return NULL;
}

/* Whatever was acknowledged before the stop is there after it. */
static void
stop_under_load_keeps_every_acknowledged_put(void **state)
{
    (void)state;
    instance *one = make();
    writer writers[WRITERS] = {0};
    pthread_t threads[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i].target = one;
        writers[i].number = i;
        writers[i].keys = calloc(PUTS_EACH, sizeof *writers[i].keys);
        assert_non_null(writers[i].keys);
        assert_int_equal(pthread_create(&threads[i], NULL, write_until_refused, &writers[i]), 0);
    }
    while (atomic_load(&writers[0].acknowledged) < 50 ||
           atomic_load(&writers[WRITERS - 1].acknowledged) < 50)
        (void)sched_yield(); /* every call has a timeout: this ends */
    stop(one);
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_false(writers[i].failed);
    }
    start(one);
    raw_client client;
    raw_client_open(&client, one->place.url);
    for (unsigned i = 0; i < WRITERS; i++) {
        for (unsigned k = 0; k < atomic_load(&writers[i].acknowledged); k++)
            assert_int_equal(get(&client, writers[i].keys[k]), PTIER_OK);
        free(writers[i].keys);
    }
    raw_client_close(&client);
    stop(one);
    unmake(one);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replacements_are_exported_here_too),
        cmocka_unit_test(two_daemons_share_nothing),
        cmocka_unit_test(stop_under_load_keeps_every_acknowledged_put),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
