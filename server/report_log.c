/* See report_log.h. */
#include "report_log.h"

#include <string.h>
#include <strings.h>

#define LINES_MAX 100 /* of one kind for one call */
#define SPACES    " \t\r\n"
#define STARS     "***"

/* Whether `length` bytes end in a word for what no log may show, quotes behind it aside. */
static bool
names_a_secret(const char *text, size_t length)
{
    static const char *const names[] = {"password", "passwd", "pwd", "pass",
                                        "token",    "secret", "key", "auth",
                                        "username", "login",  "user"};
    while (length && strchr("\"'", text[length - 1]))
        length--;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = strlen(names[i]);
        if (length >= n && strncasecmp(text + length - n, names[i], n) == 0)
            return true;
    }
    return false;
}

/* Where the value begins in `name=value` and `name:value` of a secret; NULL: it is none. */
static const char *
value_of_secret(const char *word, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((word[i] == '=' || word[i] == ':') && names_a_secret(word, i))
            return word + i + 1;
    return NULL;
}

/* User and password of a proxy's address; length 0: none. */
static size_t
credentials_of(const char *word, size_t length, size_t *start)
{
    *start = 0;
    const char *at = memrchr(word, '@', length);
    if (at) {
        const char *authority = memmem(word, (size_t)(at - word), "://", 3);
        *start = authority ? (size_t)(authority + 3 - word) : 0;
        return (size_t)(at - word) - *start;
    }
    /* host:port:user:password, as providers hand proxies out */
    const char *port = memchr(word, ':', length);
    if (!port || *word == '[')
        return 0;
    size_t digits = strspn(port + 1, "0123456789");
    const char *user = port + 1 + digits;
    size_t left = length - (size_t)(user - word);
    if (digits == 0 || left == 0 || *user != ':' || !memchr(user + 1, ':', left - 1))
        return 0;
    *start = (size_t)(user + 1 - word);
    return left - 1;
}

/* The part of a word that has to be hidden; length 0: none. */
static size_t
secret_of(const char *word, size_t length, bool is_value, size_t *start)
{
    *start = 0;
    if (is_value)
        return length;
    size_t secret = credentials_of(word, length, start);
    const char *value = value_of_secret(word, length);
    if (!value)
        return secret;
    size_t from = (size_t)(value - word);
    bool in_address = secret && *start >= 3 && memcmp(word + *start - 3, "://", 3) == 0;
    if (in_address && from <= *start + secret)
        return secret; /* a user whose name ends so */
    if (!secret || from < *start)
        *start = from; /* where it ends is not known: all of the rest goes */
    return length - *start;
}

static void
append(char masked[PTIER_MASKED_MAX], size_t *used, const char *text, size_t length)
{
    if (length > PTIER_MASKED_MAX - 1 - *used)
        length = PTIER_MASKED_MAX - 1 - *used;
    memcpy(masked + *used, text, length);
    *used += length;
    masked[*used] = '\0';
}

void
ptier_mask_credentials(const char *text, char masked[PTIER_MASKED_MAX])
{
    size_t used = 0;
    bool is_value = false;
    masked[0] = '\0';
    while (*text) {
        size_t space = strspn(text, SPACES);
        append(masked, &used, text, space);
        text += space;
        size_t length = strcspn(text, SPACES), start;
        size_t secret = secret_of(text, length, is_value, &start);
        append(masked, &used, text, start);
        if (secret)
            append(masked, &used, STARS, strlen(STARS));
        append(masked, &used, text + start + secret, length - start - secret);
        is_value = (length == 5 && strncasecmp(text, "basic", 5) == 0) ||
                   (length == 6 && strncasecmp(text, "bearer", 6) == 0) ||
                   value_of_secret(text, length) == text + length;
        text += length;
    }
}

uint64_t
ptier_report_log_begin(const ptier_service *service)
{
    if (!ptier_log_enabled(service->log, PTIER_LOG_INFO))
        return 0;
    return ptier_journal_get_bounds(service->journal, PTIER_STREAM_CHANGES).last;
}

