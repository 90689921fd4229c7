/* Proxy addresses: what is accepted, what is refused, and that no message shows a credential. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <proxytier/import.h>

static void
check(const char *text, const char *scheme, const char *url, const char *user, const char *password)
{
    ptier_url parsed;
    ptier_error error = {0};
    if (ptier_url_parse(text, scheme, &parsed, &error) != PTIER_OK)
        fail_msg("%s: %s", text, error.message);
    assert_string_equal(parsed.url, url);
    assert_string_equal(parsed.username, user ? user : "");
    assert_string_equal(parsed.password, password ? password : "");
    assert_int_equal(parsed.has_username, user != NULL);
    assert_int_equal(parsed.has_password, password != NULL);
    assert_int_equal(strncmp(parsed.url, parsed.scheme, strlen(parsed.scheme)), 0);
    ptier_url_wipe(&parsed);
    assert_string_equal(parsed.password, "");
}

static void
refuse(const char *text, const char *word)
{
    ptier_url parsed;
    ptier_error error = {0};
    if (ptier_url_parse(text, NULL, &parsed, &error) == PTIER_OK)
        fail_msg("accepted: %s as %s", text, parsed.url);
    assert_int_equal(error.status, PTIER_INVALID_ARGUMENT);
    if (!strstr(error.message, word))
        fail_msg("%s: \"%s\" does not mention \"%s\"", text, error.message, word);
    assert_string_equal(parsed.username, "");
    assert_string_equal(parsed.password, "");
}

static void
addresses_without_credentials(void **state)
{
    (void)state;
    check("http://192.0.2.1:8080", NULL, "http://192.0.2.1:8080", NULL, NULL);
    check("192.0.2.1:8080", NULL, "http://192.0.2.1:8080", NULL, NULL);
    check("192.0.2.1:8080", "socks5", "socks5://192.0.2.1:8080", NULL, NULL);
    check("  192.0.2.1:8080\t", NULL, "http://192.0.2.1:8080", NULL, NULL);
    check("SOCKS5H://Proxy.Example.NET:1080/", NULL, "socks5h://proxy.example.net:1080", NULL,
          NULL);
    check("localhost:3128", NULL, "http://localhost:3128", NULL, NULL);
    check("http://a_b-c.example.:080", NULL, "http://a_b-c.example:80", NULL, NULL);
}

static void
a_missing_port_is_the_usual_one_of_the_stated_scheme(void **state)
{
    (void)state;
    check("http://gw.example", NULL, "http://gw.example:80", NULL, NULL);
    check("https://gw.example", NULL, "https://gw.example:443", NULL, NULL);
    check("socks4a://gw.example", NULL, "socks4a://gw.example:1080", NULL, NULL);
    check("socks5://u:p@[2001:db8::1]", NULL, "socks5://[2001:db8::1]:1080", "u", "p");
    refuse("gw.example", "no port");
    refuse("hello", "no port");
    refuse("user:pw@gw.example", "no port");
}

static void
ipv6_hosts_are_normalised(void **state)
{
    (void)state;
    check("http://[2001:DB8:0:0::0001]:80", NULL, "http://[2001:db8::1]:80", NULL, NULL);
    check("[2001:db8::1]:8080", "socks5", "socks5://[2001:db8::1]:8080", NULL, NULL);
    check("[2001:db8::1]:8080:u:p:q", NULL, "http://[2001:db8::1]:8080", "u", "p:q");
    refuse("2001:db8::1", "[address]:port");
    refuse("fe80:1:2:3::1", "[address]:port");
    refuse("[2001:db8::1", "[address]:port");
    refuse("[2001:db8::1]8080", "[address]:port");
    refuse("[192.0.2.1]:80", "IPv6");
    refuse("[]:80", "IPv6");
}

static void
credentials_are_split_off(void **state)
{
    (void)state;
    check("http://user:pass@192.0.2.1:80", NULL, "http://192.0.2.1:80", "user", "pass");
    check("user:pass@192.0.2.1:80", "socks5", "socks5://192.0.2.1:80", "user", "pass");
    check("http://user@192.0.2.1:80", NULL, "http://192.0.2.1:80", "user", NULL);
    check("http://user:@192.0.2.1:80", NULL, "http://192.0.2.1:80", "user", NULL);
    check("http://:token@192.0.2.1:80", NULL, "http://192.0.2.1:80", NULL, "token");
    check("http://@192.0.2.1:80", NULL, "http://192.0.2.1:80", NULL, NULL);
    check("http://us%40er:p%3ass%25@gw.example:80", NULL, "http://gw.example:80", "us@er", "p:ss%");
    check("http://user:p@ss:w@gw.example:80", NULL, "http://gw.example:80", "user", "p@ss:w");
    check("http://zo%C3%AB:p@gw.example:80", NULL, "http://gw.example:80", "zo\xc3\xab", "p");
}

static void
four_parts_are_taken_as_they_are(void **state)
{
    (void)state;
    check("192.0.2.1:8080:user:pass", NULL, "http://192.0.2.1:8080", "user", "pass");
    check("gw.example:8080:user-cc-de:p%41:/#@x", NULL, "http://gw.example:8080", "user-cc-de",
          "p%41:/#@x");
    check("192.0.2.1:8080:user:p@198.51.100.9:99", NULL, "http://192.0.2.1:8080", "user",
          "p@198.51.100.9:99");
    check("socks5://192.0.2.1:8080:user:pass", NULL, "socks5://192.0.2.1:8080", "user", "pass");
    check("gw.example:8080:user:se://cret", NULL, "http://gw.example:8080", "user", "se://cret");
    refuse("192.0.2.1:8080:user", "port");
}

static void
bad_addresses_are_refused(void **state)
{
    (void)state;
    refuse("", "no address");
    refuse("   ", "no address");
    refuse("http://", "no host");
    refuse("http://:80", "no host");
    refuse("ftp://192.0.2.1:80", "scheme");
    refuse("http://192.0.2.1:0", "port");
    refuse("http://192.0.2.1:65536", "port");
    refuse("http://192.0.2.1:+80", "port");
    refuse("http://192.0.2.1:", "port");
    refuse("http://192.0.2.1:8o", "port");
    refuse("http://192.0.2.256:80", "host");
    refuse("http://192.0.2:80", "host");
    refuse("http://-a.example:80", "host");
    refuse("http://a-.example:80", "host");
    refuse("http://a..example:80", "host");
    refuse("http://a!b:80", "host");
    refuse("http://ex\xc3\xa4mple.net:80", "host");
    refuse("http://192.0.2.1:80/path", "no path");
    refuse("http://192.0.2.1:80?q=1", "no path");
    refuse("http://a b:80", "space");
    refuse("http://a\nb:80", "control");
}

static void
limits_are_kept(void **state)
{
    (void)state;
    char text[6000], name[PTIER_CREDENTIAL_MAX + 2];
    memset(name, 'u', sizeof name);
    name[PTIER_CREDENTIAL_MAX] = '\0';
    (void)snprintf(text, sizeof text, "http://%s:%s@192.0.2.1:80", name, name);
    check(text, NULL, "http://192.0.2.1:80", name, name);
    name[PTIER_CREDENTIAL_MAX] = 'u';
    name[PTIER_CREDENTIAL_MAX + 1] = '\0';
    (void)snprintf(text, sizeof text, "http://%s@192.0.2.1:80", name);
    refuse(text, "longer");
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    refuse(text, "longer");
    text[254] = '\0';
    strcat(text, ":80");
    refuse(text, "host");
}

static void
messages_never_show_credentials(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "http://tellnobody:hunter2@192.0.2.1:99999",
        "http://tellnobody:hun%ter2@192.0.2.1:80",
        "http://tellnobody:hunter2%00@192.0.2.1:80",
        "http://tellnobody:hunter2%0a@192.0.2.1:80",
        "http://tellnobody:hunter2%ff@192.0.2.1:80",
        "http://tellnobody:hunter2/@192.0.2.1:80",
        "http://tellnobody%:x@192.0.2.1:80",
        "http://tellnobody%4:x@192.0.2.1:80",
        "http://tellnobody:hunter2",
        "hunter2://192.0.2.1:80",
        "tellnobody:hunter2@a!b:80",
        "192.0.2.1:hunter2:tellnobody:x",
        "tellnobody:hunter2:192.0.2.1:80",
        "http://tellnobody:hunter2@[hunter2]:80",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ptier_url parsed;
        ptier_error error = {0};
        if (ptier_url_parse(bad[i], NULL, &parsed, &error) == PTIER_OK)
            fail_msg("accepted: %s", bad[i]);
        assert_null(strstr(error.message, "hunter2"));
        assert_null(strstr(error.message, "tellnobody"));
        assert_true(error.message[0] != '\0');
    }
}

static void
every_cut_of_an_address_is_survived(void **state)
{
    (void)state;
    static const char *const whole[] = {
        "socks5h://us%65r:p%61ss@[2001:db8::17]:1080/",
        "[2001:db8::17]:1080:user:pass",
        "gw.example.net:8080:user:pass",
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        for (size_t length = 0; length <= strlen(whole[i]); length++) {
            char *cut = strndup(whole[i], length); /* exact size: overreads show under ASan */
            ptier_url parsed;
            ptier_status status = ptier_url_parse(cut, NULL, &parsed, NULL);
            assert_true(status == PTIER_OK || status == PTIER_INVALID_ARGUMENT);
            free(cut);
        }
}

