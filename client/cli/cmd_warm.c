/*
 * proxytier warm and restore: load proxy lists, exports and backups. The main thread reads and
 * copies, the sender's thread sends and notes what was acknowledged, so that reading and sending
 * overlap.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <proxytier/import.h>

#include "warm_progress.h"
#include "warm_sender.h"
#include "warm_summary.h"

struct warm_options {
    const char *scheme, *source, *ack;
    int64_t ttl_ms; /* PTIER_TTL_DEFAULT: as the records say */
    int format, durability;
    bool restore; /* entries of exports and backups, and nothing else */
};

struct warm {
    ptier_cli *cli;
    struct warm_options options;
    ptier_warm_sender sender;
    ptier_warm_progress progress;
    ptier_warm_batch *batch; /* being filled; NULL: none taken */
    ptier_import_inputs inputs;
    const char *file;             /* one of them */
    ptier_import_summary summary; /* of it, so far */
    uint64_t found;               /* records in it, so far */
    bool no_memory;
    uint64_t foreign;         /* to be restored, but no entries */
    int ack_fd;               /* -1: none; sender's thread */
    char *ack_text;           /* keys of one batch; sender's thread */
    int ack_errno;            /* sender's thread, then whoever joined it */
    ptier_durability reached; /* by all that was stored; as ack_errno */
};

/* ---- acknowledgements: on the sender's thread ---- */

static bool
write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, text, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        text += n;
        length -= (size_t)n;
    }
    return true;
}

/* --ack promises the durability that was asked for. */
static bool
is_durable(const struct warm *warm, const ptier_put_results *results)
{
    return results->durability >= (ptier_durability)warm->options.durability;
}

static bool
is_stored(const ptier_put_item_result *item)
{
    return item->outcome == PTIER_PUT_CREATED || item->outcome == PTIER_PUT_UPDATED;
}

/* Notes the keys of one batch, one a line, by one write where the system takes it. */
static bool
write_acks(struct warm *warm, const ptier_put_results *results)
{
    size_t used = 0;

    if (warm->ack_fd < 0 || !is_durable(warm, results))
        return true;
    for (size_t i = 0; i < results->count; i++) {
        if (!is_stored(&results->items[i]))
            continue;
        size_t length = strlen(results->items[i].key);
        if (length > PTIER_KEY_MAX)
            continue; /* no key of ours */
        memcpy(warm->ack_text + used, results->items[i].key, length);
        warm->ack_text[used + length] = '\n';
        used += length + 1;
    }
    if (write_all(warm->ack_fd, warm->ack_text, used))
        return true;
    warm->ack_errno = errno;
    return false;
}

static bool
on_sent(void *context, const ptier_warm_batch *batch, const ptier_put_results *results)
{
    struct warm *warm = context;
    uint64_t created = 0, updated = 0;

    bool go_on = write_acks(warm, results);
    for (size_t i = 0; i < results->count && i < batch->count; i++) {
        const ptier_put_item_result *item = &results->items[i];
        const char *reason = item->message && *item->message ? item->message : "rejected";

        switch (item->outcome) {
        case PTIER_PUT_CREATED:
            created++;
            break;
        case PTIER_PUT_UPDATED:
            updated++;
            break;
        case PTIER_PUT_SKIPPED_QUARANTINED:
            ptier_warm_progress_skip(&warm->progress, batch->file, batch->places[i],
                                     "removed for its failures a short while ago", false);
            break;
        case PTIER_PUT_SKIPPED_OLDER:
            ptier_warm_progress_skip(&warm->progress, batch->file, batch->places[i],
                                     "older than what is cached", false);
            break;
        case PTIER_PUT_SKIPPED_EXPIRED:
            ptier_warm_progress_skip(&warm->progress, batch->file, batch->places[i], "expired",
                                     false);
            break;
        case PTIER_PUT_REJECTED:
            ptier_warm_progress_skip(&warm->progress, batch->file, batch->places[i], reason, true);
            break;
        }
    }
    if (created + updated > 0 && results->durability < warm->reached)
        warm->reached = results->durability;
    ptier_warm_progress_stored(&warm->progress, created, updated);
    return go_on;
}

/* ---- reading: on the main thread ---- */

