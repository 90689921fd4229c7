/* Drives an import: opens the input, chooses the reader, feeds it chunks, keeps the counts. */
#include "import/import_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "import/scheme.h"
#include "import/sqlite_input.h"
#include "import/text_util.h"

#define SNIFF_BYTES 4096 /* of a pipe, before it is judged */

void
ptier_import_options_init(ptier_import_options *options)
{
    *options = (ptier_import_options){.size = sizeof *options};
}

bool
ptier_importer_hand_out(ptier_importer *importer, const ptier_import_record *record)
{
    importer->summary->records++;
    importer->cancelled = !importer->options->on_record(importer->options->context, record);
    return !importer->cancelled;
}

void
ptier_importer_skip(ptier_importer *importer, uint64_t line, const char *reason)
{
    if (importer->summary->skipped++ == 0) {
        importer->first_skipped_line = line;
        (void)snprintf(importer->first_skipped_reason, sizeof importer->first_skipped_reason, "%s",
                       reason); /* cut is fine */
    }
    if (importer->options->on_skip)
        importer->options->on_skip(importer->options->context, line, reason);
}

static const ptier_import_reader *
reader_of(ptier_import_format format)
{
    switch (format) {
    case PTIER_IMPORT_CSV:
        return &ptier_import_csv;
    case PTIER_IMPORT_JSON:
        return &ptier_import_json;
    case PTIER_IMPORT_JSONL:
        return &ptier_import_jsonl;
    default:
        return &ptier_import_text;
    }
}

/* ---- one run ---- */

typedef struct run {
    ptier_importer importer;
    const char *file_name; /* NULL: none */
    const ptier_import_reader *reader;
    void *state;
    uint64_t bytes, total; /* total 0: unknown */
} run;

static ptier_status
check_options(const ptier_import_options *options, ptier_error *error)
{
    if (options->size != sizeof *options || !options->on_record ||
        (unsigned)options->format > PTIER_IMPORT_JSONL)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "import options need ptier_import_options_init and on_record");
    if (options->scheme && !ptier_scheme_find(options->scheme, strlen(options->scheme)))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "the default scheme is not one of " PTIER_SCHEME_LIST);
    if (options->source && (strlen(options->source) > PTIER_SOURCE_MAX ||
                            !ptier_text_valid(options->source, strlen(options->source))))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "the source is longer than %d bytes or not UTF-8 text", PTIER_SOURCE_MAX);
    return PTIER_OK;
}

/* For records that name no scheme: the file's name decides, then the option, then http. */
static const char *
default_scheme(const char *path, const ptier_import_options *options)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    const char *name = slash ? slash + 1 : path;
    const char *scheme = name ? ptier_scheme_mentioned(name, strlen(name)) : NULL;
    if (!scheme && options->scheme)
        scheme = ptier_scheme_find(options->scheme, strlen(options->scheme));
    return scheme ? scheme : "http";
}

static ptier_status
start(run *r, const char *name, const ptier_import_options *options, ptier_import_summary *summary,
      ptier_error *error)
{
    memset(summary, 0, sizeof *summary);
    memset(r, 0, sizeof *r);
    ptier_status status = check_options(options, error);
    if (status != PTIER_OK)
        return status;
    summary->format = options->format;
    r->file_name = name;
    r->importer.options = options;
    r->importer.summary = summary;
    r->importer.error = error;
    r->importer.name = name ? name : "the list";
    r->importer.scheme = default_scheme(name, options);
    r->importer.c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!r->importer.c_locale)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    return PTIER_OK;
}

static void
end(run *r)
{
    if (r->state)
        r->reader->close(r->state);
    if (r->importer.c_locale)
        freelocale(r->importer.c_locale);
}

/* The first chunk decides on the format. */
static ptier_status
choose_reader(run *r, const char *data, size_t length)
{
    ptier_importer *importer = &r->importer;
    const char *foreign = ptier_import_sniff_foreign(data, length);
    if (foreign)
        return ptier_fail(importer->error, PTIER_INVALID_ARGUMENT, "%s: this is %s", importer->name,
                          foreign);
    if (importer->summary->format == PTIER_IMPORT_AUTO)
        importer->summary->format = ptier_import_sniff(r->file_name, data, length);
    r->reader = reader_of(importer->summary->format);
    return r->reader->open(importer, &r->state);
}

/* Turns a bare status of a reader into one with a message. */
static ptier_status
explain(run *r, ptier_status status)
{
    if (status == PTIER_CANCELLED)
        return ptier_fail(r->importer.error, status, "%s: the import was stopped",
                          r->importer.name);
    if (status == PTIER_RESOURCE_EXHAUSTED)
        return ptier_fail(r->importer.error, status, "%s: out of memory", r->importer.name);
    return status;
}

static ptier_status
feed(run *r, const char *data, size_t length)
{
    ptier_status status = PTIER_OK;
    size_t mark = 0;
    if (!r->reader) {
        if (length >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0)
            mark = 3;
        if (length > mark)
            status = choose_reader(r, data + mark, length - mark);
    }
    if (status == PTIER_OK && r->reader && length > mark)
        status = r->reader->feed(r->state, data + mark, length - mark);
    r->bytes += length;
    const ptier_import_options *options = r->importer.options;
    if (status == PTIER_OK && options->on_progress)
        options->on_progress(options->context, r->bytes, r->total);
    return explain(r, status);
}

