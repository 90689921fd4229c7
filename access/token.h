/*
 * Tokens: what a caller shows, and what a file keeps of it. Thread-safe (no state).
 *
 * A token is "ptk_" and 32 bytes of the kernel's randomness in URL-safe base64; a file keeps its
 * SHA-256. Slow, salted hashes (bcrypt, Argon2) are for secrets that people choose: they make each
 * guess expensive because there are few to try. Of 2^256 there is nothing to try, no two are alike,
 * and a plain SHA-256 costs the daemon less than a microsecond on every call, which a slow one
 * would not. So that this stays true, only tokens of this form are ever compared: a password put
 * into the file by hand is never accepted.
 */
#ifndef PTIER_TOKEN_H
#define PTIER_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>

#define PTIER_TOKEN_TEXT (4 + 43) /* without NUL */
#define PTIER_TOKEN_HASH 32

/* A new token, NUL-terminated: the caller wipes it. INTERNAL: no randomness. */
PTIER_MUST_CHECK ptier_status ptier_token_make(char token[PTIER_TOKEN_TEXT + 1],
                                               ptier_error *error);

/* False: it does not have the form of a token, or the crypto library fails. */
PTIER_MUST_CHECK bool ptier_token_hash(const char *token, uint8_t hash[PTIER_TOKEN_HASH]);

#endif
