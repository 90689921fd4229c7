/*
 * The run of the daemon that answered last, and what its clock says at least. Plain arithmetic;
 * time is passed in. Not thread-safe.
 */
#ifndef PTIER_RUN_H
#define PTIER_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PTIER_BOOT_ID_BYTES 16

typedef struct ptier_run {
    bool known;
    uint8_t boot_id[PTIER_BOOT_ID_BYTES];
    int64_t daemon_ms; /* its boottime_ms, in the last reply */
    int64_t heard_ms;  /* when that came: ptier_monotonic_ms */
} ptier_run;

/* From the header of a reply. Ids of another size are ignored. */
void ptier_run_learn(ptier_run *run, const uint8_t *boot_id, size_t length, int64_t daemon_ms,
                     int64_t now_ms);

/*
 * The daemon's boottime_ms is not less than this now, whatever the reply's way took and though the
 * clocks may differ by 1,000 ppm. Of a known run.
 */
int64_t ptier_run_clock(const ptier_run *run, int64_t now_ms);

#endif
