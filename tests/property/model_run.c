#include "property/model_run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hash.h"
#include "support/sample_entry.h"

enum { SHARD_BYTES = 16384, HASHES = 40, INDEXING_ROWS_MAX = 20, INDEXING_PAUSE_MAX_US = 2000 };

void
ptier_model_die(const ptier_model_run *run, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr,
                  "model: tiers %d, bounds %llu/%llu/%llu, seed %llu, process %u, operation %llu "
                  "(%s): ",
                  run->tiers, (unsigned long long)run->bounds[1],
                  (unsigned long long)run->bounds[2], (unsigned long long)run->bounds[3],
                  (unsigned long long)run->seed, run->epoch, (unsigned long long)run->operations,
                  run->doing);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    _exit(1);
}

ptier_tier_id
ptier_model_lowest(const ptier_model_run *run)
{
    return run->tiers & 4 ? PTIER_TIER_L3 : run->tiers & 2 ? PTIER_TIER_L2 : PTIER_TIER_L1;
}

/* ---- the feed ---- */

static void
tell(void *context, const ptier_change *change)
{
    ptier_model_run *run = context;
    uint64_t at = atomic_load(&run->told);
    ptier_model_change *c = &run->feed[at % PTIER_MODEL_FEED];
    *c = (ptier_model_change){.type = change->type,
                              .reason = change->reason,
                              .revision = change->revision,
                              .epoch = run->epoch};
    if (change->entry) {
        (void)snprintf(c->key, sizeof c->key, "%s", ptier_entry_key(change->entry));
        c->entry = ptier_entry_retain(change->entry);
    }
    atomic_store(&run->told, at + 1);
}

static void
note_eviction(ptier_model_run *run, int key)
{
    run->touched_count += !run->touched[key];
    run->touched[key] = true;
}

static void
remove_entry(ptier_model_run *run, int key, const ptier_model_change *c)
{
    ptier_model_entry *e = &run->model.entries[key];
    e->exists = e->may_return = false;
    e->removed_at = c->revision;
    run->removals[c->reason]++;
    if (c->reason == PTIER_REASON_HEALTH) {
        e->quarantined_until_boot_ms = ptier_model_now(run).boot_ms + PTIER_MODEL_QUARANTINE_MS;
        e->quarantine_unsure = false;
    }
}

/* The content of a change is what the model has. An entry of a process that is gone cannot be
 * looked at. */
static void
check_content(const ptier_model_run *run, const ptier_model_change *c, int key,
              const ptier_model_entry *expected)
{
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    if (!c->entry || c->epoch != run->epoch)
        return;
    ptier_cache_read(run->cache, c->entry, &record, labels);
    ptier_model_time now = ptier_model_now(run);
    if (ptier_model_expired(expected, now)) /* no time to live left is 0, not less */
        now.boot_ms = expected->expires_boot_ms;
    const char *field = ptier_model_difference(expected, key, &record, now);
    PTIER_MODEL_CHECK(run, !field, "%s of key %d in revision %llu differs in %s",
                      ptier_event_type_name(c->type), key, (unsigned long long)c->revision, field);
}

/* Expiry and eviction come when the cache sees fit. */
static bool
take_own_removal(ptier_model_run *run, const ptier_model_change *c, int key)
{
    ptier_model_entry *e = &run->model.entries[key];
    uint64_t least, most, bound = run->bounds[ptier_model_lowest(run)];
    if (c->type != PTIER_EVENT_REMOVED ||
        (c->reason != PTIER_REASON_TTL && c->reason != PTIER_REASON_CAPACITY))
        return false;
    PTIER_MODEL_CHECK(run, e->exists || e->may_return, "key %d was removed (%s) but is not there",
                      key, ptier_reason_name(c->reason));
    check_content(run, c, key, e);
    ptier_model_count(run, &least, &most);
    if (c->reason == PTIER_REASON_TTL) {
        /* Told by the process before, it was at another time. */
        PTIER_MODEL_CHECK(run,
                          c->epoch != run->epoch || ptier_model_expired(e, ptier_model_now(run)),
                          "key %d was removed for its TTL, which has not ended", key);
    } else {
        PTIER_MODEL_CHECK(run, bound && most > bound,
                          "key %d was evicted, with %llu entries and a bound of %llu", key,
                          (unsigned long long)most, (unsigned long long)bound);
        note_eviction(run, key);
    }
    remove_entry(run, key, c);
    return true;
}

