#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fault.h"
#include "load.h"
#include "support/io_shim.h"
#include "support/sample_entry.h"

enum { CLEAR_EVERY = 150 };

/* ---- history ---- */

static void
add_state(ptier_load *load, int key, const ptier_load_state *state)
{
    ptier_load_key *k = &load->keys[key];
    if (k->count == k->room) {
        k->room = k->room ? 2 * k->room : 8;
        k->states = realloc(k->states, k->room * sizeof *k->states);
        if (!k->states)
            abort();
    }
    k->states[k->count++] = *state;
}

static void
begin_history(ptier_load *load, int key, int version)
{
    const ptier_load_state state = {.version = version, .durability = PTIER_DURABILITY_SYNCED};
    load->keys[key].count = 0;
    add_state(load, key, &state);
}

void
ptier_load_init(ptier_load *load, ptier_test_box *box)
{
    memset(load, 0, sizeof *load);
    load->box = box;
    pthread_rwlock_init(&load->clearing, NULL);
    pthread_mutex_init(&load->lock, NULL);
    for (int i = 0; i < LOAD_KEYS; i++)
        begin_history(load, i, 0);
}

void
ptier_load_fini(ptier_load *load)
{
    for (int i = 0; i < LOAD_KEYS; i++)
        free(load->keys[i].states);
    free(load->revisions);
    pthread_rwlock_destroy(&load->clearing);
    pthread_mutex_destroy(&load->lock);
}

const ptier_load_state *
ptier_load_now(const ptier_load *load, int key)
{
    return &load->keys[key].states[load->keys[key].count - 1];
}

static void
complain(ptier_load *load, const char *text, int key)
{
    pthread_mutex_lock(&load->lock);
    if (!load->complaint[0])
        (void)snprintf(load->complaint, sizeof load->complaint, "key %d: %s", key, text);
    pthread_mutex_unlock(&load->lock);
}

static void
note_revision(ptier_load *load)
{
    uint64_t revision = ptier_cache_revision(load->box->cache);
    pthread_mutex_lock(&load->lock);
    uint64_t before = load->revision_count ? load->revisions[load->revision_count - 1].revision : 0;
    if (load->revision_count == load->revision_room) {
        load->revision_room = load->revision_room ? 2 * load->revision_room : 256;
        load->revisions = realloc(load->revisions, load->revision_room * sizeof *load->revisions);
        if (!load->revisions)
            abort();
    }
    load->revisions[load->revision_count++] =
        (struct ptier_load_revision){ptier_io_position(), revision > before ? revision : before};
    pthread_mutex_unlock(&load->lock);
}

bool
ptier_load_is_reason(const ptier_error *error)
{
    size_t length = strlen(error->message);
    return length > 0 && length < sizeof error->message && !strpbrk(error->message, "\n\r") &&
           error->status != PTIER_OK;
}

/* ---- the load ---- */

typedef struct worker {
    ptier_load *load;
    int first, step, calls; /* keys first, first + step, ... are its own */
    uint64_t seed;
} worker;

static int
any_key(worker *w)
{
    return w->first + w->step * (int)ptier_test_random(&w->seed, LOAD_KEYS / (uint64_t)w->step);
}

static ptier_durability
any_durability(worker *w)
{
    static const ptier_durability choice[] = {PTIER_DURABILITY_DEFAULT, PTIER_DURABILITY_MEMORY,
                                              PTIER_DURABILITY_LOGGED, PTIER_DURABILITY_SYNCED,
                                              PTIER_DURABILITY_SYNCED};
    return choice[ptier_test_random(&w->seed, sizeof choice / sizeof *choice)];
}

/* A call came back: what it was told is noted, also that it was told nothing. */
static void
note(worker *w, int key, ptier_load_state state, ptier_durability wanted, ptier_status status,
     const ptier_error *error)
{
    state.ended = status ? SIZE_MAX : ptier_io_position();
    if (status)
        state.durability = PTIER_DURABILITY_DEFAULT;
    if (status && (!w->load->refused || !ptier_load_is_reason(error)))
        complain(w->load, error->message, key);
    if (wanted == PTIER_DURABILITY_DEFAULT)
        wanted = w->load->box->options.durability;
    if (!status && state.durability < (w->load->weak ? PTIER_DURABILITY_MEMORY : wanted))
        complain(w->load, "its change is less durable than asked for", key);
    add_state(w->load, key, &state);
}

typedef struct put_texts {
    char key[16], url[40], password[40];
} put_texts;

static void
make_record(ptier_record *record, put_texts *texts, int key, int version)
{
    ptier_record_init(record);
    (void)snprintf(texts->key, sizeof texts->key, "p%d", key);
    (void)snprintf(texts->url, sizeof texts->url, "http://10.%d.%d.%d:80", version >> 16 & 255,
                   version >> 8 & 255, version & 255);
    (void)snprintf(texts->password, sizeof texts->password, "hush-%d-%d", key, version);
    record->key = texts->key;
    record->url = texts->url;
    record->username = "u";
    record->password = texts->password;
    record->source = "load";
}

