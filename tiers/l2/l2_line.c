#include "l2/l2_line.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "sealed.h"

static const char hex_digits[] = "0123456789abcdef";

/* ---- writing: into room that was reserved for the longest line ---- */

#define PUT_LITERAL(at, text) put_bytes(at, text, sizeof(text) - 1)

static char *
put_bytes(char *at, const char *text, size_t length)
{
    memcpy(at, text, length);
    return at + length;
}

static char *
put_u64(char *at, uint64_t value)
{
    char digits[20];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count)
        *at++ = digits[--count];
    return at;
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

static char *
put_hex64(char *at, uint64_t value)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        *at++ = hex_digits[value >> shift & 15];
    return at;
}

static char *
put_string(char *at, const char *text)
{
    *at++ = '"';
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
            *at++ = (char)c;
        } else if (c == '"' || c == '\\') {
            *at++ = '\\';
            *at++ = (char)c;
        } else {
            at = PUT_LITERAL(at, "\\u00");
            *at++ = hex_digits[c >> 4];
            *at++ = hex_digits[c & 15];
        }
    }
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
put_entry(char *at, const ptier_op *op, const ptier_clock *clock)
{
    const ptier_entry *entry = op->entry;
    const char *username = ptier_sealed_username(op->sealed);
    const char *password = ptier_sealed_password(op->sealed);
    at = PUT_LITERAL(at, ",\"proxy_url\":");
    at = put_string(at, ptier_entry_url(entry));
    at = PUT_LITERAL(at, ",\"username_encrypted\":");
    at = put_string(at, username ? username : "");
    at = PUT_LITERAL(at, ",\"password_encrypted\":");
    at = put_string(at, password ? password : "");
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
    at = PUT_LITERAL(at, ",\"failures\":");
    at = put_u64(at, entry->failure_count);
    at = PUT_LITERAL(at, ",\"revalidate\":");
    at = put_u64(at, entry->needs_revalidation);
    at = PUT_LITERAL(at, ",\"latency_us\":");
    at = put_u64(at, atomic_load_explicit(&entry->latency_us, memory_order_relaxed));
    at = PUT_LITERAL(at, ",\"successes\":");
    at = put_u64(at, atomic_load_explicit(&entry->success_count, memory_order_relaxed));
    at = PUT_LITERAL(at, ",\"reports\":");
    at = put_u64(at, atomic_load_explicit(&entry->report_count, memory_order_relaxed));
    at = PUT_LITERAL(at, ",\"accesses\":");
    at = put_u64(at, atomic_load_explicit(&entry->access_count, memory_order_relaxed));
    at = PUT_LITERAL(at, ",\"last_access\":");
    at = put_i64(at, atomic_load_explicit(&entry->last_access_ms, memory_order_relaxed));
    at = PUT_LITERAL(at, ",\"labels\":");
    return put_labels(at, entry);
}

static const char *const op_names[] = {
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
    at = put_string(at, op_names[op->kind]);
    if (op->kind != PTIER_OP_CLEAR) {
        at = PUT_LITERAL(at, ",\"key\":");
        at = put_string(at, ptier_entry_key(op->entry));
    }
    if (op->kind == PTIER_OP_PUT)
        at = put_entry(at, op, clock);
    uint8_t check[PTIER_CHECK_BYTES];
    ptier_status status = ptier_keyring_check(keyring, start, (size_t)(at - start), check);
    if (status)
        return status;
    at = PUT_LITERAL(at, ",\"check\":\"");
    for (size_t i = 0; i < sizeof check; i++) {
        *at++ = hex_digits[check[i] >> 4];
        *at++ = hex_digits[check[i] & 15];
    }
    at = PUT_LITERAL(at, "\"}\n");
    buffer->length += (size_t)(at - start);
    return PTIER_OK;
}

/* ---- parsing: the check is verified first, so that what follows reads our own writing ---- */

typedef struct cursor {
    const char *at, *end;
    char *room; /* for unescaped strings: never longer than the line */
    bool bad;
} cursor;

static void
expect(cursor *c, const char *literal)
{
    size_t length = strlen(literal);
    if (!c->bad && (size_t)(c->end - c->at) >= length && memcmp(c->at, literal, length) == 0)
        c->at += length;
    else
        c->bad = true;
}

