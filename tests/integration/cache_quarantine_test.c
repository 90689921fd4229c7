/* Quarantine: whom warming skips, for how long, and that this outlives the process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "hash.h"
#include "support/cache_box.h"

#define MINUTE INT64_C(60000)
#define DAY    INT64_C(86400000)
#define KEY_A  "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="
#define KEY_B  "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static ptier_test_box box;
static char path[PTIER_TEST_PATH + 16];
static _Atomic int warnings; /* about the file */
static char last_warning[256];

static void
note_log(void *context, ptier_log_level level, const char *event, const char *text)
{
    (void)context;
    if (strncmp(event, "quarantine", 10) != 0)
        return;
    assert_int_equal(level, PTIER_LOG_WARN);
    (void)snprintf(last_warning, sizeof last_warning, "%s %s", event, text); /* cut is fine */
    warnings++;
}

static void
start(int tiers)
{
    ptier_test_box_init(&box, tiers);
    (void)snprintf(path, sizeof path, "%s/quarantine", box.directory);
    box.options.on_log = note_log;
    box.options.failure_threshold = 1;
    warnings = 0;
    ptier_test_box_open(&box);
}

static void
start_over(int tiers)
{
    ptier_test_box_fini(&box);
    start(tiers);
}

static int
set_up(void **state)
{
    (void)state;
    start(BOX_ALL);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ptier_test_box_fini(&box);
    return 0;
}

static void
die(int number)
{
    char key[16];
    (void)snprintf(key, sizeof key, "p%d", number);
    ptier_test_box_put(&box, number);
    assert_true(ptier_test_box_report(&box, key, PTIER_REPORT_FAILED, 0).removed);
}

static ptier_put_outcome
warm(int number)
{
    static const ptier_put_options options = {.mode = PTIER_PUT_MODE_WARM};
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, number, key, url);
    return ptier_test_box_put_record(&box, &record, &options).outcome;
}

#define ASSERT_SKIPPED(number) assert_int_equal(warm(number), PTIER_PUT_SKIPPED_QUARANTINED)
#define ASSERT_TAKEN(number)   assert_int_equal(warm(number), PTIER_PUT_CREATED)

static size_t
count_lines(void)
{
    size_t count = 0, length;
    if (access(path, F_OK) != 0)
        return 0;
    char *text = ptier_test_file_read(path, &length);
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        count++;
    free(text);
    return count;
}

/* Until the file knows all that was said so far. */
static void
await_flush(void)
{
    size_t left = 1;
    int64_t deadline = ptier_test_now() + 20000;
    while (left && ptier_test_now() < deadline) {
        pthread_mutex_lock(&box.cache->lock);
        left = box.cache->quarantine_log.news.length;
        pthread_mutex_unlock(&box.cache->lock);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_int_equal(left, 0);
}

static void
quarantine_survives_a_restart_with_any_disk_tier(void **state)
{
    (void)state;
    for (int tiers = BOX_L2; tiers <= BOX_ALL; tiers++) {
        start_over(tiers);
        die(1);
        die(2);
        ptier_test_box_put(&box, 2); /* a caller knows better */
        assert_true(ptier_test_box_delete(&box, 2));
        ptier_test_box_reopen(&box);
        ASSERT_SKIPPED(1);
        ASSERT_TAKEN(2);
        ptier_test_box_reopen(&box);
        ASSERT_SKIPPED(1);
        ptier_test_box_advance(&box, 15 * MINUTE);
        ASSERT_TAKEN(1);
        assert_int_equal(warnings, 0);
    }
}

/* What a killed process leaves is what stands in the directory now. */
static void
quarantine_survives_the_kill_of_the_process(void **state)
{
    (void)state;
    char copy[PTIER_TEST_PATH + 8];
    (void)snprintf(copy, sizeof copy, "%s.copy", box.directory);
    die(1);
    die(2);
    ptier_test_box_put(&box, 2);
    BOX_AWAIT(count_lines() == 3);
    ptier_test_dir_copy(box.directory, copy);
    ptier_test_box_close(&box);
    box.options.data_dir = copy;
    ptier_test_box_open(&box);
    ASSERT_SKIPPED(1);
    assert_int_equal(warm(2), PTIER_PUT_UPDATED);
    ptier_test_box_close(&box);
    ptier_test_dir_remove(copy);
}

static void
quarantine_counts_as_expiry_does(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2) {
        start_over(BOX_ALL);
        die(1);
        atomic_fetch_add(&box.clock.wall_ms, direction * DAY);
        ptier_test_box_close(&box);
        ptier_test_clock_advance(&box.clock, 10 * MINUTE);
        ptier_test_box_open(&box);
        ptier_test_box_advance(&box, 5 * MINUTE - 1);
        ASSERT_SKIPPED(1);
        ptier_test_box_advance(&box, 1);
        ASSERT_TAKEN(1);
    }
    start_over(BOX_ALL);
    die(1);
    die(2);
    ptier_test_box_close(&box);
    ptier_test_clock_reboot(&box.clock, 10 * MINUTE);
    ptier_test_box_open(&box);
    ASSERT_SKIPPED(1);
    ptier_test_box_advance(&box, 5 * MINUTE);
    ASSERT_TAKEN(1);
}

