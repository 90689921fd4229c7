/* The SDK against listeners that are no nng: they hang up, hang, or say nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "support/peer_client.h"

typedef struct rude_listener {
    int fd;
    bool greet; /* speak the hello of a REP socket, and nothing more */
    pthread_t thread;
    pthread_mutex_t lock;
    unsigned accepted;
    int kept[64];
    unsigned kept_count;
} rude_listener;

static void *
be_rude(void *argument)
{
    rude_listener *r = argument;
    for (;;) {
        int fd = accept(r->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        bool keep = r->greet && send(fd, "\0SP\0\0\x31\0\0", 8, MSG_NOSIGNAL) == 8;
        pthread_mutex_lock(&r->lock);
        r->accepted++;
        if (keep && r->kept_count < 64)
            r->kept[r->kept_count++] = fd;
        else
            close(fd);
        pthread_mutex_unlock(&r->lock);
    }
}

static unsigned
accepted(rude_listener *r)
{
    pthread_mutex_lock(&r->lock);
    unsigned count = r->accepted;
    pthread_mutex_unlock(&r->lock);
    return count;
}

/* `accepting` false: connections wait in the backlog for ever. */
static void
rude_start(rude_listener *r, const char *url, bool accepting)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", url + strlen("ipc://"));
    r->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(r->fd >= 0);
    assert_int_equal(bind(r->fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(r->fd, 64), 0);
    pthread_mutex_init(&r->lock, NULL);
    if (accepting)
        assert_int_equal(pthread_create(&r->thread, NULL, be_rude, r), 0);
}

static void
rude_stop(rude_listener *r, const char *url, bool accepting)
{
    shutdown(r->fd, SHUT_RDWR);
    if (accepting)
        pthread_join(r->thread, NULL);
    close(r->fd);
    for (unsigned i = 0; i < r->kept_count; i++)
        close(r->kept[i]);
    unlink(url + strlen("ipc://"));
}

static void
client_outlives_a_listener_that_hangs_up_before_the_handshake(void **state)
{
    (void)state;
    scripted_peer peer;
    rude_listener rude = {.greet = false};
    ptier_records records;
    peer_init(&peer);
    rude_start(&rude, peer.rpc_url, true);
    ptier_client *client = open_client(peer.rpc_url, 10000);
    int64_t until = ptier_test_now() + 20000;
    while (accepted(&rude) < 5 && ptier_test_now() < until)
        assert_int_equal(ptier_get(client, "k", &records, NULL), PTIER_UNAVAILABLE);
    assert_true(accepted(&rude) >= 5); /* it goes on trying */
    rude_stop(&rude, peer.rpc_url, true);
    peer.handler = answer_well;
    peer_start(&peer);
    assert_answers(client);
    ptier_client_close(client);
    peer_fini(&peer);
}

static void
call_to_a_hanging_listener_ends_within_its_timeout(void **state)
{
    (void)state;
    scripted_peer peer;
    rude_listener hanging = {.greet = false};
    ptier_records records;
    peer_init(&peer);
    rude_start(&hanging, peer.rpc_url, false);
    ptier_client *client = open_client(peer.rpc_url, 300);
    int64_t start = ptier_test_now();
    assert_int_equal(ptier_get(client, "k", &records, NULL), PTIER_DEADLINE_EXCEEDED);
    assert_true(ptier_test_now() - start < 2000);
    start = ptier_test_now();
    ptier_client_close(client); /* while the attempt hangs */
    assert_true(ptier_test_now() - start < 2000);
    rude_stop(&hanging, peer.rpc_url, false);
    peer_fini(&peer);
}

static void
mute_connection_is_given_up_and_dialed_anew(void **state)
{
    (void)state;
    scripted_peer peer;
    rude_listener mute = {.greet = true};
    ptier_records records;
    peer_init(&peer);
    rude_start(&mute, peer.rpc_url, true);
    ptier_client *client = open_client(peer.rpc_url, 700);
    int64_t until = ptier_test_now() + 20000;
    while (accepted(&mute) < 2 && ptier_test_now() < until)
        assert_int_not_equal(ptier_get(client, "k", &records, NULL), PTIER_OK);
    assert_true(accepted(&mute) >= 2);
    ptier_client_close(client);
    rude_stop(&mute, peer.rpc_url, true);
    peer_fini(&peer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(client_outlives_a_listener_that_hangs_up_before_the_handshake),
        cmocka_unit_test(call_to_a_hanging_listener_ends_within_its_timeout),
        cmocka_unit_test(mute_connection_is_given_up_and_dialed_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
