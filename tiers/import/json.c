/* One JSON document (or several in a row), streamed. */
#include "import/import_internal.h"

#include <stdlib.h>

#include "import/sax.h"

#define TOKEN_MAX (1u << 20) /* yajl holds one token in memory: no longer one than this */

typedef struct json_reader {
    ptier_importer *importer;
    size_t since_event; /* bytes fed since yajl last saw a token end */
    ptier_sax sax;
} json_reader;

static ptier_status
fail(json_reader *reader, ptier_status status, const char *why)
{
    if (status != PTIER_INVALID_ARGUMENT)
        return status;
    return ptier_fail(reader->importer->error, status, "%s: line %llu: %s", reader->importer->name,
                      (unsigned long long)reader->sax.line, why);
}

static void
json_close(void *state)
{
    json_reader *reader = state;
    ptier_sax_fini(&reader->sax);
    free(reader);
}

static ptier_status
json_open(ptier_importer *importer, void **state)
{
    json_reader *reader = malloc(sizeof *reader);
    *state = NULL;
    if (!reader)
        return PTIER_RESOURCE_EXHAUSTED;
    reader->importer = importer;
    reader->since_event = 0;
    ptier_sax_init(&reader->sax, importer, false);
    if (ptier_sax_reset(&reader->sax) != PTIER_OK) {
        json_close(reader);
        return PTIER_RESOURCE_EXHAUSTED;
    }
    *state = reader;
    return PTIER_OK;
}

static ptier_status
json_feed(void *state, const char *data, size_t length)
{
    json_reader *reader = state;
    const char *why = "";
    uint64_t events = reader->sax.events;
    ptier_status status = ptier_sax_feed(&reader->sax, data, length, &why);
    if (status != PTIER_OK)
        return fail(reader, status, why);
    reader->since_event = reader->sax.events == events ? reader->since_event + length : 0;
    if (reader->since_event > TOKEN_MAX)
        return fail(reader, PTIER_INVALID_ARGUMENT, "a value is longer than 1 MiB");
    return PTIER_OK;
}

static ptier_status
json_finish(void *state)
{
    json_reader *reader = state;
    const char *why = "";
    ptier_status status = ptier_sax_finish(&reader->sax, &why);
    if (status != PTIER_OK)
        return fail(reader, status, why);
    if (!reader->sax.list_seen)
        return ptier_fail(
            reader->importer->error, PTIER_INVALID_ARGUMENT,
            "%s: JSON without a list of proxies: expected an array, or an object with "
            "\"proxies\"",
            reader->importer->name);
    return PTIER_OK;
}

const ptier_import_reader ptier_import_json = {json_open, json_feed, json_finish, json_close};
