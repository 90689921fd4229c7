/*
 * Keys and the OpenSSL contexts that use them. Contexts cannot be shared between threads and making
 * one costs more than a token, so that there are a few lanes of them, each behind its own short
 * mutex; a thread takes the lane of its CPU.
 */
#include "keyring.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "base64url.h"
#include "fernet.h"
#include "guarded.h"

#define LANES           8
#define PLAIN_MAX       ((size_t)1 << 20)
#define CHECK_KEY_BYTES 16
#define CHECK_KEY_LABEL "proxytier record check v1"
#define RANDOM_PAGE     4096
#define RANDOM_BYTES    ((RANDOM_PAGE - 16) / PTIER_FERNET_IV_BYTES * PTIER_FERNET_IV_BYTES)

/* IVs in stock. One page, emptied by the kernel in a forked child, so that parent and child never
 * share an IV. */
typedef struct random_page {
    uint32_t left; /* bytes; a wiped page has none */
    uint8_t bytes[RANDOM_BYTES];
} random_page;
_Static_assert(sizeof(random_page) <= RANDOM_PAGE, "wiped as one page");

typedef struct key_lane {
    _Alignas(64) pthread_mutex_t mutex;
    ptier_fernet *fernet; /* one a key */
    EVP_MAC_CTX *check;
    random_page *random;
} key_lane;

struct ptier_keyring { /* guarded memory */
    key_lane lanes[LANES];
    size_t count;
    bool random_in_stock; /* the kernel does wipe on fork */
    void *random_pages;
    ptier_fernet_algorithms algorithms;
    EVP_MAC *siphash;
    uint8_t check_keys[PTIER_KEYS_MAX][CHECK_KEY_BYTES];
    ptier_fernet fernets[]; /* count for each key_lane */
};

/* ---- lanes ---- */

static key_lane *
lane_take(ptier_keyring *keyring)
{
    int cpu = sched_getcpu();
    size_t first = cpu > 0 ? (size_t)cpu % LANES : 0;
    for (size_t i = 0; i < LANES; i++) {
        key_lane *candidate = &keyring->lanes[(first + i) % LANES];
        if (pthread_mutex_trylock(&candidate->mutex) == 0)
            return candidate;
    }
    pthread_mutex_lock(&keyring->lanes[first].mutex);
    return &keyring->lanes[first];
}

static void
lane_give(key_lane *lane)
{
    pthread_mutex_unlock(&lane->mutex);
}

static bool
draw_iv(ptier_keyring *keyring, key_lane *lane, uint8_t iv[PTIER_FERNET_IV_BYTES])
{
    if (!keyring->random_in_stock)
        return RAND_bytes(iv, PTIER_FERNET_IV_BYTES) == 1;
    random_page *page = lane->random;
    if (page->left < PTIER_FERNET_IV_BYTES) {
        if (RAND_bytes(page->bytes, RANDOM_BYTES) != 1)
            return false;
        page->left = RANDOM_BYTES;
    }
    page->left -= PTIER_FERNET_IV_BYTES;
    memcpy(iv, page->bytes + page->left, PTIER_FERNET_IV_BYTES);
    return true;
}

/* ---- life cycle ---- */

static ptier_status
decode_key(const char *text, size_t number, uint8_t key[PTIER_FERNET_KEY_BYTES + 1],
           ptier_error *error)
{
    size_t length;
    if (text && strnlen(text, PTIER_KEY_TEXT + 1) == PTIER_KEY_TEXT &&
        ptier_base64_decode(text, PTIER_KEY_TEXT, key, &length) && length == PTIER_FERNET_KEY_BYTES)
        return PTIER_OK;
    if (number > 0)
        return ptier_fail(
            error, PTIER_INVALID_ARGUMENT,
            "previous key %zu is not a Fernet key (44 characters of URL-safe base64): "
            "give it as it was, or leave it out",
            number);
    return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                      "the encryption key is not a Fernet key (44 characters of URL-safe base64): "
                      "make one with `proxytier keygen`");
}

