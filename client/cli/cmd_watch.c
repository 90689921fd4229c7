/*
 * proxytier watch: events as they happen, one a line on stdout; what becomes of the connection on
 * stderr. The SDK calls back on its own thread; the main thread waits for a signal, the end of
 * --for, or the callback's word that it is enough.
 */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "convert.h"
#include "json.h"
#include "proxytier/v1/events.pb-c.h"

struct watch {
    const ptier_cli *cli;
    uint64_t left;      /* events to print; subscription's thread */
    int enough;         /* eventfd: written when `left` came to 0, or stdout failed */
    atomic_bool failed; /* stdout does not take any more */
};

static void
print_json(const ptier_event *event)
{
    Proxytier__V1__Event message = PROXYTIER__V1__EVENT__INIT;
    ptier_proxy_message proxy;

    message.sequence = event->sequence;
    message.type = (Proxytier__V1__EventType)event->type;
    message.revision = event->revision;
    message.reason = (Proxytier__V1__RemovalReason)event->reason;
    message.tier = (Proxytier__V1__Tier)event->tier;
    message.count = event->count;
    if (event->record.key && *event->record.key) {
        ptier_proxy_from_record(&proxy, &event->record, false);
        message.key = (char *)event->record.key;
        message.proxy = &proxy.proxy;
    }
    (void)ptier_json_line(stdout, &message.base, true); /* told by ferror */
}

static void
print_text(const ptier_event *event)
{
    const ptier_record *record = &event->record;
    char clock[16] = "";
    struct tm parts;
    time_t now = time(NULL);

    if (localtime_r(&now, &parts))
        (void)strftime(clock, sizeof clock, "%H:%M:%S", &parts); /* fits */
    printf("%s  %-14s", clock, ptier_event_type_name(event->type));
    if (event->type == PTIER_EVENT_REMOVED)
        printf("  %-10s", ptier_reason_name(event->reason));
    else if (event->type == PTIER_EVENT_HEALTH)
        printf("  %-10s", ptier_health_name(record->health));
    else
        printf("  %-10s", event->tier != PTIER_TIER_NONE ? ptier_tier_name(event->tier) : "");
    if (record->key && *record->key) {
        printf("  ");
        ptier_cli_text(stdout, record->key, 16);
    }
    if (record->url && *record->url) {
        printf("  ");
        ptier_cli_text(stdout, record->url, 0);
    }
    if (event->type == PTIER_EVENT_HEALTH && record->failure_count != PTIER_FAILURES_UNSTATED)
        printf("  failures %" PRIu32, record->failure_count);
    if (event->count > 1)
        printf("  (%" PRIu64 " like it)", event->count);
    if (event->revision > 0)
        printf("  r%" PRIu64, event->revision);
    putchar('\n');
}

static void
stop(struct watch *watch)
{
    const uint64_t one = 1;
    (void)!write(watch->enough, &one, sizeof one); /* an eventfd takes it, or is already set */
}

static void
on_event(void *context, const ptier_event *event)
{
    struct watch *watch = context;

    if (watch->left == 0)
        return;
    if (watch->cli->json)
        print_json(event);
    else
        print_text(event);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        atomic_store(&watch->failed, true);
        watch->left = 0;
        stop(watch);
    } else if (--watch->left == 0) {
        stop(watch);
    }
}

static void
on_state(void *context, ptier_subscription_state state)
{
    const char *text = "";

    (void)context;
    switch (state) {
    case PTIER_SUBSCRIPTION_CONNECTED:
        text = "connected";
        break;
    case PTIER_SUBSCRIPTION_LOST:
        text = "lost: nothing heard from the daemon; still trying";
        break;
    case PTIER_SUBSCRIPTION_RESYNC:
        text = "resync: events were missed; list anew what you need";
        break;
    }
    (void)fprintf(stderr, "proxytier watch: %s\n", text); /* stderr: nowhere left to complain */
}

static int64_t
now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail on Linux */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until a signal, the deadline (-1: none), or `enough`. */
static void
wait_for_end(const struct watch *watch, int signals, int64_t for_ms)
{
    struct pollfd fds[] = {{.fd = signals, .events = POLLIN},
                           {.fd = watch->enough, .events = POLLIN}};
    int64_t deadline = for_ms >= 0 ? now_ms() + for_ms : -1;

    for (;;) {
        int64_t left = deadline < 0 ? -1 : deadline - now_ms();
        if (deadline >= 0 && left <= 0)
            return;
        int step = left < 0 || left > 3600000 ? 3600000 : (int)left;
        int ready = poll(fds, 2, step);
        if (ready > 0 || (ready < 0 && errno != EINTR))
            return;
    }
}

