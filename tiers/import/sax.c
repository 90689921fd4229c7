#include "import/sax.h"

#include <string.h>

#include "import/scheme.h"
#include "import/text_util.h"

enum kind {
    KIND_TOP = 0,
    KIND_LIST,      /* an array of records */
    KIND_OBJECT,    /* a record, or what wraps lists */
    KIND_LABELS,    /* the labels of a record */
    KIND_PROTOCOLS, /* its protocols */
    KIND_IGNORED,
};

/* Whose members are arrays of records, in the lists that people publish. */
static bool
is_list_name(const char *name, size_t length)
{
    static const char *const names[] = {
        "proxies", "proxy_list", "data",    "results", "items",
        "list",    "entries",    "records", "servers",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == length && memcmp(names[i], name, length) == 0)
            return true;
    return false;
}

static ptier_sax_level *
top(ptier_sax *sax)
{
    return &sax->levels[sax->depth];
}

static uint64_t
line_now(ptier_sax *sax)
{
    size_t at = yajl_get_bytes_consumed(sax->yajl);
    const char *from = sax->chunk + sax->counted;
    while (sax->counted < at && (from = memchr(from, '\n', at - sax->counted))) {
        from++;
        sax->counted = (size_t)(from - sax->chunk);
        sax->line++;
    }
    sax->counted = at > sax->counted ? at : sax->counted;
    return sax->line;
}

static bool
emit(ptier_sax *sax, const char *scheme, uint64_t line)
{
    sax->stopped = !ptier_draft_emit(&sax->draft, scheme, line);
    return !sax->stopped;
}

static bool
push(ptier_sax *sax, enum kind kind, const char *scheme)
{
    if (sax->depth == PTIER_SAX_DEPTH) {
        sax->too_deep = true;
        return false;
    }
    sax->depth++;
    *top(sax) = (ptier_sax_level){
        .kind = (uint8_t)kind, .scheme = scheme, .line = kind == KIND_OBJECT ? line_now(sax) : 0};
    return true;
}

/* A string, number or boolean. */
static bool
scalar(ptier_sax *sax, const char *text, size_t length, bool is_string)
{
    ptier_sax_level *level = top(sax);
    sax->events++;
    switch (level->kind) {
    case KIND_TOP:
    case KIND_LIST:
        if (level->kind == KIND_TOP && !sax->lines)
            return true; /* no list: the end of the import says so */
        ptier_draft_reset(&sax->draft);
        if (is_string)
            ptier_draft_set(&sax->draft, PTIER_FIELD_URL, "", 0, text, length);
        else
            ptier_draft_spoil(&sax->draft, "a number or a boolean is no proxy");
        return emit(sax, level->scheme, line_now(sax));
    case KIND_OBJECT:
        if (!level->wrapper)
            ptier_draft_set(&sax->draft, sax->field, sax->name, sax->name_length, text, length);
        return true;
    case KIND_LABELS:
        ptier_draft_label(&sax->draft, sax->name, sax->name_length, text, length);
        return true;
    case KIND_PROTOCOLS:
        ptier_draft_set(&sax->draft, PTIER_FIELD_PROTOCOL, "", 0, text, length);
        return true;
    default:
        return true;
    }
}

static int
on_string(void *context, const unsigned char *text, size_t length)
{
    return scalar(context, (const char *)text, length, true);
}

static int
on_number(void *context, const char *text, size_t length)
{
    return scalar(context, text, length, false);
}

static int
on_boolean(void *context, int value)
{
    return scalar(context, value ? "true" : "false", value ? 4 : 5, false);
}

static int
on_null(void *context)
{
    ptier_sax *sax = context;
    sax->events++;
    return 1;
}

/* What a container that is a member of an object is for. May turn the object into a wrapper. */
static enum kind
member_kind(ptier_sax *sax, bool is_array, const char **scheme)
{
    ptier_sax_level *level = top(sax);
    if (!level->wrapper && sax->field == PTIER_FIELD_LABELS && !is_array)
        return KIND_LABELS;
    if (!level->wrapper && is_array &&
        (sax->field == PTIER_FIELD_PROTOCOL || sax->field == PTIER_FIELD_TYPE))
        return KIND_PROTOCOLS;
    bool in_list = sax->levels[sax->depth - 1].kind == KIND_LIST;
    if (in_list || (!level->wrapper && ptier_draft_has_address(&sax->draft)))
        return KIND_IGNORED;
    const char *protocol = ptier_scheme_find(sax->name, sax->name_length);
    if (!protocol && !is_list_name(sax->name, sax->name_length))
        return KIND_IGNORED;
    if (protocol)
        *scheme = protocol;
    level->wrapper = true;
    sax->list_seen = true;
    return is_array ? KIND_LIST : KIND_OBJECT;
}

static int
on_start_map(void *context)
{
    ptier_sax *sax = context;
    const char *scheme = top(sax)->scheme;
    enum kind kind = KIND_IGNORED;
    sax->events++;
    if (top(sax)->kind == KIND_TOP || top(sax)->kind == KIND_LIST)
        kind = KIND_OBJECT;
    else if (top(sax)->kind == KIND_OBJECT)
        kind = member_kind(sax, false, &scheme);
    if (kind == KIND_OBJECT)
        ptier_draft_reset(&sax->draft);
    return push(sax, kind, scheme);
}

