#include "near_clock.h"

#include <string.h>

#define MS       INT64_C(1000000)
#define HALF     (30000 * MS)                     /* calls are compared within so much */
#define VALIDITY (60000 * MS)                     /* of a call */
#define DRIFT    (1000000 / PTIER_NEAR_DRIFT_PPM) /* one part in so many */
#define MS_MAX   (INT64_MAX / MS / 4)             /* no clock says more */

void
ptier_near_clock_init(ptier_near_clock *clock)
{
    memset(clock, 0, sizeof *clock);
}

/* How far the daemon's clock may be ahead of ours at `now`, as a call tells: it reads whole
 * milliseconds, rounded down, hence one more. */
static int64_t
ahead_at(const ptier_near_sample *sample, int64_t now)
{
    return sample->ahead + MS + (now - sample->sent) / DRIFT + 1;
}

static bool
counts(const ptier_near_sample *sample, int64_t now)
{
    return sample->valid && now - sample->sent < VALIDITY;
}

void
ptier_near_clock_reply(ptier_near_clock *clock, const uint8_t boot_id[PTIER_NEAR_ID_BYTES],
                       int64_t sent, int64_t now, int64_t daemon_ms)
{
    if (daemon_ms < 0 || daemon_ms > MS_MAX)
        return;
    ptier_near_sample told = {.valid = true, .sent = sent, .ahead = daemon_ms * MS - sent};
    if (memcmp(clock->sample_boot, boot_id, PTIER_NEAR_ID_BYTES) != 0) {
        memcpy(clock->sample_boot, boot_id, PTIER_NEAR_ID_BYTES);
        memset(clock->samples, 0, sizeof clock->samples);
        clock->half_begun = now;
    } else if (now - clock->half_begun >= HALF) {
        clock->samples[1] = clock->samples[0];
        clock->samples[0].valid = false;
        clock->half_begun = now;
    }
    ptier_near_sample *best = &clock->samples[0];
    if (!counts(best, now) || ahead_at(&told, now) <= ahead_at(best, now))
        *best = told;
}

void
ptier_near_clock_beat(ptier_near_clock *clock, const uint8_t boot_id[PTIER_NEAR_ID_BYTES],
                      int64_t daemon_ms)
{
    if (daemon_ms < 0 || daemon_ms > MS_MAX)
        return;
    int64_t beat = daemon_ms * MS;
    bool same = clock->beat_known && memcmp(clock->beat_boot, boot_id, PTIER_NEAR_ID_BYTES) == 0;
    if (same && beat <= clock->beat)
        return; /* stamps are of what was published, and that only grows */
    memcpy(clock->beat_boot, boot_id, PTIER_NEAR_ID_BYTES);
    clock->beat_known = true;
    clock->beat = beat;
}

void
ptier_near_clock_lose(ptier_near_clock *clock)
{
    clock->beat_known = false;
}

static bool
comparable(const ptier_near_clock *clock)
{
    return clock->beat_known &&
           memcmp(clock->beat_boot, clock->sample_boot, PTIER_NEAR_ID_BYTES) == 0;
}

/* The age grows by 1 + 200 ppm of what passes from now on. */
static int64_t
until_by(const ptier_near_clock *clock, const ptier_near_sample *sample, int64_t now, int64_t age)
{
    int64_t left = age - (now + ahead_at(sample, now) - clock->beat);
    int64_t until = now + (left >= 0 ? left - left / DRIFT - 1 : left);
    int64_t end = sample->sent + VALIDITY;
    return until < end ? until : end;
}

int64_t
ptier_near_clock_until(const ptier_near_clock *clock, int64_t now, int64_t age)
{
    int64_t until = PTIER_NEAR_NEVER;
    if (!comparable(clock))
        return until;
    for (int i = 0; i < 2; i++) {
        if (!counts(&clock->samples[i], now))
            continue;
        int64_t by = until_by(clock, &clock->samples[i], now, age);
        until = by > until ? by : until;
    }
    return until;
}

int64_t
ptier_near_clock_age(const ptier_near_clock *clock, int64_t now)
{
    int64_t age = INT64_MAX;
    if (!comparable(clock))
        return age;
    for (int i = 0; i < 2; i++) {
        if (!counts(&clock->samples[i], now))
            continue;
        int64_t by = now + ahead_at(&clock->samples[i], now) - clock->beat;
        age = by < age ? by : age;
    }
    return age < 0 ? 0 : age;
}

int64_t
ptier_near_clock_call_due(const ptier_near_clock *clock)
{
    /* The present half's best may be up to 30 s older than its last: by then the next is there. */
    const ptier_near_sample *best = &clock->samples[0];
    return comparable(clock) && best->valid ? best->sent + HALF : PTIER_NEAR_NEVER;
}
