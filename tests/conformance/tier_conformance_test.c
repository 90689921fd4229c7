/*
 * The tier contract (tiers/tier.h), run over L1 with each of its policies, L2 and L3: one suite, so
 * that no tier means something else by it. What only disk tiers promise (restart, credentials at
 * rest) is skipped for L1 by the table at the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "crypto/keyring.h"
#include "l1/l1_memory.h"
#include "l2/l2_jsonl.h"
#include "l3/l3_sqlite.h"
#include "sealed.h"

enum { CAPACITY = 4 };

typedef struct fixture {
    ptier_tier_id id;
    ptier_eviction eviction; /* of L1 */
    char directory[64];
    ptier_keyring *keyring;
    ptier_clock clock;
    ptier_tier *tier;
} fixture;

/* Hashes that say something in a failure: the number in the key; keys that begin with c collide. */
static uint64_t
hash_key(const char *key)
{
    return *key == 'c' ? 7 : 10 + (uint64_t)atoi(key + 1);
}

/* ---- opening each of them ---- */

static void
open_tier(fixture *f)
{
    char path[96];
    ptier_error error = {0};
    ptier_status status = PTIER_OK;
    (void)snprintf(path, sizeof path, "%s/l3.sqlite", f->directory);
    if (f->id == PTIER_TIER_L1) {
        const ptier_l1_options options = {.capacity = CAPACITY, .eviction = f->eviction};
        status = ptier_l1_open(&options, &f->tier, &error);
    } else if (f->id == PTIER_TIER_L2) {
        const ptier_l2_options options = {.directory = f->directory,
                                          .capacity = CAPACITY,
                                          .shard_bytes = 4096,
                                          .keyring = f->keyring,
                                          .hash_key = hash_key,
                                          .clock = &f->clock};
        status = ptier_l2_open(&options, &f->tier, &error);
        if (!status)
            status = ptier_l2_replay(f->tier, UINT64_MAX, NULL, NULL, &error);
    } else {
        const ptier_l3_options options = {
            .path = path, .capacity = CAPACITY, .keyring = f->keyring, .clock = &f->clock};
        status = ptier_l3_open(&options, &f->tier, &error);
    }
    if (status)
        fail_msg("%s", error.message);
}

static void
reopen(fixture *f)
{
    f->tier->ops->close(f->tier);
    open_tier(f);
}

