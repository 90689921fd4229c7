/*
 * Exact caches of one policy each, as their papers have them: evicting before they insert, with one
 * order for all. What hit_rate compares L1 with; they share no code with it. Not thread-safe. Keys
 * are numbers from 0 to `keys` - 1.
 */
#ifndef PTIER_BENCH_POLICY_MODEL_H
#define PTIER_BENCH_POLICY_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <proxytier/cache.h>

typedef struct bench_model bench_model;

/* LFU ages (LFU-DA), counts without a limit, and takes the least recently used of equals. */
bench_model *bench_model_create(ptier_eviction policy, size_t keys, size_t capacity);
void bench_model_destroy(bench_model *m);

/* Reads the key of that number, and puts it in if it is not there. True: it was a hit. */
bool bench_model_read(bench_model *m, uint32_t number);

/* It has expired; nothing happens if it is not there. */
void bench_model_remove(bench_model *m, uint32_t number);

#endif
