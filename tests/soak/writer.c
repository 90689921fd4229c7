#include "soak/writer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <proxytier/status.h>

#include "support/sample_entry.h"

enum { BATCH = 20, CALL_MS = 10000 };

void
ptier_soak_writer_init(ptier_soak_writer *writer, int number, uint64_t seed)
{
    memset(writer, 0, sizeof *writer);
    writer->number = number;
    writer->seed = seed * 1000 + (uint64_t)number + 1;
    for (int i = 0; i < PTIER_SOAK_KEYS; i++)
        writer->keys[i].count = 1;
}

void
ptier_soak_writer_fini(ptier_soak_writer *writer)
{
    free(writer->revisions);
}

PTIER_PRINTF(2, 3)
static bool
wrong(ptier_soak_writer *w, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(w->wrong, sizeof w->wrong, format, arguments);
    va_end(arguments);
    return false;
}

/* A call failed: that is the end, and right only if the daemon is dead. */
static bool
ended(ptier_soak_writer *w, const char *call, ptier_status status, const ptier_error *error)
{
    if (atomic_load(w->killed))
        return false;
    return wrong(w, "%s: %s: %s", call, ptier_status_text(status), error->message);
}

/* `floor`: the highest of the calls before. Within a call the order is not that of the records. */
static bool
note_revision(ptier_soak_writer *w, uint64_t revision, uint64_t floor)
{
    if (revision <= floor)
        return wrong(w, "revision %llu after %llu", (unsigned long long)revision,
                     (unsigned long long)floor);
    w->highest = revision > w->highest ? revision : w->highest;
    if (w->revision_count == w->revision_room) {
        size_t room = w->revision_room ? 2 * w->revision_room : 1024;
        uint64_t *grown = realloc(w->revisions, room * sizeof *grown);
        if (!grown)
            return wrong(w, "no memory");
        w->revisions = grown;
        w->revision_room = room;
    }
    w->revisions[w->revision_count++] = revision;
    return true;
}

/* Some keys, each once. */
static int
choose(ptier_soak_writer *w, int keys[BATCH])
{
    int count = 1 + (int)ptier_test_random(&w->seed, BATCH);
    int first = (int)ptier_test_random(&w->seed, PTIER_SOAK_KEYS);
    for (int i = 0; i < count; i++)
        keys[i] = (first + i) % PTIER_SOAK_KEYS;
    return count;
}

/* ---- puts ---- */

static bool
take_put_results(ptier_soak_writer *w, const int *keys, int count, uint32_t version,
                 const ptier_put_results *results)
{
    uint64_t floor = w->highest;
    if (results->durability < PTIER_DURABILITY_LOGGED)
        return wrong(w, "a put reached only %s", ptier_durability_name(results->durability));
    if (results->count != (size_t)count)
        return wrong(w, "%zu results of %d puts", results->count, count);
    for (int i = 0; i < count; i++) {
        ptier_soak_key *key = &w->keys[keys[i]];
        const ptier_soak_state *old = ptier_soak_acknowledged(key);
        ptier_put_outcome expected = old->version ? PTIER_PUT_UPDATED : PTIER_PUT_CREATED;
        if (results->items[i].outcome != expected && !key->fleeting)
            return wrong(w, "key %d: put says %s, expected %s", keys[i],
                         ptier_put_outcome_name(results->items[i].outcome),
                         ptier_put_outcome_name(expected));
        if (!note_revision(w, results->items[i].revision, floor))
            return false;
        ptier_soak_settle(key, (ptier_soak_state){.version = version, .failures = old->failures});
    }
    w->counts.puts += (uint64_t)count;
    return true;
}

