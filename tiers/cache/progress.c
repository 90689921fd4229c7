#include "cache/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "file.h"

#define PROGRESS_VERSION 1
#define PROGRESS_BYTES   256

/* One line of constant length, so that it can be written over in place. */
static size_t
format_line(char text[PROGRESS_BYTES], const ptier_progress *p)
{
    int length = snprintf(text, PROGRESS_BYTES,
                          "proxytier-progress %d logged %020" PRIu64 " from %020" PRIu64
                          " l3 %020" PRIu64 " shards %010" PRIu32 " %010" PRIu32
                          " bytes %020" PRIu64 " stale %010" PRIu32 " memory %d",
                          PROGRESS_VERSION, p->logged, p->log_from, p->l3_prefix, p->first_shard,
                          p->last_shard, p->last_shard_bytes, p->stale_below, p->memory_only);
    length += snprintf(text + length, PROGRESS_BYTES - (size_t)length, " check %016" PRIx64 "\n",
                       (uint64_t)XXH3_64bits(text, (size_t)length));
    return (size_t)length;
}

/* Only what we would write ourselves, to the byte. */
static bool
parse_line(const char *text, ptier_progress *p)
{
    char again[PROGRESS_BYTES];
    unsigned memory_only;
    /* NOLINTNEXTLINE(cert-err34-c): what is out of range does not come out again the same */
    if (sscanf(text,
               "proxytier-progress 1 logged %" SCNu64 " from %" SCNu64 " l3 %" SCNu64
               " shards %" SCNu32 " %" SCNu32 " bytes %" SCNu64 " stale %" SCNu32 " memory %u",
               &p->logged, &p->log_from, &p->l3_prefix, &p->first_shard, &p->last_shard,
               &p->last_shard_bytes, &p->stale_below, &memory_only) != 8)
        return false;
    p->memory_only = memory_only != 0;
    (void)format_line(again, p);
    return strcmp(text, again) == 0;
}

void
ptier_progress_init(ptier_progress_file *file)
{
    pthread_mutex_init(&file->lock, NULL);
    file->fd = -1;
    file->now = (ptier_progress){0};
}

void
ptier_progress_fini(ptier_progress_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    pthread_mutex_destroy(&file->lock);
}

ptier_status
ptier_progress_open(ptier_progress_file *file, const char *directory, bool *found,
                    ptier_error *error)
{
    char path[PTIER_PATH_MAX], text[PROGRESS_BYTES];
    *found = false;
    (void)snprintf(path, sizeof path, "%s/progress", directory);
    file->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file->fd < 0)
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    ssize_t length = pread(file->fd, text, sizeof text - 1, 0);
    if (length < 0)
        return ptier_fail_errno(error, errno, "cannot read %s", path);
    text[length] = 0;
    ptier_progress said = {0};
    *found = parse_line(text, &said);
    if (*found)
        file->now = said;
    else if (ftruncate(file->fd, 0))
        return ptier_fail_errno(error, errno, "cannot write %s", path);
    return PTIER_OK;
}

ptier_progress *
ptier_progress_begin(ptier_progress_file *file)
{
    pthread_mutex_lock(&file->lock);
    return &file->now;
}

void
ptier_progress_end(ptier_progress_file *file)
{
    char text[PROGRESS_BYTES];
    if (file->fd >= 0) {
        size_t length = format_line(text, &file->now);
        ssize_t written = pwrite(file->fd, text, length, 0);
        (void)written; /* see above */
    }
    pthread_mutex_unlock(&file->lock);
}

ptier_status
ptier_progress_sync(ptier_progress_file *file, ptier_error *error)
{
    if (file->fd >= 0 && fdatasync(file->fd))
        return ptier_fail_errno(error, errno, "cannot sync the progress file");
    return PTIER_OK;
}
