/* What the SDK makes of GetInfo: from a real proxytierd, and from one of a version to come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "support/daemon.h"
#include "support/scripted_peer.h"

static ptier_server_info
info_of(const char *url)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_server_info info;
    ptier_error error;
    ptier_client_options_init(&options);
    options.url = url;
    options.timeout_ms = 20000;
    if (ptier_client_open(&options, &client, &error) != PTIER_OK ||
        ptier_get_info(client, &info, &error) != PTIER_OK)
        fail_msg("%s", error.message);
    ptier_client_close(client);
    return info;
}

static void
features_of_the_daemon_are_listed(void **state)
{
    static const char *const expected[] = {"events", "replay",       "export", "deduplication",
                                           "backup", "key_rotation", "health", "reflection"};
    const size_t count = sizeof expected / sizeof *expected;
    test_daemon *daemon = *state;
    test_daemon_start(daemon, NULL);
    ptier_server_info info = info_of(daemon->url);
    assert_true(info.feature_count >= count);
    for (size_t i = 0; i < count; i++)
        assert_string_equal(info.features[i], expected[i]);
}

static void
features_beyond_the_protocols_bounds_are_left_out(void **state)
{
    (void)state;
    scripted_peer peer;
    char names[PTIER_FEATURES_MAX + 4][PTIER_FEATURE_NAME_MAX + 2];
    char *list[PTIER_FEATURES_MAX + 4];
    for (size_t i = 0; i < PTIER_FEATURES_MAX + 4; i++) {
        (void)snprintf(names[i], sizeof names[i], "feature_%zu", i);
        list[i] = names[i];
    }
    memset(names[0], 'x', PTIER_FEATURE_NAME_MAX + 1); /* one byte too long */
    names[0][PTIER_FEATURE_NAME_MAX + 1] = '\0';
    memset(names[1], 'y', PTIER_FEATURE_NAME_MAX);
    names[1][PTIER_FEATURE_NAME_MAX] = '\0';
    names[2][0] = '\0';
    peer_init(&peer);
    peer.features = list;
    peer.feature_count = PTIER_FEATURES_MAX + 4;
    peer_start(&peer);
    ptier_server_info info = info_of(peer.rpc_url);
    assert_int_equal(info.feature_count, PTIER_FEATURES_MAX);
    assert_string_equal(info.features[0], names[1]);
    assert_string_equal(info.features[1], "feature_3");
    assert_string_equal(info.features[PTIER_FEATURES_MAX - 1], "feature_65");
    peer.feature_count = 0;
    info = info_of(peer.rpc_url);
    assert_int_equal(info.feature_count, 0);
    peer_fini(&peer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(features_of_the_daemon_are_listed, test_daemon_set_up,
                                        test_daemon_tear_down),
        cmocka_unit_test(features_beyond_the_protocols_bounds_are_left_out),
    };
    return cmocka_run_group_tests_name("sdk_info", tests, NULL, NULL);
}
