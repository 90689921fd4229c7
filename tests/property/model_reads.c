#include "property/model_ops_internal.h"

#include <proxytier/import.h>
#include <string.h>

/* ---- reads ---- */

static void
note_read(ptier_model_run *run, int key)
{
    ptier_model_entry *e = &run->model.entries[key];
    int64_t now = ptier_model_now(run).wall_ms;
    e->accesses++;
    e->last_access_ms = now > e->last_access_ms ? now : e->last_access_ms;
}

/* `before` is the key's state when the read began, its read counted. */
static void
check_read(ptier_model_run *run, const ptier_model_entry *before, int key, const ptier_entry *entry)
{
    if (entry)
        ptier_model_compare(run, before, key, entry);
    else
        PTIER_MODEL_CHECK(run, !ptier_model_live(before, ptier_model_now(run)) || run->touched[key],
                          "key %d is missing, revision %llu", key,
                          (unsigned long long)before->revision);
}

static void check_export(ptier_model_run *run, const ptier_entry *entry);

void
ptier_model_get_one(ptier_model_run *run, int key)
{
    char text[72];
    ptier_entry *entry = NULL;
    ptier_tier_id tier;
    ptier_model_key_text(key, text);
    ptier_model_begin(run, "get of key %d", key);
    run->reads++;
    ptier_status status = ptier_cache_get(run->cache, text, &entry, &tier);
    PTIER_MODEL_CHECK(run, status == PTIER_OK || status == PTIER_NOT_FOUND, "key %d: %s", key,
                      ptier_status_text(status));
    PTIER_MODEL_CHECK(run, status ? tier == PTIER_TIER_NONE : run->tiers & 1 << (tier - 1),
                      "key %d: found in %s", key, ptier_tier_name(tier));
    if (entry)
        note_read(run, key);
    const ptier_model_entry before = run->model.entries[key];
    ptier_model_finish(run);
    check_read(run, &before, key, entry);
    if (entry && ptier_model_one_in(run, 50))
        check_export(run, entry);
    ptier_entry_release(entry);
}

void
ptier_model_get_several(ptier_model_run *run)
{
    char texts[PTIER_MODEL_BATCH][72];
    const char *keys[PTIER_MODEL_BATCH];
    int numbers[PTIER_MODEL_BATCH];
    ptier_model_entry before[PTIER_MODEL_BATCH];
    ptier_entry *entries[PTIER_MODEL_BATCH];
    size_t count = 1 + ptier_model_below(run, PTIER_MODEL_BATCH), found = 0;
    ptier_model_begin(run, "get of %zu", count);
    for (size_t i = 0; i < count; i++) {
        numbers[i] = ptier_model_any_key(run);
        ptier_model_key_text(numbers[i], texts[i]);
        keys[i] = texts[i];
    }
    size_t said = ptier_cache_get_many(run->cache, keys, count, entries, NULL);
    run->reads += count;
    for (size_t i = 0; i < count; i++)
        if (entries[i])
            note_read(run, numbers[i]);
    for (size_t i = 0; i < count; i++)
        before[i] = run->model.entries[numbers[i]];
    ptier_model_finish(run);
    for (size_t i = 0; i < count; i++) {
        check_read(run, &before[i], numbers[i], entries[i]);
        found += entries[i] != NULL;
        ptier_entry_release(entries[i]);
    }
    PTIER_MODEL_CHECK(run, said == found, "%zu found, %zu said", found, said);
}

void
ptier_model_read_all(ptier_model_run *run)
{
    for (int i = 0; i < PTIER_MODEL_KEYS; i++)
        ptier_model_get_one(run, i);
}

typedef struct reread {
    const ptier_model_run *run;
    const ptier_record *expected;
    int records;
} reread;

