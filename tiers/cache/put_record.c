/*
 * What a record becomes: checked, its key derived, merged with what is cached, encrypted. Needs no
 * lock; the result may be out of date by the time it is made visible (put.c looks).
 */
#include "cache/put_item.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

void
ptier_put_item_finish(ptier_put_item *item, ptier_put_outcome outcome, const char *message)
{
    item->done = true;
    item->result.outcome = outcome;
    strcpy(item->result.key, item->key); /* of the same size */
    size_t length = strlen(message);
    if (length >= sizeof item->result.message)
        length = sizeof item->result.message - 1;
    memcpy(item->result.message, message, length);
    item->result.message[length] = '\0';
}

/* ---- input ---- */

static bool
valid_text(const char *text, size_t limit)
{
    size_t length = strnlen(text, limit + 1);
    if (length > limit)
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return true;
}

static int
compare_labels(const void *a, const void *b)
{
    return strcmp(((const ptier_label *)a)->name, ((const ptier_label *)b)->name);
}

static const char *
take_labels(ptier_put_item *item)
{
    const ptier_record *r = item->record;
    if (r->label_count > PTIER_LABELS_MAX)
        return "too many labels: at most 32";
    for (size_t i = 0; i < r->label_count; i++) {
        if (!*r->labels[i].name || !valid_text(r->labels[i].name, PTIER_LABEL_NAME_MAX))
            return "label names have 1 to 64 bytes without control characters";
        if (!valid_text(r->labels[i].value, PTIER_LABEL_VALUE_MAX))
            return "label values have at most 256 bytes without control characters";
        item->labels[i] = r->labels[i];
    }
    if (r->label_count == 0)
        return NULL;
    qsort(item->labels, r->label_count, sizeof *item->labels, compare_labels);
    for (size_t i = 1; i < r->label_count; i++)
        if (strcmp(item->labels[i - 1].name, item->labels[i].name) == 0)
            return "a label name appears twice";
    return NULL;
}

static const char *
take_credential(ptier_cache *cache, const char *plain, const char *token, char *into, bool *has)
{
    if (plain && *plain) {
        if (!valid_text(plain, PTIER_CREDENTIAL_MAX))
            return "credentials have at most 512 bytes without control characters";
        strcpy(into, plain);
        *has = true;
    } else if (token && *token) {
        if (!cache->keyring)
            return "encrypted credentials need the key they were encrypted with";
        if (ptier_sealed_open(cache->keyring, token, strlen(token), into))
            return "credentials cannot be decrypted: no key of this cache made them";
        *has = true;
    }
    return NULL;
}

static const char *
check_numbers(const ptier_record *r)
{
    if (r->ttl_ms != PTIER_TTL_DEFAULT && (r->ttl_ms < 0 || r->ttl_ms > PTIER_TTL_MAX_MS))
        return "the TTL must be 0 (never expires) to 100 years";
    if (r->fetch_time_ms < 0 || r->expires_at_ms < 0 || r->last_access_ms < 0)
        return "times are milliseconds since 1970, not negative";
    if ((unsigned)r->health > PTIER_HEALTH_UNKNOWN)
        return "unknown health word";
    return NULL;
}

static const char *
take_record(ptier_cache *cache, ptier_put_item *item, ptier_error *error)
{
    const ptier_record *r = item->record;
    if (!r->url || ptier_url_parse(r->url, "http", &item->url, error))
        return r->url ? error->message : "a record needs a URL: scheme://host:port";
    const char *wrong = take_credential(cache, r->username, r->username_token, item->url.username,
                                        &item->url.has_username);
    if (!wrong)
        wrong = take_credential(cache, r->password, r->password_token, item->url.password,
                                &item->url.has_password);
    if (!wrong && r->source && !valid_text(r->source, PTIER_SOURCE_MAX))
        wrong = "the source has at most 128 bytes without control characters";
    if (!wrong)
        wrong = check_numbers(r);
    if (!wrong)
        wrong = take_labels(item);
    if (wrong)
        return wrong;
    item->derived = !r->key || !*r->key;
    if (item->derived)
        cache->derive_key(item->url.url, item->url.username, false, item->key);
    else if (valid_text(r->key, PTIER_KEY_MAX))
        strcpy(item->key, r->key);
    else
        return "keys have 1 to 256 bytes without control characters";
    item->hash = cache->hash_key(item->key);
    return NULL;
}

