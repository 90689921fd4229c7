/*
 * A cached record: immutable, reference-counted, one allocation. Thread-safe: any thread may read
 * and release any reference it owns. Only the usage figures (last access, access count, latency,
 * report counts) move while it lives.
 */
#ifndef PROXYTIER_ENTRY_H
#define PROXYTIER_ENTRY_H

#include <proxytier/status.h>
#include <proxytier/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ptier_entry ptier_entry;

/* One more reference; owned by the caller. Returns the argument. */
PTIER_API ptier_entry *ptier_entry_retain(ptier_entry *entry);

/* Gives a reference back; the last one wipes the credentials and frees. NULL is fine. */
PTIER_API void ptier_entry_release(ptier_entry *entry);

#ifdef __cplusplus
}
#endif
#endif
