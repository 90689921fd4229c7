#include "import/draft.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

#include "export_line.h"
#include "import/scheme.h"
#include "import/text_util.h"

#define URL_TEXT_MAX  4096 /* with percent-encoded credentials */
#define TOKEN_MAX     1024 /* of the longest credential: 780 */
#define TOKEN_HEX_MAX (2 * TOKEN_MAX)
#define FERNET_START  "gAAAA"
#define MASK          "**********" /* what ProxyWhirl's exports have instead of credentials */

static const struct {
    const char *what;
    size_t max;
} text_limits[PTIER_FIELD_TEXTS] = {
    [PTIER_FIELD_URL] = {"address", URL_TEXT_MAX},
    [PTIER_FIELD_HOST] = {"host", PTIER_URL_MAX},
    [PTIER_FIELD_PORT] = {"port", 32},
    [PTIER_FIELD_USERNAME] = {"user name", PTIER_CREDENTIAL_MAX},
    [PTIER_FIELD_PASSWORD] = {"password", PTIER_CREDENTIAL_MAX},
    [PTIER_FIELD_USERNAME_TOKEN] = {"encrypted user name", TOKEN_HEX_MAX},
    [PTIER_FIELD_PASSWORD_TOKEN] = {"encrypted password", TOKEN_HEX_MAX},
    [PTIER_FIELD_SOURCE] = {"source", PTIER_SOURCE_MAX},
    [PTIER_FIELD_KEY] = {"key", PTIER_KEY_MAX},
};

void
ptier_draft_init(ptier_draft *draft, ptier_importer *importer)
{
    draft->importer = importer;
    draft->url.url[0] = '\0';
    ptier_draft_reset(draft);
}

void
ptier_draft_fini(ptier_draft *draft)
{
    explicit_bzero(draft, sizeof *draft);
}

void
ptier_draft_reset(ptier_draft *draft)
{
    memset(draft->texts, 0, sizeof draft->texts);
    memset(&draft->out, 0, sizeof draft->out);
    ptier_record_init(&draft->out.record);
    draft->scheme_count = 0;
    draft->fetch_from = PTIER_FIELD_LABEL;
    draft->cached = false;
    draft->reason[0] = '\0';
    draft->used = 0;
}

void
ptier_draft_spoil(ptier_draft *draft, const char *format, ...)
{
    va_list args;
    if (draft->reason[0])
        return;
    va_start(args, format);
    (void)vsnprintf(draft->reason, sizeof draft->reason, format, args); /* cut is fine */
    va_end(args);
}

/* A NUL-terminated copy in the draft's room. */
static char *
keep(ptier_draft *draft, const char *text, size_t length)
{
    if (length >= sizeof draft->text - draft->used) {
        ptier_draft_spoil(draft, "the record holds more than %d bytes of text", PTIER_DRAFT_TEXT);
        return NULL;
    }
    char *copy = draft->text + draft->used;
    memcpy(copy, text, length);
    copy[length] = '\0';
    draft->used += length + 1;
    return copy;
}

static void
set_text(ptier_draft *draft, ptier_field field, const char *value, size_t length)
{
    if (length > text_limits[field].max)
        ptier_draft_spoil(draft, "the %s is longer than %zu bytes", text_limits[field].what,
                          text_limits[field].max);
    else if (!ptier_text_valid(value, length))
        ptier_draft_spoil(draft, "the %s is not UTF-8 text", text_limits[field].what);
    else if (field == PTIER_FIELD_KEY && ptier_text_has_control(value, length))
        ptier_draft_spoil(draft, "the key holds a control character");
    else
        draft->texts[field] = keep(draft, value, length);
}

/* "socks5", "HTTP, HTTPS", "socks4/socks5": one or several. False when a word is none of ours. */
static bool
add_schemes(ptier_draft *draft, const char *value, size_t length)
{
    const char *end = value + length;
    while (value < end) {
        size_t word = 0;
        while (value + word < end && !strchr(" ,;/|+", value[word]))
            word++;
        if (word) {
            const char *scheme = ptier_scheme_find(value, word);
            if (!scheme)
                return false;
            bool known = false;
            for (size_t i = 0; i < draft->scheme_count; i++)
                known = known || draft->schemes[i] == scheme;
            if (!known && draft->scheme_count < PTIER_DRAFT_SCHEMES)
                draft->schemes[draft->scheme_count++] = scheme;
        }
        value += word < (size_t)(end - value) ? word + 1 : word;
    }
    return true;
}

