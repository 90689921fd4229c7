/*
 * One record in the making, from named fields of CSV or JSON: knows the names that people use for
 * each, copies values into its own room and checks the limits. Owned by one reader. Wiped by fini.
 */
#ifndef PTIER_DRAFT_H
#define PTIER_DRAFT_H

#include "import/import_internal.h"

#define PTIER_DRAFT_TEXT    32768
#define PTIER_DRAFT_SCHEMES 6

/* What a field means. */
typedef enum ptier_field {
    PTIER_FIELD_LABEL = 0, /* no name we know: becomes a label */
    PTIER_FIELD_URL,
    PTIER_FIELD_HOST,
    PTIER_FIELD_PORT,
    PTIER_FIELD_USERNAME,
    PTIER_FIELD_PASSWORD,
    PTIER_FIELD_USERNAME_TOKEN,
    PTIER_FIELD_PASSWORD_TOKEN,
    PTIER_FIELD_SOURCE,
    PTIER_FIELD_KEY,
    PTIER_FIELD_TEXTS, /* count of those above: each is kept as text */
    PTIER_FIELD_PROTOCOL = PTIER_FIELD_TEXTS,
    PTIER_FIELD_TYPE, /* a protocol, or some other kind of kind */
    PTIER_FIELD_FETCHED,
    PTIER_FIELD_CHECKED,
    PTIER_FIELD_CREATED,
    PTIER_FIELD_TTL_MS,
    PTIER_FIELD_TTL_SECONDS,
    PTIER_FIELD_EXPIRES,
    PTIER_FIELD_HEALTH,
    PTIER_FIELD_FAILURES,
    PTIER_FIELD_REVALIDATE,
    PTIER_FIELD_LAST_ACCESS,
    PTIER_FIELD_ACCESSES,
    PTIER_FIELD_LATENCY,
    PTIER_FIELD_SUCCESSES,
    PTIER_FIELD_REPORTS,
    PTIER_FIELD_REVISION,
    PTIER_FIELD_LABELS,  /* an object of labels */
    PTIER_FIELD_MARK,    /* proxytier_export: an own export */
    PTIER_FIELD_IGNORED, /* what another cache notes for itself */
} ptier_field;

typedef struct ptier_draft {
    ptier_importer *importer; /* borrowed */
    const char *texts[PTIER_FIELD_TEXTS];
    const char *schemes[PTIER_DRAFT_SCHEMES]; /* static storage */
    size_t scheme_count;
    ptier_field fetch_from; /* which field gave the fetch time */
    bool cached;            /* it states what only an entry of a cache has */
    ptier_import_record out;
    ptier_label labels[PTIER_LABELS_MAX];
    char reason[PTIER_REASON_ROOM]; /* why it is bad; "" so far it is not */
    ptier_url url;
    size_t used;
    char text[PTIER_DRAFT_TEXT];
} ptier_draft;

void ptier_draft_init(ptier_draft *draft, ptier_importer *importer);
void ptier_draft_fini(ptier_draft *draft);

/* Forgets everything for the next record. */
void ptier_draft_reset(ptier_draft *draft);

/* The meaning of a field's name; case, spaces and hyphens do not matter. */
ptier_field ptier_field_find(const char *name, size_t length);

/* One field. `name` is what it is called as a label. What cannot be used makes the draft bad, or is
 * left out. */
void ptier_draft_set(ptier_draft *draft, ptier_field field, const char *name, size_t name_length,
                     const char *value, size_t length);

/* One label as it stands in an object of labels. */
void ptier_draft_label(ptier_draft *draft, const char *name, size_t name_length, const char *value,
                       size_t length);

/* Makes the draft bad, if it is not yet. */
PTIER_PRINTF(2, 3) void ptier_draft_spoil(ptier_draft *draft, const char *format, ...);

/* Whether it says where a proxy is. */
bool ptier_draft_has_address(const ptier_draft *draft);

/*
 * Hands the record out, or skips it; once for each protocol it names. `scheme` stands in when it
 * names none. False: stop.
 */
PTIER_MUST_CHECK bool ptier_draft_emit(ptier_draft *draft, const char *scheme, uint64_t line);

#endif
