#include "cache/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

#include "file.h"

#define STATE_NAME    "state"
#define STATE_VERSION 1

ptier_status
ptier_random_id(uint8_t id[PTIER_ID_BYTES], ptier_error *error)
{
    if (getrandom(id, PTIER_ID_BYTES, 0) != PTIER_ID_BYTES)
        return ptier_fail(error, PTIER_UNAVAILABLE, "the kernel gives no random bytes");
    return PTIER_OK;
}

/* The text, without its check. */
static int
format_state(char *text, size_t room, const ptier_state *state)
{
    char id[2 * PTIER_ID_BYTES + 1];
    for (size_t i = 0; i < PTIER_ID_BYTES; i++)
        (void)snprintf(id + 2 * i, 3, "%02x", state->store_id[i]);
    return snprintf(text, room, "proxytier-state %d\nstore_id %s\nreserved %" PRIu64 "\n", STATE_VERSION,
                    id, state->reserved);
}

ptier_status
ptier_state_save(const char *directory, const ptier_state *state, ptier_error *error)
{
    char text[256];
    int length = format_state(text, sizeof text, state);
    length += snprintf(text + length, sizeof text - (size_t)length, "check %016" PRIx64 "\n",
                       (uint64_t)XXH3_64bits(text, (size_t)length));
    return ptier_replace_file(directory, STATE_NAME, text, (size_t)length, error);
}

static bool
parse_state(const char *text, ptier_state *state)
{
    char id[2 * PTIER_ID_BYTES + 1], again[256];
    int version = 0;
    uint64_t check = 0;
    if (sscanf(text, "proxytier-state %d\nstore_id %32[0-9a-f]\nreserved %" SCNu64 "\ncheck %" SCNx64, &version,
               id, &state->reserved, &check) != 4 ||
        version != STATE_VERSION || strlen(id) != 2 * PTIER_ID_BYTES)
        return false;
    for (size_t i = 0; i < PTIER_ID_BYTES; i++) {
        unsigned byte;
        (void)sscanf(id + 2 * i, "%2x", &byte); /* hex digits, checked above */
        state->store_id[i] = (uint8_t)byte;
    }
    int length = format_state(again, sizeof again, state);
    return XXH3_64bits(again, (size_t)length) == check;
}

ptier_status
ptier_state_load(const char *directory, ptier_state *state, ptier_error *error)
{
    char path[PTIER_PATH_MAX], text[256];
    (void)snprintf(path, sizeof path, "%s/" STATE_NAME, directory);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        state->reserved = 1;
        ptier_status status = ptier_random_id(state->store_id, error);
        return status ? status : ptier_state_save(directory, state, error);
    }
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length < 0)
        return ptier_fail_errno(error, errno, "cannot read %s", path);
    text[length] = 0;
    if (!parse_state(text, state))
        return ptier_fail(error, PTIER_DATA_LOSS,
                          "%s is damaged or of a newer version: restore it, or remove it to start a new history",
                          path);
    return PTIER_OK;
}
