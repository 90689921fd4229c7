/*
 * A cure for nng 1.5 (Debian 12) that both ends need, harmless with later versions: replacements of
 * two of nng's own functions, for the whole process. Where nng is linked statically they have no
 * effect.
 */
#ifndef PTIER_NNG_WORKAROUND_STREAM_H
#define PTIER_NNG_WORKAROUND_STREAM_H

/* Does nothing, but makes the linker take the replacements out of an archive. */
void ptier_nng_workaround_stream(void);

#endif
