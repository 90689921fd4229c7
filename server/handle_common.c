/* See handle_common.h. */
#include "handle_common.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_DEFAULT 500
#define SCHEME_MAX   32

bool
ptier_keys_valid(ptier_call *call, char *const *keys, size_t count)
{
    if (count > PTIER_BATCH_MAX) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "%zu keys in one call; at most %d", count,
                        PTIER_BATCH_MAX);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        size_t length = strnlen(keys[i], PTIER_KEY_MAX + 1);
        if (length == 0 || length > PTIER_KEY_MAX) {
            ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "key %zu is %s", i + 1,
                            length ? "longer than 256 bytes" : "empty");
            return false;
        }
    }
    return true;
}

/* What is longer can match nothing. */
static bool
filter_text_fits(ptier_call *call, const char *what, const char *text, size_t limit)
{
    if (strnlen(text, limit + 1) <= limit)
        return true;
    ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "%s in a filter is longer than %zu bytes", what,
                    limit);
    return false;
}

bool
ptier_filter_from_message(ptier_call *call, const Proxytier__V1__Filter *message,
                          ptier_filter *filter)
{
    memset(filter, 0, sizeof *filter);
    if (!message)
        return true;
    if (message->n_labels > PTIER_LABELS_MAX) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "%zu labels in a filter; at most %d",
                        message->n_labels, PTIER_LABELS_MAX);
        return false;
    }
    ptier_label *labels = ptier_arena_array(&call->arena, message->n_labels, sizeof *labels);
    if (!labels) {
        ptier_call_no_memory(call);
        return false;
    }
    if (!filter_text_fits(call, "source", message->source, PTIER_SOURCE_MAX) ||
        !filter_text_fits(call, "scheme", message->scheme, SCHEME_MAX))
        return false;
    for (size_t i = 0; i < message->n_labels; i++) {
        const Proxytier__V1__Label *label = message->labels[i];
        if (!filter_text_fits(call, "name of a label", label->name, PTIER_LABEL_NAME_MAX) ||
            !filter_text_fits(call, "value of a label", label->value, PTIER_LABEL_VALUE_MAX))
            return false;
        labels[i].name = message->labels[i]->name;
        labels[i].value = message->labels[i]->value;
    }
    filter->source = message->source;
    filter->scheme = message->scheme;
    filter->labels = labels;
    filter->label_count = message->n_labels;
    filter->health = (ptier_health)message->health;
    return true;
}

bool
ptier_reply_entries(ptier_call *call, unsigned number, ptier_entry **entries, size_t count)
{
    bool credentials = call->role >= PTIER_ROLE_ROTATOR;
    int64_t moment = ptier_cache_moment(call->service->cache);
    ptier_status status = PTIER_OK;
    for (size_t i = 0; i < count; i++) {
        call->items += entries[i] != NULL;
        if (entries[i] && status == PTIER_OK) {
            ptier_record record;
            ptier_label labels[PTIER_LABELS_MAX];
            ptier_cache_read_at(entries[i], moment, &record, labels);
            status = ptier_bytes_append_record(&call->reply, number, &record, credentials);
        }
        ptier_entry_release(entries[i]);
        entries[i] = NULL;
    }
    if (status != PTIER_OK)
        ptier_call_no_memory(call);
    return status == PTIER_OK;
}

size_t
ptier_tiers_from_mask(uint32_t mask, Proxytier__V1__Tier tiers[PTIER_TIER_COUNT])
{
    size_t count = 0;
    for (int tier = PTIER_TIER_L1; tier < PTIER_TIER_COUNT; tier++)
        if (mask & (UINT32_C(1) << tier))
            tiers[count++] = (Proxytier__V1__Tier)tier;
    return count;
}

/* Marks tokens with the run they belong to: cursors mean nothing to another one. */
static unsigned
run_mark(const ptier_call *call)
{
    const uint8_t *id = call->service->boot_id;
    return (unsigned)id[0] << 16 | (unsigned)id[1] << 8 | id[2];
}

static bool
take_hex(const char *text, size_t digits, uint64_t *value)
{
    char part[17] = "";
    memcpy(part, text, digits);
    *value = strtoull(part, NULL, 16);
    return strspn(part, "0123456789abcdef") == digits;
}

bool
ptier_page_read(ptier_call *call, const char *token, ptier_page *page)
{
    if (!*token) {
        page->cursor = 0;
        page->as_of = ptier_cache_revision(call->service->cache);
        return true;
    }
    uint64_t mark = 0;
    if (strlen(token) != 38 || !take_hex(token, 16, &page->cursor) ||
        !take_hex(token + 16, 16, &page->as_of) || !take_hex(token + 32, 6, &mark) ||
        page->cursor == 0) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "page_token was not made by this daemon");
        return false;
    }
    if (mark != run_mark(call)) {
        ptier_call_fail(call, PTIER_ABORTED, "the daemon was restarted: start the listing again");
        return false;
    }
    return true;
}

void
ptier_page_write(const ptier_call *call, const ptier_page *page, char token[PTIER_PAGE_TOKEN])
{
    token[0] = '\0';
    if (page->cursor)
        (void)snprintf(token, PTIER_PAGE_TOKEN, "%016" PRIx64 "%016" PRIx64 "%06x", page->cursor,
                       page->as_of, run_mark(call)); /* always fits */
}

size_t
ptier_page_size(uint32_t asked)
{
    if (asked == 0)
        return PAGE_DEFAULT;
    return asked < PTIER_PAGE_MAX ? asked : PTIER_PAGE_MAX;
}
