/* What a process has: memory and descriptors, as the system counts them. */
#ifndef PTIER_TEST_PROCESS_USE_H
#define PTIER_TEST_PROCESS_USE_H

#include <stddef.h>
#include <sys/types.h>

typedef struct process_use {
    size_t
        descriptors; /* 0: not to be seen (a process that is not dumpable, and we are not root) */
    size_t rss_kb;
} process_use;

process_use process_use_of(pid_t pid);

/* When its descriptors have been the same for 2.5 seconds, within 20 s. */
process_use process_use_settled(pid_t pid);

#endif
