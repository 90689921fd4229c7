#include "support/io_journal.h"

#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "support/sample_entry.h"
#include "support/temp_dir.h"

enum { SECTOR = 512, ROOT = 0, NAMES_MAX = 1 << 20 };

typedef enum event_kind {
    EVENT_WRITE,
    EVENT_RESIZE,
    EVENT_LINK,
    EVENT_RENAME,
    EVENT_UNLINK,
    EVENT_SYNC
} event_kind;

typedef struct event {
    event_kind kind;
    int node;        /* file, or the directory of `name` */
    bool lossy;      /* it was dirty when an fsync failed */
    uint64_t offset; /* RESIZE: the new size; SYNC: up to which event */
    size_t length;
    void *data;    /* owned; WRITE: bytes; else a name or NULL */
    int to_node;   /* LINK: what is named; RENAME: the directory of to_name */
    char *to_name; /* owned */
} event;

typedef struct io_node {
    bool directory;
    uint64_t size;
    size_t synced; /* events below it are covered by an fsync */
} io_node;

typedef struct io_name {
    int directory, node;
    const char *text; /* of an event */
} io_name;

typedef struct io_names {
    io_name *items;
    size_t count;
} io_names;

static struct {
    event *events;
    size_t count, room;
    size_t base; /* events below it are what was there at the start */
    io_node *nodes;
    int node_count;
    io_names live;
} journal;

static void *
need(void *memory)
{
    if (!memory) {
        (void)fprintf(stderr, "io journal: out of memory\n");
        abort();
    }
    return memory;
}

_Noreturn static void
refuse(const char *what, const char *path)
{
    (void)fprintf(stderr, "io journal: %s: %s\n", what, path);
    abort();
}

/* ---- names ---- */

static int
name_index(const io_names *names, int directory, const char *text)
{
    for (size_t i = 0; i < names->count; i++)
        if (names->items[i].directory == directory && strcmp(names->items[i].text, text) == 0)
            return (int)i;
    return -1;
}

static void
name_remove(io_names *names, int directory, const char *text)
{
    int at = name_index(names, directory, text);
    if (at >= 0)
        names->items[at] = names->items[--names->count];
}

static void
name_put(io_names *names, int directory, const char *text, int node)
{
    name_remove(names, directory, text);
    assert(names->count < NAMES_MAX);
    names->items = need(realloc(names->items, (names->count + 1) * sizeof *names->items));
    names->items[names->count++] = (io_name){directory, node, text};
}

static void
name_apply(io_names *names, const event *e)
{
    if (e->kind == EVENT_LINK) {
        name_put(names, e->node, e->data, e->to_node);
    } else if (e->kind == EVENT_UNLINK) {
        name_remove(names, e->node, e->data);
    } else if (e->kind == EVENT_RENAME) {
        int at = name_index(names, e->node, e->data);
        if (at < 0)
            return; /* an image in which the old name never came to be */
        int moved = names->items[at].node;
        name_remove(names, e->node, e->data);
        name_put(names, e->to_node, e->to_name, moved);
    }
}

/* The directory that a path's last part is in, and that part. */
static int
parent_of(const char *path, const char **last)
{
    char part[PTIER_TEST_PATH];
    int directory = ROOT;
    *last = path;
    for (const char *slash; (slash = strchr(*last, '/')); *last = slash + 1) {
        (void)snprintf(part, sizeof part, "%.*s", (int)(slash - *last), *last);
        int at = name_index(&journal.live, directory, part);
        if (at < 0)
            refuse("no such directory", path);
        directory = journal.live.items[at].node;
    }
    return directory;
}

int
ptier_journal_find(const char *path)
{
    const char *last;
    if (strcmp(path, ".") == 0)
        return ROOT;
    int directory = parent_of(path, &last);
    int at = name_index(&journal.live, directory, last);
    return at < 0 ? -1 : journal.live.items[at].node;
}

/* ---- events ---- */

size_t
ptier_journal_position(void)
{
    return journal.count;
}

