/* JSON lines: one object or string a line. A line that is broken costs that line. */
#include "import/import_internal.h"

#include <stdlib.h>

#include "import/lines.h"
#include "import/sax.h"
#include "import/text_util.h"

typedef struct jsonl_reader {
    ptier_importer *importer;
    ptier_lines lines;
    ptier_sax sax;
} jsonl_reader;

static ptier_status
on_line(void *context, const char *text, size_t length, uint64_t number)
{
    jsonl_reader *reader = context;
    const char *why = "";
    if (!text) {
        ptier_importer_skip(reader->importer, number, "the line is longer than 1 MiB");
        return PTIER_OK;
    }
    ptier_text_trim(&text, &length);
    if (length == 0 || text[0] == '#')
        return PTIER_OK;
    reader->sax.line = number;
    ptier_status status = ptier_sax_feed(&reader->sax, text, length, &why);
    if (status == PTIER_OK) /* ends a number; an error inside a text */
        status = ptier_sax_feed(&reader->sax, "\n", 1, &why);
    if (status == PTIER_OK && reader->sax.depth > 0) {
        status = PTIER_INVALID_ARGUMENT;
        why = "the JSON does not end on its line";
    }
    if (status != PTIER_INVALID_ARGUMENT)
        return status;
    ptier_importer_skip(reader->importer, number, why);
    return ptier_sax_reset(&reader->sax);
}

static void
jsonl_close(void *state)
{
    jsonl_reader *reader = state;
    ptier_lines_fini(&reader->lines);
    ptier_sax_fini(&reader->sax);
    free(reader);
}

static ptier_status
jsonl_open(ptier_importer *importer, void **state)
{
    jsonl_reader *reader = malloc(sizeof *reader);
    *state = NULL;
    if (!reader)
        return PTIER_RESOURCE_EXHAUSTED;
    reader->importer = importer;
    ptier_lines_init(&reader->lines, on_line, reader);
    ptier_sax_init(&reader->sax, importer, true);
    if (ptier_sax_reset(&reader->sax) != PTIER_OK) {
        jsonl_close(reader);
        return PTIER_RESOURCE_EXHAUSTED;
    }
    *state = reader;
    return PTIER_OK;
}

static ptier_status
jsonl_feed(void *state, const char *data, size_t length)
{
    jsonl_reader *reader = state;
    return ptier_lines_feed(&reader->lines, data, length);
}

static ptier_status
jsonl_finish(void *state)
{
    jsonl_reader *reader = state;
    return ptier_lines_finish(&reader->lines);
}

const ptier_import_reader ptier_import_jsonl = {jsonl_open, jsonl_feed, jsonl_finish, jsonl_close};
