/*
 * What the hot paths cost, in instructions that callgrind counts: the program runs itself under
 * valgrind and compares with fixtures/instructions.txt, which says how to renew it. They do not
 * depend on what else the machine does, so that a path that has grown shows at once.
 */
#include <gnu/libc-version.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <proxytier/cache.h>

#include "client_internal.h"
#include "framing.h"
#include "methods.h"
#include "near_client_internal.h"
#include "proxytier/v1/cache.pb-c.h"
#include "proxytier/v1/rpc.pb-c.h"
#include "record_encode.h"
#include "support/temp_dir.h"

enum {
    ENTRIES = 1000,
    PUTS = 1000,
    MANY = 100,
    CALLS = 10,
    MORE_PERCENT = 10, /* than the file says: a failure */
    TRIES = 2,         /* more */
};

#define FIGURES PTIER_FIXTURES "/instructions.txt"

/* ---- what is counted: in a process of its own, under callgrind ---- */

typedef struct message {
    uint8_t bytes[24576];
    size_t length;
} message;

typedef struct subject {
    char directory[PTIER_TEST_PATH];
    ptier_cache *cache;
    char keys[ENTRIES][17];
    ptier_record *records;
    char (*urls)[40];
    ptier_service service;
    ptier_role role; /* of who calls */
    ptier_call call;
    message messages[CALLS];
    size_t message_count;
    ptier_client client;    /* of which reads need only ... */
    ptier_near_client near; /* ... this */
} subject;

static void
need(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "instructions: cannot %s\n", what);
    exit(EXIT_FAILURE);
}

/* Records as those of a fetched list, from this number on. */
static void
make_records(subject *s, size_t first, size_t count)
{
    static const ptier_label labels[] = {{"country", "DE"}, {"anonymity", "elite"}};
    s->records = realloc(s->records, count * sizeof *s->records);
    s->urls = realloc(s->urls, count * sizeof *s->urls);
    need(s->records && s->urls, "allocate");
    for (size_t i = 0; i < count; i++) {
        size_t number = first + i;
        (void)snprintf(s->urls[i], sizeof s->urls[i], "http://10.%zu.%zu.%zu:8080", number >> 16,
                       number >> 8 & 255, number & 255);
        ptier_record_init(&s->records[i]);
        s->records[i].url = s->urls[i];
        s->records[i].username = "customer";
        s->records[i].password = "made-up-password";
        s->records[i].source = "test";
        s->records[i].health = PTIER_HEALTH_HEALTHY;
        s->records[i].labels = labels;
        s->records[i].label_count = 2;
    }
}

static void
open_cache(subject *s, bool disk)
{
    ptier_cache_options options;
    ptier_put_result results[ENTRIES];
    ptier_cache_options_init(&options);
    options.data_dir = disk ? s->directory : NULL;
    need(ptier_cache_open(&options, &s->cache, NULL) == PTIER_OK, "open a cache");
    make_records(s, 0, ENTRIES);
    need(ptier_cache_put(s->cache, s->records, ENTRIES, NULL, results, NULL, NULL) == PTIER_OK,
         "put");
    for (size_t i = 0; i < ENTRIES; i++)
        memcpy(s->keys[i], results[i].key, sizeof s->keys[i]);
}

static void
prepare_l1(subject *s)
{
    open_cache(s, false);
}

static void
prepare_put(subject *s)
{
    open_cache(s, true);
    make_records(s, ENTRIES, PUTS);
}

/* Writes the header; returns where the body goes. */
static uint8_t *
begin_message(message *made, const char *method)
{
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = (char *)(uintptr_t)method;
    header.timeout_ms = 60000;
    uint8_t *at = made->bytes + PTIER_FRAME_PREFIX;
    size_t length = proxytier__v1__request_header__pack(&header, at);
    ptier_frame_prefix(made->bytes, length);
    return at + length;
}

static void
prepare_get_many(subject *s)
{
    Proxytier__V1__GetManyRequest request = PROXYTIER__V1__GET_MANY_REQUEST__INIT;
    char *keys[MANY];
    open_cache(s, false);
    s->role = PTIER_ROLE_READER;
    s->service.cache = s->cache;
    ptier_call_init(&s->call, &s->service);
    for (size_t i = 0; i < MANY; i++)
        keys[i] = s->keys[i * (ENTRIES / MANY)];
    request.keys = keys;
    request.n_keys = MANY;
    message *made = &s->messages[s->message_count++];
    uint8_t *body = begin_message(made, "/proxytier.v1.ProxyCache/GetMany");
    body += proxytier__v1__get_many_request__pack(&request, body);
    made->length = (size_t)(body - made->bytes);
}

/* As the SDK packs them. */
static void
make_puts(subject *s, size_t first)
{
    message *made = &s->messages[s->message_count++];
    const uint8_t *end = made->bytes + sizeof made->bytes;
    make_records(s, first, MANY);
    uint8_t *body = begin_message(made, "/proxytier.v1.ProxyCache/PutMany");
    for (size_t i = 0; i < MANY; i++) {
        size_t length = ptier_record_encode(&s->records[i], true, 1, body, (size_t)(end - body));
        need(length, "pack a record");
        body += length;
    }
    made->length = (size_t)(body - made->bytes);
}