void
ptier_put_item_take(ptier_cache *cache, ptier_put_item *item, const ptier_record *record)
{
    ptier_error error;
    item->record = record;
    item->old = item->hidden = item->entry = NULL;
    item->sealed = NULL;
    item->done = item->absent = false;
    item->key[0] = item->result.key[0] = item->result.message[0] = '\0';
    item->result.revision = 0;
    item->result.outcome = PTIER_PUT_REJECTED;
    const char *wrong = take_record(cache, item, &error);
    if (wrong)
        ptier_put_item_finish(item, PTIER_PUT_REJECTED, wrong);
}

void
ptier_put_item_drop(ptier_put_item *item)
{
    ptier_entry_release(item->old);
    ptier_entry_release(item->hidden);
    ptier_entry_release(item->entry);
    ptier_sealed_release(item->sealed);
    ptier_url_wipe(&item->url);
}

/* ---- merging ---- */

static bool
same_proxy(const ptier_put_item *item, const ptier_entry *entry)
{
    const char *username = ptier_entry_username(entry);
    return strcmp(item->url.url, ptier_entry_url(entry)) == 0 &&
           strcmp(item->url.username, username ? username : "") == 0;
}

/* Finds what is cached under the key; a derived key that another proxy has is replaced by the long
 * one. */
static ptier_status
load_old(ptier_cache *cache, ptier_put_item *item)
{
    ptier_entry_release(item->old);
    ptier_entry_release(item->hidden);
    item->old = item->hidden = NULL;
    if (item->absent)
        return PTIER_OK;
    ptier_status status = ptier_load_current(cache, item->key, item->hash, &item->old, NULL);
    if (status == PTIER_OK && item->derived && !same_proxy(item, item->old)) {
        ptier_entry_release(item->old);
        item->old = NULL;
        item->derived = false;
        cache->derive_key(item->url.url, item->url.username, true, item->key);
        item->hash = cache->hash_key(item->key);
        status = ptier_load_current(cache, item->key, item->hash, &item->old, NULL);
    }
    if (status == PTIER_OK || status == PTIER_NOT_FOUND)
        return PTIER_OK;
    /* A disk that cannot be read does not keep a put from being made: it replaces what is hidden.
     */
    item->hidden = ptier_blind_current(cache, item->key, item->hash);
    return item->hidden ? PTIER_OK : status;
}

static int64_t
default_ttl(const ptier_cache *cache, const char *source)
{
    for (size_t i = 0; source && i < cache->options.source_ttl_count; i++)
        if (strcmp(cache->source_ttls[i].source, source) == 0)
            return cache->source_ttls[i].ttl_ms;
    return cache->options.default_ttl_ms;
}

/* Stated ones are exact; the others are shortened by a share that differs between keys and puts. */
static int64_t
ttl_of(const ptier_cache *cache, const ptier_record *r, uint64_t hash, int64_t wall_ms)
{
    if (r->ttl_ms != PTIER_TTL_DEFAULT)
        return r->ttl_ms;
    int64_t ttl = default_ttl(cache, r->source);
    uint64_t most = (uint64_t)ttl * cache->options.ttl_jitter / 100;
    uint64_t random = XXH3_64bits_withSeed(&hash, sizeof hash, (uint64_t)wall_ms);
    return ttl - (int64_t)(random % (most + 1));
}

/* Metadata that a repeated put does not state stays as it is known. */
static void
keep_unstated(ptier_record *out, ptier_put_item *item)
{
    ptier_record old;
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_entry_view(item->old, 0, &old, labels);
    if (!out->source || !*out->source)
        out->source = old.source;
    /* Credentials are for this proxy and user: another one under the key does not get them. */
    bool same_user = !*out->username || (old.username && strcmp(out->username, old.username) == 0);
    if (same_user && strcmp(out->url, old.url) == 0) {
        if (!*out->username && old.username)
            out->username = old.username;
        if (!*out->password && old.password)
            out->password = old.password;
    }
    if (out->label_count == 0) {
        memcpy(item->labels, labels, old.label_count * sizeof *labels);
        out->label_count = old.label_count;
    }
}

