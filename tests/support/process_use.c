/* See process_use.h. */
#include "support/process_use.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

process_use
process_use_of(pid_t pid)
{
    char path[64], line[256];
    process_use use = {0};
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    if (directory) {
        for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
            use.descriptors += entry->d_name[0] != '.';
        closedir(directory);
    }
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "VmRSS:", 6) == 0)
            (void)sscanf(line + 6, "%zu", &use.rss_kb);
    if (file)
        fclose(file);
    return use;
}

process_use
process_use_settled(pid_t pid)
{
    const struct timespec pause = {.tv_nsec = 100000000};
    process_use use = process_use_of(pid);
    for (int same = 0, looks = 0; same < 25 && looks < 200; looks++) {
        nanosleep(&pause, NULL);
        process_use now = process_use_of(pid);
        same = now.descriptors == use.descriptors ? same + 1 : 0;
        use = now;
    }
    return use;
}