static void
submit(struct warm *warm)
{
    if (warm->batch)
        ptier_warm_sender_submit(&warm->sender, warm->batch);
    warm->batch = NULL;
}

/* Of the record that was found next. JSON is often one line with many of them. */
static ptier_warm_place
next_place(struct warm *warm, uint64_t line)
{
    bool numbered = warm->summary.format == PTIER_IMPORT_JSON;

    warm->found++;
    ptier_warm_progress_read(&warm->progress);
    return (ptier_warm_place){.line = line, .record = numbered ? warm->found : 0};
}

static void
on_skip(void *context, uint64_t line, const char *reason)
{
    struct warm *warm = context;

    ptier_warm_progress_skip(&warm->progress, warm->file, next_place(warm, line), reason, false);
}

static bool
on_record(void *context, const ptier_import_record *found)
{
    struct warm *warm = context;
    ptier_record record = found->record;
    bool restore = found->restore;

    if (warm->options.restore && !restore) {
        on_skip(warm, found->line, "no entry of an export or a backup");
        warm->foreign++;
        return true;
    }
    if (warm->options.ttl_ms != PTIER_TTL_DEFAULT) {
        record.ttl_ms = warm->options.ttl_ms;
        restore = false; /* a stated TTL counts from now, not from the export's expiry */
    }
    if (warm->batch && !ptier_warm_batch_takes(warm->batch, warm->file, restore))
        submit(warm);
    if (!warm->batch)
        warm->batch = ptier_warm_sender_take(&warm->sender);
    if (!warm->batch)
        return false; /* sending has stopped; finish says why */
    if (!ptier_warm_batch_add(warm->batch, warm->file, &record, restore,
                              next_place(warm, found->line))) {
        warm->no_memory = true;
        return false;
    }
    return true;
}

static void
on_progress(void *context, uint64_t bytes_read, uint64_t bytes_total)
{
    struct warm *warm = context;
    ptier_warm_progress_bytes(&warm->progress, bytes_read, bytes_total);
}

/* What goes wrong with one file is told and sets *code. False: the next ones are not to be read. */
static bool
read_file(struct warm *warm, const char *path, ptier_cli_exit *code)
{
    ptier_import_options options;
    ptier_error error = {0};

    ptier_import_options_init(&options);
    options.format = (ptier_import_format)warm->options.format;
    options.scheme = warm->options.scheme;
    options.source = warm->options.source;
    options.on_record = on_record;
    options.on_skip = on_skip;
    options.on_progress = on_progress;
    options.context = warm;
    warm->file = path;
    warm->found = 0;
    ptier_warm_progress_file(&warm->progress, path);
    ptier_status status = ptier_import_file(path, &options, &warm->summary, &error);
    submit(warm);
    if (status == PTIER_OK)
        return true;
    ptier_warm_progress_erase(&warm->progress);
    if (warm->no_memory)
        *code = ptier_cli_fail(warm->cli, PTIER_CLI_FAILED, "out of memory");
    else if (status != PTIER_CANCELLED)
        *code = ptier_cli_fail(warm->cli, PTIER_CLI_FAILED, "%s", error.message);
    return !warm->no_memory && status != PTIER_CANCELLED; /* CANCELLED: sending has stopped */
}

/* ---- commands ---- */

#define ACK_OPTION(o)                                                                              \
    {                                                                                              \
        "ack", 0, PTIER_CLI_FILE, &(o)->ack, "FILE",                                               \
            "append each key to FILE, a line each, as soon as the daemon has acknowledged it",     \
            NULL                                                                                   \
    }

static bool
parse_options(ptier_cli *cli, struct warm_options *o, ptier_cli_exit *code)
{
    const ptier_cli_option options[] = {
        {"scheme", 0, PTIER_CLI_NAME, &o->scheme, "WORD",
         "for records without one (default: a heading, the file's name, then http)",
         ptier_cli_schemes},
        {"source", 's', PTIER_CLI_SOURCE, &o->source, "NAME", "for records that state none", NULL},
        {"ttl", 't', PTIER_CLI_TTL, &o->ttl_ms, "DURATION",
         "time to live of all records, from now; 0 never expires", NULL},
        {"format", 'f', PTIER_CLI_WORD, &o->format, "WORD",
         "auto, text, csv, json or jsonl (default: auto)", ptier_cli_formats},
        ACK_OPTION(o),
        PTIER_CLI_DURABILITY_OPTION(&o->durability),
        {NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL},
    };
    return ptier_cli_parse(cli, options, 1, SIZE_MAX, code);
}

