/* Get, GetMany, Pick, List, GetStatistics. */
#include "handle_common.h"

#define LIST_STEP  64                    /* entries asked of the cache at once */
#define LIST_BYTES ((size_t)1024 * 1024) /* a page ends when it has grown past this */

PTIER_HANDLER(ProxyCache, get, GetRequest, GetResponse)
{
    (void)service;
    ptier_call *call = data;
    ptier_cache *cache = call->service->cache;
    Proxytier__V1__GetResponse response = PROXYTIER__V1__GET_RESPONSE__INIT;
    if (!ptier_keys_valid(call, (char *const *)&request->key, 1))
        return;
    ptier_entry *entry = NULL;
    ptier_tier_id tier = PTIER_TIER_NONE;
    response.as_of = ptier_cache_revision(cache);
    ptier_status status = ptier_cache_get(cache, request->key, &entry, &tier);
    if (status == PTIER_NOT_FOUND) {
        ptier_call_fail(call, PTIER_NOT_FOUND, "no entry has this key");
        return;
    }
    if (status != PTIER_OK) {
        ptier_call_fail(call, status, "the entry cannot be read: %s", ptier_status_text(status));
        return;
    }
    response.tier = (Proxytier__V1__Tier)tier;
    if (ptier_reply_entries(call, 1, &entry, 1))
        closure(&response, call);
}

PTIER_HANDLER(ProxyCache, get_many, GetManyRequest, GetManyResponse)
{
    (void)service;
    ptier_call *call = data;
    ptier_cache *cache = call->service->cache;
    Proxytier__V1__GetManyResponse response = PROXYTIER__V1__GET_MANY_RESPONSE__INIT;
    if (!ptier_keys_valid(call, request->keys, request->n_keys))
        return;
    ptier_entry **entries = ptier_arena_array(&call->arena, request->n_keys, sizeof *entries);
    if (!entries) {
        ptier_call_no_memory(call);
        return;
    }
    response.as_of = ptier_cache_revision(cache);
    (void)ptier_cache_get_many(cache, (const char *const *)request->keys, request->n_keys,
                               entries); /* the count: the reply shows it */
    if (ptier_reply_entries(call, 1, entries, request->n_keys))
        closure(&response, call);
}

PTIER_HANDLER(ProxyCache, pick, PickRequest, PickResponse)
{
    (void)service;
    ptier_call *call = data;
    ptier_cache *cache = call->service->cache;
    Proxytier__V1__PickResponse response = PROXYTIER__V1__PICK_RESPONSE__INIT;
    ptier_filter filter;
    size_t wanted = request->count ? request->count : 1;
    if (wanted > PTIER_BATCH_MAX) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "count is %zu; at most %d", wanted,
                        PTIER_BATCH_MAX);
        return;
    }
    if (!ptier_keys_valid(call, request->exclude, request->n_exclude) ||
        !ptier_filter_from_message(call, request->filter, &filter))
        return;
    ptier_entry **entries = ptier_arena_array(&call->arena, wanted, sizeof *entries);
    if (!entries) {
        ptier_call_no_memory(call);
        return;
    }
    response.as_of = ptier_cache_revision(cache);
    size_t found = ptier_cache_pick(cache, wanted, &filter, (const char *const *)request->exclude,
                                    request->n_exclude, entries);
    if (found == 0)
        ptier_call_fail(call, PTIER_NOT_FOUND, "no live, usable entry matches");
    else if (ptier_reply_entries(call, 1, entries, found))
        closure(&response, call);
}

/* One step of a listing into the reply. False: the call has failed. */
static bool
list_step(ptier_call *call, ptier_page *page, const ptier_filter *filter, size_t limit,
          size_t *listed)
{
    ptier_entry *entries[LIST_STEP];
    size_t count = 0;
    ptier_error error = {0};
    if (ptier_call_expired(call)) {
        ptier_call_fail(call, PTIER_DEADLINE_EXCEEDED,
                        "the listing took longer than the call's timeout");
        return false;
    }
    ptier_status status =
        ptier_cache_list(call->service->cache, &page->cursor, filter, PTIER_TIER_NONE,
                         limit < LIST_STEP ? limit : LIST_STEP, entries, &count, &error);
    if (status != PTIER_OK) {
        ptier_call_fail_as(call, status, &error);
        return false;
    }
    *listed += count;
    return ptier_reply_entries(call, 1, entries, count);
}