/* Protocols that are no proxies for us; any other "type" is a word of the list's own and becomes a
 * label. */
static bool
is_foreign_protocol(const char *value, size_t length)
{
    static const char *const foreign[] = {
        "ss",   "ssr",       "vmess",     "vless", "trojan", "shadowsocks", "hysteria",
        "tuic", "hysteria2", "wireguard", "snell", "ssh",    "anytls",      "mieru",
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (strlen(foreign[i]) == length && strncasecmp(foreign[i], value, length) == 0)
            return true;
    return false;
}

/* A decimal number with nothing behind it. */
static bool
parse_double(const ptier_draft *draft, const char *value, size_t length, double *number)
{
    char text[64], *end;
    if (length == 0 || length >= sizeof text || !strchr("0123456789-.", value[0]))
        return false;
    memcpy(text, value, length);
    text[length] = '\0';
    *number = strtod_l(text, &end, draft->importer->c_locale);
    return *end == '\0' && end != text && isfinite(*number);
}

/* A whole number, also as "2.0". */
static bool
parse_u64(const char *value, size_t length, uint64_t *number)
{
    uint64_t sum = 0;
    const char *point = memchr(value, '.', length);
    if (point && point + 1 < value + length) {
        size_t zeros = 1;
        while (point + zeros < value + length && point[zeros] == '0')
            zeros++;
        if (point + zeros == value + length)
            length = (size_t)(point - value);
    }
    if (length == 0 || length > 20)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9' || __builtin_mul_overflow(sum, UINT64_C(10), &sum) ||
            __builtin_add_overflow(sum, (uint64_t)(value[i] - '0'), &sum))
            return false;
    }
    *number = sum;
    return true;
}

/* In own exports 0 never expires; other programs mean by 0 that nothing was set. */
static bool
set_ttl(ptier_draft *draft, const char *value, size_t length, double unit_ms)
{
    double number;
    if (!parse_double(draft, value, length, &number) || number < 0)
        return false;
    if (number * unit_ms > (double)PTIER_TTL_MAX_MS)
        ptier_draft_spoil(draft, "the time to live is over 100 years");
    else if (number > 0 || unit_ms == 1)
        draft->out.record.ttl_ms = (int64_t)(number * unit_ms);
    return true;
}

static bool
set_fetch_time(ptier_draft *draft, ptier_field from, const char *value, size_t length)
{
    int64_t ms;
    if (!ptier_time_parse(value, length, &ms))
        return false;
    if (draft->fetch_from == PTIER_FIELD_LABEL || from < draft->fetch_from) {
        draft->fetch_from = from;
        draft->out.record.fetch_time_ms = ms;
    }
    return true;
}

/* Times that an entry of a cache has, and a list has not. */
static bool
set_cache_time(ptier_draft *draft, const char *value, size_t length, int64_t *ms)
{
    if (!ptier_time_parse(value, length, ms))
        return false;
    draft->cached = true;
    return true;
}

static bool
set_health(ptier_draft *draft, const char *value, size_t length)
{
    char word[16];
    ptier_health health;
    if (length >= sizeof word)
        return false;
    memcpy(word, value, length);
    word[length] = '\0';
    if (!ptier_health_parse(word, &health) || health == PTIER_HEALTH_UNSPECIFIED)
        return false;
    draft->out.record.health = health;
    return true;
}

