#include "cache/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

#include "file.h"

#define STATE_NAME    "state"
#define STATE_VERSION 1
#define STATE_BYTES   256
#define KEY_TEXT      "proxytier-state"

ptier_status
ptier_random_id(uint8_t id[PTIER_ID_BYTES], ptier_error *error)
{
    if (getrandom(id, PTIER_ID_BYTES, 0) != PTIER_ID_BYTES)
        return ptier_fail(error, PTIER_UNAVAILABLE, "the kernel gives no random bytes");
    return PTIER_OK;
}

static void
to_hex(char *text, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static bool
from_hex(uint8_t *bytes, const char *text, size_t count)
{
    if (strlen(text) != 2 * count)
        return false;
    for (size_t i = 0; i < count; i++) {
        const char digits[] = {text[2 * i], text[2 * i + 1], 0};
        bytes[i] = (uint8_t)strtoul(digits, NULL, 16); /* hex digits only: sscanf saw to it */
    }
    return true;
}

/* The text, without its check. */
static int
format_state(char *text, size_t room, const ptier_state *state)
{
    char id[2 * PTIER_ID_BYTES + 1], key[2 * PTIER_CHECK_BYTES + 1];
    to_hex(id, state->store_id, sizeof state->store_id);
    to_hex(key, state->key_check, sizeof state->key_check);
    return snprintf(text, room, "proxytier-state %d\nstore_id %s\nkey %s\nreserved %" PRIu64 "\n",
                    STATE_VERSION, id, key, state->reserved);
}

/* The whole file: the text and its check. */
static int
format_file(char *text, size_t room, const ptier_state *state)
{
    int length = format_state(text, room, state);
    return length + snprintf(text + length, room - (size_t)length, "check %016" PRIx64 "\n",
                             (uint64_t)XXH3_64bits(text, (size_t)length));
}

ptier_status
ptier_state_save(const char *directory, const ptier_state *state, ptier_error *error)
{
    char text[STATE_BYTES];
    int length = format_file(text, sizeof text, state);
    return ptier_replace_file(directory, STATE_NAME, text, (size_t)length, error);
}

/* Only what we would write ourselves, to the byte. */
static bool
parse_state(const char *text, ptier_state *state)
{
    char id[2 * PTIER_ID_BYTES + 1], key[2 * PTIER_CHECK_BYTES + 1], reserved[21];
    char again[STATE_BYTES];
    if (sscanf(text,
               "proxytier-state %*[0-9]\nstore_id %32[0-9a-f]\nkey %16[0-9a-f]\nreserved %20[0-9]",
               id, key, reserved) != 3 ||
        !from_hex(state->store_id, id, sizeof state->store_id) ||
        !from_hex(state->key_check, key, sizeof state->key_check))
        return false;
    state->reserved = strtoull(reserved, NULL, 10);
    (void)format_file(again, sizeof again, state);
    return strcmp(text, again) == 0;
}

static ptier_status
sign_with_key(ptier_state *state, ptier_keyring *keyring, ptier_error *error)
{
    ptier_status status = ptier_keyring_check(keyring, KEY_TEXT, sizeof KEY_TEXT, state->key_check);
    return status ? ptier_fail(error, status, "the crypto library fails") : PTIER_OK;
}

static ptier_status
make_state(const char *directory, ptier_keyring *keyring, ptier_state *state, ptier_error *error)
{
    state->reserved = 1;
    ptier_status status = ptier_random_id(state->store_id, error);
    if (!status)
        status = sign_with_key(state, keyring, error);
    return status ? status : ptier_state_save(directory, state, error);
}

ptier_status
ptier_state_load(const char *directory, ptier_keyring *keyring, ptier_state *state,
                 ptier_error *error)
{
    char path[PTIER_PATH_MAX], text[STATE_BYTES];
    (void)snprintf(path, sizeof path, "%s/" STATE_NAME, directory);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return make_state(directory, keyring, state, error);
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length < 0)
        return ptier_fail_errno(error, errno, "cannot read %s", path);
    text[length] = 0;
    if (!parse_state(text, state))
        return ptier_fail(
            error, PTIER_DATA_LOSS,
            "%s is damaged or of a newer version: restore it, or remove it to start a new history",
            path);
    if (!ptier_keyring_verify(keyring, KEY_TEXT, sizeof KEY_TEXT, state->key_check))
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "the data in %s was written with another key: give that one (as previous "
                          "key, if it was replaced)",
                          directory);
    return PTIER_OK;
}

bool
ptier_state_exists(const char *directory)
{
    char path[PTIER_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/" STATE_NAME, directory);
    return access(path, F_OK) == 0;
}
