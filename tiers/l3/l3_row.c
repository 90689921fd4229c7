/*
 * Rows of L3 and their keyed check. The check covers every field, the key and the name of the
 * source included, as one canonical byte string, so that no flipped bit in the file ever becomes a
 * wrong value.
 */
#include "l3/l3_internal.h"

#include <string.h>

#include <openssl/crypto.h>

#define CANON_VERSION 1
#define PLAIN_ROOM    (PTIER_TOKEN_LENGTH(PTIER_CREDENTIAL_MAX) / 4 * 3)

typedef struct text {
    const char *at; /* NULL: none */
    size_t length;
} text;

typedef struct record_row {
    uint64_t hash, revision;
    int64_t expires_wall, expires_boot, boot_tag;
    int64_t fetch_time, ttl;
    uint32_t failures;
    uint32_t health, revalidate;
    text key, url, source, username, password, labels;
} record_row;

/* Columns of L3_GET. */
enum {
    GET_ID,
    GET_KEY64,
    GET_REVISION,
    GET_EXPIRES_WALL,
    GET_EXPIRES_BOOT,
    GET_BOOT_TAG,
    GET_HEALTH,
    GET_REVALIDATE,
    GET_FAILURES,
    GET_SOURCE,
    GET_FETCH_TIME,
    GET_TTL,
    GET_INTEGRITY,
    GET_KEY,
    GET_URL,
    GET_USERNAME,
    GET_PASSWORD,
    GET_LABELS,
    GET_LAST_ACCESS,
    GET_ACCESSES,
    GET_LATENCY,
    GET_SUCCESSES,
    GET_REPORTS,
    GET_USAGE_INTEGRITY,
};

/* ---- the canonical form ---- */

static uint8_t *
put_u64(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    return at + 8;
}

static uint8_t *
put_string(uint8_t *at, text string)
{
    at = put_u64(at, string.at ? string.length : UINT64_MAX);
    if (string.at)
        memcpy(at, string.at, string.length);
    return at + (string.at ? string.length : 0);
}

/* Everything the row says, one way only. 0: too long to be one of ours. */
static size_t
canonical(const record_row *row, uint8_t canon[PTIER_L3_CANON_MAX])
{
    size_t strings = row->key.length + row->url.length + row->source.length + row->username.length +
                     row->password.length + row->labels.length;
    if (strings > PTIER_L3_CANON_MAX - 256)
        return 0;
    uint8_t *at = canon;
    *at++ = CANON_VERSION;
    at = put_u64(at, row->hash);
    at = put_u64(at, row->revision);
    at = put_u64(at, (uint64_t)row->expires_wall);
    at = put_u64(at, (uint64_t)row->expires_boot);
    at = put_u64(at, (uint64_t)row->boot_tag);
    at = put_u64(at, (uint64_t)row->fetch_time);
    at = put_u64(at, (uint64_t)row->ttl);
    at = put_u64(at, (uint64_t)row->health << 40 | (uint64_t)row->revalidate << 32 | row->failures);
    at = put_string(at, row->key);
    at = put_string(at, row->url);
    at = put_string(at, row->source);
    at = put_string(at, row->username);
    at = put_string(at, row->password);
    at = put_string(at, row->labels);
    return (size_t)(at - canon);
}

static size_t
canonical_usage(int64_t id, const ptier_usage *usage, uint8_t canon[64])
{
    uint8_t *at = canon;
    *at++ = CANON_VERSION;
    at = put_u64(at, (uint64_t)id);
    at = put_u64(at, (uint64_t)usage->last_access_ms);
    at = put_u64(at, usage->access_count);
    at = put_u64(at, usage->latency_us);
    at = put_u64(at, (uint64_t)usage->success_count << 32 | usage->report_count);
    return (size_t)(at - canon);
}

/* ---- writing ---- */

static text
text_of(const char *string)
{
    return (text){string, string ? strlen(string) : 0};
}

