/* Bytes as lower-case hexadecimal digits. Thread-safe (no state). */
#ifndef PTIER_HEX_H
#define PTIER_HEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The value of a lower-case digit, or -1. */
static inline int
ptier_hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* Writes 2 * count digits and a NUL. */
static inline void
ptier_to_hex(char *text, const uint8_t *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < count; i++) {
        *text++ = digits[bytes[i] >> 4];
        *text++ = digits[bytes[i] & 15];
    }
    *text = 0;
}

/* Reads 2 * count digits; what follows them does not matter. False: there are not so many. */
static inline bool
ptier_from_hex(uint8_t *bytes, const char *text, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int high = ptier_hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : ptier_hex_digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

#endif
