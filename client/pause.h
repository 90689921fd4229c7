/* Pauses between attempts. Thread-safe. Not nng's: the first use of that starts its threads. */
#ifndef PTIER_PAUSE_H
#define PTIER_PAUSE_H

#include <stdint.h>

/* Between a half of `pause_ms` and all of it, at random, so that clients do not come together. */
int64_t ptier_pause_jittered(int64_t pause_ms);

/* Returns earlier for no signal. */
void ptier_pause_sleep(int64_t ms);

#endif