static event *
add_event(event_kind kind, int node)
{
    if (journal.count == journal.room) {
        journal.room = journal.room ? 2 * journal.room : 1024;
        journal.events = need(realloc(journal.events, journal.room * sizeof *journal.events));
    }
    event *e = &journal.events[journal.count++];
    *e = (event){.kind = kind, .node = node};
    return e;
}

static void
add_name_event(event_kind kind, const char *path, int to_node, const char *to)
{
    const char *last, *to_last = NULL;
    int directory = parent_of(path, &last);
    if (to)
        to_node = parent_of(to, &to_last);
    event *e = add_event(kind, directory);
    e->data = need(strdup(last));
    e->to_node = to_node;
    e->to_name = to ? need(strdup(to_last)) : NULL;
    name_apply(&journal.live, e);
}

static int
add_node(bool directory)
{
    journal.nodes =
        need(realloc(journal.nodes, (size_t)(journal.node_count + 1) * sizeof *journal.nodes));
    journal.nodes[journal.node_count] = (io_node){.directory = directory};
    return journal.node_count++;
}

int
ptier_journal_create(const char *path, bool directory)
{
    int made = add_node(directory);
    add_name_event(EVENT_LINK, path, made, NULL);
    return made;
}

void
ptier_journal_write(int node, uint64_t offset, const void *data, size_t length)
{
    event *e = add_event(EVENT_WRITE, node);
    e->offset = offset;
    e->length = length;
    e->data = need(malloc(length ? length : 1));
    memcpy(e->data, data, length);
    if (offset + length > journal.nodes[node].size)
        journal.nodes[node].size = offset + length;
}

void
ptier_journal_resize(int node, uint64_t size)
{
    add_event(EVENT_RESIZE, node)->offset = size;
    journal.nodes[node].size = size;
}

uint64_t
ptier_journal_size(int node)
{
    return journal.nodes[node].size;
}

void
ptier_journal_sync(int node, size_t covers)
{
    add_event(EVENT_SYNC, node)->offset = covers;
    if (covers > journal.nodes[node].synced)
        journal.nodes[node].synced = covers;
}

void
ptier_journal_sync_failed(int node)
{
    for (size_t i = journal.nodes[node].synced; i < journal.count; i++)
        if (journal.events[i].node == node && journal.events[i].kind == EVENT_WRITE)
            journal.events[i].lossy = true;
}

void
ptier_journal_link(const char *from, const char *to)
{
    add_name_event(EVENT_LINK, to, ptier_journal_find(from), NULL);
}

void
ptier_journal_rename(const char *from, const char *to)
{
    add_name_event(EVENT_RENAME, from, 0, to);
}

void
ptier_journal_unlink(const char *path)
{
    add_name_event(EVENT_UNLINK, path, 0, NULL);
}

/* ---- the start ---- */

bool
ptier_journal_ignores(const char *text)
{
    size_t length = strlen(text);
    return length >= 4 && strcmp(text + length - 4, "-shm") == 0;
}

static void
forget(void)
{
    for (size_t i = 0; i < journal.count; i++) {
        free(journal.events[i].data);
        free(journal.events[i].to_name);
    }
    free(journal.events);
    free(journal.nodes);
    free(journal.live.items);
    memset(&journal, 0, sizeof journal);
}

typedef void (*visit_fn)(void *context, const char *full, const char *path, bool directory);

/* Every file and directory below `base`; `path` is below it, "" for itself. */
static void
walk(const char *base, const char *path, visit_fn fn, void *context)
{
    char full[3 * PTIER_TEST_PATH], below[2 * PTIER_TEST_PATH];
    (void)snprintf(full, sizeof full, "%s/%s", base, path);
    DIR *dir = opendir(full);
    if (!dir)
        refuse("cannot list", full);
    for (struct dirent *item; (item = readdir(dir));) {
        struct stat info;
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0 ||
            ptier_journal_ignores(item->d_name))
            continue;
        (void)snprintf(below, sizeof below, "%s%s%s", path, *path ? "/" : "", item->d_name);
        (void)snprintf(full, sizeof full, "%s/%s", base, below);
        if (stat(full, &info))
            refuse("cannot stat", full);
        fn(context, full, below, S_ISDIR(info.st_mode));
        if (S_ISDIR(info.st_mode))
            walk(base, below, fn, context);
    }
    (void)closedir(dir);
}

