#include "property/damage.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/sample_entry.h"
#include "support/temp_dir.h"

enum { FILES = 200, BLOCK = 4096, PATH = 2 * PTIER_TEST_PATH };

typedef struct files {
    char names[FILES][64]; /* below the directory */
    size_t count;
} files;

typedef struct content {
    char *bytes;
    size_t length;
} content;

static void
add_directory(files *list, const char *directory, const char *below)
{
    char path[PATH];
    struct stat info;
    (void)snprintf(path, sizeof path, "%s/%s", directory, below);
    DIR *dir = opendir(path);
    for (struct dirent *item; dir && (item = readdir(dir)) && list->count < FILES;) {
        char *name = list->names[list->count];
        (void)snprintf(name, sizeof list->names[0], "%s%.40s", below, item->d_name);
        (void)snprintf(path, sizeof path, "%s/%s", directory, name);
        if (stat(path, &info) == 0 && S_ISREG(info.st_mode))
            list->count++;
    }
    if (dir)
        (void)closedir(dir);
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static uint64_t
below(uint64_t *random, size_t limit)
{
    return limit ? ptier_test_random(random, limit) : 0;
}

/* ---- damages: each changes the content and says how ---- */

static void
flip_bits(content *c, uint64_t *random, char text[128])
{
    size_t bits = 1 + below(random, 3), at = 0;
    for (size_t i = 0; i < bits && c->length; i++) {
        at = below(random, c->length);
        c->bytes[at] ^= (char)(1 << below(random, 8));
    }
    (void)snprintf(text, 128, "%zu bits flipped, the last at %zu", bits, at);
}

static void
cut_end(content *c, uint64_t *random, char text[128])
{
    c->length = below(random, c->length);
    (void)snprintf(text, 128, "cut to %zu bytes", c->length);
}

/* Where a block of at most `most` bytes lies. */
static size_t
any_block(const content *c, uint64_t *random, size_t most, size_t *at)
{
    size_t length = 1 + below(random, most);
    *at = below(random, c->length);
    if (below(random, 2)) /* as disks do it */
        *at -= *at % BLOCK;
    return length < c->length - *at ? length : c->length - *at;
}

static void
garbage_block(content *c, uint64_t *random, char text[128])
{
    size_t at, length = any_block(c, random, 2 * BLOCK, &at);
    for (size_t i = 0; i < length; i++)
        c->bytes[at + i] = (char)below(random, 256);
    (void)snprintf(text, 128, "%zu bytes of garbage at %zu", length, at);
}

static void
zero_block(content *c, uint64_t *random, char text[128])
{
    size_t at, length = any_block(c, random, 2 * BLOCK, &at);
    memset(c->bytes + at, 0, length);
    (void)snprintf(text, 128, "%zu zeros at %zu", length, at);
}

/* A block where another one should be: a write that went astray. */
static void
copy_block(content *c, uint64_t *random, char text[128])
{
    size_t at, length = any_block(c, random, BLOCK, &at), from = below(random, c->length);
    from -= from % BLOCK;
    length = length < c->length - from ? length : c->length - from;
    memmove(c->bytes + at, c->bytes + from, length);
    (void)snprintf(text, 128, "%zu bytes of %zu at %zu", length, from, at);
}

static void
take_out(content *c, uint64_t *random, char text[128])
{
    size_t at, length = any_block(c, random, BLOCK, &at);
    memmove(c->bytes + at, c->bytes + at + length, c->length - at - length);
    c->length -= length;
    (void)snprintf(text, 128, "%zu bytes taken out at %zu", length, at);
}

static void
append_garbage(content *c, uint64_t *random, char text[128])
{
    size_t length = 1 + below(random, BLOCK);
    for (size_t i = 0; i < length; i++) /* there is room: see change_content */
        c->bytes[c->length + i] = (char)below(random, 256);
    c->length += length;
    (void)snprintf(text, 128, "%zu bytes of garbage appended", length);
}

static void
change_content(const char *path, uint64_t *random, char text[128])
{
    static void (*const ways[])(content * c, uint64_t * random, char text[128]) = {
        flip_bits,  flip_bits,  cut_end,  garbage_block,
        zero_block, copy_block, take_out, append_garbage,
    };
    content c;
    char *bytes = ptier_test_file_read(path, &c.length);
    c.bytes = realloc(bytes, c.length + BLOCK + 1);
    if (!c.bytes)
        abort();
    ways[below(random, sizeof ways / sizeof *ways)](&c, random, text);
    ptier_test_file_write(path, c.bytes, c.length);
    free(c.bytes);
}

static bool
take_older(const char *path, const char *older, char text[128])
{
    size_t length;
    if (access(older, R_OK) != 0)
        return false;
    char *bytes = ptier_test_file_read(older, &length);
    ptier_test_file_write(path, bytes, length);
    free(bytes);
    (void)snprintf(text, 128, "replaced by an older copy of %zu bytes", length);
    return true;
}

void
ptier_damage_something(const char *directory, const char *older, uint64_t *random,
                       ptier_damage *damage)
{
    static files list;
    char path[PATH], old[PATH], text[128] = "deleted";
    list.count = 0;
    add_directory(&list, directory, "");
    add_directory(&list, directory, "l2/");
    if (list.count == 0)
        return;
    qsort(list.names, list.count, sizeof list.names[0], by_name);
    const char *name = list.names[below(random, list.count)];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    (void)snprintf(old, sizeof old, "%s/%s", older, name);
    uint64_t way = below(random, 10);
    /* Only alone: an older file beside another damage may be what there once was. */
    bool aged = way < 2 && damage->count == 0 && take_older(path, old, text);
    if (!aged && way < 3)
        (void)unlink(path);
    else if (!aged)
        change_content(path, random, text);
    size_t length = strlen(damage->text);
    (void)snprintf(damage->text + length, sizeof damage->text - length, "%s%s: %s",
                   length ? "; " : "", name, text);
    damage->key |= strcmp(name, "key") == 0;
    damage->state |= strcmp(name, "state") == 0;
    damage->older |= aged;
    damage->count++;
}
