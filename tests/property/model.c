#include "property/model.h"

#include <stdio.h>

#include <proxytier/import.h>

/* ---- texts ---- */

bool
ptier_model_derives_key(int key)
{
    return key % 4 == 3;
}

/* Of a derived key, address and user never change: they make it. */
static uint32_t
fixed_user(int key)
{
    return key % 8 == 7 ? 1000U + (uint32_t)key : 0;
}

const char *
ptier_model_scheme(int key, uint32_t address)
{
    return !ptier_model_derives_key(key) && address % 3 == 0 ? "socks5" : "http";
}

static void
url_text(int key, uint32_t address, char text[128])
{
    if (ptier_model_derives_key(key))
        (void)snprintf(text, 128, "http://172.16.%d.1:3128", key);
    else
        (void)snprintf(text, 128, "%s://10.%u.%u.%u:8080", ptier_model_scheme(key, address),
                       address >> 16 & 255, address >> 8 & 255, address & 255);
}

static void
credential_text(const char *what, uint32_t number, char text[24])
{
    text[0] = 0;
    if (number)
        (void)snprintf(text, 24, "%s-%u", what, number);
}

const char *
ptier_model_source_text(uint32_t source)
{
    static const char *const names[PTIER_MODEL_SOURCES + 1] = {"", "fast", "list a", "list b"};
    return names[source];
}

const char *
ptier_model_country(uint32_t label)
{
    static const char *const names[] = {"", "DE", "FR", "JP"};
    return names[label % 4];
}

void
ptier_model_key_text(int key, char text[72])
{
    char url[128], user[24];
    if (!ptier_model_derives_key(key)) {
        (void)snprintf(text, 72, "key-%d", key);
        return;
    }
    url_text(key, 0, url);
    credential_text("user", fixed_user(key), user);
    ptier_key_derive(url, user, false, text);
}

int
ptier_model_find_key(const char *text)
{
    static char names[PTIER_MODEL_KEYS][72];
    for (int i = 0; i < PTIER_MODEL_KEYS; i++) {
        if (!names[i][0])
            ptier_model_key_text(i, names[i]);
        if (strcmp(names[i], text) == 0)
            return i;
    }
    return -1;
}

/* The states of a record's labels: country, and a second one. */
static size_t
label_texts(const uint32_t labels[2], ptier_model_texts *texts)
{
    static const char *const names[2] = {"country", "rank"};
    size_t count = 0;
    (void)snprintf(texts->label_values[0], 16, "%s", ptier_model_country(labels[0]));
    (void)snprintf(texts->label_values[1], 16, "\"%u\"", labels[1]);
    for (int i = 0; i < 2; i++)
        if (labels[i])
            texts->labels[count++] = (ptier_label){names[i], texts->label_values[i]};
    return count;
}

void
ptier_model_record(int key, const ptier_model_put *put, ptier_model_texts *t, ptier_record *record)
{
    char plain[128];
    uint32_t user = ptier_model_derives_key(key) ? fixed_user(key) : put->user;
    ptier_record_init(record);
    ptier_model_key_text(key, t->key);
    credential_text("user", user, t->user);
    credential_text("pass", put->password, t->password);
    url_text(key, put->address, plain);
    if (put->inline_credentials && user)
        (void)snprintf(t->url, sizeof t->url, "%.*s%s%s%s@%s",
                       (int)(strstr(plain, "//") - plain) + 2, plain, t->user,
                       put->password ? ":" : "", t->password, strstr(plain, "//") + 2);
    else
        (void)snprintf(t->url, sizeof t->url, "%s", plain);
    t->label_count = label_texts(put->labels, t);
    record->key = ptier_model_derives_key(key) ? NULL : t->key;
    record->url = put->invalid ? "http://10.0.0.1:99999" : t->url;
    if (!put->inline_credentials || !user) {
        record->username = user ? t->user : NULL;
        record->password = put->password ? t->password : NULL;
    }
    record->source = put->source ? ptier_model_source_text(put->source) : NULL;
    record->labels = t->labels;
    record->label_count = t->label_count;
    record->fetch_time_ms = put->fetch_time_ms;
    record->ttl_ms = put->ttl_ms;
    record->health = put->health;
    record->failure_count = put->failures;
    record->expires_at_ms = put->expires_at_ms;
    record->last_access_ms = put->last_access_ms;
    record->access_count = put->accesses;
    record->success_count = put->successes;
    record->report_count = put->reports;
    record->needs_revalidation = put->needs_revalidation;
}

