/*
 * The two clocks of the cache, replaceable by tests. Thread-safe. Wall time is for people and other
 * machines; expiry counts on boot time (CLOCK_BOOTTIME), which no step of the wall clock touches.
 */
#ifndef PTIER_CLOCK_H
#define PTIER_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ptier_clock {
    int64_t (*wall_ms)(void *context); /* since the Unix epoch */
    int64_t (*boot_ms)(void *context); /* since the kernel started, suspend included */
    /* Wall time, and boot time without suspends, both as of the kernel's last tick: a few ms old,
     * at a fraction of the price of an exact look. NULL: the exact ones are cheap enough. */
    void (*tick)(void *context, int64_t *wall_ms, int64_t *monotonic_ms);
    uint64_t boot_tag; /* names this run of the kernel: boot times compare only within one */
    void *context;
    /* From ptier_clock_anchor: how far boot time is ahead of wall time for records of earlier runs
     * of the kernel. */
    bool anchored;
    int64_t boot_ahead_ms;
} ptier_clock;

#define PTIER_NEVER INT64_MAX /* boot-time expiry of what does not expire */

/* The machine's own clocks. */
void ptier_clock_system(ptier_clock *clock);

static inline int64_t
ptier_clock_wall(const ptier_clock *clock)
{
    return clock->wall_ms(clock->context);
}

static inline int64_t
ptier_clock_boot(const ptier_clock *clock)
{
    return clock->boot_ms(clock->context);
}

/*
 * What tells from a tick alone, most of the time, that something has not expired. Thread-safe; one
 * thread at a time renews it. A suspend moves boot time and wall time against monotonic time: so
 * while wall time stands to it as at the last renewal, boot time does, too.
 */
typedef struct ptier_clock_glance {
    _Atomic int64_t boot_ahead_ms, wall_ahead_ms; /* of monotonic time */
} ptier_clock_glance;

/* At the beginning, and now and then: before it, after a suspend or a step of the wall clock, each
 * look is an exact one. */
void ptier_clock_glance_renew(ptier_clock_glance *glance, const ptier_clock *clock);

/* What one look at a tick says. */
typedef struct ptier_look {
    int64_t wall_ms;       /* a few ms old at most */
    int64_t live_after_ms; /* boot time: what expires later has not expired, for certain */
} ptier_look;

ptier_look ptier_clock_look(const ptier_clock_glance *glance, const ptier_clock *clock);

/* Whether this boot-time expiry has come: exactly. `look`: of just now. */
static inline bool
ptier_clock_past(const ptier_clock *clock, const ptier_look *look, int64_t expires_boot_ms)
{
    return expires_boot_ms <= look->live_after_ms && expires_boot_ms <= ptier_clock_boot(clock);
}

/* Wall-clock expiries are counted as of now from here on, however often a record is read: the wall
 * clock may be set while we run. */
static inline void
ptier_clock_anchor(ptier_clock *clock)
{
    clock->boot_ahead_ms = ptier_clock_boot(clock) - ptier_clock_wall(clock);
    clock->anchored = true;
}

/*
 * Boot-time expiry of a record read from disk: what was stored when the same kernel still runs
 * (steps of the wall clock then change nothing), else counted anew from the wall-clock expiry (0:
 * never).
 */
static inline int64_t
ptier_clock_expiry(const ptier_clock *clock, uint64_t stored_tag, int64_t stored_boot_ms,
                   int64_t wall_ms)
{
    if (wall_ms == 0)
        return PTIER_NEVER;
    if (stored_tag == clock->boot_tag && stored_tag != 0)
        return stored_boot_ms;
    return wall_ms + (clock->anchored ? clock->boot_ahead_ms
                                      : ptier_clock_boot(clock) - ptier_clock_wall(clock));
}

#endif
