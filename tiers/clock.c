#include "clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    SHIFT_MS = 1000, /* of wall against monotonic time: more is a suspend or a step */
    LAG_MS = 2000,   /* that a tick is never older than: it is one of the kernel's, 1 to 10 ms */
};

static inline int64_t
read_ms(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + (uint32_t)now.tv_nsec / 1000000; /* under 2^30 */
}

static int64_t
system_wall_ms(void *context)
{
    (void)context; /* the machine has one */
    return read_ms(CLOCK_REALTIME);
}

static int64_t
system_boot_ms(void *context)
{
    (void)context;
    return read_ms(CLOCK_BOOTTIME);
}

static void
system_tick(void *context, int64_t *wall_ms, int64_t *monotonic_ms)
{
    (void)context;
    *wall_ms = read_ms(CLOCK_REALTIME_COARSE);
    *monotonic_ms = read_ms(CLOCK_MONOTONIC_COARSE);
}

/* FNV-1a over the kernel's random boot id; 0 when it cannot be read, which equals no stored tag. */
static uint64_t
kernel_boot_tag(void)
{
    char id[64];
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file)
        return 0;
    size_t length = fread(id, 1, sizeof id, file);
    (void)fclose(file); /* only read from */
    uint64_t tag = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < length; i++)
        tag = (tag ^ (unsigned char)id[i]) * UINT64_C(1099511628211);
    return length ? tag : 0;
}

void
ptier_clock_system(ptier_clock *clock)
{
    *clock = (ptier_clock){
        .wall_ms = system_wall_ms,
        .boot_ms = system_boot_ms,
        .tick = system_tick,
        .boot_tag = kernel_boot_tag(),
    };
}

/* The tick before boot time, boot time's distance before wall time's: a suspend in between then
 * leaves the older wall time there, which sends everybody to the exact clock. */
void
ptier_clock_glance_renew(ptier_clock_glance *glance, const ptier_clock *clock)
{
    int64_t wall_ms, monotonic_ms;
    if (!clock->tick)
        return;
    clock->tick(clock->context, &wall_ms, &monotonic_ms);
    atomic_store_explicit(&glance->boot_ahead_ms, ptier_clock_boot(clock) - monotonic_ms,
                          memory_order_relaxed);
    atomic_store_explicit(&glance->wall_ahead_ms, wall_ms - monotonic_ms, memory_order_release);
}

/* What a tick says of boot time; where it cannot tell, that nothing is certain. */
static inline ptier_look
look_of(const ptier_clock_glance *glance, int64_t wall_ms, int64_t monotonic_ms)
{
    ptier_look look = {.wall_ms = wall_ms, .live_after_ms = PTIER_NEVER - 1};
    int64_t shift_ms =
        wall_ms - monotonic_ms - atomic_load_explicit(&glance->wall_ahead_ms, memory_order_acquire);
    if (shift_ms >= -SHIFT_MS && shift_ms <= SHIFT_MS)
        look.live_after_ms = monotonic_ms + SHIFT_MS + LAG_MS +
                             atomic_load_explicit(&glance->boot_ahead_ms, memory_order_relaxed);
    return look;
}

ptier_look
ptier_clock_look(const ptier_clock_glance *glance, const ptier_clock *clock)
{
    int64_t wall_ms, monotonic_ms;
    if (clock->tick == system_tick) { /* without a call: this is on the path of each hit */
        wall_ms = read_ms(CLOCK_REALTIME_COARSE);
        return look_of(glance, wall_ms, read_ms(CLOCK_MONOTONIC_COARSE));
    }
    if (!clock->tick)
        return (ptier_look){.wall_ms = ptier_clock_wall(clock), .live_after_ms = PTIER_NEVER - 1};
    clock->tick(clock->context, &wall_ms, &monotonic_ms);
    return look_of(glance, wall_ms, monotonic_ms);
}
