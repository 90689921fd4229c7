/* server/listen.c: which addresses can be had, and that looking at them harms nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "listen.h"

typedef struct place {
    char directory[40];
    char path[64];
    char url[80];
} place;

static int
set_up(void **state)
{
    place *p = calloc(1, sizeof *p);
    assert_non_null(p);
    strcpy(p->directory, "/tmp/ptier-listen-XXXXXX");
    assert_non_null(mkdtemp(p->directory));
    (void)snprintf(p->path, sizeof p->path, "%s/s.sock", p->directory);
    (void)snprintf(p->url, sizeof p->url, "ipc://%s", p->path);
    *state = p;
    return 0;
}

static int
tear_down(void **state)
{
    place *p = *state;
    (void)unlink(p->path); /* may not exist */
    int rv = rmdir(p->directory);
    free(p);
    return rv;
}

static void
expect(const place *p, ptier_status status, const char *part)
{
    ptier_error error = {0};
    assert_int_equal(ptier_listen_prepare(p->url, false, &error), status);
    if (!strstr(error.message, part) || !strstr(error.message, p->url))
        fail_msg("'%s' does not mention '%s' and '%s'", error.message, part, p->url);
}

static void
expect_free(const place *p)
{
    ptier_error error = {0};
    if (ptier_listen_prepare(p->url, false, &error) != PTIER_OK)
        fail_msg("%s", error.message);
}

/* A bound socket; listening or as a dead process leaves it. */
static int
bind_socket(const place *p, bool listening)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, p->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    if (listening)
        assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static void
file_at_the_path_is_refused_and_kept(void **state)
{
    place *p = *state;
    struct stat there;
    FILE *file = fopen(p->path, "w");
    assert_non_null(file);
    assert_true(fputs("precious", file) >= 0);
    assert_int_equal(fclose(file), 0);
    expect(p, PTIER_FAILED_PRECONDITION, "not a socket");
    assert_int_equal(lstat(p->path, &there), 0);
    assert_int_equal(there.st_size, 8);
    assert_int_equal(unlink(p->path), 0);
    assert_int_equal(symlink("/etc/hostname", p->path), 0);
    expect(p, PTIER_FAILED_PRECONDITION, "not a socket");
    assert_int_equal(lstat(p->path, &there), 0);
}

static void
live_socket_is_in_use_and_a_stale_one_is_free(void **state)
{
    place *p = *state;
    expect_free(p);
    int fd = bind_socket(p, true);
    expect(p, PTIER_ALREADY_EXISTS, "in use");
    close(fd);
    expect_free(p);
}

static void
socket_with_a_full_backlog_is_live(void **state)
{
    place *p = *state;
    int fd = bind_socket(p, true);
    for (int i = 0; i < 5; i++) /* each look leaves one in the backlog of 1 */
        expect(p, PTIER_ALREADY_EXISTS, "in use");
    close(fd);
}

static void
directory_is_made_only_when_asked_for(void **state)
{
    place *p = *state;
    struct stat there;
    ptier_error error = {0};
    assert_int_equal(rmdir(p->directory), 0);
    expect(p, PTIER_NOT_FOUND, "there is no directory");
    assert_int_not_equal(stat(p->directory, &there), 0);
    assert_int_equal(ptier_listen_prepare(p->url, true, &error), PTIER_OK);
    assert_int_equal(stat(p->directory, &there), 0);
    assert_int_equal(there.st_mode & 07777, 0750);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

typedef struct starter {
    const place *p;
    pthread_barrier_t *barrier;
    ptier_listen_socket socket;
} starter;

static void *
start(void *argument)
{
    starter *s = argument;
    const ptier_listen_options options = {.socket_mode = 0600, .socket_group = UINT32_MAX};
    (void)pthread_barrier_wait(s->barrier);
    if (ptier_listen_unix(s->p->url, &options, &s->socket, NULL) != PTIER_OK)
        assert_int_equal(s->socket.fd, -1);
    return NULL;
}

/* As daemons do that are started at the same time. One of them gets the path, and keeps it. */
static void
of_those_that_start_at_once_one_listens(void **state)
{
    enum { STARTERS = 4, ROUNDS = 300 };
    const place *p = *state;
    pthread_barrier_t barrier;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, STARTERS), 0);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[STARTERS];
        starter starters[STARTERS];
        struct stat there;
        size_t count = 0;
        for (int i = 0; i < STARTERS; i++) {
            starters[i] = (starter){.p = p, .barrier = &barrier};
            assert_int_equal(pthread_create(&threads[i], NULL, start, &starters[i]), 0);
        }
        for (int i = 0; i < STARTERS; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(stat(p->path, &there), 0);
        for (int i = 0; i < STARTERS; i++)
            if (starters[i].socket.fd >= 0) {
                count++;
                assert_int_equal(starters[i].socket.inode, there.st_ino);
                (void)close(starters[i].socket.fd); /* and leaves a dead one's behind */
            }
        assert_int_equal(count, 1);
    }
    assert_int_equal(pthread_barrier_destroy(&barrier), 0);
}

/* Nobody is to wonder whose socket it is. */
static void
a_start_that_fails_leaves_no_socket_behind(void **state)
{
    const uid_t nobody = 65534;
    const place *p = *state;
    const ptier_listen_options options = {.socket_mode = 0600, .socket_group = 1}; /* not ours */
    ptier_listen_socket listening;
    bool root = geteuid() == 0;
    if (root) { /* nothing fails for root */
        assert_int_equal(chown(p->directory, nobody, nobody), 0);
        assert_int_equal(seteuid(nobody), 0);
    }
    ptier_status status = ptier_listen_unix(p->url, &options, &listening, NULL);
    if (root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(status, PTIER_PERMISSION_DENIED);
    assert_int_equal(access(p->path, F_OK), -1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(file_at_the_path_is_refused_and_kept),
        TEST(live_socket_is_in_use_and_a_stale_one_is_free),
        TEST(socket_with_a_full_backlog_is_live),
        TEST(directory_is_made_only_when_asked_for),
        TEST(of_those_that_start_at_once_one_listens),
        TEST(a_start_that_fails_leaves_no_socket_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
