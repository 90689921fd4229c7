/* Making, reading and keeping the key that is in a file. Stateless, thread-safe. */
#include "keyring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "base64url.h"
#include "fernet.h"
#include "file.h"

#define FILE_MAX 256 /* a key, a line break, and blanks that an editor left */
#define LIST_MAX (PTIER_KEYS_MAX * (size_t)64)

ptier_status
ptier_key_generate(char key[PTIER_KEY_TEXT + 1])
{
    uint8_t bytes[PTIER_FERNET_KEY_BYTES];
    if (RAND_priv_bytes(bytes, sizeof bytes) != 1)
        return PTIER_INTERNAL;
    ptier_base64_encode(bytes, sizeof bytes, key);
    key[PTIER_KEY_TEXT] = '\0';
    OPENSSL_cleanse(bytes, sizeof bytes);
    return PTIER_OK;
}

static ptier_status
fail_errno(ptier_error *error, const char *what, const char *path)
{
    int code = errno;
    char text[96];
    ptier_status status = PTIER_UNAVAILABLE;
    if (code == EACCES || code == EPERM || code == EROFS)
        status = PTIER_PERMISSION_DENIED;
    else if (code == ENOENT || code == ENOTDIR)
        status = PTIER_NOT_FOUND;
    else if (code == ENOSPC || code == EDQUOT || code == EMFILE || code == ENFILE)
        status = PTIER_RESOURCE_EXHAUSTED;
    return ptier_fail(error, status, "cannot %s key file %s: %s", what, path,
                      strerror_r(code, text, sizeof text));
}

static bool
take_key(const char *text, size_t length, char key[PTIER_KEY_TEXT + 1])
{
    while (length && strchr(" \t\r\n", text[length - 1]))
        length--;
    uint8_t bytes[PTIER_FERNET_KEY_BYTES + 1];
    size_t decoded;
    bool ok = length == PTIER_KEY_TEXT && ptier_base64_decode(text, length, bytes, &decoded) &&
              decoded == PTIER_FERNET_KEY_BYTES;
    OPENSSL_cleanse(bytes, sizeof bytes);
    if (ok) {
        memcpy(key, text, PTIER_KEY_TEXT);
        key[PTIER_KEY_TEXT] = '\0';
    }
    return ok;
}

/* How private a file must be. */
typedef struct privacy {
    mode_t forbidden;
    bool any_owner; /* who can read it may have it; else it is root's or the user's own */
    const char *cure;
} privacy;

static const privacy of_key_file = {077, true, "chmod 600 it"};
/* systemd: 0400, or 0440 and root's with an access control list for the user, which shows as the
 * group's bits. */
static const privacy of_credential = {037, false, "owner and group may read it, nobody else"};

static ptier_status
check_privacy(int file, const char *path, const privacy *wanted, ptier_error *error)
{
    struct stat info;
    if (fstat(file, &info) != 0)
        return fail_errno(error, "read", path);
    if (!S_ISREG(info.st_mode))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "key file %s is not a regular file", path);
    if (info.st_mode & wanted->forbidden)
        return ptier_fail(error, PTIER_PERMISSION_DENIED,
                          "key file %s is open to other users (mode %03o): %s", path,
                          (unsigned)info.st_mode & 0777, wanted->cure);
    if (!wanted->any_owner && info.st_uid != 0 && info.st_uid != geteuid())
        return ptier_fail(error, PTIER_PERMISSION_DENIED,
                          "key file %s belongs to another user: chown it", path);
    return PTIER_OK;
}

/* The whole text, of at most `room` bytes; wipe it. */
static ptier_status
read_private(const char *path, const privacy *wanted, char *text, size_t room, size_t *length,
             ptier_error *error)
{
    /* O_NONBLOCK: a FIFO by that name must not hang the start. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (file < 0)
        return fail_errno(error, "read", path);
    ptier_status status = check_privacy(file, path, wanted, error);
    if (status == PTIER_OK) {
        ssize_t got = ptier_read_all(file, text, room);
        if (got < 0)
            status = fail_errno(error, "read", path);
        else
            *length = (size_t)got;
    }
    (void)close(file); /* only read from */
    return status;
}

