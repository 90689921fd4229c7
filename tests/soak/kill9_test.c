/*
 * Kill -9, round after round: eight writers load a real daemon, it is killed at a random moment,
 * started again, and must have what it acknowledged: nothing lost, nothing back, no revision twice,
 * the same store_id. Each set of tiers has a data directory of its own for the whole run; bounds of
 * the upper tiers change from round to round. `./dev soak` is this program with more rounds.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <proxytier/client.h>

#include "soak/oracle.h"
#include "soak/writer.h"
#include "support/daemon.h"
#include "support/sample_entry.h"
#include "support/settings.h"

enum { SETS = 6, ARGUMENTS = 24, LOAD_MS = 400, LONG_LOAD_MS = 1500 };

static const struct {
    const char *name; /* for --tiers, and the report */
    bool l1, l2, l3;
} sets[SETS] = {
    {"all", true, true, true},    {"l2", false, true, false},   {"l3", false, false, true},
    {"l1+l2", true, true, false}, {"l1+l3", true, false, true}, {"l2+l3", false, true, true},
};

typedef struct store {
    test_daemon daemon;
    ptier_soak_writer writers[PTIER_SOAK_WRITERS];
    uint64_t highest; /* of all acknowledged revisions */
    uint8_t store_id[16], boot_id[16];
    int rounds;
    bool used;
} store;

typedef struct tally {
    uint64_t lost, resurrected, wrong, revisions_repeated, store_ids_changed, clears, starts_killed;
    int rounds;
} tally;

static store stores[SETS];
static tally all;
static uint64_t seed, random_state;

static uint64_t
below(uint64_t limit)
{
    return ptier_test_random(&random_state, limit);
}

