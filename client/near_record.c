#include "near_record.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL /* a key is short: calling would cost as much as hashing */
#include <xxhash.h>

#include "near_clock.h"

#define MS INT64_C(1000000)

/* The strings of a record, in the order in which they are kept. */
enum { STRINGS = 7 };

static void
list_strings(ptier_record *record, const char **strings[STRINGS])
{
    strings[0] = &record->key;
    strings[1] = &record->url;
    strings[2] = &record->username;
    strings[3] = &record->password;
    strings[4] = &record->username_token;
    strings[5] = &record->password_token;
    strings[6] = &record->source;
}

static size_t
text_bytes(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

static const char *
keep(char **room, const char *text)
{
    if (!text)
        return NULL;
    size_t bytes = strlen(text) + 1;
    const char *kept = memcpy(*room, text, bytes);
    *room += bytes;
    return kept;
}

ptier_near_record *
ptier_near_record_create(const ptier_record *record, bool absent, uint64_t as_of, int64_t expires)
{
    ptier_record copy = *record;
    const char **strings[STRINGS];
    if (absent) {
        ptier_record_init(&copy);
        copy.key = record->key;
    }
    size_t room = 0;
    list_strings(&copy, strings);
    for (size_t i = 0; i < STRINGS; i++)
        room += text_bytes(*strings[i]);
    for (size_t i = 0; i < copy.label_count; i++)
        room += text_bytes(copy.labels[i].name) + text_bytes(copy.labels[i].value);
    const size_t step = _Alignof(ptier_label);
    const size_t labels_at = (sizeof(ptier_near_record) + room + step - 1) / step * step;

    ptier_near_record *near = malloc(labels_at + copy.label_count * sizeof *copy.labels);
    if (!near)
        return NULL;
    memset(near, 0, sizeof *near);
    near->owned_by = PTIER_OWNED_BY_NEAR_RECORD;
    ptier_near_key key;
    ptier_near_key_of(&key, copy.key);
    near->key_length = (uint32_t)key.length;
    near->hash = key.hash;
    atomic_init(&near->refs, 1);
    near->bytes = (uint32_t)(malloc_usable_size(near) + sizeof(size_t));
    near->as_of = as_of;
    near->expires = expires;
    near->absent = absent;
    near->record = copy;
    ptier_label *labels = (ptier_label *)((char *)near + labels_at);
    char *text = near->room;
    list_strings(&near->record, strings);
    for (size_t i = 0; i < STRINGS; i++)
        *strings[i] = keep(&text, *strings[i]);
    for (size_t i = 0; i < copy.label_count; i++)
        labels[i] = (ptier_label){.name = keep(&text, copy.labels[i].name),
                                  .value = keep(&text, copy.labels[i].value)};
    near->record.labels = copy.label_count ? labels : NULL;
    return near;
}

void
ptier_near_record_destroy(ptier_near_record *record)
{
    explicit_bzero(record, malloc_usable_size(record));
    free(record);
}

void
ptier_near_record_keep(ptier_near_record *record)
{
    atomic_fetch_add_explicit(&record->refs, PTIER_NEAR_KEPT, memory_order_relaxed);
}

void
ptier_near_record_drop(ptier_near_record *record)
{
    const uint64_t change = record->given - PTIER_NEAR_KEPT;
    record->given = 0;
    if (atomic_fetch_add_explicit(&record->refs, change, memory_order_acq_rel) + change == 0)
        ptier_near_record_destroy(record);
}

void
ptier_near_record_view(const ptier_near_record *near, int64_t now, ptier_record *record)
{
    /* remaining_ttl_ms may be written meanwhile, for another. */
    const size_t own = offsetof(ptier_record, remaining_ttl_ms);
    const size_t rest = own + sizeof record->remaining_ttl_ms;
    memcpy(record, &near->record, own);
    record->remaining_ttl_ms = ptier_near_record_remaining(near, now);
    memcpy((char *)record + rest, (const char *)&near->record + rest, sizeof *record - rest);
}

int64_t
ptier_near_expiry(int64_t sent, int64_t remaining_ms)
{
    if (remaining_ms < 0)
        return PTIER_NEAR_FOREVER;
    int64_t left = (remaining_ms < PTIER_TTL_MAX_MS ? remaining_ms : PTIER_TTL_MAX_MS) * MS;
    left -= left > 0 ? MS : 0; /* the daemon's clock reads whole milliseconds, rounded down */
    return sent + left - left / (1000000 / PTIER_NEAR_DRIFT_PPM);
}

void
ptier_near_key_of(ptier_near_key *key, const char *text)
{
    key->text = text;
    key->length = strlen(text);
    key->hash = XXH3_64bits(text, key->length);
}
