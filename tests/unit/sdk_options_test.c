/* What needs no daemon: options, addresses, arguments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "call.h"
#include "proxytier/v1/cache.pb-c.h"

static void
default_url_is_the_environments_or_the_users_socket(void **state)
{
    (void)state;
    char url[128], small[8];
    setenv("PROXYTIER_URL", "tcp://127.0.0.1:7411", 1);
    assert_int_equal(ptier_default_url(url, sizeof url), 20);
    assert_string_equal(url, "tcp://127.0.0.1:7411");
    assert_int_equal(ptier_default_url(small, sizeof small), 20);
    assert_string_equal(small, "tcp://1");
    unsetenv("PROXYTIER_URL");
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    ptier_default_url(url, sizeof url);
    assert_string_equal(url, "ipc:///run/user/7/proxytier/rpc.sock");
    unsetenv("XDG_RUNTIME_DIR");
    ptier_default_url(url, sizeof url);
    assert_memory_equal(url, "ipc:///tmp/proxytier-", 21);
}

static void
address_that_cannot_be_dialed_is_refused_with_advice(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "http://127.0.0.1:80",
        "ipc://relative/path",
        "ipc://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:99999",
        "tcp://:7411",
        "/run/proxytier.sock",
        "tcp://127.0.0.1:12x",
        "ipc:///"
        "012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
        "01234567890123456789",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ptier_client_options options;
        ptier_client *client;
        ptier_error error = {.message = ""};
        ptier_client_options_init(&options);
        options.url = bad[i];
        if (ptier_client_open(&options, &client, &error) != PTIER_INVALID_ARGUMENT)
            fail_msg("%s was accepted", bad[i]);
        assert_null(client);
        assert_true(strlen(error.message) > 10);
    }
}

static void
options_of_an_older_program_are_completed(void **state)
{
    (void)state;
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    assert_int_equal(options.timeout_ms, 5000);
    assert_int_equal(options.retries, 3);
    options.url = "ipc:///tmp/ptier-sdk-nobody.sock";
    options.size = offsetof(ptier_client_options, timeout_ms); /* knew only url and token */
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    ptier_client_close(client);
    options.size = 0;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_INVALID_ARGUMENT);
}

static void
arguments_are_checked_before_anything_is_sent(void **state)
{
    (void)state;
    ptier_client_options options;
    ptier_client *client;
    ptier_records records;
    ptier_record record;
    ptier_error error;
    const char *keys[] = {"a", NULL};
    char token[64];
    ptier_client_options_init(&options);
    options.url = "ipc:///tmp/ptier-sdk-nobody.sock";
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    ptier_record_init(&record);
    memset(token, 'x', sizeof token);
    token[sizeof token - 1] = '\0';
    assert_int_equal(ptier_get(client, NULL, &records, &error), PTIER_INVALID_ARGUMENT);
    assert_int_equal(ptier_get_many(client, keys, 2, &records, &error), PTIER_INVALID_ARGUMENT);
    assert_int_equal(ptier_get_many(client, keys, PTIER_BATCH_MAX + 1, &records, &error),
                     PTIER_INVALID_ARGUMENT);
    assert_int_equal(ptier_delete(client, keys, 2, NULL, NULL, &error), PTIER_INVALID_ARGUMENT);
    assert_int_equal(ptier_put(client, &record, NULL, NULL, &error), PTIER_INVALID_ARGUMENT);
    record.url = "http://a:1";
    record.label_count = PTIER_LABELS_MAX + 1;
    assert_int_equal(ptier_put(client, &record, NULL, NULL, &error), PTIER_INVALID_ARGUMENT);
    assert_int_equal(ptier_list(client, NULL, 0, token, &records, &error), PTIER_INVALID_ARGUMENT);
    assert_int_equal(ptier_get(NULL, "a", &records, &error), PTIER_INVALID_ARGUMENT);
    ptier_client_close(client);
    ptier_client_close(NULL);
}

/* Two bytes on the wire ask for a record of some 300. */
static void
message_that_unpacks_beyond_its_budget_is_refused(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    uint8_t *packed = malloc(COUNT * 2);
    assert_non_null(packed);
    for (size_t i = 0; i < COUNT; i++) {
        packed[i * 2] = 0x0a; /* proxies, length 0 */
        packed[i * 2 + 1] = 0;
    }
    ptier_arena *arena = ptier_arena_create(PTIER_REPLY_BUDGET(COUNT * 2));
    assert_non_null(arena);
    assert_null(proxytier__v1__get_many_response__unpack(&arena->allocator, COUNT * 2, packed));
    ptier_arena_destroy(arena);
    free(packed);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_url_is_the_environments_or_the_users_socket),
        cmocka_unit_test(address_that_cannot_be_dialed_is_refused_with_advice),
        cmocka_unit_test(options_of_an_older_program_are_completed),
        cmocka_unit_test(arguments_are_checked_before_anything_is_sent),
        cmocka_unit_test(message_that_unpacks_beyond_its_budget_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
