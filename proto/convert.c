/* Between plain records and their wire form. Field by field, so that a new field is missed by
 * nobody who looks here. */
#include "convert.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/events.pb-c.h"
#include "proxytier/v1/rpc.pb-c.h"

/* A URL with user information: both parts percent-encoded at worst. */
#define URL_WITH_USER_MAX (PTIER_URL_MAX + 2 * 3 * PTIER_CREDENTIAL_MAX + 2)
#define TOKEN_MAX         2048 /* Fernet token of PTIER_CREDENTIAL_MAX bytes, with room to spare */

/* The plain enumerations promise the values of the .proto ones; this is where both are in sight. */
#define SAME(plain, wire) static_assert((int)(plain) == (int)(wire), #plain)
SAME(PTIER_UNAUTHENTICATED, PROXYTIER__V1__STATUS_CODE__STATUS_CODE_UNAUTHENTICATED);
SAME(PTIER_RESOURCE_EXHAUSTED, PROXYTIER__V1__STATUS_CODE__STATUS_CODE_RESOURCE_EXHAUSTED);
SAME(PTIER_UNAVAILABLE, PROXYTIER__V1__STATUS_CODE__STATUS_CODE_UNAVAILABLE);
SAME(PTIER_HEALTH_HEALTHY, PROXYTIER__V1__HEALTH_STATUS__HEALTH_STATUS_HEALTHY);
SAME(PTIER_HEALTH_DEGRADED, PROXYTIER__V1__HEALTH_STATUS__HEALTH_STATUS_DEGRADED);
SAME(PTIER_HEALTH_UNHEALTHY, PROXYTIER__V1__HEALTH_STATUS__HEALTH_STATUS_UNHEALTHY);
SAME(PTIER_HEALTH_DEAD, PROXYTIER__V1__HEALTH_STATUS__HEALTH_STATUS_DEAD);
SAME(PTIER_HEALTH_UNKNOWN, PROXYTIER__V1__HEALTH_STATUS__HEALTH_STATUS_UNKNOWN);
SAME(PTIER_TIER_L3, PROXYTIER__V1__TIER__TIER_L3);
SAME(PTIER_DURABILITY_MEMORY, PROXYTIER__V1__DURABILITY__DURABILITY_MEMORY);
SAME(PTIER_DURABILITY_SYNCED, PROXYTIER__V1__DURABILITY__DURABILITY_SYNCED);
SAME(PTIER_REASON_CAPACITY, PROXYTIER__V1__REMOVAL_REASON__REMOVAL_REASON_CAPACITY);
SAME(PTIER_REASON_HEALTH, PROXYTIER__V1__REMOVAL_REASON__REMOVAL_REASON_HEALTH);
SAME(PTIER_REASON_CLEARED, PROXYTIER__V1__REMOVAL_REASON__REMOVAL_REASON_CLEARED);
SAME(PTIER_EVENT_CREATED, PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_CREATED);
SAME(PTIER_EVENT_CLEARED, PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_CLEARED);
SAME(PTIER_EVENT_PROMOTED, PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_PROMOTED);
SAME(PTIER_EVENT_TIER_RECOVERED, PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_TIER_RECOVERED);
SAME(PTIER_REPORT_OK, PROXYTIER__V1__REPORT_OUTCOME__REPORT_OUTCOME_OK);
SAME(PTIER_REPORT_UNKNOWN, PROXYTIER__V1__REPORT_OUTCOME__REPORT_OUTCOME_UNKNOWN);
SAME(PTIER_PUT_CREATED, PROXYTIER__V1__PUT_OUTCOME__PUT_OUTCOME_CREATED);
SAME(PTIER_PUT_REJECTED, PROXYTIER__V1__PUT_OUTCOME__PUT_OUTCOME_REJECTED);
SAME(PTIER_PUT_MODE_WARM, PROXYTIER__V1__PUT_MODE__PUT_MODE_WARM);

/* protobuf-c wants char *; packing only reads. */
static char *
text(const char *string)
{
    return string ? (char *)(uintptr_t)string : (char *)(uintptr_t)protobuf_c_empty_string;
}

void
ptier_proxy_from_record(ptier_proxy_message *message, const ptier_record *record, bool credentials)
{
    Proxytier__V1__Proxy *proxy = &message->proxy;
    proxytier__v1__proxy__init(proxy);
    proxy->key = text(record->key);
    proxy->url = text(record->url);
    if (credentials) {
        proxy->username = text(record->username);
        proxy->password = text(record->password);
        proxy->username_encrypted = text(record->username_token);
        proxy->password_encrypted = text(record->password_token);
    }
    proxy->source = text(record->source);
    proxy->fetch_time_ms = record->fetch_time_ms;
    if (record->ttl_ms != PTIER_TTL_DEFAULT) {
        proxy->ttl_case = PROXYTIER__V1__PROXY__TTL_TTL_MS;
        proxy->ttl_ms = record->ttl_ms;
    }
    proxy->health = (Proxytier__V1__HealthStatus)record->health;
    if (record->failure_count != PTIER_FAILURES_UNSTATED) {
        proxy->failures_case = PROXYTIER__V1__PROXY__FAILURES_FAILURE_COUNT;
        proxy->failure_count = record->failure_count;
    }
    proxy->needs_revalidation = record->needs_revalidation;
    size_t labels = record->label_count < PTIER_LABELS_MAX ? record->label_count : PTIER_LABELS_MAX;
    for (size_t i = 0; i < labels; i++) {
        proxytier__v1__label__init(&message->labels[i]);
        message->labels[i].name = text(record->labels[i].name);
        message->labels[i].value = text(record->labels[i].value);
        message->label_list[i] = &message->labels[i];
    }
    proxy->n_labels = labels;
    proxy->labels = message->label_list;
    proxy->revision = record->revision;
    proxy->expires_at_ms = record->expires_at_ms;
    proxy->remaining_ttl_ms = record->remaining_ttl_ms;
    proxy->last_access_ms = record->last_access_ms;
    proxy->access_count = record->access_count;
    proxy->latency_ms = record->latency_ms;
    proxy->success_count = record->success_count;
    proxy->report_count = record->report_count;
}

