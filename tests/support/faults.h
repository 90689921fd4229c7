/*
 * System calls that fail when a test says so: linked into a test program, these take the place of
 * the C library's. Files of any thread; not for programs that fork.
 */
#ifndef PTIER_TEST_FAULTS_H
#define PTIER_TEST_FAULTS_H

#include <stdatomic.h>

/* The errno value that each call fails with; 0: it works. */
typedef struct ptier_test_faults {
    _Atomic int fdatasync;
    _Atomic int fallocate;
    _Atomic int pread;
    _Atomic int write; /* once `write_after` more bytes were written */
    _Atomic long write_after;
} ptier_test_faults;

extern ptier_test_faults ptier_test_fault;

#endif
