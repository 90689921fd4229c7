/*
 * A disk that is really full (a small tmpfs, which takes root), and one that has become read-only:
 * service goes on, nothing that was acknowledged as LOGGED is lost, everything is healed
 * afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fault.h"
#include "stage.h"
#include "support/io_shim.h"

enum { CALLS = 40, SPARE = 128 << 10, REMOVALS = 30 };

static ptier_stage stage;
static bool mounted;

/* After a failure as well. */
static void
end(void)
{
    if (!stage.box.directory[0])
        return;
    ptier_test_box_close(&stage.box);
    if (mounted)
        (void)umount2(stage.box.directory, MNT_DETACH); /* else removing it tells */
    mounted = false;
    ptier_stage_end(&stage);
}

static int
tear_down(void **state)
{
    (void)state;
    end();
    return 0;
}

static void
begin(int tiers, const char *what)
{
    ptier_fault_deadline(what);
    ptier_stage_begin(&stage, tiers);
}

static void
mount_disk(const char *options)
{
    if (mount("tmpfs", stage.box.directory, "tmpfs", 0, options)) {
        print_message("needs root to mount a tmpfs: %s\n", strerror(errno));
        skip();
    }
    mounted = true;
}

static void
mount_small_disk(void)
{
    mount_disk("size=8m,mode=0700");
}

/* ---- full ---- */

