/* Entries: one allocation each, strings behind the header. */
#include "entry_internal.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "clock.h"

static size_t
text_size(const char *text)
{
    return text && *text ? strlen(text) + 1 : 0;
}

/* Copies text to entry->text + *at when there is some, and moves on. Returns where it is; 0:
 * nowhere. */
static uint16_t
put_text(ptier_entry *entry, size_t *at, const char *text)
{
    size_t size = text_size(text);
    if (size == 0)
        return 0;
    uint16_t here = (uint16_t)*at;
    memcpy(entry->text + here, text, size);
    *at += size;
    return here;
}

ptier_entry *
ptier_entry_create(const ptier_record *record, uint64_t hash, int64_t expires_wall_ms,
                   int64_t expires_boot_ms)
{
    size_t size = text_size(record->key) + text_size(record->url) + text_size(record->username) +
                  text_size(record->password) + text_size(record->source) + 1;
    for (size_t i = 0; i < record->label_count; i++)
        size += strlen(record->labels[i].name) + strlen(record->labels[i].value) + 2;
    if (size > UINT16_MAX)
        return NULL;
    ptier_entry *entry = malloc(sizeof *entry + size);
    if (!entry)
        return NULL;
    memset(entry, 0, sizeof *entry);
    atomic_init(&entry->refs, 1);
    entry->hash = hash;
    entry->revision = record->revision;
    entry->fetch_time_ms = record->fetch_time_ms;
    entry->ttl_ms = record->ttl_ms;
    entry->expires_wall_ms = expires_wall_ms;
    entry->expires_boot_ms = expires_boot_ms;
    entry->failure_count = record->failure_count;
    entry->health = (uint8_t)record->health;
    entry->needs_revalidation = record->needs_revalidation;
    entry->label_count = (uint8_t)record->label_count;
    atomic_init(&entry->last_access_ms, record->last_access_ms);
    atomic_init(&entry->access_count, record->access_count);
    atomic_init(&entry->success_count, (uint32_t)record->success_count);
    atomic_init(&entry->report_count, (uint32_t)record->report_count);
    atomic_init(&entry->latency_us, ptier_latency_us(record->latency_ms));

    size_t at = 0;
    (void)put_text(entry, &at, record->key); /* always at 0 */
    entry->url_at = put_text(entry, &at, record->url);
    entry->username_at = put_text(entry, &at, record->username);
    entry->password_at = put_text(entry, &at, record->password);
    entry->labels_at = (uint16_t)at;
    for (size_t i = 0; i < record->label_count; i++) {
        at = (size_t)(stpcpy(entry->text + at, record->labels[i].name) - entry->text) + 1;
        at = (size_t)(stpcpy(entry->text + at, record->labels[i].value) - entry->text) + 1;
    }
    entry->source_at = (uint16_t)at; /* last, so that "" is a NUL of its own */
    size_t source = text_size(record->source);
    memcpy(entry->text + at, source ? record->source : "", source ? source : 1);
    entry->text_bytes = (uint16_t)(at + (source ? source : 1));
    return entry;
}

ptier_entry *
ptier_entry_retain(ptier_entry *entry)
{
    return ptier_entry_share(entry);
}

void
ptier_entry_release(ptier_entry *entry)
{
    if (!entry || atomic_fetch_sub_explicit(&entry->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (entry->username_at || entry->password_at)
        OPENSSL_cleanse(entry->text, entry->text_bytes);
    free(entry);
}

void
ptier_entry_view(const ptier_entry *entry, int64_t boot_ms, ptier_record *record,
                 ptier_label labels[PTIER_LABELS_MAX])
{
    memset(record, 0, sizeof *record);
    record->key = ptier_entry_key(entry);
    record->url = ptier_entry_url(entry);
    record->username = ptier_entry_username(entry);
    record->password = ptier_entry_password(entry);
    record->source = ptier_entry_source(entry);
    record->fetch_time_ms = entry->fetch_time_ms;
    record->ttl_ms = entry->ttl_ms;
    record->health = (ptier_health)entry->health;
    record->failure_count = entry->failure_count;
    record->needs_revalidation = entry->needs_revalidation;
    record->revision = entry->revision;
    record->expires_at_ms = entry->expires_wall_ms;
    record->remaining_ttl_ms = -1;
    if (entry->expires_boot_ms != PTIER_NEVER)
        record->remaining_ttl_ms =
            entry->expires_boot_ms > boot_ms ? entry->expires_boot_ms - boot_ms : 0;
    record->last_access_ms = atomic_load_explicit(&entry->last_access_ms, memory_order_relaxed);
    record->access_count = atomic_load_explicit(&entry->access_count, memory_order_relaxed);
    record->latency_ms = atomic_load_explicit(&entry->latency_us, memory_order_relaxed) / 1000.0;
    record->success_count = atomic_load_explicit(&entry->success_count, memory_order_relaxed);
    record->report_count = atomic_load_explicit(&entry->report_count, memory_order_relaxed);
    if (!labels)
        return;
    const char *text = entry->text + entry->labels_at;
    for (size_t i = 0; i < entry->label_count; i++) {
        labels[i].name = text;
        text += strlen(text) + 1;
        labels[i].value = text;
        text += strlen(text) + 1;
    }
    record->labels = labels;
    record->label_count = entry->label_count;
}

size_t
ptier_entry_bytes(const ptier_entry *entry)
{
    return malloc_usable_size((void *)(uintptr_t)entry) + sizeof(size_t);
}