static bool
derive_check_key(const uint8_t key[PTIER_FERNET_KEY_BYTES], uint8_t check_key[CHECK_KEY_BYTES])
{
    uint8_t mac[32];
    size_t written;
    bool ok = EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, PTIER_FERNET_KEY_BYTES,
                        (const unsigned char *)CHECK_KEY_LABEL, sizeof CHECK_KEY_LABEL - 1, mac,
                        sizeof mac, &written) != NULL;
    memcpy(check_key, mac, CHECK_KEY_BYTES);
    OPENSSL_cleanse(mac, sizeof mac);
    return ok;
}

static bool
make_random_pages(ptier_keyring *keyring)
{
    void *pages = mmap(NULL, (size_t)LANES * RANDOM_PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return false;
    keyring->random_pages = pages;
    keyring->random_in_stock = madvise(pages, (size_t)LANES * RANDOM_PAGE, MADV_WIPEONFORK) == 0;
    for (size_t i = 0; i < LANES; i++)
        keyring->lanes[i].random = (void *)((char *)pages + i * RANDOM_PAGE);
    return true;
}

static bool
make_lane(ptier_keyring *keyring, key_lane *lane)
{
    size_t size = PTIER_CHECK_BYTES;
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size),
        OSSL_PARAM_construct_end(),
    };
    lane->check = EVP_MAC_CTX_new(keyring->siphash);
    return lane->check && EVP_MAC_CTX_set_params(lane->check, params);
}

static size_t
keyring_bytes(size_t count)
{
    return sizeof(ptier_keyring) + LANES * count * sizeof(ptier_fernet);
}

/* Everything that does not depend on the keys. */
static ptier_keyring *
allocate(size_t count)
{
    ptier_keyring *keyring = ptier_guarded_alloc(keyring_bytes(count));
    if (!keyring)
        return NULL;
    keyring->count = count;
    for (size_t i = 0; i < LANES; i++) {
        pthread_mutex_init(&keyring->lanes[i].mutex, NULL);
        keyring->lanes[i].fernet = keyring->fernets + i * count;
    }
    keyring->algorithms.aes = EVP_CIPHER_fetch(NULL, "AES-128-CBC", NULL);
    keyring->siphash = EVP_MAC_fetch(NULL, "SIPHASH", NULL);
    bool ok = keyring->algorithms.aes && keyring->siphash && make_random_pages(keyring);
    for (size_t i = 0; ok && i < LANES; i++)
        ok = make_lane(keyring, &keyring->lanes[i]);
    if (ok)
        return keyring;
    ptier_keyring_destroy(keyring);
    return NULL;
}

ptier_status
ptier_keyring_create(const char *const *keys, size_t count, ptier_keyring **keyring,
                     ptier_error *error)
{
    if (count == 0 || count > PTIER_KEYS_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "give between 1 and %d encryption keys",
                          PTIER_KEYS_MAX);
    ptier_keyring *made = allocate(count);
    if (!made)
        return ptier_fail(error, PTIER_INTERNAL, "the crypto library (OpenSSL) does not start");
    uint8_t key[PTIER_FERNET_KEY_BYTES + 1];
    ptier_status status = PTIER_OK;
    for (size_t i = 0; status == PTIER_OK && i < count; i++) {
        status = decode_key(keys[i], i, key, error);
        bool ok = status == PTIER_OK && derive_check_key(key, made->check_keys[i]);
        for (size_t l = 0; ok && l < LANES; l++)
            ok = ptier_fernet_init(&made->lanes[l].fernet[i], &made->algorithms, key);
        if (status == PTIER_OK && !ok)
            status =
                ptier_fail(error, PTIER_INTERNAL, "the crypto library (OpenSSL) does not start");
    }
    OPENSSL_cleanse(key, sizeof key);
    if (status == PTIER_OK)
        *keyring = made;
    else
        ptier_keyring_destroy(made);
    return status;
}

void
ptier_keyring_destroy(ptier_keyring *keyring)
{
    if (!keyring)
        return;
    for (size_t i = 0; i < LANES * keyring->count; i++)
        ptier_fernet_fini(&keyring->fernets[i]);
    for (size_t i = 0; i < LANES; i++) {
        EVP_MAC_CTX_free(keyring->lanes[i].check);
        pthread_mutex_destroy(&keyring->lanes[i].mutex);
    }
    EVP_CIPHER_free(keyring->algorithms.aes);
    EVP_MAC_free(keyring->siphash);
    if (keyring->random_pages)
        munmap(keyring->random_pages, (size_t)LANES * RANDOM_PAGE);
    ptier_guarded_free(keyring, keyring_bytes(keyring->count));
}

