/*
 * Thousands of rude clients on every address of a daemon. Meanwhile a good client calls and a
 * subscriber listens: no error, no lost event. Afterwards memory and descriptors are where they
 * were. PTIER_STORM=N: rounds of each kind (300; in the long form 3,000).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <proxytier/client.h>

#include "support/process_use.h"
#include "support/security_box.h"
#include "support/settings.h"
#include "support/storm.h"

#define PATIENCE_MS 30000
#define ROUNDS      (PTIER_TEST_SANITIZED ? 60 : 300)
#define WARM_UP     (PTIER_TEST_SANITIZED ? 100 : 1000)
#define TLS_SHARE   50 /* a TLS handshake costs both sides ten milliseconds */
#define SLACK_KB                                                                                   \
    (48 * 1024) /* heaps of nng's threads go up and down; 20,000 leaked pipes are 80 MiB */

typedef struct company {
    ptier_client *client;
    ptier_subscription *subscription; /* NULL: there are no events by this door */
    pthread_t thread;
    atomic_bool over;
    unsigned puts, failed;
    ptier_error error; /* the first one */
    atomic_uint events, disorder, resyncs;
    atomic_bool connected;
    uint64_t last;
} company;

static void
wait_until(bool (*is_so)(void *), void *context, const char *what)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    for (unsigned waited = 0; !is_so(context); waited += 5) {
        if (waited > PATIENCE_MS)
            fail_msg("waited in vain: %s", what);
        nanosleep(&pause, NULL);
    }
}

static void
on_event(void *context, const ptier_event *event)
{
    company *c = context;
    if (event->sequence != c->last + 1 && c->last != 0)
        atomic_fetch_add(&c->disorder, 1);
    c->last = event->sequence;
    atomic_fetch_add(&c->events, 1);
}

static void
on_state(void *context, ptier_subscription_state state)
{
    company *c = context;
    if (state == PTIER_SUBSCRIPTION_CONNECTED)
        atomic_store(&c->connected, true);
    if (state == PTIER_SUBSCRIPTION_RESYNC)
        atomic_fetch_add(&c->resyncs, 1);
}

static bool
is_connected(void *context)
{
    return atomic_load(&((company *)context)->connected);
}