/* ---- predictions ---- */

typedef struct prediction {
    bool changes, found;
    ptier_event_type type;
    ptier_reason reason;
    ptier_put_outcome outcome;
    ptier_model_entry after;
} prediction;

static prediction
predict_put(const ptier_model_run *run, const ptier_model_intent *in)
{
    ptier_model_time now = ptier_model_now(run);
    ptier_model_entry e = run->model.entries[in->key];
    prediction p = {0};
    e.exists = ptier_model_live(&e, now); /* what has expired is removed before */
    if (e.quarantine_unsure)
        e.quarantined_until_boot_ms =
            in->put_result.outcome == PTIER_PUT_SKIPPED_QUARANTINED ? INT64_MAX : 0;
    p.outcome = ptier_model_predict_put(&e, &in->put, now, &p.after);
    p.changes = p.outcome <= PTIER_PUT_UPDATED;
    p.type = p.outcome == PTIER_PUT_CREATED ? PTIER_EVENT_CREATED : PTIER_EVENT_UPDATED;
    return p;
}

static prediction
predict(const ptier_model_run *run, const ptier_model_intent *in)
{
    const ptier_model_entry *e = &run->model.entries[in->key];
    prediction p = {.after = *e};
    if (in->kind == PTIER_MODEL_PUT)
        return predict_put(run, in);
    p.found = ptier_model_live(e, ptier_model_now(run));
    if (in->kind == PTIER_MODEL_DELETE) {
        p.changes = p.found;
        p.type = PTIER_EVENT_REMOVED;
        p.reason = PTIER_REASON_DELETED;
    } else if (p.found) {
        ptier_model_verdict v = ptier_model_predict_report(e, in->outcome, &p.after);
        p.changes = v != PTIER_MODEL_NOTHING;
        p.type = v == PTIER_MODEL_REMOVAL ? PTIER_EVENT_REMOVED : PTIER_EVENT_HEALTH;
        p.reason = v == PTIER_MODEL_REMOVAL ? PTIER_REASON_HEALTH : PTIER_REASON_NONE;
    }
    return p;
}

static void
check_answer(const ptier_model_run *run, const ptier_model_intent *in, const prediction *p,
             uint64_t revision)
{
    char key[72];
    const ptier_put_result *r = &in->put_result;
    const ptier_report_result *report = &in->report_result;
    bool removed = p->reason == PTIER_REASON_HEALTH;
    if (in->kind == PTIER_MODEL_PUT) {
        ptier_model_key_text(in->key, key);
        PTIER_MODEL_CHECK(run, r->outcome == p->outcome, "put of key %d: %s, expected %s (%s)",
                          in->key, ptier_put_outcome_name(r->outcome),
                          ptier_put_outcome_name(p->outcome), r->message);
        PTIER_MODEL_CHECK(run, r->revision == revision, "put of key %d: revision %llu, not %llu",
                          in->key, (unsigned long long)r->revision, (unsigned long long)revision);
        PTIER_MODEL_CHECK(run, in->put.invalid || strcmp(r->key, key) == 0,
                          "put of key %d says its key is %s", in->key, r->key);
    } else if (in->kind == PTIER_MODEL_REPORT) {
        PTIER_MODEL_CHECK(run, report->found == p->found && report->removed == removed,
                          "report on key %d: found %d removed %d", in->key, report->found,
                          report->removed);
        PTIER_MODEL_CHECK(
            run, !p->found || report->failure_count == p->after.failures, /* with removal */
            "report on key %d: %u failures, expected %u", in->key, report->failure_count,
            p->after.failures);
    }
}

/* An intent that the model says changes nothing; nothing was told of it. */
static void
finish_quiet(ptier_model_run *run, ptier_model_intent *in, const prediction *p)
{
    in->done = true;
    if (run->touched[in->key])
        return;
    check_answer(run, in, p, 0);
    if (in->kind == PTIER_MODEL_REPORT)
        run->model.entries[in->key] = p->after;
}