/* ---- rules ---- */

bool
ptier_model_expired(const ptier_model_entry *entry, ptier_model_time now)
{
    return entry->expires_boot_ms <= now.boot_ms;
}

static void
set_expiry(ptier_model_entry *entry, const ptier_model_put *put, ptier_model_time now)
{
    entry->ttl_ms = put->ttl_ms;
    if (put->ttl_ms == PTIER_TTL_DEFAULT)
        entry->ttl_ms = entry->source == PTIER_MODEL_FAST_SOURCE ? PTIER_MODEL_FAST_TTL_MS
                                                                 : PTIER_MODEL_DEFAULT_TTL_MS;
    entry->expires_wall_ms = entry->ttl_ms ? now.wall_ms + entry->ttl_ms : 0;
    if (put->restore && put->expires_at_ms) /* unknown: counted from now */
        entry->expires_wall_ms = put->expires_at_ms;
    entry->expires_boot_ms =
        entry->expires_wall_ms ? now.boot_ms + entry->expires_wall_ms - now.wall_ms : INT64_MAX;
}

/* What is stated wins; what is not stays, credentials only if they are for the same proxy and user.
 */
static void
take_metadata(ptier_model_entry *after, const ptier_model_entry *old, const ptier_model_put *put)
{
    bool labelled = put->labels[0] || put->labels[1];
    bool same_user = put->user == 0 || put->user == old->user;
    bool same = old->exists && same_user && put->address == old->address;
    after->address = put->address;
    after->user = put->user ? put->user : same ? old->user : 0;
    after->password = put->password ? put->password : same ? old->password : 0;
    after->source = put->source ? put->source : old->exists ? old->source : 0;
    for (int i = 0; i < 2; i++)
        after->labels[i] = labelled ? put->labels[i] : old->exists ? old->labels[i] : 0;
}

/* Stated health counts with a newer fetch time, also when an export is restored. */
static void
take_health(ptier_model_entry *after, const ptier_model_entry *old, const ptier_model_put *put)
{
    bool newer = put->fetch_time_ms == 0 || put->fetch_time_ms > old->fetch_time_ms;
    bool marked = put->restore && put->needs_revalidation;
    after->health = put->health ? put->health : PTIER_HEALTH_UNKNOWN;
    after->failures = put->failures == PTIER_FAILURES_UNSTATED ? 0 : put->failures;
    after->needs_revalidation = marked;
    if (!old->exists)
        return;
    if (put->health == PTIER_HEALTH_UNSPECIFIED || !newer)
        after->health = old->health;
    if (put->failures == PTIER_FAILURES_UNSTATED || !newer)
        after->failures = old->failures;
    if (!marked || !newer)
        after->needs_revalidation = old->needs_revalidation && after->failures != 0;
}

static uint64_t
larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Of two sets of figures the one of more uses is taken; these are the most they can be. */
static void
take_usage(ptier_model_entry *after, const ptier_model_entry *old, const ptier_model_put *put,
           int64_t wall_ms)
{
    static const ptier_model_entry none = {0};
    static const ptier_model_put nothing = {0};
    const ptier_model_entry *o = old->exists ? old : &none;
    const ptier_model_put *p = put->restore ? put : &nothing;
    after->accesses = larger(o->accesses, p->accesses);
    after->successes = larger(o->successes, p->successes);
    after->reports = larger(o->reports, p->reports);
    int64_t stated = p->last_access_ms < wall_ms ? p->last_access_ms : wall_ms;
    after->last_access_ms = o->last_access_ms > stated ? o->last_access_ms : stated;
}

ptier_put_outcome
ptier_model_predict_put(const ptier_model_entry *entry, const ptier_model_put *put,
                        ptier_model_time now, ptier_model_entry *after)
{
    *after = (ptier_model_entry){.exists = true};
    if (put->invalid)
        return PTIER_PUT_REJECTED;
    take_metadata(after, entry, put);
    set_expiry(after, put, now);
    if (put->restore && ptier_model_expired(after, now))
        return PTIER_PUT_SKIPPED_EXPIRED;
    if (put->mode == PTIER_PUT_MODE_WARM && entry->exists && put->fetch_time_ms &&
        put->fetch_time_ms < entry->fetch_time_ms)
        return PTIER_PUT_SKIPPED_OLDER;
    if (put->mode == PTIER_PUT_MODE_WARM && entry->quarantined_until_boot_ms > now.boot_ms)
        return PTIER_PUT_SKIPPED_QUARANTINED;
    take_health(after, entry, put);
    take_usage(after, entry, put, now.wall_ms);
    after->quarantine_lifted =
        entry->quarantine_lifted || entry->quarantine_unsure || entry->quarantined_until_boot_ms;
    after->fetch_time_ms = put->fetch_time_ms ? put->fetch_time_ms : now.wall_ms;
    return entry->exists ? PTIER_PUT_UPDATED : PTIER_PUT_CREATED;
}

