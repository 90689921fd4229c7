/*
 * proxytierd: the table of contents. Exit codes: 0 ended as asked, 1 could not start, or not write
 * everything at the end, 2 usage.
 */
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "call.h"
#include "config.h"
#include "daemon.h"
#include "log.h"
#include "nng_workaround.h"
#include "warm.h"

#define EXIT_USAGE 2

#define LOOK_MS 500 /* how often files are looked at that may have changed */

/* What ends the daemon: a signal, or a Shutdown call by way of an eventfd. */
typedef struct stop_request {
    int signals;
    int asked;
    bool ended, reload;
    ptier_daemon *daemon; /* to be tended meanwhile; NULL: not yet */
    int64_t tended_ms;
} stop_request;

static int
complain(const ptier_error *error, int code)
{
    (void)fprintf(stderr, "proxytierd: %s\n", error->message);
    return code;
}

static int
exit_code(ptier_status status)
{
    return status == PTIER_INVALID_ARGUMENT ? EXIT_USAGE : EXIT_FAILURE;
}

/* Before any thread exists: all of them inherit the mask, so that signals are only ever read here.
 */
static ptier_status
stop_request_init(stop_request *stop, ptier_error *error)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* cannot fail for these signals */
    (void)signal(SIGXFSZ, SIG_IGN); /* a write beyond `ulimit -f` fails like one to a full disk */
    stop->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    stop->asked = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop->signals < 0 || stop->asked < 0)
        return ptier_fail(error, PTIER_UNAVAILABLE, "cannot watch signals: %s", strerror(errno));
    return PTIER_OK;
}

static void
on_shutdown_call(void *context)
{
    const stop_request *stop = context;
    uint64_t one = 1;
    ssize_t written = write(stop->asked, &one, sizeof one);
    (void)written; /* fails only when it is set already */
}

/* SIGHUP asks to read the token file anew: it is noted, and never ends anything. */
static bool
stop_requested(stop_request *stop, int wait_ms)
{
    struct pollfd fds[2] = {{.fd = stop->signals, .events = POLLIN},
                            {.fd = stop->asked, .events = POLLIN}};
    struct signalfd_siginfo signal;
    if (stop->ended || poll(fds, 2, wait_ms) <= 0)
        return stop->ended;
    stop->ended = fds[1].revents != 0;
    while (read(stop->signals, &signal, sizeof signal) == (ssize_t)sizeof signal)
        if (signal.ssi_signo == SIGHUP)
            stop->reload = true;
        else
            stop->ended = true;
    return stop->ended;
}

static void
tend(stop_request *stop)
{
    int64_t now = ptier_monotonic_ms();
    if (now - stop->tended_ms < LOOK_MS / 2 && !stop->reload)
        return;
    ptier_daemon_tend(stop->daemon, stop->reload);
    stop->reload = false;
    stop->tended_ms = now;
}

static bool
stop_warming(void *context)
{
    stop_request *stop = context;
    bool stopping = stop_requested(stop, 0);
    tend(stop);
    return stopping;
}

static void
on_accept(void *context, int fd)
{
    ptier_daemon *const *daemon = context;
    if (*daemon)
        ptier_daemon_accepted(*daemon, fd);
}

/* One descriptor a connection: take what the system allows. */
static void
raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* fewer connections are possible otherwise */
}

/* Large messages go back to the system when they are freed: otherwise glibc learns from the first
 * ones to keep such pieces, in the heap of every thread that ever received one. */
static void
return_large_messages(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 1024 * 1024); /* if not, only memory is wasted */
}

/*
 * Credentials and keys are all over the heap, the crypto library's included, so that a core file is
 * kept from holding them by not being written. Neither a limit of size (a piped core ignores it)
 * nor marked pages would do. /proc/PID then belongs to root: other processes of the user cannot
 * read this one's memory either.
 */
static void
allow_core_dumps(bool allowed)
{
    (void)prctl(PR_SET_DUMPABLE, allowed ? 1 : 0); /* cannot fail for these */
}

