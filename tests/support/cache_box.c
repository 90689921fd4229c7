#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/cache_box.h"

static void
record_change(void *context, const ptier_change *change)
{
    ptier_test_box *box = context;
    pthread_mutex_lock(&box->lock);
    if (box->change_count == box->change_room) {
        box->change_room = box->change_room ? 2 * box->change_room : 1024;
        box->changes = realloc(box->changes, box->change_room * sizeof *box->changes);
        if (!box->changes)
            abort();
    }
    ptier_test_change *c = &box->changes[box->change_count++];
    *c = (ptier_test_change){
        .type = change->type, .reason = change->reason, .revision = change->revision};
    if (change->entry) {
        c->of = change->entry->revision;
        (void)snprintf(c->key, sizeof c->key, "%s", ptier_entry_key(change->entry));
    }
    pthread_mutex_unlock(&box->lock);
}

void
ptier_test_box_init(ptier_test_box *box, int tiers)
{
    memset(box, 0, sizeof *box);
    ptier_test_dir_make(box->directory);
    ptier_test_clock_init(&box->clock);
    pthread_mutex_init(&box->lock, NULL);
    ptier_cache_options_init(&box->options);
    box->options.data_dir = box->directory;
    box->options.l1_enabled = tiers & BOX_L1;
    box->options.l2_enabled = tiers & BOX_L2;
    box->options.l3_enabled = tiers & BOX_L3;
    box->options.on_change = record_change;
    box->options.change_context = box;
    box->hooks.clock = &box->clock.clock;
}

void
ptier_test_box_open(ptier_test_box *box)
{
    if (ptier_cache_open_with(&box->options, &box->hooks, &box->cache, &box->error))
        fail_msg("%s", box->error.message);
}

void
ptier_test_box_close(ptier_test_box *box)
{
    ptier_cache_close(box->cache);
    box->cache = NULL;
}

void
ptier_test_box_reopen(ptier_test_box *box)
{
    ptier_test_box_close(box);
    ptier_test_box_open(box);
}

void
ptier_test_box_fini(ptier_test_box *box)
{
    ptier_test_box_close(box);
    ptier_test_dir_remove(box->directory);
    free(box->changes);
    pthread_mutex_destroy(&box->lock);
}

void
ptier_test_box_record(ptier_record *record, int number, char key[16], char url[40])
{
    ptier_record_init(record);
    (void)snprintf(key, 16, "p%d", number);
    (void)snprintf(url, 40, "http://10.%d.%d.%d:8080", number >> 16 & 255, number >> 8 & 255,
                   number & 255);
    record->key = key;
    record->url = url;
}

ptier_put_result
ptier_test_box_put_record(ptier_test_box *box, const ptier_record *record,
                          const ptier_put_options *options)
{
    ptier_put_result result;
    if (ptier_cache_put(box->cache, record, 1, options, &result, NULL, &box->error))
        fail_msg("%s", box->error.message);
    return result;
}

uint64_t
ptier_test_box_put(ptier_test_box *box, int number)
{
    ptier_record record;
    char key[16], url[40];
    ptier_test_box_record(&record, number, key, url);
    ptier_put_result result = ptier_test_box_put_record(box, &record, NULL);
    if (result.outcome > PTIER_PUT_UPDATED)
        fail_msg("%s: %s", key, result.message);
    return result.revision;
}

ptier_tier_id
ptier_test_box_where(ptier_test_box *box, int number)
{
    char key[16];
    ptier_entry *entry;
    ptier_tier_id tier;
    (void)snprintf(key, sizeof key, "p%d", number);
    ptier_status status = ptier_cache_get(box->cache, key, &entry, &tier);
    if (status == PTIER_OK) {
        assert_string_equal(ptier_entry_key(entry), key);
        ptier_entry_release(entry);
    } else {
        assert_int_equal(status, PTIER_NOT_FOUND);
        assert_int_equal(tier, PTIER_TIER_NONE);
    }
    return tier;
}

bool
ptier_test_box_has(ptier_test_box *box, int number)
{
    return ptier_test_box_where(box, number) != PTIER_TIER_NONE;
}

bool
ptier_test_box_delete(ptier_test_box *box, int number)
{
    char key[16];
    const char *keys[] = {key};
    size_t deleted;
    (void)snprintf(key, sizeof key, "p%d", number);
    if (ptier_cache_delete(box->cache, keys, 1, PTIER_DURABILITY_DEFAULT, &deleted, NULL,
                           &box->error))
        fail_msg("%s", box->error.message);
    return deleted == 1;
}

ptier_report_result
ptier_test_box_report(ptier_test_box *box, const char *key, ptier_outcome outcome, double latency)
{
    const ptier_report report = {.key = key, .outcome = outcome, .latency_ms = latency};
    ptier_report_result result;
    if (ptier_cache_report(box->cache, &report, 1, PTIER_DURABILITY_DEFAULT, &result, NULL,
                           &box->error))
        fail_msg("%s", box->error.message);
    return result;
}

ptier_statistics
ptier_test_box_statistics(ptier_test_box *box)
{
    ptier_statistics statistics;
    ptier_cache_statistics(box->cache, &statistics);
    return statistics;
}

uint64_t
ptier_test_box_entries(ptier_test_box *box)
{
    return ptier_test_box_statistics(box).entries;
}

void
ptier_test_box_advance(ptier_test_box *box, int64_t ms)
{
    ptier_test_clock_advance(&box->clock, ms);
    int64_t deadline = ptier_test_now() + 20000;
    do
        while (ptier_expire(box->cache)) {
        }
    while (ptier_test_box_statistics(box).expired_undrained && ptier_test_now() < deadline);
}

size_t
ptier_test_box_changes(ptier_test_box *box, ptier_event_type type, ptier_reason reason,
                       const char *key)
{
    size_t count = 0;
    pthread_mutex_lock(&box->lock);
    for (size_t i = 0; i < box->change_count; i++) {
        const ptier_test_change *c = &box->changes[i];
        count += (!type || c->type == type) && (!reason || c->reason == reason) &&
                 (!key || strcmp(c->key, key) == 0);
    }
    pthread_mutex_unlock(&box->lock);
    return count;
}

void
ptier_test_box_damage(const ptier_test_box *box, const char *name, const char *text)
{
    char path[PTIER_TEST_PATH + 40];
    size_t length;
    (void)snprintf(path, sizeof path, "%s/%s", box->directory, name);
    char *data = ptier_test_file_read(path, &length);
    char *at = memmem(data, length, text, strlen(text));
    assert_non_null(at);
    at[strlen(text) - 1] ^= 1;
    ptier_test_file_write(path, data, length);
    free(data);
}