ptier_model_verdict
ptier_model_predict_report(const ptier_model_entry *entry, ptier_outcome outcome,
                           ptier_model_entry *after)
{
    *after = *entry;
    after->reports += outcome != PTIER_REPORT_UNKNOWN;
    after->successes += outcome == PTIER_REPORT_OK;
    if (outcome == PTIER_REPORT_OK) {
        after->failures = 0;
        after->health = PTIER_HEALTH_HEALTHY;
        after->needs_revalidation = false;
    } else if (outcome == PTIER_REPORT_FAILED) {
        after->failures++;
        after->health = PTIER_HEALTH_DEGRADED;
        after->needs_revalidation = true;
        if (after->failures >= PTIER_MODEL_THRESHOLD)
            return PTIER_MODEL_REMOVAL;
    }
    bool same = after->failures == entry->failures && after->health == entry->health &&
                after->needs_revalidation == entry->needs_revalidation;
    return same ? PTIER_MODEL_NOTHING : PTIER_MODEL_CHANGE;
}

void
ptier_model_reboot(ptier_model *model, ptier_model_time now)
{
    for (int i = 0; i < PTIER_MODEL_KEYS; i++) {
        ptier_model_entry *e = &model->entries[i];
        if (e->expires_wall_ms)
            e->expires_boot_ms = now.boot_ms + e->expires_wall_ms - now.wall_ms;
        e->quarantine_unsure |= e->quarantined_until_boot_ms != 0;
    }
}

/* ---- comparing ---- */

static bool
same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static const char *
text_difference(const ptier_model_entry *entry, int key, const ptier_record *record)
{
    ptier_model_texts t;
    char url[128], key_text[72];
    ptier_model_key_text(key, key_text);
    url_text(key, entry->address, url);
    credential_text("user", ptier_model_derives_key(key) ? fixed_user(key) : entry->user, t.user);
    credential_text("pass", entry->password, t.password);
    size_t labels = label_texts(entry->labels, &t);
    if (!same_text(record->key, key_text))
        return "key";
    if (!same_text(record->url, url))
        return "url";
    if (!same_text(record->username, t.user))
        return "username";
    if (!same_text(record->password, t.password))
        return "password";
    if (!same_text(record->source, ptier_model_source_text(entry->source)))
        return "source";
    if (record->label_count != labels)
        return "number of labels";
    for (size_t i = 0; i < labels; i++)
        if (!same_text(record->labels[i].name, t.labels[i].name) ||
            !same_text(record->labels[i].value, t.labels[i].value))
            return "label";
    return NULL;
}

const char *
ptier_model_difference(const ptier_model_entry *e, int key, const ptier_record *record,
                       ptier_model_time now)
{
    const char *text = text_difference(e, key, record);
    if (text)
        return text;
    const struct {
        const char *name;
        int64_t is, expected;
    } numbers[] = {
        {"revision", (int64_t)record->revision, (int64_t)e->revision},
        {"fetch_time_ms", record->fetch_time_ms, e->fetch_time_ms},
        {"ttl_ms", record->ttl_ms, e->ttl_ms},
        {"expires_at_ms", record->expires_at_ms, e->expires_wall_ms},
        {"remaining_ttl_ms", record->remaining_ttl_ms,
         e->expires_wall_ms ? e->expires_boot_ms - now.boot_ms : -1},
        {"health", record->health, e->health},
        {"failure_count", record->failure_count, e->failures},
        {"needs_revalidation", record->needs_revalidation, e->needs_revalidation},
    };
    static char difference[96];
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (numbers[i].is == numbers[i].expected)
            continue;
        (void)snprintf(difference, sizeof difference, "%s (%lld, expected %lld)", numbers[i].name,
                       (long long)numbers[i].is, (long long)numbers[i].expected);
        return difference;
    }
    return NULL;
}

bool
ptier_model_usage_ahead(const ptier_model_entry *e, const ptier_record *record)
{
    return record->access_count > e->accesses || record->success_count > e->successes ||
           record->report_count > e->reports || record->last_access_ms > e->last_access_ms;
}
