/* See warm.h. Records are gathered into batches: the importer lends its strings for one callback
 * only. */
#include "warm.h"

#include <stdlib.h>
#include <string.h>

#include <proxytier/import.h>

#include "arena.h"
#include "call.h"

#define BATCH        1000
#define BATCH_BYTES  ((size_t)16 * 1024 * 1024)
#define SKIPS_LOGGED 20 /* of one file; the rest is counted */

typedef struct warmer {
    ptier_cache *cache;
    ptier_log *log;
    const char *path;
    bool (*stop)(void *context);
    void *context;
    ptier_arena arena; /* the batch's strings */
    ptier_record records[BATCH];
    ptier_put_result results[BATCH];
    size_t count;
    bool restore; /* of the batch */
    ptier_status status;
    ptier_error *error;
    uint64_t outcomes[PTIER_PUT_REJECTED + 1];
    uint64_t skips_logged;
} warmer;

static ptier_status
flush(warmer *w)
{
    ptier_put_options options = {.mode = PTIER_PUT_MODE_WARM, .restore = w->restore};
    if (w->count == 0)
        return PTIER_OK;
    ptier_status status =
        ptier_cache_put(w->cache, w->records, w->count, &options, w->results, NULL, w->error);
    for (size_t i = 0; status == PTIER_OK && i < w->count; i++) {
        ptier_put_outcome outcome = w->results[i].outcome;
        if ((unsigned)outcome <= PTIER_PUT_REJECTED)
            w->outcomes[outcome]++;
        if (outcome == PTIER_PUT_REJECTED && w->skips_logged++ < SKIPS_LOGGED)
            ptier_log_write(w->log, PTIER_LOG_WARN, "warm_rejected", "%s: %s", w->path,
                            w->results[i].message);
    }
    w->count = 0;
    ptier_arena_reset(&w->arena, BATCH_BYTES);
    if (status == PTIER_OK && w->stop && w->stop(w->context))
        status = ptier_fail(w->error, PTIER_CANCELLED, "loading %s was interrupted", w->path);
    return status;
}

/* A copy that lives as long as the batch. NULL stays NULL; *failed when there is no memory. */
static const char *
keep(warmer *w, const char *text, bool *failed)
{
    if (!text)
        return NULL;
    size_t size = strlen(text) + 1;
    char *copy = ptier_arena_alloc(&w->arena, size);
    if (!copy)
        *failed = true;
    else
        memcpy(copy, text, size);
    return copy;
}

static bool
keep_record(warmer *w, const ptier_record *in)
{
    bool failed = false;
    ptier_record *out = &w->records[w->count];
    *out = *in;
    out->key = keep(w, in->key, &failed);
    out->url = keep(w, in->url, &failed);
    out->username = keep(w, in->username, &failed);
    out->password = keep(w, in->password, &failed);
    out->username_token = keep(w, in->username_token, &failed);
    out->password_token = keep(w, in->password_token, &failed);
    out->source = keep(w, in->source, &failed);
    ptier_label *labels = ptier_arena_array(&w->arena, in->label_count, sizeof *labels);
    if (!labels)
        return false;
    for (size_t i = 0; i < in->label_count; i++) {
        labels[i].name = keep(w, in->labels[i].name, &failed);
        labels[i].value = keep(w, in->labels[i].value, &failed);
    }
    out->labels = labels;
    return !failed;
}

static bool
on_record(void *context, const ptier_import_record *record)
{
    warmer *w = context;
    if (w->count == BATCH || (w->count > 0 && w->restore != record->restore))
        w->status = flush(w);
    if (w->status != PTIER_OK)
        return false;
    w->restore = record->restore;
    if (!keep_record(w, &record->record)) {
        /* The batch's memory is used up by long records: once more, with an empty batch. */
        w->status = flush(w);
        if (w->status == PTIER_OK && !keep_record(w, &record->record))
            w->status = ptier_fail(w->error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
        if (w->status != PTIER_OK)
            return false;
    }
    w->count++;
    return true;
}

static void
on_skip(void *context, uint64_t line, const char *reason)
{
    warmer *w = context;
    if (w->skips_logged++ < SKIPS_LOGGED)
        ptier_log_write(w->log, PTIER_LOG_WARN, "warm_skipped", "%s:%llu: %s", w->path,
                        (unsigned long long)line, reason);
}

/* A file that failed is the caller's to tell; here is only what of it was loaded all the same. */
static void
log_result(const warmer *w, const ptier_import_summary *summary, ptier_status status,
           int64_t took_ms)
{
    if (status != PTIER_OK && summary->records == 0)
        return;
    ptier_log_write(
        w->log, PTIER_LOG_INFO, status == PTIER_OK ? "warm_done" : "warm_partial",
        "%s: %llu records in %lld ms: %llu created, %llu updated, %llu skipped as older, %llu as "
        "quarantined, %llu as expired, %llu rejected, %llu unreadable",
        w->path, (unsigned long long)summary->records, (long long)took_ms,
        (unsigned long long)w->outcomes[PTIER_PUT_CREATED],
        (unsigned long long)w->outcomes[PTIER_PUT_UPDATED],
        (unsigned long long)w->outcomes[PTIER_PUT_SKIPPED_OLDER],
        (unsigned long long)w->outcomes[PTIER_PUT_SKIPPED_QUARANTINED],
        (unsigned long long)w->outcomes[PTIER_PUT_SKIPPED_EXPIRED],
        (unsigned long long)w->outcomes[PTIER_PUT_REJECTED], (unsigned long long)summary->skipped);
}

static ptier_status
warm_input(ptier_cache *cache, const char *path, ptier_log *log, bool (*stop)(void *context),
           void *context, ptier_error *error)
{
    warmer *w = calloc(1, sizeof *w); /* too large for a stack */
    if (!w)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    w->cache = cache;
    w->log = log;
    w->path = path;
    w->stop = stop;
    w->context = context;
    w->error = error;
    ptier_arena_init(&w->arena);
    ptier_arena_reset(&w->arena, BATCH_BYTES);

    ptier_import_options options;
    ptier_import_summary summary = {0};
    ptier_import_options_init(&options);
    options.on_record = on_record;
    options.on_skip = on_skip;
    options.context = w;
    int64_t start = ptier_monotonic_ms();
    ptier_log_write(log, PTIER_LOG_INFO, "warm_start", "%s", path);
    ptier_error import_error = {0};
    ptier_status status = ptier_import_file(path, &options, &summary, &import_error);
    if (w->status != PTIER_OK)
        status = w->status; /* the import was ended by us: *error says why */
    else if (status != PTIER_OK)
        (void)ptier_fail(error, status, "%s", import_error.message); /* returned below */
    if (w->status == PTIER_OK) {
        ptier_status last = flush(w); /* what came before a broken end counts too */
        status = status == PTIER_OK ? last : status;
    }
    log_result(w, &summary, status, ptier_monotonic_ms() - start);
    ptier_arena_fini(&w->arena);
    free(w);
    return status;
}

ptier_status
ptier_warm_file(ptier_cache *cache, const char *path, ptier_log *log, bool (*stop)(void *context),
                void *context, ptier_error *error)
{
    ptier_import_inputs inputs = {0};
    ptier_status status = ptier_import_inputs_add(&inputs, path, error);
    for (size_t i = 0; status == PTIER_OK && i < inputs.count; i++)
        status = warm_input(cache, inputs.paths[i], log, stop, context, error);
    ptier_import_inputs_free(&inputs);
    return status;
}