static uint64_t
take_u64(cursor *c)
{
    uint64_t value = 0;
    const char *start = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        unsigned digit = (unsigned)(*c->at++ - '0');
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, digit, &value))
            c->bad = true;
    }
    c->bad |= c->at == start;
    return value;
}

static int64_t
take_i64(cursor *c)
{
    bool negative = c->at < c->end && *c->at == '-';
    c->at += negative;
    uint64_t value = take_u64(c);
    c->bad |= value > (uint64_t)INT64_MAX;
    return negative ? -(int64_t)value : (int64_t)value;
}

static int
hex_value(char digit)
{
    const char *found = digit ? strchr(hex_digits, digit) : NULL;
    return found ? (int)(found - hex_digits) : -1;
}

static uint64_t
take_hex64(cursor *c)
{
    uint64_t value = 0;
    for (int i = 0; i < 16; i++) {
        int digit = c->at < c->end ? hex_value(*c->at++) : -1;
        c->bad |= digit < 0;
        value = value << 4 | (unsigned)(digit & 15);
    }
    return value;
}

/* The character behind a backslash. */
static char
take_escape(cursor *c)
{
    if (c->at < c->end && (*c->at == '"' || *c->at == '\\'))
        return *c->at++;
    expect(c, "u00");
    int high = c->end - c->at >= 2 ? hex_value(c->at[0]) : -1;
    int low = c->end - c->at >= 2 ? hex_value(c->at[1]) : -1;
    if (c->bad || high < 0 || low < 0 || (high | low) == 0) {
        c->bad = true;
        return 0;
    }
    c->at += 2;
    return (char)(high << 4 | low);
}

/* A NUL-terminated string in the cursor's room. */
static const char *
take_string(cursor *c)
{
    char *out = c->room;
    expect(c, "\"");
    while (!c->bad && c->at < c->end && *c->at != '"') {
        char byte = *c->at++;
        *c->room++ = byte == '\\' ? take_escape(c) : byte;
    }
    *c->room++ = 0;
    expect(c, "\"");
    return out;
}

static size_t
take_labels(cursor *c, ptier_label labels[PTIER_LABELS_MAX])
{
    size_t count = 0;
    expect(c, "{");
    while (!c->bad && c->at < c->end && *c->at != '}') {
        if (count == PTIER_LABELS_MAX) {
            c->bad = true;
            break;
        }
        if (count)
            expect(c, ",");
        labels[count].name = take_string(c);
        expect(c, ":");
        labels[count].value = take_string(c);
        count++;
    }
    expect(c, "}");
    return count;
}

typedef struct parsed {
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    int64_t expires_boot_ms;
    uint64_t boot_tag;
} parsed;

static void
take_entry(cursor *c, parsed *p)
{
    ptier_record *r = &p->record;
    expect(c, ",\"proxy_url\":");
    r->url = take_string(c);
    expect(c, ",\"username_encrypted\":");
    r->username_token = take_string(c);
    expect(c, ",\"password_encrypted\":");
    r->password_token = take_string(c);
    expect(c, ",\"source\":");
    r->source = take_string(c);
    expect(c, ",\"fetch_time\":");
    r->fetch_time_ms = take_i64(c);
    expect(c, ",\"ttl\":");
    r->ttl_ms = take_i64(c);
    expect(c, ",\"expires\":");
    r->expires_at_ms = take_i64(c);
    expect(c, ",\"boot_expires\":");
    p->expires_boot_ms = take_i64(c);
    expect(c, ",\"boot\":\"");
    p->boot_tag = take_hex64(c);
    expect(c, "\",\"health\":");
    c->bad |= !ptier_health_parse(take_string(c), &r->health);
    expect(c, ",\"failures\":");
    r->failure_count = (uint32_t)take_u64(c);
    expect(c, ",\"revalidate\":");
    r->needs_revalidation = take_u64(c) != 0;
    expect(c, ",\"latency_us\":");
    r->latency_ms = (double)take_u64(c) / 1000.0;
    expect(c, ",\"successes\":");
    r->success_count = take_u64(c);
    expect(c, ",\"reports\":");
    r->report_count = take_u64(c);
    expect(c, ",\"accesses\":");
    r->access_count = take_u64(c);
    expect(c, ",\"last_access\":");
    r->last_access_ms = take_i64(c);
    expect(c, ",\"labels\":");
    r->label_count = take_labels(c, p->labels);
    r->labels = p->labels;
}

