/* See server_box.h. */
#include "support/server_box.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxytier/v1/cache.pb-c.h"

int
set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    test_daemon_init(&f->daemon);
    test_daemon_start(&f->daemon, NULL);
    raw_client_open(&f->client, f->daemon.url);
    *state = f;
    return 0;
}

void
start_again(fixture *f, const char *const *extra)
{
    raw_client_close(&f->client);
    test_daemon_start(&f->daemon, extra);
    raw_client_open(&f->client, f->daemon.url);
}

void
restart(fixture *f, const char *const *extra)
{
    assert_int_equal(test_daemon_end(&f->daemon, SIGTERM), 0);
    start_again(f, extra);
}

int
tear_down(void **state)
{
    fixture *f = *state;
    raw_client_close(&f->client);
    test_daemon_fini(&f->daemon);
    free(f);
    return 0;
}

void
expect_fails(raw_reply reply, ptier_status status, const char *part)
{
    assert_int_equal(raw_status(&reply), status);
    if (!strstr(reply.header->message, part))
        fail_msg("'%s' does not mention '%s'", reply.header->message, part);
    raw_reply_free(&reply);
}

void
put_one(fixture *f, const char *url, const char *user, const char *password, int64_t ttl_ms,
        char key[300])
{
    Proxytier__V1__PutRequest request = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    proxy.url = TEXT(url);
    proxy.username = TEXT(user);
    proxy.password = TEXT(password);
    if (ttl_ms >= 0) {
        proxy.ttl_case = PROXYTIER__V1__PROXY__TTL_TTL_MS;
        proxy.ttl_ms = ttl_ms;
    }
    request.proxy = &proxy;
    raw_reply reply = CALL(f, "ProxyCache", "Put", &request, put_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    const Proxytier__V1__PutResponse *put = (const Proxytier__V1__PutResponse *)reply.body;
    assert_non_null(put->result);
    assert_true(put->result->revision > 0);
    if (key)
        (void)snprintf(key, 300, "%s", put->result->key);
    raw_reply_free(&reply);
}

raw_reply
get(fixture *f, const char *key)
{
    Proxytier__V1__GetRequest request = PROXYTIER__V1__GET_REQUEST__INIT;
    request.key = TEXT(key);
    return CALL(f, "ProxyCache", "Get", &request, get_response);
}

ptier_status
get_status(fixture *f, const char *key)
{
    raw_reply reply = get(f, key);
    ptier_status status = raw_status(&reply);
    raw_reply_free(&reply);
    return status;
}

void
put_many(fixture *f, size_t count)
{
    Proxytier__V1__PutManyRequest request = PROXYTIER__V1__PUT_MANY_REQUEST__INIT;
    Proxytier__V1__Proxy *proxies = calloc(count, sizeof *proxies);
    Proxytier__V1__Proxy **list = calloc(count, sizeof *list);
    char(*urls)[40] = calloc(count, sizeof *urls);
    assert_true(proxies && list && urls);
    for (size_t i = 0; i < count; i++) {
        proxytier__v1__proxy__init(&proxies[i]);
        (void)snprintf(urls[i], sizeof urls[i], "http://10.1.%zu.%zu:8080", i / 250, i % 250 + 1);
        proxies[i].url = urls[i];
        proxies[i].source = TEXT(i % 2 ? "odd" : "even");
        list[i] = &proxies[i];
    }
    request.proxies = list;
    request.n_proxies = count;
    raw_reply reply = CALL(f, "ProxyCache", "PutMany", &request, put_many_response);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    const Proxytier__V1__PutManyResponse *put = (const Proxytier__V1__PutManyResponse *)reply.body;
    assert_int_equal(put->n_results, count);
    assert_int_equal(put->durability, PROXYTIER__V1__DURABILITY__DURABILITY_LOGGED);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(put->results[i]->outcome, PROXYTIER__V1__PUT_OUTCOME__PUT_OUTCOME_CREATED);
    raw_reply_free(&reply);
    free(proxies);
    free(list);
    free(urls);
}
