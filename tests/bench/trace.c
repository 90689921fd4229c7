#include "trace.h"

#include <csv.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#include "harness.h"
#include "map.h"

static void
add(bench_trace *t, uint32_t key)
{
    if (t->count == t->room) {
        t->room = t->room ? t->room * 2 : 65536;
        t->reads = realloc(t->reads, t->room * sizeof *t->reads);
        if (!t->reads)
            bench_fail("out of memory");
    }
    t->reads[t->count++] = key;
}

void
bench_trace_free(bench_trace *t)
{
    free(t->reads);
    *t = (bench_trace){0};
}

/* ---- made ---- */

typedef struct zipf {
    double *cumulative; /* of ranks */
    size_t count;
    uint64_t seed;
} zipf;

static void
zipf_init(zipf *z, size_t count, double alpha)
{
    *z = (zipf){.cumulative = calloc(count, sizeof(double)), .count = count, .seed = 1};
    if (!z->cumulative)
        bench_fail("out of memory");
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        z->cumulative[i] = sum += pow((double)(i + 1), -alpha);
}

/* A rank, from 0 on. */
static uint32_t
zipf_next(zipf *z)
{
    double at =
        (double)(bench_random(&z->seed) >> 11) / (double)(UINT64_C(1) << 53); /* 0 to below 1 */
    size_t low = 0, high = z->count - 1;
    at *= z->cumulative[high];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (z->cumulative[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return (uint32_t)low;
}

void
bench_trace_zipf(bench_trace *t, size_t keys, size_t count, double alpha)
{
    zipf z;
    zipf_init(&z, keys, alpha);
    *t = (bench_trace){.keys = keys};
    while (t->count < count)
        add(t, zipf_next(&z));
    free(z.cumulative);
}

void
bench_trace_scans(bench_trace *t, size_t keys, size_t count)
{
    zipf z;
    zipf_init(&z, keys, 1);
    *t = (bench_trace){.keys = keys, .others = keys};
    for (size_t scanned = 0; t->count < count;) {
        for (size_t i = 0; i < keys / 2; i++)
            add(t, zipf_next(&z));
        for (size_t i = 0; i < keys / 10; i++)
            add(t, (uint32_t)(keys + scanned++ % keys));
    }
    free(z.cumulative);
}

void
bench_trace_churn(bench_trace *t, size_t keys, size_t refreshes)
{
    zipf z;
    zipf_init(&z, keys, 1);
    *t = (bench_trace){.keys = keys, .others = keys / 5 * refreshes, .period = 2 * keys};
    for (size_t refresh = 0; refresh < refreshes; refresh++) {
        size_t first = refresh * (keys / 5);
        for (size_t i = 0; i < keys; i++)
            add(t, (uint32_t)(first + i));
        /* A prime step: how popular an entry is has nothing to do with how old it is. */
        for (size_t i = 0; i < keys; i++)
            add(t, (uint32_t)(first + zipf_next(&z) * UINT64_C(7919) % keys));
    }
    free(z.cumulative);
}

/* ---- read ---- */

typedef struct reader {
    bench_trace *trace;
    const char *path;
    ptier_map numbers; /* of keys: 64 bits of hash stand for a key, the value is its number + 1 */
    size_t column, row, key_column; /* of CSV */
    bool has_column;
} reader;

static void
add_key(reader *r, const char *key, size_t length)
{
    if (!length)
        return;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)key[i] < ' ' || key[i] == 127)
            bench_fail("%s: key %zu has control characters: this is no trace", r->path,
                       r->trace->count + 1);
    uint64_t hash = XXH3_64bits(key, length);
    uintptr_t number = (uintptr_t)ptier_map_find(&r->numbers, hash, NULL, NULL);
    if (!number) {
        number = ++r->trace->keys;
        if (number > UINT32_MAX || !ptier_map_insert(&r->numbers, hash, (void *)number))
            bench_fail("out of memory for keys");
    }
    add(r->trace, (uint32_t)(number - 1));
}

static void
take_field(void *text, size_t length, void *context)
{
    reader *r = context;
    size_t column = r->column++;
    if (r->row > 0) {
        if (r->has_column && column == r->key_column)
            add_key(r, text, length);
    } else if (!r->has_column && length == 3 && memcmp(text, "key", 3) == 0) {
        r->has_column = true;
        r->key_column = column;
    }
}

static void
take_row(int end, void *context)
{
    (void)end;
    reader *r = context;
    r->row++;
    r->column = 0;
}

static void
read_csv(reader *r, FILE *file)
{
    struct csv_parser parser;
    char text[65536];
    size_t length;
    if (csv_init(&parser, CSV_APPEND_NULL) != 0)
        bench_fail("out of memory");
    while ((length = fread(text, 1, sizeof text, file)) > 0)
        if (csv_parse(&parser, text, length, take_field, take_row, r) != length)
            bench_fail("%s is no CSV: %s", r->path, csv_strerror(csv_error(&parser)));
    csv_fini(&parser, take_field, take_row, r);
    csv_free(&parser);
    if (!r->has_column)
        bench_fail("%s: the first line names no column \"key\"", r->path);
}

static void
read_lines(reader *r, FILE *file)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, file)) > 0) {
        while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
            length--;
        add_key(r, line, (size_t)length);
    }
    free(line);
}

static void
skip_byte_order_mark(FILE *file)
{
    char mark[3];
    if (fread(mark, 1, sizeof mark, file) != sizeof mark || memcmp(mark, "\xef\xbb\xbf", 3) != 0)
        rewind(file);
}

void
bench_trace_load(bench_trace *t, const char *path)
{
    reader r = {.trace = t, .path = path};
    size_t length = strlen(path);
    FILE *file = fopen(path, "r");
    if (!file)
        bench_fail("cannot read %s: %s", path, strerror(errno));
    *t = (bench_trace){0};
    ptier_map_init(&r.numbers);
    skip_byte_order_mark(file);
    if (length > 4 && strcasecmp(path + length - 4, ".csv") == 0)
        read_csv(&r, file);
    else
        read_lines(&r, file);
    if (ferror(file))
        bench_fail("cannot read %s: %s", path, strerror(errno));
    fclose(file);
    ptier_map_fini(&r.numbers);
    if (!t->count)
        bench_fail("%s has no keys", path);
    if (t->keys == t->count)
        bench_fail("%s reads no key twice: a trace is a key a line, or CSV (*.csv) with a column "
                   "\"key\"",
                   path);
}