/* ---- use ---- */

size_t
ptier_keyring_count(const ptier_keyring *keyring)
{
    return keyring->count;
}

ptier_status
ptier_keyring_seal(ptier_keyring *keyring, const void *plain, size_t length, char *token)
{
    if (length > PLAIN_MAX)
        return PTIER_INVALID_ARGUMENT;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now); /* the token says whole seconds */
    uint8_t iv[PTIER_FERNET_IV_BYTES];
    key_lane *lane = lane_take(keyring);
    bool ok = draw_iv(keyring, lane, iv) &&
              ptier_fernet_seal(&lane->fernet[0], iv, (uint64_t)now.tv_sec, plain, length, token);
    lane_give(lane);
    return ok ? PTIER_OK : PTIER_INTERNAL;
}

ptier_status
ptier_keyring_open_which(ptier_keyring *keyring, const char *token, size_t token_length,
                         void *plain, size_t room, size_t *length, int *which)
{
    size_t raw_length;
    *length = 0;
    *which = -1;
    if (token_length > PTIER_TOKEN_LENGTH(PLAIN_MAX) || room < token_length / 4 * 3 ||
        !ptier_base64_decode(token, token_length, plain, &raw_length))
        return PTIER_DATA_LOSS;
    bool ok = false;
    key_lane *lane = lane_take(keyring);
    for (size_t i = 0; i < keyring->count; i++) {
        if (!ptier_fernet_signed(&lane->fernet[i], plain, raw_length))
            continue;
        ok = ptier_fernet_open(&lane->fernet[i], plain, raw_length, length);
        if (ok)
            *which = (int)i;
        break;
    }
    lane_give(lane);
    return ok ? PTIER_OK : PTIER_DATA_LOSS;
}

ptier_status
ptier_keyring_open(ptier_keyring *keyring, const char *token, size_t token_length, void *plain,
                   size_t room, size_t *length)
{
    int which;
    return ptier_keyring_open_which(keyring, token, token_length, plain, room, length, &which);
}

/* The key goes in each time: OpenSSL 3.0's SipHash does not start anew without one. */
static bool
siphash(key_lane *lane, const uint8_t key[CHECK_KEY_BYTES], const void *data, size_t length,
        uint8_t check[PTIER_CHECK_BYTES])
{
    size_t written;
    return EVP_MAC_init(lane->check, key, CHECK_KEY_BYTES, NULL) &&
           EVP_MAC_update(lane->check, data, length) &&
           EVP_MAC_final(lane->check, check, &written, PTIER_CHECK_BYTES) &&
           written == PTIER_CHECK_BYTES;
}

ptier_status
ptier_keyring_check(ptier_keyring *keyring, const void *data, size_t length,
                    uint8_t check[PTIER_CHECK_BYTES])
{
    key_lane *lane = lane_take(keyring);
    bool ok = siphash(lane, keyring->check_keys[0], data, length, check);
    lane_give(lane);
    return ok ? PTIER_OK : PTIER_INTERNAL;
}

int
ptier_keyring_verify_which(ptier_keyring *keyring, const void *data, size_t length,
                           const uint8_t check[PTIER_CHECK_BYTES])
{
    int which = -1;
    uint8_t made[PTIER_CHECK_BYTES];
    key_lane *lane = lane_take(keyring);
    for (size_t i = 0; which < 0 && i < keyring->count; i++)
        if (siphash(lane, keyring->check_keys[i], data, length, made) &&
            CRYPTO_memcmp(made, check, PTIER_CHECK_BYTES) == 0)
            which = (int)i;
    lane_give(lane);
    return which;
}

bool
ptier_keyring_verify(ptier_keyring *keyring, const void *data, size_t length,
                     const uint8_t check[PTIER_CHECK_BYTES])
{
    return ptier_keyring_verify_which(keyring, data, length, check) >= 0;
}
