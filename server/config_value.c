/* See config_value.h. */
#include "config_value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The leading digits. False: there are none, or the number is too large. */
static bool
leading_number(const char *text, uint64_t *value, const char **rest)
{
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0)
        return false;
    *value = number;
    *rest = end;
    return true;
}

bool
ptier_parse_duration(const char *text, int64_t *ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    uint64_t number;
    const char *unit;
    if (!leading_number(text, &number, &unit))
        return false;
    if (*unit == '\0' && number == 0) {
        *ms = 0;
        return true;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(unit, units[i].unit) == 0 &&
            number <= (uint64_t)(PTIER_TTL_MAX_MS / units[i].ms)) {
            *ms = (int64_t)number * units[i].ms;
            return true;
        }
    return false;
}

bool
ptier_parse_count(const char *text, uint64_t *value)
{
    uint64_t number;
    const char *rest;
    if (!leading_number(text, &number, &rest) || *rest)
        return false;
    *value = number;
    return true;
}

bool
ptier_parse_size(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    uint64_t number;
    const char *unit;
    unsigned shift = 0;
    if (!leading_number(text, &number, &unit))
        return false;
    if (*unit) {
        const char *found = strchr(units, *unit);
        if (!found || unit[1])
            return false;
        shift = 10 * (unsigned)(found - units + 1);
    }
    if (number > UINT64_MAX >> shift)
        return false;
    *bytes = number << shift;
    return true;
}

static bool
find_word(const char *text, const char *const *words, size_t count, size_t *position)
{
    for (size_t i = 0; i < count; i++)
        if (strcasecmp(text, words[i]) == 0) {
            *position = i;
            return true;
        }
    return false;
}
#define FIND_WORD(text, words, position)                                                           \
    find_word(text, words, sizeof(words) / sizeof *(words), position)

bool
ptier_parse_switch(const char *text, bool *value)
{
    static const char *const words[] = {"off", "on", "no", "yes", "false", "true", "0", "1"};
    size_t position;
    if (!FIND_WORD(text, words, &position))
        return false;
    *value = position % 2 == 1;
    return true;
}

bool
ptier_parse_level(const char *text, ptier_log_level *level)
{
    static const char *const words[] = {"error", "warn", "info", "debug"};
    size_t position;
    if (!FIND_WORD(text, words, &position))
        return false;
    *level = (ptier_log_level)position;
    return true;
}

bool
ptier_parse_durability(const char *text, ptier_durability *durability)
{
    static const char *const words[] = {"memory", "logged", "synced"};
    size_t position;
    if (!FIND_WORD(text, words, &position))
        return false;
    *durability = (ptier_durability)(PTIER_DURABILITY_MEMORY + position);
    return true;
}

bool
ptier_parse_eviction(const char *text, ptier_eviction *eviction)
{
    static const char *const words[] = {"lru", "lfu", "fifo", "sieve"};
    size_t position;
    if (!FIND_WORD(text, words, &position))
        return false;
    *eviction = (ptier_eviction)position;
    return true;
}
