/*
 * Writes every event of a proxytier cache to standard output, one line each, until interrupted:
 * what was removed, and why. Restarts of the daemon and gaps are told as such. Arguments: the
 * address of the daemon (or PROXYTIER_URL).
 */
#include <proxytier/client.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

static void
on_signal(int signal)
{
    (void)signal;
    interrupted = 1;
}

static void
print_time(void)
{
    char text[32];
    struct tm parts;
    time_t now = time(NULL);
    if (!gmtime_r(&now, &parts) || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        return;
    printf("%s ", text);
}

/* On the subscription's own thread, one at a time: it may block, as printing to a pipe does. */
static void
on_event(void *context, const ptier_event *event)
{
    (void)context;
    print_time();
    printf("%" PRIu64 " %s", event->revision, ptier_event_type_name(event->type));
    if (event->type == PTIER_EVENT_REMOVED)
        printf(" %s", ptier_reason_name(event->reason));
    if (event->record.key && event->record.key[0])
        printf(" %s", event->record.key);
    if (event->record.url && event->record.url[0])
        printf(" %s", event->record.url);
    if (event->type == PTIER_EVENT_HEALTH)
        printf(" %s failures=%u", ptier_health_name(event->record.health),
               event->record.failure_count);
    putchar('\n');
    fflush(stdout);
}

static void
on_state(void *context, ptier_subscription_state state)
{
    static const char *const texts[] = {
        [PTIER_SUBSCRIPTION_CONNECTED] = "following",
        [PTIER_SUBSCRIPTION_LOST] = "nothing heard from the daemon, trying again",
        [PTIER_SUBSCRIPTION_RESYNC] = "events were missed for good",
    };
    (void)context;
    print_time();
    printf("-- %s\n", texts[state]);
    fflush(stdout);
}

int
main(int argc, char **argv)
{
    if (argc > 2 || (argc == 2 && !strstr(argv[1], "://")))
        return fprintf(stderr, "usage: event_logger [URL-OF-THE-DAEMON]\n"), 2;

    ptier_client_options options;
    ptier_subscription_options wanted;
    ptier_subscription *subscription;
    ptier_client *client;
    ptier_error error;
    struct sigaction action = {.sa_handler = on_signal};

    ptier_client_options_init(&options);
    options.url = argc > 1 ? argv[1] : NULL;
    if (ptier_client_open(&options, &client, &error) != PTIER_OK)
        return fprintf(stderr, "event_logger: %s\n", error.message), 1;
    ptier_subscription_options_init(&wanted);
    wanted.on_event = on_event;
    wanted.on_state = on_state;
    if (ptier_subscribe(client, &wanted, &subscription, &error) != PTIER_OK) {
        fprintf(stderr, "event_logger: %s\n", error.message);
        ptier_client_close(client);
        return 1;
    }
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    while (!interrupted)
        usleep(100000);
    ptier_subscription_close(subscription); /* before its client */
    ptier_client_close(client);
    return 0;
}