static void
sleep_ms(uint64_t ms)
{
    const struct timespec time = {.tv_sec = (time_t)(ms / 1000),
                                  .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

/* ---- the daemon ---- */

typedef struct arguments {
    char numbers[2][16];
    const char *list[ARGUMENTS];
} arguments;

/* Other bounds in each round. The lowest tier is unbounded: whatever is missing is lost. */
static void
make_arguments(arguments *a, int set)
{
    static const uint64_t l1_bounds[] = {10, 60, 1000}, l2_bounds[] = {60, 250, 1000};
    size_t count = 0;
    uint64_t l2 = sets[set].l3 ? l2_bounds[below(3)] : 0;
    uint64_t l1 = l1_bounds[below(3)];
    if (l2 && l1 > l2)
        l1 = l2;
    (void)snprintf(a->numbers[0], sizeof a->numbers[0], "%llu", (unsigned long long)l1);
    (void)snprintf(a->numbers[1], sizeof a->numbers[1], "%llu", (unsigned long long)l2);
    const char *list[] = {"--l1",          sets[set].l1 ? "on" : "off",
                          "--l2",          sets[set].l2 ? "on" : "off",
                          "--l3",          sets[set].l3 ? "on" : "off",
                          "--l1-entries",  a->numbers[0],
                          "--l2-entries",  a->numbers[1],
                          "--default-ttl", "0",
                          "--log-level",   "warn"};
    for (; count < sizeof list / sizeof *list; count++)
        a->list[count] = list[count];
    a->list[count] = NULL;
}

static ptier_client *
connect_to(const store *s)
{
    ptier_client_options options;
    ptier_client *client;
    ptier_client_options_init(&options);
    options.url = s->daemon.url;
    options.timeout_ms = 20000;
    assert_int_equal(ptier_client_open(&options, &client, NULL), PTIER_OK);
    return client;
}

static void
check_identity(store *s, ptier_client *client)
{
    ptier_server_info info;
    ptier_error error;
    if (ptier_get_info(client, &info, &error))
        fail_msg("info: %s", error.message);
    if (s->used && memcmp(s->store_id, info.store_id, 16) != 0) {
        char *log = test_daemon_log(&s->daemon);
        print_error("another store_id after %d rounds of this store; its log:\n%s\n", s->rounds,
                    log);
        free(log);
        all.store_ids_changed++;
    }
    assert_memory_not_equal(s->boot_id, info.boot_id, 16);
    memcpy(s->store_id, info.store_id, 16);
    memcpy(s->boot_id, info.boot_id, 16);
    if (info.revision < s->highest)
        fail_msg("the daemon is at revision %llu, acknowledged was %llu",
                 (unsigned long long)info.revision, (unsigned long long)s->highest);
    s->used = true;
}

/* Now and then the start itself is killed, too. */
static void
start(store *s, int set)
{
    arguments a = {.list = {NULL}};
    for (int kills = s->used && below(4) == 0 ? 2 : 0; kills; kills--) {
        make_arguments(&a, set);
        test_daemon_spawn(&s->daemon, a.list);
        sleep_ms(below(PTIER_TEST_SANITIZED ? 400 : 60));
        assert_int_equal(test_daemon_end(&s->daemon, SIGKILL), 128 + SIGKILL);
        all.starts_killed++;
    }
    make_arguments(&a, set);
    test_daemon_start(&s->daemon, a.list);
}

/* ---- verifying ---- */

static const ptier_record *
find_record(const ptier_records *found, const char *key)
{
    for (size_t i = 0; i < found->count; i++)
        if (strcmp(found->records[i].key, key) == 0)
            return &found->records[i];
    return NULL;
}

/* Counts, says what it is, and goes on from what is there. */
static void
judge(store *s, ptier_soak_writer *w, int number, const ptier_record *record)
{
    static const char *const words[] = {"", "lost", "resurrected", "wrong"};
    ptier_soak_key *key = &w->keys[number];
    ptier_soak_state seen = {0};
    ptier_soak_verdict verdict = PTIER_SOAK_WRONG;
    if (!record || ptier_soak_read(record, w->number, number, &seen))
        verdict = ptier_soak_judge(key, seen);
    all.lost += verdict == PTIER_SOAK_LOST;
    all.resurrected += verdict == PTIER_SOAK_RESURRECTED;
    all.wrong += verdict == PTIER_SOAK_WRONG;
    if (verdict != PTIER_SOAK_RIGHT && all.lost + all.resurrected + all.wrong <= 20) {
        print_error("%s after %d rounds of this store: w%d-k%d: version %u with %u failures (url "
                    "%s); of %u possible states the acknowledged one is version %u with %u\n",
                    words[verdict], s->rounds, w->number, number, seen.version, seen.failures,
                    record ? record->url : "none", key->count, key->possible[0].version,
                    key->possible[0].failures);
    }
    ptier_soak_settle(key, seen);
}

static size_t
verify_writer(store *s, ptier_soak_writer *w, ptier_client *client)
{
    char texts[PTIER_SOAK_KEYS][24];
    const char *keys[PTIER_SOAK_KEYS];
    ptier_records found;
    ptier_error error;
    for (int i = 0; i < PTIER_SOAK_KEYS; i++) {
        ptier_soak_key_text(texts[i], w->number, i);
        keys[i] = texts[i];
    }
    if (ptier_get_many(client, keys, PTIER_SOAK_KEYS, &found, &error))
        fail_msg("get_many: %s", error.message);
    for (int i = 0; i < PTIER_SOAK_KEYS; i++)
        judge(s, w, i, find_record(&found, keys[i]));
    size_t count = found.count;
    ptier_records_free(&found);
    return count;
}

static size_t
list_all(ptier_client *client)
{
    char token[40] = "";
    size_t count = 0;
    do {
        ptier_records page;
        ptier_error error;
        if (ptier_list(client, NULL, 500, token, &page, &error))
            fail_msg("list: %s", error.message);
        count += page.count;
        memcpy(token, page.next_page_token, sizeof token);
        ptier_records_free(&page);
    } while (token[0]);
    return count;
}

static void
verify(store *s, ptier_client *client)
{
    size_t count = 0;
    check_identity(s, client);
    for (int i = 0; i < PTIER_SOAK_WRITERS; i++)
        count += verify_writer(s, &s->writers[i], client);
    size_t listed = list_all(client);
    if (listed != count)
        fail_msg("%zu entries can be read and %zu are listed", count, listed);
}

/* ---- a round ---- */

static int
compare_revisions(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Those of this run are above all before, and no two are the same. */
static void
check_revisions(store *s)
{
    size_t count = 0, at = 0;
    for (int i = 0; i < PTIER_SOAK_WRITERS; i++)
        count += s->writers[i].revision_count;
    uint64_t *revisions = malloc((count + 1) * sizeof *revisions);
    assert_non_null(revisions);
    for (int i = 0; i < PTIER_SOAK_WRITERS; i++) {
        const ptier_soak_writer *w = &s->writers[i];
        if (w->revision_count)
            memcpy(revisions + at, w->revisions, w->revision_count * sizeof *revisions);
        at += w->revision_count;
    }
    qsort(revisions, count, sizeof *revisions, compare_revisions);
    for (size_t i = 0; i < count; i++)
        all.revisions_repeated += revisions[i] <= (i ? revisions[i - 1] : s->highest);
    if (count)
        s->highest = revisions[count - 1];
    free(revisions);
}

static void
clear_everything(store *s, ptier_client *client)
{
    ptier_error error;
    if (ptier_clear(client, PTIER_TIER_NONE, NULL, NULL, &error))
        fail_msg("clear: %s", error.message);
    for (int i = 0; i < PTIER_SOAK_WRITERS; i++)
        for (int k = 0; k < PTIER_SOAK_KEYS; k++)
            ptier_soak_settle(&s->writers[i].keys[k], (ptier_soak_state){0});
    all.clears++;
}

static void
load_and_kill(store *s)
{
    static _Atomic bool killed;
    atomic_store(&killed, false);
    for (int i = 0; i < PTIER_SOAK_WRITERS; i++)
        assert_true(ptier_soak_writer_start(&s->writers[i], s->daemon.url, &killed));
    sleep_ms(below(below(10) ? LOAD_MS : LONG_LOAD_MS));
    atomic_store(&killed, true);
    int code = test_daemon_end(&s->daemon, SIGKILL);
    for (int i = 0; i < PTIER_SOAK_WRITERS; i++)
        ptier_soak_writer_join(&s->writers[i]);
    assert_int_equal(code, 128 + SIGKILL); /* else it had ended by itself */
    for (int i = 0; i < PTIER_SOAK_WRITERS; i++)
        if (s->writers[i].wrong[0])
            fail_msg("writer %d: %s", i, s->writers[i].wrong);
}

static void
run_round(int set)
{
    store *s = &stores[set];
    if (!s->used) {
        start(s, set);
        ptier_client *client = connect_to(s);
        check_identity(s, client);
        ptier_client_close(client);
    }
    load_and_kill(s);
    s->rounds++;
    all.rounds++;
    check_revisions(s);
    start(s, set);
    ptier_client *client = connect_to(s);
    verify(s, client);
    if (below(10) == 0)
        clear_everything(s, client);
    ptier_client_close(client);
}

/* What is left of the store survives a proper end, too. */
static void
finish(store *s, int set)
{
    arguments a = {.list = {NULL}};
    make_arguments(&a, set);
    test_daemon_restart(&s->daemon, a.list);
    ptier_client *client = connect_to(s);
    verify(s, client);
    ptier_client_close(client);
    assert_int_equal(test_daemon_end(&s->daemon, SIGTERM), 0);
}

/* ---- the run ---- */

/* Half of the rounds go to all three tiers, the others to the rest in turn. */
static int
set_of_round(int round)
{
    const char *only = getenv("PTIER_KILL9_TIERS");
    for (int i = 0; only && *only && i < SETS; i++)
        if (strcmp(sets[i].name, only) == 0)
            return i;
    if (only && *only)
        fail_msg("no set of tiers %s", only);
    return round % 2 ? 1 + round / 2 % (SETS - 1) : 0;
}

static void
say_tally(void)
{
    ptier_soak_counts sum = {0};
    for (int set = 0; set < SETS; set++) {
        for (int i = 0; i < PTIER_SOAK_WRITERS; i++) {
            const ptier_soak_counts *c = &stores[set].writers[i].counts;
            sum.puts += c->puts;
            sum.deletes += c->deletes;
            sum.removals += c->removals;
            sum.reports += c->reports;
        }
        if (stores[set].rounds)
            print_message("kill9: tiers %s: %d rounds, highest revision %llu\n", sets[set].name,
                          stores[set].rounds, (unsigned long long)stores[set].highest);
    }
    print_message(
        "kill9: %d rounds (seed %llu, %llu starts killed as well): acknowledged %llu puts, %llu "
        "deletes, %llu reports, %llu removals by health, %llu clears; %llu lost, %llu resurrected, "
        "%llu wrong, %llu revisions repeated, %llu store ids changed\n",
        all.rounds, (unsigned long long)seed, (unsigned long long)all.starts_killed,
        (unsigned long long)sum.puts, (unsigned long long)sum.deletes,
        (unsigned long long)sum.reports, (unsigned long long)sum.removals,
        (unsigned long long)all.clears, (unsigned long long)all.lost,
        (unsigned long long)all.resurrected, (unsigned long long)all.wrong,
        (unsigned long long)all.revisions_repeated, (unsigned long long)all.store_ids_changed);
}

static int
set_up(void **state)
{
    (void)state;
    seed = ptier_test_setting("PTIER_KILL9_SEED", (uint64_t)time(NULL));
    random_state = seed * 2654435761U + 1;
    for (int set = 0; set < SETS; set++) {
        test_daemon_init(&stores[set].daemon);
        for (int i = 0; i < PTIER_SOAK_WRITERS; i++) {
            ptier_soak_writer_init(&stores[set].writers[i], i, seed + (uint64_t)set);
            stores[set].writers[i].clears_l1 = sets[set].l1;
        }
    }
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    bool keep = all.lost || all.resurrected || all.wrong ||
                all.store_ids_changed; /* for whoever looks for the reason */
    for (int set = 0; set < SETS; set++) {
        test_daemon *daemon = &stores[set].daemon;
        if (keep && daemon->pid > 0)
            (void)test_daemon_end(daemon, SIGKILL);
        if (keep && stores[set].used)
            print_error("kept: %s\n", daemon->directory);
        else
            test_daemon_fini(daemon);
        for (int i = 0; i < PTIER_SOAK_WRITERS; i++)
            ptier_soak_writer_fini(&stores[set].writers[i]);
    }
    return 0;
}

static void
daemon_killed_under_load_has_everything_it_acknowledged(void **state)
{
    (void)state;
    int rounds = (int)ptier_test_setting("PTIER_KILL9_ROUNDS", 10);
    print_message("kill9: %d rounds, seed %llu\n", rounds, (unsigned long long)seed);
    for (int round = 0; round < rounds; round++) {
        run_round(set_of_round(round));
        if (round % 50 == 49 && round + 1 < rounds)
            say_tally();
    }
    for (int set = 0; set < SETS; set++)
        if (stores[set].used)
            finish(&stores[set], set);
    say_tally();
    assert_int_equal(all.lost, 0);
    assert_int_equal(all.resurrected, 0);
    assert_int_equal(all.wrong, 0);
    assert_int_equal(all.revisions_repeated, 0);
    assert_int_equal(all.store_ids_changed, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(daemon_killed_under_load_has_everything_it_acknowledged,
                                        set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
