/* What a cache is opened with: defaults, checks, a copy that it keeps. */
#include <stdlib.h>
#include <string.h>

#include "cache/open_internal.h"

enum { TTL_JITTER_MAX = 50 };

void
ptier_cache_options_init(ptier_cache_options *options)
{
    *options = (ptier_cache_options){
        .size = sizeof *options,
        .l1_enabled = true,
        .l2_enabled = true,
        .l3_enabled = true,
        .l1_entries = 1000,
        .l2_entries = 5000,
        .log_max_bytes = UINT64_C(1) << 30,
        .default_ttl_ms = 3600000,
        .failure_threshold = 3,
        .health_quarantine_ms = 900000,
        .durability = PTIER_DURABILITY_LOGGED,
    };
}

static bool
bounds_grow_downwards(const ptier_cache_options *o)
{
    const struct {
        bool on;
        uint64_t entries;
    } tiers[] = {{o->l1_enabled, o->l1_entries},
                 {o->data_dir && o->l2_enabled, o->l2_entries},
                 {o->data_dir && o->l3_enabled, o->l3_entries}};
    uint64_t above = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t bound = tiers[i].entries ? tiers[i].entries : UINT64_MAX;
        if (tiers[i].on && bound < above)
            return false;
        if (tiers[i].on)
            above = bound;
    }
    return true;
}

ptier_l1_options
ptier_l1_options_of(const ptier_cache_options *o)
{
    return (ptier_l1_options){
        .capacity = o->l1_entries, .bytes = o->l1_bytes, .eviction = o->l1_eviction};
}

ptier_status
ptier_options_check(const ptier_cache_options *o, ptier_error *error)
{
    if (o->size != sizeof *o)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "options were not made by ptier_cache_options_init");
    if (!o->l1_enabled && !(o->data_dir && (o->l2_enabled || o->l3_enabled)))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "at least one tier must be enabled");
    const ptier_l1_options l1 = ptier_l1_options_of(o);
    ptier_status status = o->l1_enabled ? ptier_l1_check(&l1, error) : PTIER_OK;
    if (status)
        return status;
    if (!bounds_grow_downwards(o))
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "a lower tier must have room for what the upper ones hold: l1_entries <= "
                          "l2_entries <= l3_entries (0: unlimited)");
    if (o->default_ttl_ms < 0 || o->default_ttl_ms > PTIER_TTL_MAX_MS)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "the default TTL must be 0 to 100 years");
    if (o->ttl_jitter > TTL_JITTER_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "the TTL jitter must be 0 to %d percent",
                          TTL_JITTER_MAX);
    if ((unsigned)o->durability > PTIER_DURABILITY_SYNCED)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "unknown durability");
    return PTIER_OK;
}

/* Deep copies of what the caller only lends. */
ptier_status
ptier_options_copy(ptier_cache *cache, const ptier_cache_options *o, ptier_error *error)
{
    cache->options = *o;
    if (cache->options.durability == PTIER_DURABILITY_DEFAULT)
        cache->options.durability = PTIER_DURABILITY_LOGGED;
    cache->options.encryption_key = NULL; /* not kept: the keyring has it */
    cache->options.previous_keys = NULL;
    cache->options.data_dir = NULL;
    cache->source_ttls = calloc(o->source_ttl_count + 1, sizeof *cache->source_ttls);
    if (!cache->source_ttls)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the cache");
    for (size_t i = 0; i < o->source_ttl_count; i++) {
        cache->source_ttls[i].ttl_ms = o->source_ttls[i].ttl_ms;
        cache->source_ttls[i].source = strdup(o->source_ttls[i].source);
        if (!cache->source_ttls[i].source)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the cache");
    }
    if (o->data_dir && (o->l2_enabled || o->l3_enabled)) {
        cache->data_dir = strdup(o->data_dir);
        if (!cache->data_dir)
            return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for the cache");
    }
    return PTIER_OK;
}
