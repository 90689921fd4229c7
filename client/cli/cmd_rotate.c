/* proxytier rotate-keys: the daemon makes everything at rest anew with its first key. */
#include "cli.h"

#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

#include "json.h"

static volatile sig_atomic_t stopped;

static void
on_signal(int number)
{
    (void)number;
    stopped = 1;
}

/* On a terminal one line that is written over; elsewhere only the end counts. */
static bool
show_progress(void *context, uint64_t done, uint64_t total)
{
    const ptier_cli *cli = context;
    if (!cli->json && isatty(STDERR_FILENO))
        fprintf(stderr, "\r%" PRIu64 " of about %" PRIu64 " records ", done, total);
    return !stopped;
}

static void
end_progress(const ptier_cli *cli)
{
    if (!cli->json && isatty(STDERR_FILENO))
        fprintf(stderr, "\r%60s\r", "");
}

ptier_cli_exit
ptier_cmd_rotate(ptier_cli *cli)
{
    const ptier_cli_option none[] = {{NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL}};
    const struct sigaction on_interrupt = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    ptier_error error = {0};
    uint64_t rewritten = 0;
    ptier_cli_exit code;
    if (!ptier_cli_parse(cli, none, 0, 0, &code))
        return code;
    code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    (void)sigaction(SIGINT, &on_interrupt, NULL); /* valid arguments: cannot fail */
    (void)sigaction(SIGTERM, &on_interrupt, NULL);
    ptier_status status = ptier_rotate_keys(cli->client, show_progress, cli, &rewritten, &error);
    end_progress(cli);
    if (status == PTIER_CANCELLED)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED,
                              "interrupted: what is done stays done, but the previous keys are "
                              "still needed; run it again to finish");
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    if (cli->json)
        printf("{\"rewritten\":%" PRIu64 "}\n", rewritten);
    else
        printf("done: nothing needs the previous keys any more\n");
    return PTIER_CLI_OK;
}
