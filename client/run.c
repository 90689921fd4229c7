/* See run.h. */
#include "run.h"

#include <string.h>

#define CLOCK_MAX_MS (INT64_MAX / 4) /* no clock says more */

void
ptier_run_learn(ptier_run *run, const uint8_t *boot_id, size_t length, int64_t daemon_ms,
                int64_t now_ms)
{
    if (length != PTIER_BOOT_ID_BYTES)
        return;
    memcpy(run->boot_id, boot_id, length);
    run->known = true;
    run->daemon_ms = daemon_ms > 0 && daemon_ms < CLOCK_MAX_MS ? daemon_ms : 0;
    run->heard_ms = now_ms;
}

int64_t
ptier_run_clock(const ptier_run *run, int64_t now_ms)
{
    int64_t since = now_ms - run->heard_ms;
    return run->daemon_ms + since - since / 1000 - 1;
}
