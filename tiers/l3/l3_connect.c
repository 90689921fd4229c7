/* L3's connections: opening, closing, and who has a reader. */
#include "l3/l3_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

#define VALUE_MAX (1 << 20) /* of one column: a damaged length allocates no more than this */

/* ---- one connection ---- */

int
ptier_l3_open_connection(const ptier_l3 *l3, ptier_l3_conn *conn, const char *pragmas)
{
    /* NOMUTEX: a connection is never used by two threads at once. */
    int code = sqlite3_open_v2(l3->path, &conn->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
                               ptier_l3_vfs());
    if (code != SQLITE_OK)
        return code;
    (void)sqlite3_extended_result_codes(conn->db, 1); /* cannot fail on an open handle */
    (void)sqlite3_busy_timeout(conn->db, l3->busy_timeout_ms);
    (void)sqlite3_limit(conn->db, SQLITE_LIMIT_LENGTH, VALUE_MAX);
    (void)sqlite3_db_config(conn->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    code = sqlite3_exec(conn->db, pragmas, NULL, NULL, NULL);
    return code == SQLITE_ERROR ? SQLITE_CORRUPT : code; /* a file format that is unknown */
}

void
ptier_l3_close_connection(ptier_l3_conn *conn, bool leave)
{
    for (int i = 0; i < L3_STATEMENTS; i++) {
        (void)sqlite3_finalize(conn->statements[i]); /* repeats an error that was reported */
        conn->statements[i] = NULL;
    }
    if (conn->db && leave)
        (void)sqlite3_db_config(conn->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    (void)sqlite3_close(conn->db); /* no statement is left that could keep it open */
    conn->db = NULL;
    conn->lenient = false;
    memset(conn->sources, 0, sizeof conn->sources);
}

int
ptier_l3_prepare(ptier_l3_conn *conn, int count)
{
    int worst = SQLITE_OK;
    for (int i = 0; i < count; i++) {
        if (conn->statements[i])
            continue;
        int code = sqlite3_prepare_v3(conn->db, ptier_l3_statement_sql[i], -1,
                                      SQLITE_PREPARE_PERSISTENT, &conn->statements[i], NULL);
        if (code == SQLITE_ERROR)
            code = SQLITE_CORRUPT; /* our words do not fit its schema */
        if (code != SQLITE_OK && !ptier_l3_is_damage(code))
            return code;
        if (code != SQLITE_OK)
            worst = code;
    }
    return worst;
}

/* With a writable schema SQLite opens a file that is shorter than its header says. */
void
ptier_l3_make_lenient(ptier_l3_conn *conn)
{
    conn->lenient = true;
    (void)sqlite3_db_config(conn->db, SQLITE_DBCONFIG_DEFENSIVE, 0, NULL);
    /* Should this fail, less can be read. */
    (void)sqlite3_exec(conn->db,
                       "PRAGMA query_only=ON; PRAGMA cell_size_check=ON;"
                       "PRAGMA writable_schema=ON;",
                       NULL, NULL, NULL);
}

/* ---- readers ---- */

static ptier_l3_conn *
take_free(ptier_l3 *l3)
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

ptier_l3_conn *
ptier_l3_reader_take(ptier_l3 *l3)
{
    ptier_l3_conn *reader = take_free(l3);
    if (reader->db && !reader->lenient && atomic_load(&l3->condition) == PTIER_L3_DAMAGED)
        ptier_l3_make_lenient(reader);
    return reader;
}

void
ptier_l3_reader_give(ptier_l3_conn *reader)
{
    pthread_mutex_unlock(&reader->mutex);
}

void
ptier_l3_readers_lock(ptier_l3 *l3)
{
    for (int i = 0; i < PTIER_L3_READERS; i++)
        pthread_mutex_lock(&l3->readers[i].mutex);
}

void
ptier_l3_readers_unlock(ptier_l3 *l3)
{
    for (int i = 0; i < PTIER_L3_READERS; i++)
        pthread_mutex_unlock(&l3->readers[i].mutex);
}

/* ---- all of them ---- */

/* SQLite would make the file with the umask's mode; -wal and -shm then take the mode of the file.
 */
static ptier_status
prepare_file(const ptier_l3 *l3, ptier_error *error)
{
    int file = open(l3->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file >= 0) {
        (void)close(file); /* empty */
        return PTIER_OK;
    }
    int code = errno;
    if (code != EEXIST) {
        (void)ptier_fail_errno(error, code, "cannot create database %s", l3->path);
        ptier_status status = ptier_status_of_errno(code);
        if (status == PTIER_NOT_FOUND)
            status = PTIER_UNAVAILABLE; /* its directory */
        if (error)
            error->status = status;
        return status;
    }
    if (chmod(l3->path, 0600))
        return ptier_fail(error, PTIER_PERMISSION_DENIED,
                          "database %s is not ours: check its owner", l3->path);
    return PTIER_OK;
}

static int
on_wal(void *context, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    ((ptier_l3 *)context)->wal_pages = pages;
    return SQLITE_OK;
}

/* Nothing here changes the file: it may not be ours. */
static ptier_status
connect_writer(ptier_l3 *l3, ptier_error *error)
{
    int code = ptier_l3_open_connection(l3, &l3->writer,
                                        "PRAGMA cell_size_check=ON;"
                                        "PRAGMA wal_autocheckpoint=0;"
                                        "PRAGMA secure_delete=OFF;" /* Debian's default: zeros */
                                        "PRAGMA temp_store=MEMORY;"
                                        "PRAGMA synchronous=NORMAL;"
                                        "PRAGMA cache_size=-32768;");
    if (ptier_l3_is_damage(code)) {
        ptier_l3_note(l3, code);
        ptier_l3_make_lenient(&l3->writer);
    } else if (code != SQLITE_OK) {
        return ptier_l3_fail(l3, &l3->writer, code, "open", error);
    } else {
        (void)sqlite3_db_config(l3->writer.db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    }
    (void)sqlite3_wal_hook(l3->writer.db, on_wal, l3); /* gives the hook before: none */
    return PTIER_OK;
}

/* Its cells are not checked page by page, which would be a third of a look-up's work: of a damaged
 * page each row's own check tells, or that the row is missing. */
static ptier_status
connect_reader(ptier_l3 *l3, ptier_l3_conn *reader, ptier_error *error)
{
    int code = ptier_l3_open_connection(l3, reader,
                                        "PRAGMA query_only=ON;"
                                        "PRAGMA wal_autocheckpoint=0;"
                                        "PRAGMA cache_size=-4096;");
    if (code == SQLITE_OK && atomic_load(&l3->condition) != PTIER_L3_DAMAGED) {
        (void)sqlite3_db_config(reader->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        code = ptier_l3_prepare(reader, L3_READER_STATEMENTS);
    }
    if (code != SQLITE_OK && !ptier_l3_is_damage(code))
        return ptier_l3_fail(l3, reader, code, "open", error);
    ptier_l3_note(l3, code);
    if (atomic_load(&l3->condition) != PTIER_L3_DAMAGED)
        return PTIER_OK;
    ptier_l3_make_lenient(reader);
    code = ptier_l3_prepare(reader, L3_READER_STATEMENTS); /* what cannot be, stays NULL */
    return code == SQLITE_OK || ptier_l3_is_damage(code)
               ? PTIER_OK
               : ptier_l3_fail(l3, reader, code, "open", error);
}

/* Which file it is that is open. */
static void
identify_files(ptier_l3 *l3)
{
    struct stat info;
    int moved = 0;
    if (stat(l3->path, &info) == 0) {
        atomic_store(&l3->file_device, (uint64_t)info.st_dev);
        atomic_store(&l3->file_number, (uint64_t)info.st_ino);
    }
    if (sqlite3_file_control(l3->writer.db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK &&
        moved)
        ptier_l3_note(l3, SQLITE_READONLY_DBMOVED);
    if (stat(l3->wal_path, &info) == 0)
        atomic_store(&l3->wal_number, (uint64_t)info.st_ino);
}

static void
forget(ptier_l3 *l3)
{
    atomic_store(&l3->condition, PTIER_L3_SOUND);
    atomic_store(&l3->rows_known, UINT64_MAX);
    atomic_store(&l3->file_number, 0);
    atomic_store(&l3->wal_number, 0);
    atomic_store(&l3->count, 0);
    atomic_store(&l3->prefix, 0);
    atomic_store(&l3->synced_prefix, 0);
    atomic_store(&l3->victim_hash, 0);
    l3->audit.active = false;
    l3->totals = (ptier_l3_totals){0};
    l3->wal_pages = 0;
}

static void
disconnect(ptier_l3 *l3, bool leave)
{
    for (int i = 0; i < PTIER_L3_READERS; i++)
        ptier_l3_close_connection(&l3->readers[i], leave);
    ptier_l3_close_connection(&l3->writer, leave); /* last: it checkpoints and removes the WAL */
    free(l3->places);
    l3->places = NULL;
    l3->place_count = 0;
    l3->places_made = false;
}

ptier_status
ptier_l3_connect(ptier_l3 *l3, ptier_error *error)
{
    forget(l3);
    ptier_status status = ptier_l3_finish_adoption(l3, true, error);
    if (status == PTIER_OK)
        status = prepare_file(l3, error);
    if (status == PTIER_OK)
        status = connect_writer(l3, error);
    if (status == PTIER_OK)
        status = ptier_l3_take_stock(l3, error);
    for (int i = 0; status == PTIER_OK && i < PTIER_L3_READERS; i++)
        status = connect_reader(l3, &l3->readers[i], error);
    if (status != PTIER_OK) {
        disconnect(l3, true);                         /* it may be anybody's */
        atomic_store(&l3->condition, PTIER_L3_SOUND); /* nothing is known */
        return status;
    }
    identify_files(l3);
    ptier_l3_measure(l3);
    return PTIER_OK;
}

void
ptier_l3_leave(ptier_l3 *l3)
{
    disconnect(l3, true);
}

void
ptier_l3_disconnect(ptier_l3 *l3)
{
    disconnect(l3, atomic_load(&l3->condition) != PTIER_L3_SOUND);
}
