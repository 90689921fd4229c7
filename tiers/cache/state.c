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
#include "hex.h"

#define STATE_NAME    "state"
#define STATE_VERSION 2
#define STATE_BYTES   1024
#define CHECK_LINE    (sizeof "check 0123456789abcdef\n" - 1)
#define KEY_TEXT      "proxytier-state"

ptier_status
ptier_random_id(uint8_t id[PTIER_ID_BYTES], ptier_error *error)
{
    if (getrandom(id, PTIER_ID_BYTES, 0) != PTIER_ID_BYTES)
        return ptier_fail(error, PTIER_UNAVAILABLE, "the kernel gives no random bytes");
    return PTIER_OK;
}

/* ---- writing ---- */

static size_t
format_keys(char *text, const ptier_state *state)
{
    char *at = text;
    for (size_t i = 0; i < state->key_count; i++) {
        if (i)
            *at++ = ',';
        ptier_to_hex(at, state->keys[i], PTIER_CHECK_BYTES);
        at += 2 * PTIER_CHECK_BYTES;
    }
    *at = 0;
    return (size_t)(at - text);
}

/* The whole file. Returns its length. */
static size_t
format_file(char text[STATE_BYTES], const ptier_state *state)
{
    char id[2 * PTIER_ID_BYTES + 1], keys[PTIER_STATE_KEYS_MAX * (2 * PTIER_CHECK_BYTES + 1)];
    ptier_to_hex(id, state->store_id, sizeof state->store_id);
    (void)format_keys(keys, state);
    int length = snprintf(text, STATE_BYTES,
                          "proxytier-state %d\nstore_id %s\nkeys %s\nreserved %" PRIu64
                          "\ntiers %" PRIu32 "\nboot %016" PRIx64 "\nclean %d\n",
                          STATE_VERSION, id, keys, state->reserved, state->tiers, state->boot_tag,
                          state->clean);
    length += snprintf(text + length, STATE_BYTES - (size_t)length, "check %016" PRIx64 "\n",
                       (uint64_t)XXH3_64bits(text, (size_t)length));
    return (size_t)length;
}

ptier_status
ptier_state_save(const char *directory, const ptier_state *state, ptier_error *error)
{
    char text[STATE_BYTES];
    return ptier_replace_file(directory, STATE_NAME, text, format_file(text, state), error);
}

/* ---- reading ---- */

static bool
check_fits(const char *text, size_t length)
{
    char line[CHECK_LINE + 1];
    if (length < CHECK_LINE)
        return false;
    size_t body = length - CHECK_LINE;
    (void)snprintf(line, sizeof line, "check %016" PRIx64 "\n", (uint64_t)XXH3_64bits(text, body));
    return memcmp(text + body, line, CHECK_LINE) == 0;
}

static bool
parse_keys(const char *text, ptier_state *state)
{
    for (const char *at = text; *at;) {
        if (state->key_count == PTIER_STATE_KEYS_MAX ||
            !ptier_from_hex(state->keys[state->key_count], at, PTIER_CHECK_BYTES))
            return false;
        state->key_count++;
        at += 2 * PTIER_CHECK_BYTES;
        at += *at == ',';
    }
    return true;
}

/* Version 1 knew one key, and nothing of runs. */
static bool
parse_version_1(const char *text, ptier_state *state)
{
    char id[33], key[17], reserved[21];
    if (sscanf(text,
               "proxytier-state 1\nstore_id %32[0-9a-f]\nkey %16[0-9a-f]\nreserved %20[0-9]\n", id,
               key, reserved) != 3 ||
        !ptier_from_hex(state->store_id, id, sizeof state->store_id) || !parse_keys(key, state))
        return false;
    state->reserved = strtoull(reserved, NULL, 10);
    return true;
}

static bool
parse_version_2(const char *text, ptier_state *state)
{
    char id[33], keys[PTIER_STATE_KEYS_MAX * 17], again[STATE_BYTES];
    unsigned clean;
    /* NOLINTNEXTLINE(cert-err34-c): what is out of range does not come out again the same */
    if (sscanf(text,
               "proxytier-state 2\nstore_id %32[0-9a-f]\nkeys %271[0-9a-f,]\nreserved %" SCNu64
               "\ntiers %" SCNu32 "\nboot %" SCNx64 "\nclean %u\n",
               id, keys, &state->reserved, &state->tiers, &state->boot_tag, &clean) != 6 ||
        !ptier_from_hex(state->store_id, id, sizeof state->store_id) || !parse_keys(keys, state))
        return false;
    state->clean = clean != 0;
    (void)format_file(again, state);
    return strcmp(text, again) == 0; /* only what we would write ourselves, to the byte */
}

static ptier_status
take_text(const char *text, size_t length, const char *path, ptier_state *state,
          ptier_state_condition *condition, ptier_error *error)
{
    unsigned version = 0;
    // NOLINTNEXTLINE(cert-err34-c): the check says that we wrote it
    bool sound = check_fits(text, length) && sscanf(text, "proxytier-state %u\n", &version) == 1;
    if (sound && version > STATE_VERSION)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "%s was written by a newer proxytier (version %u; this one knows %d): "
                          "use that one, or another data directory",
                          path, version, STATE_VERSION);
    sound = sound && (version == 1 ? parse_version_1(text, state) : parse_version_2(text, state));
    *condition = sound ? PTIER_STATE_SOUND : PTIER_STATE_DAMAGED;
    return PTIER_OK;
}

ptier_status
ptier_state_load(const char *directory, ptier_state *state, ptier_state_condition *condition,
                 ptier_error *error)
{
    char path[PTIER_PATH_MAX], text[STATE_BYTES];
    *condition = PTIER_STATE_MISSING;
    *state = (ptier_state){.reserved = 1};
    ptier_status status = ptier_random_id(state->store_id, error);
    (void)snprintf(path, sizeof path, "%s/" STATE_NAME, directory);
    if (status)
        return status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return PTIER_OK;
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length < 0)
        return ptier_fail_errno(error, errno, "cannot read %s", path);
    text[length] = 0;
    ptier_state found = {0};
    status = take_text(text, (size_t)length, path, &found, condition, error);
    if (!status && *condition == PTIER_STATE_SOUND)
        *state = found;
    return status;
}

/* ---- keys ---- */

ptier_status
ptier_state_check_keys(const ptier_state *state, ptier_keyring *keyring, const char *directory,
                       ptier_error *error)
{
    for (size_t i = 0; i < state->key_count; i++)
        if (!ptier_keyring_verify(keyring, KEY_TEXT, sizeof KEY_TEXT, state->keys[i]))
            return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                              "the data in %s was written with another key: give that one (as "
                              "previous key, if it was replaced)",
                              directory);
    return PTIER_OK;
}

ptier_status
ptier_state_add_key(ptier_state *state, ptier_keyring *keyring, bool *changed, ptier_error *error)
{
    uint8_t check[PTIER_CHECK_BYTES];
    *changed = false;
    ptier_status status = ptier_keyring_check(keyring, KEY_TEXT, sizeof KEY_TEXT, check);
    if (status)
        return ptier_fail(error, status, "the crypto library fails");
    for (size_t i = 0; i < state->key_count; i++)
        if (memcmp(state->keys[i], check, sizeof check) == 0)
            return PTIER_OK;
    if (state->key_count == PTIER_STATE_KEYS_MAX)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "the records need %d keys already: rotate them before a further one",
                          PTIER_STATE_KEYS_MAX);
    memcpy(state->keys[state->key_count++], check, sizeof check);
    *changed = true;
    return PTIER_OK;
}
