/*
 * Proxy addresses as people write them. No state. No message quotes the input: any part of a
 * malformed address may turn out to be a password.
 */
#include <proxytier/import.h>

#include <arpa/inet.h>
#include <ctype.h>

#include "import/scheme.h"
#include "import/text_util.h"

#define ADDRESS_MAX 4096 /* host and fully percent-encoded credentials */
#define HOST_MAX    253

typedef struct span {
    const char *at;
    size_t length;
} span;

static span
span_to(const char *from, const char *to)
{
    return (span){from, (size_t)(to - from)};
}

static const char *
find_last(span s, char wanted)
{
    return memrchr(s.at, wanted, s.length);
}

static const char *
find_first(span s, char wanted)
{
    return memchr(s.at, wanted, s.length);
}

static bool
port_value(span s, unsigned *port)
{
    if (s.length == 0 || s.length > 5)
        return false;
    *port = 0;
    for (size_t i = 0; i < s.length; i++) {
        if (!isdigit((unsigned char)s.at[i]))
            return false;
        *port = *port * 10 + (unsigned)(s.at[i] - '0');
    }
    return *port >= 1 && *port <= 65535;
}

static bool
is_ipv4(span s)
{
    char text[INET_ADDRSTRLEN];
    struct in_addr address;
    if (s.length >= sizeof text)
        return false;
    memcpy(text, s.at, s.length);
    text[s.length] = '\0';
    return inet_pton(AF_INET, text, &address) == 1;
}

/* On success `normal` is the address in its usual short form. */
static bool
is_ipv6(span s, char normal[INET6_ADDRSTRLEN])
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (s.length >= sizeof text)
        return false;
    memcpy(text, s.at, s.length);
    text[s.length] = '\0';
    return inet_pton(AF_INET6, text, &address) == 1 &&
           inet_ntop(AF_INET6, &address, normal, INET6_ADDRSTRLEN);
}

static bool
is_name(span s)
{
    size_t label = 0;
    if (s.length == 0 || s.length > HOST_MAX)
        return false;
    for (size_t i = 0; i < s.length; i++) {
        char c = s.at[i];
        if (c == '.') {
            if (label == 0 || s.at[i - 1] == '-')
                return false;
            label = 0;
            continue;
        }
        if (!(isalnum((unsigned char)c) || c == '_' || (c == '-' && label > 0)) || ++label > 63)
            return false;
    }
    return label > 0 && s.at[s.length - 1] != '-';
}

static bool
only_digits_and_dots(span s)
{
    for (size_t i = 0; i < s.length; i++)
        if (s.at[i] != '.' && !isdigit((unsigned char)s.at[i]))
            return false;
    return true;
}

/* Writes the host in lower case, IPv6 in brackets. */
static ptier_status
normal_host(span host, char out[HOST_MAX + 1], ptier_error *error)
{
    char v6[INET6_ADDRSTRLEN];
    if (host.length >= 2 && host.at[0] == '[' && host.at[host.length - 1] == ']') {
        if (!is_ipv6((span){host.at + 1, host.length - 2}, v6))
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "the text in brackets is not an IPv6 address");
        (void)snprintf(out, HOST_MAX + 1, "[%s]", v6); /* fits: 48 bytes */
        return PTIER_OK;
    }
    if (host.length > 1 && host.at[host.length - 1] == '.')
        host.length--;
    if (host.length == 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "no host: write scheme://host:port");
    if (only_digits_and_dots(host) ? !is_ipv4(host) : !is_name(host))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "the host is neither a name nor an IP address");
    for (size_t i = 0; i < host.length; i++)
        out[i] = (char)tolower((unsigned char)host.at[i]);
    out[host.length] = '\0';
    return PTIER_OK;
}

/* A host that cannot be mistaken for a user name: an IP address, or (if allowed) a name with a dot.
 */
