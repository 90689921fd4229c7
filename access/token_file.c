/* See token_file.h. */
#include "token_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "file.h"
#include "hex.h"

#define WORDS_MAX     5 /* one more than a line may have */
#define HASH_DIGITS   ((size_t)2 * PTIER_TOKEN_HASH)
#define LOCK_TRIES    50
#define LOCK_PAUSE_US 100000

static const char name_characters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";

void
ptier_token_list_fini(ptier_token_list *list)
{
    free(list->entries);
    *list = (ptier_token_list){0};
}

bool
ptier_token_name_valid(const char *name)
{
    size_t length = strlen(name);
    return length >= 1 && length <= PTIER_TOKEN_NAME_MAX && strspn(name, name_characters) == length;
}

bool
ptier_token_time_parse(const char *text, int64_t *time_s)
{
    static const char day[] = "dddd-dd-dd", instant[] = "dddd-dd-ddTdd:dd:ddZ";
    size_t length = strlen(text);
    const char *form = length == sizeof day - 1 ? day : instant;
    struct tm parts = {0};
    if (length != strlen(form))
        return false;
    for (size_t i = 0; i < length; i++)
        if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i])
            return false;
    const char *end = strptime(text, form == day ? "%Y-%m-%d" : "%Y-%m-%dT%H:%M:%SZ", &parts);
    if (!end || *end != '\0')
        return false;
    struct tm same = parts;
    *time_s = timegm(&same);
    /* The 31st of June comes back as another day. */
    return *time_s > 0 && same.tm_mday == parts.tm_mday && same.tm_mon == parts.tm_mon;
}

void
ptier_token_time_text(int64_t time_s, char text[PTIER_TOKEN_TIME_TEXT])
{
    time_t seconds = (time_t)time_s;
    struct tm parts;
    if (!gmtime_r(&seconds, &parts) ||
        strftime(text, PTIER_TOKEN_TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        strcpy(text, "never");
}

/* ---- reading ---- */

/* Cuts a line into words. Returns how many there are, WORDS_MAX at most. */
static size_t
split(char *line, char *words[WORDS_MAX])
{
    size_t count = 0;
    line[strcspn(line, "#")] = '\0';
    char *rest = NULL;
    for (char *word = strtok_r(line, " \t\r", &rest); word && count < WORDS_MAX;
         word = strtok_r(NULL, " \t\r", &rest))
        words[count++] = word;
    return count;
}

/* NULL: it is well; else what is wrong. Nothing of the line is repeated: a token may have been put
 * there. */
static const char *
read_words(char *const *words, size_t count, ptier_token_entry *entry)
{
    *entry = (ptier_token_entry){0};
    if (count < 3 || count > 4)
        return "a line has ROLE NAME HASH and perhaps EXPIRY";
    if (!ptier_role_parse(words[0], &entry->role))
        return "roles are reader, rotator and admin";
    if (!ptier_token_name_valid(words[1]))
        return "a name has 1 to 64 letters, digits, '.', '-' or '_'";
    (void)snprintf(entry->name, sizeof entry->name, "%s", words[1]); /* fits */
    if (strlen(words[2]) != HASH_DIGITS || !ptier_from_hex(entry->hash, words[2], PTIER_TOKEN_HASH))
        return "the hash is not the 64 lower-case hex digits that `proxytier token add` writes";
    if (count == 4 && !ptier_token_time_parse(words[3], &entry->expires_s))
        return "an expiry is like 2027-01-31 or 2027-01-31T12:00:00Z";
    return NULL;
}

static const ptier_token_entry *
find(const ptier_token_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->entries[i].name, name) == 0)
            return &list->entries[i];
    return NULL;
}

/* Reads all lines of `text`, which is cut up. */
static ptier_status
parse(const char *path, char *text, ptier_token_list *list, ptier_error *error)
{
    size_t number = 0;
    for (char *line = text, *next; line; line = next) {
        char *words[WORDS_MAX];
        number++;
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        size_t count = split(line, words);
        if (count == 0)
            continue;
        if (list->count == PTIER_TOKENS_MAX)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s: more than %d tokens", path,
                              PTIER_TOKENS_MAX);
        ptier_token_entry *entry = &list->entries[list->count];
        const char *wrong = read_words(words, count, entry);
        if (!wrong && find(list, entry->name))
            wrong = "this name is there already";
        if (wrong)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s:%zu: %s", path, number, wrong);
        list->count++;
    }
    return PTIER_OK;
}

