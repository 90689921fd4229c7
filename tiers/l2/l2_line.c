/* Writing lines, into room that was reserved for the longest one. */
#include "l2/l2_line.h"

#include <string.h>

static const char hex_digits[] = "0123456789abcdef";

#define PUT_LITERAL(at, text) put_bytes(at, text, sizeof(text) - 1)

static char *
put_bytes(char *at, const char *text, size_t length)
{
    memcpy(at, text, length);
    return at + length;
}

/* Two digits a division. */
static char *
put_u64(char *at, uint64_t value)
{
    char digits[20];
    size_t first = sizeof digits;
    for (; value >= 100; value /= 100) {
        unsigned rest = (unsigned)(value % 100);
        digits[--first] = (char)('0' + rest % 10);
        digits[--first] = (char)('0' + rest / 10);
    }
    digits[--first] = (char)('0' + value % 10);
    if (value >= 10)
        digits[--first] = (char)('0' + value / 10);
    return put_bytes(at, digits + first, sizeof digits - first);
}

static char *
put_i64(char *at, int64_t value)
{
    if (value < 0) {
        *at++ = '-';
        return put_u64(at, -(uint64_t)value);
    }
    return put_u64(at, (uint64_t)value);
}

/* Nearly every new entry has zeros here: they are left out. */
#define PUT_UNLESS_0(at, name, value) ((value) ? put_u64(PUT_LITERAL(at, name), value) : (at))

static char *
put_hex64(char *at, uint64_t value)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        *at++ = hex_digits[value >> shift & 15];
    return at;
}

/* What a string does not have as it is, its end included. */
static const bool special[256] = {[0 ... 0x1f] = true, ['"'] = true, ['\\'] = true, [0x7f] = true};

static char *
put_escaped(char *at, unsigned char c)
{
    *at++ = '\\';
    if (c == '"' || c == '\\') {
        *at++ = (char)c;
        return at;
    }
    at = PUT_LITERAL(at, "u00");
    *at++ = hex_digits[c >> 4];
    *at++ = hex_digits[c & 15];
    return at;
}

static char *
put_string(char *at, const char *text)
{
    *at++ = '"';
    for (;;) {
        while (!special[(unsigned char)*text])
            *at++ = *text++;
        if (!*text)
            break;
        at = put_escaped(at, (unsigned char)*text++);
    }
    *at++ = '"';
    return at;
}

/* Base64: nothing in it has to be escaped. */
static char *
put_token(char *at, const char *token, size_t length)
{
    *at++ = '"';
    if (length) /* else there may be no token */
        at = put_bytes(at, token, length);
    *at++ = '"';
    return at;
}

static char *
put_labels(char *at, const ptier_entry *entry)
{
    const char *text = entry->text + entry->labels_at;
    *at++ = '{';
    for (unsigned i = 0; i < entry->label_count; i++) {
        if (i)
            *at++ = ',';
        at = put_string(at, text);
        text += strlen(text) + 1;
        *at++ = ':';
        at = put_string(at, text);
        text += strlen(text) + 1;
    }
    *at++ = '}';
    return at;
}

static char *
put_usage(char *at, const ptier_entry *entry)
{
    uint64_t latency = atomic_load_explicit(&entry->latency_us, memory_order_relaxed);
    uint64_t successes = atomic_load_explicit(&entry->success_count, memory_order_relaxed);
    uint64_t reports = atomic_load_explicit(&entry->report_count, memory_order_relaxed);
    uint64_t accesses = atomic_load_explicit(&entry->access_count, memory_order_relaxed);
    int64_t last_access = atomic_load_explicit(&entry->last_access_ms, memory_order_relaxed);
    at = PUT_UNLESS_0(at, ",\"latency_us\":", latency);
    at = PUT_UNLESS_0(at, ",\"successes\":", successes);
    at = PUT_UNLESS_0(at, ",\"reports\":", reports);
    at = PUT_UNLESS_0(at, ",\"accesses\":", accesses);
    return last_access > 0 ? put_u64(PUT_LITERAL(at, ",\"last_access\":"), (uint64_t)last_access)
                           : at;
}

