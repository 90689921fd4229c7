#include "event_filter.h"

#include <string.h>

#include "convert.h"

static bool
is_known_type(int type)
{
    return (type >= PTIER_EVENT_CREATED && type <= PTIER_EVENT_CLEARED) ||
           (type >= PTIER_EVENT_PROMOTED && type <= PTIER_EVENT_TIER_RECOVERED);
}

static bool
has_bit(uint32_t set, int bit)
{
    return set == 0 || (bit >= 0 && bit < 32 && (set & UINT32_C(1) << bit) != 0);
}

/* Of what was damaged, the source may be unknown. */
static bool
is_of_source(const char *source, const Proxytier__V1__Event *event)
{
    if (!source || !*source || !event->proxy)
        return true;
    if (!*event->proxy->source &&
        event->reason == PROXYTIER__V1__REMOVAL_REASON__REMOVAL_REASON_CORRUPTION)
        return true;
    return strcmp(event->proxy->source, source) == 0;
}

bool
ptier_event_wanted(const ptier_subscription_options *options, const Proxytier__V1__Event *event)
{
    const char *prefix = options->key_prefix;
    if (!is_known_type((int)event->type))
        return false;
    if (event->type == PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_CLEARED)
        return true;
    if (!has_bit(options->types, (int)event->type))
        return false;
    if (event->type == PROXYTIER__V1__EVENT_TYPE__EVENT_TYPE_REMOVED &&
        !has_bit(options->reasons, (int)event->reason))
        return false;
    if (prefix && *event->key && strncmp(event->key, prefix, strlen(prefix)) != 0)
        return false;
    return is_of_source(options->source, event);
}

void
ptier_event_from_wire(ptier_event *event, ptier_label labels[PTIER_LABELS_MAX],
                      const Proxytier__V1__Event *wire)
{
    *event = (ptier_event){
        .type = (ptier_event_type)wire->type,
        .reason = (ptier_reason)wire->reason,
        .sequence = wire->sequence,
        .revision = wire->revision,
        .tier = (ptier_tier_id)wire->tier,
        .count = wire->count ? wire->count : 1,
    };
    /* A record that we cannot read must not hide the event: its key says what changed. */
    if (!wire->proxy ||
        ptier_record_from_proxy(&event->record, labels, wire->proxy, NULL) != PTIER_OK)
        ptier_record_init(&event->record);
    if (!event->record.key)
        event->record.key = wire->key;
    event->record.username = event->record.password = NULL;
    event->record.username_token = event->record.password_token = NULL;
}
