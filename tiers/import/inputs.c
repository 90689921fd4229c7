/* Which files a path stands for. No state. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <proxytier/import.h>

#include "file.h"

/* "shard_07.jsonl": two digits or a few more, and a file that is not empty. Our own log, whose
 * deletes would come back, has eight. */
static int
is_shard(const struct dirent *item)
{
    const char *digits = item->d_name + 6;
    if (strncmp(item->d_name, "shard_", 6) != 0)
        return 0;
    size_t count = strspn(digits, "0123456789");
    return count >= 2 && count <= 4 && strcmp(digits + count, ".jsonl") == 0;
}

static bool
add(ptier_import_inputs *inputs, const char *directory, const char *name)
{
    char **paths = realloc(inputs->paths, (inputs->count + 1) * sizeof *paths);
    if (!paths)
        return false;
    inputs->paths = paths;
    size_t size = strlen(directory) + 1 + (name ? strlen(name) + 1 : 0);
    char *path = malloc(size);
    if (!path)
        return false;
    (void)snprintf(path, size, name ? "%s/%s" : "%s", directory, name); /* it fits */
    paths[inputs->count++] = path;
    return true;
}

/* A shard whose entries were all removed is left behind empty. */
static bool
has_content(const char *path)
{
    struct stat about;
    return stat(path, &about) != 0 || about.st_size > 0; /* unreadable: reading it says why */
}

static bool
add_if_content(ptier_import_inputs *inputs, const char *directory, const char *name)
{
    if (!add(inputs, directory, name))
        return false;
    if (!has_content(inputs->paths[inputs->count - 1]))
        free(inputs->paths[--inputs->count]);
    return true;
}

static ptier_status
add_directory(ptier_import_inputs *inputs, const char *path, ptier_error *error)
{
    static const char database[] = "l2_cache.db";
    struct dirent **items = NULL;
    struct stat about;
    size_t before = inputs->count;
    int count = scandir(path, &items, is_shard, versionsort);
    if (count < 0)
        return ptier_fail_errno(error, errno, "%s", path);
    bool added = true;
    for (int i = 0; i < count; i++) {
        added = added && add_if_content(inputs, path, items[i]->d_name);
        free(items[i]);
    }
    free(items);
    if (added)
        added = add(inputs, path, database);
    if (!added)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (stat(inputs->paths[inputs->count - 1], &about) != 0)
        free(inputs->paths[--inputs->count]);
    if (inputs->count == before && count == 0)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%s: it is a directory without ProxyWhirl's shard_NN.jsonl or %s", path,
                          database);
    return PTIER_OK;
}

ptier_status
ptier_import_inputs_add(ptier_import_inputs *inputs, const char *path, ptier_error *error)
{
    struct stat about;
    if (strcmp(path, "-") != 0 && stat(path, &about) == 0 && S_ISDIR(about.st_mode))
        return add_directory(inputs, path, error);
    if (!add(inputs, path, NULL)) /* what is wrong with a file is told when it is read */
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    return PTIER_OK;
}

void
ptier_import_inputs_free(ptier_import_inputs *inputs)
{
    for (size_t i = 0; i < inputs->count; i++)
        free(inputs->paths[i]);
    free(inputs->paths);
    *inputs = (ptier_import_inputs){0};
}
