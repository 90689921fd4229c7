#include "guarded.h"

#include <sys/mman.h>

#include <openssl/crypto.h>

void *
ptier_guarded_alloc(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    (void)madvise(memory, size, MADV_DONTDUMP); /* Linux has had it since 3.4 */
    (void)mlock(memory, size);                  /* the limit may be too low: swappable then */
    return memory;
}

void
ptier_guarded_free(void *memory, size_t size)
{
    if (!memory)
        return;
    OPENSSL_cleanse(memory, size);
    (void)munmap(memory, size); /* our own mapping: cannot fail */
}
