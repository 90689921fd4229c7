/*
 * How long a lock may be held for work that can be cut into pieces. A mutex is not fair: who lets
 * it go and takes it again at once gets it again, before those who were woken for it can run.
 */
#ifndef PTIER_HOLD_H
#define PTIER_HOLD_H

#include <time.h>

#define PTIER_HOLD_MAX 1024 /* small steps (of a map, or a list) in one hold: some 100 us */

/* Between two holds. */
static inline void
ptier_let_others_in(void)
{
    /* Whatever the kernel makes of it, 50 us in practice; shorter is fine. */
    (void)nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
}

#endif
