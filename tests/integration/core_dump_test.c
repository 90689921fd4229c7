/*
 * A crash of the real daemon takes no secrets to the disk. Where the system writes core files (its
 * limit and core_pattern decide), the same crash with --core-dumps on proves that one would have
 * been seen.
 */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "proxytier/v1/cache.pb-c.h"
#include "support/daemon.h"
#include "support/raw_client.h"

#define KEY      "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define PASSWORD "to-be-kept-from-cores"
#define LIMIT_MS 60000 /* of the end of a daemon that writes a core */

static test_daemon daemon_;

static int
set_up(void **state)
{
    (void)state;
    struct rlimit limit;
    test_daemon_init(&daemon_);
    if (getrlimit(RLIMIT_CORE, &limit) != 0)
        return -1;
    limit.rlim_cur = limit.rlim_max;
    /* A relative core_pattern means the daemon's directory, which it has from us. */
    return setrlimit(RLIMIT_CORE, &limit) || chdir(daemon_.directory) ||
           setenv("PROXYTIER_ENCRYPTION_KEY", KEY, 1);
}

static int
tear_down(void **state)
{
    (void)state;
    int left = chdir("/");
    test_daemon_fini(&daemon_);
    return left || unsetenv("PROXYTIER_ENCRYPTION_KEY");
}

static void
put_secret(void)
{
    raw_client client;
    Proxytier__V1__PutRequest request = PROXYTIER__V1__PUT_REQUEST__INIT;
    Proxytier__V1__Proxy proxy = PROXYTIER__V1__PROXY__INIT;
    char url[] = "http://10.0.0.1:8080", user[] = "user", password[] = PASSWORD;
    proxy.url = url;
    proxy.username = user;
    proxy.password = password;
    request.proxy = &proxy;
    raw_client_open(&client, daemon_.url);
    raw_reply reply = raw_client_call(&client, "/proxytier.v1.ProxyCache/Put", &request.base,
                                      &proxytier__v1__put_response__descriptor);
    assert_int_equal(raw_status(&reply), PTIER_OK);
    raw_reply_free(&reply);
    raw_client_close(&client);
}

/* Whether the system says that it wrote a core. */
static bool
crash(int number)
{
    int status;
    pid_t ended = 0;
    assert_int_equal(kill(daemon_.pid, number), 0);
    for (int waited = 0; ended == 0 && waited < LIMIT_MS; waited += 2) {
        ended = waitpid(daemon_.pid, &status, WNOHANG);
        if (ended == 0)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    assert_int_equal(ended, daemon_.pid);
    daemon_.pid = 0;
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), number);
    return WCOREDUMP(status);
}

/* Also when the system adds something to the name. False: it is elsewhere. */
static bool
find_core(char path[320])
{
    bool found = false;
    DIR *directory = opendir(daemon_.directory);
    assert_non_null(directory);
    for (const struct dirent *item; !found && (item = readdir(directory)) != NULL;) {
        found = strstr(item->d_name, "core") != NULL;
        (void)snprintf(path, 320, "%s/%s", daemon_.directory, item->d_name);
    }
    closedir(directory);
    return found;
}

static bool
file_contains(const char *path, const void *bytes, size_t length)
{
    enum { ROOM = 1 << 20 };
    char *text = malloc(ROOM);
    FILE *file = fopen(path, "re");
    bool found = false;
    size_t kept = 0, got;
    assert_non_null(text);
    assert_non_null(file);
    while (!found && (got = fread(text + kept, 1, ROOM - kept, file)) > 0) {
        found = memmem(text, kept + got, bytes, length) != NULL;
        size_t end = kept + got;
        kept = end < length ? end : length; /* one that straddles two pieces */
        memmove(text, text + end - kept, kept);
    }
    (void)fclose(file);
    free(text);
    return found;
}

static void
daemon_writes_no_core_unless_told_so(void **state)
{
    (void)state;
    static const int signals[] = {SIGABRT, SIGQUIT};
    char path[320];
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        test_daemon_start(&daemon_, NULL);
        put_secret();
        assert_false(crash(signals[i]));
        assert_false(find_core(path));
        assert_false(test_directory_contains(daemon_.directory, PASSWORD));
    }
}

/* What derives from the key for the checks of records: all that the key ring itself has of it. */
static void
derive_check_key(uint8_t check_key[32])
{
    static const uint8_t key[32] = {0x73, 0x0f, 0xf4, 0xc7, 0xaf, 0x3d, 0x46, 0x92,
                                    0x3e, 0x8e, 0xd4, 0x51, 0xee, 0x81, 0x3c, 0x87,
                                    0xf7, 0x90, 0xb0, 0xa2, 0x26, 0xbc, 0x96, 0xa9,
                                    0x2d, 0xe4, 0x9b, 0x5e, 0x9c, 0x05, 0xe1, 0xee};
    static const char label[] = "proxytier record check v1";
    size_t length;
    assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, sizeof key,
                              (const uint8_t *)label, sizeof label - 1, check_key, 32, &length));
}

static void
core_that_was_asked_for_has_neither_the_keys_text_nor_the_key_ring(void **state)
{
    (void)state;
    char path[320];
    uint8_t check_key[32];
    derive_check_key(check_key);
    test_daemon_start(&daemon_, (const char *[]){"--core-dumps", "on", NULL});
    put_secret();
    if (!crash(SIGABRT) || !find_core(path))
        skip(); /* this system writes none, or elsewhere */
    assert_true(
        file_contains(path, PASSWORD, sizeof PASSWORD - 1)); /* in the entry: it is a core */
    assert_false(file_contains(path, KEY, sizeof KEY - 1));
    assert_false(file_contains(path, check_key, 16));
}

static void
key_is_gone_from_the_environment_that_others_see(void **state)
{
    (void)state;
    char path[64];
    test_daemon_start(&daemon_, (const char *[]){"--core-dumps", "on", NULL});
    (void)snprintf(path, sizeof path, "/proc/%d/environ", (int)daemon_.pid);
    assert_true(file_contains(path, "PATH=", 5));
    assert_false(file_contains(path, KEY, sizeof KEY - 1));
}

#define WITH_DAEMON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(daemon_writes_no_core_unless_told_so),
        WITH_DAEMON(core_that_was_asked_for_has_neither_the_keys_text_nor_the_key_ring),
        WITH_DAEMON(key_is_gone_from_the_environment_that_others_see),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