/* A machine without a battery for its clock starts in 1970. */
static void
quarantine_is_never_longer_than_configured(void **state)
{
    (void)state;
    die(1);
    ptier_test_box_close(&box);
    ptier_test_clock_reboot(&box.clock, -400 * DAY);
    ptier_test_box_open(&box);
    ASSERT_SKIPPED(1);
    ptier_test_box_advance(&box, 15 * MINUTE);
    ASSERT_TAKEN(1);
    die(2);
    box.options.health_quarantine_ms = MINUTE; /* shortened */
    ptier_test_box_reopen(&box);
    ASSERT_SKIPPED(2);
    ptier_test_box_advance(&box, MINUTE);
    ASSERT_TAKEN(2);
}

static void
quarantine_and_removal_can_be_switched_off(void **state)
{
    (void)state;
    die(1);
    BOX_AWAIT(count_lines() == 1);
    box.options.health_quarantine_ms = 0;
    ptier_test_box_reopen(&box);
    assert_int_equal(access(path, F_OK), -1);
    ASSERT_TAKEN(1);
    die(2);
    ASSERT_TAKEN(2);
    ptier_test_box_reopen(&box);
    assert_int_equal(access(path, F_OK), -1);

    box.options.health_quarantine_ms = 15 * MINUTE;
    box.options.failure_threshold = 0;
    ptier_test_box_reopen(&box);
    ptier_test_box_put(&box, 3);
    for (int i = 0; i < 100; i++)
        assert_false(ptier_test_box_report(&box, "p3", PTIER_REPORT_FAILED, 0).removed);
    assert_int_equal(warm(3), PTIER_PUT_UPDATED);
    ptier_test_box_close(&box);
    assert_int_equal(access(path, F_OK), -1);
    ptier_test_box_open(&box);
}

static void
clear_and_delete_do_not_lift_it(void **state)
{
    (void)state;
    uint64_t cleared, revision;
    die(1);
    assert_false(ptier_test_box_delete(&box, 1));
    assert_int_equal(ptier_cache_clear(box.cache, PTIER_TIER_NONE, PTIER_DURABILITY_DEFAULT,
                                       &cleared, &revision, NULL, &box.error),
                     PTIER_OK);
    ASSERT_SKIPPED(1);
    ptier_test_box_reopen(&box);
    ASSERT_SKIPPED(1);
}