/* Writes to the file until there is no room. Returns its descriptor. */
static int
fill_up(off_t *size)
{
    static char block[SPARE / 4];
    int fd = open(ptier_stage_path(&stage, "ballast"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    *size = lseek(fd, 0, SEEK_END);
    for (ssize_t put; (put = write(fd, block, sizeof block)) > 0;)
        *size += put;
    assert_int_equal(errno, ENOSPC);
    return fd;
}

/* All but SPARE bytes of the disk, and then byte by byte by puts. */
static void
fill_disk(void)
{
    off_t size;
    int fd = fill_up(&size);
    assert_int_equal(ftruncate(fd, size - SPARE), 0);
    close(fd);
}

/* L2 keeps room for removals: they are durable also now. */
static void
remove_some(bool logs)
{
    for (int i = 0; i < REMOVALS; i++) {
        char text[16];
        const char *keys[] = {text};
        ptier_error error = {0};
        ptier_written written = {0};
        (void)snprintf(text, sizeof text, "p%d", i);
        if (!ptier_test_box_has(&stage.box, i))
            continue;
        if (i % 2) {
            const ptier_report report = {.key = text, .outcome = PTIER_REPORT_FAILED};
            assert_int_equal(ptier_cache_report(stage.box.cache, &report, 1,
                                                PTIER_DURABILITY_LOGGED, NULL, &written, &error),
                             PTIER_OK);
        } else {
            assert_int_equal(ptier_cache_delete(stage.box.cache, keys, 1, PTIER_DURABILITY_LOGGED,
                                                NULL, &written, &error),
                             PTIER_OK);
        }
        if (logs && written.durability < PTIER_DURABILITY_LOGGED)
            fail_msg("%s: removal %d is not durable", ptier_fault_doing(), i);
        ptier_load_note_removal(&stage.load, i, written.durability);
    }
}

static void
live_with_a_full_disk(int tiers)
{
    begin(tiers, "full disk");
    mount_small_disk();
    ptier_test_box_open(&stage.box);
    ptier_stage_run(&stage, CALLS, 1);
    fill_disk();
    stage.load.refused = stage.load.weak = true;
    ptier_tier_await_degraded(&stage.watch, &stage.box, tiers);
    ptier_stage_run(&stage, CALLS, 2);
    ptier_stage_check_reads(&stage, "full");
    remove_some(tiers & BOX_L2);
    ptier_stage_check_reads(&stage, "full, after removals");
    ptier_stage_check_kill(&stage, PTIER_DURABILITY_LOGGED, "killed while the disk was full");
    ptier_stage_run(&stage, CALLS, 3);
    assert_int_equal(unlink(ptier_stage_path(&stage, "ballast")), 0);
    ptier_stage_check_healed(&stage);
    stage.load.refused = stage.load.weak = false;
    ptier_stage_run(&stage, CALLS, 4);
    ptier_stage_check_healed(&stage);
    end();
}

static void
a_full_disk_is_lived_with_and_healed_with_all_tiers(void **state)
{
    (void)state;
    live_with_a_full_disk(BOX_ALL);
}

static void
a_full_disk_is_lived_with_and_healed_without_l3(void **state)
{
    (void)state;
    live_with_a_full_disk(BOX_L1 | BOX_L2);
}

static void
a_full_disk_is_lived_with_and_healed_without_l2(void **state)
{
    (void)state;
    live_with_a_full_disk(BOX_L1 | BOX_L3);
}

static atomic_int probes[PTIER_TIER_COUNT]; /* in vain */

static void
count_probes(void *context, ptier_log_level level, const char *event, const char *text)
{
    (void)context;
    (void)level;
    (void)text;
    atomic_fetch_add(&probes[PTIER_TIER_L2], strcmp(event, "l2_probe") == 0);
    atomic_fetch_add(&probes[PTIER_TIER_L3], strcmp(event, "l3_probe") == 0);
}

/* A little room, which a probe finds, and which the next group of changes would fill. */
static void
a_little_room_brings_no_tier_back(void **state)
{
    off_t size;
    (void)state;
    begin(BOX_ALL, "a little room");
    mount_small_disk();
    stage.box.options.on_log = count_probes;
    ptier_test_box_open(&stage.box);
    ptier_stage_run(&stage, CALLS, 1);
    fill_disk();
    stage.load.refused = stage.load.weak = true;
    ptier_tier_await_degraded(&stage.watch, &stage.box, BOX_ALL);
    int fd = fill_up(&size);
    assert_int_equal(ftruncate(fd, size - SPARE), 0);
    close(fd);
    for (ptier_tier_id id = PTIER_TIER_L2; id <= PTIER_TIER_L3; id++) {
        int before = atomic_load(&probes[id]);
        BOX_AWAIT(atomic_load(&probes[id]) >= before + 3);
        assert_int_equal(atomic_load(&stage.watch.recovered[id]), 0);
    }
    assert_int_equal(unlink(ptier_stage_path(&stage, "ballast")), 0);
    ptier_stage_check_healed(&stage);
    end();
}

/* What the last run gave back when it ended goes to others before the next one begins. */
static void
start_on_a_full_disk(int tiers, bool degraded)
{
    off_t size;
    begin(tiers, "start on a full disk");
    mount_small_disk();
    ptier_test_box_open(&stage.box);
    ptier_stage_run(&stage, CALLS, 1);
    if (degraded) {
        fill_disk();
        stage.load.refused = stage.load.weak = true;
        ptier_tier_await_degraded(&stage.watch, &stage.box, tiers);
    }
    ptier_test_box_close(&stage.box);
    close(fill_up(&size));
    ptier_test_box_open(&stage.box);
    assert_true(!degraded || ptier_tier_degraded(&stage.box, PTIER_TIER_L2));
    ptier_stage_check_reads(&stage, "started on a full disk");
    stage.load.refused = stage.load.weak = true;
    ptier_stage_run(&stage, CALLS, 3);
    ptier_stage_check_reads(&stage, "written to on a full disk");
    assert_int_equal(unlink(ptier_stage_path(&stage, "ballast")), 0);
    ptier_stage_check_healed(&stage);
    end();
}

static void
a_start_on_a_full_disk_serves_and_heals(void **state)
{
    const int sets[] = {BOX_ALL, BOX_L1 | BOX_L2, BOX_L1 | BOX_L3};
    (void)state;
    for (int i = 0; i < 3; i++)
        start_on_a_full_disk(sets[i], false);
}

static void
a_start_on_a_disk_that_was_full_before_serves_and_heals(void **state)
{
    (void)state;
    start_on_a_full_disk(BOX_ALL, true);
}

/* True: it came up. */
static bool
start_with_room(int kilobytes)
{
    char size[64];
    ptier_error error = {0};
    ptier_start_report report;
    begin(BOX_ALL, "first start on a small disk");
    (void)snprintf(size, sizeof size, "size=%dk,mode=0700", kilobytes);
    mount_disk(size);
    stage.box.hooks.l2_removal_reserve = 1 << 20;
    ptier_status status =
        ptier_cache_open_with(&stage.box.options, &stage.box.hooks, &stage.box.cache, &error);
    if (status == PTIER_OK) {
        end();
        return true;
    }
    stage.box.cache = NULL;
    if (status != PTIER_RESOURCE_EXHAUSTED || !strstr(error.message, stage.box.directory) ||
        !strstr(error.message, "make room"))
        fail_msg("with %d KB: %s", kilobytes, error.message);
    assert_int_equal(mount(NULL, stage.box.directory, NULL, MS_REMOUNT, "size=8m"), 0);
    ptier_test_box_open(&stage.box);
    ptier_cache_start_report(stage.box.cache, &report);
    if (report.changes_lost || report.damaged)
        fail_msg("after a start with %d KB: %s", kilobytes, report.text);
    end();
    return false;
}

/* However far it came. */
static void
a_first_start_without_room_leaves_nothing_to_lose(void **state)
{
    int kilobytes = 4;
    (void)state;
    while (!start_with_room(kilobytes))
        kilobytes += kilobytes < 100 || kilobytes > 1000 ? 4 : 100;
    assert_in_range(kilobytes, 1024, 2048);
}

/* ---- read-only ---- */

/* The kernel does not make a file system read-only that has files open for writing; disks that fail
 * do. */
static void
live_with_a_read_only_disk(int tiers)
{
    const ptier_io_fault fault = {
        .kinds = PTIER_IO_CHANGE, .pattern = "*", .nth = 1, .lasting = true, .error = EROFS};
    begin(tiers, "read-only disk");
    ptier_test_box_open(&stage.box);
    ptier_stage_run(&stage, CALLS, 1);
    stage.load.refused = stage.load.weak = true;
    ptier_io_fail(&fault);
    ptier_tier_await_degraded(&stage.watch, &stage.box, tiers);
    ptier_stage_run(&stage, CALLS, 2);
    ptier_stage_check_reads(&stage, "read-only");
    ptier_stage_check_kill(&stage, PTIER_DURABILITY_LOGGED, "killed while it was read-only");
    ptier_io_heal();
    ptier_stage_check_healed(&stage);
    end();
}

static void
a_disk_that_becomes_read_only_is_lived_with_and_healed_with_all_tiers(void **state)
{
    (void)state;
    live_with_a_read_only_disk(BOX_ALL);
}

static void
a_disk_that_becomes_read_only_is_lived_with_and_healed_without_l3(void **state)
{
    (void)state;
    live_with_a_read_only_disk(BOX_L1 | BOX_L2);
}

static void
a_disk_that_becomes_read_only_is_lived_with_and_healed_without_l2(void **state)
{
    (void)state;
    live_with_a_read_only_disk(BOX_L1 | BOX_L3);
}

static void
a_read_only_directory_is_not_opened_and_said_to_be(void **state)
{
    (void)state;
    begin(BOX_ALL, "read-only directory");
    mount_small_disk();
    ptier_test_box_open(&stage.box);
    ptier_stage_run(&stage, CALLS, 1);
    ptier_test_box_close(&stage.box);
    assert_int_equal(mount(NULL, stage.box.directory, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    ptier_error error = {0};
    assert_int_equal(
        ptier_cache_open_with(&stage.box.options, &stage.box.hooks, &stage.box.cache, &error),
        PTIER_PERMISSION_DENIED);
    stage.box.cache = NULL;
    assert_true(ptier_load_is_reason(&error));
    assert_int_equal(mount(NULL, stage.box.directory, NULL, MS_REMOUNT, NULL), 0);
    ptier_test_box_open(&stage.box);
    ptier_stage_check_reads(&stage, "reopened");
    end();
}

#define CASE(name) cmocka_unit_test_teardown(name, tear_down)

int
main(void)
{
    ptier_fault_begin();
    const struct CMUnitTest tests[] = {
        CASE(a_full_disk_is_lived_with_and_healed_with_all_tiers),
        CASE(a_full_disk_is_lived_with_and_healed_without_l3),
        CASE(a_full_disk_is_lived_with_and_healed_without_l2),
        CASE(a_little_room_brings_no_tier_back),
        CASE(a_start_on_a_full_disk_serves_and_heals),
        CASE(a_start_on_a_disk_that_was_full_before_serves_and_heals),
        CASE(a_first_start_without_room_leaves_nothing_to_lose),
        CASE(a_disk_that_becomes_read_only_is_lived_with_and_healed_with_all_tiers),
        CASE(a_disk_that_becomes_read_only_is_lived_with_and_healed_without_l3),
        CASE(a_disk_that_becomes_read_only_is_lived_with_and_healed_without_l2),
        CASE(a_read_only_directory_is_not_opened_and_said_to_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
