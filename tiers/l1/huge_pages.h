/*
 * For tiers/l1/ only: asks the kernel for huge pages behind memory that is already in use. Among a
 * million entries a hit waits longer for the tables of 4-KiB pages than for the entry; where
 * entries lie is malloc's affair, so blocks of 2 MiB are found by what lies in them and gathered
 * one at a time, which copies the block: some ms. Contents and addresses stay. Not thread-safe.
 */
#ifndef PTIER_HUGE_PAGES_H
#define PTIER_HUGE_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "map.h"

typedef struct ptier_huge_pages {
    bool refused;   /* the administrator or the kernel will not */
    bool asked;     /* whether the administrator does */
    ptier_map seen; /* blocks that were gathered, or cannot be */
    unsigned gathered, failed;
} ptier_huge_pages;

void ptier_huge_pages_init(ptier_huge_pages *pages);
void ptier_huge_pages_fini(ptier_huge_pages *pages);

/* Whether it makes sense to go on: the first time it reads what the administrator has set. */
bool ptier_huge_pages_wanted(ptier_huge_pages *pages);

/* Gathers the block around an address. False: it was seen before. Blocks. */
bool ptier_huge_pages_gather(ptier_huge_pages *pages, uintptr_t address);

/* All blocks count as not seen: memory that was given back and taken again has small pages. */
void ptier_huge_pages_forget(ptier_huge_pages *pages);

#endif