static void
any_key_can_be_quarantined(void **state)
{
    (void)state;
    static const ptier_put_options options = {.mode = PTIER_PUT_MODE_WARM};
    ptier_record record;
    char unused[16], url[40], longest[PTIER_KEY_MAX + 1];
    memset(longest, 'k', PTIER_KEY_MAX);
    longest[PTIER_KEY_MAX] = 0;
    const char *const keys[] = {" a key  with blanks ", "%s\"\\|\xc3\xa4", longest};
    for (size_t i = 0; i < 3; i++) {
        ptier_test_box_record(&record, 1, unused, url);
        record.key = keys[i];
        assert_int_equal(ptier_test_box_put_record(&box, &record, NULL).outcome, PTIER_PUT_CREATED);
        assert_true(ptier_test_box_report(&box, keys[i], PTIER_REPORT_FAILED, 0).removed);
        ptier_test_box_reopen(&box);
        assert_int_equal(ptier_test_box_put_record(&box, &record, &options).outcome,
                         PTIER_PUT_SKIPPED_QUARANTINED);
    }
    assert_int_equal(warnings, 0);
}

/* ---- damage ---- */

static void
damaged_lines_are_skipped_counted_and_cleaned_away(void **state)
{
    (void)state;
    size_t length;
    for (int i = 1; i <= 3; i++)
        die(i);
    ptier_test_box_close(&box);
    char *text = ptier_test_file_read(path, &length);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    char *second = strchr(text, '\n') + 1;
    second[30] ^= 1;
    fwrite(text, 1, length, file);
    fputs("words\n\n", file);
    fwrite("\0\1\2 0123456789abcdef\n", 1, 21, file);
    for (int i = 0; i < 3000; i++)
        fputc('x', file);
    fputc('\n', file);
    fwrite(text, 1, 40, file); /* torn */
    assert_int_equal(fclose(file), 0);
    free(text);
    ptier_test_box_open(&box);
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(last_warning, "quarantine_damaged 5 damaged lines"));
    ptier_test_box_reopen(&box);
    assert_int_equal(warnings, 1);
    assert_int_equal(count_lines(), 2);
    ASSERT_SKIPPED(1);
    ASSERT_TAKEN(2);
    ASSERT_SKIPPED(3);
}

/* As much of a cache as the file needs: opening a whole one for each bit would take minutes. */
static ptier_keyring *
keyring_of_box(void)
{
    char file[PTIER_TEST_PATH + 8], key[PTIER_KEY_TEXT + 1];
    const char *keys[] = {key};
    ptier_keyring *keyring;
    (void)snprintf(file, sizeof file, "%s/key", box.directory);
    assert_int_equal(ptier_key_file(file, false, key, &box.error), PTIER_OK);
    assert_int_equal(ptier_keyring_create(keys, 1, &keyring, &box.error), PTIER_OK);
    return keyring;
}

static void
no_flipped_bit_makes_another_line(void **state)
{
    (void)state;
    size_t length;
    die(1);
    die(2);
    ptier_test_box_close(&box);
    ptier_keyring *keyring = keyring_of_box();
    char *text = ptier_test_file_read(path, &length);
    size_t line_break = (size_t)(strchr(text, '\n') - text);
    for (size_t bit = 0; bit < 8 * (line_break + 1); bit++) {
        ptier_cache half = {.data_dir = box.directory,
                            .hash_key = ptier_hash_key,
                            .options.health_quarantine_ms = 15 * MINUTE,
                            .clock = box.clock.clock,
                            .keyring = keyring};
        text[bit / 8] ^= (char)(1 << bit % 8);
        ptier_test_file_write(path, text, length);
        text[bit / 8] ^= (char)(1 << bit % 8);
        ptier_quarantine_load(&half);
        /* Without the break between them both are lost. */
        bool kept = bit / 8 != line_break;
        assert_int_equal(half.quarantine.count, kept);
        assert_int_equal(ptier_quarantined_locked(&half, "p2", ptier_hash_key("p2")), kept);
        ptier_quarantine_empty(&half.quarantine);
    }
    ptier_keyring_destroy(keyring);
    free(text);
    ptier_test_box_open(&box);
}

/* The maintenance thread removes what is due and then writes the file: between two removals it has.
 */
static void
await_round(void)
{
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, 999, key, url);
    record.ttl_ms = 1;
    for (int i = 0; i < 2; i++) {
        size_t before = ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, key);
        (void)ptier_test_box_put_record(&box, &record, NULL); /* looked at by what comes of it */
        ptier_test_clock_advance(&box.clock, 200);
        BOX_AWAIT(ptier_test_box_changes(&box, PTIER_EVENT_REMOVED, PTIER_REASON_TTL, key) >
                  before);
    }
}