/* All records in the near cache of a client that never needs a daemon: it has just heard of one. */
static void
prepare_near(subject *s)
{
    const int64_t ms = 1000000, now = ptier_near_now();
    const ptier_near_options options = {.entries = ENTRIES,
                                        .bytes = 1 << 20,
                                        .absent_entries = 4,
                                        .absent_ttl = 5000 * ms,
                                        .max_staleness = 50000 * ms};
    const ptier_near_beat beat = {.boot_id = {1},
                                  .store_id = {1},
                                  .daemon_ms = now / ms,
                                  .revision = ENTRIES,
                                  .contiguous = true};
    s->client.near = &s->near;
    s->near.client = &s->client;
    need(ptier_near_create(&options, &s->near.cache, NULL) == PTIER_OK, "make a near cache");
    ptier_near_reply(s->near.cache, beat.boot_id, now, now, beat.daemon_ms);
    ptier_near_heartbeat(s->near.cache, &beat, now);
    make_records(s, 0, ENTRIES);
    for (size_t i = 0; i < ENTRIES; i++) {
        ptier_near_ticket ticket;
        (void)snprintf(s->keys[i], sizeof s->keys[i], "%016zx", i); /* fits */
        s->records[i].key = s->keys[i];
        s->records[i].revision = beat.revision + 1;
        ptier_near_begin(s->near.cache, s->keys[i], &ticket);
        ptier_near_record *record =
            ptier_near_record_create(&s->records[i], false, beat.revision + 1, now + 86400000 * ms);
        need(record && ptier_near_fill(s->near.cache, &ticket, record), "fill the near cache");
        ptier_near_record_release(record);
    }
}

static void
run_l1_get(subject *s)
{
    for (size_t i = 0; i < ENTRIES; i++) {
        ptier_entry *entry;
        need(ptier_cache_get(s->cache, s->keys[i], &entry, NULL) == PTIER_OK, "get");
        ptier_entry_release(entry);
    }
}

static void
run_put(subject *s)
{
    const ptier_put_options options = {.durability = PTIER_DURABILITY_LOGGED};
    for (size_t i = 0; i < PUTS; i += MANY)
        need(ptier_cache_put(s->cache, s->records + i, MANY, &options, NULL, NULL, NULL) ==
                 PTIER_OK,
             "put");
}

static void
run_call(subject *s, const message *m)
{
    const ptier_peer peer = {.role = s->role};
    ptier_bytes reply = {0};
    need(ptier_call_begin(&s->call, &peer, ptier_monotonic_ms(), m->bytes, m->length) == PTIER_OK &&
             ptier_call_admit(&s->call),
         "begin a call");
    ptier_call_run(&s->call);
    need(s->call.status == PTIER_OK && ptier_call_finish(&s->call, &reply) == PTIER_OK &&
             reply.length > MANY * (size_t)20,
         "do the call");
    ptier_bytes_fini(&reply);
}

static void
run_calls(subject *s)
{
    for (size_t i = 0; i < s->message_count; i++)
        run_call(s, &s->messages[i]);
}

/* The first call makes what later ones find. */
static void
prepare_put_many(subject *s)
{
    open_cache(s, true);
    s->role = PTIER_ROLE_ROTATOR;
    s->service.cache = s->cache;
    ptier_call_init(&s->call, &s->service);
    make_puts(s, ENTRIES);
    run_calls(s);
    s->message_count = 0;
    for (size_t i = 0; i < CALLS; i++)
        make_puts(s, ENTRIES + MANY * (i + 1));
}

static void
run_near_get(subject *s)
{
    const int64_t now = ptier_near_now();
    for (size_t i = 0; i < ENTRIES; i++) {
        ptier_near_record *record;
        need(ptier_near_get(s->near.cache, s->keys[i], now, &record) == PTIER_NEAR_HIT, "hit");
        ptier_near_record_release(record);
    }
}

/* The whole of what a caller does: the result of one call, given back. */
static void
run_near_hit(subject *s)
{
    for (size_t i = 0; i < ENTRIES; i++) {
        ptier_records records;
        need(ptier_get(&s->client, s->keys[i], &records, NULL) == PTIER_OK &&
                 records.near_count == 1,
             "hit");
        ptier_records_free(&records);
    }
}

typedef struct path {
    const char *name;
    void (*prepare)(subject *s);
    void (*run)(subject *s);
    bool warm;    /* run once before, uncounted: some things are done the first time only */
    double times; /* that it is gone when it is run */
} path;

static const path paths[] = {
    {"l1_get", prepare_l1, run_l1_get, true, ENTRIES},
    {"put", prepare_put, run_put, false, PUTS},
    {"put_many_100", prepare_put_many, run_calls, false, CALLS},
    {"get_many_100", prepare_get_many, run_calls, true, 1},
    {"near_get", prepare_near, run_near_get, true, ENTRIES},
    {"near_hit", prepare_near, run_near_hit, true, ENTRIES},
};

