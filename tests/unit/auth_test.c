/* server/auth.c, login_limit.c, users.c: who may do what, and what becomes of those who may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth.h"
#include "login_limit.h"
#include "support/temp_dir.h"
#include "token_file.h"
#include "users.h"

#define BURST 10

static char directory[PTIER_TEST_PATH];
static char path[PTIER_TEST_PATH + 16];
static char log_path[PTIER_TEST_PATH + 16];
static ptier_log *logger;

static int
set_up(void **state)
{
    (void)state;
    ptier_test_dir_make(directory);
    (void)snprintf(path, sizeof path, "%s/tokens", directory);
    (void)snprintf(log_path, sizeof log_path, "%s/log", directory);
    assert_int_equal(ptier_log_open(log_path, PTIER_LOG_INFO, &logger, NULL), PTIER_OK);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_log_close(logger);
    ptier_test_dir_remove(directory);
    return 0;
}

static size_t
count_in_log(const char *part)
{
    size_t count = 0, length;
    char *text = ptier_test_file_read(log_path, &length);
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        count++;
    free(text);
    return count;
}

static void
add_token(ptier_role role, const char *name, int64_t expires_s, char token[PTIER_TOKEN_TEXT + 1])
{
    ptier_token_entry entry = {.role = role, .expires_s = expires_s};
    strcpy(entry.name, name);
    assert_int_equal(ptier_token_make(token, NULL), PTIER_OK);
    assert_true(ptier_token_hash(token, entry.hash));
    assert_int_equal(ptier_token_file_add(path, &entry, NULL), PTIER_OK);
}

static ptier_auth *
make_auth(void)
{
    ptier_auth *auth = NULL;
    ptier_error error = {0};
    ptier_auth_options options = {.token_file = path, .failed_logins = BURST};
    if (ptier_auth_create(&options, logger, &auth, &error) != PTIER_OK)
        fail_msg("%s", error.message);
    return auth;
}

static ptier_peer
user(uint32_t uid)
{
    return (ptier_peer){.role = PTIER_ROLE_ADMIN, .door = PTIER_DOOR_IPC, .uid = uid};
}

static ptier_status
login(ptier_auth *auth, uint32_t uid, const char *token, ptier_role *role)
{
    ptier_peer peer = user(uid);
    ptier_error error;
    uint64_t identity;
    return ptier_auth_login(auth, &peer, token, role, &identity, &error);
}

/* A wrong token is UNAUTHENTICATED all the same: who waits for another answer learns nothing. */
static bool
login_is_limited(ptier_auth *auth, uint32_t uid, const char *token)
{
    ptier_peer peer = user(uid);
    ptier_error error = {.message = ""};
    ptier_role role;
    uint64_t identity;
    assert_int_equal(ptier_auth_login(auth, &peer, token, &role, &identity, &error),
                     PTIER_UNAUTHENTICATED);
    return strstr(error.message, "too many failed logins") != NULL;
}

static void
tokens_give_role_and_identity(void **state)
{
    (void)state;
    char one[PTIER_TOKEN_TEXT + 1], two[PTIER_TOKEN_TEXT + 1];
    ptier_peer peer = user(1);
    ptier_role role;
    uint64_t first, second, again;
    add_token(PTIER_ROLE_READER, "one", 0, one);
    add_token(PTIER_ROLE_ADMIN, "two", 4102444800, two);
    ptier_auth *auth = make_auth();
    assert_int_equal(ptier_auth_login(auth, &peer, one, &role, &first, NULL), PTIER_OK);
    assert_int_equal(role, PTIER_ROLE_READER);
    assert_int_equal(ptier_auth_login(auth, &peer, two, &role, &second, NULL), PTIER_OK);
    assert_int_equal(role, PTIER_ROLE_ADMIN);
    peer.uid = 2;
    assert_int_equal(ptier_auth_login(auth, &peer, one, &role, &again, NULL), PTIER_OK);
    assert_true(first == again && first != second);
    ptier_auth_destroy(auth);
}