static ptier_status
read_key_file(const char *path, char key[PTIER_KEY_TEXT + 1], ptier_error *error)
{
    char text[FILE_MAX];
    size_t length = 0;
    ptier_status status = read_private(path, &of_key_file, text, sizeof text, &length, error);
    if (status == PTIER_OK && !take_key(text, length, key))
        status = ptier_fail(error, PTIER_INVALID_ARGUMENT,
                            "key file %s does not hold one line with a Fernet key (44 characters "
                            "of URL-safe base64): restore it, or make one with `proxytier keygen`",
                            path);
    OPENSSL_cleanse(text, sizeof text);
    return status;
}

/* Keys between line breaks and commas. False: what is there is no key, or there are too many. */
static bool
take_keys(const char *text, size_t length, ptier_key_list *list)
{
    const char *end = text + length;
    list->count = 0;
    for (const char *at = text; at < end; at++) {
        const char *from = at;
        while (at < end && *at != '\n' && *at != ',')
            at++;
        while (from < at && strchr(" \t\r", *from))
            from++;
        if (from == at)
            continue;
        if (list->count == PTIER_KEYS_MAX ||
            !take_key(from, (size_t)(at - from), list->keys[list->count]))
            return false;
        list->count++;
    }
    return list->count > 0;
}

ptier_status
ptier_key_credential(const char *path, ptier_key_list *list, ptier_error *error)
{
    char text[LIST_MAX];
    size_t length = 0;
    ptier_status status = read_private(path, &of_credential, text, sizeof text, &length, error);
    if (status == PTIER_OK && !take_keys(text, length, list))
        status = ptier_fail(error, PTIER_INVALID_ARGUMENT,
                            "credential %s does not hold Fernet keys (44 characters of URL-safe "
                            "base64), one a line, at most %d",
                            path, PTIER_KEYS_MAX);
    OPENSSL_cleanse(text, sizeof text);
    if (status != PTIER_OK)
        OPENSSL_cleanse(list, sizeof *list);
    return status;
}

static bool
write_key(int file, const char *key)
{
    char line[PTIER_KEY_TEXT + 2];
    memcpy(line, key, PTIER_KEY_TEXT);
    line[PTIER_KEY_TEXT] = '\n';
    size_t size = PTIER_KEY_TEXT + 1, done = 0;
    while (done < size) {
        ssize_t put = write(file, line + done, size - done);
        if (put < 0 && errno != EINTR)
            break;
        done += put > 0 ? (size_t)put : 0;
    }
    OPENSSL_cleanse(line, sizeof line);
    return done == size && fsync(file) == 0;
}

static bool
sync_directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *directory = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (!directory)
        return false;
    int file = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(directory);
    bool ok = file >= 0 && fsync(file) == 0;
    if (file >= 0)
        (void)close(file); /* nothing was written through it */
    return ok;
}

/* A whole key appears under the name or none: written aside, then linked, which never replaces
 * another's. */
static ptier_status
create_key_file(const char *path, ptier_error *error)
{
    char *aside;
    if (asprintf(&aside, "%s.XXXXXX", path) < 0)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    char key[PTIER_KEY_TEXT + 1];
    ptier_status status = PTIER_OK;
    int file = mkostemp(aside, O_CLOEXEC); /* mode 0600 */
    if (file < 0) {
        status = fail_errno(error, "create", path);
        goto out;
    }
    if (ptier_key_generate(key) != PTIER_OK)
        status = ptier_fail(error, PTIER_INTERNAL, "no random bytes for a new key");
    else if (!write_key(file, key) || (link(aside, path) != 0 && errno != EEXIST))
        status = fail_errno(error, "create", path);
    (void)close(file);   /* fsynced, or failed already */
    (void)unlink(aside); /* worst case an orphan with a key nobody uses */
    if (status == PTIER_OK && !sync_directory_of(path))
        status = fail_errno(error, "create", path);
    OPENSSL_cleanse(key, sizeof key);
out:
    free(aside);
    return status;
}

ptier_status
ptier_key_file(const char *path, bool create, char key[PTIER_KEY_TEXT + 1], ptier_error *error)
{
    ptier_status status = read_key_file(path, key, error);
    if (status != PTIER_NOT_FOUND || !create)
        return status;
    status = create_key_file(path, error);
    return status == PTIER_OK ? read_key_file(path, key, error) : status;
}