/* The next intent on this key that changes something. */
static ptier_model_intent *
next_intent(ptier_model_run *run, int key, prediction *p)
{
    for (int i = 0; i < run->intent_count; i++) {
        ptier_model_intent *in = &run->intents[i];
        if (in->key != key || in->done)
            continue;
        *p = predict(run, in);
        if (p->changes)
            return in;
        finish_quiet(run, in, p);
    }
    return NULL;
}

static void
take_intended(ptier_model_run *run, const ptier_model_change *c, int key, size_t *deleted)
{
    prediction p;
    ptier_model_entry *e = &run->model.entries[key];
    ptier_model_intent *in = next_intent(run, key, &p);
    PTIER_MODEL_CHECK(run, in, "%s %s of key %d, revision %llu: nobody asked for that",
                      ptier_event_type_name(c->type), ptier_reason_name(c->reason), key,
                      (unsigned long long)c->revision);
    PTIER_MODEL_CHECK(run, c->type == p.type && c->reason == p.reason,
                      "key %d: %s %s was told, expected %s %s", key, ptier_event_type_name(c->type),
                      ptier_reason_name(c->reason), ptier_event_type_name(p.type),
                      ptier_reason_name(p.reason));
    PTIER_MODEL_CHECK(run, c->type != PTIER_EVENT_CREATED || !e->exists,
                      "key %d was created, but its removal was not told", key);
    check_answer(run, in, &p, c->revision);
    in->done = true;
    if (c->type == PTIER_EVENT_REMOVED) {
        check_content(run, c, key, e);
        *deleted += c->reason == PTIER_REASON_DELETED;
        remove_entry(run, key, c);
        return;
    }
    p.after.revision = c->revision;
    check_content(run, c, key, &p.after);
    *e = p.after;
}

/* ---- settling ---- */

static void
take_clear(ptier_model_run *run, const ptier_model_change *c)
{
    PTIER_MODEL_CHECK(run, run->clearing, "the cache was cleared, but nobody asked for that");
    run->clearing = false;
    for (int i = 0; i < PTIER_MODEL_KEYS; i++) {
        run->model.entries[i].exists = run->model.entries[i].may_return = false;
        run->model.entries[i].removed_at = c->revision;
    }
}

static void
take_change(ptier_model_run *run, const ptier_model_change *c, size_t *deleted)
{
    PTIER_MODEL_CHECK(run, c->revision > run->revision, "revision %llu was told after %llu",
                      (unsigned long long)c->revision, (unsigned long long)run->revision);
    run->revision = c->revision;
    if (c->type == PTIER_EVENT_CLEARED) {
        take_clear(run, c);
        return;
    }
    int key = ptier_model_find_key(c->key);
    PTIER_MODEL_CHECK(run, key >= 0, "a change of the key %s, which was never put", c->key);
    if (!take_own_removal(run, c, key))
        take_intended(run, c, key, deleted);
}

static void
take_feed(ptier_model_run *run, size_t *deleted)
{
    uint64_t told = atomic_load(&run->told);
    PTIER_MODEL_CHECK(run, told - run->taken < PTIER_MODEL_FEED, "the test's feed is too small");
    for (; run->taken < told; run->taken++) {
        ptier_model_change *c = &run->feed[run->taken % PTIER_MODEL_FEED];
        take_change(run, c, deleted);
        if (c->epoch == run->epoch)
            ptier_entry_release(c->entry);
    }
}

void
ptier_model_begin(ptier_model_run *run, const char *format, ...)
{
    va_list arguments;
    size_t deleted = 0;
    run->intent_count = 0;
    take_feed(run, &deleted);
    memset(run->touched, 0, sizeof run->touched);
    run->touched_count = 0;
    run->operations++;
    va_start(arguments, format);
    (void)vsnprintf(run->doing, sizeof run->doing, format, arguments);
    va_end(arguments);
}

