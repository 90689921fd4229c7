/*
 * What the database knows of itself. 'totals' is one value under a keyed check: the prefix, how
 * many rows there are and a sum over them, and which keys the file needs; it changes in the same
 * transaction as the rows. 'key' names the keys once more, in clear view, so that a wrong key is
 * told from damage.
 */
#include "l3/l3_internal.h"

#include <string.h>

#define KEY_CHECK_TEXT "proxytier database key"
#define TOTALS_LABEL   "proxytier database totals"
#define TOTALS_VERSION 2 /* the schema's */
#define TOTALS_FIXED   (1 + 3 * 8)
#define KEYS_BYTES     ((size_t)PTIER_L3_KEYS * PTIER_CHECK_BYTES)

/* What the check of the totals covers: the label, then the value as stored (without the check). */
typedef struct covered {
    char label[sizeof TOTALS_LABEL];
    uint8_t value[TOTALS_FIXED + KEYS_BYTES + PTIER_CHECK_BYTES]; /* the check goes behind */
} covered;

static void
put_u64(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t
get_u64(const uint8_t *at)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

/* Leaves the statement on the value when there is one; the caller resets. */
static int
look_up(ptier_l3_conn *conn, const char *name, sqlite3_stmt **query)
{
    *query = conn->statements[L3_GET_META];
    if (!*query)
        return SQLITE_CORRUPT;
    (void)sqlite3_bind_text(*query, 1, name, -1, SQLITE_STATIC); /* shows in the step */
    return sqlite3_step(*query);
}

static int
looked_up(int code, sqlite3_stmt *query)
{
    (void)sqlite3_reset(query); /* repeats code; NULL is fine */
    return code == SQLITE_ROW || code == SQLITE_DONE || ptier_l3_is_damage(code) ? SQLITE_OK : code;
}

/* ---- keys ---- */

static bool
decode_keys(const void *bytes, size_t length, ptier_l3_keys *keys)
{
    if (!bytes || length == 0 || length > KEYS_BYTES || length % PTIER_CHECK_BYTES)
        return false;
    memcpy(keys->checks, bytes, length);
    keys->count = length / PTIER_CHECK_BYTES;
    return true;
}

size_t
ptier_l3_keys_known(ptier_l3 *l3, const ptier_l3_keys *keys)
{
    size_t known = 0;
    for (size_t i = 0; i < keys->count; i++)
        known += ptier_keyring_verify(l3->keyring, KEY_CHECK_TEXT, sizeof KEY_CHECK_TEXT - 1,
                                      keys->checks[i]);
    return known;
}

bool
ptier_l3_keys_equal(const ptier_l3_keys *a, const ptier_l3_keys *b)
{
    return a->count == b->count && memcmp(a->checks, b->checks, a->count * PTIER_CHECK_BYTES) == 0;
}

/* Version 1 had one, as a number. */
int
ptier_l3_read_keys(ptier_l3 *l3, ptier_l3_conn *conn, ptier_l3_keys *keys, ptier_l3_found *found)
{
    sqlite3_stmt *query;
    bool legible = false;
    int code = look_up(conn, "key", &query);
    if (code == SQLITE_ROW && sqlite3_column_type(query, 0) == SQLITE_INTEGER) {
        int64_t stored = sqlite3_column_int64(query, 0);
        legible = decode_keys(&stored, sizeof stored, keys);
    } else if (code == SQLITE_ROW && sqlite3_column_type(query, 0) == SQLITE_BLOB) {
        const void *stored = sqlite3_column_blob(query, 0);
        legible = decode_keys(stored, (size_t)sqlite3_column_bytes(query, 0), keys);
    }
    *found = code == SQLITE_DONE ? L3_FOUND_NONE : L3_FOUND_ILLEGIBLE;
    if (legible)
        *found = ptier_l3_keys_known(l3, keys) == keys->count ? L3_FOUND_GOOD : L3_FOUND_FOREIGN;
    return looked_up(code, query);
}

static ptier_status
crypto_failed(ptier_error *error)
{
    return ptier_fail(error, PTIER_INTERNAL, "the crypto library (OpenSSL) failed");
}

static int
set_meta(ptier_l3 *l3, const char *name, const void *value, size_t length)
{
    sqlite3_stmt *set = l3->writer.statements[L3_SET_META];
    (void)sqlite3_bind_text(set, 1, name, -1, SQLITE_STATIC); /* a failed bind fails the run */
    (void)sqlite3_bind_blob(set, 2, value, (int)length, SQLITE_TRANSIENT);
    return ptier_l3_run(set);
}

bool
ptier_l3_needs_first_key(ptier_l3 *l3)
{
    for (size_t i = 0; i < l3->keys.count; i++)
        if (ptier_keyring_verify_which(l3->keyring, KEY_CHECK_TEXT, sizeof KEY_CHECK_TEXT - 1,
                                       l3->keys.checks[i]) == 0)
            return true;
    return false;
}

ptier_status
ptier_l3_write_key(ptier_l3 *l3, bool alone, ptier_error *error)
{
    ptier_l3_keys keys = l3->keys;
    if (alone)
        keys.count = 0;
    if (keys.count == PTIER_L3_KEYS)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "database %s has data of %d keys: encrypt it anew before the next one",
                          l3->path, PTIER_L3_KEYS);
    if (ptier_keyring_check(l3->keyring, KEY_CHECK_TEXT, sizeof KEY_CHECK_TEXT - 1,
                            keys.checks[keys.count++]))
        return crypto_failed(error);
    int code = set_meta(l3, "key", keys.checks, keys.count * PTIER_CHECK_BYTES);
    if (code != SQLITE_OK)
        return ptier_l3_fail(l3, &l3->writer, code, "write", error);
    l3->keys = keys;
    return PTIER_OK;
}