static void
take(void *context, const char *full, const char *path, bool directory)
{
    (void)context;
    int made = ptier_journal_create(path, directory);
    if (directory)
        return;
    size_t length;
    char *data = ptier_test_file_read(full, &length);
    ptier_journal_write(made, 0, data, length);
    free(data);
}

void
ptier_journal_start(const char *directory)
{
    forget();
    if (!directory)
        return;
    (void)add_node(true); /* ROOT */
    walk(directory, "", take, NULL);
    journal.base = journal.count;
    for (int i = 0; i < journal.node_count; i++)
        journal.nodes[i].synced = journal.base;
}

/* ---- images ---- */

/* One file or directory on its way through the changes. */
typedef struct copy {
    uint8_t *now, *disk; /* page cache and disk, `room` bytes each, zeros beyond their sizes */
    uint64_t size, disk_size, room;
    uint64_t frozen; /* no sector from here on reaches the disk: a truncation that it has not seen
                        took them away */
    size_t durable;  /* events below it are on the disk */
    size_t until;    /* events below it show in the length, or in the names */
    uint64_t chance; /* of a sector, in 100 */
} copy;

typedef struct image {
    copy *copies;
    io_names names;
    uint64_t random;
} image;

static void
make_room(copy *c, uint64_t size)
{
    if (size <= c->room)
        return;
    uint64_t room = size < 4096 ? 4096 : size + size / 2;
    c->now = need(realloc(c->now, room));
    c->disk = need(realloc(c->disk, room));
    memset(c->now + c->room, 0, room - c->room);
    memset(c->disk + c->room, 0, room - c->room);
    c->room = room;
}

static void
write_event(image *im, copy *c, const event *e, bool durable, bool in_length)
{
    uint64_t end = e->offset + e->length;
    if (e->length == 0)
        return;
    make_room(c, (end + SECTOR - 1) / SECTOR * SECTOR);
    assert(c->now && c->disk); /* there is room */
    memcpy(c->now + e->offset, e->data, e->length);
    if (end > c->size)
        c->size = end;
    if (in_length)
        c->disk_size = c->size;
    for (uint64_t at = e->offset / SECTOR * SECTOR; at < end; at += SECTOR)
        if (durable || (at < c->frozen && ptier_test_random(&im->random, 100) < c->chance))
            memcpy(c->disk + at, c->now + at, SECTOR);
}

static void
resize_event(copy *c, uint64_t size, bool in_length)
{
    make_room(c, size);
    if (size < c->size)
        memset(c->now + size, 0, c->room - size);
    if (in_length && size < c->size)
        memset(c->disk + size, 0, c->room - size);
    else if (size < c->size && size < c->frozen)
        c->frozen = size;
    c->size = size;
    if (in_length)
        c->disk_size = size;
}

static void
find_durable(image *im, size_t cut)
{
    for (int i = 0; i < journal.node_count; i++)
        im->copies[i] =
            (copy){.durable = journal.base < cut ? journal.base : cut, .frozen = UINT64_MAX};
    for (size_t i = 0; i < cut; i++) {
        const event *e = &journal.events[i];
        if (e->kind == EVENT_SYNC && e->offset > im->copies[e->node].durable)
            im->copies[e->node].durable = e->offset;
    }
}

/* A rename from one directory to another happens in both or in neither. */
static void
join_renames(image *im, size_t cut)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < cut; i++) {
            const event *e = &journal.events[i];
            copy *from = &im->copies[e->node], *to = &im->copies[e->to_node];
            if (e->kind != EVENT_RENAME || (from->until > i) == (to->until > i))
                continue;
            (from->until > i ? to : from)->until = i + 1;
            changed = true;
        }
    }
}

