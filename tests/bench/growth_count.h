/*
 * Instructions of an operation, counted by callgrind: the program runs itself under valgrind, with
 * all of its threads, and counts while the operation runs. They do not depend on what else the
 * machine does.
 */
#ifndef PTIER_BENCH_GROWTH_COUNT_H
#define PTIER_BENCH_GROWTH_COUNT_H

#include <stdbool.h>
#include <stddef.h>

#include "harness.h"

typedef enum growth_kind {
    GROWTH_KIND_L1,
    GROWTH_KIND_GET,
    GROWTH_KIND_PUT,
    GROWTH_KIND_EXPIRY,
    GROWTH_KINDS,
} growth_kind;

bool growth_can_count(void); /* valgrind is here, and was when this was built */

/* Instructions of one operation in a cache of `entries`. `directory`: of its data, for GET and PUT.
 */
double growth_count(const bench_run *bench, growth_kind kind, size_t entries,
                    const char *directory);

/* True: the program was run by growth_count, and has done what it was to do. */
bool growth_is_counted(int argc, char **argv);

#endif
