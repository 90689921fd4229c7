/* Reading option values: durations, words, labels. */
#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <proxytier/import.h>

#include "wire_check.h"

const ptier_cli_word ptier_cli_tiers[] = {
    {"L1", PTIER_TIER_L1}, {"L2", PTIER_TIER_L2}, {"L3", PTIER_TIER_L3}, {NULL, 0}};

const ptier_cli_word ptier_cli_upper_tiers[] = {
    {"L1", PTIER_TIER_L1}, {"L2", PTIER_TIER_L2}, {NULL, 0}};

const ptier_cli_word ptier_cli_schemes[] = {{"http", 0},    {"https", 0},  {"socks4", 0},
                                            {"socks4a", 0}, {"socks5", 0}, {"socks5h", 0},
                                            {NULL, 0}};

const ptier_cli_word ptier_cli_durabilities[] = {{"memory", PTIER_DURABILITY_MEMORY},
                                                 {"logged", PTIER_DURABILITY_LOGGED},
                                                 {"synced", PTIER_DURABILITY_SYNCED},
                                                 {NULL, 0}};

const ptier_cli_word ptier_cli_healths[] = {
    {"healthy", PTIER_HEALTH_HEALTHY},     {"degraded", PTIER_HEALTH_DEGRADED},
    {"unhealthy", PTIER_HEALTH_UNHEALTHY}, {"dead", PTIER_HEALTH_DEAD},
    {"unknown", PTIER_HEALTH_UNKNOWN},     {NULL, 0}};

const ptier_cli_word ptier_cli_formats[] = {
    {"auto", PTIER_IMPORT_AUTO}, {"text", PTIER_IMPORT_TEXT},   {"csv", PTIER_IMPORT_CSV},
    {"json", PTIER_IMPORT_JSON}, {"jsonl", PTIER_IMPORT_JSONL}, {NULL, 0}};

const ptier_cli_word ptier_cli_outcomes[] = {{"ok", PTIER_REPORT_OK},
                                             {"failed", PTIER_REPORT_FAILED},
                                             {"unknown", PTIER_REPORT_UNKNOWN},
                                             {NULL, 0}};

const ptier_cli_word ptier_cli_reasons[] = {
    {"capacity", PTIER_REASON_CAPACITY}, {"ttl", PTIER_REASON_TTL},
    {"health", PTIER_REASON_HEALTH},     {"corruption", PTIER_REASON_CORRUPTION},
    {"deleted", PTIER_REASON_DELETED},   {NULL, 0}};

bool
ptier_cli_duration(const char *text, int64_t *ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1e3}, {"", 1e3}, {"m", 6e4}, {"h", 36e5}, {"d", 864e5}};
    char *end;

    if (!isdigit((unsigned char)text[0]) || text[strspn(text, "0123456789.msdh")] != '\0')
        return false;
    double number = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].unit) != 0)
            continue;
        double span = number * units[i].ms;
        if (span > (double)PTIER_TTL_MAX_MS)
            return false;
        *ms = (int64_t)(span + 0.5);
        /* 0 means "never" for a TTL: a tiny span must not become it. */
        return *ms > 0 || number == 0;
    }
    return false;
}

bool
ptier_cli_word_value(const ptier_cli_word *words, const char *text, int *value)
{
    for (; words->word; words++) {
        if (strcasecmp(words->word, text) == 0) {
            *value = words->value;
            return true;
        }
    }
    return false;
}

const char *
ptier_cli_word_name(const ptier_cli_word *words, const char *text)
{
    for (; words->word; words++)
        if (strcasecmp(words->word, text) == 0)
            return words->word;
    return NULL;
}

bool
ptier_cli_label(ptier_cli_labels *labels, char *text)
{
    char *equals = strchr(text, '=');

    if (!equals || equals == text || labels->count == PTIER_LABELS_MAX || !ptier_utf8_valid(text))
        return false;
    if (equals - text > PTIER_LABEL_NAME_MAX || strlen(equals + 1) > PTIER_LABEL_VALUE_MAX)
        return false;
    *equals = '\0';
    labels->items[labels->count++] = (ptier_label){.name = text, .value = equals + 1};
    return true;
}
