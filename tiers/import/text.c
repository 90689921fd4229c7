/*
 * Plain lists: one address a line, # comments, and headings that name the protocol of the lines
 * below
 * ("# SOCKS5 Proxies (28)", "[socks5]", "socks5:"). Behind the address more columns may follow
 * ("192.0.2.1:80 US").
 */
#include "import/import_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "import/draft.h"
#include "import/lines.h"
#include "import/scheme.h"
#include "import/text_util.h"

#define HEADING_WORDS 6 /* a longer comment is prose */
#define TEXT_LINE_MAX 8192

typedef struct text_reader {
    ptier_importer *importer;
    const char *scheme; /* of the section */
    ptier_lines lines;
    ptier_draft draft;
} text_reader;

static size_t
count_words(const char *text, size_t length)
{
    size_t words = 0;
    bool inside = false;
    for (size_t i = 0; i < length; i++) {
        bool space = isspace((unsigned char)text[i]);
        words += !space && !inside;
        inside = !space;
    }
    return words;
}

/* The protocol that a heading names, or NULL. */
static const char *
heading_scheme(const char *text, size_t length)
{
    return count_words(text, length) <= HEADING_WORDS ? ptier_scheme_mentioned(text, length) : NULL;
}

static bool
is_comment(const char *text, size_t length)
{
    return text[0] == '#' || text[0] == ';' || (length >= 2 && memcmp(text, "//", 2) == 0);
}

/* "[socks5]", "socks5:" or "== SOCKS5 ==", which are no addresses. */
static bool
is_bare_heading(const char *text, size_t length)
{
    char last = text[length - 1];
    bool framed = (text[0] == '[' && last == ']') || last == ':' || strchr("=-*", text[0]);
    return framed && heading_scheme(text, length);
}

/* Cuts "# comment" and further columns off. "192.0.2.1 8080" gets its colon. */
static void
first_column(char *text, size_t *length)
{
    size_t end = 0;
    while (end < *length && text[end] != ' ' && text[end] != '\t')
        end++;
    size_t next = end;
    while (next < *length && (text[next] == ' ' || text[next] == '\t'))
        next++;
    if (next == *length) {
        *length = end;
        return;
    }
    if (memchr(text + next, '@', *length - next))
        return; /* a space inside credentials: not for us to guess */
    size_t digits = 0;
    while (next + digits < *length && isdigit((unsigned char)text[next + digits]))
        digits++;
    bool port =
        digits > 0 && (next + digits == *length || isspace((unsigned char)text[next + digits]));
    if (port && !memchr(text, ':', end)) {
        text[end] = ':';
        memmove(text + end + 1, text + next, digits);
        end += 1 + digits;
    }
    *length = end;
}

static ptier_status
address(text_reader *reader, const char *text, size_t length, uint64_t number)
{
    char copy[TEXT_LINE_MAX];
    memcpy(copy, text, length);
    first_column(copy, &length);
    ptier_draft_reset(&reader->draft);
    ptier_draft_set(&reader->draft, PTIER_FIELD_URL, "", 0, copy, length);
    explicit_bzero(copy, length);
    if (!ptier_draft_emit(&reader->draft, reader->scheme, number))
        return PTIER_CANCELLED;
    return PTIER_OK;
}

static ptier_status
on_line(void *context, const char *text, size_t length, uint64_t number)
{
    text_reader *reader = context;
    if (!text || length > TEXT_LINE_MAX) {
        ptier_importer_skip(reader->importer, number, "the line is too long for an address");
        return PTIER_OK;
    }
    ptier_text_trim(&text, &length);
    if (length == 0)
        return PTIER_OK;
    if (is_comment(text, length) || is_bare_heading(text, length)) {
        const char *scheme = heading_scheme(text, length);
        if (scheme)
            reader->scheme = scheme;
        return PTIER_OK;
    }
    return address(reader, text, length, number);
}

static ptier_status
text_open(ptier_importer *importer, void **state)
{
    text_reader *reader = malloc(sizeof *reader);
    *state = reader;
    if (!reader)
        return PTIER_RESOURCE_EXHAUSTED;
    reader->importer = importer;
    reader->scheme = importer->scheme;
    ptier_lines_init(&reader->lines, on_line, reader);
    ptier_draft_init(&reader->draft, importer);
    return PTIER_OK;
}

static ptier_status
text_feed(void *state, const char *data, size_t length)
{
    text_reader *reader = state;
    return ptier_lines_feed(&reader->lines, data, length);
}

static ptier_status
text_finish(void *state)
{
    text_reader *reader = state;
    return ptier_lines_finish(&reader->lines);
}

static void
text_close(void *state)
{
    text_reader *reader = state;
    ptier_lines_fini(&reader->lines);
    ptier_draft_fini(&reader->draft);
    free(reader);
}

const ptier_import_reader ptier_import_text = {text_open, text_feed, text_finish, text_close};