static void
log_reports(const ptier_service *service, const ptier_report *reports,
            const ptier_report_result *results, size_t count)
{
    for (size_t i = 0; i < count && i < LINES_MAX; i++) {
        char error[PTIER_MASKED_MAX];
        ptier_mask_credentials(reports[i].error ? reports[i].error : "", error);
        ptier_log_write(service->log, PTIER_LOG_DEBUG, "report",
                        "%s: %s%s, %u failures in a row%s%s", reports[i].key,
                        reports[i].outcome == PTIER_REPORT_FAILED ? "failed" : "ok",
                        results[i].found ? "" : " (not cached)", results[i].failure_count,
                        *error ? ": " : "", error);
    }
    if (count > LINES_MAX)
        ptier_log_write(service->log, PTIER_LOG_DEBUG, "report",
                        "and %zu more reports in this call", count - LINES_MAX);
}

static void
log_removal(const ptier_service *service, const ptier_report *report,
            const ptier_report_result *result, const ptier_entry *entry)
{
    char error[PTIER_MASKED_MAX];
    ptier_record record = {.url = "its url is not known any more"};
    if (entry)
        ptier_cache_read(service->cache, entry, &record, NULL);
    ptier_mask_credentials(report->error ? report->error : "none given", error);
    ptier_log_write(service->log, PTIER_LOG_INFO, "removed_by_health",
                    "%s, %s: %u failures in a row, the last error: %s", report->key, record.url,
                    result->failure_count, error);
}

static bool
is_of(const ptier_service *service, const ptier_journal_item *item, const char *key)
{
    ptier_record record;
    if (item->type != PTIER_EVENT_REMOVED || item->reason != PTIER_REASON_HEALTH || !item->entry)
        return false;
    ptier_cache_read(service->cache, item->entry, &record, NULL);
    return strcmp(record.key, key) == 0;
}

/* The next removal at or after report i. */
static size_t
next_removed(const ptier_report_result *results, size_t i, size_t count)
{
    while (i < count && !results[i].removed)
        i++;
    return i;
}

/*
 * Results hold no url, and a look-up before each report would cost every report: the change feed
 * has the removed entries, in the order of the reports, between those of other calls.
 */
static void
log_removals(const ptier_service *service, uint64_t after, const ptier_report *reports,
             const ptier_report_result *results, size_t count)
{
    ptier_journal_item items[PTIER_JOURNAL_READ_MAX];
    ptier_journal_bounds bounds;
    size_t lines = 0, got, next = next_removed(results, 0, count);
    while (next < count && lines < LINES_MAX &&
           (got = ptier_journal_read(service->journal, PTIER_STREAM_CHANGES, after, items,
                                     PTIER_JOURNAL_READ_MAX, &bounds)) > 0) {
        for (size_t i = 0; i < got && next < count && lines < LINES_MAX; i++) {
            if (!is_of(service, &items[i], reports[next].key))
                continue;
            log_removal(service, &reports[next], &results[next], items[i].entry);
            lines++;
            next = next_removed(results, next + 1, count);
        }
        after = items[got - 1].sequence;
        ptier_journal_release(items, got);
    }
    for (; next < count && lines < LINES_MAX; lines++) { /* a short journal has lost them already */
        log_removal(service, &reports[next], &results[next], NULL);
        next = next_removed(results, next + 1, count);
    }
    size_t left = 0;
    for (; next < count; next = next_removed(results, next + 1, count))
        left++;
    if (left)
        ptier_log_write(service->log, PTIER_LOG_INFO, "removed_by_health",
                        "and %zu more by this call", left);
}

void
ptier_report_log(const ptier_service *service, uint64_t begin, const ptier_report *reports,
                 const ptier_report_result *results, size_t count)
{
    if (ptier_log_enabled(service->log, PTIER_LOG_DEBUG))
        log_reports(service, reports, results, count);
    if (ptier_log_enabled(service->log, PTIER_LOG_INFO))
        log_removals(service, begin, reports, results, count);
}
