#include "base64url.h"

#define NO_DIGIT 64

static const char alphabet[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* clang-format off */
static const uint8_t digits[128] = {
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 62, 64, 64,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 64, 64, 64, 64, 64, 64,
    64,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 64, 64, 64, 64, 63,
    64, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
    41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 64, 64, 64, 64, 64,
};
/* clang-format on */

static uint32_t
digit(char c)
{
    return (unsigned char)c < 128 ? digits[(unsigned char)c] : NO_DIGIT;
}

void
ptier_base64_encode(const uint8_t *bytes, size_t length, char *text)
{
    for (; length >= 3; length -= 3, bytes += 3, text += 4) {
        uint32_t bits = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 8 | bytes[2];
        text[0] = alphabet[bits >> 18];
        text[1] = alphabet[bits >> 12 & 63];
        text[2] = alphabet[bits >> 6 & 63];
        text[3] = alphabet[bits & 63];
    }
    if (length == 0)
        return;
    uint32_t bits = (uint32_t)bytes[0] << 16 | (length == 2 ? (uint32_t)bytes[1] << 8 : 0);
    text[0] = alphabet[bits >> 18];
    text[1] = alphabet[bits >> 12 & 63];
    text[2] = length == 2 ? alphabet[bits >> 6 & 63] : '=';
    text[3] = '=';
}

bool
ptier_base64_decode(const char *text, size_t length, uint8_t *bytes, size_t *decoded)
{
    if (length % 4 != 0)
        return false;
    size_t padding = 0;
    if (length && text[length - 1] == '=')
        padding = text[length - 2] == '=' ? 2 : 1;
    uint8_t *at = bytes;
    uint32_t seen = 0; /* NO_DIGIT when any character was none */
    for (size_t i = 0; i + 4 <= length - (padding ? 4 : 0); i += 4, at += 3) {
        uint32_t a = digit(text[i]), b = digit(text[i + 1]);
        uint32_t c = digit(text[i + 2]), d = digit(text[i + 3]);
        seen |= a | b | c | d;
        uint32_t bits = a << 18 | b << 12 | c << 6 | d;
        at[0] = (uint8_t)(bits >> 16);
        at[1] = (uint8_t)(bits >> 8);
        at[2] = (uint8_t)bits;
    }
    if (padding) {
        const char *last = text + length - 4;
        uint32_t a = digit(last[0]), b = digit(last[1]), c = padding == 1 ? digit(last[2]) : 0;
        if (padding == 1 ? c & 3 : b & 15)
            return false; /* bits that encode nothing: another spelling of the same bytes */
        seen |= a | b | c;
        *at++ = (uint8_t)(a << 2 | b >> 4);
        if (padding == 1)
            *at++ = (uint8_t)(b << 4 | c >> 2);
    }
    *decoded = (size_t)(at - bytes);
    return (seen & NO_DIGIT) == 0;
}