static int
set_up(void **state, ptier_tier_id id, ptier_eviction eviction)
{
    fixture *f = calloc(1, sizeof *f);
    char key[PTIER_KEY_TEXT + 1];
    const char *keys[] = {key};
    f->id = id;
    f->eviction = eviction;
    (void)snprintf(f->directory, sizeof f->directory, "/tmp/ptier-conformance-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    assert_int_equal(ptier_key_generate(key), PTIER_OK);
    assert_int_equal(ptier_keyring_create(keys, 1, &f->keyring, NULL), PTIER_OK);
    ptier_clock_system(&f->clock);
    open_tier(f);
    *state = f;
    return 0;
}

static int
set_up_l1(void **state)
{
    return set_up(state, PTIER_TIER_L1, PTIER_EVICTION_LRU);
}

static int
set_up_l1_lfu(void **state)
{
    return set_up(state, PTIER_TIER_L1, PTIER_EVICTION_LFU);
}

static int
set_up_l1_fifo(void **state)
{
    return set_up(state, PTIER_TIER_L1, PTIER_EVICTION_FIFO);
}

static int
set_up_l1_sieve(void **state)
{
    return set_up(state, PTIER_TIER_L1, PTIER_EVICTION_SIEVE);
}

static int
set_up_l2(void **state)
{
    return set_up(state, PTIER_TIER_L2, PTIER_EVICTION_LRU);
}

static int
set_up_l3(void **state)
{
    return set_up(state, PTIER_TIER_L3, PTIER_EVICTION_LRU);
}

static int
tear_down(void **state)
{
    fixture *f = *state;
    char command[128];
    f->tier->ops->close(f->tier);
    ptier_keyring_destroy(f->keyring);
    (void)snprintf(command, sizeof command, "rm -rf %s", f->directory);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* ---- saying things briefly ---- */

static const ptier_label labels[] = {{"anonymity", "elite"}, {"country", "DE \"quoted\" \\ ü"}};

/* An entry `key` with a value that differs by revision. Owned. */
static ptier_entry *
make(const char *key, uint64_t revision)
{
    ptier_record r;
    char url[64], password[64];
    ptier_record_init(&r);
    (void)snprintf(url, sizeof url, "http://192.0.2.1:%u", (unsigned)(1000 + revision));
    (void)snprintf(password, sizeof password, "secret-%u", (unsigned)revision);
    r.key = key;
    r.url = url;
    r.username = "alice";
    r.password = password;
    r.source = "tests";
    r.fetch_time_ms = 1700000000000;
    r.ttl_ms = 3600000;
    r.health = PTIER_HEALTH_DEGRADED;
    r.failure_count = 2;
    r.needs_revalidation = true;
    r.revision = revision;
    r.labels = labels;
    r.label_count = 2;
    r.access_count = 0;
    ptier_entry *entry = ptier_entry_create(&r, hash_key(key), 4000000000000, INT64_MAX / 2);
    assert_non_null(entry);
    return entry;
}

static void
apply(fixture *f, const ptier_op *op)
{
    ptier_error error = {0};
    if (f->tier->ops->apply(f->tier, op, 1, false, &error))
        fail_msg("%s", error.message);
}

static void
put(fixture *f, const char *key, uint64_t revision, uint64_t replaces)
{
    ptier_entry *entry = make(key, revision);
    ptier_sealed *sealed = NULL;
    assert_int_equal(ptier_sealed_create(f->keyring, entry, &sealed), PTIER_OK);
    apply(f, &(ptier_op){.kind = PTIER_OP_PUT,
                         .revision = revision,
                         .replaces = replaces,
                         .entry = entry,
                         .sealed = sealed});
    ptier_sealed_release(sealed);
    ptier_entry_release(entry);
}

static void
take_out(fixture *f, const char *key, uint64_t revision, uint64_t replaces)
{
    ptier_entry *entry = make(key, replaces);
    apply(f,
          &(ptier_op){
              .kind = PTIER_OP_REMOVE, .revision = revision, .replaces = replaces, .entry = entry});
    ptier_entry_release(entry);
}

static bool
has(fixture *f, const char *key, uint64_t revision)
{
    ptier_entry *entry = NULL;
    const ptier_ref ref = {.hash = hash_key(key), .revision = revision, .key = key};
    ptier_status status = f->tier->ops->get(f->tier, &ref, &entry);
    if (status) {
        assert_int_equal(status, PTIER_NOT_FOUND);
        return false;
    }
    assert_string_equal(ptier_entry_key(entry), key);
    ptier_entry_release(entry);
    return true;
}

/* ---- the contract ---- */

static void
get_returns_every_field_that_was_put(void **state)
{
    fixture *f = *state;
    put(f, "k1", 5, 0);
    ptier_entry *entry = NULL;
    const ptier_ref ref = {.hash = 11, .revision = 5};
    assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
    ptier_record r;
    ptier_label got[PTIER_LABELS_MAX];
    ptier_entry_view(entry, 0, &r, got);
    assert_string_equal(r.key, "k1");
    assert_string_equal(r.url, "http://192.0.2.1:1005");
    assert_string_equal(r.username, "alice");
    assert_string_equal(r.password, "secret-5");
    assert_string_equal(r.source, "tests");
    assert_int_equal(r.fetch_time_ms, 1700000000000);
    assert_int_equal(r.ttl_ms, 3600000);
    assert_int_equal(r.expires_at_ms, 4000000000000);
    assert_int_equal(entry->expires_boot_ms, INT64_MAX / 2);
    assert_int_equal(r.health, PTIER_HEALTH_DEGRADED);
    assert_int_equal(r.failure_count, 2);
    assert_true(r.needs_revalidation);
    assert_int_equal(r.revision, 5);
    assert_int_equal(r.label_count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(r.labels[i].name, labels[i].name);
        assert_string_equal(r.labels[i].value, labels[i].value);
    }
    ptier_entry_release(entry);
}

static void
get_of_an_unknown_record_is_not_found(void **state)
{
    fixture *f = *state;
    put(f, "k1", 5, 0);
    assert_false(has(f, "k2", 0));
    assert_false(has(f, "k9", 5));
}

static void
a_superseded_revision_is_not_found(void **state)
{
    fixture *f = *state;
    put(f, "k1", 5, 0);
    put(f, "k1", 6, 5);
    assert_false(has(f, "k1", 5));
    assert_true(has(f, "k1", 6));
    assert_int_equal(f->tier->ops->count(f->tier), 1);
}

static void
removal_takes_the_record_out(void **state)
{
    fixture *f = *state;
    put(f, "k1", 5, 0);
    put(f, "k2", 6, 0);
    take_out(f, "k1", 7, 5);
    assert_false(has(f, "k1", 5));
    assert_true(has(f, "k2", 6));
    assert_int_equal(f->tier->ops->count(f->tier), 1);
}

static void
clear_takes_everything_older_out(void **state)
{
    fixture *f = *state;
    put(f, "k1", 5, 0);
    put(f, "k2", 6, 0);
    apply(f, &(ptier_op){.kind = PTIER_OP_CLEAR, .revision = 7});
    assert_int_equal(f->tier->ops->count(f->tier), 0);
    assert_false(has(f, "k1", 5));
    put(f, "k3", 8, 0);
    assert_true(has(f, "k3", 8));
}

static void
clear_within_a_batch_keeps_its_place_in_order(void **state)
{
    fixture *f = *state;
    ptier_entry *before = make("k1", 5), *after = make("k1", 7);
    const ptier_op ops[] = {
        {.kind = PTIER_OP_PUT, .revision = 5, .entry = before},
        {.kind = PTIER_OP_CLEAR, .revision = 6},
        {.kind = PTIER_OP_PUT, .revision = 7, .entry = after},
    };
    assert_int_equal(f->tier->ops->apply(f->tier, ops, 3, false, NULL), PTIER_OK);
    assert_false(has(f, "k1", 5));
    assert_true(has(f, "k1", 7));
    ptier_entry_release(before);
    ptier_entry_release(after);
}

static void
applying_the_same_change_again_changes_nothing(void **state)
{
    fixture *f = *state;
    put(f, "k1", 5, 0);
    put(f, "k1", 5, 0);
    assert_true(has(f, "k1", 5));
    assert_int_equal(f->tier->ops->count(f->tier), 1);
}

static void
two_keys_with_one_hash_are_two_records(void **state)
{
    fixture *f = *state;
    put(f, "c1", 5, 0);
    put(f, "c2", 6, 0);
    assert_true(has(f, "c1", 5));
    assert_true(has(f, "c2", 6));
    take_out(f, "c1", 7, 5);
    assert_false(has(f, "c1", 5));
    assert_true(has(f, "c2", 6));
}

static void
over_its_bound_it_names_a_victim_until_that_is_dropped(void **state)
{
    fixture *f = *state;
    uint64_t hash = 0, revision = 0;
    for (uint64_t i = 1; i <= CAPACITY; i++)
        put(f, (char[]){'k', (char)('0' + i), 0}, 10 + i, 0);
    assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_NOT_FOUND);
    put(f, "k9", 19, 0);
    assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_OK);
    assert_int_equal(hash, revision);
    f->tier->ops->drop(f->tier, hash, revision);
    assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_NOT_FOUND);
    assert_int_equal(f->tier->ops->count(f->tier), CAPACITY);
}

