/*
 * For tiers/import/ only: what the readers of the formats share. One importer, one thread. A reader
 * gets the input in chunks, cuts it into records and hands each out or skips it; it keeps no more
 * than one record.
 */
#ifndef PTIER_IMPORT_INTERNAL_H
#define PTIER_IMPORT_INTERNAL_H

#include <locale.h>

#include <proxytier/import.h>

#define PTIER_IMPORT_CHUNK    65536
#define PTIER_IMPORT_LINE_MAX (1u << 20) /* a longer line is skipped */
#define PTIER_REASON_ROOM     160
#define PTIER_SQLITE_MAGIC    "SQLite format 3" /* and a NUL */

typedef struct ptier_importer {
    const ptier_import_options *options;
    ptier_import_summary *summary;
    ptier_error *error;
    const char *name;   /* for messages; never NULL */
    const char *scheme; /* for records that name none; static storage */
    locale_t c_locale;  /* numbers are read the same in every locale */
    bool cancelled;
    uint64_t first_skipped_line;
    char first_skipped_reason[PTIER_REASON_ROOM];
} ptier_importer;

/* Both return false when the import is to stop. */
PTIER_MUST_CHECK bool ptier_importer_hand_out(ptier_importer *importer,
                                              const ptier_import_record *record);
void ptier_importer_skip(ptier_importer *importer, uint64_t line, const char *reason);

/*
 * One format. open: *state is owned by the caller until close, and NULL on failure. feed and finish
 * return OK, CANCELLED when on_record said so, or an error with its message in importer->error;
 * after that only close may follow.
 */
typedef struct ptier_import_reader {
    PTIER_MUST_CHECK ptier_status (*open)(ptier_importer *importer, void **state);
    PTIER_MUST_CHECK ptier_status (*feed)(void *state, const char *data, size_t length);
    PTIER_MUST_CHECK ptier_status (*finish)(void *state);
    void (*close)(void *state);
} ptier_import_reader;

extern const ptier_import_reader ptier_import_text;
extern const ptier_import_reader ptier_import_csv;
extern const ptier_import_reader ptier_import_json;
extern const ptier_import_reader ptier_import_jsonl;

/* The format of an input, from its name (may be NULL) and its first bytes. Never AUTO. */
ptier_import_format ptier_import_sniff(const char *name, const char *data, size_t length);

/* What kind of file that is no list at all this is ("a gzip archive: ..."), or NULL. Static
 * storage. */
const char *ptier_import_sniff_foreign(const char *data, size_t length);

#endif
