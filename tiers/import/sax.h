/*
 * Records out of a stream of JSON values, whatever they are wrapped in: arrays of strings or
 * objects, objects that hold such arrays ("proxies", "data", ...), or one for each protocol.
 * Memory: one record and one stack of bounded depth.
 */
#ifndef PTIER_SAX_H
#define PTIER_SAX_H

#include <yajl/yajl_parse.h>

#include "import/draft.h"

#define PTIER_SAX_DEPTH 64

typedef struct ptier_sax_level {
    uint8_t kind;
    bool wrapper;       /* an object that held a list: no record itself */
    const char *scheme; /* for the records below; static storage */
    uint64_t line;      /* where it began */
} ptier_sax_level;

typedef struct ptier_sax {
    ptier_importer *importer;
    yajl_handle yajl; /* NULL: made by the next reset */
    bool lines;       /* JSON lines: a value at the top is a record */
    unsigned depth;
    ptier_sax_level levels[PTIER_SAX_DEPTH + 1]; /* [0]: outside of all */
    char name[PTIER_LABEL_NAME_MAX + 1]; /* of the member being read; cut: name_length is over */
    size_t name_length;
    ptier_field field;
    bool list_seen;
    bool too_deep, stopped;
    uint64_t events; /* values seen: tells a stuck token from progress */

    /* The chunk being parsed, for line numbers. */
    const char *chunk;
    size_t counted;
    uint64_t line;
    ptier_draft draft;
} ptier_sax;

void ptier_sax_init(ptier_sax *sax, ptier_importer *importer, bool lines);
void ptier_sax_fini(ptier_sax *sax);

/* Ready for a new stream. RESOURCE_EXHAUSTED: no memory. */
PTIER_MUST_CHECK ptier_status ptier_sax_reset(ptier_sax *sax);

/*
 * Parses a chunk. CANCELLED; INVALID_ARGUMENT: not JSON, or nested too deeply: *why is static text.
 * The line of the failure is in sax->line.
 */
PTIER_MUST_CHECK ptier_status ptier_sax_feed(ptier_sax *sax, const char *data, size_t length,
                                             const char **why);

/* The end of the stream; errors as above. */
PTIER_MUST_CHECK ptier_status ptier_sax_finish(ptier_sax *sax, const char **why);

#endif