static void
put_some(worker *w)
{
    ptier_record records[LOAD_BATCH];
    put_texts texts[LOAD_BATCH];
    ptier_put_result results[LOAD_BATCH];
    int keys[LOAD_BATCH] = {0}, versions[LOAD_BATCH] = {0}, first = any_key(w);
    int count = 1 + (int)ptier_test_random(&w->seed, LOAD_BATCH);
    const ptier_put_options options = {.durability = any_durability(w)};
    ptier_written written = {0};
    ptier_error error = {0};
    ptier_load_state state = {.began = ptier_io_position()};
    for (int i = 0; i < count; i++) {
        keys[i] = (first + i * w->step) % LOAD_KEYS;
        versions[i] = atomic_fetch_add(&w->load->version, 1) + 1;
        make_record(&records[i], &texts[i], keys[i], versions[i]);
    }
    ptier_status status = ptier_cache_put(w->load->box->cache, records, (size_t)count, &options,
                                          results, &written, &error);
    state.durability = written.durability;
    for (int i = 0; i < count; i++) {
        state.version = versions[i];
        state.revision = status ? 0 : results[i].revision;
        if (!status && results[i].outcome > PTIER_PUT_UPDATED) {
            ptier_error why = {.status = PTIER_UNAVAILABLE};
            (void)snprintf(why.message, sizeof why.message, "%s", results[i].message);
            note(w, keys[i], state, options.durability, PTIER_UNAVAILABLE, &why);
        } else {
            note(w, keys[i], state, options.durability, status, &error);
        }
    }
}

static void
delete_one(worker *w)
{
    char text[16];
    const char *keys[] = {text};
    int key = any_key(w);
    const ptier_durability wanted = any_durability(w);
    ptier_written written = {0};
    ptier_error error = {0};
    ptier_load_state state = {.began = ptier_io_position()};
    (void)snprintf(text, sizeof text, "p%d", key);
    ptier_status status =
        ptier_cache_delete(w->load->box->cache, keys, 1, wanted, NULL, &written, &error);
    state.durability = written.durability;
    note(w, key, state, wanted, status, &error);
}

/* The box's threshold may be anything: only a removal is noted. */
static void
report_one(worker *w)
{
    char text[16];
    int key = any_key(w);
    const ptier_durability wanted = any_durability(w);
    const ptier_report report = {.key = text, .outcome = PTIER_REPORT_FAILED, .error = "timed out"};
    ptier_report_result result = {0};
    ptier_written written = {0};
    ptier_error error = {0};
    ptier_load_state state = {.began = ptier_io_position()};
    (void)snprintf(text, sizeof text, "p%d", key);
    ptier_status status =
        ptier_cache_report(w->load->box->cache, &report, 1, wanted, &result, &written, &error);
    state.durability = written.durability;
    if (status || result.removed)
        note(w, key, state, wanted, status, &error);
}

/* The reply names no durability: without faults it is what was asked for. */
static void
clear_all(worker *w)
{
    ptier_error error = {0};
    ptier_load_state state = {.durability = PTIER_DURABILITY_SYNCED, .began = ptier_io_position()};
    pthread_rwlock_wrlock(&w->load->clearing);
    ptier_status status = ptier_cache_clear(w->load->box->cache, PTIER_TIER_NONE, state.durability,
                                            NULL, NULL, NULL, &error);
    if (w->load->weak)
        state.durability = PTIER_DURABILITY_MEMORY;
    for (int i = 0; i < LOAD_KEYS; i++)
        note(w, i, state, PTIER_DURABILITY_MEMORY, status, &error);
    pthread_rwlock_unlock(&w->load->clearing);
}

/* Every caller reads its own writes. */
static void
read_one(worker *w)
{
    int key = any_key(w);
    ptier_status status;
    char text[96];
    int version = ptier_load_read(w->load->box->cache, key, &status);
    if (version == -1 && w->load->blind)
        return;
    if (version >= 0 &&
        ptier_load_allows(w->load, key, version, PTIER_DURABILITY_MEMORY, LOAD_NOW, NULL))
        return;
    (void)snprintf(text, sizeof text, "is read as version %d (%s), was left with version %d",
                   version, ptier_status_text(status), ptier_load_now(w->load, key)->version);
    complain(w->load, text, key);
}

static void
one_call(worker *w)
{
    uint64_t dice = ptier_test_random(&w->seed, 100);
    if (w->load->clears && ptier_test_random(&w->seed, CLEAR_EVERY) == 0) {
        clear_all(w);
        return;
    }
    pthread_rwlock_rdlock(&w->load->clearing);
    if (dice < 55)
        put_some(w);
    else if (dice < 70)
        delete_one(w);
    else if (dice < 80)
        report_one(w);
    else
        read_one(w);
    pthread_rwlock_unlock(&w->load->clearing);
    note_revision(w->load);
}

static void *
work(void *context)
{
    worker *w = context;
    for (int i = 0; i < w->calls; i++)
        one_call(w);
    return NULL;
}

