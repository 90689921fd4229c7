/* See bombs.h. */
#include "support/bombs.h"

#include <string.h>

/* The same bytes over and over. */
static size_t
repeat(uint8_t *out, size_t room, const char *bytes, size_t length)
{
    size_t at = 0;
    for (; at + length <= room; at += length)
        memcpy(out + at, bytes, length);
    return at;
}
#define REPEAT(name, bytes)                                                                        \
    static size_t name(uint8_t *out, size_t room)                                                  \
    {                                                                                              \
        return repeat(out, room, bytes, sizeof(bytes) - 1);                                        \
    }

REPEAT(empty_first_fields, "\x0a\x00") /* proxies, keys, reports; of Put: one proxy over and over */
REPEAT(empty_third_fields, "\x1a\x00") /* Pick.exclude */
REPEAT(unknown_fields, "\xf8\x07\x01")
REPEAT(unknown_messages, "\xfa\x07\x00")
REPEAT(groups, "\x0b") /* each begins in the one before */

/* `outer` as a tag, its length, then `bytes` over and over in it. */
static size_t
inside(uint8_t *out, size_t room, uint8_t outer, const char *bytes, size_t length)
{
    size_t filled = repeat(out + 6, room - 6, bytes, length);
    out[0] = outer;
    for (int i = 0; i < 5; i++)
        out[1 + i] = (uint8_t)((filled >> (7 * i) & 0x7f) | (i < 4 ? 0x80 : 0));
    return filled + 6;
}
#define INSIDE(name, outer, bytes)                                                                 \
    static size_t name(uint8_t *out, size_t room)                                                  \
    {                                                                                              \
        return inside(out, room, outer, bytes, sizeof(bytes) - 1);                                 \
    }

INSIDE(labels_of_a_proxy, 0x0a, "\x5a\x00")
INSIDE(labels_of_a_pick, 0x12, "\x1a\x00")
INSIDE(labels_of_a_list, 0x0a, "\x1a\x00")
INSIDE(urls_of_a_proxy, 0x0a, "\x12\x01x")
INSIDE(times_of_a_proxy, 0x0a, "\x38\x01")

/* Field 1 in field 1 in field 1 …: 34 KB of it end a program that follows. */
static size_t
nested(uint8_t *out, size_t room)
{
    size_t size = room < 34000 ? room : 34000, at = size;
    /* From the inside out: lengths are of what is behind. */
    while (at > 4) {
        size_t length = size - at;
        uint8_t head[4] = {0x0a};
        size_t used = 1;
        do {
            head[used++] = (uint8_t)((length & 0x7f) | (length > 0x7f ? 0x80 : 0));
            length >>= 7;
        } while (length);
        at -= used;
        memcpy(out + at, head, used);
    }
    memmove(out, out + at, size - at);
    return size - at;
}

const bomb bombs[] = {
    {"proxies", "/proxytier.v1.ProxyCache/PutMany", "more than 10000 proxies", empty_first_fields},
    {"keys", "/proxytier.v1.ProxyCache/GetMany", "more than 10000 keys", empty_first_fields},
    {"deleted", "/proxytier.v1.ProxyCache/Delete", "more than 10000 keys", empty_first_fields},
    {"reports", "/proxytier.v1.ProxyCache/ReportHealth", "more than 10000 reports",
     empty_first_fields},
    {"exclude", "/proxytier.v1.ProxyCache/Pick", "more than 10000 exclude", empty_third_fields},
    {"one proxy", "/proxytier.v1.ProxyCache/Put", "proxy is given more than 8 times",
     empty_first_fields},
    {"labels", "/proxytier.v1.ProxyCache/PutMany", "more than 64 labels", labels_of_a_proxy},
    {"pick", "/proxytier.v1.ProxyCache/Pick", "more than 64 labels", labels_of_a_pick},
    {"list", "/proxytier.v1.ProxyCache/List", "more than 64 labels", labels_of_a_list},
    {"urls", "/proxytier.v1.ProxyCache/Put", "url is given more than 8 times", urls_of_a_proxy},
    {"times", "/proxytier.v1.ProxyCache/Put", "ttl_ms is given more than 8 times",
     times_of_a_proxy},
    {"unknown", "/proxytier.v1.ServerInfo/GetInfo", "does not know", unknown_fields},
    {"messages", "/proxytier.v1.Health/Check", "does not know", unknown_messages},
    {"groups", "/proxytier.v1.ProxyCache/Put", "not a proxytier.v1.PutRequest", groups},
    {"nested", "/proxytier.v1.ProxyCache/Put", "field key", nested},
    {"nested many", "/proxytier.v1.ProxyCache/PutMany", "field key", nested},
};
const size_t bomb_count = sizeof bombs / sizeof *bombs;
