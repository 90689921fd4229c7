#include "property/damage_store.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "support/sample_entry.h"

enum { SHARD_BYTES = 8192, STEPS = 350, ALARM_S = 60 };

void
ptier_damage_key_text(int key, char text[16])
{
    (void)snprintf(text, 16, "d%d", key);
}

/* ---- records ---- */

typedef struct texts {
    char key[16], url[40], password[40];
} texts;

static const ptier_label label = {"country", "DE"};

static void
make_record(ptier_record *record, texts *t, int key, uint32_t version)
{
    ptier_damage_key_text(key, t->key);
    (void)snprintf(t->url, sizeof t->url, "http://10.%u.%u.%u:8080", version >> 16 & 255,
                   version >> 8 & 255, version & 255);
    (void)snprintf(t->password, sizeof t->password, "secret-%d-%u", key, version);
    ptier_record_init(record);
    record->key = t->key;
    record->url = t->url;
    record->username = "somebody";
    record->password = t->password;
    record->source = "damaged";
    record->labels = &label;
    record->label_count = 1;
}

static bool
same(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

/* Whether it is what was put under the key with the version that it shows. */
static bool
was_put(const ptier_damage_store *store, const ptier_record *r, int key, uint32_t *version)
{
    unsigned a, b, c;
    ptier_record put;
    texts t;
    if (sscanf(r->url, "http://10.%u.%u.%u:8080", &a, &b, &c) != 3)
        return false;
    *version = a << 16 | b << 8 | c;
    if (*version >= store->versions || store->owners[*version] != key)
        return false;
    make_record(&put, &t, key, *version);
    return same(r->key, put.key) && same(r->url, put.url) && same(r->username, put.username) &&
           same(r->password, put.password) && same(r->source, put.source) && r->label_count == 1 &&
           same(r->labels[0].name, label.name) && same(r->labels[0].value, label.value) &&
           r->ttl_ms == 0 && r->expires_at_ms == 0 && r->failure_count < 3 &&
           r->needs_revalidation == (r->failure_count > 0);
}

ptier_damage_verdict
ptier_damage_judge(const ptier_damage_store *store, ptier_cache *cache, int key,
                   ptier_status *status)
{
    const ptier_damage_key *known = &store->keys[key];
    char text[16];
    ptier_entry *entry;
    ptier_record r;
    ptier_label labels[PTIER_LABELS_MAX];
    uint32_t version = 0;
    ptier_damage_key_text(key, text);
    *status = ptier_cache_get(cache, text, &entry, NULL);
    if (*status)
        return known->exists ? PTIER_DAMAGE_MISSING : PTIER_DAMAGE_CURRENT;
    ptier_cache_read(cache, entry, &r, labels);
    ptier_damage_verdict verdict = PTIER_DAMAGE_WRONG;
    if (!was_put(store, &r, key, &version) || r.revision > known->revision)
        verdict = PTIER_DAMAGE_WRONG;
    else if (!known->exists || r.revision < known->revision)
        verdict = PTIER_DAMAGE_OLDER;
    else if (version == known->version && r.failure_count == known->failures)
        verdict = PTIER_DAMAGE_CURRENT;
    ptier_entry_release(entry);
    return verdict;
}

void
ptier_damage_adopt(ptier_damage_store *store, ptier_cache *cache, int key)
{
    ptier_damage_key *known = &store->keys[key];
    char text[16];
    ptier_entry *entry;
    ptier_record r;
    ptier_label labels[PTIER_LABELS_MAX];
    uint32_t version = 0;
    ptier_damage_key_text(key, text);
    *known = (ptier_damage_key){.revision = UINT64_MAX};
    if (ptier_cache_get(cache, text, &entry, NULL))
        return;
    ptier_cache_read(cache, entry, &r, labels);
    if (was_put(store, &r, key, &version))
        *known = (ptier_damage_key){.exists = true,
                                    .revision = r.revision,
                                    .version = version,
                                    .failures = r.failure_count};
    ptier_entry_release(entry);
}

static bool
l2_mended(const ptier_cache *cache)
{
    ptier_l2_found found;
    char path[PTIER_TEST_PATH + 32];
    ptier_l2_found_at_open(cache->tiers[PTIER_TIER_L2], &found);
    if (!found.damaged || found.unverified)
        return true;
    /* The oldest go first, so nothing that was found is left when the last of them is gone. */
    (void)snprintf(path, sizeof path, "%s/l2/shard_%08u.jsonl", cache->data_dir, found.last_shard);
    return access(path, F_OK) != 0;
}

/* A close would write what waits, and may find damage by that; and it cuts a rebuild short. */
static bool
l3_mended(ptier_cache *cache)
{
    ptier_statistics statistics;
    ptier_cache_statistics(cache, &statistics);
    pthread_mutex_lock(&cache->lock);
    bool down = cache->health[PTIER_TIER_L3].down;
    pthread_mutex_unlock(&cache->lock);
    return !down &&
           statistics.writeback_queue + statistics.usage_queue + statistics.l3_queue == 0 &&
           ptier_l3_condition_of(cache->tiers[PTIER_TIER_L3]) == PTIER_L3_SOUND;
}

bool
ptier_damage_mended(ptier_cache *cache)
{
    return (!cache->tiers[PTIER_TIER_L2] || l2_mended(cache)) &&
           (!cache->tiers[PTIER_TIER_L3] || l3_mended(cache));
}

/* ---- writing a store ---- */

/* Everything is acknowledged before the next thing is done, so what is told is what must be there.
 */
static void
learn(void *context, const ptier_change *change)
{
    ptier_damage_store *store = context;
    ptier_record r;
    store->highest = change->revision;
    if (!change->entry) {
        for (int i = 0; i < PTIER_DAMAGE_KEYS; i++)
            store->keys[i] = (ptier_damage_key){.revision = change->revision};
        return;
    }
    ptier_entry_view(change->entry, 0, &r, NULL);
    ptier_damage_key *key = &store->keys[atoi(r.key + 1)];
    *key = (ptier_damage_key){.exists = change->type != PTIER_EVENT_REMOVED,
                              .revision = change->revision,
                              .version = key->version,
                              .failures = r.failure_count};
    if (change->type == PTIER_EVENT_CREATED || change->type == PTIER_EVENT_UPDATED)
        key->version = store->versions; /* the one that is being put */
}

static void
set_options(const ptier_damage_store *store, const char *directory, ptier_cache_options *options)
{
    ptier_cache_options_init(options);
    options->data_dir = directory;
    options->l1_enabled = store->tiers & 1;
    options->l2_enabled = store->tiers & 2;
    options->l3_enabled = store->tiers & 4;
    options->l1_entries = 20;
    options->l2_entries = store->tiers & 4 ? 60 : 0;
    options->default_ttl_ms = 0;
}

static ptier_status
open_with(const ptier_cache_options *options, ptier_cache **cache, ptier_error *error)
{
    static const ptier_cache_hooks hooks = {.l2_shard_bytes = SHARD_BYTES};
    return ptier_cache_open_with(options, &hooks, cache, error);
}

/* What the caches of this process logged, for a test that fails. */
static char log_text[1 << 16];

static void
keep_log(void *context, ptier_log_level level, const char *event, const char *message)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    (void)context;
    (void)level;
    pthread_mutex_lock(&lock);
    size_t length = strlen(log_text);
    (void)snprintf(log_text + length, sizeof log_text - length, "    %s: %s\n", event,
                   message); /* cut is fine */
    pthread_mutex_unlock(&lock);
}

