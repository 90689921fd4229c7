/* See warm_summary.h. */
#include "warm_summary.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <yajl/yajl_gen.h>

/* Not sent, or sent without an answer, because the daemon went away or --ack failed. */
static uint64_t
unacknowledged(const ptier_warm_tally *tally)
{
    return tally->read - tally->created - tally->updated - tally->skipped - tally->rejected;
}

static void
print_text(const ptier_warm_tally *tally, double seconds)
{
    printf("read %" PRIu64 ", created %" PRIu64 ", updated %" PRIu64 ", skipped %" PRIu64
           ", rejected %" PRIu64,
           tally->read, tally->created, tally->updated, tally->skipped, tally->rejected);
    if (unacknowledged(tally) > 0)
        printf(", not acknowledged %" PRIu64, unacknowledged(tally));
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
    json_number(gen, "unacknowledged", unacknowledged(tally));
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

void
ptier_warm_summary(const ptier_cli *cli, const ptier_warm_progress *progress)
{
    double seconds = (double)ptier_warm_progress_elapsed(progress) / 1000;

    if (cli->json)
        print_json(&progress->tally, seconds);
    else
        print_text(&progress->tally, seconds);
}
