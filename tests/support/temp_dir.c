#include "support/temp_dir.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void
die(const char *what, const char *path)
{
    (void)fprintf(stderr, "test support: %s %s: ", what, path);
    perror("");
    abort();
}

void
ptier_test_dir_make(char path[PTIER_TEST_PATH])
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(path, PTIER_TEST_PATH, "%.180s/ptier-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(path))
        die("mkdtemp", path);
}

static int
remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

void
ptier_test_dir_remove(const char *path)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS))
        die("remove", path);
}

char *
ptier_test_file_read(const char *path, size_t *length)
{
    FILE *file = fopen(path, "re");
    struct stat info;
    if (!file || fstat(fileno(file), &info))
        die("read", path);
    char *data = malloc((size_t)info.st_size + 1);
    if (!data)
        die("malloc", path);
    *length = fread(data, 1, (size_t)info.st_size, file);
    data[*length] = 0;
    (void)fclose(file); /* only read from */
    return data;
}

void
ptier_test_file_write(const char *path, const void *data, size_t length)
{
    FILE *file = fopen(path, "we");
    if (!file || fwrite(data, 1, length, file) != length || fclose(file))
        die("write", path);
}

/* Calls fn for each item but "." and "..", until it returns true. */
static bool
each(const char *path, bool (*fn)(const char *item, const char *name, void *context), void *context)
{
    char item[2 * PTIER_TEST_PATH];
    bool stop = false;
    DIR *dir = opendir(path);
    if (!dir)
        die("opendir", path);
    for (struct dirent *entry; !stop && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(item, sizeof item, "%.250s/%.250s", path, entry->d_name);
        stop = fn(item, entry->d_name, context);
    }
    (void)closedir(dir);
    return stop;
}

static bool
is_directory(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static bool
contains(const char *item, const char *name, void *text)
{
    size_t length;
    (void)name;
    if (is_directory(item))
        return ptier_test_dir_contains(item, text);
    char *data = ptier_test_file_read(item, &length);
    bool found = memmem(data, length, text, strlen(text)) != NULL;
    free(data);
    return found;
}

bool
ptier_test_dir_contains(const char *path, const char *text)
{
    return each(path, contains, (char *)(size_t)text);
}

static bool
copy(const char *item, const char *name, void *to)
{
    char target[2 * PTIER_TEST_PATH];
    size_t length;
    (void)snprintf(target, sizeof target, "%.250s/%.250s", (const char *)to, name);
    if (is_directory(item)) {
        ptier_test_dir_copy(item, target);
        return false;
    }
    char *data = ptier_test_file_read(item, &length);
    ptier_test_file_write(target, data, length);
    (void)chmod(target, 0600); /* key files insist on it */
    free(data);
    return false;
}

void
ptier_test_dir_copy(const char *from, const char *to)
{
    (void)mkdir(to, 0700); /* may exist */
    (void)each(from, copy, (char *)(size_t)to);
}
