/* Get, GetMany, Pick, List, GetStatistics. */
#include "convert_statistics.h"
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
    ptier_tier_id tier = PTIER_TIER_L1;
    ptier_status status = PTIER_OK;
    response.as_of = ptier_cache_revision(cache);
    if (!call->must_not_wait) {
        status = ptier_cache_get(cache, request->key, &entry, &tier);
    } else if (!ptier_cache_try_get(cache, request->key, &entry)) {
        ptier_call_put_off(call);
        return;
    }
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

/* False: the call has failed. */
static bool
begin_many(ptier_call *call, const Proxytier__V1__GetManyRequest *request)
{
    if (!ptier_keys_valid(call, request->keys, request->n_keys))
        return false;
    call->found.entries =
        ptier_arena_array(&call->arena, request->n_keys, sizeof *call->found.entries);
    call->found.tiers = ptier_arena_array(&call->arena, request->n_keys, sizeof *call->found.tiers);
    if (!call->found.entries || !call->found.tiers) {
        ptier_call_no_memory(call);
        return false;
    }
    call->found.as_of = ptier_cache_revision(call->service->cache);
    return true;
}

/* What L1 has of all keys. False: some are missing. */
static bool
try_many(ptier_call *call, const Proxytier__V1__GetManyRequest *request)
{
    ptier_found *found = &call->found;
    found->count = request->n_keys;
    size_t hits = ptier_cache_try_get_many(call->service->cache, (const char *const *)request->keys,
                                           request->n_keys, found->entries);
    for (size_t i = 0; i < found->count; i++)
        found->tiers[i] = PTIER_TIER_L1;
    return hits == found->count;
}

/* What was not tried, or not found so. Returns how many a disk did not give. */
static uint32_t
get_those_missing(ptier_call *call, const Proxytier__V1__GetManyRequest *request)
{
    ptier_found *found = &call->found;
    uint32_t unreadable = 0;
    found->count = request->n_keys;
    for (size_t i = 0; i < found->count; i++) {
        if (found->entries[i])
            continue;
        ptier_status status = ptier_cache_get(call->service->cache, request->keys[i],
                                              &found->entries[i], &found->tiers[i]);
        unreadable += status != PTIER_OK && status != PTIER_NOT_FOUND;
    }
    return unreadable;
}

/* False: the call has failed. */
static bool
list_tiers(ptier_call *call, Proxytier__V1__GetManyResponse *response)
{
    const ptier_found *found = &call->found;
    response->tiers = ptier_arena_array(&call->arena, found->count, sizeof *response->tiers);
    if (!response->tiers) {
        ptier_call_no_memory(call);
        return false;
    }
    for (size_t i = 0; i < found->count; i++)
        if (found->entries[i])
            response->tiers[response->n_tiers++] = (Proxytier__V1__Tier)found->tiers[i];
    return true;
}

PTIER_HANDLER(ProxyCache, get_many, GetManyRequest, GetManyResponse)
{
    (void)service;
    ptier_call *call = data;
    Proxytier__V1__GetManyResponse response = PROXYTIER__V1__GET_MANY_RESPONSE__INIT;
    ptier_found *found = &call->found;
    if (!found->entries && !begin_many(call, request))
        return;
    if (call->must_not_wait && !try_many(call, request)) {
        ptier_call_put_off(call);
        return;
    }
    if (!call->must_not_wait)
        response.unreadable = get_those_missing(call, request);
    response.as_of = found->as_of;
    if (request->with_tiers && !list_tiers(call, &response))
        return;
    if (ptier_reply_entries(call, 1, found->entries, found->count))
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

PTIER_HANDLER(ProxyCache, get_statistics, GetStatisticsRequest, GetStatisticsResponse)
{
    (void)service;
    (void)request;
    ptier_call *call = data;
    ptier_statistics statistics;
    ptier_statistics_message response;
    ptier_cache_statistics(call->service->cache, &statistics);
    ptier_statistics_to_message(&statistics, &response);
    closure(&response.message, call);
}