ptier_model_intent *
ptier_model_intend(ptier_model_run *run, int kind, int key)
{
    PTIER_MODEL_CHECK(run, run->intent_count < PTIER_MODEL_INTENTS, "too many intents");
    ptier_model_intent *in = &run->intents[run->intent_count++];
    memset(in, 0, sizeof *in);
    in->kind = kind;
    in->key = key;
    return in;
}

size_t
ptier_model_settle(ptier_model_run *run, size_t *at_most)
{
    size_t deleted = 0;
    take_feed(run, &deleted);
    *at_most = deleted;
    PTIER_MODEL_CHECK(run, !run->clearing, "the cache was cleared, but that was not told");
    for (int i = 0; i < run->intent_count; i++) {
        ptier_model_intent *in = &run->intents[i];
        if (in->done)
            continue;
        prediction p = predict(run, in);
        PTIER_MODEL_CHECK(run, !p.changes || run->touched[in->key],
                          "key %d: %s %s was not told (put outcome %s)", in->key,
                          ptier_event_type_name(p.type), ptier_reason_name(p.reason),
                          ptier_put_outcome_name(in->put_result.outcome));
        finish_quiet(run, in, &p);
    }
    return deleted;
}

void
ptier_model_compare(const ptier_model_run *run, const ptier_model_entry *before, int key,
                    const ptier_entry *entry)
{
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    PTIER_MODEL_CHECK(run, before->exists, "key %d is served, but it is not there", key);
    PTIER_MODEL_CHECK(run, !ptier_model_expired(before, ptier_model_now(run)),
                      "key %d, revision %llu is served, but it expired %lld ms ago", key,
                      (unsigned long long)before->revision,
                      (long long)(ptier_model_now(run).boot_ms - before->expires_boot_ms));
    ptier_cache_read(run->cache, entry, &record, labels);
    const char *field = ptier_model_difference(before, key, &record, ptier_model_now(run));
    PTIER_MODEL_CHECK(run, !field, "key %d is served with another %s: revision %llu, expected %llu",
                      key, field, (unsigned long long)record.revision,
                      (unsigned long long)before->revision);
    PTIER_MODEL_CHECK(run, !ptier_model_usage_ahead(before, &record),
                      "key %d, revision %llu: usage is ahead of what was done: %llu accesses of "
                      "%llu, %llu/%llu reports of %llu/%llu",
                      key, (unsigned long long)record.revision,
                      (unsigned long long)record.access_count, (unsigned long long)before->accesses,
                      (unsigned long long)record.success_count,
                      (unsigned long long)record.report_count,
                      (unsigned long long)before->successes, (unsigned long long)before->reports);
}

void
ptier_model_count(const ptier_model_run *run, uint64_t *at_least, uint64_t *at_most)
{
    *at_least = *at_most = 0;
    for (int i = 0; i < PTIER_MODEL_KEYS; i++) {
        *at_least += run->model.entries[i].exists;
        *at_most += run->model.entries[i].exists || run->model.entries[i].may_return;
    }
}

/* ---- opening ---- */

static uint64_t
few_hashes(const char *key)
{
    return UINT64_C(0xabcdef0123456700) + ptier_hash_key(key) % HASHES;
}

static void
set_options(ptier_model_run *run, ptier_cache_options *options, ptier_cache_hooks *hooks)
{
    static const ptier_source_ttl fast = {.source = "fast", .ttl_ms = PTIER_MODEL_FAST_TTL_MS};
    ptier_cache_options_init(options);
    options->data_dir = run->directory;
    options->l1_enabled = run->tiers & 1;
    options->l2_enabled = run->tiers & 2;
    options->l3_enabled = run->tiers & 4;
    options->l1_entries = run->bounds[PTIER_TIER_L1];
    options->l2_entries = run->bounds[PTIER_TIER_L2];
    options->l3_entries = run->bounds[PTIER_TIER_L3];
    options->default_ttl_ms = PTIER_MODEL_DEFAULT_TTL_MS;
    options->source_ttls = &fast;
    options->source_ttl_count = 1;
    options->failure_threshold = PTIER_MODEL_THRESHOLD;
    options->health_quarantine_ms = PTIER_MODEL_QUARANTINE_MS;
    options->on_change = tell;
    options->change_context = run;
    *hooks = (ptier_cache_hooks){.clock = &run->clock.clock, .l2_shard_bytes = SHARD_BYTES};
    if (run->colliding)
        hooks->hash_key = few_hashes;
    if (run->quick) {
        hooks->quick_start_rows = 1;
        hooks->quick_start_always = true;
        hooks->indexing_rows = 1 + ptier_test_random(&run->random, INDEXING_ROWS_MAX);
        hooks->indexing_pause_us = (int64_t)ptier_test_random(&run->random, INDEXING_PAUSE_MAX_US);
    }
}

