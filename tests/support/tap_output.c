/*
 * Linked into every test program: keeps the output format that CMOCKA_MESSAGE_OUTPUT asks for at
 * the start, even if a test clears the environment. Otherwise cases would be lost to the count
 * (run_tests.py). PTIER_CASE=pattern runs only the cases whose names match (* and ?).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

__attribute__((constructor)) static void
keep_output_format(void)
{
    const char *format = getenv("CMOCKA_MESSAGE_OUTPUT");
    if (format && strcmp(format, "TAP") == 0)
        cmocka_set_message_output(CM_OUTPUT_TAP);
    if (getenv("PTIER_CASE"))
        cmocka_set_test_filter(getenv("PTIER_CASE"));
}