/* printf %s 'http://192.0.2.1:8080' | sha256sum, and so on */
static void
keys_are_sha256_of_url_and_user(void **state)
{
    (void)state;
    char key[65];
    ptier_key_derive("http://192.0.2.1:8080", NULL, false, key);
    assert_string_equal(key, "f3cf533718aa54f9");
    ptier_key_derive("http://192.0.2.1:8080", "", false, key);
    assert_string_equal(key, "f3cf533718aa54f9");
    ptier_key_derive("http://192.0.2.1:8080", NULL, true, key);
    assert_string_equal(key, "f3cf533718aa54f94361f4f3c6c254926e6881c500011aabeacd0f8ac7225b4d");
    ptier_key_derive("http://192.0.2.1:8080", "user", false, key);
    assert_string_equal(key, "a12766063a0d05d4");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_without_credentials),
        cmocka_unit_test(a_missing_port_is_the_usual_one_of_the_stated_scheme),
        cmocka_unit_test(ipv6_hosts_are_normalised),
        cmocka_unit_test(credentials_are_split_off),
        cmocka_unit_test(four_parts_are_taken_as_they_are),
        cmocka_unit_test(bad_addresses_are_refused),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(messages_never_show_credentials),
        cmocka_unit_test(every_cut_of_an_address_is_survived),
        cmocka_unit_test(keys_are_sha256_of_url_and_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
