/* server/report_log.c: error texts of clients may hold what no log may. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "report_log.h"

static void
credentials_in_error_texts_are_starred_out(void **state)
{
    (void)state;
    static const struct {
        const char *text, *masked;
    } cases[] = {
        {"", ""},
        {"timed out after 5 s", "timed out after 5 s"},
        {"  two  spaces ", "  two  spaces "},
        {"connect to http://u:p@10.0.0.1:80 failed", "connect to http://***@10.0.0.1:80 failed"},
        {"http://u:p@ss/w@10.0.0.1", "http://***@10.0.0.1"},
        {"u:p@10.0.0.1:80, gone", "***@10.0.0.1:80, gone"},
        {"10.0.0.1:80:u:p refused", "10.0.0.1:80:*** refused"},
        {"10.0.0.1:80 refused: 111", "10.0.0.1:80 refused: 111"},
        {"[2001:db8::1]:80 refused", "[2001:db8::1]:80 refused"},
        {"Proxy-Authorization: Basic dTpw, 407", "Proxy-Authorization: Basic *** 407"},
        {"bearer abc", "bearer ***"},
        {"407 with token=abc&x=y", "407 with token=***"},
        {"login failed: Password: abc, 407", "login failed: Password: *** 407"},
        {"{\"user\":\"u\",\"x\":1} refused", "{\"user\":*** refused"},
        {"get http://10.0.0.1:80/?api_key=abc", "get http://10.0.0.1:80/?api_key=***"},
        {"http://my-user:p@10.0.0.1:80 gone", "http://***@10.0.0.1:80 gone"},
        {"10.0.0.1:80:my-user:p gone", "10.0.0.1:80:*** gone"},
        {"token=a@b", "***"},
        {"proxy: no token", "proxy: no token"},
        {"@", "@"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char masked[PTIER_MASKED_MAX];
        ptier_mask_credentials(cases[i].text, masked);
        assert_string_equal(masked, cases[i].masked);
    }
}

static void
masked_texts_have_a_bound(void **state)
{
    (void)state;
    char text[1001], masked[PTIER_MASKED_MAX];
    for (size_t i = 0; i + 1 < sizeof text; i++)
        text[i] = "a@ "[i % 3]; /* grows when it is masked */
    text[1000] = '\0';
    ptier_mask_credentials(text, masked);
    assert_int_equal(strlen(masked), PTIER_MASKED_MAX - 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credentials_in_error_texts_are_starred_out),
        cmocka_unit_test(masked_texts_have_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