static void
wrong_and_expired_tokens_leave_no_role(void **state)
{
    (void)state;
    char good[PTIER_TOKEN_TEXT + 1], old[PTIER_TOKEN_TEXT + 1];
    ptier_role role = PTIER_ROLE_ADMIN;
    add_token(PTIER_ROLE_ADMIN, "good", 0, good);
    add_token(PTIER_ROLE_ADMIN, "old", 86400, old);
    ptier_auth *auth = make_auth();
    assert_int_equal(login(auth, 1, old, &role), PTIER_UNAUTHENTICATED);
    assert_int_equal(role, PTIER_ROLE_NONE);
    good[20] = good[20] == 'A' ? 'B' : 'A';
    role = PTIER_ROLE_ADMIN;
    assert_int_equal(login(auth, 1, good, &role), PTIER_UNAUTHENTICATED);
    assert_int_equal(role, PTIER_ROLE_NONE);
    assert_int_equal(login(auth, 1, "x", &role), PTIER_UNAUTHENTICATED);
    assert_int_equal(count_in_log("login_failed  uid 1 over ipc: the token old has expired\n"), 1);
    assert_int_equal(count_in_log("login_failed  uid 1 over ipc: a wrong token\n"), 2);
    assert_int_equal(count_in_log(old), 0);
    assert_int_equal(count_in_log(good), 0);
    ptier_auth_destroy(auth);
}

static void
failed_logins_are_limited_per_peer_but_right_tokens_never(void **state)
{
    (void)state;
    char good[PTIER_TOKEN_TEXT + 1];
    size_t limited = 0;
    ptier_role role;
    add_token(PTIER_ROLE_ADMIN, "good", 0, good);
    ptier_auth *auth = make_auth();
    for (int i = 0; i < 200; i++)
        limited += login_is_limited(auth, 1, "wrong");
    assert_in_range(limited, 200 - BURST - 20, 200 - BURST);
    assert_in_range(count_in_log("login_failed"), BURST, BURST + 20);
    assert_int_equal(login(auth, 2, "wrong", &role), PTIER_UNAUTHENTICATED);
    assert_int_equal(login(auth, 1, good, &role), PTIER_OK);
    ptier_auth_destroy(auth);
}

static void
limit_is_a_burst_and_then_one_a_second(void **state)
{
    (void)state;
    static ptier_login_limit limit;
    ptier_peer peer = user(7);
    assert_int_equal(ptier_login_limit_init(&limit, BURST, NULL), PTIER_OK);
    for (int i = 0; i < BURST; i++)
        assert_false(ptier_login_failed(&limit, &peer, 5000).limited);
    assert_true(ptier_login_failed(&limit, &peer, 5000).limited);
    assert_true(ptier_login_failed(&limit, &peer, 5999).limited);
    ptier_login_verdict verdict = ptier_login_failed(&limit, &peer, 6000);
    assert_true(!verdict.limited && verdict.log);
    assert_int_equal(verdict.unlogged, 2);
    assert_true(ptier_login_failed(&limit, &peer, 6000).limited);
    for (int i = 0; i < BURST; i++)
        assert_false(ptier_login_failed(&limit, &peer, 60000).limited);
    ptier_login_limit_fini(&limit);
}

/* Very many peers: the table stays what it is, and the log is bounded as a whole. */
static void
log_is_bounded_whoever_fails(void **state)
{
    (void)state;
    static ptier_login_limit limit;
    size_t lines = 0;
    assert_int_equal(ptier_login_limit_init(&limit, BURST, NULL), PTIER_OK);
    for (uint32_t uid = 0; uid < 20000; uid++) {
        ptier_peer peer = user(uid);
        ptier_login_verdict verdict = ptier_login_failed(&limit, &peer, 1000);
        assert_false(verdict.limited);
        lines += verdict.log;
    }
    assert_int_equal(lines, PTIER_LOGIN_LINES);
    ptier_login_limit_fini(&limit);
}

static void
an_ipv6_network_is_one_peer_and_an_ipv4_address_is(void **state)
{
    (void)state;
    static ptier_login_limit limit;
    bool limited = false;
    assert_int_equal(ptier_login_limit_init(&limit, BURST, NULL), PTIER_OK);
    for (uint8_t i = 0; i <= BURST; i++) {
        ptier_peer peer = {.door = PTIER_DOOR_TLS, .address = {0x20, 1, 0xd, 0xb8, [15] = i}};
        limited = ptier_login_failed(&limit, &peer, 1000).limited;
    }
    assert_true(limited);
    for (uint8_t i = 0; i <= BURST; i++) {
        ptier_peer peer = {.door = PTIER_DOOR_TLS,
                           .address = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = i}};
        limited = ptier_login_failed(&limit, &peer, 1000).limited;
    }
    assert_false(limited);
    ptier_login_limit_fini(&limit);
}