static ptier_status
check_owner(const char *path, const struct stat *about, bool foreign, ptier_error *error)
{
    if (!S_ISREG(about->st_mode))
        return ptier_fail(error, PTIER_FAILED_PRECONDITION, "%s is not a file", path);
    if (about->st_uid != 0 && about->st_uid != geteuid() && !foreign)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "%s belongs to another user: whoever owns it could make themselves admin",
                          path);
    if (about->st_mode & 022)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "%s may be written by others than its owner: chmod 600 it", path);
    if ((uint64_t)about->st_size > PTIER_TOKEN_FILE_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s has more than %zu bytes", path,
                          PTIER_TOKEN_FILE_MAX);
    return PTIER_OK;
}

/* The text, NUL-terminated, to be freed. foreign: of whomever it is. */
static ptier_status
read_text(const char *path, bool foreign, char **text, struct stat *about, ptier_error *error)
{
    *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us up */
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot read the tokens of %s", path);
    ptier_status status = PTIER_OK;
    ssize_t length = 0;
    if (fstat(fd, about) != 0)
        status = ptier_fail_errno(error, errno, "cannot read the tokens of %s", path);
    if (status == PTIER_OK)
        status = check_owner(path, about, foreign, error);
    if (status == PTIER_OK && !(*text = malloc(PTIER_TOKEN_FILE_MAX + 1)))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (status == PTIER_OK && (length = ptier_read_all(fd, *text, PTIER_TOKEN_FILE_MAX)) < 0)
        status = ptier_fail_errno(error, errno, "cannot read the tokens of %s", path);
    (void)close(fd); /* only read */
    if (status == PTIER_OK && memchr(*text, '\0', (size_t)length))
        status = ptier_fail(error, PTIER_INVALID_ARGUMENT, "%s holds a NUL byte", path);
    if (status != PTIER_OK) {
        free(*text);
        *text = NULL;
        return status;
    }
    (*text)[length] = '\0';
    return PTIER_OK;
}

static ptier_status
list_of(const char *path, const char *text, ptier_token_list *list, ptier_error *error)
{
    char *copy = text ? strdup(text) : NULL;
    list->count = 0;
    list->entries = calloc(PTIER_TOKENS_MAX, sizeof *list->entries);
    ptier_status status = copy && list->entries
                              ? parse(path, copy, list, error)
                              : ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    free(copy);
    if (status != PTIER_OK) {
        ptier_token_list_fini(list);
        return status;
    }
    ptier_token_entry *fitting =
        realloc(list->entries, (list->count ? list->count : 1) * sizeof *list->entries);
    if (fitting)
        list->entries = fitting;
    return PTIER_OK;
}

ptier_status
ptier_token_file_read(const char *path, ptier_token_list *list, ptier_error *error)
{
    char *text;
    struct stat about;
    *list = (ptier_token_list){0};
    ptier_status status = read_text(path, false, &text, &about, error);
    if (status == PTIER_OK)
        status = list_of(path, text, list, error);
    free(text);
    return status;
}

/* ---- writing ---- */