static void
file_that_cannot_be_written_is_told_once_and_made_up_for(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path, 0700), 0); /* as root there are no permissions to take away */
    for (int i = 1; i <= 3; i++) {
        die(i);
        await_round();
    }
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(last_warning, path));
    assert_int_equal(rmdir(path), 0);
    BOX_AWAIT(count_lines() == 3);
    ptier_test_box_reopen(&box);
    for (int i = 1; i <= 3; i++)
        ASSERT_SKIPPED(i);
    assert_int_equal(warnings, 1);
}

static void
deleted_file_is_begun_anew(void **state)
{
    (void)state;
    die(1);
    BOX_AWAIT(count_lines() == 1);
    assert_int_equal(unlink(path), 0);
    die(2);
    BOX_AWAIT(count_lines() == 1);
    ptier_test_box_reopen(&box);
    ASSERT_TAKEN(1);
    ASSERT_SKIPPED(2);
}

static void
history_is_cleaned_out_while_running(void **state)
{
    (void)state;
    struct stat info;
    die(1);
    for (int i = 0; i < 1200; i++) {
        die(2); /* the put lifts it each time */
        if (i % 100 == 99)
            await_flush();
    }
    await_flush();
    BOX_AWAIT(count_lines() <= 1024 + 2 * 2);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    ptier_test_box_reopen(&box);
    assert_int_equal(count_lines(), 2);
    ASSERT_SKIPPED(1);
    ASSERT_SKIPPED(2);
}

static void
lines_of_a_previous_key_are_written_anew(void **state)
{
    (void)state;
    const char *previous[] = {KEY_A}, *only_new[] = {KEY_B};
    ptier_keyring *keyring;
    start_over(BOX_ALL);
    ptier_test_box_close(&box);
    ptier_test_dir_remove(box.directory);
    box.options.encryption_key = KEY_A;
    ptier_test_box_open(&box);
    die(1);
    box.options.encryption_key = KEY_B;
    box.options.previous_keys = previous;
    box.options.previous_key_count = 1;
    ptier_test_box_reopen(&box);
    ASSERT_SKIPPED(1);
    assert_int_equal(count_lines(), 1);
    size_t length;
    char *text = ptier_test_file_read(path, &length), check[2 * PTIER_CHECK_BYTES + 1] = "";
    uint8_t made[PTIER_CHECK_BYTES];
    text[length - 1] = 0;
    assert_int_equal(ptier_keyring_create(only_new, 1, &keyring, &box.error), PTIER_OK);
    assert_int_equal(ptier_keyring_check(keyring, text + 17, strlen(text + 17), made), PTIER_OK);
    for (int i = 0; i < PTIER_CHECK_BYTES; i++)
        (void)sprintf(check + 2 * i, "%02x", made[i]);
    assert_memory_equal(text, check, sizeof check - 1);
    ptier_keyring_destroy(keyring);
    free(text);
}

#define WITH_CACHE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CACHE(quarantine_survives_a_restart_with_any_disk_tier),
        WITH_CACHE(quarantine_survives_the_kill_of_the_process),
        WITH_CACHE(quarantine_counts_as_expiry_does),
        WITH_CACHE(quarantine_is_never_longer_than_configured),
        WITH_CACHE(quarantine_and_removal_can_be_switched_off),
        WITH_CACHE(clear_and_delete_do_not_lift_it),
        WITH_CACHE(any_key_can_be_quarantined),
        WITH_CACHE(damaged_lines_are_skipped_counted_and_cleaned_away),
        WITH_CACHE(no_flipped_bit_makes_another_line),
        WITH_CACHE(file_that_cannot_be_written_is_told_once_and_made_up_for),
        WITH_CACHE(deleted_file_is_begun_anew),
        WITH_CACHE(history_is_cleaned_out_while_running),
        WITH_CACHE(lines_of_a_previous_key_are_written_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
