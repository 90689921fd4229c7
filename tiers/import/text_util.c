#include "import/text_util.h"

#include <ctype.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Length of the well-formed sequence at `s`, 0 when there is none. */
static size_t
utf8_sequence(const unsigned char *s, size_t left)
{
    size_t need = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || left < need)
        return 0;
    for (size_t i = 1; i < need; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] >= 0xa0;
    bool beyond = s[0] == 0xf4 && s[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : need;
}

bool
ptier_text_valid(const char *text, size_t length)
{
    const unsigned char *s = (const unsigned char *)text;
    for (size_t i = 0; i < length;) {
        if (s[i] == 0)
            return false;
        if (s[i] < 0x80) {
            i++;
            continue;
        }
        size_t step = utf8_sequence(s + i, length - i);
        if (!step)
            return false;
        i += step;
    }
    return true;
}

bool
ptier_text_has_control(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return true;
    return false;
}

void
ptier_text_trim(const char **text, size_t *length)
{
    while (*length && ((*text)[0] == ' ' || (*text)[0] == '\t')) {
        (*text)++;
        (*length)--;
    }
    while (*length && ((*text)[*length - 1] == ' ' || (*text)[*length - 1] == '\t'))
        (*length)--;
}

/* ---- times ---- */

typedef struct cursor {
    const char *at, *end;
} cursor;

static bool
take(cursor *c, char wanted)
{
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    return true;
}

static bool
take_number(cursor *c, int digits, int low, int high, int *value)
{
    *value = 0;
    for (int i = 0; i < digits; i++, c->at++) {
        if (c->at == c->end || !isdigit((unsigned char)*c->at))
            return false;
        *value = *value * 10 + (*c->at - '0');
    }
    return *value >= low && *value <= high;
}

/* Days from 1970-01-01 in the proleptic Gregorian calendar (years from March on make leap days come
 * last). */
static int64_t
days_from_civil(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = y / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static bool
take_date(cursor *c, int64_t *ms)
{
    static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year, month, day;
    if (!take_number(c, 4, 1970, 9999, &year) || !take(c, '-') ||
        !take_number(c, 2, 1, 12, &month) || !take(c, '-') || !take_number(c, 2, 1, 31, &day))
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > month_days[month - 1] + (month == 2 && leap))
        return false;
    *ms = days_from_civil(year, month, day) * 86400000;
    return true;
}

/* hh:mm[:ss[.fraction]]; a leap second counts as the one after. */
static bool
take_clock(cursor *c, int64_t *ms)
{
    int hour, minute, second = 0;
    if (!take_number(c, 2, 0, 23, &hour) || !take(c, ':') || !take_number(c, 2, 0, 59, &minute))
        return false;
    if (take(c, ':') && !take_number(c, 2, 0, 60, &second))
        return false;
    *ms += ((int64_t)hour * 3600 + minute * 60 + second) * 1000;
    if (take(c, '.') || take(c, ',')) {
        const char *start = c->at;
        for (int unit = 100; c->at < c->end && isdigit((unsigned char)*c->at); c->at++, unit /= 10)
            *ms += (*c->at - '0') * unit;
        return c->at != start;
    }
    return true;
}

static bool
take_zone(cursor *c, int64_t *ms)
{
    (void)take(c, ' '); /* "18:26:26 +00:00" is seen, too */
    if (take(c, 'Z') || take(c, 'z') || c->at == c->end)
        return true;
    if (c->end - c->at == 3 && memcmp(c->at, "UTC", 3) == 0) {
        c->at += 3;
        return true;
    }
    int sign = *c->at == '+' ? -1 : *c->at == '-' ? 1 : 0;
    int hour, minute = 0;
    if (!sign)
        return false;
    c->at++;
    if (!take_number(c, 2, 0, 23, &hour))
        return false;
    (void)take(c, ':'); /* optional */
    if (c->at < c->end && !take_number(c, 2, 0, 59, &minute))
        return false;
    *ms += sign * ((int64_t)hour * 60 + minute) * 60000;
    return true;
}

/* Digits with an optional fraction. */
static bool
parse_epoch(const char *text, size_t length, int64_t *ms)
{
    int64_t whole = 0, milli = 0;
    size_t i = 0;
    for (; i < length && i < 16 && isdigit((unsigned char)text[i]); i++)
        whole = whole * 10 + (text[i] - '0');
    if (i == 0)
        return false;
    if (i < length && text[i] == '.') {
        i++;
        for (int unit = 100; i < length && isdigit((unsigned char)text[i]); i++, unit /= 10)
            milli += (text[i] - '0') * unit;
    }
    if (i != length)
        return false;
    *ms = whole < INT64_C(100000000000) ? whole * 1000 + milli : whole;
    return true;
}

#define YEAR_10000_MS INT64_C(253402300800000)

bool
ptier_time_parse(const char *text, size_t length, int64_t *ms)
{
    int64_t value = 0;
    ptier_text_trim(&text, &length);
    if (!parse_epoch(text, length, &value)) {
        cursor c = {text, text + length};
        if (!take_date(&c, &value))
            return false;
        if (c.at < c.end) {
            if (!take(&c, 'T') && !take(&c, 't') && !take(&c, ' '))
                return false;
            if (!take_clock(&c, &value) || !take_zone(&c, &value) || c.at != c.end)
                return false;
        }
    }
    if (value < 0 || value >= YEAR_10000_MS)
        return false;
    *ms = value;
    return true;
}

bool
ptier_time_format(int64_t ms, char text[PTIER_TIME_TEXT])
{
    if (ms < 0 || ms >= YEAR_10000_MS)
        return false;
    int64_t days = ms / 86400000 + 719468, rest = ms % 86400000;
    int64_t era = days / 146097, day_of_era = days % 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153; /* months from March on */
    unsigned day = (unsigned)(day_of_year - (153 * shifted + 2) / 5 + 1);
    unsigned month = (unsigned)(shifted < 10 ? shifted + 3 : shifted - 9);
    unsigned year = (unsigned)(year_of_era + era * 400 + (month <= 2));
    unsigned seconds = (unsigned)(rest / 1000);
    (void)snprintf(text, PTIER_TIME_TEXT, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", year % 10000,
                   month % 100, day % 100, seconds / 3600 % 100, seconds / 60 % 60, seconds % 60,
                   (unsigned)(rest % 1000)); /* fits: every part is bounded */
    return true;
}

/* ---- memory ---- */

void
ptier_wiping_free(void *memory)
{
    if (!memory)
        return;
    explicit_bzero(memory, malloc_usable_size(memory));
    free(memory);
}

void *
ptier_wiping_realloc(void *old, size_t size)
{
    void *fresh = malloc(size ? size : 1);
    if (!fresh || !old)
        return fresh;
    size_t had = malloc_usable_size(old);
    memcpy(fresh, old, had < size ? had : size);
    ptier_wiping_free(old);
    return fresh;
}
