/* proxytier export: all entries as JSON lines, to a file that appears whole or not at all, or to
 * stdout. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <yajl/yajl_gen.h>

struct export
{
    FILE *out;
    uint64_t entries;
    bool catch_signals;
    bool interrupted;
};

/* SIGINT and SIGTERM are blocked while a temporary file exists; they are looked for between pages.
 */
static bool
signal_pending(void)
{
    const struct timespec at_once = {0, 0};
    sigset_t stopping;

    (void)sigemptyset(&stopping); /* these cannot fail: a valid set, valid signals */
    (void)sigaddset(&stopping, SIGINT);
    (void)sigaddset(&stopping, SIGTERM);
    return sigtimedwait(&stopping, NULL, &at_once) > 0;
}

static void
block_signals(sigset_t *before)
{
    sigset_t stopping;

    (void)sigemptyset(&stopping);
    (void)sigaddset(&stopping, SIGINT);
    (void)sigaddset(&stopping, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &stopping, before);
}

static bool
on_page(void *context, const char *jsonl, size_t length, uint32_t entries)
{
    struct export *export = context;

    export->interrupted = export->catch_signals && signal_pending();
    if (export->interrupted || fwrite(jsonl, 1, length, export->out) != length)
        return false;
    export->entries += entries;
    return true;
}

static ptier_cli_exit
fetch(ptier_cli *cli, struct export *export, ptier_tier_id tier, bool plain)
{
    ptier_error error = {0};

    ptier_status status = ptier_export(cli->client, tier, plain, on_page, export, &error);
    if (export->interrupted)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "interrupted; nothing was written");
    if (ferror(export->out) || fflush(export->out) != 0)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot write: %s", strerror(errno));
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    return PTIER_CLI_OK;
}

/* The rename is durable only once its directory is. */
static int
sync_directory_of(const char *path)
{
    char copy[PATH_MAX];

    (void)snprintf(copy, sizeof copy, "%s", path); /* fits: mkstemp's longer name was opened */
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = fsync(fd);
    (void)close(fd); /* only fsynced */
    return result;
}

static ptier_cli_exit
export_to_file(ptier_cli *cli, const char *path, ptier_tier_id tier, bool plain,
               struct export *export)
{
    char temporary[PATH_MAX];
    struct stat existing;
    ptier_cli_exit code;

    /* A rename would put a plain file where a device or a pipe was. */
    if (stat(path, &existing) == 0 && !S_ISREG(existing.st_mode))
        return ptier_cli_fail(cli, PTIER_CLI_FAILED,
                              "%s is no regular file; name another, or - for standard output",
                              path);
    int length = snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "the file's name is too long");
    int fd = mkostemp(temporary, O_CLOEXEC); /* 0600 */
    if (fd < 0)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot create a file beside %s: %s", path,
                              strerror(errno));
    export->out = fdopen(fd, "w");
    if (!export->out) {
        (void)close(fd);
        code = ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
        goto fail;
    }
    code = fetch(cli, export, tier, plain);
    bool synced = code != PTIER_CLI_OK || fsync(fd) == 0;
    int problem = errno;
    if (fclose(export->out) != 0 && synced) {
        synced = false;
        problem = errno;
    }
    if (code == PTIER_CLI_OK && !synced)
        code =
            ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot write %s: %s", path, strerror(problem));
    if (code == PTIER_CLI_OK && rename(temporary, path) != 0)
        code = ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot write %s: %s", path, strerror(errno));
    if (code != PTIER_CLI_OK)
        goto fail;
    if (sync_directory_of(path) != 0)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED,
                              "%s is written, but may not survive a power "
                              "loss: %s",
                              path, strerror(errno));
    return PTIER_CLI_OK;
fail:
    (void)unlink(temporary); /* what is left of a failed export is of no use */
    return code;
}

static void
print_json(const char *path, uint64_t entries)
{
    yajl_gen gen = yajl_gen_alloc(NULL);
    const unsigned char *text;
    size_t length;

    if (!gen)
        return;
    yajl_gen_map_open(gen);
    yajl_gen_string(gen, (const unsigned char *)"entries", 7);
    yajl_gen_integer(gen, (long long)entries);
    yajl_gen_string(gen, (const unsigned char *)"file", 4);
    yajl_gen_string(gen, (const unsigned char *)path, strlen(path));
    yajl_gen_map_close(gen);
    if (yajl_gen_get_buf(gen, &text, &length) == yajl_gen_status_ok)
        printf("%.*s\n", (int)length, (const char *)text);
    yajl_gen_free(gen);
}

ptier_cli_exit
ptier_cmd_export(ptier_cli *cli)
{
    int tier = PTIER_TIER_NONE;
    bool plain = false;
    const ptier_cli_option options[] = {
        {"tier", 0, PTIER_CLI_WORD, &tier, "TIER", "only what is in L1, L2 or L3", ptier_cli_tiers},
        {"plain", 0, PTIER_CLI_FLAG, &plain, NULL,
         "credentials in plain text (default: encrypted with the daemon's key)", NULL},
        {NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL},
    };
    struct export export = {.out = stdout};
    ptier_cli_exit code;
    sigset_t before;

    if (!ptier_cli_parse(cli, options, 0, 1, &code))
        return code;
    const char *path = cli->argument_count > 0 ? cli->arguments[0] : "-";
    bool to_file = strcmp(path, "-") != 0;
    export.catch_signals = to_file;
    if (to_file)
        block_signals(&before); /* before the SDK makes threads: they inherit it */
    code = ptier_cli_connect(cli);
    if (code == PTIER_CLI_OK && to_file)
        code = export_to_file(cli, path, (ptier_tier_id)tier, plain, &export);
    else if (code == PTIER_CLI_OK)
        code = fetch(cli, &export, (ptier_tier_id)tier, plain);
    if (to_file)
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code == PTIER_CLI_OK && to_file && cli->json)
        print_json(path, export.entries);
    else if (code == PTIER_CLI_OK && to_file)
        printf("exported %" PRIu64 " proxies to %s\n", export.entries, path);
    return code;
}
