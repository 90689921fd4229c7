/*
 * Loads proxies into the cache, as fast as it takes them: URLs on standard input, one a line
 * (scheme://user:password@host:port), sent in batches of which many are under way at once. Bad
 * lines are counted and passed over. Arguments: the address of the daemon (or PROXYTIER_URL).
 */
#include <proxytier/async.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH    500
#define INFLIGHT 16

typedef struct loader {
    atomic_ulong stored, rejected, failed;
} loader;

/* On the library's thread, one at a time: counts and nothing else. */
static void
on_stored(void *context, ptier_async_result *result)
{
    loader *l = context;
    if (result->status != PTIER_OK) {
        atomic_fetch_add(&l->failed, 1);
        fprintf(stderr, "bulk_loader: %s\n", result->error.message);
        return;
    }
    for (size_t i = 0; i < result->puts.count; i++)
        atomic_fetch_add(
            result->puts.items[i].outcome == PTIER_PUT_REJECTED ? &l->rejected : &l->stored, 1);
}

/* Reads a batch of lines into `lines`, which are freed by the caller. */
static size_t
read_batch(FILE *in, char *lines[BATCH], ptier_record records[BATCH])
{
    size_t count = 0, room = 0;
    char *line = NULL;
    while (count < BATCH && getline(&line, &room, in) > 0) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        ptier_record_init(&records[count]);
        records[count].url = lines[count] = line;
        records[count++].source = "bulk";
        line = NULL;
        room = 0;
    }
    free(line);
    return count;
}

static ptier_status
load(ptier_client *client, loader *l, ptier_error *error)
{
    ptier_async *calls[INFLIGHT] = {NULL};
    ptier_status status = PTIER_OK;
    for (size_t turn = 0; status == PTIER_OK; turn = (turn + 1) % INFLIGHT) {
        char *lines[BATCH];
        ptier_record records[BATCH];
        size_t count = read_batch(stdin, lines, records);
        if (count == 0)
            break;
        if (calls[turn]) { /* the oldest one must have ended first */
            while (!ptier_async_wait(calls[turn], 1000))
                ;
            ptier_async_free(calls[turn]);
        }
        status =
            ptier_async_put_many(client, records, count, NULL, on_stored, l, &calls[turn], error);
        for (size_t i = 0; i < count; i++)
            free(lines[i]); /* borrowed during the start only */
    }
    for (size_t i = 0; i < INFLIGHT; i++) {
        while (calls[i] && !ptier_async_wait(calls[i], 1000))
            ;
        ptier_async_free(calls[i]);
    }
    return status;
}

int
main(int argc, char **argv)
{
    if (argc > 2 || (argc == 2 && !strstr(argv[1], "://")))
        return fprintf(stderr, "usage: bulk_loader [URL-OF-THE-DAEMON] < FILE\n"), 2;

    loader counts = {0};
    ptier_client_options options;
    ptier_client *client;
    ptier_error error;

    ptier_client_options_init(&options);
    options.url = argc > 1 ? argv[1] : NULL;
    if (ptier_client_open(&options, &client, &error) != PTIER_OK)
        return fprintf(stderr, "bulk_loader: %s\n", error.message), 1;
    ptier_status status = load(client, &counts, &error);
    ptier_client_close(client);
    if (status != PTIER_OK)
        fprintf(stderr, "bulk_loader: %s\n", error.message);
    printf("%lu stored, %lu rejected, %lu batches failed\n", counts.stored, counts.rejected,
           counts.failed);
    return status != PTIER_OK || counts.failed > 0;
}