/* Records, but none that is of use: that was no list. */
static ptier_status
judge(const ptier_importer *importer, const char *unit)
{
    const ptier_import_summary *summary = importer->summary;
    if (summary->records > 0 || summary->skipped == 0)
        return PTIER_OK;
    return ptier_fail(importer->error, PTIER_INVALID_ARGUMENT,
                      "%s: not one usable record among %llu (%s %llu: %s)", importer->name,
                      (unsigned long long)summary->skipped, unit,
                      (unsigned long long)importer->first_skipped_line,
                      importer->first_skipped_reason);
}

static ptier_status
finish(run *r)
{
    ptier_importer *importer = &r->importer;
    if (!r->reader)
        return ptier_fail(importer->error, PTIER_INVALID_ARGUMENT, "%s: it is empty",
                          importer->name);
    ptier_status status = explain(r, r->reader->finish(r->state));
    return status == PTIER_OK ? judge(importer, "line") : status;
}

ptier_status
ptier_import_memory(const void *data, size_t length, const char *name,
                    const ptier_import_options *options, ptier_import_summary *summary,
                    ptier_error *error)
{
    run r;
    const char *at = data;
    ptier_status status = start(&r, name, options, summary, error);
    r.total = length;
    while (status == PTIER_OK && length > 0) {
        size_t piece = length < PTIER_IMPORT_CHUNK ? length : PTIER_IMPORT_CHUNK;
        status = feed(&r, at, piece);
        at += piece;
        length -= piece;
    }
    if (status == PTIER_OK)
        status = finish(&r);
    end(&r);
    return status;
}

/* ---- files ---- */

static ptier_status
file_error(const char *path, int code, ptier_error *error)
{
    ptier_status status = PTIER_UNAVAILABLE;
    if (code == ENOENT || code == ENOTDIR)
        status = PTIER_NOT_FOUND;
    else if (code == EACCES || code == EPERM)
        status = PTIER_PERMISSION_DENIED;
    else if (code == EISDIR || code == ENAMETOOLONG || code == ELOOP)
        status = PTIER_INVALID_ARGUMENT;
    return ptier_fail(error, status, "%s: %s", path, strerror(code));
}

static ptier_status
open_input(const char *path, int *fd, uint64_t *total, ptier_error *error)
{
    struct stat about;
    *fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (*fd < 0)
        return file_error(path, errno, error);
    if (fstat(*fd, &about) != 0)
        return file_error(path, errno, error);
    if (S_ISDIR(about.st_mode))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s: it is a directory, not a list", path);
    *total = S_ISREG(about.st_mode) && about.st_size > 0 ? (uint64_t)about.st_size : 0;
    return PTIER_OK;
}

/* Reads at least `wanted` bytes unless the input ends. */
static ssize_t
read_some(int fd, char *room, size_t wanted)
{
    size_t have = 0;
    while (have < wanted) {
        ssize_t got = read(fd, room + have, PTIER_IMPORT_CHUNK - have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return got;
        if (got == 0)
            break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

static ptier_status
pump(run *r, const char *path, int fd)
{
    char *room = malloc(PTIER_IMPORT_CHUNK);
    if (!room)
        return explain(r, PTIER_RESOURCE_EXHAUSTED);
    ptier_status status = PTIER_OK;
    while (status == PTIER_OK) {
        ssize_t got = read_some(fd, room, r->reader ? 1 : SNIFF_BYTES);
        if (got < 0)
            status = file_error(path, errno, r->importer.error);
        if (got <= 0)
            break;
        status = feed(r, room, (size_t)got);
    }
    ptier_wiping_free(room);
    return status;
}

/* A file on disk, since SQLite opens it by itself. */
static bool
is_database(const run *r, int fd)
{
    static const char magic[] = PTIER_SQLITE_MAGIC;
    char start[sizeof magic]; /* the NUL belongs to it */
    return r->importer.options->format == PTIER_IMPORT_AUTO && r->total > 0 &&
           pread(fd, start, sizeof start, 0) == (ssize_t)sizeof start &&
           memcmp(start, magic, sizeof start) == 0;
}

static ptier_status
read_database(run *r, const char *path)
{
    r->importer.summary->format = PTIER_IMPORT_SQLITE;
    ptier_status status = explain(r, ptier_sqlite_import(&r->importer, path, r->total));
    return status == PTIER_OK ? judge(&r->importer, "row") : status;
}

ptier_status
ptier_import_file(const char *path, const ptier_import_options *options,
                  ptier_import_summary *summary, ptier_error *error)
{
    run r;
    int fd = -1;
    bool standard_input = strcmp(path, "-") == 0;
    const char *shown = standard_input ? "standard input" : path;
    ptier_status status = start(&r, standard_input ? NULL : path, options, summary, error);
    r.importer.name = shown;
    if (status == PTIER_OK)
        status = open_input(path, &fd, &r.total, error);
    bool database = status == PTIER_OK && !standard_input && is_database(&r, fd);
    if (database) {
        status = read_database(&r, path);
    } else if (status == PTIER_OK) {
        status = pump(&r, shown, fd);
        if (status == PTIER_OK)
            status = finish(&r);
    }
    if (fd >= 0 && !standard_input)
        (void)close(fd); /* only read from */
    end(&r);
    return status;
}