static bool
same(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool
check_reread(void *context, const ptier_import_record *item)
{
    reread *r = context;
    const ptier_record *a = &item->record, *b = r->expected;
    r->records++;
    PTIER_MODEL_CHECK(
        r->run,
        item->restore && same(a->key, b->key) && same(a->url, b->url) &&
            same(a->username, b->username) && same(a->password, b->password) &&
            same(a->source, b->source) && a->fetch_time_ms == b->fetch_time_ms &&
            a->ttl_ms == b->ttl_ms && a->expires_at_ms == b->expires_at_ms &&
            a->health == b->health && a->failure_count == b->failure_count &&
            a->label_count == b->label_count && a->access_count == b->access_count &&
            a->last_access_ms == b->last_access_ms && a->success_count == b->success_count &&
            a->report_count == b->report_count && a->needs_revalidation == b->needs_revalidation,
        "an export line reads back as something else");
    return true;
}

static void
check_export(ptier_model_run *run, const ptier_entry *entry)
{
    static char line[PTIER_EXPORT_LINE_MAX];
    ptier_record record;
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_import_options options;
    ptier_import_summary summary;
    ptier_error error = {0};
    reread r = {.run = run, .expected = &record};
    ptier_cache_read(run->cache, entry, &record, labels);
    size_t length = ptier_cache_export_line(run->cache, entry, true, line, sizeof line);
    ptier_import_options_init(&options);
    options.format = PTIER_IMPORT_JSONL;
    options.on_record = check_reread;
    options.context = &r;
    ptier_model_check_ok(run, ptier_import_memory(line, length, NULL, &options, &summary, &error),
                         &error);
    PTIER_MODEL_CHECK(run, r.records == 1, "an export line is %d records", r.records);
}

/* ---- pick and list ---- */

typedef struct selection {
    ptier_filter filter;
    ptier_label label;
    uint32_t source, country;
    bool pick, excluded[PTIER_MODEL_KEYS];
} selection;

static void
any_selection(ptier_model_run *run, selection *s)
{
    memset(s, 0, sizeof *s);
    if (ptier_model_one_in(run, 3)) {
        s->source = 1 + (uint32_t)ptier_model_below(run, PTIER_MODEL_SOURCES);
        s->filter.source = ptier_model_source_text(s->source);
    }
    if (ptier_model_one_in(run, 4))
        s->filter.scheme = ptier_model_one_in(run, 2) ? "http" : "socks5";
    if (ptier_model_one_in(run, 4)) {
        s->country = 1 + (uint32_t)ptier_model_below(run, 3);
        s->label = (ptier_label){"country", ptier_model_country(s->country)};
        s->filter.labels = &s->label;
        s->filter.label_count = 1;
    }
    if (ptier_model_one_in(run, 4))
        s->filter.health = 1 + (ptier_health)ptier_model_below(run, 5);
}

static bool
selected(const selection *s, const ptier_model_entry *e, int key, ptier_model_time now)
{
    if (!ptier_model_live(e, now) || s->excluded[key])
        return false;
    if (s->source && e->source != s->source)
        return false;
    if (s->filter.scheme && strcmp(s->filter.scheme, ptier_model_scheme(key, e->address)) != 0)
        return false;
    if (s->country && e->labels[0] != s->country)
        return false;
    if (s->filter.health)
        return e->health == s->filter.health;
    return !s->pick || (e->health != PTIER_HEALTH_UNHEALTHY && e->health != PTIER_HEALTH_DEAD);
}

/* Each of them matches, in the state it had, and comes once. Releases them. */
static void
check_selected(ptier_model_run *run, const selection *s, const ptier_model *before,
               ptier_entry **entries, size_t count, bool seen[PTIER_MODEL_KEYS])
{
    for (size_t i = 0; i < count; i++) {
        int key = ptier_model_find_key(ptier_entry_key(entries[i]));
        PTIER_MODEL_CHECK(run, key >= 0, "%s was never put", ptier_entry_key(entries[i]));
        PTIER_MODEL_CHECK(run, !seen[key], "key %d comes twice", key);
        seen[key] = true;
        ptier_model_compare(run, &before->entries[key], key, entries[i]);
        PTIER_MODEL_CHECK(run, selected(s, &before->entries[key], key, ptier_model_now(run)),
                          "key %d does not match", key);
        ptier_entry_release(entries[i]);
    }
}

static size_t
count_selected(const ptier_model_run *run, const selection *s)
{
    size_t count = 0;
    for (int i = 0; i < PTIER_MODEL_KEYS; i++)
        count += selected(s, &run->model.entries[i], i, ptier_model_now(run));
    return count;
}

void
ptier_model_pick(ptier_model_run *run)
{
    static ptier_model before;
    char texts[PTIER_MODEL_BATCH][72];
    const char *exclude[PTIER_MODEL_BATCH];
    ptier_entry *entries[PTIER_MODEL_KEYS];
    bool seen[PTIER_MODEL_KEYS] = {false};
    selection s;
    size_t excluded = ptier_model_below(run, PTIER_MODEL_BATCH);
    size_t wanted = 1 + ptier_model_below(run, ptier_model_one_in(run, 5) ? PTIER_MODEL_KEYS : 8);
    any_selection(run, &s);
    s.pick = true;
    for (size_t i = 0; i < excluded; i++) {
        int key = ptier_model_any_key(run);
        s.excluded[key] = true;
        ptier_model_key_text(key, texts[i]);
        exclude[i] = texts[i];
    }
    ptier_model_begin(run, "pick of %zu", wanted);
    before = run->model;
    size_t most = count_selected(run, &s);
    size_t count = ptier_cache_pick(run->cache, wanted, &s.filter, exclude, excluded, entries);
    ptier_model_finish(run);
    size_t least = count_selected(run, &s);
    check_selected(run, &s, &before, entries, count, seen);
    PTIER_MODEL_CHECK(
        run, count <= (wanted < most ? wanted : most) && count >= (wanted < least ? wanted : least),
        "picked %zu of %zu to %zu", count, least, most);
}

void
ptier_model_list(ptier_model_run *run)
{
    static ptier_model before;
    ptier_entry *entries[32];
    bool seen[PTIER_MODEL_KEYS] = {false};
    selection s;
    uint64_t cursor = 0;
    size_t count, pages = 0, limit = 1 + ptier_model_below(run, 32);
    ptier_tier_id tier =
        ptier_model_one_in(run, 3) ? 1 + (ptier_tier_id)ptier_model_below(run, 3) : 0;
    ptier_error error = {0};
    any_selection(run, &s);
    if (tier && !(run->tiers & 1 << (tier - 1)))
        tier = PTIER_TIER_NONE;
    ptier_model_begin(run, "list of %s by %zu", ptier_tier_name(tier), limit);
    before = run->model;
    do {
        ptier_model_check_ok(
            run,
            ptier_cache_list(run->cache, &cursor, &s.filter, tier, limit, entries, &count, &error),
            &error);
        check_selected(run, &s, &before, entries, count, seen);
        PTIER_MODEL_CHECK(run, ++pages < 100000, "the list has no end");
    } while (cursor);
    ptier_model_finish(run);
    for (int i = 0; !tier && i < PTIER_MODEL_KEYS; i++)
        PTIER_MODEL_CHECK(run,
                          seen[i] || run->touched[i] ||
                              !selected(&s, &before.entries[i], i, ptier_model_now(run)),
                          "key %d is not listed", i);
}
