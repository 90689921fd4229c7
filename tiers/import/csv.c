/*
 * CSV with a header line in any column order; commas, semicolons, tabs or bars. libcsv does the
 * quoting; it is fed line by line so that every record knows where it began, and so that one quote
 * that is never closed costs one line.
 */
#include "import/import_internal.h"

#include <csv.h>
#include <stdlib.h>
#include <string.h>

#include "import/draft.h"
#include "import/lines.h"
#include "import/text_util.h"

#define COLUMNS_MAX 256
#define ROW_MAX     16384 /* a row that spans lines is cut off here */

typedef struct column {
    ptier_field field;
    char *name; /* owned */
} column;

typedef struct csv_reader {
    ptier_importer *importer;
    ptier_lines lines;
    struct csv_parser parser;
    bool parser_open;
    column columns[COLUMNS_MAX];
    size_t column_count;
    bool has_header;
    char delimiter; /* 0: not chosen yet */

    /* The row being read. */
    size_t cell;
    bool row_ended, out_of_memory;
    char *row; /* its lines, while no end has come */
    size_t row_length;
    uint64_t row_line; /* of its start */
    ptier_status status;
    ptier_draft draft;
} csv_reader;

static int
is_blank(unsigned char c)
{
    return c == ' ';
}

static ptier_status
start_parser(csv_reader *reader)
{
    if (reader->parser_open)
        csv_free(&reader->parser);
    reader->parser_open = csv_init(&reader->parser, 0) == 0;
    if (!reader->parser_open)
        return PTIER_RESOURCE_EXHAUSTED;
    csv_set_realloc_func(&reader->parser, ptier_wiping_realloc);
    csv_set_free_func(&reader->parser, ptier_wiping_free);
    csv_set_space_func(&reader->parser, is_blank);
    if (reader->delimiter)
        csv_set_delim(&reader->parser, (unsigned char)reader->delimiter);
    reader->cell = 0;
    ptier_draft_reset(&reader->draft);
    return PTIER_OK;
}

/* Lower case with underscores, so that a label is called the same whoever wrote the list. */
static char *
column_name(const char *text, size_t length)
{
    ptier_text_trim(&text, &length);
    char *name = malloc(length + 1);
    for (size_t i = 0; name && i < length; i++) {
        char c = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] | 0x20) : text[i];
        name[i] = c == ' ' || c == '-' ? '_' : c;
    }
    if (name)
        name[length] = '\0';
    return name;
}

static void
header_cell(csv_reader *reader, const char *text, size_t length)
{
    if (reader->column_count == COLUMNS_MAX)
        return; /* cells beyond make their rows bad */
    column *c = &reader->columns[reader->column_count];
    c->field = ptier_field_find(text, length);
    c->name = column_name(text, length);
    if (!c->name)
        reader->out_of_memory = true;
    else
        reader->column_count++;
}

static void
on_cell(void *cell, size_t length, void *context)
{
    csv_reader *reader = context;
    const char *text = cell;
    if (!reader->has_header) {
        header_cell(reader, text, length);
        return;
    }
    size_t i = reader->cell++;
    if (i < reader->column_count) {
        const column *c = &reader->columns[i];
        ptier_draft_set(&reader->draft, c->field, c->name, strlen(c->name), text, length);
    } else if (length) {
        ptier_draft_spoil(&reader->draft, "the line has more cells than the header");
    }
}

/* Whether the first line names the columns that say where a proxy is. */
static ptier_status
check_header(csv_reader *reader)
{
    ptier_importer *importer = reader->importer;
    for (size_t i = 0; i < reader->column_count; i++)
        if (reader->columns[i].field == PTIER_FIELD_URL ||
            reader->columns[i].field == PTIER_FIELD_HOST)
            return PTIER_OK;
    return ptier_fail(importer->error, PTIER_INVALID_ARGUMENT,
                      "%s: the first line of CSV must name the columns, one of them url, proxy, ip "
                      "or host",
                      importer->name);
}

static void
on_row(int end, void *context)
{
    (void)end; /* the character that ended it */
    csv_reader *reader = context;
    reader->row_ended = true;
    if (reader->status != PTIER_OK)
        return;
    if (!reader->has_header) {
        reader->has_header = true;
        reader->status = check_header(reader);
    } else if (!ptier_draft_emit(&reader->draft, reader->importer->scheme, reader->row_line)) {
        reader->status = PTIER_CANCELLED;
    }
    reader->cell = 0;
    ptier_draft_reset(&reader->draft);
}

static void
choose_delimiter(csv_reader *reader, const char *text, size_t length)
{
    static const char candidates[] = ",;\t|";
    size_t best = 0;
    reader->delimiter = ',';
    for (const char *c = candidates; *c; c++) {
        size_t count = 0;
        for (size_t i = 0; i < length; i++)
            count += text[i] == *c;
        if (count > best) {
            best = count;
            reader->delimiter = *c;
        }
    }
    csv_set_delim(&reader->parser, (unsigned char)reader->delimiter);
}

