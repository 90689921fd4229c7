/* Reading lines. Their check is verified first, so that what follows reads our own writing. */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "l2/l2_line.h"
#include "hex.h"
#include "sealed.h"

typedef struct cursor {
    const char *at, *end;
    char *room; /* for unescaped strings: never longer than the line */
    bool bad;
} cursor;

/* Inline, so that the length of a literal is known: a line has fifty of them. */
static inline __attribute__((always_inline)) bool
accept(cursor *c, const char *literal)
{
    const size_t length = strlen(literal);
    if (c->bad || (size_t)(c->end - c->at) < length || memcmp(c->at, literal, length) != 0)
        return false;
    c->at += length;
    return true;
}

static inline __attribute__((always_inline)) void
expect(cursor *c, const char *literal)
{
    c->bad |= !accept(c, literal);
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

/* A member that is left out when it is 0. */
static inline __attribute__((always_inline)) uint64_t
take_optional(cursor *c, const char *name)
{
    return accept(c, name) ? take_u64(c) : 0;
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

static uint64_t
take_hex64(cursor *c)
{
    uint64_t value = 0;
    for (int i = 0; i < 16; i++) {
        int digit = c->at < c->end ? ptier_hex_digit(*c->at++) : -1;
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
    int high = c->end - c->at >= 2 ? ptier_hex_digit(c->at[0]) : -1;
    int low = c->end - c->at >= 2 ? ptier_hex_digit(c->at[1]) : -1;
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
    const char *quote = c->bad ? NULL : memchr(c->at, '"', (size_t)(c->end - c->at));
    if (quote) { /* as far as nothing is escaped, which is all of it nearly always */
        const char *escape = memchr(c->at, '\\', (size_t)(quote - c->at));
        size_t plain = (size_t)((escape ? escape : quote) - c->at);
        memcpy(c->room, c->at, plain);
        c->room += plain;
        c->at += plain;
    }
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
    r->failure_count = (uint32_t)take_optional(c, ",\"failures\":");
    r->needs_revalidation = take_optional(c, ",\"revalidate\":") != 0;
    r->latency_ms = (double)take_optional(c, ",\"latency_us\":") / 1000.0;
    r->success_count = take_optional(c, ",\"successes\":");
    r->report_count = take_optional(c, ",\"reports\":");
    r->access_count = take_optional(c, ",\"accesses\":");
    uint64_t last_access = take_optional(c, ",\"last_access\":");
    c->bad |= last_access > INT64_MAX;
    r->last_access_ms = (int64_t)last_access;
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
        int high = ptier_hex_digit(at[10 + 2 * i]);
        int low = ptier_hex_digit(at[11 + 2 * i]);
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
    char username[PTIER_CREDENTIAL_MAX + 1], password[PTIER_CREDENTIAL_MAX + 1];
    const char *user_token = p->record.username_token, *pass_token = p->record.password_token;
    user_token = user_token && *user_token ? user_token : NULL;
    pass_token = pass_token && *pass_token ? pass_token : NULL;
    ptier_status status = PTIER_OK;
    username[0] = password[0] = '\0';
    if (reader->decrypt && user_token)
        status = ptier_sealed_open(reader->keyring, user_token, strlen(user_token), username);
    if (!status && reader->decrypt && pass_token)
        status = ptier_sealed_open(reader->keyring, pass_token, strlen(pass_token), password);
    if (!status && reader->tokens)
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
        p->record.username = p->record.password = NULL; /* wiped now */
    }
    OPENSSL_cleanse(username, strlen(username));
    OPENSSL_cleanse(password, strlen(password));
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
        if (strcmp(name, ptier_l2_op_names[kind]) == 0)
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

bool
ptier_l2_is_header(const char *text, size_t length)
{
    const size_t prefix = sizeof PTIER_L2_HEADER_PREFIX - 1;
    return length >= prefix && memcmp(text, PTIER_L2_HEADER_PREFIX, prefix) == 0;
}

ptier_status
ptier_l2_header_parse(const char *text, size_t length, ptier_keyring *keyring,
                      ptier_l2_header *header)
{
    size_t body;
    if (length > PTIER_L2_HEADER_MAX || !verify(text, length, keyring, &body))
        return PTIER_DATA_LOSS;
    cursor c = {.at = text, .end = text + body};
    expect(&c, PTIER_L2_HEADER_PREFIX);
    header->number = (uint32_t)take_u64(&c);
    expect(&c, ",\"first\":");
    header->first = (uint32_t)take_u64(&c);
    expect(&c, ",\"after\":");
    header->after = take_u64(&c);
    expect(&c, ",\"highest\":");
    header->highest = take_u64(&c);
    return c.bad || c.at != c.end ? PTIER_DATA_LOSS : PTIER_OK;
}

bool
ptier_l2_legible_key(const char *text, size_t length, char key[PTIER_KEY_MAX + 1])
{
    static const char mark[] = ",\"key\":";
    char *room = malloc(length + 1);
    const char *found = room ? memmem(text, length, mark, sizeof mark - 1) : NULL;
    bool legible = false;
    if (found) {
        cursor c = {.at = found + sizeof mark - 1, .end = text + length, .room = room};
        const char *value = take_string(&c);
        legible = !c.bad && *value && strlen(value) <= PTIER_KEY_MAX;
        if (legible)
            memcpy(key, value, strlen(value) + 1);
    }
    free(room);
    return legible;
}