PTIER_HANDLER(ProxyCache, list, ListRequest, ListResponse)
{
    (void)service;
    ptier_call *call = data;
    Proxytier__V1__ListResponse response = PROXYTIER__V1__LIST_RESPONSE__INIT;
    ptier_filter filter;
    ptier_page page;
    char token[PTIER_PAGE_TOKEN];
    size_t listed = 0, wanted = ptier_page_size(request->page_size);
    if (!ptier_page_read(call, request->page_token, &page) ||
        !ptier_filter_from_message(call, request->filter, &filter))
        return;
    do {
        if (!list_step(call, &page, &filter, wanted - listed, &listed))
            return;
    } while (page.cursor && listed < wanted && call->reply.length < LIST_BYTES);
    ptier_page_write(call, &page, token);
    response.next_page_token = token;
    response.as_of = page.as_of;
    closure(&response, call);
}

static double
rate(uint64_t hits, uint64_t misses)
{
    return hits + misses ? (double)hits / (double)(hits + misses) : 0;
}

static void
fill_tier(Proxytier__V1__TierStatistics *out, ptier_tier_id tier, const ptier_tier_statistics *in)
{
    proxytier__v1__tier_statistics__init(out);
    out->tier = (Proxytier__V1__Tier)tier;
    out->enabled = in->enabled;
    out->degraded = in->degraded;
    out->entries = in->entries;
    out->bytes = in->bytes;
    out->capacity = in->capacity;
    out->hits = in->hits;
    out->misses = in->misses;
    out->hit_rate = rate(in->hits, in->misses);
    out->promotions = in->promotions;
    out->evictions = in->evictions;
    out->errors = in->errors;
}

static void
fill_totals(Proxytier__V1__GetStatisticsResponse *out, const ptier_statistics *in)
{
    out->entries = in->entries;
    out->hits = in->hits;
    out->misses = in->misses;
    out->hit_rate = rate(in->hits, in->misses);
    out->puts = in->puts;
    out->updates = in->updates;
    out->deletes = in->deletes;
    out->reports = in->reports;
    out->revision = in->revision;
    out->l3_prefix = in->l3_prefix;
    out->pending_writes = in->pending_writes;
    out->uptime_ms = in->uptime_ms;
    out->log_bytes = in->log_bytes;
    out->index_bytes = in->index_bytes;
    out->expired_undrained = in->expired_undrained;
}

PTIER_HANDLER(ProxyCache, get_statistics, GetStatisticsRequest, GetStatisticsResponse)
{
    (void)service;
    (void)request;
    ptier_call *call = data;
    ptier_statistics statistics;
    ptier_cache_statistics(call->service->cache, &statistics);

    Proxytier__V1__GetStatisticsResponse response = PROXYTIER__V1__GET_STATISTICS_RESPONSE__INIT;
    Proxytier__V1__TierStatistics tiers[PTIER_TIER_COUNT - 1], *tier_list[PTIER_TIER_COUNT - 1];
    for (int tier = PTIER_TIER_L1; tier < PTIER_TIER_COUNT; tier++) {
        tier_list[tier - 1] = &tiers[tier - 1];
        fill_tier(&tiers[tier - 1], (ptier_tier_id)tier, &statistics.tiers[tier]);
    }
    Proxytier__V1__RemovalCount removals[PTIER_REASON_COUNT - 1],
        *removal_list[PTIER_REASON_COUNT - 1];
    for (int reason = 1; reason < PTIER_REASON_COUNT; reason++) {
        proxytier__v1__removal_count__init(&removals[reason - 1]);
        removals[reason - 1].reason = (Proxytier__V1__RemovalReason)reason;
        removals[reason - 1].count = statistics.removals[reason];
        removal_list[reason - 1] = &removals[reason - 1];
    }
    fill_totals(&response, &statistics);
    response.n_tiers = PTIER_TIER_COUNT - 1;
    response.tiers = tier_list;
    response.n_removals = PTIER_REASON_COUNT - 1;
    response.removals = removal_list;
    closure(&response, call);
}
