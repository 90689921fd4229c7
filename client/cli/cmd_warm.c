/*
 * proxytier warm: load proxy lists. The main thread reads and copies, the sender's thread sends and
 * notes what was acknowledged, so that reading and sending overlap.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <proxytier/import.h>
#include <yajl/yajl_gen.h>

#include "warm_progress.h"
#include "warm_sender.h"

struct warm_options {
    const char *scheme, *source, *ack;
    int64_t ttl_ms; /* PTIER_TTL_DEFAULT: as the records say */
    int format, durability;
};

struct warm {
    ptier_cli *cli;
    struct warm_options options;
    ptier_warm_sender sender;
    ptier_warm_progress progress;
    ptier_warm_batch *batch; /* being filled; NULL: none taken */
    const char *file;
    bool no_memory;
    int ack_fd;     /* -1: none; sender's thread */
    char *ack_text; /* keys of one batch; sender's thread */
    int ack_errno;  /* sender's thread, then whoever joined it */
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

    if (warm->ack_fd < 0)
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
            ptier_warm_progress_skip(&warm->progress, batch->file, batch->lines[i],
                                     "removed for its failures a short while ago", false);
            break;
        case PTIER_PUT_SKIPPED_OLDER:
            ptier_warm_progress_skip(&warm->progress, batch->file, batch->lines[i],
                                     "older than what is cached", false);
            break;
        case PTIER_PUT_SKIPPED_EXPIRED:
            ptier_warm_progress_skip(&warm->progress, batch->file, batch->lines[i],
                                     "expired meanwhile", false);
            break;
        case PTIER_PUT_REJECTED:
            ptier_warm_progress_skip(&warm->progress, batch->file, batch->lines[i], reason, true);
            break;
        }
    }
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

static bool
on_record(void *context, const ptier_import_record *found)
{
    struct warm *warm = context;
    ptier_record record = found->record;
    bool restore = found->restore;

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
    if (!ptier_warm_batch_add(warm->batch, warm->file, &record, restore, found->line)) {
        warm->no_memory = true;
        return false;
    }
    ptier_warm_progress_read(&warm->progress);
    return true;
}