static int
bind_string(sqlite3_stmt *statement, int index, text string)
{
    return sqlite3_bind_text(statement, index, string.at, (int)string.length, SQLITE_STATIC);
}

static void
row_of_op(const ptier_l3 *l3, const ptier_op *op, record_row *row)
{
    const ptier_entry *entry = op->entry;
    *row = (record_row){
        .hash = entry->hash,
        .revision = op->revision,
        .expires_wall = entry->expires_wall_ms,
        .expires_boot = entry->expires_boot_ms,
        .boot_tag = (int64_t)l3->clock->boot_tag,
        .fetch_time = entry->fetch_time_ms,
        .ttl = entry->ttl_ms,
        .failures = entry->failure_count,
        .health = entry->health,
        .revalidate = entry->needs_revalidation,
        .key = text_of(ptier_entry_key(entry)),
        .url = text_of(ptier_entry_url(entry)),
        .source = text_of(ptier_entry_source(entry)),
        .username = text_of(ptier_sealed_username(op->sealed)),
        .password = text_of(ptier_sealed_password(op->sealed)),
    };
    if (entry->label_count) /* the source follows the labels */
        row->labels =
            (text){entry->text + entry->labels_at, (size_t)entry->source_at - entry->labels_at};
}

ptier_status
ptier_l3_row_bind(ptier_l3 *l3, sqlite3_stmt *statement, const ptier_op *op, int64_t source)
{
    record_row row;
    row_of_op(l3, op, &row);
    uint8_t check[PTIER_CHECK_BYTES];
    size_t length = canonical(&row, l3->writer.canon);
    if (length == 0)
        return PTIER_OUT_OF_RANGE;
    ptier_status status = ptier_keyring_check(l3->keyring, l3->writer.canon, length, check);
    if (status != PTIER_OK)
        return status;
    int codes = 0;
    codes |= sqlite3_bind_int64(statement, 1, (int64_t)row.revision);
    codes |= sqlite3_bind_int64(statement, 2, row.expires_wall);
    codes |= sqlite3_bind_int64(statement, 3, row.expires_boot);
    codes |= sqlite3_bind_int64(statement, 4, row.boot_tag);
    codes |= sqlite3_bind_int64(statement, 5, row.health);
    codes |= sqlite3_bind_int64(statement, 6, row.revalidate);
    codes |= sqlite3_bind_int64(statement, 7, row.failures);
    codes |= sqlite3_bind_int64(statement, 8, source);
    codes |= sqlite3_bind_int64(statement, 9, row.fetch_time);
    codes |= sqlite3_bind_int64(statement, 10, row.ttl);
    codes |= sqlite3_bind_blob(statement, 11, check, sizeof check, SQLITE_TRANSIENT);
    codes |= bind_string(statement, 12, row.url);
    codes |= bind_string(statement, 13, row.username);
    codes |= bind_string(statement, 14, row.password);
    codes |= sqlite3_bind_blob(statement, 15, row.labels.at, (int)row.labels.length, SQLITE_STATIC);
    return codes == SQLITE_OK ? PTIER_OK : PTIER_RESOURCE_EXHAUSTED; /* only memory can be short */
}

ptier_status
ptier_l3_usage_bind(ptier_l3 *l3, sqlite3_stmt *statement, int64_t id, const ptier_usage *usage)
{
    uint8_t canon[64], check[PTIER_CHECK_BYTES];
    ptier_status status =
        ptier_keyring_check(l3->keyring, canon, canonical_usage(id, usage, canon), check);
    if (status != PTIER_OK)
        return status;
    int codes = 0;
    codes |= sqlite3_bind_int64(statement, 1, id);
    codes |= sqlite3_bind_int64(statement, 2, usage->last_access_ms);
    codes |= sqlite3_bind_int64(statement, 3, (int64_t)usage->access_count);
    codes |= sqlite3_bind_int64(statement, 4, usage->latency_us);
    codes |= sqlite3_bind_int64(statement, 5, usage->success_count);
    codes |= sqlite3_bind_int64(statement, 6, usage->report_count);
    codes |= sqlite3_bind_blob(statement, 7, check, sizeof check, SQLITE_TRANSIENT);
    return codes == SQLITE_OK ? PTIER_OK : PTIER_RESOURCE_EXHAUSTED;
}