void
ptier_load_run(ptier_load *load, int threads, int calls, uint64_t seed)
{
    pthread_t ids[LOAD_THREADS];
    worker workers[LOAD_THREADS];
    assert_true(threads <= LOAD_THREADS);
    for (int i = 0; i < threads; i++) {
        workers[i] =
            (worker){load, i, threads, calls, (seed + 1) * 0x9e3779b97f4a7c15 + (uint64_t)i};
        assert_int_equal(pthread_create(&ids[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    if (load->complaint[0])
        fail_msg("%s: %s", ptier_fault_doing(), load->complaint);
}

void
ptier_load_note_removal(ptier_load *load, int key, ptier_durability durability)
{
    const ptier_load_state state = {.durability = durability, .ended = ptier_io_position()};
    add_state(load, key, &state);
}

/* ---- what is there ---- */

/* -2: not this key's. */
static int
version_of(const ptier_entry *entry, int key)
{
    int a, b, c, its_key, its_version;
    char text[16];
    (void)snprintf(text, sizeof text, "p%d", key);
    const char *password = ptier_entry_password(entry);
    if (strcmp(ptier_entry_key(entry), text) != 0 || !password ||
        sscanf(ptier_entry_url(entry), "http://10.%d.%d.%d:80", &a, &b, &c) != 3 ||
        sscanf(password, "hush-%d-%d", &its_key, &its_version) != 2)
        return -2;
    return its_key == key && its_version == (a << 16 | b << 8 | c) ? its_version : -2;
}

int
ptier_load_read(ptier_cache *cache, int key, ptier_status *status)
{
    char text[16];
    ptier_entry *entry;
    (void)snprintf(text, sizeof text, "p%d", key);
    *status = ptier_cache_get(cache, text, &entry, NULL);
    if (*status)
        return *status == PTIER_NOT_FOUND ? 0 : -1;
    int version = version_of(entry, key);
    ptier_entry_release(entry);
    return version;
}

bool
ptier_load_allows(const ptier_load *load, int key, int version, ptier_durability durability,
                  size_t cut, const ptier_load_state **floor)
{
    const ptier_load_key *k = &load->keys[key];
    size_t oldest = 0;
    for (size_t i = 1; i < k->count; i++)
        if (k->states[i].durability >= durability && k->states[i].ended <= cut)
            oldest = i;
    if (floor)
        *floor = &k->states[oldest];
    for (size_t i = oldest; i < k->count; i++)
        if (k->states[i].version == version && (i == oldest || k->states[i].began < cut))
            return true;
    return false;
}

bool
ptier_load_wrong(const ptier_load *load, ptier_cache *cache, ptier_durability durability,
                 size_t cut, char text[LOAD_TEXT])
{
    for (int i = 0; i < LOAD_KEYS; i++) {
        const ptier_load_state *floor;
        ptier_status status;
        int version = ptier_load_read(cache, i, &status);
        if (version >= 0 && ptier_load_allows(load, i, version, durability, cut, &floor))
            continue;
        if (version == -1)
            (void)snprintf(text, LOAD_TEXT, "key %d cannot be read: %s", i,
                           ptier_status_text(status));
        else if (version < -1)
            (void)snprintf(text, LOAD_TEXT, "key %d has a value that was never its own", i);
        else
            (void)snprintf(text, LOAD_TEXT,
                           "key %d has version %d, but version %d (revision %" PRIu64
                           ") was acknowledged with durability %d",
                           i, version, floor->version, floor->revision, floor->durability);
        return true;
    }
    return false;
}

void
ptier_load_check(const ptier_load *load, ptier_cache *cache, ptier_durability durability,
                 size_t cut, const char *when)
{
    char text[LOAD_TEXT];
    if (ptier_load_wrong(load, cache, durability, cut, text))
        fail_msg("%s, %s: %s", ptier_fault_doing(), when, text);
}

uint64_t
ptier_load_revision_at(const ptier_load *load, size_t cut)
{
    uint64_t highest = 0;
    for (size_t i = 0; i < load->revision_count; i++)
        if (load->revisions[i].ended <= cut && load->revisions[i].revision > highest)
            highest = load->revisions[i].revision;
    return highest;
}

bool
ptier_load_any(const ptier_load *load, ptier_durability durability, size_t cut)
{
    for (int i = 0; i < LOAD_KEYS; i++) {
        const ptier_load_key *k = &load->keys[i];
        if (k->states[0].version)
            return true;
        for (size_t j = 1; j < k->count; j++)
            if (k->states[j].version && k->states[j].durability >= durability &&
                k->states[j].ended <= cut)
                return true;
    }
    return false;
}

void
ptier_load_rebase(ptier_load *load, ptier_cache *cache, size_t cut)
{
    uint64_t highest = ptier_load_revision_at(load, cut);
    load->revision_count = 0;
    for (int i = 0; i < LOAD_KEYS; i++) {
        ptier_status status;
        int version = ptier_load_read(cache, i, &status);
        assert_true(version >= 0);
        begin_history(load, i, version);
    }
    note_revision(load);
    load->revisions[0] = (struct ptier_load_revision){
        0, highest > load->revisions[0].revision ? highest : load->revisions[0].revision};
}
