/* Text, spans and sizes for people. What came from elsewhere never reaches a terminal unfiltered.
 */
#include "cli.h"

#include <inttypes.h>

void
ptier_cli_text(FILE *out, const char *text, int width)
{
    int written = 0;

    for (const unsigned char *c = (const unsigned char *)text; *c; c++, written++) {
        /* C0, DEL, and C1 as UTF-8 (0xC2 0x80..0x9F): terminals act upon them. */
        bool c1 = *c == 0xC2 && c[1] >= 0x80 && c[1] <= 0x9F;
        if (c1)
            c++;
        (void)putc(c1 || *c < 0x20 || *c == 0x7F ? '?' : *c, out); /* told by ferror at the end */
    }
    for (; written < width; written++)
        (void)putc(' ', out);
}

const char *
ptier_cli_span(int64_t ms, char out[PTIER_CLI_SPAN_MAX])
{
    int64_t s = ms / 1000;

    if (ms < 0)
        (void)snprintf(out, PTIER_CLI_SPAN_MAX, "-");
    else if (ms < 1000)
        (void)snprintf(out, PTIER_CLI_SPAN_MAX, "%" PRId64 "ms", ms);
    else if (s < 60)
        (void)snprintf(out, PTIER_CLI_SPAN_MAX, "%.1fs", (double)ms / 1000);
    else if (s < 3600)
        (void)snprintf(out, PTIER_CLI_SPAN_MAX, "%" PRId64 "m %02" PRId64 "s", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(out, PTIER_CLI_SPAN_MAX, "%" PRId64 "h %02" PRId64 "m", s / 3600,
                       s / 60 % 60);
    else
        (void)snprintf(out, PTIER_CLI_SPAN_MAX, "%" PRId64 "d %02" PRId64 "h", s / 86400,
                       s / 3600 % 24);
    return out;
}

const char *
ptier_cli_size(uint64_t bytes, char out[PTIER_CLI_SIZE_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double size = (double)bytes;
    size_t unit = 0;

    while (size >= 1024 && unit < 4) {
        size /= 1024;
        unit++;
    }
    (void)snprintf(out, PTIER_CLI_SIZE_MAX, unit == 0 ? "%.0f %s" : "%.1f %s", size, units[unit]);
    return out;
}
