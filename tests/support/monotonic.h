/* Real milliseconds, for deadlines; whatever a test's virtual clock says. Any thread. */
#ifndef PTIER_TEST_MONOTONIC_H
#define PTIER_TEST_MONOTONIC_H

#include <stdint.h>
#include <time.h>

static inline int64_t
ptier_test_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
