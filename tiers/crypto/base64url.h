/* URL-safe base64 (RFC 4648, section 5) with padding, as Fernet uses it. Stateless, thread-safe. */
#ifndef PTIER_BASE64URL_H
#define PTIER_BASE64URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/status.h>

#define PTIER_BASE64_LENGTH(bytes) (((size_t)(bytes) + 2) / 3 * 4)

/*
 * Writes PTIER_BASE64_LENGTH(length) characters, no NUL. `bytes` may be the tail of the same buffer
 * (text + PTIER_BASE64_LENGTH(length) - length): what is written never overtakes what is read.
 */
void ptier_base64_encode(const uint8_t *bytes, size_t length, char *text);

/*
 * Strict: padded, no other characters, unused bits zero. `bytes` has room for length / 4 * 3.
 * False: not base64.
 */
PTIER_MUST_CHECK bool ptier_base64_decode(const char *text, size_t length, uint8_t *bytes,
                                          size_t *decoded);

#endif