static char *
put_entry(char *at, const ptier_op *op, const ptier_clock *clock)
{
    const ptier_entry *entry = op->entry;
    const ptier_sealed *sealed = op->sealed;
    at = PUT_LITERAL(at, ",\"proxy_url\":");
    at = put_string(at, ptier_entry_url(entry));
    at = PUT_LITERAL(at, ",\"username_encrypted\":");
    at = put_token(at, ptier_sealed_username(sealed), sealed ? sealed->username_bytes : 0);
    at = PUT_LITERAL(at, ",\"password_encrypted\":");
    at = put_token(at, ptier_sealed_password(sealed), sealed ? sealed->password_bytes : 0);
    at = PUT_LITERAL(at, ",\"source\":");
    at = put_string(at, ptier_entry_source(entry));
    at = PUT_LITERAL(at, ",\"fetch_time\":");
    at = put_i64(at, entry->fetch_time_ms);
    at = PUT_LITERAL(at, ",\"ttl\":");
    at = put_i64(at, entry->ttl_ms);
    at = PUT_LITERAL(at, ",\"expires\":");
    at = put_i64(at, entry->expires_wall_ms);
    at = PUT_LITERAL(at, ",\"boot_expires\":");
    at = put_i64(at, entry->expires_boot_ms);
    at = PUT_LITERAL(at, ",\"boot\":\"");
    at = put_hex64(at, clock->boot_tag);
    at = PUT_LITERAL(at, "\",\"health\":");
    at = put_string(at, ptier_health_name((ptier_health)entry->health));
    at = PUT_UNLESS_0(at, ",\"failures\":", entry->failure_count);
    at = PUT_UNLESS_0(at, ",\"revalidate\":", (uint64_t)entry->needs_revalidation);
    at = put_usage(at, entry);
    at = PUT_LITERAL(at, ",\"labels\":");
    return put_labels(at, entry);
}

/* The end of every line: a check over what was written from `start` on. */
static ptier_status
put_check(const char *start, char **at, ptier_keyring *keyring)
{
    uint8_t check[PTIER_CHECK_BYTES];
    ptier_status status = ptier_keyring_check(keyring, start, (size_t)(*at - start), check);
    if (status)
        return status;
    char *out = PUT_LITERAL(*at, ",\"check\":\"");
    for (size_t i = 0; i < sizeof check; i++) {
        *out++ = hex_digits[check[i] >> 4];
        *out++ = hex_digits[check[i] & 15];
    }
    *at = PUT_LITERAL(out, "\"}\n");
    return PTIER_OK;
}

const char *const ptier_l2_op_names[] = {
    [PTIER_OP_PUT] = "put", [PTIER_OP_REMOVE] = "remove", [PTIER_OP_CLEAR] = "clear"};

ptier_status
ptier_l2_line_write(ptier_buffer *buffer, const ptier_op *op, const ptier_clock *clock,
                    ptier_keyring *keyring)
{
    if (!ptier_buffer_reserve(buffer, PTIER_L2_LINE_MAX))
        return PTIER_RESOURCE_EXHAUSTED;
    char *start = buffer->data + buffer->length;
    char *at = start;
    at = PUT_LITERAL(at, "{\"rev\":");
    at = put_u64(at, op->revision);
    at = PUT_LITERAL(at, ",\"prev\":");
    at = put_u64(at, op->replaces);
    at = PUT_LITERAL(at, ",\"op\":");
    at = put_string(at, ptier_l2_op_names[op->kind]);
    if (op->kind != PTIER_OP_CLEAR) {
        at = PUT_LITERAL(at, ",\"key\":");
        at = put_string(at, ptier_entry_key(op->entry));
    }
    if (op->kind == PTIER_OP_PUT)
        at = put_entry(at, op, clock);
    ptier_status status = put_check(start, &at, keyring);
    if (status)
        return status;
    buffer->length += (size_t)(at - start);
    return PTIER_OK;
}

ptier_status
ptier_l2_header_write(char text[PTIER_L2_HEADER_MAX], size_t *length, const ptier_l2_header *header,
                      ptier_keyring *keyring)
{
    char *at = text;
    at = PUT_LITERAL(at, PTIER_L2_HEADER_PREFIX);
    at = put_u64(at, header->number);
    at = PUT_LITERAL(at, ",\"first\":");
    at = put_u64(at, header->first);
    at = PUT_LITERAL(at, ",\"after\":");
    at = put_u64(at, header->after);
    at = PUT_LITERAL(at, ",\"highest\":");
    at = put_u64(at, header->highest);
    ptier_status status = put_check(text, &at, keyring);
    *length = (size_t)(at - text);
    return status;
}
