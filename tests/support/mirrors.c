/* See mirrors.h. */
#include "support/mirrors.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <proxytier/import.h>

enum { BATCH = 500 };

ptier_client *
test_client_open(const test_daemon *daemon, uint32_t timeout_ms)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = daemon->url;
    options.timeout_ms = timeout_ms;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static void
make_url(unsigned number, char url[64])
{
    (void)snprintf(url, 64, "http://10.%u.%u.%u:8080", number >> 16 & 255, number >> 8 & 255,
                   number & 255);
}

void
test_put_range(ptier_client *client, unsigned first, unsigned count, const char *source)
{
    while (count > 0) {
        char urls[BATCH][64];
        ptier_record records[BATCH];
        ptier_error error = {.message = ""};
        unsigned here = count < BATCH ? count : BATCH;
        for (unsigned i = 0; i < here; i++) {
            make_url(first + i, urls[i]);
            ptier_record_init(&records[i]);
            records[i].url = urls[i];
            records[i].source = source;
        }
        if (ptier_put_many(client, records, here, NULL, NULL, &error) != PTIER_OK)
            fail_msg("put: %s", error.message);
        first += here;
        count -= here;
    }
}

void
test_key(unsigned number, char key[24])
{
    char url[64];
    char derived[65];
    make_url(number, url);
    ptier_key_derive(url, NULL, false, derived);
    (void)snprintf(key, 24, "%.16s", derived);
}

size_t
test_delete_range(ptier_client *client, unsigned first, unsigned count)
{
    size_t total = 0;
    while (count > 0) {
        char keys[BATCH][24];
        const char *list[BATCH];
        ptier_error error = {.message = ""};
        size_t deleted;
        unsigned here = count < BATCH ? count : BATCH;
        for (unsigned i = 0; i < here; i++) {
            test_key(first + i, keys[i]);
            list[i] = keys[i];
        }
        if (ptier_delete(client, list, here, &deleted, &error) != PTIER_OK)
            fail_msg("delete: %s", error.message);
        total += deleted;
        first += here;
        count -= here;
    }
    return total;
}

void
mirror_start(ptier_test_program *program, const test_daemon *daemon, unsigned callback_us)
{
    char us[16];
    (void)snprintf(us, sizeof us, "%u", callback_us);
    const char *const argv[] = {PTIER_EVENT_MIRROR, daemon->url, us, NULL};
    ptier_test_program_start(program, NULL, argv);
}

void
mirror_wait_following(ptier_test_program *program)
{
    bool following = false;
    for (int tries = 0; tries < 6 && !following && !ptier_test_program_ended(program); tries++)
        following = ptier_test_program_says(program, PTIER_TEST_OUT, "following\n");
    assert_true(following);
}

void
mirror_put_sentinel(ptier_client *client)
{
    test_put_range(client, 0xFFFFFF, 1, "sentinel");
}

static int
compare_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What the daemon holds, in the form and order of what mirrors print. */
static char *
print_daemon(ptier_client *client, size_t *length)
{
    char **lines = NULL, token[40] = "", *text;
    size_t count = 0, room = 0;
    do {
        ptier_records page;
        ptier_error error = {.message = ""};
        if (ptier_list(client, NULL, 1000, token, &page, &error) != PTIER_OK)
            fail_msg("list: %s", error.message);
        for (size_t i = 0; i < page.count; i++) {
            if (count == room) {
                room = room ? 2 * room : 1024;
                char **grown = realloc(lines, room * sizeof *lines);
                assert_non_null(grown);
                lines = grown;
            }
            assert_true(asprintf(&lines[count++], "%s %" PRIu64 "\n", page.records[i].key,
                                 page.records[i].revision) > 0);
        }
        memcpy(token, page.next_page_token, sizeof token);
        ptier_records_free(&page);
    } while (token[0]);
    if (count > 0)
        qsort(lines, count, sizeof *lines, compare_text);
    FILE *file = open_memstream(&text, length);
    assert_non_null(file);
    for (size_t i = 0; i < count; i++) {
        fputs(lines[i], file);
        free(lines[i]);
    }
    fclose(file);
    free(lines);
    return text;
}

static void
compare_contents(const char *mirrored, const char *held)
{
    while (*held) {
        size_t length = strcspn(held, "\n") + 1;
        if (strncmp(mirrored, held, length) != 0)
            fail_msg("the mirror says %.*s where the daemon has %.*s", (int)strcspn(mirrored, "\n"),
                     mirrored, (int)length - 1, held);
        mirrored += length;
        held += length;
    }
    if (strncmp(mirrored, "end ", 4) != 0)
        fail_msg("the mirror has %.*s too", (int)strcspn(mirrored, "\n"), mirrored);
}

mirror_report
mirror_check(ptier_test_program *program, ptier_client *client)
{
    mirror_report report;
    size_t length;
    int code = ptier_test_program_wait(program);
    const char *text = program->texts[PTIER_TEST_OUT], *start = strstr(text, "following\n");
    const char *end = strstr(text, "end events ");
    if (code != 0 || !start || !end)
        fail_msg("a mirror ended with %d: %.200s", code, end ? end : text);
    assert_int_equal(sscanf(end, "end events %llu resyncs %llu disorder %llu clears %llu",
                            &report.events, &report.resyncs, &report.disorder, &report.clears),
                     4);
    char *held = print_daemon(client, &length);
    compare_contents(start + strlen("following\n"), held);
    free(held);
    assert_int_equal(report.disorder, 0);
    ptier_test_program_free(program);
    return report;
}
