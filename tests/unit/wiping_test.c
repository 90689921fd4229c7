/*
 * Secrets are wiped before their memory goes back: the linker puts this file's free, realloc and
 * munmap in place of those that our libraries call, and each looks at what it is given.
 */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include <proxytier/import.h>

#include "bytes.h"
#include "config.h"
#include "dedup.h"
#include "entry_internal.h"
#include "support/cache_box.h"

#define USER     "wipe-me-user"
#define PASSWORD "wipe-me-password"
#define KEY      "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="

/* What must not be in memory that is given back: both credentials share the first bytes. */
static const struct needle {
    const void *bytes;
    size_t length;
} needles[] = {{"wipe-me-", 8}, {KEY, sizeof KEY - 1}};

static uint8_t check_key[16]; /* all that the key ring itself keeps of a key */
static _Atomic bool watching;
static _Atomic int leaks;

static void
inspect(const void *memory, size_t size)
{
    if (!memory || !watching)
        return;
    bool found = memmem(memory, size, check_key, sizeof check_key) != NULL;
    for (size_t i = 0; i < sizeof needles / sizeof *needles; i++)
        found |= memmem(memory, size, needles[i].bytes, needles[i].length) != NULL;
    leaks += found;
}

void __real_free(void *memory);
void *__real_realloc(void *memory, size_t size);
int __real_munmap(void *memory, size_t size);
void __wrap_free(void *memory);
void *__wrap_realloc(void *memory, size_t size);
int __wrap_munmap(void *memory, size_t size);

void
__wrap_free(void *memory)
{
    inspect(memory, memory ? malloc_usable_size(memory) : 0);
    __real_free(memory);
}

/* May leave the old bytes where they were. */
void *
__wrap_realloc(void *memory, size_t size)
{
    inspect(memory, memory ? malloc_usable_size(memory) : 0);
    return __real_realloc(memory, size);
}

int
__wrap_munmap(void *memory, size_t size)
{
    inspect(memory, size);
    return __real_munmap(memory, size);
}

static int
start_watching(void **state)
{
    (void)state;
    leaks = 0;
    watching = true;
    return 0;
}

static int
stop_watching(void **state)
{
    (void)state;
    watching = false;
    return 0;
}

static void
memory_given_back_with_a_secret_is_noticed(void **state)
{
    (void)state;
    free(strdup("before " PASSWORD));
    assert_int_equal(leaks, 1);
    free(strdup("a " KEY));
    assert_int_equal(leaks, 2);
    free(realloc(strdup(USER), 4000));
    assert_int_equal(leaks, 4);
    free(strdup("nothing"));
    assert_int_equal(leaks, 4);
}

static ptier_record
secret_record(void)
{
    ptier_record record;
    ptier_record_init(&record);
    record.key = "p1";
    record.url = "http://10.0.0.1:8080";
    record.username = USER;
    record.password = PASSWORD;
    record.ttl_ms = 0;
    record.failure_count = 0;
    return record;
}

static void
entry_is_wiped_with_its_last_reference(void **state)
{
    (void)state;
    const ptier_record record = secret_record();
    ptier_entry *entry = ptier_entry_create(&record, 1, 0, PTIER_NEVER);
    assert_non_null(entry);
    ptier_entry_release(ptier_entry_retain(entry));
    assert_string_equal(ptier_entry_password(entry), PASSWORD);
    ptier_entry_release(entry);
    assert_int_equal(leaks, 0);
}

static void
url_is_wiped_whole(void **state)
{
    (void)state;
    ptier_url *url = malloc(sizeof *url);
    ptier_error error;
    assert_non_null(url);
    assert_int_equal(
        ptier_url_parse("http://" USER ":" PASSWORD "@10.0.0.1:8080", "http", url, &error),
        PTIER_OK);
    assert_string_equal(url->password, PASSWORD);
    ptier_url_wipe(url);
    for (size_t i = 0; i < sizeof *url; i++)
        assert_int_equal(((const unsigned char *)url)[i], 0);
    assert_int_equal(ptier_url_parse("http://" USER ":" PASSWORD "@:0", "http", url, &error),
                     PTIER_INVALID_ARGUMENT);
    free(url);
    assert_int_equal(leaks, 0);
}

/* ---- the key ring ---- */

typedef struct mapping {
    const char *start; /* NULL: none */
    size_t length;
    bool dumped; /* the kernel has no "dd" for it */
} mapping;

static mapping
mapping_of(const void *address)
{
    char line[512];
    bool inside = false;
    mapping found = {0};
    FILE *file = fopen("/proc/self/smaps", "re");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        char *end;
        uintptr_t from = strtoul(line, &end, 16);
        if (*end == '-') {
            uintptr_t to = strtoul(end + 1, NULL, 16);
            inside = from <= (uintptr_t)address && (uintptr_t)address < to;
            if (inside)
                found = (mapping){(const char *)address - ((uintptr_t)address - from), to - from,
                                  false};
        } else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            found.dumped = strstr(line, " dd") == NULL;
        }
    }
    (void)fclose(file);
    return found;
}

