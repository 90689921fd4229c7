/*
 * How old is what the daemon's last heartbeat vouches for? A call sent at local time t0 whose reply
 * says that the daemon's clock was d tells that at t0 that clock was at most d; so a heartbeat
 * stamped h is, at local time t, at most t - t0 - (h - d) old, however long it travelled. Clocks
 * may drift apart by 200 ppm, stamps are whole milliseconds (rounded down), and a call older than
 * 60 s says nothing any more. Plain arithmetic: time is passed in, in nanoseconds of a local clock
 * that goes on while the machine sleeps. Not thread-safe.
 */
#ifndef PTIER_NEAR_CLOCK_H
#define PTIER_NEAR_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define PTIER_NEAR_ID_BYTES  16
#define PTIER_NEAR_DRIFT_PPM 200
#define PTIER_NEAR_NEVER     INT64_MIN /* no instant is that early */

/* What one call told: the daemon's clock minus ours was at most `ahead` at `sent`. */
typedef struct ptier_near_sample {
    bool valid;
    int64_t sent;
    int64_t ahead;
} ptier_near_sample;

/* Calls and heartbeats count together only when they are of the same run of the daemon: the clock
 * of another machine boot begins anew. */
typedef struct ptier_near_clock {
    uint8_t sample_boot[PTIER_NEAR_ID_BYTES], beat_boot[PTIER_NEAR_ID_BYTES];
    bool beat_known;
    int64_t beat;                 /* the daemon's clock, when the latest heartbeat was made */
    int64_t half_begun;           /* of the present half minute */
    ptier_near_sample samples[2]; /* the best call of the present half minute, and of the last */
} ptier_near_clock;

void ptier_near_clock_init(ptier_near_clock *clock);

/* A call, sent at `sent` (its first try), was answered by `now`. */
void ptier_near_clock_reply(ptier_near_clock *clock, const uint8_t boot_id[PTIER_NEAR_ID_BYTES],
                            int64_t sent, int64_t now, int64_t daemon_ms);

/* Everything that had happened by daemon_ms of the daemon's clock is known here. */
void ptier_near_clock_beat(ptier_near_clock *clock, const uint8_t boot_id[PTIER_NEAR_ID_BYTES],
                           int64_t daemon_ms);

/* The last beat counts no more. */
void ptier_near_clock_lose(ptier_near_clock *clock);

/* Until when what is known here is at most `age` old; PTIER_NEAR_NEVER: that cannot be said. */
int64_t ptier_near_clock_until(const ptier_near_clock *clock, int64_t now, int64_t age);

/* Bound of the age of what is known here. INT64_MAX: none. */
int64_t ptier_near_clock_age(const ptier_near_clock *clock, int64_t now);

/* When the next call is due, so that the bound never fails for lack of one. */
int64_t ptier_near_clock_call_due(const ptier_near_clock *clock);

#endif