const char *
ptier_damage_log(void)
{
    return log_text;
}

ptier_status
ptier_damage_open(const ptier_damage_store *store, const char *directory, ptier_cache **cache,
                  ptier_error *error)
{
    ptier_cache_options options;
    set_options(store, directory, &options);
    options.on_log = keep_log;
    return open_with(&options, cache, error);
}

bool
ptier_damage_put(ptier_damage_store *store, ptier_cache *cache, int key, ptier_put_result *result,
                 ptier_durability *reached)
{
    ptier_record record;
    texts t;
    ptier_written written = {0};
    if (store->versions == PTIER_DAMAGE_VERSIONS)
        return false;
    make_record(&record, &t, key, store->versions);
    store->owners[store->versions] = key;
    ptier_status status = ptier_cache_put(cache, &record, 1, NULL, result, &written, NULL);
    store->versions++;
    *reached = written.durability;
    return status == PTIER_OK && result->outcome <= PTIER_PUT_UPDATED;
}

static bool
remove_or_report(ptier_damage_store *store, ptier_cache *cache, int key)
{
    char text[16];
    const char *name = text;
    const ptier_report failed = {.key = text, .outcome = PTIER_REPORT_FAILED};
    ptier_damage_key_text(key, text);
    if (ptier_test_random(&store->random, 2))
        return ptier_cache_delete(cache, &name, 1, 0, NULL, NULL, NULL) == PTIER_OK;
    return ptier_cache_report(cache, &failed, 1, 0, NULL, NULL, NULL) == PTIER_OK;
}

static bool
use_store(ptier_damage_store *store, ptier_cache *cache, bool clears)
{
    for (int i = 0; i < STEPS; i++) {
        int key = (int)ptier_test_random(&store->random, PTIER_DAMAGE_KEYS);
        uint64_t what = ptier_test_random(&store->random, 10);
        ptier_put_result result;
        ptier_durability reached = PTIER_DURABILITY_LOGGED;
        ptier_status status;
        bool right = true;
        if (clears && i == STEPS / 3)
            right = !ptier_cache_clear(cache, PTIER_TIER_NONE, 0, NULL, NULL, NULL, NULL);
        else if (what < 6)
            right = ptier_damage_put(store, cache, key, &result, &reached);
        else if (what < 9)
            right = remove_or_report(store, cache, key);
        else
            right = ptier_damage_judge(store, cache, key, &status) == PTIER_DAMAGE_CURRENT;
        if (!right || reached < PTIER_DURABILITY_LOGGED)
            return false;
    }
    return true;
}

__attribute__((noreturn)) static void
write_half(ptier_damage_store *store, bool clears, bool kill_self)
{
    ptier_cache_options options;
    ptier_cache *cache;
    ptier_error error;
    (void)alarm(ALARM_S);
    set_options(store, store->directory, &options);
    options.on_change = learn;
    options.change_context = store;
    if (open_with(&options, &cache, &error) || !use_store(store, cache, clears))
        _exit(1);
    ptier_cache_store_id(cache, store->store_id);
    if (kill_self)
        (void)raise(SIGKILL);
    ptier_cache_close(cache);
    _exit(0);
}

static bool
run_half(ptier_damage_store *store, bool clears, bool kill_self)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        write_half(store, clears, kill_self);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return false;
    return kill_self ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
                     : WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool
ptier_damage_store_make(ptier_damage_store *store, int tiers, bool killed, uint64_t seed)
{
    store->tiers = tiers;
    store->killed = killed;
    store->versions = 1;
    store->random = seed;
    ptier_test_dir_make(store->directory);
    ptier_test_dir_make(store->older);
    if (!run_half(store, true, false))
        return false;
    ptier_test_dir_copy(store->directory, store->older);
    return run_half(store, killed, killed);
}

void
ptier_damage_store_remove(ptier_damage_store *store)
{
    ptier_test_dir_remove(store->directory);
    ptier_test_dir_remove(store->older);
}