/* Health stays unless it is stated with a newer fetch time. */
static void
inherit_health(ptier_record *out, const ptier_record *in, const ptier_entry *old)
{
    bool newer = in->fetch_time_ms == 0 || in->fetch_time_ms > old->fetch_time_ms;
    if (out->health == PTIER_HEALTH_UNSPECIFIED || !newer)
        out->health = (ptier_health)old->health;
    if (out->failure_count == PTIER_FAILURES_UNSTATED || !newer)
        out->failure_count = old->failure_count;
    if (!(out->needs_revalidation && newer)) /* stated by what is restored only */
        out->needs_revalidation = old->needs_revalidation && out->failure_count != 0;
}

static uint64_t
access_count_of(const ptier_entry *entry)
{
    return atomic_load_explicit(&entry->access_count, memory_order_relaxed);
}

/* Usage figures stay as well; of two sets the one of more uses. */
static void
inherit_usage(ptier_record *out, const ptier_entry *old)
{
    out->last_access_ms = atomic_load_explicit(&old->last_access_ms, memory_order_relaxed);
    out->access_count = access_count_of(old);
    out->latency_ms = atomic_load_explicit(&old->latency_us, memory_order_relaxed) / 1000.0;
    out->success_count = atomic_load_explicit(&old->success_count, memory_order_relaxed);
    out->report_count = atomic_load_explicit(&old->report_count, memory_order_relaxed);
}

static void
fill_in_defaults(ptier_record *out)
{
    if (out->health == PTIER_HEALTH_UNSPECIFIED)
        out->health = PTIER_HEALTH_UNKNOWN;
    if (out->failure_count == PTIER_FAILURES_UNSTATED)
        out->failure_count = 0;
}

/* The record as it will be cached. */
static void
merge(const ptier_cache *cache, ptier_put_item *item, const ptier_put_options *options,
      int64_t wall_ms, ptier_record *out)
{
    const ptier_record *in = item->record;
    *out = *in;
    out->key = item->key;
    out->url = item->url.url;
    out->username = item->url.username;
    out->password = item->url.password;
    out->labels = item->labels;
    if (item->old)
        keep_unstated(out, item);
    out->ttl_ms = ttl_of(cache, out, item->hash, wall_ms);
    if (out->fetch_time_ms == 0)
        out->fetch_time_ms = wall_ms;
    if (!options->restore) {
        out->needs_revalidation = false;
        out->last_access_ms = 0;
        out->access_count = out->success_count = out->report_count = 0;
    }
    if (!options->restore || (out->expires_at_ms == 0 && out->ttl_ms))
        out->expires_at_ms = out->ttl_ms ? wall_ms + out->ttl_ms : 0;
    if (out->last_access_ms > wall_ms)
        out->last_access_ms = wall_ms; /* from the future: it would never be the least recent */
    if (item->old) {
        inherit_health(out, in, item->old);
        if (!options->restore || out->access_count <= access_count_of(item->old))
            inherit_usage(out, item->old);
    }
    fill_in_defaults(out);
}

static ptier_status
build_entry(ptier_cache *cache, ptier_put_item *item, const ptier_put_options *options,
            const ptier_put_time *now)
{
    ptier_record merged;
    merge(cache, item, options, now->wall, &merged);
    int64_t expires_boot =
        merged.expires_at_ms ? now->boot + (merged.expires_at_ms - now->wall) : PTIER_NEVER;
    if (expires_boot <= now->boot && options->restore) {
        ptier_put_item_finish(item, PTIER_PUT_SKIPPED_EXPIRED, "");
        return PTIER_OK;
    }
    ptier_entry_release(item->entry);
    ptier_sealed_release(item->sealed);
    item->sealed = NULL;
    item->entry = ptier_entry_create(&merged, item->hash, merged.expires_at_ms, expires_boot);
    if (!item->entry)
        return PTIER_RESOURCE_EXHAUSTED;
    bool dirty = item->old && atomic_load_explicit(&item->old->usage_dirty, memory_order_relaxed);
    atomic_init(&item->entry->usage_dirty, dirty);
    return cache->data_dir ? ptier_sealed_create(cache->keyring, item->entry, &item->sealed)
                           : PTIER_OK;
}

void
ptier_put_item_prepare(ptier_cache *cache, ptier_put_item *item, const ptier_put_options *options,
                       const ptier_put_time *now)
{
    ptier_status status = load_old(cache, item);
    if (!status)
        status = build_entry(cache, item, options, now);
    if (status)
        ptier_put_item_finish(item, PTIER_PUT_REJECTED, ptier_status_text(status));
}
