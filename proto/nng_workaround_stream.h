/*
 * A cure for nng 1.5 (Debian 12) that both ends need, harmless with later versions: replacements of
 * three of nng's own functions, for the whole process. They act where they come before nng in the
 * order in which the process looks symbols up; where nng is linked statically they do not.
 */
#ifndef PTIER_NNG_WORKAROUND_STREAM_H
#define PTIER_NNG_WORKAROUND_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>

/* Does nothing, but makes the linker take the replacements out of an archive. */
void ptier_nng_workaround_stream(void);

/* Whether replacements act, ours or those of another part of the process. */
bool ptier_nng_workaround_stream_acts(void);

/*
 * From now on *begun becomes true when nng_dialer_start, called by this thread, is so far that its
 * dialer may be closed; before, nng 1.5 would never come back from it. It stays false where the
 * replacements do not act. NULL: no more.
 */
void ptier_nng_workaround_stream_mark_dials(atomic_bool *begun);

#endif
