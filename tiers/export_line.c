#include "export_line.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "import/text_util.h"

/* Counts always, writes when `text` is given: the first pass finds out whether the line fits. */
typedef struct sink {
    char *text;
    size_t length;
} sink;

static void
put(sink *out, const char *bytes, size_t count)
{
    if (out->text)
        memcpy(out->text + out->length, bytes, count);
    out->length += count;
}

static void
put_text(sink *out, const char *text)
{
    put(out, text, strlen(text));
}

static void
put_escaped(sink *out, unsigned char c)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    char escape[8];
    const char *known = strchr(plain, c);
    if (known)
        (void)snprintf(escape, sizeof escape, "\\%c", letters[known - plain]);
    else
        (void)snprintf(escape, sizeof escape, "\\u%04x", c);
    put_text(out, escape);
}

static void
put_string(sink *out, const char *text)
{
    put(out, "\"", 1);
    while (*text) {
        size_t run = 0;
        while ((unsigned char)text[run] >= 0x20 && text[run] != '"' && text[run] != '\\')
            run++;
        put(out, text, run);
        text += run;
        if (*text)
            put_escaped(out, (unsigned char)*text++);
    }
    put(out, "\"", 1);
}

/* Names of members are ours: they need no escaping. */
static void
put_name(sink *out, const char *name)
{
    put_text(out, ",\"");
    put_text(out, name);
    put_text(out, "\":");
}

static void
put_string_member(sink *out, const char *name, const char *value)
{
    put_name(out, name);
    put_string(out, value);
}

static void
put_number(sink *out, uint64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, value); /* fits: 20 digits */
    put_text(out, text);
}

static void
put_u64_member(sink *out, const char *name, uint64_t value)
{
    put_name(out, name);
    put_number(out, value);
}

static void
put_i64_member(sink *out, const char *name, int64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRId64, value);
    put_name(out, name);
    put_text(out, text);
}

/* null outside 1970..9999, and for 0 when that means "none". */
static void
put_time_member(sink *out, const char *name, int64_t ms, bool zero_is_none)
{
    char text[PTIER_TIME_TEXT];
    put_name(out, name);
    if ((ms == 0 && zero_is_none) || !ptier_time_format(ms, text))
        put_text(out, "null");
    else
        put_string(out, text);
}

/* The shortest digits that give the same number back, with a point in every locale. */
static void
put_double_member(sink *out, const char *name, double value)
{
    char text[40] = "0";
    if (isfinite(value) && value != 0)
        for (int digits = 15; digits <= 17; digits++) {
            (void)snprintf(text, sizeof text, "%.*g", digits, value);
            if (strtod(text, NULL) == value)
                break;
        }
    put_name(out, name);
    bool point = false;
    for (const char *c = text; *c; c++) {
        bool ours = strchr("0123456789+-e", *c) != NULL;
        if (ours)
            put(out, c, 1);
        else if (!point)
            put(out, ".", 1);
        point = !ours;
    }
}

static void
put_credential(sink *out, const char *name, const char *plain, const char *token)
{
    if (token) {
        put_text(out, ",\"");
        put_text(out, name);
        put_text(out, "_encrypted\":");
        put_string(out, token);
    } else if (plain && *plain) {
        put_string_member(out, name, plain);
    }
}

static void
put_labels(sink *out, const ptier_record *record)
{
    put_name(out, "labels");
    put_text(out, "{");
    for (size_t i = 0; i < record->label_count; i++) {
        if (i)
            put_text(out, ",");
        put_string(out, record->labels[i].name);
        put_text(out, ":");
        put_string(out, record->labels[i].value);
    }
    put_text(out, "}");
}

static void
put_record(sink *out, const ptier_record *record, const char *username_token,
           const char *password_token)
{
    ptier_health health = record->health;
    if (health == PTIER_HEALTH_UNSPECIFIED)
        health = PTIER_HEALTH_UNKNOWN;
    put_text(out, "{\"proxytier_export\":");
    put_number(out, PTIER_EXPORT_VERSION);
    if (record->key)
        put_string_member(out, "key", record->key);
    put_string_member(out, "proxy_url", record->url);
    put_credential(out, "username", record->username, username_token);
    put_credential(out, "password", record->password, password_token);
    put_string_member(out, "source", record->source ? record->source : "");
    put_time_member(out, "fetch_time", record->fetch_time_ms, false);
    put_i64_member(out, "ttl_ms", record->ttl_ms);
    put_time_member(out, "expires_at", record->expires_at_ms, true);
    put_string_member(out, "health_status", ptier_health_name(health));
    put_u64_member(out, "failure_count",
                   record->failure_count == PTIER_FAILURES_UNSTATED ? 0 : record->failure_count);
    put_name(out, "needs_revalidation");
    put_text(out, record->needs_revalidation ? "true" : "false");
    put_labels(out, record);
    put_time_member(out, "last_accessed", record->last_access_ms, true);
    put_u64_member(out, "access_count", record->access_count);
    put_double_member(out, "latency_ms", record->latency_ms);
    put_u64_member(out, "success_count", record->success_count);
    put_u64_member(out, "report_count", record->report_count);
    put_u64_member(out, "revision", record->revision);
    put_text(out, "}\n");
}

size_t
ptier_export_line(const ptier_record *record, const char *username_token,
                  const char *password_token, char *line, size_t room)
{
    sink out = {NULL, 0};
    put_record(&out, record, username_token, password_token);
    if (out.length > room)
        return out.length;
    out.text = line;
    out.length = 0;
    put_record(&out, record, username_token, password_token);
    return out.length;
}