static bool
verify(const char *text, size_t length, ptier_keyring *keyring, size_t *body)
{
    static const char tail[] = ",\"check\":\"0123456789abcdef\"}";
    if (length < sizeof tail - 1)
        return false;
    const char *at = text + length - (sizeof tail - 1);
    *body = (size_t)(at - text);
    uint8_t check[PTIER_CHECK_BYTES];
    for (size_t i = 0; i < sizeof check; i++) {
        int high = hex_value(at[10 + 2 * i]);
        int low = hex_value(at[11 + 2 * i]);
        if (high < 0 || low < 0)
            return false;
        check[i] = (uint8_t)(high << 4 | low);
    }
    return memcmp(at, tail, 10) == 0 && memcmp(at + 26, "\"}", 2) == 0 &&
           ptier_keyring_verify(keyring, text, *body, check);
}

static ptier_status
make_entry(parsed *p, const ptier_l2_reader *reader, ptier_op *op)
{
    char username[PTIER_CREDENTIAL_MAX + 1] = "", password[PTIER_CREDENTIAL_MAX + 1] = "";
    const char *user_token = p->record.username_token, *pass_token = p->record.password_token;
    user_token = user_token && *user_token ? user_token : NULL;
    pass_token = pass_token && *pass_token ? pass_token : NULL;
    ptier_status status = PTIER_OK;
    if (reader->decrypt && user_token)
        status = ptier_sealed_open(reader->keyring, user_token, strlen(user_token), username);
    if (!status && reader->decrypt && pass_token)
        status = ptier_sealed_open(reader->keyring, pass_token, strlen(pass_token), password);
    if (!status)
        status = ptier_sealed_from_tokens(user_token, pass_token, &op->sealed);
    if (!status) {
        p->record.username = username;
        p->record.password = password;
        p->record.revision = op->revision;
        op->entry =
            ptier_entry_create(&p->record, reader->hash_key(p->record.key), p->record.expires_at_ms,
                               ptier_clock_expiry(reader->clock, p->boot_tag, p->expires_boot_ms,
                                                  p->record.expires_at_ms));
        status = op->entry ? PTIER_OK : PTIER_RESOURCE_EXHAUSTED;
    }
    OPENSSL_cleanse(username, sizeof username);
    OPENSSL_cleanse(password, sizeof password);
    return status;
}

static bool
take_op(cursor *c, ptier_op *op, parsed *p)
{
    expect(c, "{\"rev\":");
    op->revision = take_u64(c);
    expect(c, ",\"prev\":");
    op->replaces = take_u64(c);
    expect(c, ",\"op\":");
    const char *name = take_string(c);
    for (int kind = PTIER_OP_PUT; kind <= PTIER_OP_CLEAR; kind++)
        if (strcmp(name, op_names[kind]) == 0)
            op->kind = (ptier_op_kind)kind;
    if (op->kind == PTIER_OP_PUT || op->kind == PTIER_OP_REMOVE) {
        expect(c, ",\"key\":");
        p->record.key = take_string(c);
        c->bad |= !*p->record.key;
    }
    if (op->kind == PTIER_OP_PUT)
        take_entry(c, p);
    return op->kind && !c->bad && c->at == c->end && op->revision != 0;
}

ptier_status
ptier_l2_line_parse(const char *text, size_t length, const ptier_l2_reader *reader,
                    ptier_l2_line *line)
{
    size_t body;
    memset(line, 0, sizeof *line);
    if (length > PTIER_L2_LINE_MAX || !verify(text, length, reader->keyring, &body))
        return PTIER_DATA_LOSS;
    char small[4096];
    /* One NUL a string: a string takes at least its two quotes, so `body` bytes always suffice. */
    char *room = body <= sizeof small ? small : malloc(body);
    if (!room)
        return PTIER_RESOURCE_EXHAUSTED;
    cursor c = {.at = text, .end = text + body, .room = room};
    parsed p = {0};
    ptier_status status = PTIER_DATA_LOSS;
    if (take_op(&c, &line->op, &p))
        status = line->op.kind == PTIER_OP_CLEAR ? PTIER_OK : make_entry(&p, reader, &line->op);
    if (room != small)
        free(room);
    if (status)
        ptier_l2_line_fini(line);
    return status;
}

void
ptier_l2_line_fini(ptier_l2_line *line)
{
    ptier_entry_release(line->op.entry);
    ptier_sealed_release(line->op.sealed);
    memset(line, 0, sizeof *line);
}