/* ---- reading ---- */

static text
column_string(sqlite3_stmt *statement, int column)
{
    text string = {(const char *)sqlite3_column_text(statement, column), 0};
    if (string.at)
        string.length = (size_t)sqlite3_column_bytes(statement, column);
    return string;
}

static bool
verified(ptier_l3 *l3, sqlite3_stmt *get, int column, const uint8_t *canon, size_t length)
{
    const void *check = sqlite3_column_blob(get, column);
    return length && check && sqlite3_column_bytes(get, column) == PTIER_CHECK_BYTES &&
           ptier_keyring_verify(l3->keyring, canon, length, check);
}

static void
row_of_columns(ptier_l3_conn *reader, record_row *row)
{
    sqlite3_stmt *get = reader->statements[L3_GET];
    *row = (record_row){
        .hash = (uint64_t)sqlite3_column_int64(get, GET_KEY64),
        .revision = (uint64_t)sqlite3_column_int64(get, GET_REVISION),
        .expires_wall = sqlite3_column_int64(get, GET_EXPIRES_WALL),
        .expires_boot = sqlite3_column_int64(get, GET_EXPIRES_BOOT),
        .boot_tag = sqlite3_column_int64(get, GET_BOOT_TAG),
        .fetch_time = sqlite3_column_int64(get, GET_FETCH_TIME),
        .ttl = sqlite3_column_int64(get, GET_TTL),
        .failures = (uint32_t)sqlite3_column_int64(get, GET_FAILURES),
        .health = (uint32_t)sqlite3_column_int64(get, GET_HEALTH),
        .revalidate = (uint32_t)sqlite3_column_int64(get, GET_REVALIDATE),
        .key = column_string(get, GET_KEY),
        .url = column_string(get, GET_URL),
        .source = text_of(ptier_l3_source_name(reader, sqlite3_column_int64(get, GET_SOURCE))),
        .username = column_string(get, GET_USERNAME),
        .password = column_string(get, GET_PASSWORD),
        .labels = {sqlite3_column_blob(get, GET_LABELS), 0},
    };
    if (row->labels.at)
        row->labels.length = (size_t)sqlite3_column_bytes(get, GET_LABELS);
}

/* What is unreadable of the figures counts as never used: they are no part of the record. */
static void
read_usage(ptier_l3 *l3, sqlite3_stmt *get, ptier_record *record)
{
    if (sqlite3_column_type(get, GET_USAGE_INTEGRITY) == SQLITE_NULL)
        return;
    ptier_usage usage = {
        .last_access_ms = sqlite3_column_int64(get, GET_LAST_ACCESS),
        .access_count = (uint64_t)sqlite3_column_int64(get, GET_ACCESSES),
        .latency_us = (uint32_t)sqlite3_column_int64(get, GET_LATENCY),
        .success_count = (uint32_t)sqlite3_column_int64(get, GET_SUCCESSES),
        .report_count = (uint32_t)sqlite3_column_int64(get, GET_REPORTS),
    };
    uint8_t canon[64];
    size_t length = canonical_usage(sqlite3_column_int64(get, GET_ID), &usage, canon);
    if (!verified(l3, get, GET_USAGE_INTEGRITY, canon, length)) {
        atomic_fetch_add_explicit(&l3->damaged, 1, memory_order_relaxed);
        return;
    }
    record->last_access_ms = usage.last_access_ms;
    record->access_count = usage.access_count;
    record->latency_ms = usage.latency_us / 1000.0;
    record->success_count = usage.success_count;
    record->report_count = usage.report_count;
}

