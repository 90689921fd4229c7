#include "import/scheme.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    uint16_t port;
} schemes[] = {
    {"http", 80},     {"https", 443},    {"socks5", 1080},
    {"socks4", 1080}, {"socks5h", 1080}, {"socks4a", 1080},
};
#define SCHEMES (sizeof schemes / sizeof *schemes)

const char *
ptier_scheme_find(const char *text, size_t length)
{
    for (size_t i = 0; i < SCHEMES; i++)
        if (strlen(schemes[i].name) == length && strncasecmp(text, schemes[i].name, length) == 0)
            return schemes[i].name;
    return NULL;
}

uint16_t
ptier_scheme_port(const char *scheme)
{
    for (size_t i = 0; i < SCHEMES; i++)
        if (strcmp(scheme, schemes[i].name) == 0)
            return schemes[i].port;
    return 0;
}

/* "http" in http://example.net or in HTTP/1.1 names no section of a list. */
static bool
is_part_of_url_or_version(const char *rest, size_t length)
{
    if (length >= 3 && memcmp(rest, "://", 3) == 0)
        return true;
    return length >= 2 && rest[0] == '/' && isdigit((unsigned char)rest[1]);
}

const char *
ptier_scheme_mentioned(const char *text, size_t length)
{
    const char *found = NULL;
    for (size_t i = 0; i < length;) {
        size_t start = i;
        while (i < length && isalnum((unsigned char)text[i]))
            i++;
        if (i == start) {
            i++;
            continue;
        }
        const char *scheme = ptier_scheme_find(text + start, i - start);
        if (!scheme || is_part_of_url_or_version(text + i, length - i))
            continue;
        if (found && found != scheme)
            return NULL;
        found = scheme;
    }
    return found;
}