static void
changed_file_counts_at_once_and_a_wrong_one_changes_nothing(void **state)
{
    (void)state;
    char one[PTIER_TOKEN_TEXT + 1], two[PTIER_TOKEN_TEXT + 1];
    ptier_role role;
    add_token(PTIER_ROLE_READER, "one", 0, one);
    ptier_auth *auth = make_auth();
    ptier_auth_reload(auth, false);
    assert_int_equal(count_in_log("tokens_loaded"), 0);
    add_token(PTIER_ROLE_ADMIN, "two", 0, two);
    assert_int_equal(login(auth, 1, two, &role), PTIER_UNAUTHENTICATED);
    ptier_auth_reload(auth, false);
    assert_int_equal(login(auth, 1, two, &role), PTIER_OK);
    assert_int_equal(ptier_token_file_remove(path, "one", NULL), PTIER_OK);
    ptier_auth_reload(auth, false);
    assert_int_equal(login(auth, 1, one, &role), PTIER_UNAUTHENTICATED);
    assert_int_equal(count_in_log("tokens_loaded"), 2);
    ptier_test_file_write(path, "nonsense\n", 9);
    ptier_auth_reload(auth, false);
    assert_int_equal(unlink(path), 0);
    ptier_auth_reload(auth, true);
    assert_int_equal(count_in_log("tokens_kept"), 2);
    assert_int_equal(login(auth, 1, two, &role), PTIER_OK);
    ptier_auth_destroy(auth);
}

static void
without_a_token_file_every_token_is_wrong(void **state)
{
    (void)state;
    ptier_auth *auth = NULL;
    ptier_auth_options options = {.failed_logins = BURST};
    ptier_role role;
    assert_int_equal(ptier_auth_create(&options, logger, &auth, NULL), PTIER_OK);
    assert_int_equal(login(auth, 0, "any", &role), PTIER_UNAUTHENTICATED);
    ptier_auth_destroy(auth);
    assert_int_equal(login(NULL, 0, "any", &role), PTIER_UNAUTHENTICATED);
    options.token_file = path;
    assert_int_equal(ptier_auth_create(&options, logger, &auth, NULL), PTIER_NOT_FOUND);
}

static void
users_are_names_or_numbers(void **state)
{
    (void)state;
    const char *const users[] = {"root", "4711"}, *const nobody[] = {"no-such-user-here"};
    ptier_user_list list;
    ptier_error error;
    assert_int_equal(ptier_users_find(users, 2, "root", &list, &error), PTIER_OK);
    assert_true(list.count >= 2);
    assert_int_equal(list.uids[0], 0);
    assert_int_equal(list.uids[1], 4711);
    assert_int_equal(list.gid, 0);
    ptier_user_list_fini(&list);
    assert_int_equal(ptier_users_find(users, 1, "4712", &list, &error), PTIER_OK);
    assert_int_equal(list.gid, 4712);
    ptier_user_list_fini(&list);
    assert_int_equal(ptier_users_find(nobody, 1, NULL, &list, &error), PTIER_NOT_FOUND);
    assert_int_equal(ptier_users_find(users, 1, "no-such-group", &list, &error), PTIER_NOT_FOUND);
    assert_null(list.uids);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tokens_give_role_and_identity),
        TEST(wrong_and_expired_tokens_leave_no_role),
        TEST(failed_logins_are_limited_per_peer_but_right_tokens_never),
        TEST(limit_is_a_burst_and_then_one_a_second),
        TEST(log_is_bounded_whoever_fails),
        TEST(an_ipv6_network_is_one_peer_and_an_ipv4_address_is),
        TEST(changed_file_counts_at_once_and_a_wrong_one_changes_nothing),
        TEST(without_a_token_file_every_token_is_wrong),
        TEST(users_are_names_or_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