static bool
is_plain_host(span s, bool names)
{
    char v6[INET6_ADDRSTRLEN];
    if (s.length > 2 && s.at[0] == '[')
        return is_ipv6((span){s.at + 1, s.length - 2}, v6);
    return is_ipv4(s) || (names && find_first(s, '.') && !only_digits_and_dots(s) && is_name(s));
}

/* The end of the host at the start of `s`: its colon, or the end of `s`. NULL: a bracket is not
 * closed. */
static const char *
host_end(span s)
{
    const char *end = s.at + s.length;
    if (s.length && s.at[0] == '[') {
        const char *bracket = find_first(s, ']');
        if (!bracket || (bracket + 1 < end && bracket[1] != ':'))
            return NULL;
        return bracket + 1;
    }
    const char *colon = find_first(s, ':');
    return colon ? colon : end;
}

/* host:port:user:password, as paid providers hand it out. The password may hold anything. */
static bool
split_four(span s, span *host, span *port, span *user, span *password)
{
    const char *end = s.at + s.length, *at = host_end(s);
    if (!at || at == end)
        return false;
    *host = span_to(s.at, at);
    at++;
    const char *colon = find_first(span_to(at, end), ':');
    if (!colon)
        return false;
    *port = span_to(at, colon);
    at = colon + 1;
    colon = find_first(span_to(at, end), ':');
    if (!colon)
        return false;
    *user = span_to(at, colon);
    *password = span_to(colon + 1, end);
    return true;
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static ptier_status
take_credential(span s, bool decode, const char *what, char out[PTIER_CREDENTIAL_BUFFER],
                bool *present, ptier_error *error)
{
    size_t length = 0;
    for (size_t i = 0; i < s.length; i++) {
        char c = s.at[i];
        if (decode && strchr("/?#", c))
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "the %s holds one of / ? #: write it as %%2F, %%3F or %%23", what);
        if (decode && c == '%') {
            int high = i + 2 < s.length ? hex_digit(s.at[i + 1]) : -1;
            int low = i + 2 < s.length ? hex_digit(s.at[i + 2]) : -1;
            if (high < 0 || low < 0)
                return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                                  "a %% in the %s must be written as %%25", what);
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (length == PTIER_CREDENTIAL_MAX)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "the %s is longer than %d bytes", what,
                              PTIER_CREDENTIAL_MAX);
        out[length++] = c;
    }
    out[length] = '\0';
    if (!ptier_text_valid(out, length) || ptier_text_has_control(out, length))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "the %s is not UTF-8 text without control characters", what);
    *present = length > 0;
    return PTIER_OK;
}

typedef struct parts {
    const char *scheme;
    bool scheme_stated, decode;
    span host, port, user, password;
} parts;

static ptier_status
split_scheme(span *text, const char *default_scheme, parts *p, ptier_error *error)
{
    const char *mark = memmem(text->at, text->length, "://", 3);
    const char *name = default_scheme ? default_scheme : "http";
    size_t length = strlen(name);
    bool scheme_like = mark != NULL;
    for (const char *c = text->at; mark && c < mark; c++)
        scheme_like = scheme_like && (isalnum((unsigned char)*c) || strchr("+-.", *c));
    if (scheme_like) {
        name = text->at;
        length = (size_t)(mark - text->at);
        *text = span_to(mark + 3, text->at + text->length);
        p->scheme_stated = true;
    }
    p->scheme = ptier_scheme_find(name, length);
    if (!p->scheme)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "the scheme is not one of " PTIER_SCHEME_LIST);
    return PTIER_OK;
}

static ptier_status
split_host_port(span s, parts *p, ptier_error *error)
{
    if (s.length && s.at[s.length - 1] == '/')
        s.length--;
    if (find_first(s, '/') || find_first(s, '?') || find_first(s, '#'))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "a proxy address ends after the port: no path, query or fragment");
    const char *end = host_end(s);
    if (!end)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "an IPv6 host is written [address]:port");
    p->host = span_to(s.at, end);
    if (end < s.at + s.length)
        p->port = span_to(end + 1, s.at + s.length);
    else if (!p->scheme_stated)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "no port: write host:port");
    else
        p->port = (span){NULL, 0};
    return PTIER_OK;
}

