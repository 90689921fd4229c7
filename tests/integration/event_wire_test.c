/* What the daemon publishes, byte for byte and event for event: bounds of batches, heartbeats, and
 * many tier events told as few. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "framing.h"
#include "proxytier/v1/events.pb-c.h"
#include "support/mirrors.h"

#define PATIENCE_MS  20000
#define BATCH_BYTES  ((size_t)32 << 10)
#define BATCH_EVENTS 256

static int
connect_subscriber(const test_daemon *daemon)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval limit = {.tv_sec = PATIENCE_MS / 1000};
    const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x21, 0, 0};
    uint8_t theirs[8];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s",
                   daemon->events_url + strlen("ipc://"));
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(fd, hello, sizeof hello, MSG_NOSIGNAL), sizeof hello);
    assert_int_equal(recv(fd, theirs, sizeof theirs, MSG_WAITALL), sizeof theirs);
    return fd;
}

/* The next batch, to be freed; *length: of the message, topic included. */
static Proxytier__V1__EventBatch *
read_batch(int fd, size_t *length)
{
    uint8_t before[9];
    assert_int_equal(recv(fd, before, sizeof before, MSG_WAITALL), sizeof before);
    *length = 0;
    for (int i = 1; i < 9; i++)
        *length = *length << 8 | before[i];
    assert_in_range(*length, PTIER_TOPIC_BYTES, 1 << 20);
    uint8_t *message = malloc(*length);
    assert_non_null(message);
    assert_int_equal(recv(fd, message, *length, MSG_WAITALL), *length);
    Proxytier__V1__EventBatch *batch = proxytier__v1__event_batch__unpack(
        NULL, *length - PTIER_TOPIC_BYTES, message + PTIER_TOPIC_BYTES);
    assert_non_null(batch);
    const char *topic = batch->stream == PROXYTIER__V1__STREAM__STREAM_CHANGES ? PTIER_TOPIC_CHANGES
                                                                               : PTIER_TOPIC_TIERS;
    assert_memory_equal(message, topic, PTIER_TOPIC_BYTES);
    free(message);
    return batch;
}

static uint64_t
last_of(const Proxytier__V1__EventBatch *batch)
{
    for (size_t i = 0; i < batch->heartbeat->n_streams; i++)
        if (batch->heartbeat->streams[i]->stream == batch->stream)
            return batch->heartbeat->streams[i]->last_sequence;
    fail();
    return 0;
}

static void
put_labelled(ptier_client *client, unsigned first, unsigned count, size_t label_bytes)
{
    char urls[1000][64], value[PTIER_LABEL_VALUE_MAX + 1] = {0};
    ptier_record records[1000];
    ptier_label label = {"padding", value};
    assert_true(count <= 1000 && label_bytes <= PTIER_LABEL_VALUE_MAX);
    memset(value, 'v', label_bytes);
    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(urls[i], sizeof urls[i], "http://10.1.%u.%u:80", (first + i) >> 8,
                       (first + i) & 255);
        ptier_record_init(&records[i]);
        records[i].url = urls[i];
        records[i].labels = &label;
        records[i].label_count = 1;
    }
    assert_int_equal(ptier_put_many(client, records, count, NULL, NULL, NULL), PTIER_OK);
}