/* Memory forgets: a cache without a disk tier begins anew. */
static void
forget_everything(ptier_model_run *run)
{
    memset(&run->model, 0, sizeof run->model);
    run->revision = run->certain = 0;
    run->taken = atomic_load(&run->told);
}

static void
check_identity(ptier_model_run *run)
{
    uint8_t id[PTIER_ID_BYTES];
    bool keeps = run->tiers != 1;
    /* A kill and a reboot look like a crash of the machine: then changes may be lost. */
    bool open_question = run->machine_crashed && keeps;
    ptier_cache_store_id(run->cache, id);
    ptier_start_report report;
    ptier_cache_start_report(run->cache, &report);
    if (run->opened_before && !open_question)
        PTIER_MODEL_CHECK(run, keeps == (memcmp(id, run->store_id, sizeof id) == 0),
                          "the store_id %s: \"%s\"", keeps ? "changed" : "stayed", report.text);
    run->machine_crashed = false;
    memcpy(run->store_id, id, sizeof id);
    PTIER_MODEL_CHECK(run, ptier_cache_revision(run->cache) >= run->revision,
                      "the cache is at revision %llu, %llu had been told",
                      (unsigned long long)ptier_cache_revision(run->cache),
                      (unsigned long long)run->revision);
}

/*
 * What the cache removed by itself and nobody waited for may be there again after a kill; and
 * of quarantine the last moments are lost.
 */
static void
resolve_after_kill(ptier_model_run *run)
{
    for (int i = 0; i < PTIER_MODEL_KEYS; i++) {
        ptier_model_entry *e = &run->model.entries[i];
        ptier_entry *entry;
        char key[72];
        e->quarantine_unsure |= e->quarantined_until_boot_ms || e->quarantine_lifted;
        if (e->exists || e->removed_at <= run->certain)
            continue;
        e->may_return = true;
        ptier_model_key_text(i, key);
        run->reads++;
        if (ptier_cache_get(run->cache, key, &entry, NULL))
            continue; /* gone, or expired and not yet removed again */
        e->exists = true;
        e->may_return = false;
        e->accesses++;
        if (ptier_model_now(run).wall_ms > e->last_access_ms)
            e->last_access_ms = ptier_model_now(run).wall_ms;
        ptier_model_compare(run, e, i, entry);
        ptier_entry_release(entry);
    }
}

void
ptier_model_open(ptier_model_run *run)
{
    ptier_cache_options options;
    ptier_cache_hooks hooks;
    ptier_error error = {0};
    bool was_killed = run->ending_by_kill;
    size_t deleted = 0;
    set_options(run, &options, &hooks);
    run->epoch++;
    run->reads = 0;
    run->intent_count = 0;
    run->ending_by_kill = false;
    (void)snprintf(run->doing, sizeof run->doing, "open after %s",
                   !run->opened_before ? "nothing"
                   : was_killed        ? "a kill"
                                       : "a close");
    if (run->tiers == 1)
        forget_everything(run);
    take_feed(run, &deleted); /* what the last process was told and did not take in */
    ptier_status status = ptier_cache_open_with(&options, &hooks, &run->cache, &error);
    PTIER_MODEL_CHECK(run, !status, "%s", error.message);
    run->quick_starts += run->cache->indexing_started;
    check_identity(run);
    if (was_killed && run->tiers != 1)
        resolve_after_kill(run);
    for (int i = 0; !was_killed && i < PTIER_MODEL_KEYS; i++)
        run->model.entries[i].quarantine_lifted = false;
    run->opened_before = true;
}
