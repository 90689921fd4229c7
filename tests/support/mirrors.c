/* See mirrors.h. */
#include "support/mirrors.h"

#include <inttypes.h>
#include <signal.h>
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

static void
put_batch(ptier_client *client, unsigned first, unsigned count, const char *source,
          const ptier_label *labels, size_t label_count)
{
    char urls[BATCH][64];
    ptier_record records[BATCH];
    ptier_error error = {.message = ""};
    for (unsigned i = 0; i < count; i++) {
        make_url(first + i, urls[i]);
        ptier_record_init(&records[i]);
        records[i].url = urls[i];
        records[i].source = source;
        records[i].labels = labels;
        records[i].label_count = label_count;
    }
    if (ptier_put_many(client, records, count, NULL, NULL, &error) != PTIER_OK)
        fail_msg("put: %s", error.message);
}

void
test_put_range(ptier_client *client, unsigned first, unsigned count, const char *source)
{
    for (unsigned done = 0; done < count; done += BATCH)
        put_batch(client, first + done, count - done < BATCH ? count - done : BATCH, source, NULL,
                  0);
}

void
test_put_heavy(ptier_client *client, unsigned first, unsigned count)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    enum { LABELS = sizeof names / sizeof *names };
    char value[PTIER_LABEL_VALUE_MAX + 1] = {0};
    ptier_label labels[LABELS];
    memset(value, 'v', PTIER_LABEL_VALUE_MAX);
    for (int i = 0; i < LABELS; i++)
        labels[i] = (ptier_label){names[i], value};
    for (unsigned done = 0; done < count; done += BATCH)
        put_batch(client, first + done, count - done < BATCH ? count - done : BATCH, "heavy",
                  labels, LABELS);
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
        ptier_delete_result result;
        unsigned here = count < BATCH ? count : BATCH;
        for (unsigned i = 0; i < here; i++) {
            test_key(first + i, keys[i]);
            list[i] = keys[i];
        }
        if (ptier_delete(client, list, here, NULL, &result, &error) != PTIER_OK)
            fail_msg("delete: %s", error.message);
        total += result.deleted;
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

typedef struct line {
    char text[64];
} line;

typedef struct line_list {
    line *lines;
    size_t count, room;
} line_list;

static int
compare_lines(const void *a, const void *b)
{
    return strcmp(((const line *)a)->text, ((const line *)b)->text);
}

static void
add_line(line_list *list, const ptier_record *record)
{
    if (list->count == list->room) {
        list->room = list->room ? 2 * list->room : 1024;
        line *grown = realloc(list->lines, list->room * sizeof *grown);
        if (!grown)
            abort();
        list->lines = grown;
    }
    line *added = &list->lines[list->count++];
    (void)snprintf(added->text, sizeof added->text, "%.24s %" PRIu64 "\n", record->key,
                   record->revision);
}

/* What the daemon holds, in the form and order of what mirrors print. To be freed. */
static line_list
list_daemon(ptier_client *client)
{
    line_list list = {0};
    char token[40] = "";
    do {
        ptier_records page;
        ptier_error error = {.message = ""};
        if (ptier_list(client, NULL, 1000, token, &page, &error) != PTIER_OK)
            fail_msg("list: %s", error.message);
        for (size_t i = 0; i < page.count; i++)
            add_line(&list, &page.records[i]);
        memcpy(token, page.next_page_token, sizeof token);
        ptier_records_free(&page);
    } while (token[0]);
    if (list.lines)
        qsort(list.lines, list.count, sizeof *list.lines, compare_lines);
    return list;
}

static void
compare_contents(const char *mirrored, const line_list *held)
{
    for (size_t i = 0; i < held->count; i++) {
        const char *text = held->lines[i].text;
        size_t length = strlen(text);
        if (strncmp(mirrored, text, length) != 0)
            fail_msg("the mirror says %.*s where the daemon has %.*s", (int)strcspn(mirrored, "\n"),
                     mirrored, (int)length - 1, text);
        mirrored += length;
    }
    if (strncmp(mirrored, "end ", 4) != 0)
        fail_msg("the mirror has %.*s too", (int)strcspn(mirrored, "\n"), mirrored);
}

mirror_report
mirror_check(ptier_test_program *program, ptier_client *client)
{
    mirror_report report;
    int code = ptier_test_program_wait(program);
    const char *text = program->texts[PTIER_TEST_OUT], *start = strstr(text, "following\n");
    const char *end = strstr(text, "end events ");
    if (code != 0 || !start || !end)
        fail_msg("a mirror ended with %d: %.200s", code, end ? end : text);
    if (!start || !end)
        abort(); /* does not come here */
    assert_int_equal(sscanf(end, "end events %llu resyncs %llu disorder %llu clears %llu",
                            &report.events, &report.resyncs, &report.disorder, &report.clears),
                     4);
    line_list held = list_daemon(client);
    compare_contents(start + strlen("following\n"), &held);
    free(held.lines);
    assert_int_equal(report.disorder, 0);
    ptier_test_program_free(program);
    return report;
}

void
event_box_open(event_box *box, const char *journal_events)
{
    const char *const arguments[] = {"--journal-events", journal_events, "--default-ttl", "0",
                                     NULL};
    test_daemon_init(&box->daemon);
    test_daemon_start(&box->daemon, arguments);
    box->client = test_client_open(&box->daemon, 30000);
}

void
event_box_close(event_box *box)
{
    ptier_client_close(box->client);
    assert_int_equal(test_daemon_end(&box->daemon, SIGTERM), 0);
    test_daemon_fini(&box->daemon);
}