static bool
is_readable(const char *path)
{
    return strcmp(path, "-") == 0 || access(path, R_OK) == 0;
}

/* When no file can be read, no daemon is needed to say so. */
static ptier_cli_exit
check_files(const ptier_cli *cli)
{
    for (size_t i = 0; i < cli->argument_count; i++)
        if (is_readable(cli->arguments[i]))
            return PTIER_CLI_OK; /* reading tells the others */
    for (size_t i = 0; i < cli->argument_count; i++)
        if (!is_readable(cli->arguments[i]))
            (void)ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot read %s: %s", cli->arguments[i],
                                 strerror(errno)); /* the same code for all */
    return PTIER_CLI_FAILED;
}

static ptier_cli_exit
open_ack(struct warm *warm)
{
    if (!warm->options.ack)
        return PTIER_CLI_OK;
    warm->ack_text = malloc((size_t)PTIER_WARM_BATCH * (PTIER_KEY_MAX + 1));
    if (!warm->ack_text)
        return ptier_cli_fail(warm->cli, PTIER_CLI_FAILED, "out of memory");
    warm->ack_fd = open(warm->options.ack, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (warm->ack_fd < 0)
        return ptier_cli_fail(warm->cli, PTIER_CLI_FAILED, "--ack: cannot open %s: %s",
                              warm->options.ack, strerror(errno));
    return PTIER_CLI_OK;
}

/* Less than was asked for is a failure; memory only, where nothing was asked for, is told. */
static ptier_cli_exit
check_reached(const struct warm *warm, ptier_cli_exit code)
{
    ptier_durability asked = (ptier_durability)warm->options.durability;

    if (warm->reached < asked)
        return ptier_cli_not_durable(warm->cli, "stored", asked, warm->reached);
    return asked == PTIER_DURABILITY_DEFAULT ? ptier_cli_memory_only(warm->cli, warm->reached, code)
                                             : code;
}

/* What the daemon did not take is a failure; `code` is what went wrong before. */
static ptier_cli_exit
finish(struct warm *warm, ptier_cli_exit code)
{
    const ptier_warm_tally *tally = &warm->progress.tally;
    ptier_error error = {0};

    ptier_status status = ptier_warm_sender_finish(&warm->sender, &error);
    ptier_warm_progress_erase(&warm->progress);
    if (status != PTIER_OK)
        code = ptier_cli_status(warm->cli, status, &error);
    if (warm->ack_errno)
        code = ptier_cli_fail(warm->cli, PTIER_CLI_FAILED, "--ack: cannot write %s: %s",
                              warm->options.ack, strerror(warm->ack_errno));
    if (tally->rejected > 0) {
        ptier_cli_exit rejected = ptier_cli_fail(
            warm->cli, PTIER_CLI_FAILED, "the daemon rejected %" PRIu64 " of %" PRIu64 " records",
            tally->rejected, tally->read);
        code = code == PTIER_CLI_OK ? rejected : code;
    }
    if (warm->foreign > 0)
        code = ptier_cli_fail(warm->cli, PTIER_CLI_FAILED,
                              "%" PRIu64 " of %" PRIu64 " records are no entries of an export or a "
                              "backup: load them with `proxytier warm`",
                              warm->foreign, tally->read);
    return check_reached(warm, code);
}

/* Reads all files, sends all records, prints the summary. */
static ptier_cli_exit
transfer(struct warm *warm)
{
    ptier_cli *cli = warm->cli;
    ptier_warm_sender_options sender = {.client = cli->client,
                                        .durability = (ptier_durability)warm->options.durability,
                                        .on_sent = on_sent,
                                        .context = warm};
    ptier_cli_exit code = PTIER_CLI_OK;

    if (!ptier_warm_sender_start(&warm->sender, &sender))
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot start a thread");
    for (size_t i = 0; i < warm->inputs.count; i++)
        if (!read_file(warm, warm->inputs.paths[i], &code))
            break;
    code = finish(warm, code);
    if (code == PTIER_CLI_OK || warm->progress.tally.read > 0)
        ptier_warm_summary(cli, &warm->progress);
    return code;
}

/* Directories become the files in them. What is wrong with one argument is told, and sets *code. */
static void
find_inputs(struct warm *warm, ptier_cli_exit *code)
{
    ptier_error error = {0};

    for (size_t i = 0; i < warm->cli->argument_count; i++)
        if (ptier_import_inputs_add(&warm->inputs, warm->cli->arguments[i], &error) != PTIER_OK)
            *code = ptier_cli_fail(warm->cli, PTIER_CLI_FAILED, "%s", error.message);
}

static ptier_cli_exit
load(ptier_cli *cli, const struct warm_options *options)
{
    struct warm *warm = calloc(1, sizeof *warm);
    ptier_cli_exit found = PTIER_CLI_OK;

    if (!warm)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
    warm->cli = cli;
    warm->options = *options;
    warm->ack_fd = -1;
    warm->reached = PTIER_DURABILITY_SYNCED;
    ptier_cli_exit code = open_ack(warm);
    if (code == PTIER_CLI_OK) {
        ptier_warm_progress_init(&warm->progress);
        find_inputs(warm, &found);
        if (found == PTIER_CLI_OK || warm->inputs.count > 0)
            code = transfer(warm);
        code = code == PTIER_CLI_OK ? found : code;
        ptier_warm_progress_fini(&warm->progress);
    }
    if (warm->ack_fd >= 0 && close(warm->ack_fd) != 0 && code == PTIER_CLI_OK)
        code = ptier_cli_fail(cli, PTIER_CLI_FAILED, "--ack: cannot write %s: %s", options->ack,
                              strerror(errno));
    ptier_import_inputs_free(&warm->inputs);
    free(warm->ack_text);
    free(warm);
    return code;
}

static ptier_cli_exit
connect_and_load(ptier_cli *cli, const struct warm_options *options)
{
    ptier_server_info info;
    ptier_error error = {0};

    ptier_cli_exit code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    ptier_status status =
        ptier_get_info(cli->client, &info, &error); /* before reading for nothing */
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    return load(cli, options);
}

ptier_cli_exit
ptier_cmd_warm(ptier_cli *cli)
{
    struct warm_options options = {.ttl_ms = PTIER_TTL_DEFAULT};
    ptier_cli_exit code;

    if (!parse_options(cli, &options, &code))
        return code;
    code = check_files(cli);
    return code == PTIER_CLI_OK ? connect_and_load(cli, &options) : code;
}

/*
 * Entries are restored as the file has them, and the check that every record has at rest can only
 * be verified by the daemon that made it: whoever can write to the file could send the password of
 * one proxy to the address of another.
 */
static ptier_cli_exit
check_owner(const ptier_cli *cli, const char *path)
{
    struct stat about;

    if (strcmp(path, "-") == 0 || stat(path, &about) != 0)
        return PTIER_CLI_OK; /* reading tells why it cannot be read */
    uid_t user = geteuid();
    if (about.st_uid != user && about.st_uid != 0 && user != 0)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED,
                              "%s belongs to another user, who could have altered it: copy it if "
                              "you trust what is in it",
                              path);
    if (about.st_mode & (S_IWGRP | S_IWOTH))
        return ptier_cli_fail(cli, PTIER_CLI_FAILED,
                              "others may write to %s and could have altered it: chmod go-w it if "
                              "you trust what is in it",
                              path);
    return PTIER_CLI_OK;
}

ptier_cli_exit
ptier_cmd_restore(ptier_cli *cli)
{
    struct warm_options o = {.ttl_ms = PTIER_TTL_DEFAULT, .restore = true};
    const ptier_cli_option options[] = {
        ACK_OPTION(&o),
        PTIER_CLI_DURABILITY_OPTION(&o.durability),
        {NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL},
    };
    ptier_cli_exit code;

    if (!ptier_cli_parse(cli, options, 1, SIZE_MAX, &code))
        return code;
    code = check_files(cli);
    for (size_t i = 0; code == PTIER_CLI_OK && i < cli->argument_count; i++)
        code = check_owner(cli, cli->arguments[i]);
    return code == PTIER_CLI_OK ? connect_and_load(cli, &o) : code;
}
