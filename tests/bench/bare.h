/*
 * What growth is compared with: the least that has to grow. A hash table of records with an LRU
 * list through them, and an SQLite table of records with an index by hash; both without anything
 * else that a cache does. Not thread-safe; what fails ends the program (bench_fail). Keys are the
 * names of numbers, bench_name.
 */
#ifndef PTIER_BENCH_BARE_H
#define PTIER_BENCH_BARE_H

#include <stddef.h>
#include <stdint.h>

#define BENCH_NAME_BYTES 10

/* "k" and eight digits: cheap, so that it is not what is measured. */
void bench_name(size_t number, char name[BENCH_NAME_BYTES]);

/* ---- in memory ---- */

typedef struct bench_table bench_table;

bench_table *bench_table_create(size_t count); /* with the first ones */
void bench_table_destroy(bench_table *table);
void bench_table_put(bench_table *table, size_t number); /* a new one */
void bench_table_get(bench_table *table, size_t number); /* it is the most recently used then */
void bench_table_remove(bench_table *table, size_t number);

/* ---- in a file ---- */

typedef struct bench_rows bench_rows;

bench_rows *bench_rows_create(const char *path, size_t count); /* with the first ones */
void bench_rows_destroy(bench_rows *rows);
void bench_rows_put(bench_rows *rows, size_t first, size_t count); /* new ones; one transaction */
void bench_rows_get(bench_rows *rows, size_t number);
void bench_rows_remove(bench_rows *rows, size_t first, size_t count);
double bench_rows_bytes(const bench_rows *rows); /* of the file, its log moved into it */

#endif