static ptier_cli_exit
follow(ptier_cli *cli, const ptier_subscription_options *options, struct watch *watch, int signals,
       int64_t for_ms)
{
    ptier_subscription *subscription = NULL;
    ptier_error error = {0};

    ptier_status status = ptier_subscribe(cli->client, options, &subscription, &error);
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    wait_for_end(watch, signals, for_ms);
    ptier_subscription_close(subscription);
    return atomic_load(&watch->failed) ? PTIER_CLI_FAILED : PTIER_CLI_OK;
}

static ptier_cli_exit
no_events(const ptier_cli *cli)
{
    char url[PTIER_URL_MAX + 1];
    const char *advice = "start the daemon with --events ipc:///PATH";

    if (cli->url && *cli->url)
        (void)snprintf(url, sizeof url, "%s", cli->url); /* fits: the client was opened with it */
    else
        (void)ptier_default_url(url, sizeof url);
    if (strncmp(url, "tls+", 4) == 0)
        advice = "start the daemon with --tls-ca and --events tls+tcp://HOST:PORT";
    else if (strncmp(url, "tcp:", 4) == 0)
        advice = "use an address of the daemon that begins with ipc or tls+tcp";
    return ptier_cli_fail(cli, PTIER_CLI_PERMISSION, "no events are offered at this address: %s",
                          advice);
}

/* The daemon must be there at the start; later it may come and go. */
static ptier_cli_exit
check_daemon(ptier_cli *cli)
{
    ptier_server_info info;
    ptier_error error = {0};

    ptier_status status = ptier_get_info(cli->client, &info, &error);
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    if (!*info.event_url)
        return no_events(cli);
    return PTIER_CLI_OK;
}

/* --reason asks for removals, and for nothing else. */
static bool
check_filters(const ptier_cli *cli, ptier_subscription_options *subscription, ptier_cli_exit *code)
{
    if (subscription->reasons != 0 && subscription->tiers)
        *code = ptier_cli_usage(cli, "--reason is about removals: it goes without --tiers");
    else if (subscription->key_prefix && strlen(subscription->key_prefix) > PTIER_KEY_MAX)
        *code = ptier_cli_usage(cli, "--key-prefix takes up to %d bytes", PTIER_KEY_MAX);
    if (subscription->reasons != 0)
        subscription->types = UINT32_C(1) << PTIER_EVENT_REMOVED;
    return *code == PTIER_CLI_OK;
}

ptier_cli_exit
ptier_cmd_watch(ptier_cli *cli)
{
    struct watch watch = {.cli = cli, .left = UINT64_MAX, .enough = -1};
    ptier_subscription_options subscription;
    int64_t for_ms = -1;
    const ptier_cli_option options[] = {
        {"tiers", 0, PTIER_CLI_FLAG, &subscription.tiers, NULL,
         "also promotions, tier evictions and tier health", NULL},
        {"reason", 0, PTIER_CLI_WORD_SET, &subscription.reasons, "WORD",
         "only removals for this reason: capacity, ttl, health, corruption or deleted; may be "
         "repeated",
         ptier_cli_reasons},
        {"source", 's', PTIER_CLI_SOURCE, &subscription.source, "NAME", "only of this source",
         NULL},
        {"key-prefix", 0, PTIER_CLI_TEXT, &subscription.key_prefix, "TEXT",
         "only of keys that begin so", NULL},
        {"for", 0, PTIER_CLI_DURATION, &for_ms, "DURATION", "end after that long", NULL},
        {"count", 'n', PTIER_CLI_COUNT, &watch.left, "N", "end after so many events", NULL},
        {NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL},
    };
    ptier_cli_exit code;
    sigset_t ending;

    ptier_subscription_options_init(&subscription);
    subscription.on_event = on_event;
    subscription.on_state = on_state;
    subscription.context = &watch;
    if (!ptier_cli_parse(cli, options, 0, 0, &code) || !check_filters(cli, &subscription, &code))
        return code;
    (void)sigemptyset(&ending); /* these cannot fail: a valid set, valid signals */
    (void)sigaddset(&ending, SIGINT);
    (void)sigaddset(&ending, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &ending,
                          NULL); /* before the SDK makes threads: they inherit it */
    int signals = signalfd(-1, &ending, SFD_CLOEXEC);
    watch.enough = eventfd(0, EFD_CLOEXEC);
    if (signals < 0 || watch.enough < 0)
        code =
            ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot wait for signals: %s", strerror(errno));
    if (code == PTIER_CLI_OK)
        code = ptier_cli_connect(cli);
    if (code == PTIER_CLI_OK)
        code = check_daemon(cli);
    if (code == PTIER_CLI_OK)
        code = follow(cli, &subscription, &watch, signals, for_ms);
    if (signals >= 0)
        (void)close(signals);
    if (watch.enough >= 0)
        (void)close(watch.enough);
    return code;
}