static void
on_skip(void *context, uint64_t line, const char *reason)
{
    struct warm *warm = context;

    ptier_warm_progress_read(&warm->progress);
    ptier_warm_progress_skip(&warm->progress, warm->file, line, reason, false);
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
    ptier_import_summary summary;
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
    ptier_warm_progress_file(&warm->progress, path);
    ptier_status status = ptier_import_file(path, &options, &summary, &error);
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

/* ---- summary ---- */

static void
print_text(const ptier_warm_tally *tally, double seconds)
{
    printf("read %" PRIu64 ", created %" PRIu64 ", updated %" PRIu64 ", skipped %" PRIu64
           ", rejected %" PRIu64,
           tally->read, tally->created, tally->updated, tally->skipped, tally->rejected);
    for (uint64_t i = 0; i < tally->reason_count; i++) {
        printf("%s", i == 0 ? " (" : "; ");
        ptier_cli_text(stdout, tally->reasons[i].text, 0);
        printf(": %" PRIu64 "%s", tally->reasons[i].count, i + 1 == tally->reason_count ? ")" : "");
    }
    printf(", %.3f s, %.0f records/s\n", seconds, (double)tally->read / seconds);
}

static void
json_number(yajl_gen gen, const char *name, uint64_t value)
{
    yajl_gen_string(gen, (const unsigned char *)name, strlen(name));
    yajl_gen_integer(gen, (long long)value);
}

static void
print_json(const ptier_warm_tally *tally, double seconds)
{
    yajl_gen gen = yajl_gen_alloc(NULL);
    const unsigned char *text;
    size_t length;
    char number[32];

    if (!gen)
        return;
    yajl_gen_map_open(gen);
    json_number(gen, "read", tally->read);
    json_number(gen, "created", tally->created);
    json_number(gen, "updated", tally->updated);
    json_number(gen, "skipped", tally->skipped);
    json_number(gen, "rejected", tally->rejected);
    yajl_gen_string(gen, (const unsigned char *)"reasons", 7);
    yajl_gen_map_open(gen);
    for (uint64_t i = 0; i < tally->reason_count; i++)
        json_number(gen, tally->reasons[i].text, tally->reasons[i].count);
    yajl_gen_map_close(gen);
    int n = snprintf(number, sizeof number, "%.3f", seconds);
    yajl_gen_string(gen, (const unsigned char *)"seconds", 7);
    yajl_gen_number(gen, number, (size_t)n);
    json_number(gen, "records_per_second", (uint64_t)((double)tally->read / seconds));
    yajl_gen_map_close(gen);
    if (yajl_gen_get_buf(gen, &text, &length) == yajl_gen_status_ok) {
        (void)fwrite(text, 1, length, stdout); /* told by ferror at the end */
        putchar('\n');
    }
    yajl_gen_free(gen);
}

/* ---- command ---- */

static bool
parse_options(ptier_cli *cli, struct warm_options *o, ptier_cli_exit *code)
{
    const ptier_cli_option options[] = {
        {"scheme", 0, PTIER_CLI_NAME, &o->scheme, "WORD",
         "for records without one (default: a heading, the file's name, then http)",
         ptier_cli_schemes},
        {"source", 's', PTIER_CLI_STRING, &o->source, "NAME", "for records that state none", NULL},
        {"ttl", 't', PTIER_CLI_TTL, &o->ttl_ms, "DURATION",
         "time to live of all records, from now; 0 never expires", NULL},
        {"format", 'f', PTIER_CLI_WORD, &o->format, "WORD",
         "auto, text, csv, json or jsonl (default: auto)", ptier_cli_formats},
        {"ack", 0, PTIER_CLI_STRING, &o->ack, "FILE",
         "append each key to FILE, a line each, as soon as the daemon has acknowledged it", NULL},
        {"durability", 0, PTIER_CLI_WORD, &o->durability, "WORD",
         "memory, logged or synced (default: the daemon's)", ptier_cli_durabilities},
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
    return code;
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
    for (size_t i = 0; i < cli->argument_count; i++)
        if (!read_file(warm, cli->arguments[i], &code))
            break;
    code = finish(warm, code);
    if (code != PTIER_CLI_OK && warm->progress.tally.read == 0)
        return code; /* nothing to sum up */
    double seconds = (double)ptier_warm_progress_elapsed(&warm->progress) / 1000;
    if (cli->json)
        print_json(&warm->progress.tally, seconds);
    else
        print_text(&warm->progress.tally, seconds);
    return code;
}

ptier_cli_exit
ptier_cmd_warm(ptier_cli *cli)
{
    struct warm_options options = {.ttl_ms = PTIER_TTL_DEFAULT};
    ptier_server_info info;
    ptier_error error = {0};
    ptier_cli_exit code;

    if (!parse_options(cli, &options, &code))
        return code;
    code = check_files(cli);
    if (code == PTIER_CLI_OK)
        code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    ptier_status status =
        ptier_get_info(cli->client, &info, &error); /* before reading for nothing */
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);

    struct warm *warm = calloc(1, sizeof *warm);
    if (!warm)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
    warm->cli = cli;
    warm->options = options;
    warm->ack_fd = -1;
    code = open_ack(warm);
    if (code == PTIER_CLI_OK) {
        ptier_warm_progress_init(&warm->progress);
        code = transfer(warm);
        ptier_warm_progress_fini(&warm->progress);
    }
    if (warm->ack_fd >= 0 && close(warm->ack_fd) != 0 && code == PTIER_CLI_OK)
        code = ptier_cli_fail(cli, PTIER_CLI_FAILED, "--ack: cannot write %s: %s", options.ack,
                              strerror(errno));
    free(warm->ack_text);
    free(warm);
    return code;
}