/* What stands behind the scheme. */
static ptier_status
split_rest(span s, parts *p, ptier_error *error)
{
    char v6[INET6_ADDRSTRLEN];
    span host, port, user, password;
    unsigned number;
    const char *at = find_last(s, '@');
    bool four = split_four(s, &host, &port, &user, &password);
    /* 192.0.2.1:8080:user:p@ss is not user:password@host */
    if (four && (!at || (port_value(port, &number) && is_plain_host(host, !p->scheme_stated)))) {
        if (is_ipv6(s, v6))
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "an IPv6 host is written [address]:port");
        p->host = host;
        p->port = port;
        p->user = user;
        p->password = password;
        return PTIER_OK;
    }
    if (!at)
        return split_host_port(s, p, error);
    span info = span_to(s.at, at);
    const char *colon = find_first(info, ':');
    p->decode = true;
    p->user = span_to(info.at, colon ? colon : at);
    if (colon)
        p->password = span_to(colon + 1, at);
    return split_host_port(span_to(at + 1, s.at + s.length), p, error);
}

static void
write_url(const char *scheme, const char *host, unsigned port, char url[PTIER_URL_BUFFER])
{
    char digits[5]; /* of a port */
    size_t count = 0;
    char *at = stpcpy(stpcpy(url, scheme), "://");
    at = stpcpy(at, host);
    *at++ = ':';
    do
        digits[count++] = (char)('0' + port % 10);
    while (port /= 10);
    while (count)
        *at++ = digits[--count];
    *at = '\0';
}
_Static_assert(PTIER_URL_BUFFER > sizeof "socks5h://[]:65535" + HOST_MAX, "the longest one fits");

static ptier_status
parse(span text, const char *default_scheme, ptier_url *url, ptier_error *error)
{
    char host[HOST_MAX + 1];
    parts p = {0};
    unsigned port;
    ptier_text_trim(&text.at, &text.length);
    if (text.length == 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "no address: write scheme://host:port");
    if (text.length > ADDRESS_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "the address is longer than %d bytes",
                          ADDRESS_MAX);
    if (ptier_text_has_control(text.at, text.length) || find_first(text, ' '))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "the address holds a space or a control character");
    ptier_status status = split_scheme(&text, default_scheme, &p, error);
    if (status == PTIER_OK)
        status = split_rest(text, &p, error);
    if (status == PTIER_OK)
        status = normal_host(p.host, host, error);
    if (status != PTIER_OK)
        return status;
    if (!p.port.at)
        port = ptier_scheme_port(p.scheme);
    else if (!port_value(p.port, &port))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "the port is not a number from 1 to 65535");
    status =
        take_credential(p.user, p.decode, "user name", url->username, &url->has_username, error);
    if (status == PTIER_OK)
        status = take_credential(p.password, p.decode, "password", url->password,
                                 &url->has_password, error);
    if (status != PTIER_OK)
        return status;
    strcpy(url->scheme, p.scheme); /* ours, and short */
    write_url(p.scheme, host, port, url->url);
    return PTIER_OK;
}

ptier_status
ptier_url_parse(const char *text, const char *default_scheme, ptier_url *url, ptier_error *error)
{
    url->url[0] = url->scheme[0] = url->username[0] = url->password[0] = '\0';
    url->has_username = url->has_password = false;
    ptier_status status = parse((span){text, strlen(text)}, default_scheme, url, error);
    if (status != PTIER_OK)
        ptier_url_wipe(url);
    return status;
}

void
ptier_url_wipe(ptier_url *url)
{
    explicit_bzero(url, sizeof *url);
}