static ptier_keyring *
make_keyring(void)
{
    const char *keys[] = {KEY, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="};
    ptier_keyring *keyring;
    ptier_error error;
    assert_int_equal(ptier_keyring_create(keys, 2, &keyring, &error), PTIER_OK);
    return keyring;
}

static void
keyring_is_in_pages_that_are_not_dumped_and_is_wiped(void **state)
{
    (void)state;
    ptier_keyring *keyring = make_keyring();
    mapping pages = mapping_of(keyring);
    assert_false(pages.dumped);
    /* That is where its keys are: finding nothing later means something. */
    assert_true(pages.start && memmem(pages.start, pages.length, check_key, sizeof check_key));
    ptier_keyring_destroy(keyring);
    assert_int_equal(leaks, 0);
}

static void
key_files_leave_nothing_behind(void **state)
{
    (void)state;
    char directory[PTIER_TEST_PATH], path[PTIER_TEST_PATH + 8], key[PTIER_KEY_TEXT + 1];
    ptier_error error;
    ptier_key_list *list = malloc(sizeof *list);
    assert_non_null(list);
    ptier_test_dir_make(directory);
    (void)snprintf(path, sizeof path, "%s/key", directory);
    assert_int_equal(ptier_key_file(path, true, key, &error), PTIER_OK);
    ptier_test_file_write(path, KEY "\nno key\n", sizeof KEY + 7);
    assert_int_equal(ptier_key_credential(path, list, &error), PTIER_INVALID_ARGUMENT);
    free(list);
    ptier_test_dir_remove(directory);
    assert_int_equal(leaks, 0);
}

static void
configuration_forgets_its_keys(void **state)
{
    (void)state;
    const char *argv[] = {"proxytierd", "--listen", "ipc:///tmp/unused.sock"};
    ptier_config *config;
    ptier_error error;
    bool done;
    for (int early = 0; early < 2; early++) {
        assert_int_equal(setenv("PROXYTIER_ENCRYPTION_KEY", KEY, 1), 0);
        assert_int_equal(setenv("PROXYTIER_KEY_PREVIOUS", KEY "," KEY, 1), 0);
        assert_int_equal(ptier_config_load(3, argv, &config, &done, &error), PTIER_OK);
        assert_string_equal(config->encryption_key, KEY);
        assert_int_equal(config->previous_keys.count, 2);
        if (early)
            ptier_config_forget_keys(config);
        ptier_config_destroy(config);
    }
    assert_int_equal(leaks, 0);
}

/* ---- the cache ---- */

static void
use_cache(ptier_test_box *box)
{
    ptier_record record = secret_record();
    char line[2048];
    ptier_entry *entry;
    for (int i = 0; i < 300; i++) { /* more than one chunk, and more than L1 has room for */
        char key[16];
        (void)snprintf(key, sizeof key, "p%d", i);
        record.key = key;
        assert_int_equal(ptier_test_box_put_record(box, &record, NULL).outcome, PTIER_PUT_CREATED);
    }
    record.key = "p1";
    record.password = PASSWORD "-2";
    assert_int_equal(ptier_test_box_put_record(box, &record, NULL).outcome, PTIER_PUT_UPDATED);
    record.url = "http://" USER ":" PASSWORD "@";
    assert_int_equal(ptier_test_box_put_record(box, &record, NULL).outcome, PTIER_PUT_REJECTED);
    ptier_test_box_report(box, "p2", PTIER_REPORT_FAILED, 10);
    assert_true(ptier_test_box_delete(box, 3));
    for (int i = 0; i < 3; i++)
        assert_int_equal(ptier_test_box_report(box, "p4", PTIER_REPORT_FAILED, 0).removed, i == 2);
    assert_int_equal(ptier_cache_get(box->cache, "p1", &entry, NULL), PTIER_OK);
    assert_true(ptier_cache_export_line(box->cache, entry, false, line, sizeof line) > 0);
    assert_int_equal(ptier_cache_get(box->cache, "p1", &entry, NULL), PTIER_OK);
    assert_string_equal(ptier_entry_password(entry), PASSWORD "-2");
    ptier_entry_release(entry);
    ptier_entry_release(entry);
}

static void
cache_leaves_no_credentials_behind_in_any_set_of_tiers(void **state)
{
    (void)state;
    for (int tiers = 1; tiers <= BOX_ALL; tiers++) {
        ptier_test_box box;
        ptier_test_box_init(&box, tiers);
        box.options.l1_entries = tiers == BOX_L1 ? 1000 : 50;
        box.options.encryption_key = KEY;
        ptier_test_box_open(&box);
        use_cache(&box);
        if (tiers != BOX_L1) {
            ptier_test_box_reopen(&box);
            for (int i = 0; i < 300; i++)
                assert_int_equal(ptier_test_box_has(&box, i), i != 3 && i != 4);
        }
        ptier_test_box_fini(&box);
        assert_int_equal(leaks, 0);
    }
}

/* ---- importing ---- */

static bool
count_record(void *context, const ptier_import_record *record)
{
    assert_string_equal(record->record.password, PASSWORD);
    ++*(int *)context;
    return true;
}

static void
importers_leave_no_credentials_behind(void **state)
{
    (void)state;
    static const char *const lists[] = {
        "http://" USER ":" PASSWORD "@10.0.0.1:8080\n10.0.0.2:80:" USER ":" PASSWORD "\n"
        "http://" USER ":" PASSWORD "@[broken\n",
        "host,port,username,password\n10.0.0.1,8080," USER "," PASSWORD "\n"
        "10.0.0.2,8080," USER "," PASSWORD "\nbroken,x," USER "," PASSWORD "\n",
        "[{\"url\":\"http://10.0.0.1:8080\",\"username\":\"" USER "\",\"password\":\"" PASSWORD
        "\"},{\"url\":\"http://" USER ":" PASSWORD "@10.0.0.2:1\"},{\"url\":1,\"password\":\"" //
        PASSWORD "\"}]",
        "{\"url\":\"http://10.0.0.1:8080\",\"username\":\"" USER "\",\"password\":\"" PASSWORD
        "\"}\n{\"url\":\"http://" USER ":" PASSWORD "@10.0.0.2:1\"}\n{\"password\":\"" PASSWORD
        "\"}\n{\"password\":\"" PASSWORD "\n",
    };
    for (int format = PTIER_IMPORT_TEXT; format <= PTIER_IMPORT_JSONL; format++) {
        const char *list = lists[format - PTIER_IMPORT_TEXT];
        ptier_import_options options;
        ptier_import_summary summary;
        ptier_error error;
        int records = 0;
        ptier_import_options_init(&options);
        options.format = format;
        options.on_record = count_record;
        options.context = &records;
        assert_int_equal(ptier_import_memory(list, strlen(list), NULL, &options, &summary, &error),
                         PTIER_OK);
        assert_int_equal(records, 2);
        assert_true(summary.skipped > 0);
        assert_int_equal(leaks, 0);
    }
}

static void
replies_are_wiped_as_they_grow(void **state)
{
    (void)state;
    ptier_bytes bytes = {0};
    for (size_t size = 64; size < 100000; size *= 2) {
        uint8_t *at = ptier_bytes_reserve(&bytes, size);
        assert_non_null(at);
        memcpy(at, PASSWORD, sizeof PASSWORD);
        bytes.length += size;
    }
    ptier_bytes_fini(&bytes);
    assert_int_equal(leaks, 0);
}

/* A Put that returns its record has credentials in its outcome. */
static void
outcomes_of_calls_are_wiped_when_they_are_forgotten(void **state)
{
    (void)state;
    static const ptier_dedup_limits limits = {
        .entries = 2, .outcome_bytes = 1000, .window_ms = 1000};
    ptier_dedup *dedup = ptier_dedup_create(&limits);
    assert_non_null(dedup);
    for (uint8_t i = 0; i < 4; i++) { /* forgotten early, by time, and with the table */
        const ptier_dedup_call call = {.id = {i}};
        ptier_dedup_entry *entry;
        assert_int_equal(ptier_dedup_begin(dedup, &call, i * 400, NULL, &entry), PTIER_DEDUP_NEW);
        assert_null(ptier_dedup_finish(dedup, entry, i * 400, true, (const uint8_t *)PASSWORD,
                                       sizeof PASSWORD));
    }
    ptier_dedup_expire(dedup, 1900);
    assert_int_equal(ptier_dedup_figure(dedup).entries, 1);
    ptier_dedup_destroy(dedup);
    assert_int_equal(leaks, 0);
}

#define WATCHED(test) cmocka_unit_test_setup_teardown(test, start_watching, stop_watching)

int
main(void)
{
    static const uint8_t key[32] = {0x73, 0x0f, 0xf4, 0xc7, 0xaf, 0x3d, 0x46, 0x92,
                                    0x3e, 0x8e, 0xd4, 0x51, 0xee, 0x81, 0x3c, 0x87,
                                    0xf7, 0x90, 0xb0, 0xa2, 0x26, 0xbc, 0x96, 0xa9,
                                    0x2d, 0xe4, 0x9b, 0x5e, 0x9c, 0x05, 0xe1, 0xee};
    static const char label[] = "proxytier record check v1";
    uint8_t mac[32];
    size_t length;
    if (!EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, sizeof key, (const uint8_t *)label,
                   sizeof label - 1, mac, sizeof mac, &length))
        return 1;
    memcpy(check_key, mac, sizeof check_key);
    const struct CMUnitTest tests[] = {
        WATCHED(memory_given_back_with_a_secret_is_noticed),
        WATCHED(entry_is_wiped_with_its_last_reference),
        WATCHED(url_is_wiped_whole),
        WATCHED(keyring_is_in_pages_that_are_not_dumped_and_is_wiped),
        WATCHED(key_files_leave_nothing_behind),
        WATCHED(configuration_forgets_its_keys),
        WATCHED(cache_leaves_no_credentials_behind_in_any_set_of_tiers),
        WATCHED(importers_leave_no_credentials_behind),
        WATCHED(replies_are_wiped_as_they_grow),
        WATCHED(outcomes_of_calls_are_wiped_when_they_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
