/* Credentials as Fernet tokens (see ptier_sealed in tier.h): making, sharing, opening. Thread-safe.
 */
#ifndef PTIER_SEALED_H
#define PTIER_SEALED_H

#include "crypto/keyring.h"
#include "tier.h"

/* *sealed becomes an owned reference, or NULL when the entry has no credentials. */
PTIER_MUST_CHECK ptier_status ptier_sealed_create(ptier_keyring *keyring, const ptier_entry *entry,
                                                  ptier_sealed **sealed);

/* From tokens that exist already; NULL: none. Owned; NULL with *ok true when both are NULL. */
PTIER_MUST_CHECK ptier_status ptier_sealed_from_tokens(const char *username, const char *password,
                                                       ptier_sealed **sealed);

ptier_sealed *ptier_sealed_retain(ptier_sealed *sealed); /* NULL is fine */
void ptier_sealed_release(ptier_sealed *sealed);         /* NULL is fine */

/*
 * Decrypts one token into `plain` (NUL-terminated, wipe it). DATA_LOSS: no key of ours made it, or
 * what it holds is too long or has an embedded NUL.
 */
PTIER_MUST_CHECK ptier_status ptier_sealed_open(ptier_keyring *keyring, const char *token,
                                                size_t length,
                                                char plain[PTIER_CREDENTIAL_MAX + 1]);

#endif
