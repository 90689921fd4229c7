/*
 * Start-up's judgement: `state` and `progress` say how far the tiers were; what is found of them is
 * compared with that. Where acknowledged changes are gone, or may be, it is said, and the store
 * gets a new id, so that nobody goes on with what he remembers of the old one.
 */
#include "cache/inspect.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define BIT(tier) (1U << (tier))

void
ptier_report_start(ptier_cache *cache, bool lost, const char *format, ...)
{
    ptier_start_report *report = &cache->start_report;
    char text[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* cut is fine */
    va_end(args);
    report->changes_lost |= lost;
    size_t length = strlen(report->text);
    (void)snprintf(report->text + length, sizeof report->text - length, "%s%s", length ? "; " : "",
                   text);
    ptier_cache_log(cache, lost ? PTIER_LOG_ERROR : PTIER_LOG_WARN,
                    lost ? "changes_lost" : "damage_found", "%s", text);
}

static bool
had(const ptier_findings *f, ptier_tier_id tier)
{
    return f->last_tiers & BIT(tier);
}

static bool
has(const ptier_findings *f, ptier_tier_id tier)
{
    return f->tiers & BIT(tier);
}

void
ptier_inspect_tiers(ptier_cache *cache, ptier_findings *f)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    f->last_tiers = cache->state.tiers;
    f->tiers = 0;
    for (int id = PTIER_TIER_L2; id <= PTIER_TIER_L3; id++)
        if (cache->tiers[id])
            f->tiers |= BIT(id);
    f->l3_prefix = l3 ? ptier_l3_prefix(l3) : 0;
    f->l2_stale = f->last_tiers && has(f, PTIER_TIER_L2) && !had(f, PTIER_TIER_L2);
    f->l3_stale = f->last_tiers && has(f, PTIER_TIER_L3) && !had(f, PTIER_TIER_L3);
}

/* Another set of tiers than in the last run: is what was the whole cache then still looked at, and
 * the log that L3 did not have yet? */
static void
inspect_configuration(ptier_cache *cache, const ptier_findings *f, const ptier_progress *p)
{
    ptier_tier_id lowest = had(f, PTIER_TIER_L3) ? PTIER_TIER_L3 : PTIER_TIER_L2;
    if (f->last_tiers && !has(f, lowest))
        ptier_report_start(cache, true,
                           "%s, which had the whole cache in the last run, is switched off",
                           ptier_tier_name(lowest));
    else if (f->progress_known && had(f, PTIER_TIER_L2) && !has(f, PTIER_TIER_L2) &&
             f->l3_prefix < p->logged)
        ptier_report_start(cache, true,
                           "L2, which has changes that L3 does not have yet, is switched off");
}

/* Shards that are missing in front L2 notices by itself. */
static bool
is_cut(const ptier_l2_found *found, const ptier_progress *p)
{
    return found->last_shard < p->last_shard ||
           (found->last_shard == p->last_shard && found->last_shard_bytes < p->last_shard_bytes);
}

/* Damage to what L3 has as well costs nothing but L2's copy. */
static void
inspect_l2(ptier_cache *cache, const ptier_findings *f, const ptier_progress *p)
{
    ptier_l2_found found;
    ptier_l2_found_at_open(cache->tiers[PTIER_TIER_L2], &found);
    cache->start_report.damaged += found.damaged;
    bool l3_has_log =
        has(f, PTIER_TIER_L3) && !f->l3_stale && f->progress_known && f->l3_prefix >= p->logged;
    bool l3_has_damaged = has(f, PTIER_TIER_L3) && !f->l3_stale &&
                          (l3_has_log || (found.damaged_to && f->l3_prefix >= found.damaged_to));
    if (found.damaged)
        ptier_report_start(cache, !l3_has_damaged, "L2: %" PRIu64 " lines are damaged or missing",
                           found.damaged);
    if (f->progress_known && is_cut(&found, p)) {
        cache->start_report.damaged++;
        ptier_report_start(cache, !l3_has_log, "L2 has less than was written to it");
    }
    if (f->progress_known && !(has(f, PTIER_TIER_L3) && !f->l3_stale) &&
        p->stale_below > found.first_shard)
        ptier_report_start(cache, true,
                           "L2 missed changes while it was switched off, and L3, "
                           "which has them, is not there");
}

static void
inspect_l3(ptier_cache *cache, const ptier_findings *f, const ptier_progress *p)
{
    ptier_tier *l3 = cache->tiers[PTIER_TIER_L3];
    if (ptier_l3_condition_of(l3) != PTIER_L3_SOUND) {
        cache->start_report.damaged++;
        ptier_report_start(cache, true, "L3: its file is damaged; what can be read of it is kept");
    }
    if (!f->progress_known)
        return;
    bool log = has(f, PTIER_TIER_L2) && !f->l2_stale, in_log = log && f->l3_prefix >= p->log_from;
    if (f->l3_prefix < p->l3_prefix) {
        cache->start_report.damaged++;
        ptier_report_start(cache, !in_log,
                           "L3 is older than it was: it has the changes up to %" PRIu64
                           " of %" PRIu64 "%s",
                           f->l3_prefix, p->l3_prefix, in_log ? "; L2 has the others" : "");
    } else if (log && !in_log) {
        cache->start_report.damaged++;
        ptier_report_start(cache, true, "L2 lost changes that L3 does not have yet");
    }
}

static void
inspect_run(ptier_cache *cache, const ptier_findings *f)
{
    const ptier_progress *p = &cache->progress_file.now;
    if (!f->state_known) {
        cache->start_report.damaged++;
        ptier_report_start(cache, true, "the state file is damaged or missing");
    } else if (f->last_tiers && !cache->state.clean &&
               cache->state.boot_tag != cache->clock.boot_tag) {
        cache->start_report.unclean_machine_stop = true;
        ptier_report_start(cache, true,
                           "the machine stopped while the cache was open: changes that were not "
                           "synced may be gone");
    } else if (f->last_tiers && !f->progress_known) {
        cache->start_report.damaged++;
        ptier_report_start(cache, true, "the progress file is damaged or missing");
    }
    if (f->progress_known && p->memory_only)
        ptier_report_start(cache, true, "the last run ended with changes that no disk tier took");
}

void
ptier_inspect(ptier_cache *cache, const ptier_findings *f)
{
    const ptier_progress p = cache->progress_file.now;
    if (!f->has_data)
        return;
    inspect_run(cache, f);
    inspect_configuration(cache, f, &p);
    if (has(f, PTIER_TIER_L2) && !f->l2_stale)
        inspect_l2(cache, f, &p);
    if (has(f, PTIER_TIER_L3) && !f->l3_stale)
        inspect_l3(cache, f, &p);
}