/* What spreadsheets and people put before the header. */
static bool
is_preamble(csv_reader *reader, const char *text, size_t length)
{
    if (length == 0 || text[0] == '#')
        return true;
    if (length == 5 && memcmp(text, "sep=", 4) == 0) {
        reader->delimiter = text[4];
        csv_set_delim(&reader->parser, (unsigned char)text[4]);
        return true;
    }
    return false;
}

static ptier_status
keep_line(csv_reader *reader, const char *text, size_t length)
{
    char *grown = ptier_wiping_realloc(reader->row, reader->row_length + length + 1);
    if (!grown)
        return PTIER_RESOURCE_EXHAUSTED;
    reader->row = grown;
    memcpy(grown + reader->row_length, text, length);
    grown[reader->row_length + length] = '\n';
    reader->row_length += length + 1;
    return PTIER_OK;
}

static void
drop_row(csv_reader *reader)
{
    ptier_wiping_free(reader->row);
    reader->row = NULL;
    reader->row_length = 0;
}

static ptier_status
parse_line(csv_reader *reader, const char *text, size_t length, uint64_t number)
{
    const char *first = text;
    size_t left = length;
    ptier_text_trim(&first, &left);
    if (!reader->row && (left == 0 || first[0] == '#'))
        return PTIER_OK;
    if (!reader->row)
        reader->row_line = number;
    reader->row_ended = false;
    size_t done = csv_parse(&reader->parser, text, length, on_cell, on_row, reader);
    done += csv_parse(&reader->parser, "\n", 1, on_cell, on_row, reader);
    if (done != length + 1 || reader->out_of_memory)
        return PTIER_RESOURCE_EXHAUSTED;
    if (reader->row_ended) {
        drop_row(reader);
        return reader->status;
    }
    return keep_line(reader, text, length);
}

/* The row that never ended: gives up its first line and reads the others again. */
static ptier_status
recover(csv_reader *reader)
{
    char *row = reader->row;
    const char *at = row, *end = row + reader->row_length;
    uint64_t number = reader->row_line;
    reader->row = NULL;
    reader->row_length = 0;
    ptier_status status = start_parser(reader);
    ptier_importer_skip(reader->importer, number, "a quote is never closed");
    if (!reader->has_header) {
        ptier_wiping_free(row);
        return ptier_fail(reader->importer->error, PTIER_INVALID_ARGUMENT,
                          "%s: line %llu: a quote in the CSV header is never closed",
                          reader->importer->name, (unsigned long long)number);
    }
    at = (const char *)memchr(at, '\n', (size_t)(end - at)) + 1;
    while (status == PTIER_OK && at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        status = parse_line(reader, at, (size_t)(stop - at), ++number);
        at = stop + 1;
    }
    ptier_wiping_free(row);
    return status;
}

static ptier_status
on_line(void *context, const char *text, size_t length, uint64_t number)
{
    csv_reader *reader = context;
    if (!text) {
        ptier_importer_skip(reader->importer, number, "the line is longer than 1 MiB");
        return PTIER_OK;
    }
    if (!reader->has_header && !reader->row) {
        if (is_preamble(reader, text, length))
            return PTIER_OK;
        if (!reader->delimiter)
            choose_delimiter(reader, text, length);
    }
    ptier_status status = parse_line(reader, text, length, number);
    while (status == PTIER_OK && reader->row_length > ROW_MAX)
        status = recover(reader);
    return status;
}

static void
csv_close(void *state)
{
    csv_reader *reader = state;
    for (size_t i = 0; i < reader->column_count; i++)
        free(reader->columns[i].name);
    if (reader->parser_open)
        csv_free(&reader->parser);
    drop_row(reader);
    ptier_lines_fini(&reader->lines);
    ptier_draft_fini(&reader->draft);
    free(reader);
}

static ptier_status
csv_open(ptier_importer *importer, void **state)
{
    csv_reader *reader = calloc(1, sizeof *reader);
    *state = NULL;
    if (!reader)
        return PTIER_RESOURCE_EXHAUSTED;
    reader->importer = importer;
    ptier_lines_init(&reader->lines, on_line, reader);
    ptier_draft_init(&reader->draft, importer);
    if (start_parser(reader) != PTIER_OK) {
        csv_close(reader);
        return PTIER_RESOURCE_EXHAUSTED;
    }
    *state = reader;
    return PTIER_OK;
}

static ptier_status
csv_feed(void *state, const char *data, size_t length)
{
    csv_reader *reader = state;
    return ptier_lines_feed(&reader->lines, data, length);
}

static ptier_status
csv_finish(void *state)
{
    csv_reader *reader = state;
    ptier_status status = ptier_lines_finish(&reader->lines);
    while (status == PTIER_OK && reader->row)
        status = recover(reader);
    if (status == PTIER_OK && !reader->has_header)
        status = check_header(reader);
    return status;
}

const ptier_import_reader ptier_import_csv = {csv_open, csv_feed, csv_finish, csv_close};