static void
the_victim_is_not_what_was_just_touched(void **state)
{
    fixture *f = *state;
    uint64_t hash = 0, revision = 0;
    for (uint64_t i = 1; i <= CAPACITY + 1; i++)
        put(f, (char[]){'k', (char)('0' + i), 0}, 10 + i, 0);
    assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_OK);
    f->tier->ops->touch(f->tier, &(ptier_ref){.hash = hash, .revision = revision});
    uint64_t next = 0;
    assert_int_equal(f->tier->ops->victim(f->tier, &next, &revision), PTIER_OK);
    if (f->id != PTIER_TIER_L3) /* L3 samples: it has no memory of a touch, only of usage */
        assert_int_not_equal(next, hash);
}

static void
get_is_a_use_unless_it_is_quiet(void **state)
{
    fixture *f = *state;
    for (uint64_t i = 1; i <= CAPACITY; i++)
        put(f, (char[]){'k', (char)('0' + i), 0}, 10 + i, 0);
    for (int quiet = 0; quiet <= 1; quiet++) {
        /* k1 is the oldest, then k2: a use saves k1, a quiet look does not save k2. */
        const uint64_t which = 11 + (uint64_t)quiet;
        const ptier_ref ref = {.hash = which, .revision = which, .quiet = quiet};
        ptier_entry *entry = NULL;
        assert_int_equal(f->tier->ops->get(f->tier, &ref, &entry), PTIER_OK);
        ptier_entry_release(entry);
    }
    put(f, "k9", 19, 0);
    uint64_t hash = 0, revision = 0;
    assert_int_equal(f->tier->ops->victim(f->tier, &hash, &revision), PTIER_OK);
    assert_int_equal(hash, 12);
}