static void
choose(image *im, size_t cut)
{
    static const uint64_t chances[] = {0, 5, 50, 95, 100};
    for (int i = 0; i < journal.node_count; i++) {
        copy *c = &im->copies[i];
        uint64_t which = ptier_test_random(&im->random, 4);
        c->chance = chances[ptier_test_random(&im->random, 5)];
        c->until = which == 0   ? c->durable
                   : which == 1 ? cut
                                : c->durable + ptier_test_random(&im->random, cut - c->durable + 1);
    }
    join_renames(im, cut);
}

static void
replay(image *im, size_t cut)
{
    for (size_t i = 0; i < cut; i++) {
        const event *e = &journal.events[i];
        copy *c = &im->copies[e->node];
        if (e->kind == EVENT_WRITE)
            write_event(im, c, e, i < c->durable && !e->lossy, i < c->until);
        else if (e->kind == EVENT_RESIZE)
            resize_event(c, e->offset, i < c->until);
        else if (e->kind != EVENT_SYNC && i < c->until)
            name_apply(&im->names, e);
    }
}

static void
image_fini(image *im)
{
    for (int i = 0; i < journal.node_count; i++) {
        free(im->copies[i].now);
        free(im->copies[i].disk);
    }
    free(im->copies);
    free(im->names.items);
}

static void
write_tree(const image *im, int directory, const char *path)
{
    char item[3 * PTIER_TEST_PATH];
    static const uint8_t nothing[1];
    if (mkdir(path, 0700))
        refuse("cannot make", path);
    for (size_t i = 0; i < im->names.count; i++) {
        const io_name *n = &im->names.items[i];
        const copy *c = &im->copies[n->node];
        (void)snprintf(item, sizeof item, "%s/%s", path, n->text);
        if (n->directory != directory || ptier_journal_ignores(n->text))
            continue;
        if (journal.nodes[n->node].directory)
            write_tree(im, n->node, item);
        else
            ptier_test_file_write(item, c->disk ? c->disk : nothing, c->disk_size);
        if (!journal.nodes[n->node].directory && chmod(item, 0600))
            refuse("cannot chmod", item);
    }
}

void
ptier_journal_image(size_t cut, uint64_t seed, const char *to)
{
    image im = {.random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15)};
    im.copies = need(calloc((size_t)journal.node_count, sizeof *im.copies));
    if (cut < journal.base)
        cut = journal.base;
    find_durable(&im, cut);
    choose(&im, cut);
    replay(&im, cut);
    write_tree(&im, ROOT, to);
    image_fini(&im);
}

/* ---- is it true? ---- */

typedef struct comparison {
    const image *im;
    size_t seen;
    bool same;
} comparison;

static void
compare(void *context, const char *full, const char *path, bool directory)
{
    comparison *cmp = context;
    int found = ptier_journal_find(path);
    cmp->seen++;
    if (found < 0 || journal.nodes[found].directory != directory) {
        (void)fprintf(stderr, "io journal: does not know %s\n", path);
        cmp->same = false;
    } else if (!directory) {
        const copy *c = &cmp->im->copies[found];
        size_t length;
        char *data = ptier_test_file_read(full, &length);
        if (length != c->size || (length && memcmp(data, c->now, length) != 0)) {
            (void)fprintf(stderr, "io journal: has another %s: %zu bytes, should be %zu\n", path,
                          (size_t)c->size, length);
            cmp->same = false;
        }
        free(data);
    }
}

bool
ptier_journal_same_as(const char *directory)
{
    image im = {.random = 1};
    im.copies = need(calloc((size_t)journal.node_count, sizeof *im.copies));
    find_durable(&im, journal.count);
    replay(&im, journal.count);
    comparison cmp = {.im = &im, .same = true};
    walk(directory, "", compare, &cmp);
    size_t known = 0;
    for (size_t i = 0; i < journal.live.count; i++)
        known += !ptier_journal_ignores(journal.live.items[i].text);
    if (known != cmp.seen)
        (void)fprintf(stderr, "io journal: has %zu names, should be %zu\n", known, cmp.seen);
    image_fini(&im);
    return cmp.same && known == cmp.seen;
}