static void
batches_keep_their_bounds_and_carry_heartbeats(void **state)
{
    (void)state;
    const char *const arguments[] = {"--default-ttl", "0", NULL};
    size_t length, largest = 0, most = 0;
    uint64_t last = 0, revision = 0;
    test_daemon daemon;
    test_daemon_init(&daemon);
    test_daemon_start(&daemon, arguments);
    ptier_client *client = test_client_open(&daemon, 30000);
    int fd = connect_subscriber(&daemon);
    /* Of every length, so that some batch is full to the byte. */
    for (unsigned i = 0; i < 12; i++)
        put_labelled(client, 1000 * i, 1000, 1 + 21 * i);
    while (last < 12000) {
        Proxytier__V1__EventBatch *batch = read_batch(fd, &length);
        largest = length > largest ? length : largest;
        most = batch->n_events > most ? batch->n_events : most;
        assert_non_null(batch->heartbeat);
        assert_int_equal(batch->heartbeat->boot_id.len, 16);
        assert_int_equal(batch->heartbeat->store_id.len, 16);
        assert_true(batch->heartbeat->boottime_ms > 0);
        if (batch->stream == PROXYTIER__V1__STREAM__STREAM_CHANGES && batch->n_events > 0) {
            for (size_t k = 0; k < batch->n_events; k++)
                assert_int_equal(batch->events[k]->sequence, ++last);
            assert_int_equal(last_of(batch), last);
            revision = batch->events[batch->n_events - 1]->revision;
        }
        proxytier__v1__event_batch__free_unpacked(batch, NULL);
    }
    assert_true(largest > BATCH_BYTES / 2); /* it was tried */
    assert_in_range(largest, 1, BATCH_BYTES);
    assert_in_range(most, 1, BATCH_EVENTS);
    for (size_t beats[3] = {0}; beats[1] < 3 || beats[2] < 3;) { /* nothing happens any more */
        Proxytier__V1__EventBatch *batch = read_batch(fd, &length);
        if (batch->stream == PROXYTIER__V1__STREAM__STREAM_CHANGES) {
            assert_int_equal(batch->n_events, 0);
            assert_int_equal(last_of(batch), last);
            assert_int_equal(batch->heartbeat->revision, revision);
        }
        beats[batch->stream]++;
        proxytier__v1__event_batch__free_unpacked(batch, NULL);
    }
    close(fd);
    ptier_client_close(client);
    assert_int_equal(test_daemon_end(&daemon, SIGTERM), 0);
    test_daemon_fini(&daemon);
}

typedef struct tier_counts {
    atomic_size_t connected, events, promoted;
} tier_counts;

static void
on_tier_event(void *context, const ptier_event *event)
{
    tier_counts *counts = context;
    counts->events++;
    if (event->type == PTIER_EVENT_PROMOTED)
        counts->promoted += event->count;
}

static void
on_state(void *context, ptier_subscription_state state)
{
    tier_counts *counts = context;
    counts->connected += state == PTIER_SUBSCRIPTION_CONNECTED;
}

static void
wait_for(const atomic_size_t *counter, size_t value)
{
    for (int waited = 0; waited < PATIENCE_MS && atomic_load(counter) < value; waited += 2) {
        const struct timespec pause = {.tv_nsec = 2000000};
        nanosleep(&pause, NULL);
    }
    if (atomic_load(counter) < value)
        fail_msg("%zu of %zu came", atomic_load(counter), value);
}

static void
promotions_beyond_the_rate_are_told_as_a_count(void **state)
{
    (void)state;
    enum { RECORDS = 2000, ROUNDS = 4 };
    const char *const arguments[] = {"--l1-entries", "10", "--default-ttl", "0", NULL};
    tier_counts counts = {0};
    ptier_subscription_options options;
    ptier_subscription *subscription;
    size_t promotions = 0;
    test_daemon daemon;
    test_daemon_init(&daemon);
    test_daemon_start(&daemon, arguments);
    ptier_client *client = test_client_open(&daemon, 30000);
    test_put_range(client, 0, RECORDS, "test");
    ptier_subscription_options_init(&options);
    options.changes = false;
    options.tiers = true;
    options.types = 1u << PTIER_EVENT_PROMOTED;
    options.on_event = on_tier_event;
    options.on_state = on_state;
    options.context = &counts;
    assert_int_equal(ptier_subscribe(client, &options, &subscription, NULL), PTIER_OK);
    wait_for(&counts.connected, 1);
    for (unsigned i = 0; i < RECORDS * ROUNDS; i++) {
        char key[24];
        ptier_records found;
        test_key(i % RECORDS, key);
        assert_int_equal(ptier_get(client, key, &found, NULL), PTIER_OK);
        promotions += found.tier != PTIER_TIER_L1;
        ptier_records_free(&found);
    }
    wait_for(&counts.promoted, promotions);
    ptier_subscription_close(subscription);
    assert_int_equal(counts.promoted, promotions);
    assert_true(counts.events < promotions);
    ptier_client_close(client);
    assert_int_equal(test_daemon_end(&daemon, SIGTERM), 0);
    test_daemon_fini(&daemon);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_keep_their_bounds_and_carry_heartbeats),
        cmocka_unit_test(promotions_beyond_the_rate_are_told_as_a_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
