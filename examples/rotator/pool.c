#include "pool.h"

#include "http.h"

#include <stdio.h>
#include <string.h>

void
pool_init(proxy_pool *pool, size_t wanted, const char *source, bool allow_remote)
{
    memset(pool, 0, sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pool->wanted = wanted < POOL_SLOTS / 2 ? wanted : POOL_SLOTS / 2;
    pool->source = source;
    pool->allow_remote = allow_remote;
}

void
pool_fini(proxy_pool *pool)
{
    explicit_bzero(pool->slots, sizeof pool->slots); /* passwords */
    pthread_mutex_destroy(&pool->lock);
}

static pool_slot *
find_locked(proxy_pool *pool, const char *key, pool_state state)
{
    for (size_t i = 0; i < POOL_SLOTS; i++)
        if (pool->slots[i].state == state && strcmp(pool->slots[i].proxy.key, key) == 0)
            return &pool->slots[i];
    return NULL;
}

static size_t
count_locked(const proxy_pool *pool, pool_state state)
{
    size_t count = 0;
    for (size_t i = 0; i < POOL_SLOTS; i++)
        count += pool->slots[i].state == state;
    return count;
}

size_t
pool_size(proxy_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    size_t count = count_locked(pool, POOL_LIVE);
    pthread_mutex_unlock(&pool->lock);
    return count;
}

bool
pool_next(proxy_pool *pool, pool_proxy *proxy)
{
    bool found = false;
    pthread_mutex_lock(&pool->lock);
    for (size_t i = 0; i < POOL_SLOTS && !found; i++) {
        const pool_slot *slot = &pool->slots[pool->next++ % POOL_SLOTS];
        if (slot->state == POOL_LIVE) {
            *proxy = slot->proxy;
            found = true;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return found;
}

void
pool_count_use(proxy_pool *pool, const char *key, bool ok)
{
    pthread_mutex_lock(&pool->lock);
    pool_slot *slot = find_locked(pool, key, POOL_LIVE);
    if (!slot)
        slot = find_locked(pool, key, POOL_GONE); /* it was in use when the event came */
    if (slot) {
        slot->used++;
        slot->failed += !ok;
    }
    pthread_mutex_unlock(&pool->lock);
}

size_t
pool_drop(proxy_pool *pool, const char *key, ptier_reason reason)
{
    size_t dropped = 0;
    pthread_mutex_lock(&pool->lock);
    pool->removals++;
    for (size_t i = 0; i < POOL_SLOTS; i++) {
        pool_slot *slot = &pool->slots[i];
        if (slot->state == POOL_FREE || slot->state == POOL_GONE)
            continue;
        if (key && strcmp(slot->proxy.key, key) != 0)
            continue;
        dropped += slot->state == POOL_LIVE;
        slot->state = slot->state == POOL_LIVE ? POOL_GONE : POOL_FREE;
        slot->reason = reason;
        explicit_bzero(slot->proxy.password, sizeof slot->proxy.password);
    }
    pthread_mutex_unlock(&pool->lock);
    return dropped;
}

static void
copy(char *to, size_t room, const char *from)
{
    (void)snprintf(to, room, "%s", from ? from : ""); /* fits: the SDK keeps the same limits */
}

static void
add_locked(proxy_pool *pool, const ptier_record *record)
{
    pool_slot *slot = NULL;
    if (find_locked(pool, record->key, POOL_LIVE))
        return;
    for (size_t i = 0; i < POOL_SLOTS; i++)
        if (pool->slots[i].state == POOL_FREE || (!slot && pool->slots[i].state == POOL_GONE)) {
            slot = &pool->slots[i];
            if (slot->state == POOL_FREE)
                break;
        }
    if (!slot)
        return;
    if (find_locked(pool, record->key, POOL_GONE))
        pool->came_back++;
    memset(slot, 0, sizeof *slot);
    copy(slot->proxy.key, sizeof slot->proxy.key, record->key);
    copy(slot->proxy.url, sizeof slot->proxy.url, record->url);
    copy(slot->proxy.username, sizeof slot->proxy.username, record->username);
    copy(slot->proxy.password, sizeof slot->proxy.password, record->password);
    slot->state =
        pool->allow_remote || http_proxy_is_loopback(record->url) ? POOL_LIVE : POOL_REFUSED;
}

/* What is missing, and the keys that we have already (copied: events may move the slots during the
 * call). */
static size_t
plan_pick(proxy_pool *pool, char keys[][PTIER_KEY_MAX + 1], const char *exclude[],
          size_t *exclude_count, unsigned long *removals)
{
    pthread_mutex_lock(&pool->lock);
    *exclude_count = 0;
    *removals = pool->removals;
    for (size_t i = 0; i < POOL_SLOTS; i++)
        if (pool->slots[i].state == POOL_LIVE || pool->slots[i].state == POOL_REFUSED) {
            memcpy(keys[*exclude_count], pool->slots[i].proxy.key, PTIER_KEY_MAX + 1);
            exclude[*exclude_count] = keys[*exclude_count];
            (*exclude_count)++;
        }
    size_t live = count_locked(pool, POOL_LIVE);
    size_t missing = live < pool->wanted ? pool->wanted - live : 0;
    pool->picks += missing > 0;
    pthread_mutex_unlock(&pool->lock);
    return missing;
}

ptier_status
pool_refill(proxy_pool *pool, ptier_client *client, ptier_error *error)
{
    char keys[POOL_SLOTS][PTIER_KEY_MAX + 1];
    const char *exclude[POOL_SLOTS];
    ptier_filter filter = {.source = pool->source, .scheme = "http"};
    ptier_pick_options pick = {.filter = &filter, .exclude = exclude};
    ptier_records records = {.count = 0};
    unsigned long removals;
    pick.count = plan_pick(pool, keys, exclude, &pick.exclude_count, &removals);
    if (pick.count == 0)
        return PTIER_OK;
    ptier_status status = ptier_pick(client, &pick, &records, error);
    if (status != PTIER_OK)
        return status;
    /*
     * A removal event that came while the reply was on its way may be about one of these very
     * proxies, and would not come again: such a reply is thrown away, and the next round picks
     * anew.
     */
    pthread_mutex_lock(&pool->lock);
    if (pool->removals == removals)
        for (size_t i = 0; i < records.count; i++)
            add_locked(pool, &records.records[i]);
    pthread_mutex_unlock(&pool->lock);
    ptier_records_free(&records);
    return PTIER_OK;
}