/* False: the value is not of the kind the field wants; it is kept as a label then. */
static bool
set_value(ptier_draft *draft, ptier_field field, const char *value, size_t length)
{
    ptier_record *record = &draft->out.record;
    uint64_t number = 0;
    switch (field) {
    case PTIER_FIELD_PROTOCOL:
        if (!add_schemes(draft, value, length))
            ptier_draft_spoil(draft, "the protocol is not one of " PTIER_SCHEME_LIST);
        return true;
    case PTIER_FIELD_TYPE:
        if (is_foreign_protocol(value, length))
            ptier_draft_spoil(draft, "the protocol is not one of " PTIER_SCHEME_LIST);
        return add_schemes(draft, value, length);
    case PTIER_FIELD_FETCHED:
    case PTIER_FIELD_CHECKED:
    case PTIER_FIELD_CREATED:
        return set_fetch_time(draft, field, value, length);
    case PTIER_FIELD_TTL_MS:
        return set_ttl(draft, value, length, 1);
    case PTIER_FIELD_TTL_SECONDS:
        return set_ttl(draft, value, length, 1000);
    case PTIER_FIELD_EXPIRES:
        return set_cache_time(draft, value, length, &record->expires_at_ms);
    case PTIER_FIELD_LAST_ACCESS:
        return set_cache_time(draft, value, length, &record->last_access_ms);
    case PTIER_FIELD_HEALTH:
        return set_health(draft, value, length);
    case PTIER_FIELD_FAILURES:
        if (!parse_u64(value, length, &number) || number >= PTIER_FAILURES_UNSTATED)
            return false;
        record->failure_count = (uint32_t)number;
        return true;
    case PTIER_FIELD_REVALIDATE:
        record->needs_revalidation = length == 4 && memcmp(value, "true", 4) == 0;
        return true;
    case PTIER_FIELD_ACCESSES:
        draft->cached = true;
        return parse_u64(value, length, &record->access_count);
    case PTIER_FIELD_SUCCESSES:
        return parse_u64(value, length, &record->success_count);
    case PTIER_FIELD_REPORTS:
        return parse_u64(value, length, &record->report_count);
    case PTIER_FIELD_REVISION:
        return parse_u64(value, length, &record->revision);
    case PTIER_FIELD_LATENCY: {
        double ms;
        if (!parse_double(draft, value, length, &ms) || ms < 0)
            return false;
        record->latency_ms = ms;
        return true;
    }
    case PTIER_FIELD_MARK:
        if (!parse_u64(value, length, &number) || number > PTIER_EXPORT_VERSION)
            ptier_draft_spoil(draft, "the export is of a newer format than this version reads");
        draft->out.restore = true;
        return true;
    case PTIER_FIELD_IGNORED:
        return true;
    default:
        return false;
    }
}

/* Of a list it is left out: no reason to lose the proxy. An own export is restored as it is, or
 * not. */
static void
unfit_label(ptier_draft *draft)
{
    if (draft->out.restore)
        ptier_draft_spoil(draft,
                          "it has more than %d labels, or one of which name or value is too long "
                          "(%d and %d bytes), or no UTF-8 text without control characters",
                          PTIER_LABELS_MAX, PTIER_LABEL_NAME_MAX, PTIER_LABEL_VALUE_MAX);
}

/* A copy, in which tabs and line breaks are spaces: cells of spreadsheets have them. NULL: it does
 * not fit. */
static const char *
keep_label_text(ptier_draft *draft, const char *text, size_t length, size_t max)
{
    char *copy = length <= max && ptier_text_valid(text, length) ? keep(draft, text, length) : NULL;
    for (char *c = copy; c && *c; c++)
        if (!draft->out.restore && (*c == '\t' || *c == '\n' || *c == '\r'))
            *c = ' ';
    return copy && !ptier_text_has_control(copy, length) ? copy : NULL;
}

/* Replaces an earlier label of that name, as JSON readers usually do. */
static void
put_label(ptier_draft *draft, const char *name, const char *value)
{
    ptier_record *record = &draft->out.record;
    size_t i = 0;
    while (i < record->label_count && strcmp(draft->labels[i].name, name) != 0)
        i++;
    if (i == PTIER_LABELS_MAX) {
        unfit_label(draft);
        return;
    }
    draft->labels[i] = (ptier_label){name, value};
    if (i == record->label_count)
        record->label_count++;
}

void
ptier_draft_label(ptier_draft *draft, const char *name, size_t name_length, const char *value,
                  size_t length)
{
    const char *kept_name = keep_label_text(draft, name, name_length, PTIER_LABEL_NAME_MAX);
    const char *kept_value = keep_label_text(draft, value, length, PTIER_LABEL_VALUE_MAX);
    if (kept_name && *kept_name && kept_value)
        put_label(draft, kept_name, kept_value);
    else
        unfit_label(draft);
}

