#include "clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t
read_ms(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t
system_wall_ms(void *context)
{
    (void)context; /* the machine has one */
    return read_ms(CLOCK_REALTIME);
}

static int64_t
system_boot_ms(void *context)
{
    (void)context;
    return read_ms(CLOCK_BOOTTIME);
}

/* FNV-1a over the kernel's random boot id; 0 when it cannot be read, which equals no stored tag. */
static uint64_t
kernel_boot_tag(void)
{
    char id[64];
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file)
        return 0;
    size_t length = fread(id, 1, sizeof id, file);
    (void)fclose(file); /* only read from */
    uint64_t tag = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < length; i++)
        tag = (tag ^ (unsigned char)id[i]) * UINT64_C(1099511628211);
    return length ? tag : 0;
}

void
ptier_clock_system(ptier_clock *clock)
{
    *clock = (ptier_clock){
        .wall_ms = system_wall_ms,
        .boot_ms = system_boot_ms,
        .boot_tag = kernel_boot_tag(),
    };
}