typedef struct seen {
    unsigned count[32];
    bool facts_right;
} seen;

static bool
see(void *context, const ptier_scan_item *item)
{
    seen *s = context;
    s->count[item->hash & 31]++;
    s->facts_right &= item->revision == item->hash && item->health == PTIER_HEALTH_DEGRADED &&
                      hash_key(item->key) == item->hash && strcmp(item->source, "tests") == 0 &&
                      strncmp(item->url, "http://192.0.2.1:", 17) == 0;
    return true;
}

static void
scan_shows_every_record_once_with_its_facts(void **state)
{
    fixture *f = *state;
    seen s = {.facts_right = true};
    for (uint64_t i = 1; i <= 3; i++)
        put(f, (char[]){'k', (char)('0' + i), 0}, 10 + i, 0);
    assert_int_equal(f->tier->ops->scan(f->tier, see, &s, NULL), PTIER_OK);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(s.count[i], i >= 11 && i <= 13);
    assert_true(s.facts_right);
}

static void
probe_of_a_tier_that_works_leaves_no_trace(void **state)
{
    fixture *f = *state;
    put(f, "k1", 5, 0);
    ptier_error error = {0};
    for (int i = 0; i < 2; i++)
        if (f->tier->ops->probe(f->tier, &error))
            fail_msg("%s", error.message);
    seen s = {.facts_right = true};
    assert_int_equal(f->tier->ops->scan(f->tier, see, &s, NULL), PTIER_OK);
    assert_int_equal(f->tier->ops->count(f->tier), 1);
    assert_int_equal(s.count[11], 1);
}

static void
count_and_bytes_follow_the_contents(void **state)
{
    fixture *f = *state;
    uint64_t empty = f->tier->ops->bytes(f->tier);
    assert_int_equal(f->tier->ops->count(f->tier), 0);
    put(f, "k1", 5, 0);
    assert_int_equal(f->tier->ops->count(f->tier), 1);
    assert_true(f->tier->ops->bytes(f->tier) >= empty);
    assert_true(f->tier->ops->bytes(f->tier) > 0);
}

static void
an_empty_batch_is_fine(void **state)
{
    fixture *f = *state;
    assert_int_equal(f->tier->ops->apply(f->tier, NULL, 0, true, NULL), PTIER_OK);
}

/* ---- disk tiers only ---- */

