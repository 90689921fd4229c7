#include "support/virtual_clock.h"

static int64_t
wall(void *context)
{
    return atomic_load(&((ptier_test_clock *)context)->wall_ms);
}

static int64_t
boot(void *context)
{
    return atomic_load(&((ptier_test_clock *)context)->boot_ms);
}

/* As old as a tick can be, and more. */
static void
tick(void *context, int64_t *wall_ms, int64_t *monotonic_ms)
{
    *wall_ms = wall(context);
    *monotonic_ms = boot(context) & ~INT64_C(255);
}

void
ptier_test_clock_init(ptier_test_clock *clock)
{
    atomic_init(&clock->wall_ms, INT64_C(1700000000000));
    atomic_init(&clock->boot_ms, 10000000);
    clock->clock = (ptier_clock){
        .wall_ms = wall, .boot_ms = boot, .tick = tick, .boot_tag = 1, .context = clock};
}

void
ptier_test_clock_advance(ptier_test_clock *clock, int64_t ms)
{
    atomic_fetch_add(&clock->wall_ms, ms);
    atomic_fetch_add(&clock->boot_ms, ms);
}

void
ptier_test_clock_reboot(ptier_test_clock *clock, int64_t ms)
{
    atomic_fetch_add(&clock->wall_ms, ms);
    atomic_store(&clock->boot_ms, 5000);
    clock->clock.boot_tag++;
}
