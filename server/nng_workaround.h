/*
 * Cures for faults of nng 1.5 (Debian 12) that let a rude client end or leak the service; harmless
 * with later versions. They replace functions for the whole process, one of them the C library's,
 * so only executables may link them, never the SDK; it has those of nng_workaround_stream.h only.
 */
#ifndef PTIER_NNG_WORKAROUND_H
#define PTIER_NNG_WORKAROUND_H

#include <proxytier/status.h>

/* OK: the replacements are the ones that nng will call. INTERNAL: the executable does not export
 * them (build fault). */
PTIER_MUST_CHECK ptier_status ptier_nng_workaround_check(ptier_error *error);

/* `watch` hears of every connection that this process accepts, before anybody reads of it; on nng's
 * threads, and it must not wait. NULL ends that: it does not run after this returned. One at a
 * time.
 */
void ptier_nng_workaround_watch_accepts(void (*watch)(void *context, int fd), void *context);

#endif