/* ---- totals ---- */

static ptier_l3_found
decode_totals(ptier_l3 *l3, const void *bytes, size_t length, ptier_l3_totals *totals,
              ptier_l3_keys *keys)
{
    covered c = {.label = TOTALS_LABEL};
    const uint8_t *value = c.value;
    size_t body = length - PTIER_CHECK_BYTES;
    if (!bytes || length > sizeof c.value || length < TOTALS_FIXED + PTIER_CHECK_BYTES)
        return L3_FOUND_ILLEGIBLE;
    memcpy(c.value, bytes, length);
    if (value[0] != TOTALS_VERSION || !decode_keys(value + TOTALS_FIXED, body - TOTALS_FIXED, keys))
        return L3_FOUND_ILLEGIBLE;
    if (!ptier_keyring_verify(l3->keyring, &c, sizeof c.label + body, value + body))
        return L3_FOUND_FOREIGN;
    totals->prefix = get_u64(value + 1);
    totals->rows = get_u64(value + 9);
    totals->sum = get_u64(value + 17);
    return L3_FOUND_GOOD;
}

int
ptier_l3_read_totals(ptier_l3 *l3, ptier_l3_conn *conn, ptier_l3_totals *totals,
                     ptier_l3_keys *keys, ptier_l3_found *found)
{
    sqlite3_stmt *query;
    int code = look_up(conn, "totals", &query);
    *found = code == SQLITE_DONE ? L3_FOUND_NONE : L3_FOUND_ILLEGIBLE;
    if (code == SQLITE_ROW) {
        const void *value = sqlite3_column_blob(query, 0);
        *found = decode_totals(l3, value, (size_t)sqlite3_column_bytes(query, 0), totals, keys);
    }
    return looked_up(code, query);
}

ptier_status
ptier_l3_write_totals(ptier_l3 *l3, const ptier_l3_totals *totals, ptier_error *error)
{
    covered c = {.label = TOTALS_LABEL};
    size_t keys = l3->keys.count * PTIER_CHECK_BYTES, body = TOTALS_FIXED + keys;
    c.value[0] = TOTALS_VERSION;
    put_u64(c.value + 1, totals->prefix);
    put_u64(c.value + 9, totals->rows);
    put_u64(c.value + 17, totals->sum);
    memcpy(c.value + TOTALS_FIXED, l3->keys.checks, keys);
    if (ptier_keyring_check(l3->keyring, &c, sizeof c.label + body, c.value + body))
        return crypto_failed(error);
    int code = set_meta(l3, "totals", c.value, body + PTIER_CHECK_BYTES);
    return code == SQLITE_OK ? PTIER_OK : ptier_l3_fail(l3, &l3->writer, code, "write", error);
}
