/*
 * Memory for keys: pages of its own that no core file gets, that stay out of swap where the system
 * allows it, and that are wiped when freed. Thread-safe. What OpenSSL keeps of a key is in its own
 * memory, and wiped by it.
 */
#ifndef PTIER_GUARDED_H
#define PTIER_GUARDED_H

#include <stddef.h>

#include <proxytier/status.h>

/* Zeroed, aligned to a page. NULL: out of memory. A child after fork has a copy. */
PTIER_MUST_CHECK void *ptier_guarded_alloc(size_t size);

/* `size` as it was asked for. NULL is fine. */
void ptier_guarded_free(void *memory, size_t size);

#endif
