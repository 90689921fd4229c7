/*
 * Rows of L3 and their keyed check. The check covers every field, the key and the name of the
 * source included, as one canonical byte string, so that no flipped bit in the file ever becomes a
 * wrong value.
 */
#include "l3/l3_internal.h"

#include <string.h>

#include <openssl/crypto.h>

#include "sealed.h"

#define CANON_VERSION 1

/* ---- the canonical form ---- */

static uint8_t *
put_u64(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    return at + 8;
}

static uint8_t *
put_string(uint8_t *at, ptier_l3_text string)
{
    at = put_u64(at, string.at ? string.length : UINT64_MAX);
    if (string.at)
        memcpy(at, string.at, string.length);
    return at + (string.at ? string.length : 0);
}

/* Everything the row says, one way only. 0: too long to be one of ours. */
static size_t
canonical(const ptier_l3_row *row, uint8_t canon[PTIER_L3_CANON_MAX])
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

static ptier_l3_text
text_of(const char *string)
{
    return (ptier_l3_text){string, string ? strlen(string) : 0};
}

static int
bind_string(sqlite3_stmt *statement, int index, ptier_l3_text string)
{
    return sqlite3_bind_text(statement, index, string.at, (int)string.length, SQLITE_STATIC);
}

static void
row_of_op(const ptier_l3 *l3, const ptier_op *op, ptier_l3_row *row)
{
    const ptier_entry *entry = op->entry;
    *row = (ptier_l3_row){
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
        row->labels = (ptier_l3_text){entry->text + entry->labels_at,
                                      (size_t)entry->source_at - entry->labels_at};
}

ptier_status
ptier_l3_row_check(ptier_l3 *l3, const ptier_l3_row *row, uint8_t canon[PTIER_L3_CANON_MAX],
                   uint8_t check[PTIER_CHECK_BYTES])
{
    size_t length = canonical(row, canon);
    if (length == 0)
        return PTIER_OUT_OF_RANGE;
    return ptier_keyring_check(l3->keyring, canon, length, check);
}

ptier_status
ptier_l3_row_bind(ptier_l3 *l3, sqlite3_stmt *statement, int row_number, const ptier_op *op,
                  int64_t source)
{
    ptier_l3_row row;
    row_of_op(l3, op, &row);
    uint8_t *check = l3->writer.check[row_number]; /* as long as the statement looks at it */
    ptier_status status = ptier_l3_row_check(l3, &row, l3->writer.canon, check);
    if (status != PTIER_OK)
        return status;
    int codes = 0, at = row_number * PTIER_L3_COLUMNS;
    codes |= sqlite3_bind_int64(statement, at + 1, (int64_t)row.revision);
    codes |= sqlite3_bind_int64(statement, at + 2, row.expires_wall);
    codes |= sqlite3_bind_int64(statement, at + 3, row.expires_boot);
    codes |= sqlite3_bind_int64(statement, at + 4, row.boot_tag);
    codes |= sqlite3_bind_int64(statement, at + 5, row.health);
    codes |= sqlite3_bind_int64(statement, at + 6, row.revalidate);
    codes |= sqlite3_bind_int64(statement, at + 7, row.failures);
    codes |= sqlite3_bind_int64(statement, at + 8, source);
    codes |= sqlite3_bind_int64(statement, at + 9, row.fetch_time);
    codes |= sqlite3_bind_int64(statement, at + 10, row.ttl);
    codes |= sqlite3_bind_blob(statement, at + 11, check, PTIER_CHECK_BYTES, SQLITE_STATIC);
    codes |= bind_string(statement, at + 12, row.url);
    codes |= bind_string(statement, at + 13, row.username);
    codes |= bind_string(statement, at + 14, row.password);
    codes |=
        sqlite3_bind_blob(statement, at + 15, row.labels.at, (int)row.labels.length, SQLITE_STATIC);
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

static ptier_l3_text
column_string(sqlite3_stmt *statement, int column)
{
    ptier_l3_text string = {(const char *)sqlite3_column_text(statement, column), 0};
    if (string.at)
        string.length = (size_t)sqlite3_column_bytes(statement, column);
    return string;
}

/* Index of the key that made the check in this column; -1: none of ours. */
static int
maker(ptier_l3 *l3, sqlite3_stmt *row, int column, const uint8_t *canon, size_t length)
{
    const void *check = sqlite3_column_blob(row, column);
    if (!length || !check || sqlite3_column_bytes(row, column) != PTIER_CHECK_BYTES)
        return -1;
    return ptier_keyring_verify_which(l3->keyring, canon, length, check);
}

static void
row_of_columns(ptier_l3 *l3, ptier_l3_conn *conn, sqlite3_stmt *get, ptier_l3_row *row)
{
    *row = (ptier_l3_row){
        .hash = (uint64_t)sqlite3_column_int64(get, L3_KEY64),
        .revision = (uint64_t)sqlite3_column_int64(get, L3_REVISION),
        .expires_wall = sqlite3_column_int64(get, L3_EXPIRES_WALL),
        .expires_boot = sqlite3_column_int64(get, L3_EXPIRES_BOOT),
        .boot_tag = sqlite3_column_int64(get, L3_BOOT_TAG),
        .fetch_time = sqlite3_column_int64(get, L3_FETCH_TIME),
        .ttl = sqlite3_column_int64(get, L3_TTL),
        .failures = (uint32_t)sqlite3_column_int64(get, L3_FAILURES),
        .health = (uint32_t)sqlite3_column_int64(get, L3_HEALTH),
        .revalidate = (uint32_t)sqlite3_column_int64(get, L3_REVALIDATE),
        .key = column_string(get, L3_KEY),
        .url = column_string(get, L3_URL),
        .source = text_of(ptier_l3_source_name(l3, conn, sqlite3_column_int64(get, L3_SOURCE))),
        .username = column_string(get, L3_USERNAME),
        .password = column_string(get, L3_PASSWORD),
        .labels = {sqlite3_column_blob(get, L3_LABELS), 0},
    };
    if (row->labels.at)
        row->labels.length = (size_t)sqlite3_column_bytes(get, L3_LABELS);
}

static bool
name_by(ptier_l3 *l3, sqlite3_stmt *query, int64_t id, char name[PTIER_SOURCE_MAX + 1])
{
    if (!query)
        return false;
    (void)sqlite3_bind_int64(query, 1, id); /* cannot fail */
    const char *found = NULL;
    int code = sqlite3_step(query);
    if (code == SQLITE_ROW)
        found = (const char *)sqlite3_column_text(query, 0);
    bool fits = found && strlen(found) <= PTIER_SOURCE_MAX;
    if (fits)
        strcpy(name, found);
    (void)sqlite3_reset(query); /* repeats code */
    ptier_l3_note(l3, code);
    return fits;
}

/* A source's damaged name would take all of its rows along: the name is there twice, and the check
 * of the row tells which one is right. */
static int
maker_by_other_source(ptier_l3 *l3, ptier_l3_conn *conn, sqlite3_stmt *get, ptier_l3_row *row)
{
    int64_t id = sqlite3_column_int64(get, L3_SOURCE);
    ptier_l3_source *slot = &conn->sources[(uint64_t)id % PTIER_L3_SOURCES];
    slot->id = 0; /* the row may borrow the name, nobody else is to find it */
    if (!name_by(l3, conn->statements[L3_SOURCE_NAME_AGAIN], id, slot->name))
        return -1;
    row->source = text_of(slot->name);
    int which = maker(l3, get, L3_INTEGRITY, conn->canon, canonical(row, conn->canon));
    if (which >= 0)
        ptier_l3_found_damage(l3, "the name of source %s", slot->name);
    return which;
}

ptier_status
ptier_l3_row_verify(ptier_l3 *l3, ptier_l3_conn *conn, sqlite3_stmt *statement, ptier_l3_row *row,
                    int *which)
{
    *which = -1;
    row_of_columns(l3, conn, statement, row);
    if (!row->key.at || !row->url.at || row->health > PTIER_HEALTH_UNKNOWN || row->revalidate > 1)
        return PTIER_DATA_LOSS;
    if (row->source.at)
        *which = maker(l3, statement, L3_INTEGRITY, conn->canon, canonical(row, conn->canon));
    if (*which < 0)
        *which = maker_by_other_source(l3, conn, statement, row);
    return *which < 0 ? PTIER_DATA_LOSS : PTIER_OK;
}

bool
ptier_l3_usage_read(ptier_l3 *l3, sqlite3_stmt *statement, ptier_usage *usage, int *which)
{
    if (sqlite3_column_type(statement, L3_USAGE_INTEGRITY) == SQLITE_NULL)
        return false;
    *usage = (ptier_usage){
        .last_access_ms = sqlite3_column_int64(statement, L3_LAST_ACCESS),
        .access_count = (uint64_t)sqlite3_column_int64(statement, L3_ACCESSES),
        .latency_us = (uint32_t)sqlite3_column_int64(statement, L3_LATENCY),
        .success_count = (uint32_t)sqlite3_column_int64(statement, L3_SUCCESSES),
        .report_count = (uint32_t)sqlite3_column_int64(statement, L3_REPORTS),
    };
    uint8_t canon[64];
    size_t length = canonical_usage(sqlite3_column_int64(statement, L3_ID), usage, canon);
    *which = maker(l3, statement, L3_USAGE_INTEGRITY, canon, length);
    if (*which < 0)
        atomic_fetch_add_explicit(&l3->damaged, 1, memory_order_relaxed);
    return *which >= 0;
}

/* What is unreadable of the figures counts as never used: they are no part of the record. */
static void
read_usage(ptier_l3 *l3, sqlite3_stmt *get, ptier_record *record)
{
    ptier_usage usage;
    int which;
    if (!ptier_l3_usage_read(l3, get, &usage, &which))
        return;
    record->last_access_ms = usage.last_access_ms;
    record->access_count = usage.access_count;
    record->latency_ms = usage.latency_us / 1000.0;
    record->success_count = usage.success_count;
    record->report_count = usage.report_count;
}

/* Decrypts one token to NUL-terminated text; none stays NULL, and "". */
static bool
open_token(ptier_l3 *l3, ptier_l3_text token, char plain[PTIER_CREDENTIAL_MAX + 1],
           const char **opened)
{
    plain[0] = '\0';
    if (!token.at)
        return true;
    *opened = plain;
    return ptier_sealed_open(l3->keyring, token.at, token.length, plain) == PTIER_OK;
}

/* name NUL value NUL ...; false: not that. */
static bool
read_labels(ptier_l3_text blob, ptier_label labels[PTIER_LABELS_MAX], size_t *count)
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
make_entry(ptier_l3 *l3, sqlite3_stmt *get, const ptier_l3_row *row, ptier_entry **entry)
{
    char username[PTIER_CREDENTIAL_MAX + 1], password[PTIER_CREDENTIAL_MAX + 1];
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
    bool opened = open_token(l3, row->username, username, &record.username);
    opened &= open_token(l3, row->password, password, &record.password);
    if (opened && read_labels(row->labels, labels, &record.label_count)) {
        read_usage(l3, get, &record);
        int64_t boot = ptier_clock_expiry(l3->clock, (uint64_t)row->boot_tag, row->expires_boot,
                                          row->expires_wall);
        *entry = ptier_entry_create(&record, row->hash, row->expires_wall, boot);
        status = *entry ? PTIER_OK : PTIER_RESOURCE_EXHAUSTED;
    }
    OPENSSL_cleanse(username, strlen(username));
    OPENSSL_cleanse(password, strlen(password));
    return status;
}

ptier_status
ptier_l3_row_read(ptier_l3 *l3, ptier_l3_conn *conn, sqlite3_stmt *statement, ptier_entry **entry)
{
    ptier_l3_row row;
    int which;
    ptier_status status = ptier_l3_row_verify(l3, conn, statement, &row, &which);
    return status == PTIER_OK ? make_entry(l3, statement, &row, entry) : status;
}

/* Checks are verified when a record is read; here only what would not make sense is left out. */
bool
ptier_l3_row_item(ptier_l3 *l3, ptier_l3_conn *conn, sqlite3_stmt *statement, ptier_scan_item *item)
{
    int64_t health = sqlite3_column_int64(statement, L3_HEALTH);
    int64_t wall = sqlite3_column_int64(statement, L3_EXPIRES_WALL);
    item->hash = (uint64_t)sqlite3_column_int64(statement, L3_KEY64);
    item->revision = (uint64_t)sqlite3_column_int64(statement, L3_REVISION);
    item->health = (uint8_t)health;
    item->key = (const char *)sqlite3_column_text(statement, L3_KEY);
    item->url = (const char *)sqlite3_column_text(statement, L3_URL);
    item->source = ptier_l3_source_name(l3, conn, sqlite3_column_int64(statement, L3_SOURCE));
    if (health < PTIER_HEALTH_HEALTHY || health > PTIER_HEALTH_UNKNOWN || wall < 0 ||
        item->revision == 0 || !item->key || !item->url || !item->source)
        return false;
    uint64_t tag = (uint64_t)sqlite3_column_int64(statement, L3_BOOT_TAG);
    item->expires_boot_ms =
        ptier_clock_expiry(l3->clock, tag, sqlite3_column_int64(statement, L3_EXPIRES_BOOT), wall);
    return true;
}

const char *
ptier_l3_source_name(ptier_l3 *l3, ptier_l3_conn *conn, int64_t id)
{
    ptier_l3_source *slot = &conn->sources[(uint64_t)id % PTIER_L3_SOURCES];
    if (slot->id == id && id != 0)
        return slot->name;
    slot->id = 0;
    if (!name_by(l3, conn->statements[L3_SOURCE_NAME], id, slot->name) &&
        !name_by(l3, conn->statements[L3_SOURCE_NAME_AGAIN], id, slot->name))
        return NULL;
    slot->id = id;
    return slot->name;
}
