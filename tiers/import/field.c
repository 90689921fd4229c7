/* The names that lists use for the fields of a record. */
#include "import/draft.h"

#include <ctype.h>
#include <string.h>

#include "import/text_util.h"

#define NAME(text, field)                                                                          \
    {                                                                                              \
        text, sizeof(text) - 1, PTIER_FIELD_##field                                                \
    }

static const struct {
    const char *name;
    size_t length;
    ptier_field field;
} names[] = {
    NAME("proxy_url", URL),
    NAME("url", URL),
    NAME("proxy", URL),
    NAME("ip_port", URL),
    NAME("ipport", URL),
    NAME("ip:port", URL),
    NAME("host:port", URL),
    NAME("proxy_address", URL),
    NAME("ip", HOST),
    NAME("host", HOST),
    NAME("ip_address", HOST),
    NAME("ipaddress", HOST),
    NAME("hostname", HOST),
    NAME("address", HOST),
    NAME("addr", HOST),
    NAME("server", HOST),
    NAME("proxy_host", HOST),
    NAME("proxy_ip", HOST),
    NAME("port", PORT),
    NAME("proxy_port", PORT),
    NAME("protocol", PROTOCOL),
    NAME("protocols", PROTOCOL),
    NAME("scheme", PROTOCOL),
    NAME("proxy_type", PROTOCOL),
    NAME("type", TYPE),
    NAME("username", USERNAME),
    NAME("user", USERNAME),
    NAME("user_name", USERNAME),
    NAME("login", USERNAME),
    NAME("proxy_user", USERNAME),
    NAME("proxy_username", USERNAME),
    NAME("password", PASSWORD),
    NAME("pass", PASSWORD),
    NAME("passwd", PASSWORD),
    NAME("pwd", PASSWORD),
    NAME("proxy_pass", PASSWORD),
    NAME("proxy_password", PASSWORD),
    NAME("username_encrypted", USERNAME_TOKEN),
    NAME("password_encrypted", PASSWORD_TOKEN),
    NAME("source", SOURCE),
    NAME("key", KEY),
    NAME("fetch_time", FETCHED),
    NAME("fetched_at", FETCHED),
    NAME("last_checked", CHECKED),
    NAME("last_check", CHECKED),
    NAME("lastchecked", CHECKED),
    NAME("checked_at", CHECKED),
    NAME("last_seen", CHECKED),
    NAME("updated_at", CHECKED),
    NAME("timestamp", CHECKED),
    NAME("created_at", CREATED),
    NAME("ttl_ms", TTL_MS),
    NAME("ttl", TTL_SECONDS),
    NAME("ttl_seconds", TTL_SECONDS),
    NAME("expires_at", EXPIRES),
    NAME("health_status", HEALTH),
    NAME("health", HEALTH),
    NAME("status", HEALTH),
    NAME("failure_count", FAILURES),
    NAME("needs_revalidation", REVALIDATE),
    NAME("last_accessed", LAST_ACCESS),
    NAME("access_count", ACCESSES),
    NAME("latency_ms", LATENCY),
    NAME("latency", LATENCY),
    NAME("response_time", LATENCY),
    NAME("response_time_ms", LATENCY),
    NAME("success_count", SUCCESSES),
    NAME("report_count", REPORTS),
    NAME("revision", REVISION),
    NAME("labels", LABELS),
    NAME("proxytier_export", MARK),
    NAME("evicted_from_l1", IGNORED), /* ProxyWhirl's own notes */
    NAME("last_health_check", IGNORED),
    NAME("last_health_error", IGNORED),
    NAME("next_check_time", IGNORED),
    NAME("recovery_attempt", IGNORED),
    NAME("consecutive_health_failures", IGNORED),
    NAME("consecutive_health_successes", IGNORED),
    NAME("total_health_checks", IGNORED),
    NAME("total_health_check_failures", IGNORED),
};
#define NAMES        (sizeof names / sizeof *names)
#define NAME_MAX_LEN 28

static ptier_field
find_exact(const char *name, size_t length)
{
    for (size_t i = 0; i < NAMES; i++)
        if (names[i].length == length && names[i].name[0] == name[0] &&
            memcmp(names[i].name, name, length) == 0)
            return names[i].field;
    return PTIER_FIELD_LABEL;
}

ptier_field
ptier_field_find(const char *name, size_t length)
{
    char normal[NAME_MAX_LEN];
    ptier_text_trim(&name, &length);
    if (length == 0 || length > sizeof normal)
        return PTIER_FIELD_LABEL;
    for (size_t i = 0; i < length; i++) {
        char c = (char)tolower((unsigned char)name[i]);
        normal[i] = c == ' ' || c == '-' ? '_' : c;
    }
    return find_exact(normal, length);
}