static void
directory_of(const char *path, char directory[PTIER_PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    (void)snprintf(directory, PTIER_PATH_MAX, "%.*s", (int)(slash && length == 0 ? 1 : length),
                   path); /* the caller looked at the length */
    if (!slash)
        strcpy(directory, ".");
}

/* Locks the directory: a lock on the file would be on one that is about to be replaced. */
static ptier_status
lock_directory(const char *directory, int *fd, ptier_error *error)
{
    *fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        return ptier_fail_errno(error, errno, "cannot open the directory %s", directory);
    for (int tries = 0; flock(*fd, LOCK_EX | LOCK_NB) != 0; tries++) {
        if (tries == LOCK_TRIES) {
            (void)close(*fd); /* only read */
            return ptier_fail(error, PTIER_UNAVAILABLE,
                              "somebody else is changing a token file in %s: try again", directory);
        }
        (void)usleep(LOCK_PAUSE_US); /* woken early is fine */
    }
    return PTIER_OK;
}

static bool
write_all(int fd, const char *text)
{
    size_t length = strlen(text);
    while (length > 0) {
        ssize_t written = write(fd, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        text += written;
        length -= (size_t)written;
    }
    return true;
}

/* Under the lock of the directory. The new file belongs to whom the old one belonged to: root may
 * change it for the daemon. `old` NULL: there was none. */
static ptier_status
replace(const char *path, const struct stat *old, const char *text, ptier_error *error)
{
    char temporary[PTIER_PATH_MAX + 8], directory[PTIER_PATH_MAX];
    (void)snprintf(temporary, sizeof temporary, "%s.new", path); /* its length was looked at */
    (void)unlink(temporary); /* of somebody who was killed, if it is there */
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot make %s", temporary);
    bool ok = write_all(fd, text) &&
              (!old || geteuid() != 0 || fchown(fd, old->st_uid, old->st_gid) == 0) &&
              fsync(fd) == 0;
    int problem = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        problem = errno;
    }
    if (ok && rename(temporary, path) != 0) {
        ok = false;
        problem = errno;
    }
    if (!ok) {
        (void)unlink(temporary); /* it is in nobody's way */
        return ptier_fail_errno(error, problem, "cannot write %s", path);
    }
    directory_of(path, directory);
    return ptier_sync_directory(directory, error);
}

/* The text without the lines of `name`, cut out in place. False: there are none. */
static bool
cut_lines(char *text, const char *name)
{
    bool found = false;
    char *to = text;
    for (char *line = text; *line;) {
        char copy[512], *words[WORDS_MAX];
        size_t length = strcspn(line, "\n");
        length += line[length] == '\n';
        (void)snprintf(copy, sizeof copy, "%.*s", (int)length, line); /* cut: a long comment */
        copy[strcspn(copy, "\n")] = '\0';
        if (split(copy, words) >= 2 && strcmp(words[1], name) == 0) {
            found = true;
        } else {
            memmove(to, line, length);
            to += length;
        }
        line += length;
    }
    *to = '\0';
    return found;
}

static char *
with_line(const char *text, const ptier_token_entry *entry)
{
    char digits[HASH_DIGITS + 1], expiry[PTIER_TOKEN_TIME_TEXT] = "", *made = NULL;
    assert(text); /* read_text gives one whenever it succeeds */
    size_t length = strlen(text);
    ptier_to_hex(digits, entry->hash, PTIER_TOKEN_HASH);
    if (entry->expires_s)
        ptier_token_time_text(entry->expires_s, expiry);
    if (asprintf(&made, "%s%s%s %s %s%s%s\n", text, length && text[length - 1] != '\n' ? "\n" : "",
                 ptier_role_name(entry->role), entry->name, digits, *expiry ? " " : "", expiry) < 0)
        return NULL;
    return made;
}

static const char new_file[] = "# Tokens of proxytierd: role, name, SHA-256 of the token, expiry. "
                               "Written by `proxytier token`.\n";

static ptier_status
change(const char *path, const ptier_token_entry *added, const char *removed, ptier_error *error)
{
    char directory[PTIER_PATH_MAX], *text = NULL, *changed = NULL;
    ptier_token_list list = {0};
    struct stat old;
    int lock;
    if (strlen(path) >= sizeof directory - 8)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "the path of the token file is too long");
    directory_of(path, directory);
    ptier_status status = lock_directory(directory, &lock, error);
    if (status != PTIER_OK)
        return status;
    status = read_text(path, geteuid() == 0, &text, &old, error);
    bool exists = status == PTIER_OK;
    if (status == PTIER_NOT_FOUND && added)
        status = (text = strdup(new_file))
                     ? PTIER_OK
                     : ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (status == PTIER_OK)
        status = list_of(path, text, &list, error);
    if (status == PTIER_OK && added && find(&list, added->name))
        status =
            ptier_fail(error, PTIER_ALREADY_EXISTS,
                       "%s has a token of this name: remove it first, or take another name", path);
    if (status == PTIER_OK && removed && !cut_lines(text, removed))
        status = ptier_fail(error, PTIER_NOT_FOUND, "%s has no token of this name", path);
    if (status == PTIER_OK && added && !(changed = with_line(text, added)))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (status == PTIER_OK)
        status = replace(path, exists ? &old : NULL, changed ? changed : text, error);
    free(changed);
    free(text);
    ptier_token_list_fini(&list);
    (void)close(lock); /* unlocks */
    return status;
}

ptier_status
ptier_token_file_add(const char *path, const ptier_token_entry *entry, ptier_error *error)
{
    return change(path, entry, NULL, error);
}

ptier_status
ptier_token_file_remove(const char *path, const char *name, ptier_error *error)
{
    return change(path, NULL, name, error);
}