static bool
put_some(ptier_soak_writer *w)
{
    int keys[BATCH], count = choose(w, keys);
    uint32_t version = ++w->version;
    ptier_record records[BATCH];
    ptier_soak_text texts[BATCH];
    ptier_put_results results;
    ptier_error error;
    const ptier_put_call call = {.durability = ptier_test_random(&w->seed, 20)
                                                   ? PTIER_DURABILITY_DEFAULT
                                                   : PTIER_DURABILITY_SYNCED};
    for (int i = 0; i < count; i++) {
        ptier_soak_key *key = &w->keys[keys[i]];
        ptier_soak_record(&records[i], &texts[i], w->number, keys[i], version);
        ptier_soak_announce(key,
                            (ptier_soak_state){.version = version,
                                               .failures = ptier_soak_acknowledged(key)->failures});
    }
    ptier_status status =
        count == 1 ? ptier_put(w->client, records, &call, &results, &error)
                   : ptier_put_many(w->client, records, (size_t)count, &call, &results, &error);
    if (status)
        return ended(w, "put", status, &error);
    bool right = take_put_results(w, keys, count, version, &results);
    ptier_put_results_free(&results);
    return right;
}

/* It replaces what is there and is gone a moment later: also after a restart. */
static bool
put_fleeting(ptier_soak_writer *w)
{
    int number = (int)ptier_test_random(&w->seed, PTIER_SOAK_KEYS);
    ptier_soak_key *key = &w->keys[number];
    ptier_record record;
    ptier_soak_text text;
    ptier_put_results results;
    ptier_error error;
    if (ptier_soak_acknowledged(key)->failures)
        return true; /* a put within the moment would inherit them */
    ptier_soak_record(&record, &text, w->number, number, ++w->version);
    record.ttl_ms = 1;
    ptier_soak_announce(key, (ptier_soak_state){0});
    ptier_status status = ptier_put(w->client, &record, NULL, &results, &error);
    if (status)
        return ended(w, "put", status, &error);
    bool right = note_revision(w, results.items[0].revision, w->highest);
    ptier_put_results_free(&results);
    ptier_soak_settle(key, (ptier_soak_state){0});
    key->fleeting = true;
    w->counts.puts++;
    return right;
}

/* ---- deletes and reports ---- */

static bool
delete_some(ptier_soak_writer *w)
{
    int keys[BATCH], count = choose(w, keys);
    char texts[BATCH][24];
    const char *names[BATCH];
    size_t there = 0, fleeting = 0;
    ptier_delete_result result;
    ptier_error error;
    for (int i = 0; i < count; i++) {
        ptier_soak_key *key = &w->keys[keys[i]];
        ptier_soak_key_text(texts[i], w->number, keys[i]);
        names[i] = texts[i];
        there += ptier_soak_acknowledged(key)->version != 0;
        fleeting += key->fleeting;
        ptier_soak_announce(key, (ptier_soak_state){0});
    }
    ptier_status status = ptier_delete(w->client, names, (size_t)count, NULL, &result, &error);
    if (status)
        return ended(w, "delete", status, &error);
    if (result.deleted < there || result.deleted > there + fleeting)
        return wrong(w, "deleted %zu keys of %zu", result.deleted, there);
    for (int i = 0; i < count; i++)
        ptier_soak_settle(&w->keys[keys[i]], (ptier_soak_state){0});
    w->counts.deletes += result.deleted;
    return true;
}

static bool
take_report(ptier_soak_writer *w, int number, ptier_soak_state before, ptier_soak_state after,
            const ptier_report_result *result)
{
    bool removed = before.version && !after.version;
    if (result->found != (before.version != 0) || result->removed != removed ||
        (result->found && !removed && result->failure_count != after.failures))
        return wrong(w, "key %d: report says found %d removed %d failures %u, expected %d %d %u",
                     number, result->found, result->removed, result->failure_count,
                     before.version != 0, removed, after.failures);
    w->counts.removals += removed;
    w->counts.reports++;
    return true;
}

