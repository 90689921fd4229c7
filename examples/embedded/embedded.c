/*
 * The cache within a program, without a daemon: all three tiers in one directory, which no other
 * process can have open meanwhile. Argument: the directory (or none: in memory only). Run it twice:
 * what was put is still there.
 */
#include <proxytier/cache.h>

#include <inttypes.h>
#include <stdio.h>

/* Inside the critical section of a change: nothing but a note for later. */
static void
on_change(void *context, const ptier_change *change)
{
    uint64_t *removed = context;
    if (change->type == PTIER_EVENT_REMOVED)
        (*removed)++;
}

static ptier_status
put_some(ptier_cache *cache, ptier_put_result results[3], ptier_error *error)
{
    static const char *const urls[] = {"http://10.0.0.1:8080", "http://10.0.0.2:8080",
                                       "socks5://10.0.0.3:1080"};
    ptier_record records[3];
    for (int i = 0; i < 3; i++) {
        ptier_record_init(&records[i]);
        records[i].url = urls[i];
        records[i].source = "embedded";
    }
    return ptier_cache_put(cache, records, 3, NULL, results, NULL, error);
}

/* A proxy that fails as often as the threshold says is removed. */
static ptier_status
let_one_fail(ptier_cache *cache, const char *key, ptier_error *error)
{
    ptier_report report = {.key = key, .outcome = PTIER_REPORT_FAILED};
    ptier_report_result result = {.removed = false};
    ptier_status status = PTIER_OK;
    for (int i = 0; i < 3 && status == PTIER_OK; i++)
        status =
            ptier_cache_report(cache, &report, 1, PTIER_DURABILITY_DEFAULT, &result, NULL, error);
    return status;
}

static void
print_pick(ptier_cache *cache)
{
    ptier_entry *entries[8];
    size_t count = ptier_cache_pick(cache, 8, NULL, NULL, 0, entries);
    for (size_t i = 0; i < count; i++) {
        ptier_record record;
        ptier_cache_read(cache, entries[i], &record, NULL); /* a view: valid until the release */
        printf("%s, for another %" PRId64 " s\n", record.url, record.remaining_ttl_ms / 1000);
        ptier_entry_release(entries[i]);
    }
}

int
main(int argc, char **argv)
{
    ptier_cache_options options;
    ptier_put_result results[3];
    ptier_cache *cache;
    ptier_error error;
    uint64_t removed = 0;

    ptier_cache_options_init(&options);
    options.data_dir = argc > 1 ? argv[1] : NULL;
    options.on_change = on_change;
    options.change_context = &removed;
    if (ptier_cache_open(&options, &cache, &error) != PTIER_OK)
        return fprintf(stderr, "embedded: %s\n", error.message), 1;
    printf("%" PRIu64 " changes were made before\n", ptier_cache_revision(cache));
    ptier_status status = put_some(cache, results, &error);
    if (status == PTIER_OK)
        status = let_one_fail(cache, results[0].key, &error);
    if (status == PTIER_OK)
        print_pick(cache);
    else
        fprintf(stderr, "embedded: %s\n", error.message);
    ptier_status closed = ptier_cache_close(cache);
    printf("removed while it was open: %" PRIu64 "\n", removed);
    return status != PTIER_OK || closed != PTIER_OK;
}
