#include "l1/huge_pages.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define SETTING      "/sys/kernel/mm/transparent_hugepage/enabled"
#define BLOCK        ((uintptr_t)1 << 21)
#define FAILURES_MAX 32

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* since Linux 6.1 */
#endif

void
ptier_huge_pages_init(ptier_huge_pages *pages)
{
    memset(pages, 0, sizeof *pages);
    ptier_map_init(&pages->seen);
}

void
ptier_huge_pages_fini(ptier_huge_pages *pages)
{
    ptier_map_fini(&pages->seen);
}

/* MADV_COLLAPSE itself does not ask. */
static bool
administrator_agrees(void)
{
    char text[64];
    FILE *file = fopen(SETTING, "re");
    if (!file)
        return false;
    size_t length = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file); /* only read from */
    text[length] = '\0';
    return length > 0 && !strstr(text, "[never]");
}

bool
ptier_huge_pages_wanted(ptier_huge_pages *pages)
{
    if (!pages->asked) {
        pages->asked = true;
        pages->refused = !administrator_agrees();
    }
    return !pages->refused;
}

/* Neighbouring blocks far apart. */
static uint64_t
hash_of(uintptr_t block)
{
    return (uint64_t)(block / BLOCK) * UINT64_C(0x9e3779b97f4a7c15) >> 16;
}

bool
ptier_huge_pages_gather(ptier_huge_pages *pages, uintptr_t address)
{
    void *block = (void *)(address & ~(BLOCK - 1)); /* NOLINT(performance-no-int-to-ptr) */
    uint64_t hash = hash_of((uintptr_t)block);
    if (pages->refused || ptier_map_find(&pages->seen, hash, NULL, NULL) == block)
        return false;
    if (!ptier_map_insert(&pages->seen, hash, block))
        return false;
    /* What was freed and unmapped since, or has a neighbour's mapping in it, fails: no harm. Where
     * all fails, the kernel is an older one. */
    if (madvise(block, BLOCK, MADV_COLLAPSE) == 0)
        pages->gathered++;
    else
        pages->failed++;
    pages->refused = pages->gathered == 0 && pages->failed >= FAILURES_MAX;
    return true;
}

void
ptier_huge_pages_forget(ptier_huge_pages *pages)
{
    ptier_map_fini(&pages->seen);
}
