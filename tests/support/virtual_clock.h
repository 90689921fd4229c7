/* A clock that only tests move. Thread-safe. Fill it with ptier_test_clock_init; it must outlive
 * whoever uses it. */
#ifndef PTIER_TEST_VIRTUAL_CLOCK_H
#define PTIER_TEST_VIRTUAL_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>

#include "clock.h"

typedef struct ptier_test_clock {
    _Atomic int64_t wall_ms, boot_ms;
    ptier_clock clock;
} ptier_test_clock;

/* Starts in 2023, 10,000 s after the boot of a kernel run with the tag 1. */
void ptier_test_clock_init(ptier_test_clock *clock);

/* Both clocks go on. */
void ptier_test_clock_advance(ptier_test_clock *clock, int64_t ms);

/* The machine was off for `ms` and has just started again: boot time is 5 s, the tag is another. */
void ptier_test_clock_reboot(ptier_test_clock *clock, int64_t ms);

#endif