/* Up to three reports on one key, enough for the threshold, in one call. */
static bool
report_key(ptier_soak_writer *w)
{
    int number = (int)ptier_test_random(&w->seed, PTIER_SOAK_KEYS);
    ptier_soak_key *key = &w->keys[number];
    size_t count = 1 + ptier_test_random(&w->seed, PTIER_SOAK_THRESHOLD);
    char text[24];
    ptier_report reports[PTIER_SOAK_THRESHOLD];
    ptier_report_results results;
    ptier_soak_state states[PTIER_SOAK_STATES] = {*ptier_soak_acknowledged(key)};
    ptier_error error;
    bool right = true, succeeds = ptier_test_random(&w->seed, 4) == 0;
    if (key->fleeting)
        return true; /* whether it is found is a matter of luck */
    ptier_soak_key_text(text, w->number, number);
    for (size_t i = 0; i < count; i++) {
        reports[i] = (ptier_report){.key = text,
                                    .outcome = succeeds ? PTIER_REPORT_OK : PTIER_REPORT_FAILED,
                                    .latency_ms = 10};
        states[i + 1] = succeeds ? ptier_soak_succeeded(states[i]) : ptier_soak_failed(states[i]);
        ptier_soak_announce(key, states[i + 1]);
    }
    ptier_status status = ptier_report_health(w->client, reports, count, NULL, &results, &error);
    if (status)
        return ended(w, "report", status, &error);
    for (size_t i = 0; right && i < count; i++)
        right = take_report(w, number, states[i], states[i + 1], &results.items[i]);
    ptier_report_results_free(&results);
    ptier_soak_settle(key, states[count]);
    return right;
}

/* ---- reads ---- */

static bool
read_own(ptier_soak_writer *w)
{
    int number = (int)ptier_test_random(&w->seed, PTIER_SOAK_KEYS);
    const ptier_soak_key *key = &w->keys[number];
    const ptier_soak_state *expected = ptier_soak_acknowledged(key);
    ptier_soak_state seen = {0};
    char text[24];
    ptier_records found;
    ptier_error error;
    ptier_soak_key_text(text, w->number, number);
    ptier_status status = ptier_get(w->client, text, &found, &error);
    if (status && status != PTIER_NOT_FOUND)
        return ended(w, "get", status, &error);
    bool right = status || ptier_soak_read(&found.records[0], w->number, number, &seen);
    if (!status)
        ptier_records_free(&found);
    if (key->fleeting ||
        (right && seen.version == expected->version && seen.failures == expected->failures))
        return true;
    return wrong(w, "key %d: read version %u, failures %u; written %u, %u", number, seen.version,
                 seen.failures, expected->version, expected->failures);
}

static bool
clear_l1(ptier_soak_writer *w)
{
    ptier_error error;
    if (!w->clears_l1)
        return true;
    ptier_status status = ptier_clear(w->client, PTIER_TIER_L1, NULL, NULL, &error);
    return status ? ended(w, "clear", status, &error) : true;
}

/* ---- the thread ---- */

static bool
step(ptier_soak_writer *w)
{
    uint64_t what = ptier_test_random(&w->seed, 100);
    if (what < 40)
        return put_some(w);
    if (what < 45)
        return put_fleeting(w);
    if (what < 60)
        return delete_some(w);
    if (what < 80)
        return report_key(w);
    return what < 99 ? read_own(w) : clear_l1(w);
}

static void *
work(void *context)
{
    while (step(context))
        continue;
    return NULL;
}

bool
ptier_soak_writer_start(ptier_soak_writer *writer, const char *url, const _Atomic bool *killed)
{
    ptier_client_options options;
    ptier_client_options_init(&options);
    options.url = url;
    options.timeout_ms = CALL_MS;
    options.retries = 0; /* a retry would be a change of the next round */
    writer->killed = killed;
    writer->revision_count = 0;
    if (ptier_client_open(&options, &writer->client, NULL))
        return false;
    if (pthread_create(&writer->thread, NULL, work, writer) == 0)
        return true;
    ptier_client_close(writer->client);
    return false;
}

void
ptier_soak_writer_join(ptier_soak_writer *writer)
{
    pthread_join(writer->thread, NULL);
    ptier_client_close(writer->client);
}
