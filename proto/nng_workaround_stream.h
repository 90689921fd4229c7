/*
 * A cure for nng 1.5 (Debian 12) that both ends need, harmless with later versions: replacements of
 * two of nng's own functions, for the whole process. They act where they come before nng in the
 * order in which the process looks symbols up; where nng is linked statically they do not.
 */
#ifndef PTIER_NNG_WORKAROUND_STREAM_H
#define PTIER_NNG_WORKAROUND_STREAM_H

#include <stdbool.h>

/* Does nothing, but makes the linker take the replacements out of an archive. */
void ptier_nng_workaround_stream(void);

/* Whether replacements act, ours or those of another part of the process. */
bool ptier_nng_workaround_stream_acts(void);

#endif