static void
warm_all(ptier_daemon *daemon, const ptier_config *config, ptier_log *log, stop_request *stop)
{
    for (size_t i = 0; i < config->warm.count; i++) {
        ptier_error error;
        ptier_status status = ptier_warm_file(ptier_daemon_cache(daemon), config->warm.items[i],
                                              log, stop_warming, stop, &error);
        if (status != PTIER_OK)
            ptier_log_write(log, PTIER_LOG_WARN, "warm_failed", "%s", error.message);
    }
}

static ptier_status
stop_daemon(ptier_daemon *daemon, ptier_log *log, ptier_error *error)
{
    ptier_log_write(log, PTIER_LOG_INFO, "stopping",
                    "refusing new calls, finishing those that run");
    ptier_status status = ptier_daemon_stop(daemon);
    if (status == PTIER_OK)
        ptier_log_write(log, PTIER_LOG_INFO, "stopped", "all written and closed");
    else
        ptier_log_write(log, PTIER_LOG_ERROR, "stopped",
                        "closed, but not everything could be written: see above");
    return status == PTIER_OK
               ? status
               : ptier_fail(error, status, "not everything could be written: the log says more");
}

/* All addresses of a list, for the log. */
static char *
addresses(const ptier_text_list *list)
{
    size_t room = 1;
    for (size_t i = 0; i < list->count; i++)
        room += strlen(list->items[i]) + 1;
    char *text = calloc(1, room);
    for (size_t i = 0; text && i < list->count; i++) {
        if (i)
            strcat(text, " ");
        strcat(text, list->items[i]);
    }
    return text;
}

static void
say_serving(const ptier_config *config, ptier_log *log)
{
    char *calls = addresses(&config->listen), *events = addresses(&config->events);
    ptier_log_write(log, PTIER_LOG_INFO, "serving",
                    "proxytierd " PTIER_VERSION " on %s, data in %s, events %s",
                    calls ? calls : config->listen.items[0],
                    config->l2_enabled || config->l3_enabled ? config->data_dir : "memory only",
                    events && *events ? events : "none");
    free(calls);
    free(events);
}

static ptier_status
serve(ptier_config *config, ptier_log *log, ptier_error *error)
{
    stop_request stop = {.signals = -1, .asked = -1};
    ptier_daemon *daemon = NULL;
    ptier_status status = stop_request_init(&stop, error);
    if (status == PTIER_OK)
        status = ptier_nng_workaround_check(error);
    ptier_nng_workaround_watch_accepts(on_accept, &daemon); /* from the very first one on */
    if (status == PTIER_OK)
        status = ptier_daemon_start(config, log, on_shutdown_call, &stop, &daemon, error);
    ptier_config_forget_keys(config); /* the cache has its own */
    if (status == PTIER_OK) {
        say_serving(config, log);
        stop.daemon = daemon;
        warm_all(daemon, config, log, &stop);
        while (!stop_requested(&stop, LOOK_MS))
            tend(&stop);
        status = stop_daemon(daemon, log, error);
    }
    ptier_nng_workaround_watch_accepts(NULL, NULL);
    if (stop.signals >= 0)
        (void)close(stop.signals); /* nothing is written through these */
    if (stop.asked >= 0)
        (void)close(stop.asked);
    return status;
}

int
main(int argc, char **argv)
{
    ptier_config *config = NULL;
    ptier_log *log = NULL;
    ptier_error error;
    bool done = false;

    allow_core_dumps(false); /* before any key is read */
    return_large_messages();
    ptier_status status = ptier_config_load(argc, (const char **)argv, &config, &done, &error);
    if (status != PTIER_OK)
        return complain(&error, exit_code(status));
    if (done)
        return EXIT_SUCCESS;
    allow_core_dumps(config->core_dumps);
    status = ptier_log_open(config->log_file, config->log_level, &log, &error);
    if (status == PTIER_OK) {
        ptier_config_tell_strays(log);
        raise_descriptor_limit();
        status = serve(config, log, &error);
    }
    ptier_log_close(log);
    ptier_config_destroy(config);
    return status == PTIER_OK ? EXIT_SUCCESS : complain(&error, exit_code(status));
}
