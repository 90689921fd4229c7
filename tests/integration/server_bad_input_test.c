/* Requests that the daemon refuses by name: no frame, no message of ours, or too much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/server_box.h"

static raw_reply
call_bytes(fixture *f, const char *method, const void *body, size_t length)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = TEXT(method);
    return raw_client_call_bytes(&f->client, &header, body, length, NULL);
}

static void
bytes_that_are_no_frame_are_refused_and_harmless(void **state)
{
    fixture *f = *state;
    const uint8_t huge_header[] = {0xff, 0xff, 0xff, 0xff, 1, 2, 3};
    const uint8_t bad_header[] = {0, 0, 0, 3, 0xff, 0xff, 0xff};
    expect_fails(raw_client_send(&f->client, "ab", 2, NULL), PTIER_INVALID_ARGUMENT, "too short");
    expect_fails(raw_client_send(&f->client, huge_header, sizeof huge_header, NULL),
                 PTIER_INVALID_ARGUMENT, "over the limit of 8192");
    expect_fails(raw_client_send(&f->client, bad_header, sizeof bad_header, NULL),
                 PTIER_INVALID_ARGUMENT, "RequestHeader");
    expect_fails(call_bytes(f, "/proxytier.v1.ProxyCache/Nonsense", NULL, 0), PTIER_UNIMPLEMENTED,
                 "Nonsense");
    expect_fails(call_bytes(f, "", NULL, 0), PTIER_UNIMPLEMENTED, "no method");
    expect_fails(call_bytes(f, "/proxytier.v1.ProxyCache/Get", "\xff\xff\xff", 3),
                 PTIER_INVALID_ARGUMENT, "GetRequest");
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL);
}

static void
what_protobuf_lets_through_is_refused_by_name(void **state)
{
    fixture *f = *state;
    const char *get_method = "/proxytier.v1.ProxyCache/Get";
    const char *clear_method = "/proxytier.v1.Admin/Clear";
    expect_fails(call_bytes(f, get_method, "\x0a\x03\x61\x00\x62", 5), PTIER_INVALID_ARGUMENT,
                 "field key has a NUL");
    expect_fails(call_bytes(f, get_method, "\x0a\x02\xc0\xaf", 4), PTIER_INVALID_ARGUMENT,
                 "key is not valid UTF-8");
    expect_fails(call_bytes(f, get_method, "\x0a\x03\xed\xa0\x80", 5), PTIER_INVALID_ARGUMENT,
                 "UTF-8");
    expect_fails(call_bytes(f, clear_method, "\x08\x09", 2), PTIER_INVALID_ARGUMENT, "tier");
    expect_fails(call_bytes(f, clear_method, "\x10\x09", 2), PTIER_INVALID_ARGUMENT, "durability");
}

static void
too_many_keys_are_refused(void **state)
{
    fixture *f = *state;
    size_t count = 10001;
    uint8_t *body = malloc(count * 3);
    assert_non_null(body);
    for (size_t i = 0; i < count; i++)
        memcpy(body + 3 * i, "\x0a\x01k", 3);
    expect_fails(call_bytes(f, "/proxytier.v1.ProxyCache/GetMany", body, count * 3),
                 PTIER_INVALID_ARGUMENT, "more than 10000 keys");
    free(body);
}

/* Many empty sub-messages would take some 50 times their size. */
static void
messages_that_swell_are_refused(void **state)
{
    fixture *f = *state;
    size_t count = 2 * 1024 * 1024;
    uint8_t *body = calloc(count, 2);
    assert_non_null(body);
    for (size_t i = 0; i < count; i++)
        body[2 * i] = 0x0a;
    expect_fails(call_bytes(f, "/proxytier.v1.ProxyCache/PutMany", body, count * 2),
                 PTIER_INVALID_ARGUMENT, "more than 10000 proxies");
    free(body);
    put_one(f, "http://10.0.0.6:6", "", "", -1, NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(bytes_that_are_no_frame_are_refused_and_harmless),
        WITH_DAEMON(what_protobuf_lets_through_is_refused_by_name),
        WITH_DAEMON(too_many_keys_are_refused),
        WITH_DAEMON(messages_that_swell_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
