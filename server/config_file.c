/* The configuration file: inih reads it, this file counts lines (the library's callback does not
 * know them). */
#include "config_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ini.h>

#include "config_value.h"

#define SOURCES_SECTION "ttl.sources"
#define MAIN_SECTION    "proxytierd"
#define NAME_MAX_BYTES  49

typedef struct file_reader {
    ptier_config_loader *loader;
    FILE *file;
    const char *path;
    unsigned line;
    ptier_status status; /* the first failure */
    ptier_error *error;
} file_reader;

/* As fgets. A line that does not fit would be split silently: it ends the reading instead. */
static char *
read_line(char *text, int room, void *context)
{
    file_reader *reader = context;
    if (reader->status != PTIER_OK || !fgets(text, room, reader->file))
        return NULL;
    reader->line++;
    if (!strchr(text, '\n') && !feof(reader->file)) {
        reader->status = ptier_fail(reader->error, PTIER_INVALID_ARGUMENT,
                                    "%s:%u: the line is longer than %d bytes", reader->path,
                                    reader->line, room - 2);
        return NULL;
    }
    return text;
}

static ptier_status
set_source_ttl(file_reader *reader, const char *source, const char *value)
{
    ptier_config *config = reader->loader->config;
    int64_t ms;
    if (!ptier_parse_duration(value, &ms))
        return ptier_fail(
            reader->error, PTIER_INVALID_ARGUMENT,
            "%s:%u: %.60s: '%.60s' is not a duration such as 500ms, 2s, 15m, 1h, 7d or 0",
            reader->path, reader->line, source, value);
    if (strlen(source) >= NAME_MAX_BYTES) /* the library cuts longer ones */
        return ptier_fail(reader->error, PTIER_INVALID_ARGUMENT,
                          "%s:%u: the name of a source has at most %d bytes here", reader->path,
                          reader->line, NAME_MAX_BYTES - 1);
    ptier_source_ttl *list =
        realloc(config->source_ttls, (config->source_ttl_count + 1) * sizeof *config->source_ttls);
    if (!list)
        return ptier_fail(reader->error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    config->source_ttls = list;
    char *name = strdup(source);
    if (!name)
        return ptier_fail(reader->error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    list[config->source_ttl_count++] = (ptier_source_ttl){.source = name, .ttl_ms = ms};
    return PTIER_OK;
}

static ptier_status
set_option(file_reader *reader, const char *name, const char *value)
{
    char where[PTIER_ERROR_MESSAGE_MAX];
    const ptier_option *option = ptier_option_find(name);
    if (!option || strcmp(name, "config") == 0)
        return ptier_fail(reader->error, PTIER_INVALID_ARGUMENT, "%s:%u: unknown option '%.60s'",
                          reader->path, reader->line, name);
    (void)snprintf(where, sizeof where, "%s:%u: %s", reader->path, reader->line,
                   name); /* cut is fine */
    return ptier_option_set(reader->loader, option, PTIER_LAYER_FILE, value, where, reader->error);
}

/* inih's callback: 0 is a failure. */
static int
on_value(void *context, const char *section, const char *name, const char *value)
{
    file_reader *reader = context;
    if (reader->status != PTIER_OK)
        return 0;
    if (strcmp(section, SOURCES_SECTION) == 0)
        reader->status = set_source_ttl(reader, name, value);
    else if (*section && strcmp(section, MAIN_SECTION) != 0)
        reader->status = ptier_fail(reader->error, PTIER_INVALID_ARGUMENT,
                                    "%s:%u: unknown section [%.60s]; there are [" MAIN_SECTION
                                    "] and [" SOURCES_SECTION "]",
                                    reader->path, reader->line, section);
    else
        reader->status = set_option(reader, name, value);
    return reader->status == PTIER_OK;
}

ptier_status
ptier_config_read_file(ptier_config_loader *loader, const char *path, ptier_error *error)
{
    file_reader reader = {.loader = loader, .path = path, .error = error};
    reader.file = fopen(path, "re");
    if (!reader.file)
        return ptier_fail(error, errno == ENOENT ? PTIER_INVALID_ARGUMENT : PTIER_PERMISSION_DENIED,
                          "cannot read the configuration file %s: %s", path, strerror(errno));
    int bad_line = ini_parse_stream(read_line, &reader, on_value, &reader);
    if (reader.status == PTIER_OK && ferror(reader.file))
        reader.status =
            ptier_fail(error, PTIER_UNAVAILABLE, "cannot read the configuration file %s: %s", path,
                       strerror(errno));
    if (reader.status == PTIER_OK && bad_line != 0)
        reader.status =
            ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s:%d: not a `name = value` line", path,
                       bad_line > 0 ? bad_line : 1);
    (void)fclose(reader.file); /* read only */
    return reader.status;
}