/* A field without a meaning for us. */
static void
set_unknown(ptier_draft *draft, const char *name, size_t name_length, const char *value,
            size_t length)
{
    if (length > 0 && !draft->out.restore)
        ptier_draft_label(draft, name, name_length, value, length);
}

void
ptier_draft_set(ptier_draft *draft, ptier_field field, const char *name, size_t name_length,
                const char *value, size_t length)
{
    bool verbatim = field == PTIER_FIELD_USERNAME || field == PTIER_FIELD_PASSWORD;
    if (!verbatim && !draft->out.restore)
        ptier_text_trim(&value, &length);
    if (length == 0)
        return;
    if (field == PTIER_FIELD_LABEL)
        set_unknown(draft, name, name_length, value, length);
    else if (field < PTIER_FIELD_TEXTS)
        set_text(draft, field, value, length);
    else if (!set_value(draft, field, value, length))
        set_unknown(draft, name, name_length, value, length);
}

bool
ptier_draft_has_address(const ptier_draft *draft)
{
    return draft->texts[PTIER_FIELD_URL] || draft->texts[PTIER_FIELD_HOST];
}

/* ---- handing out ---- */

static int
hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
is_token(const char *text)
{
    size_t length = strlen(text);
    if (length > TOKEN_MAX || strncmp(text, FERNET_START, sizeof FERNET_START - 1) != 0)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=", text[i]))
            return false;
    return true;
}

/* The Fernet token of a field: the text itself, or what its hex digits spell. NULL: none; a wrong
 * one spoils the draft. */
static const char *
token_of(ptier_draft *draft, ptier_field field)
{
    const char *text = draft->texts[field];
    if (!text || is_token(text))
        return text;
    char token[TOKEN_MAX + 1] = "";
    size_t length = strlen(text) / 2;
    bool right = strlen(text) % 2 == 0 && length <= TOKEN_MAX;
    for (size_t i = 0; right && i < length; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        right = high >= 0 && low >= 0;
        token[i] = (char)(high * 16 + low);
    }
    if (!right || !is_token(token)) {
        ptier_draft_spoil(draft, "the %s is not a Fernet token", text_limits[field].what);
        return NULL;
    }
    return keep(draft, token, length);
}

/* Whether an address as a list gives it already has its port. */
static bool
has_port(const char *address)
{
    struct in6_addr v6;
    const char *mark = strstr(address, "://"), *host = mark ? mark + 3 : address;
    const char *at = strrchr(host, '@');
    if (at)
        host = at + 1;
    if (host[0] == '[') {
        const char *bracket = strchr(host, ']');
        return bracket && bracket[1] == ':';
    }
    return strchr(host, ':') && inet_pton(AF_INET6, host, &v6) != 1;
}

/* "8080", and "8080.0" as spreadsheets write it. */
static bool
whole_port(ptier_draft *draft, const char *text, unsigned *port)
{
    double number;
    if (!parse_double(draft, text, strlen(text), &number) || number < 1 || number > 65535 ||
        number != (double)(unsigned)number)
        return false;
    *port = (unsigned)number;
    return true;
}

#define ADDRESS_ROOM (URL_TEXT_MAX + 16)

/* The address as one text: the URL, or host and port put together. NULL: the draft is bad now. */
static const char *
address_of(ptier_draft *draft, char room[ADDRESS_ROOM])
{
    const char *base = draft->texts[PTIER_FIELD_URL], *port_text = draft->texts[PTIER_FIELD_PORT];
    unsigned port;
    if (!base)
        base = draft->texts[PTIER_FIELD_HOST];
    if (!base) {
        ptier_draft_spoil(draft, "no address: a url, or ip (host) and port");
        return NULL;
    }
    if (!port_text || has_port(base))
        return base;
    if (!whole_port(draft, port_text, &port)) {
        ptier_draft_spoil(draft, "the port is not a number from 1 to 65535");
        return NULL;
    }
    bool bare_v6 =
        strchr(base, ':') && !strstr(base, "://") && base[0] != '[' && !strchr(base, '@');
    (void)snprintf(room, ADDRESS_ROOM, bare_v6 ? "[%s]:%u" : "%s:%u", base, port); /* fits */
    return room;
}

