/* See peer_client.h. */
#include "support/peer_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "proxytier/v1/cache.pb-c.h"

ptier_client *
open_client(const char *url, uint32_t timeout_ms)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = url;
    options.timeout_ms = timeout_ms;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

void
answer_well(void *context, const peer_request *request, peer_answer *answer)
{
    (void)context;
    if (strcmp(request->method, "Get") == 0) {
        Proxytier__V1__GetRequest *get =
            proxytier__v1__get_request__unpack(NULL, request->body_length, request->body);
        Proxytier__V1__GetResponse reply = PROXYTIER__V1__GET_RESPONSE__INIT;
        Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
        Proxytier__V1__Label label = PROXYTIER__V1__LABEL__INIT, *labels[] = {&label};
        label.name = PEER_TEXT("country");
        label.value = PEER_TEXT("DE");
        proxy.key = get->key;
        proxy.url = PEER_TEXT("http://10.0.0.1:8080");
        proxy.username = PEER_TEXT("user");
        proxy.password = PEER_TEXT("secret");
        proxy.health = PROXYTIER__V1__HEALTH_STATUS__HEALTH_STATUS_HEALTHY;
        proxy.labels = labels;
        proxy.n_labels = 1;
        reply.proxy = &proxy;
        reply.as_of = 77;
        reply.tier = PROXYTIER__V1__TIER__TIER_L2;
        peer_answer_with(answer, &reply.base);
        proxytier__v1__get_request__free_unpacked(get, NULL);
    } else if (strcmp(request->method, "ReportHealth") == 0) {
        Proxytier__V1__ReportHealthResponse reply = PROXYTIER__V1__REPORT_HEALTH_RESPONSE__INIT;
        Proxytier__V1__ReportResult result = PROXYTIER__V1__REPORT_RESULT__INIT,
                                    *results[] = {&result};
        result.found = result.removed = true;
        result.failure_count = 3;
        reply.results = results;
        reply.n_results = 1;
        peer_answer_with(answer, &reply.base);
    }
}

void
assert_answers(ptier_client *client)
{
    ptier_records records;
    ptier_error error = {.message = ""};
    ptier_status status = ptier_get(client, "some-key", &records, &error);
    if (status != PTIER_OK)
        fail_msg("status %d: %s", (int)status, error.message);
    assert_int_equal(records.count, 1);
    ptier_records_free(&records);
}
