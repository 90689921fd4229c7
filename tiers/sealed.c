#include "sealed.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

static ptier_sealed *
allocate(size_t username_bytes, size_t password_bytes)
{
    ptier_sealed *sealed = malloc(sizeof *sealed + username_bytes + password_bytes + 2);
    if (!sealed)
        return NULL;
    atomic_init(&sealed->refs, 1);
    sealed->username_bytes = (uint32_t)username_bytes;
    sealed->password_bytes = (uint32_t)password_bytes;
    return sealed;
}

static char *
password_room(ptier_sealed *sealed)
{
    return sealed->tokens + (sealed->username_bytes ? sealed->username_bytes + 1 : 0);
}

ptier_status
ptier_sealed_create(ptier_keyring *keyring, const ptier_entry *entry, ptier_sealed **out)
{
    const char *username = ptier_entry_username(entry);
    const char *password = ptier_entry_password(entry);
    *out = NULL;
    if (!username && !password)
        return PTIER_OK;
    ptier_sealed *sealed = allocate(username ? PTIER_TOKEN_LENGTH(strlen(username)) : 0,
                                    password ? PTIER_TOKEN_LENGTH(strlen(password)) : 0);
    if (!sealed)
        return PTIER_RESOURCE_EXHAUSTED;
    ptier_status status = PTIER_OK;
    if (username)
        status = ptier_keyring_seal(keyring, username, strlen(username), sealed->tokens);
    if (!status && password)
        status = ptier_keyring_seal(keyring, password, strlen(password), password_room(sealed));
    if (status) {
        free(sealed);
        return status;
    }
    *out = sealed;
    return PTIER_OK;
}

ptier_status
ptier_sealed_from_tokens(const char *username, const char *password, ptier_sealed **out)
{
    *out = NULL;
    if (!username && !password)
        return PTIER_OK;
    ptier_sealed *sealed =
        allocate(username ? strlen(username) : 0, password ? strlen(password) : 0);
    if (!sealed)
        return PTIER_RESOURCE_EXHAUSTED;
    if (username)
        memcpy(sealed->tokens, username, sealed->username_bytes + 1u);
    if (password)
        memcpy(password_room(sealed), password, sealed->password_bytes + 1u);
    *out = sealed;
    return PTIER_OK;
}

ptier_sealed *
ptier_sealed_retain(ptier_sealed *sealed)
{
    if (sealed)
        atomic_fetch_add_explicit(&sealed->refs, 1, memory_order_relaxed);
    return sealed;
}

void
ptier_sealed_release(ptier_sealed *sealed)
{
    if (sealed && atomic_fetch_sub_explicit(&sealed->refs, 1, memory_order_acq_rel) == 1)
        free(sealed);
}

ptier_status
ptier_sealed_open(ptier_keyring *keyring, const char *token, size_t length,
                  char plain[PTIER_CREDENTIAL_MAX + 1])
{
    char room[PTIER_TOKEN_LENGTH(PTIER_CREDENTIAL_MAX)];
    size_t plain_length = 0;
    if (length > sizeof room)
        return PTIER_DATA_LOSS;
    ptier_status status =
        ptier_keyring_open(keyring, token, length, room, sizeof room, &plain_length);
    if (!status && (plain_length > PTIER_CREDENTIAL_MAX || memchr(room, 0, plain_length)))
        status = PTIER_DATA_LOSS;
    if (!status) {
        memcpy(plain, room, plain_length);
        plain[plain_length] = 0;
    }
    OPENSSL_cleanse(room, plain_length); /* beyond it there is nothing of it: ptier_fernet_open */
    return status;
}