static ptier_status
too_long(ptier_error *error, const char *what, size_t limit)
{
    return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s is longer than %zu bytes", what, limit);
}

static ptier_status
check_lengths(const Proxytier__V1__Proxy *proxy, ptier_error *error)
{
    size_t url_max = strchr(proxy->url, '@') ? URL_WITH_USER_MAX : PTIER_URL_MAX;
    const struct {
        const char *what;
        const char *value;
        size_t limit;
    } fields[] = {
        {"key", proxy->key, PTIER_KEY_MAX},
        {"url", proxy->url, url_max},
        {"username", proxy->username, PTIER_CREDENTIAL_MAX},
        {"password", proxy->password, PTIER_CREDENTIAL_MAX},
        {"username_encrypted", proxy->username_encrypted, TOKEN_MAX},
        {"password_encrypted", proxy->password_encrypted, TOKEN_MAX},
        {"source", proxy->source, PTIER_SOURCE_MAX},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strnlen(fields[i].value, fields[i].limit + 1) > fields[i].limit)
            return too_long(error, fields[i].what, fields[i].limit);
    return PTIER_OK;
}

static ptier_status
convert_labels(ptier_record *record, ptier_label labels[PTIER_LABELS_MAX],
               const Proxytier__V1__Proxy *proxy, ptier_error *error)
{
    if (proxy->n_labels > PTIER_LABELS_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%zu labels; a record has at most %d",
                          proxy->n_labels, PTIER_LABELS_MAX);
    for (size_t i = 0; i < proxy->n_labels; i++) {
        labels[i].name = proxy->labels[i]->name;
        labels[i].value = proxy->labels[i]->value;
        size_t name_length = strnlen(labels[i].name, PTIER_LABEL_NAME_MAX + 1);
        if (name_length == 0)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "label %zu has no name", i + 1);
        if (name_length > PTIER_LABEL_NAME_MAX)
            return too_long(error, "name of a label", PTIER_LABEL_NAME_MAX);
        if (strnlen(labels[i].value, PTIER_LABEL_VALUE_MAX + 1) > PTIER_LABEL_VALUE_MAX)
            return too_long(error, "value of a label", PTIER_LABEL_VALUE_MAX);
    }
    record->labels = labels;
    record->label_count = proxy->n_labels;
    return PTIER_OK;
}

static const char *
stated(const char *string)
{
    return *string ? string : NULL;
}

ptier_status
ptier_record_from_proxy(ptier_record *record, ptier_label labels[PTIER_LABELS_MAX],
                        const Proxytier__V1__Proxy *proxy, ptier_error *error)
{
    ptier_record_init(record);
    ptier_status status = check_lengths(proxy, error);
    if (status == PTIER_OK)
        status = convert_labels(record, labels, proxy, error);
    if (status != PTIER_OK)
        return status;
    if ((int)proxy->health < PTIER_HEALTH_UNSPECIFIED || (int)proxy->health > PTIER_HEALTH_UNKNOWN)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "health has the unknown value %d",
                          (int)proxy->health);
    if (!isfinite(proxy->latency_ms) || proxy->latency_ms < 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "latency_ms is not a number from 0 up");
    if (proxy->ttl_case == PROXYTIER__V1__PROXY__TTL_TTL_MS) {
        if (proxy->ttl_ms < 0 || proxy->ttl_ms > PTIER_TTL_MAX_MS)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "ttl_ms is not from 0 (never expires) to 100 years");
        record->ttl_ms = proxy->ttl_ms;
    }
    if (proxy->failures_case == PROXYTIER__V1__PROXY__FAILURES_FAILURE_COUNT)
        record->failure_count = proxy->failure_count;
    record->key = stated(proxy->key);
    record->url = proxy->url;
    record->username = stated(proxy->username);
    record->password = stated(proxy->password);
    record->username_token = stated(proxy->username_encrypted);
    record->password_token = stated(proxy->password_encrypted);
    record->source = proxy->source;
    record->fetch_time_ms = proxy->fetch_time_ms;
    record->health = (ptier_health)proxy->health;
    record->needs_revalidation = proxy->needs_revalidation;
    record->revision = proxy->revision;
    record->expires_at_ms = proxy->expires_at_ms;
    record->remaining_ttl_ms = proxy->remaining_ttl_ms;
    record->last_access_ms = proxy->last_access_ms;
    record->access_count = proxy->access_count;
    record->latency_ms = proxy->latency_ms;
    record->success_count = proxy->success_count;
    record->report_count = proxy->report_count;
    return PTIER_OK;
}
