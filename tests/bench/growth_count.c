#include "growth_count.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define HAVE_CALLGRIND true
#else
#define HAVE_CALLGRIND false
#define CALLGRIND_START_INSTRUMENTATION
#define CALLGRIND_STOP_INSTRUMENTATION
#endif

#include "growth_subject.h"

#define OPERATIONS 1000
#define SWITCH     "--count"
#define PATH_ROOM  4200

/* ---- the one that counts ---- */

static void
run(growth_kind kind, growth_subject *g)
{
    switch (kind) {
    case GROWTH_KIND_L1:
        growth_get(g, OPERATIONS);
        break;
    case GROWTH_KIND_GET:
        growth_get(g, OPERATIONS);
        growth_settle_uses(g); /* what a get makes others do counts, too */
        break;
    case GROWTH_KIND_PUT:
        growth_put(g, g->entries + OPERATIONS, OPERATIONS, 0);
        growth_settle(g);
        break;
    default:
        growth_expire(g);
        break;
    }
}

/* What was never done before is done once, uncounted. */
static void
prepare(growth_kind kind, growth_subject *g)
{
    if (kind == GROWTH_KIND_L1 || kind == GROWTH_KIND_EXPIRY)
        growth_put(g, 0, g->entries, 0);
    if (kind == GROWTH_KIND_PUT) {
        growth_put(g, g->entries, OPERATIONS, 0);
        growth_settle(g);
    } else {
        growth_get(g, OPERATIONS);
    }
    if (kind == GROWTH_KIND_GET)
        growth_settle_uses(g);
    if (kind == GROWTH_KIND_EXPIRY)
        growth_put(g, g->entries, OPERATIONS, GROWTH_TTL_MS);
}

static growth_tiers
tiers_of(growth_kind kind)
{
    return kind == GROWTH_KIND_GET   ? GROWTH_L3
           : kind == GROWTH_KIND_PUT ? GROWTH_ALL
                                     : GROWTH_MEMORY;
}

bool
growth_is_counted(int argc, char **argv)
{
    static growth_subject g;
    if (argc != 5 || strcmp(argv[1], SWITCH) != 0)
        return false;
    growth_kind kind = (growth_kind)strtoul(argv[2], NULL, 10);
    (void)growth_open(&g, tiers_of(kind), strtoul(argv[3], NULL, 10), argv[4]);
    prepare(kind, &g);
    CALLGRIND_START_INSTRUMENTATION;
    run(kind, &g);
    CALLGRIND_STOP_INSTRUMENTATION;
    if (kind == GROWTH_KIND_PUT) { /* as it was, for the next */
        growth_remove(&g, 2 * OPERATIONS);
        growth_settle(&g);
    }
    growth_close(&g);
    return true;
}

/* ---- the one that asks ---- */

bool
growth_can_count(void)
{
    return HAVE_CALLGRIND && system("command -v valgrind >/dev/null 2>&1") == 0;
}

static double
read_total(const char *path)
{
    char line[512];
    double total = 0;
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "totals: ", 8) == 0)
            total = strtod(line + 8, NULL);
    if (file)
        fclose(file);
    if (total <= 0)
        bench_fail("growth: callgrind counted nothing");
    return total;
}

double
growth_count(const bench_run *bench, growth_kind kind, size_t entries, const char *directory)
{
    char out[PATH_ROOM], option[PATH_ROOM + 32], number[24], size[24], self[PATH_ROOM];
    int status;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1); /* valgrind's is another */
    if (length < 0)
        bench_fail("growth: cannot find the program: %s", strerror(errno));
    self[length] = '\0';
    (void)snprintf(out, sizeof out, "%s/callgrind.out", bench->work); /* these fit */
    (void)snprintf(option, sizeof option, "--callgrind-out-file=%s", out);
    (void)snprintf(number, sizeof number, "%d", (int)kind);
    (void)snprintf(size, sizeof size, "%zu", entries);
    (void)unlink(out);
    pid_t child = fork();
    if (child < 0)
        bench_fail("growth: cannot fork: %s", strerror(errno));
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("valgrind", "valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", option, self,
               SWITCH, number, size, directory, (char *)NULL);
        _exit(127);
    }
    if (waitpid(child, &status, 0) != child || status != 0)
        bench_fail("growth: valgrind failed");
    return read_total(out) / OPERATIONS;
}
