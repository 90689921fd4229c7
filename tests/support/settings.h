/* Numbers that choose how long a test runs and with which seed: from the environment, else the
 * default. */
#ifndef PTIER_TEST_SETTINGS_H
#define PTIER_TEST_SETTINGS_H

#include <stdint.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PTIER_TEST_SANITIZED 1
#else
#define PTIER_TEST_SANITIZED 0
#endif

static inline uint64_t
ptier_test_setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

#endif
