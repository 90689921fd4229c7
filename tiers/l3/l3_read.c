/* Reading L3: any thread, through whichever reader connection is free. */
#include "l3/l3_internal.h"

#include <inttypes.h>
#include <sched.h>

/* Columns of L3_SCAN. */
enum {
    SCAN_KEY64,
    SCAN_REVISION,
    SCAN_EXPIRES_WALL,
    SCAN_EXPIRES_BOOT,
    SCAN_BOOT_TAG,
    SCAN_HEALTH,
    SCAN_URL,
    SCAN_SOURCE,
};

static ptier_l3_conn *
reader_take(ptier_l3 *l3)
{
    int cpu = sched_getcpu();
    unsigned first = cpu > 0 ? (unsigned)cpu % PTIER_L3_READERS : 0;
    for (unsigned i = 0; i < PTIER_L3_READERS; i++) {
        ptier_l3_conn *reader = &l3->readers[(first + i) % PTIER_L3_READERS];
        if (pthread_mutex_trylock(&reader->mutex) == 0)
            return reader;
    }
    pthread_mutex_lock(&l3->readers[first].mutex);
    return &l3->readers[first];
}

static void
reader_give(ptier_l3_conn *reader)
{
    pthread_mutex_unlock(&reader->mutex);
}

/*
 * Rows of the same hash that are not the one asked for are another key's, or stale: unless their
 * check fails, for then one of them may be the one asked for, with a damaged key or revision.
 */
static ptier_status
look_up(ptier_l3 *l3, ptier_l3_conn *reader, const ptier_ref *ref, ptier_entry **entry)
{
    sqlite3_stmt *get = reader->statements[L3_GET];
    ptier_status status = PTIER_NOT_FOUND;
    (void)sqlite3_bind_int64(get, 1, (int64_t)ref->hash); /* cannot fail */
    int code;
    while ((code = sqlite3_step(get)) == SQLITE_ROW) {
        const char *key = (const char *)sqlite3_column_text(get, 13);
        bool match =
            key && ptier_ref_matches(ref, ref->hash, (uint64_t)sqlite3_column_int64(get, 2), key);
        ptier_status row = ptier_l3_row_read(l3, reader, match ? entry : NULL);
        if (row != PTIER_OK)
            status = row;
        else if (match) {
            status = PTIER_OK;
            break;
        }
    }
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        status = ptier_l3_status(code);
    (void)sqlite3_reset(get); /* repeats code */
    return status;
}

ptier_status
ptier_l3_get(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    *entry = NULL;
    ptier_l3_conn *reader = reader_take(l3);
    ptier_status status = look_up(l3, reader, ref, entry);
    reader_give(reader);
    if (status == PTIER_DATA_LOSS) {
        atomic_fetch_add_explicit(&l3->damaged, 1, memory_order_relaxed);
        ptier_l3_log(l3, PTIER_LOG_WARN, "l3_damaged",
                     "record %016" PRIx64 " revision %" PRIu64
                     " is damaged or was encrypted with another key",
                     ref->hash, ref->revision);
    }
    return status;
}

/* Checks are verified when a record is read; here only what would not make sense is left out. */
static bool
scan_row(ptier_l3 *l3, ptier_l3_conn *reader, ptier_scan_item *item)
{
    sqlite3_stmt *scan = reader->statements[L3_SCAN];
    int64_t health = sqlite3_column_int64(scan, SCAN_HEALTH);
    int64_t wall = sqlite3_column_int64(scan, SCAN_EXPIRES_WALL);
    item->hash = (uint64_t)sqlite3_column_int64(scan, SCAN_KEY64);
    item->revision = (uint64_t)sqlite3_column_int64(scan, SCAN_REVISION);
    item->health = (uint8_t)health;
    item->url = (const char *)sqlite3_column_text(scan, SCAN_URL);
    item->source = ptier_l3_source_name(reader, sqlite3_column_int64(scan, SCAN_SOURCE));
    if (health < PTIER_HEALTH_HEALTHY || health > PTIER_HEALTH_UNKNOWN || wall < 0 ||
        item->revision == 0 || !item->url || !item->source)
        return false;
    uint64_t tag = (uint64_t)sqlite3_column_int64(scan, SCAN_BOOT_TAG);
    item->expires_boot_ms =
        ptier_clock_expiry(l3->clock, tag, sqlite3_column_int64(scan, SCAN_EXPIRES_BOOT), wall);
    return true;
}

ptier_status
ptier_l3_scan(ptier_tier *tier, ptier_scan_fn fn, void *context, ptier_error *error)
{
    ptier_l3 *l3 = ptier_l3_of(tier);
    ptier_l3_conn *reader = reader_take(l3);
    sqlite3_stmt *scan = reader->statements[L3_SCAN];
    uint64_t skipped = 0;
    int code;
    while ((code = sqlite3_step(scan)) == SQLITE_ROW) {
        ptier_scan_item item;
        if (!scan_row(l3, reader, &item))
            skipped++;
        else if (!fn(context, &item))
            break;
    }
    ptier_status status = PTIER_OK;
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        status = ptier_l3_fail(l3, reader, code, "scan", error);
    (void)sqlite3_reset(scan); /* repeats code */
    reader_give(reader);
    if (skipped) {
        atomic_fetch_add_explicit(&l3->damaged, skipped, memory_order_relaxed);
        ptier_l3_log(l3, PTIER_LOG_WARN, "l3_damaged", "%" PRIu64 " damaged records were skipped",
                     skipped);
    }
    return status;
}