/* Decrypts one token to NUL-terminated text; none stays NULL. */
static bool
open_token(ptier_l3 *l3, text token, char plain[PLAIN_ROOM + 1], const char **opened)
{
    size_t length;
    if (!token.at)
        return true;
    if (ptier_keyring_open(l3->keyring, token.at, token.length, plain, PLAIN_ROOM, &length) !=
        PTIER_OK)
        return false;
    plain[length] = '\0';
    *opened = plain;
    return length <= PTIER_CREDENTIAL_MAX && !memchr(plain, '\0', length);
}

/* name NUL value NUL ...; false: not that. */
static bool
read_labels(text blob, ptier_label labels[PTIER_LABELS_MAX], size_t *count)
{
    const char *at = blob.at, *end = at ? at + blob.length : NULL;
    for (*count = 0; at < end; (*count)++) {
        const char *name_end = memchr(at, '\0', (size_t)(end - at));
        const char *value = name_end ? name_end + 1 : end;
        const char *value_end = value < end ? memchr(value, '\0', (size_t)(end - value)) : NULL;
        if (!value_end || *count == PTIER_LABELS_MAX)
            return false;
        labels[*count] = (ptier_label){at, value};
        at = value_end + 1;
    }
    return true;
}

static ptier_status
make_entry(ptier_l3 *l3, sqlite3_stmt *get, const record_row *row, ptier_entry **entry)
{
    char username[PLAIN_ROOM + 1], password[PLAIN_ROOM + 1];
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_record record = {
        .key = row->key.at,
        .url = row->url.at,
        .source = row->source.at,
        .fetch_time_ms = row->fetch_time,
        .ttl_ms = row->ttl,
        .health = (ptier_health)row->health,
        .failure_count = row->failures,
        .needs_revalidation = row->revalidate != 0,
        .revision = row->revision,
        .labels = labels,
    };
    ptier_status status = PTIER_DATA_LOSS;
    if (open_token(l3, row->username, username, &record.username) &&
        open_token(l3, row->password, password, &record.password) &&
        read_labels(row->labels, labels, &record.label_count)) {
        read_usage(l3, get, &record);
        int64_t boot = ptier_clock_expiry(l3->clock, (uint64_t)row->boot_tag, row->expires_boot,
                                          row->expires_wall);
        *entry = ptier_entry_create(&record, row->hash, row->expires_wall, boot);
        status = *entry ? PTIER_OK : PTIER_RESOURCE_EXHAUSTED;
    }
    if (row->username.at)
        OPENSSL_cleanse(username, sizeof username);
    if (row->password.at)
        OPENSSL_cleanse(password, sizeof password);
    return status;
}

ptier_status
ptier_l3_row_read(ptier_l3 *l3, ptier_l3_conn *reader, ptier_entry **entry)
{
    sqlite3_stmt *get = reader->statements[L3_GET];
    record_row row;
    row_of_columns(reader, &row);
    if (!row.key.at || !row.url.at || !row.source.at ||
        !verified(l3, get, GET_INTEGRITY, reader->canon, canonical(&row, reader->canon)))
        return PTIER_DATA_LOSS;
    return entry ? make_entry(l3, get, &row, entry) : PTIER_OK;
}

const char *
ptier_l3_source_name(ptier_l3_conn *conn, int64_t id)
{
    ptier_l3_source *slot = &conn->sources[(uint64_t)id % PTIER_L3_SOURCES];
    if (slot->id == id && id != 0)
        return slot->name;
    sqlite3_stmt *query = conn->statements[L3_SOURCE_NAME];
    (void)sqlite3_bind_int64(query, 1, id); /* cannot fail */
    slot->id = 0;
    const char *found = NULL;
    if (sqlite3_step(query) == SQLITE_ROW &&
        (found = (const char *)sqlite3_column_text(query, 0)) &&
        strlen(found) <= PTIER_SOURCE_MAX) {
        strcpy(slot->name, found);
        slot->id = id;
    }
    (void)sqlite3_reset(query); /* repeats the step's error: no name */
    return slot->id == id && id != 0 ? slot->name : NULL;
}