static void *
keep_calling(void *argument)
{
    company *c = argument;
    const struct timespec pause = {.tv_nsec = 2000000};
    while (!atomic_load(&c->over)) {
        char url[64],
            source[16]; /* few records, each put is a change: what is cached stays small */
        ptier_error error;
        ptier_record record;
        ptier_put_results put = {0};
        ptier_records records = {0};
        ptier_record_init(&record);
        (void)snprintf(url, sizeof url, "http://10.7.0.%u:80", c->puts & 255);
        (void)snprintf(source, sizeof source, "%u", c->puts);
        record.url = url;
        record.source = source;
        ptier_status status = ptier_put(c->client, &record, NULL, &put, &error);
        if (status == PTIER_OK) {
            c->puts++;
            status = ptier_get(c->client, put.items[0].key, &records, &error);
            ptier_records_free(&records);
            ptier_put_results_free(&put);
        }
        if (status != PTIER_OK && c->failed++ == 0)
            c->error = error;
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void
join_company(company *c, const security_box *box, const char *url, bool with_events)
{
    ptier_client_options options;
    ptier_subscription_options listening;
    memset(c, 0, sizeof *c);
    ptier_client_options_init(&options);
    options.url = url;
    options.token = box->tokens[PTIER_ROLE_ROTATOR];
    options.tls_ca_file = security_box_file(box, "ca.pem");
    options.tls_cert_file = security_box_file(box, "client.pem");
    options.tls_key_file = security_box_file(box, "client.key");
    options.tls_server_name = SECURITY_BOX_HOST;
    options.timeout_ms = PATIENCE_MS;
    assert_int_equal(ptier_client_open(&options, &c->client, NULL), PTIER_OK);
    if (with_events) {
        ptier_subscription_options_init(&listening);
        listening.on_event = on_event;
        listening.on_state = on_state;
        listening.context = c;
        assert_int_equal(ptier_subscribe(c->client, &listening, &c->subscription, NULL), PTIER_OK);
        wait_until(is_connected, c, "the subscription");
    }
    assert_int_equal(pthread_create(&c->thread, NULL, keep_calling, c), 0);
}

static bool
has_all_events(void *context)
{
    company *c = context;
    return atomic_load(&c->events) >= c->puts;
}

static void
leave_company(company *c)
{
    atomic_store(&c->over, true);
    pthread_join(c->thread, NULL);
    if (c->failed)
        fail_msg("%u calls of a good client failed, the first one: %s", c->failed,
                 c->error.message);
    assert_true(c->puts > 0);
    if (c->subscription) {
        wait_until(has_all_events, c, "the events of all puts");
        assert_int_equal(atomic_load(&c->events), c->puts);
        assert_int_equal(atomic_load(&c->disorder) + atomic_load(&c->resyncs), 0);
        ptier_subscription_close(c->subscription);
    }
    ptier_client_close(c->client);
}

static void
run_all_kinds(const security_box *box, const char *url, bool events, unsigned rounds)
{
    bool tls = strncmp(url, "tls", 3) == 0;
    for (storm_kind kind = 0; kind < STORM_KINDS; kind++) {
        if (kind == STORM_TLS_ABORT && !tls)
            continue;
        storm_run(url, events, kind, rounds);
    }
    if (!tls)
        return;
    nng_tls_config *config = security_box_tls(box, "ca", "client", SECURITY_BOX_HOST);
    for (storm_kind kind = 0; kind < STORM_TLS_ABORT; kind++)
        storm_run_inside_tls(url, events, config, kind, 1 + rounds / TLS_SHARE);
    nng_tls_config_free(config);
}

typedef struct use_wanted {
    pid_t pid;
    process_use before, now;
} use_wanted;

static void
wait_until_back(use_wanted *use)
{
    const struct timespec pause = {.tv_nsec = 50000000};
    for (unsigned waited = 0; waited < PATIENCE_MS; waited += 50) {
        use->now = process_use_of(use->pid);
        if (use->now.descriptors <= use->before.descriptors &&
            (PTIER_TEST_SANITIZED || use->now.rss_kb <= use->before.rss_kb + SLACK_KB))
            return;
        nanosleep(&pause, NULL);
    }
    fail_msg("descriptors %zu -> %zu, memory %zu -> %zu KiB", use->before.descriptors,
             use->now.descriptors, use->before.rss_kb, use->now.rss_kb);
}

/* The first storm is for what is allocated once, and for the heaps of nng's threads: they grow for
 * a while, and then no more. */
static void
storm(security_box *box, const char *url, bool events, const char *good_url, bool with_events)
{
    company c;
    unsigned rounds = (unsigned)ptier_test_setting("PTIER_STORM", ROUNDS);
    security_box_start(box, true,
                       (const char *[]){"--core-dumps", "on", "--default-ttl", "0",
                                        "--handshake-timeout", "1s", "--journal-events", "256",
                                        NULL});
    join_company(&c, box, good_url, with_events);
    run_all_kinds(box, url, events, WARM_UP);
    leave_company(&c);
    use_wanted use = {.pid = box->daemon.pid, .before = process_use_settled(box->daemon.pid)};
    join_company(&c, box, good_url, with_events);
    run_all_kinds(box, url, events, rounds);
    leave_company(&c);
    assert_true(use.before.descriptors > 0);
    wait_until_back(&use);
    print_message("descriptors %zu -> %zu, memory %zu -> %zu KiB, %u puts meanwhile\n",
                  use.before.descriptors, use.now.descriptors, use.before.rss_kb, use.now.rss_kb,
                  c.puts);
    char *log = test_daemon_log(&box->daemon);
    assert_null(strstr(log, " ERROR "));
    free(log);
    int code = test_daemon_end(&box->daemon, SIGTERM); /* nothing hangs in nng either */
    if (code != 0) {
        log = test_daemon_log(&box->daemon);
        (void)fprintf(stderr, "the daemon ended with %d; its log:\n%s\n", code, log);
        free(log);
        fail();
    }
}

static void
calls_over_ipc_weather_all_storms(void **state)
{
    security_box *box = *state;
    storm(box, box->daemon.url, false, box->daemon.url, true);
}

static void
events_over_ipc_weather_all_storms(void **state)
{
    security_box *box = *state;
    storm(box, box->daemon.events_url, true, box->daemon.url, true);
}

static void
calls_over_tcp_weather_all_storms(void **state)
{
    security_box *box = *state;
    storm(box, box->tcp_url, false, box->tcp_url, false);
}

static void
calls_over_tls_weather_all_storms(void **state)
{
    security_box *box = *state;
    storm(box, box->tls_url, false, box->tls_url, true);
}

static void
events_over_tls_weather_all_storms(void **state)
{
    security_box *box = *state;
    storm(box, box->tls_events_url, true, box->tls_url, true);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, security_box_set_up, security_box_tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calls_over_ipc_weather_all_storms),  TEST(events_over_ipc_weather_all_storms),
        TEST(calls_over_tcp_weather_all_storms),  TEST(calls_over_tls_weather_all_storms),
        TEST(events_over_tls_weather_all_storms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
