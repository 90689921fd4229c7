/*
 * Inputs with random damage: whatever comes, the importer ends, and what it hands out keeps its
 * promises. Run it under ASan. The seed is fixed: a failure comes again.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include <proxytier/import.h>

#include "support/sample_database.h"
#include "support/temp_dir.h"

enum {
    ROUNDS = 400, /* of each sample */
    FLIPS_MAX = 12,
    ROWS = 120,
};

static uint64_t random_state;
static char directory[PTIER_TEST_PATH];

static size_t
random_below(size_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (size_t)(random_state % limit);
}

/* Flips bits, overwrites, repeats and cuts. Returns the new length, which is never larger. */
static size_t
damage(char *data, size_t length)
{
    for (size_t flips = 1 + random_below(FLIPS_MAX); flips > 0; flips--) {
        size_t at = random_below(length);
        size_t span = 1 + random_below(length - at < 32 ? length - at : 32);
        switch (random_below(8)) {
        case 0:
            memset(data + at, (int)random_below(256), span);
            break;
        case 1:
            memmove(data + random_below(length - span + 1), data + at, span);
            break;
        case 2:
            data[at] = "\"\\,;\n{}[]:'\0"[random_below(12)];
            break;
        default:
            data[at] = (char)(data[at] ^ (1 << random_below(8)));
        }
    }
    return random_below(10) ? length : 1 + random_below(length);
}

/* ---- what every record keeps to ---- */

static void
check_text(const char *value, size_t limit)
{
    if (value)
        assert_true(strlen(value) <= limit);
}

static bool
check_record(void *context, const ptier_import_record *imported)
{
    const ptier_record *r = &imported->record;
    ptier_url url;
    ptier_error error;
    uint64_t *records = context;
    ++*records;
    assert_non_null(r->url);
    assert_int_equal(ptier_url_parse(r->url, NULL, &url, &error), PTIER_OK);
    assert_false(url.has_username || url.has_password);
    assert_string_equal(url.url, r->url);
    check_text(r->key, PTIER_KEY_MAX);
    check_text(r->username, PTIER_CREDENTIAL_MAX);
    check_text(r->password, PTIER_CREDENTIAL_MAX);
    check_text(r->username_token, 1024);
    check_text(r->password_token, 1024);
    assert_non_null(r->source);
    check_text(r->source, PTIER_SOURCE_MAX);
    assert_true(r->fetch_time_ms >= 0 && r->expires_at_ms >= 0 && r->last_access_ms >= 0);
    assert_true(r->ttl_ms >= PTIER_TTL_DEFAULT && r->ttl_ms <= PTIER_TTL_MAX_MS);
    assert_true((unsigned)r->health <= PTIER_HEALTH_UNKNOWN);
    assert_true(r->latency_ms >= 0);
    assert_true(r->label_count <= PTIER_LABELS_MAX);
    for (size_t i = 0; i < r->label_count; i++) {
        check_text(r->labels[i].name, PTIER_LABEL_NAME_MAX);
        check_text(r->labels[i].value, PTIER_LABEL_VALUE_MAX);
    }
    return true;
}

static void
check_skip(void *context, uint64_t line, const char *reason)
{
    (void)context;
    (void)line;
    assert_true(strlen(reason) > 0);
}

static uint64_t
load(const char *path)
{
    ptier_import_options options;
    ptier_import_summary summary;
    ptier_error error = {0};
    uint64_t records = 0;
    ptier_import_options_init(&options);
    options.on_record = check_record;
    options.on_skip = check_skip;
    options.context = &records;
    ptier_status status = ptier_import_file(path, &options, &summary, &error);
    assert_true(status == PTIER_OK || status == PTIER_INVALID_ARGUMENT ||
                status == PTIER_UNAVAILABLE);
    assert_true(status == PTIER_OK || error.message[0]);
    assert_int_equal(records, summary.records);
    return records;
}

/* ---- samples ---- */

/* Loads damaged copies of a file, under a name of the same kind. Returns how many records came. */
static uint64_t
torment(const char *path, const char *name)
{
    char copy[PTIER_TEST_PATH + 300];
    size_t length;
    uint64_t records = 0;
    char *whole = ptier_test_file_read(path, &length);
    if (length == 0) {
        free(whole);
        return 0;
    }
    char *data = malloc(length);
    assert_non_null(data);
    (void)snprintf(copy, sizeof copy, "%s/%s", directory, name);
    for (int round = 0; round < ROUNDS; round++) {
        memcpy(data, whole, length);
        (void)unlink(copy); /* a new file: the system flushes one that is written over */
        ptier_test_file_write(copy, data, damage(data, length));
        records += load(copy);
    }
    free(data);
    free(whole);
    return records;
}

static void
damaged_lists_never_harm(void **state)
{
    uint64_t samples = 0;
    (void)state;
    DIR *fixtures = opendir(PTIER_FIXTURES "/import");
    assert_non_null(fixtures);
    for (struct dirent *item = readdir(fixtures); item; item = readdir(fixtures)) {
        char path[600];
        if (item->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, PTIER_FIXTURES "/import/%s", item->d_name);
        (void)torment(path, item->d_name); /* some have no records even when they are whole */
        samples++;
    }
    assert_int_equal(closedir(fixtures), 0);
    assert_true(samples > 10);
}

static void
damaged_databases_never_harm(void **state)
{
    char path[PTIER_TEST_PATH + 16];
    (void)state;
    (void)snprintf(path, sizeof path, "%s/whole.db", directory);
    ptier_test_proxywhirl_database(path, ROWS);
    assert_int_equal(load(path), ROWS);
    assert_true(torment(path, "copy.db") > ROUNDS);
    assert_int_equal(unlink(path), 0);
    ptier_test_own_database(path, ROWS);
    assert_int_equal(load(path), ROWS);
    assert_true(torment(path, "copy.db") > ROUNDS);
}

static int
prepare(void **state)
{
    (void)state;
    random_state = UINT64_C(0x9e3779b97f4a7c15);
    ptier_test_dir_make(directory);
    return 0;
}

static int
clean_up(void **state)
{
    (void)state;
    ptier_test_dir_remove(directory);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(damaged_lists_never_harm, prepare, clean_up),
        cmocka_unit_test_setup_teardown(damaged_databases_never_harm, prepare, clean_up),
    };
    return cmocka_run_group_tests_name("import_fuzz", tests, NULL, NULL);
}
