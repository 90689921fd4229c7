/* Guessing the format of an input. No state. */
#include "import/import_internal.h"

#include <string.h>
#include <strings.h>

#include "import/draft.h"
#include "import/text_util.h"

static const struct {
    const char *extension;
    ptier_import_format format;
} extensions[] = {
    {".json", PTIER_IMPORT_JSON}, {".jsonl", PTIER_IMPORT_JSONL}, {".ndjson", PTIER_IMPORT_JSONL},
    {".jl", PTIER_IMPORT_JSONL},  {".csv", PTIER_IMPORT_CSV},     {".tsv", PTIER_IMPORT_CSV},
    {".txt", PTIER_IMPORT_TEXT},  {".list", PTIER_IMPORT_TEXT},   {".lst", PTIER_IMPORT_TEXT},
};

static ptier_import_format
by_name(const char *name)
{
    const char *dot = name ? strrchr(name, '.') : NULL;
    for (size_t i = 0; dot && i < sizeof extensions / sizeof *extensions; i++)
        if (strcasecmp(dot, extensions[i].extension) == 0)
            return extensions[i].format;
    return PTIER_IMPORT_AUTO;
}

static bool
is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Objects, the first of which ends on its own line and is followed by another, are lines. */
static bool
is_json_lines(const char *data, size_t length)
{
    const char *stop = memchr(data, '\n', length);
    if (!stop)
        return false;
    const char *last = stop, *next = stop, *end = data + length;
    while (last > data && is_space(last[-1]))
        last--;
    while (next < end && is_space(*next))
        next++;
    return last[-1] == '}' && next < end && *next == '{';
}

/* Whether a line names columns, one of them the address, and has more than one. */
static bool
is_csv_header(const char *line, size_t length)
{
    bool address = false;
    size_t cells = 0, start = 0;
    for (size_t i = 0; i <= length; i++) {
        if (i < length && !strchr(",;\t|", line[i]))
            continue;
        const char *cell = line + start;
        size_t size = i - start;
        ptier_text_trim(&cell, &size);
        if (size >= 2 && cell[0] == '"' && cell[size - 1] == '"') {
            cell++;
            size -= 2;
        }
        ptier_field field = ptier_field_find(cell, size);
        address = address || field == PTIER_FIELD_URL || field == PTIER_FIELD_HOST;
        cells++;
        start = i + 1;
    }
    return address && cells > 1;
}

/* Skips comments: CSV is known by its first real line. */
static bool
is_csv(const char *data, size_t length)
{
    const char *end = data + length;
    while (data < end) {
        const char *stop = memchr(data, '\n', (size_t)(end - data));
        size_t line = (size_t)((stop ? stop : end) - data);
        const char *text = data;
        while (line && is_space(text[line - 1]))
            line--;
        if (line && text[0] != '#')
            return is_csv_header(text, line);
        if (!stop)
            break;
        data = stop + 1;
    }
    return false;
}

static ptier_import_format
by_content(const char *data, size_t length)
{
    while (length && is_space(*data)) {
        data++;
        length--;
    }
    if (length == 0)
        return PTIER_IMPORT_TEXT;
    if (*data == '{')
        return is_json_lines(data, length) ? PTIER_IMPORT_JSONL : PTIER_IMPORT_JSON;
    if (*data == '[') {
        size_t i = 1; /* "[socks5]" and "[2001:db8::1]:1080" are text */
        while (i < length && is_space(data[i]))
            i++;
        if (i < length && strchr("{[\"]", data[i]))
            return PTIER_IMPORT_JSON;
        return PTIER_IMPORT_TEXT;
    }
    if (is_csv(data, length))
        return PTIER_IMPORT_CSV;
    return *data == '"' ? PTIER_IMPORT_JSONL : PTIER_IMPORT_TEXT;
}

ptier_import_format
ptier_import_sniff(const char *name, const char *data, size_t length)
{
    ptier_import_format named = by_name(name), found = by_content(data, length);
    if (named == PTIER_IMPORT_AUTO)
        return found;
    /* Names lie in two ways that cannot be mistaken: lines in .json, JSON in .txt. */
    if (named == PTIER_IMPORT_JSON && found == PTIER_IMPORT_JSONL)
        return found;
    if (named == PTIER_IMPORT_TEXT && found == PTIER_IMPORT_JSON)
        return found;
    return named;
}

const char *
ptier_import_sniff_foreign(const char *data, size_t length)
{
    static const struct {
        const char *magic;
        size_t length;
        const char *what;
    } kinds[] = {
        {"\x1f\x8b", 2, "a gzip archive: unpack it first"},
        {"PK\x03\x04", 4, "a zip archive: unpack it first"},
        {"\x28\xb5\x2f\xfd", 4, "a zstd archive: unpack it first"},
        {"\xfd"
         "7zXZ",
         5, "an xz archive: unpack it first"},
        {PTIER_SQLITE_MAGIC, sizeof PTIER_SQLITE_MAGIC - 1,
         "an SQLite database: name its file, and no format"},
        {"{\"rev\":", 7, "proxytier's own log: take an export or a backup instead"},
        {"\xff\xfe", 2, "UTF-16 text: convert it with iconv -f UTF-16 -t UTF-8"},
        {"\xfe\xff", 2, "UTF-16 text: convert it with iconv -f UTF-16 -t UTF-8"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (length >= kinds[i].length && memcmp(data, kinds[i].magic, kinds[i].length) == 0)
            return kinds[i].what;
    return memchr(data, '\0', length) ? "binary data, not a list" : NULL;
}
