/* See warm_progress.h. */
#include "warm_progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

#define BAR_WIDTH      30
#define BAR_EVERY_MS   100
#define LINES_EVERY_MS 1000

static int64_t
now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail on Linux */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void
ptier_warm_progress_init(ptier_warm_progress *progress)
{
    memset(progress, 0, sizeof *progress);
    (void)pthread_mutex_init(&progress->lock, NULL); /* cannot fail on Linux without attributes */
    progress->terminal = isatty(STDERR_FILENO) == 1;
    progress->started_ms = progress->drawn_ms = now_ms();
}

void
ptier_warm_progress_fini(ptier_warm_progress *progress)
{
    (void)pthread_mutex_destroy(&progress->lock);
}

int64_t
ptier_warm_progress_elapsed(const ptier_warm_progress *progress)
{
    int64_t elapsed = now_ms() - progress->started_ms;
    return elapsed > 0 ? elapsed : 1;
}

static void
erase_locked(ptier_warm_progress *progress)
{
    if (progress->drawn)
        (void)fprintf(stderr, "\r\033[K");
    progress->drawn = false;
}

static void
draw_bar_locked(ptier_warm_progress *progress, double part)
{
    const ptier_warm_tally *tally = &progress->tally;
    char bar[BAR_WIDTH + 1];
    int full = (int)(part * BAR_WIDTH);

    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    (void)fprintf(stderr, "\r\033[K[%s] %3.0f %%  %" PRIu64 " read, %" PRIu64 " stored", bar,
                  part * 100, tally->read, tally->created + tally->updated);
    if (tally->skipped + tally->rejected > 0)
        (void)fprintf(stderr, ", %" PRIu64 " skipped", tally->skipped + tally->rejected);
    (void)fflush(stderr);
    progress->drawn = true;
}

static void
draw_locked(ptier_warm_progress *progress)
{
    int64_t now = now_ms();
    const ptier_warm_tally *tally = &progress->tally;

    if (now - progress->drawn_ms < (progress->terminal ? BAR_EVERY_MS : LINES_EVERY_MS))
        return;
    progress->drawn_ms = now;
    double part = progress->bytes_total > 0
                      ? (double)progress->bytes_read / (double)progress->bytes_total
                      : 0;
    if (part > 1)
        part = 1;
    if (progress->terminal && progress->bytes_total > 0) {
        draw_bar_locked(progress, part);
        return;
    }
    if (progress->terminal)
        (void)fprintf(stderr, "\r\033[K");
    ptier_cli_text(stderr, progress->file ? progress->file : "", 0);
    if (progress->bytes_total > 0)
        (void)fprintf(stderr, ": %.0f %%", part * 100);
    (void)fprintf(stderr, ": %" PRIu64 " read, %" PRIu64 " stored", tally->read,
                  tally->created + tally->updated);
    if (!progress->terminal)
        (void)fputc('\n', stderr);
    progress->drawn = progress->terminal;
}

void
ptier_warm_progress_file(ptier_warm_progress *progress, const char *file)
{
    (void)pthread_mutex_lock(&progress->lock);
    progress->file = file;
    progress->bytes_read = progress->bytes_total = 0;
    (void)pthread_mutex_unlock(&progress->lock);
}

void
ptier_warm_progress_bytes(ptier_warm_progress *progress, uint64_t read, uint64_t total)
{
    (void)pthread_mutex_lock(&progress->lock);
    progress->bytes_read = read;
    progress->bytes_total = total;
    draw_locked(progress);
    (void)pthread_mutex_unlock(&progress->lock);
}

void
ptier_warm_progress_read(ptier_warm_progress *progress)
{
    (void)pthread_mutex_lock(&progress->lock);
    progress->tally.read++;
    (void)pthread_mutex_unlock(&progress->lock);
}

void
ptier_warm_progress_stored(ptier_warm_progress *progress, uint64_t created, uint64_t updated)
{
    (void)pthread_mutex_lock(&progress->lock);
    progress->tally.created += created;
    progress->tally.updated += updated;
    draw_locked(progress);
    (void)pthread_mutex_unlock(&progress->lock);
}

static void
count_reason_locked(ptier_warm_tally *tally, const char *reason)
{
    size_t i = 0;

    while (i < tally->reason_count &&
           strncmp(tally->reasons[i].text, reason, PTIER_WARM_REASON_MAX - 1) != 0)
        i++;
    if (i == tally->reason_count && i == PTIER_WARM_REASONS - 1)
        reason = "other reasons"; /* the last place is for all the rest */
    if (i == PTIER_WARM_REASONS)
        i--;
    if (i == tally->reason_count) {
        (void)snprintf(tally->reasons[i].text, PTIER_WARM_REASON_MAX, "%s",
                       reason); /* cut is fine */
        tally->reason_count++;
    }
    tally->reasons[i].count++;
}

void
ptier_warm_progress_skip(ptier_warm_progress *progress, const char *file, ptier_warm_place place,
                         const char *reason, bool rejected)
{
    (void)pthread_mutex_lock(&progress->lock);
    ptier_warm_tally *tally = &progress->tally;
    if (rejected)
        tally->rejected++;
    else
        tally->skipped++;
    count_reason_locked(tally, reason);
    if (tally->shown++ < PTIER_WARM_SHOWN) {
        erase_locked(progress);
        ptier_cli_text(stderr, file, 0);
        (void)fprintf(stderr, ":%" PRIu64 ": ", place.line);
        if (place.record > 0)
            (void)fprintf(stderr, "record %" PRIu64 ": ", place.record);
        (void)fprintf(stderr, "%s: ", rejected ? "rejected" : "skipped");
        ptier_cli_text(stderr, reason, 0);
        (void)fputc('\n', stderr);
    }
    (void)pthread_mutex_unlock(&progress->lock);
}

void
ptier_warm_progress_erase(ptier_warm_progress *progress)
{
    (void)pthread_mutex_lock(&progress->lock);
    erase_locked(progress);
    (void)pthread_mutex_unlock(&progress->lock);
}