static void
records_and_removals_survive_a_reopen(void **state)
{
    fixture *f = *state;
    put(f, "k1", 5, 0);
    put(f, "k2", 6, 0);
    put(f, "k2", 7, 6);
    put(f, "k3", 8, 0);
    take_out(f, "k3", 9, 8);
    reopen(f);
    assert_true(has(f, "k1", 5));
    assert_true(has(f, "k2", 7));
    assert_false(has(f, "k3", 8));
    assert_int_equal(f->tier->ops->count(f->tier), 2);
}

static void
a_probe_of_a_working_tier_is_fine_and_leaves_no_trace(void **state)
{
    fixture *f = *state;
    ptier_error error;
    put(f, "k1", 5, 0);
    uint64_t bytes = f->tier->ops->bytes(f->tier);
    for (int i = 0; i < 3; i++)
        assert_int_equal(f->tier->ops->probe(f->tier, &error), PTIER_OK);
    assert_int_equal(f->tier->ops->bytes(f->tier), bytes);
    assert_int_equal(f->tier->ops->count(f->tier), 1);
    assert_true(has(f, "k1", 5));
}

static void
credentials_are_not_readable_on_disk(void **state)
{
    fixture *f = *state;
    char command[160];
    put(f, "k1", 5, 0);
    f->tier->ops->close(f->tier);
    (void)snprintf(command, sizeof command, "grep -rqE 'alice|secret-5' %s", f->directory);
    int found = system(command);
    (void)snprintf(command, sizeof command, "grep -rq 192.0.2.1 %s",
                   f->directory); /* the search itself works */
    int control = system(command);
    open_tier(f);
    assert_int_not_equal(found, 0);
    assert_int_equal(control, 0);
}

#define OVER(tier, test)                                                                           \
    {                                                                                              \
        .name = #tier "_" #test, .test_func = test, .setup_func = set_up_##tier,                   \
        .teardown_func = tear_down                                                                 \
    }
/* All but FIFO, to which a use means nothing. */
#define OVER_HEEDING_USE(test)                                                                     \
    OVER(l1, test), OVER(l1_lfu, test), OVER(l1_sieve, test), OVER(l2, test), OVER(l3, test)
#define OVER_ALL(test) OVER_HEEDING_USE(test), OVER(l1_fifo, test)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        OVER_ALL(get_returns_every_field_that_was_put),
        OVER_ALL(get_of_an_unknown_record_is_not_found),
        OVER_ALL(a_superseded_revision_is_not_found),
        OVER_ALL(removal_takes_the_record_out),
        OVER_ALL(clear_takes_everything_older_out),
        OVER_ALL(clear_within_a_batch_keeps_its_place_in_order),
        OVER_ALL(applying_the_same_change_again_changes_nothing),
        OVER_ALL(two_keys_with_one_hash_are_two_records),
        OVER_ALL(over_its_bound_it_names_a_victim_until_that_is_dropped),
        OVER_HEEDING_USE(the_victim_is_not_what_was_just_touched),
        OVER(l1, get_is_a_use_unless_it_is_quiet),
        OVER(l1_lfu, get_is_a_use_unless_it_is_quiet),
        OVER(l1_sieve, get_is_a_use_unless_it_is_quiet),
        OVER(l2, get_is_a_use_unless_it_is_quiet),
        OVER_ALL(scan_shows_every_record_once_with_its_facts),
        OVER(l1, probe_of_a_tier_that_works_leaves_no_trace),
        OVER(l3, probe_of_a_tier_that_works_leaves_no_trace),
        OVER_ALL(count_and_bytes_follow_the_contents),
        OVER_ALL(an_empty_batch_is_fine),
        OVER(l1, a_probe_of_a_working_tier_is_fine_and_leaves_no_trace),
        OVER(l2, a_probe_of_a_working_tier_is_fine_and_leaves_no_trace),
        OVER(l2, records_and_removals_survive_a_reopen),
        OVER(l3, records_and_removals_survive_a_reopen),
        OVER(l2, credentials_are_not_readable_on_disk),
        OVER(l3, credentials_are_not_readable_on_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