static int
on_start_array(void *context)
{
    ptier_sax *sax = context;
    const char *scheme = top(sax)->scheme;
    enum kind kind = KIND_IGNORED;
    sax->events++;
    if (top(sax)->kind == KIND_TOP) {
        kind = KIND_LIST;
        sax->list_seen = true;
    } else if (top(sax)->kind == KIND_OBJECT) {
        kind = member_kind(sax, true, &scheme);
    } else if (top(sax)->kind == KIND_LIST) {
        ptier_importer_skip(sax->importer, line_now(sax), "an array is no proxy");
    }
    return push(sax, kind, scheme);
}

static int
on_key(void *context, const unsigned char *text, size_t length)
{
    ptier_sax *sax = context;
    sax->events++;
    uint8_t kind = top(sax)->kind;
    if (kind == KIND_IGNORED)
        return 1;
    sax->name_length = length;
    memcpy(sax->name, text, length < sizeof sax->name ? length : sizeof sax->name);
    if (length > sizeof sax->name - 1)
        sax->name_length = sizeof sax->name; /* over the limit of a label's name: refused there */
    sax->field =
        kind == KIND_OBJECT ? ptier_field_find(sax->name, sax->name_length) : PTIER_FIELD_LABEL;
    return 1;
}

static int
on_end(void *context)
{
    ptier_sax *sax = context;
    ptier_sax_level level = *top(sax);
    sax->events++;
    sax->depth--;
    if (level.kind != KIND_OBJECT || level.wrapper)
        return 1;
    bool record = ptier_draft_has_address(&sax->draft) || top(sax)->kind == KIND_LIST || sax->lines;
    if (!record)
        return 1;
    sax->list_seen = true;
    return emit(sax, level.scheme, level.line);
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_start_map,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end,
};

/* ---- memory for yajl: its buffers see credentials ---- */

static void *
sax_malloc(void *context, size_t size)
{
    (void)context; /* none */
    return ptier_wiping_realloc(NULL, size);
}

static void *
sax_realloc(void *context, void *old, size_t size)
{
    (void)context;
    return ptier_wiping_realloc(old, size);
}

static void
sax_free(void *context, void *memory)
{
    (void)context;
    ptier_wiping_free(memory);
}

/* ---- driving ---- */

void
ptier_sax_init(ptier_sax *sax, ptier_importer *importer, bool lines)
{
    sax->importer = importer;
    sax->yajl = NULL;
    sax->lines = lines;
    sax->list_seen = sax->too_deep = sax->stopped = false;
    sax->events = 0;
    sax->chunk = "";
    sax->counted = 0;
    sax->line = 1;
    ptier_draft_init(&sax->draft, importer);
}

void
ptier_sax_fini(ptier_sax *sax)
{
    if (sax->yajl)
        yajl_free(sax->yajl);
    sax->yajl = NULL;
    ptier_draft_fini(&sax->draft);
}

ptier_status
ptier_sax_reset(ptier_sax *sax)
{
    static yajl_alloc_funcs memory = {sax_malloc, sax_realloc, sax_free, NULL};
    if (sax->yajl)
        yajl_free(sax->yajl);
    sax->yajl = yajl_alloc(&callbacks, &memory, sax);
    if (!sax->yajl)
        return PTIER_RESOURCE_EXHAUSTED;
    (void)yajl_config(sax->yajl, yajl_allow_multiple_values, 1); /* a known option cannot fail */
    /* Strings are checked record by record, so that a bad one costs one record and not the file. */
    (void)yajl_config(sax->yajl, yajl_dont_validate_strings, 1);
    sax->depth = 0;
    sax->levels[0] = (ptier_sax_level){.kind = KIND_TOP, .scheme = sax->importer->scheme};
    sax->too_deep = false;
    return PTIER_OK;
}

static ptier_status
judge(ptier_sax *sax, yajl_status status, const char **why)
{
    if (status == yajl_status_ok)
        return PTIER_OK;
    (void)line_now(sax); /* moves sax->line */
    if (sax->stopped)
        return PTIER_CANCELLED;
    *why = sax->too_deep ? "nested too deeply" : "not valid JSON";
    return PTIER_INVALID_ARGUMENT;
}

ptier_status
ptier_sax_feed(ptier_sax *sax, const char *data, size_t length, const char **why)
{
    sax->chunk = data;
    sax->counted = 0;
    yajl_status parsed = yajl_parse(sax->yajl, (const unsigned char *)data, length);
    ptier_status status = judge(sax, parsed, why);
    if (status == PTIER_OK)
        (void)line_now(sax);
    sax->chunk = "";
    sax->counted = 0;
    return status;
}

ptier_status
ptier_sax_finish(ptier_sax *sax, const char **why)
{
    /* yajl ends its input with a space of its own: there is no chunk to count lines in */
    bool open = sax->depth > 0;
    yajl_status parsed = yajl_complete_parse(sax->yajl);
    if (parsed == yajl_status_ok && !open)
        return PTIER_OK;
    if (sax->stopped)
        return PTIER_CANCELLED;
    *why = open ? "the JSON ends in the middle: is the file cut off?" : "not valid JSON";
    return PTIER_INVALID_ARGUMENT;
}