#define PATHS (sizeof paths / sizeof *paths)

/* callgrind counts while this function runs, on the thread that runs it, and finds it by its name:
 * hence not static. */
void instructions_counted(const path *p, subject *s);

__attribute__((noinline)) void
instructions_counted(const path *p, subject *s)
{
    p->run(s);
    __asm__ volatile(""); /* no tail call: it would end before */
}

static int
go(const path *p, const char *directory)
{
    static subject s;
    (void)snprintf(s.directory, sizeof s.directory, "%s", directory); /* as long as there */
    p->prepare(&s);
    if (p->warm)
        p->run(&s);
    instructions_counted(p, &s);
    if (s.call.service)
        ptier_call_fini(&s.call);
    if (s.cache)
        ptier_cache_close(s.cache);
    ptier_near_destroy(s.near.cache);
    free(s.records);
    free(s.urls);
    return EXIT_SUCCESS;
}

/* ---- asking callgrind ---- */

static bool
can_count(void)
{
    return system("valgrind --version >/dev/null 2>&1") == 0; /* NOLINT(cert-env33-c) */
}

static double
read_total(const char *file_path)
{
    size_t bytes;
    char *text = ptier_test_file_read(file_path, &bytes);
    const char *at = strstr(text, "\ntotals: ");
    double total = at ? strtod(at + 9, NULL) : 0;
    free(text);
    assert_true(total > 0);
    return total;
}

static double
count(const path *p)
{
    char directory[PTIER_TEST_PATH], out[PTIER_TEST_PATH + 16], option[PTIER_TEST_PATH + 64];
    char data[PTIER_TEST_PATH + 16], self[4096];
    int status = -1;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    self[length] = '\0';
    ptier_test_dir_make(directory);
    (void)snprintf(out, sizeof out, "%s/counted", directory); /* these fit */
    (void)snprintf(data, sizeof data, "%s/data", directory);
    (void)snprintf(option, sizeof option, "--callgrind-out-file=%s", out);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("valgrind", "valgrind", "-q", "--tool=callgrind",
               "--toggle-collect=instructions_counted", option, self, p->name, data, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    double total = read_total(out) / p->times;
    ptier_test_dir_remove(directory);
    return total;
}

/* ---- the file ---- */

static const char head[] =
    "# Instructions of one operation, as tests/integration/instructions_test.c counts them. To "
    "renew\n"
    "# them after a change that is worth its cost, and say in the commit why it is:\n"
    "#   PTIER_INSTRUCTIONS=renew build/release/tests/instructions_test\n";

static void
describe_build(char text[200])
{
    (void)snprintf(text, 200, "build gcc %s, glibc %s\n", __VERSION__, gnu_get_libc_version());
}

static void
renew(void)
{
    char text[2000], build[200];
    describe_build(build);
    int at = snprintf(text, sizeof text, "%s%s", head, build);
    for (size_t i = 0; i < PATHS; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%s %.0f\n", paths[i].name,
                       count(&paths[i]));
    ptier_test_file_write(FIGURES, text, (size_t)at);
}

static void
path_costs_no_more_than_it_did(void **state)
{
    const path *p = *state;
    char build[200], name[64];
    size_t bytes;
    if (!can_count()) {
        print_message("valgrind is not installed: nothing is counted\n");
        skip();
    }
    char *text = ptier_test_file_read(FIGURES, &bytes);
    describe_build(build);
    if (!strstr(text, build)) {
        print_message("the figures are of another compiler or C library: renew them to compare\n");
        free(text);
        skip();
        return;
    }
    (void)snprintf(name, sizeof name, "\n%s ", p->name);
    const char *at = strstr(text, name);
    assert_non_null(at);
    double before = strtod(at + strlen(name), NULL), bound = before * (100 + MORE_PERCENT) / 100;
    double now = count(p);
    free(text);
    /* What waits for others does a little more now and then; what has grown does so each time. */
    for (int again = 0; again < TRIES && now > bound; again++)
        now = count(p);
    print_message("%s: %.0f instructions, %+.1f %%\n", p->name, now, (now / before - 1) * 100);
    if (now > bound)
        fail_msg("%s takes %.0f instructions instead of %.0f: see " FIGURES, p->name, now, before);
}

int
main(int argc, char **argv)
{
    struct CMUnitTest tests[PATHS];
    const char *wanted = getenv("PTIER_INSTRUCTIONS");
    for (size_t i = 0; i < PATHS; i++) {
        if (argc == 3 && strcmp(argv[1], paths[i].name) == 0)
            return go(&paths[i], argv[2]);
        tests[i] = (struct CMUnitTest){.name = paths[i].name,
                                       .test_func = path_costs_no_more_than_it_did,
                                       .initial_state = (void *)(uintptr_t)&paths[i]};
    }
    if (wanted && strcmp(wanted, "renew") == 0) {
        renew();
        return EXIT_SUCCESS;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