static void
fill_credentials(ptier_draft *draft, const char *username_token, const char *password_token)
{
    ptier_record *record = &draft->out.record;
    const ptier_url *url = &draft->url;
    const char *username = draft->texts[PTIER_FIELD_USERNAME];
    const char *password = draft->texts[PTIER_FIELD_PASSWORD];
    record->username_token = username_token;
    record->password_token = password_token;
    if (!username && url->has_username)
        username = url->username;
    if (!password && url->has_password)
        password = url->password;
    record->username = username_token ? NULL : username;
    record->password = password_token ? NULL : password;
}

/*
 * An entry of another cache moves over with what that one knows of it: the time to live that is
 * left goes on. Where neither end nor start of it is told, it counts from arrival.
 */
static void
settle_lifetime(ptier_record *record)
{
    int64_t span = record->expires_at_ms - record->fetch_time_ms;
    if (!record->expires_at_ms && record->fetch_time_ms && record->ttl_ms > 0)
        record->expires_at_ms = record->fetch_time_ms + record->ttl_ms;
    else if (record->ttl_ms == PTIER_TTL_DEFAULT && record->fetch_time_ms && span > 0 &&
             span <= PTIER_TTL_MAX_MS)
        record->ttl_ms = span;
}

static bool
is_masked(const char *text)
{
    return text && strcmp(text, MASK) == 0;
}

/* What can only be judged when all fields are known. */
static void
judge(ptier_draft *draft)
{
    if (draft->out.restore)
        return; /* our own: nothing to guess */
    if (is_masked(draft->texts[PTIER_FIELD_USERNAME]) ||
        is_masked(draft->texts[PTIER_FIELD_PASSWORD]))
        ptier_draft_spoil(draft, "its credentials are masked, as in ProxyWhirl's exports: load "
                                 "ProxyWhirl's shards or database instead");
    if (draft->cached && draft->texts[PTIER_FIELD_KEY] && draft->texts[PTIER_FIELD_URL]) {
        draft->out.restore = true;
        settle_lifetime(&draft->out.record);
    }
}

static bool
emit_one(ptier_draft *draft, const char *address, const char *scheme)
{
    ptier_error error;
    if (ptier_url_parse(address, scheme, &draft->url, &error) != PTIER_OK) {
        ptier_importer_skip(draft->importer, draft->out.line, error.message);
        return true;
    }
    const char *username_token = token_of(draft, PTIER_FIELD_USERNAME_TOKEN);
    const char *password_token = token_of(draft, PTIER_FIELD_PASSWORD_TOKEN);
    if (draft->reason[0]) {
        ptier_importer_skip(draft->importer, draft->out.line, draft->reason);
        return true;
    }
    fill_credentials(draft, username_token, password_token);
    draft->out.record.url = draft->url.url;
    return ptier_importer_hand_out(draft->importer, &draft->out);
}

bool
ptier_draft_emit(ptier_draft *draft, const char *scheme, uint64_t line)
{
    char room[ADDRESS_ROOM];
    room[0] = '\0';
    judge(draft);
    const char *address = draft->reason[0] ? NULL : address_of(draft, room);
    draft->out.line = line;
    if (!address) {
        ptier_importer_skip(draft->importer, line, draft->reason);
        return true;
    }
    ptier_record *record = &draft->out.record;
    const char *default_source = draft->importer->options->source;
    record->labels = draft->labels;
    record->key = draft->texts[PTIER_FIELD_KEY];
    record->source = draft->texts[PTIER_FIELD_SOURCE];
    if (!record->source && !draft->out.restore)
        record->source = default_source;
    if (!record->source)
        record->source = "";
    /* A key names one entry; an address with its scheme serves one protocol. */
    bool single = record->key || strstr(address, "://") || draft->scheme_count == 0;
    bool go_on = emit_one(draft, address, draft->scheme_count ? draft->schemes[0] : scheme);
    for (size_t i = 1; go_on && !single && i < draft->scheme_count; i++)
        go_on = emit_one(draft, address, draft->schemes[i]);
    if (room[0])
        explicit_bzero(room, sizeof room);
    return go_on;
}
