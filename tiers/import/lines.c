#include "import/lines.h"

#include <string.h>

#include "import/import_internal.h"
#include "import/text_util.h"

void
ptier_lines_init(ptier_lines *lines, ptier_line_fn on_line, void *context)
{
    *lines = (ptier_lines){.on_line = on_line, .context = context};
}

void
ptier_lines_fini(ptier_lines *lines)
{
    ptier_wiping_free(lines->partial);
    lines->partial = NULL;
}

static ptier_status
keep_partial(ptier_lines *lines, const char *data, size_t length)
{
    if (lines->too_long || lines->length + length > PTIER_IMPORT_LINE_MAX) {
        lines->too_long = true;
        return PTIER_OK;
    }
    if (lines->length + length > lines->room) {
        size_t room = 2 * (lines->length + length) + 256;
        char *grown = ptier_wiping_realloc(lines->partial, room);
        if (!grown)
            return PTIER_RESOURCE_EXHAUSTED;
        lines->partial = grown;
        lines->room = room;
    }
    memcpy(lines->partial + lines->length, data, length);
    lines->length += length;
    return PTIER_OK;
}

static ptier_status
hand_out(ptier_lines *lines, const char *text, size_t length)
{
    if (length && text[length - 1] == '\r')
        length--;
    return lines->on_line(lines->context, text, length, ++lines->number);
}

static ptier_status
hand_out_partial(ptier_lines *lines)
{
    ptier_status status = lines->too_long ? lines->on_line(lines->context, NULL, 0, ++lines->number)
                                          : hand_out(lines, lines->partial, lines->length);
    lines->length = 0;
    lines->too_long = false;
    return status;
}

ptier_status
ptier_lines_feed(ptier_lines *lines, const char *data, size_t length)
{
    const char *end = data + length;
    ptier_status status = PTIER_OK;
    while (status == PTIER_OK && data < end) {
        const char *stop = memchr(data, '\n', (size_t)(end - data));
        size_t piece = (size_t)((stop ? stop : end) - data);
        if (!stop)
            return keep_partial(lines, data, piece);
        if (lines->length || lines->too_long) {
            status = keep_partial(lines, data, piece);
            if (status == PTIER_OK)
                status = hand_out_partial(lines);
        } else {
            status = hand_out(lines, data, piece);
        }
        data = stop + 1;
    }
    return status;
}

ptier_status
ptier_lines_finish(ptier_lines *lines)
{
    return lines->length || lines->too_long ? hand_out_partial(lines) : PTIER_OK;
}
