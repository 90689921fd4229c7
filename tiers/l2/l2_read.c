/* L2's reading side, from any thread: places are taken from the table under the lock, their lines
 * read without it, from shards that were retained meanwhile. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "l2/l2_internal.h"

enum {
    SMALL_LINE = 4096,
    LOG_PART = 512, /* changes that are looked up under one holding of the lock */
};

ptier_status
l2_read_line(const l2_place *place, const ptier_l2_reader *reader, ptier_l2_line *line)
{
    char small[SMALL_LINE];
    char *text = place->length <= sizeof small ? small : malloc(place->length);
    if (!text)
        return PTIER_RESOURCE_EXHAUSTED;
    ptier_status status = l2_shard_read(place->shard, place->offset, text, place->length);
    if (!status)
        status = ptier_l2_line_parse(text, place->length, reader, line);
    if (text != small)
        free(text);
    return status;
}

/* ---- damage ---- */

static bool
rescue_key(const l2_tier *l2, const l2_place *place, char key[PTIER_KEY_MAX + 1])
{
    char *text = malloc(place->length);
    if (!text)
        return false;
    (void)l2_shard_read_sound(place->shard, place->offset, text, place->length);
    bool right =
        ptier_l2_legible_key(text, place->length, key) && l2->options.hash_key(key) == place->hash;
    free(text);
    return right;
}

bool
l2_drop_damaged(l2_tier *l2, const l2_place *place)
{
    l2_lost lost = {.hash = place->hash, .revision = place->revision};
    bool legible = rescue_key(l2, place, lost.key);
    pthread_mutex_lock(&l2->lock);
    l2_node *n = l2_find_locked(l2, place->hash, place->revision);
    bool dropped = n && n->shard == place->shard && n->offset == place->offset;
    if (dropped) {
        if (n->logged && n->revision > l2->log_lost_to)
            l2->log_lost_to = n->revision;
        l2_forget_locked(l2, n);
        l2->damaged++;
        if (legible)
            l2->lost[l2->lost_next++ % L2_LOST] = lost;
    }
    pthread_mutex_unlock(&l2->lock);
    if (dropped)
        l2_log(l2, PTIER_LOG_WARN, "l2_damaged",
               "shard %" PRIu32 " offset %" PRIu32 ": the line of revision %" PRIu64
               " is damaged; L2 has lost it",
               place->shard->number, place->offset, place->revision);
    return dropped;
}

bool
ptier_l2_peek_key(ptier_tier *tier, uint64_t hash, uint64_t revision, char key[PTIER_KEY_MAX + 1])
{
    l2_tier *l2 = (l2_tier *)tier;
    bool found = false;
    pthread_mutex_lock(&l2->lock);
    for (size_t i = 0; !found && i < L2_LOST; i++) {
        const l2_lost *lost = &l2->lost[i];
        found = lost->revision == revision && lost->hash == hash && *lost->key;
        if (found)
            memcpy(key, lost->key, sizeof lost->key);
    }
    pthread_mutex_unlock(&l2->lock);
    return found;
}

uint64_t
ptier_l2_log_lost_to(ptier_tier *tier)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    uint64_t lost_to = l2->log_lost_to;
    pthread_mutex_unlock(&l2->lock);
    return lost_to;
}

uint64_t
ptier_l2_damaged(ptier_tier *tier)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    uint64_t damaged = l2->damaged;
    pthread_mutex_unlock(&l2->lock);
    return damaged;
}

/* ---- single records ---- */

/* What is only logged is served, too: it is current until L3 has something newer. */
ptier_status
l2_get(ptier_tier *tier, const ptier_ref *ref, ptier_entry **entry)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    l2_node *n = l2_find_locked(l2, ref->hash, ref->revision);
    if (!n || n->kind != PTIER_OP_PUT) {
        pthread_mutex_unlock(&l2->lock);
        return PTIER_NOT_FOUND;
    }
    if (!ref->quiet)
        l2_use_locked(l2, n);
    const l2_place place = l2_place_of(n);
    (void)l2_shard_retain(place.shard);
    pthread_mutex_unlock(&l2->lock);

    ptier_l2_line line;
    ptier_l2_reader reader = l2_reader(l2, true);
    reader.tokens = false;
    ptier_status status = l2_read_line(&place, &reader, &line);
    if (!status) {
        if (line.op.kind == PTIER_OP_PUT &&
            ptier_ref_matches(ref, line.op.entry->hash, line.op.revision,
                              ptier_entry_key(line.op.entry)))
            *entry = ptier_entry_retain(line.op.entry);
        else
            status = ref->key ? PTIER_NOT_FOUND : PTIER_DATA_LOSS;
        ptier_l2_line_fini(&line);
    }
    if (status == PTIER_DATA_LOSS)
        (void)l2_drop_damaged(l2, &place);
    l2_shard_release(place.shard);
    return status;
}

/* ---- all residents ---- */

/* Writer only, so that nodes do not move; readers may still reorder them, hence the copy of what is
 * to be read. */
ptier_status
l2_scan(ptier_tier *tier, ptier_scan_fn fn, void *context, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    pthread_mutex_lock(&l2->lock);
    size_t count = 0, room = l2->residents;
    l2_place *places = malloc((room ? room : 1) * sizeof *places);
    for (const l2_node *n = l2->oldest; places && n; n = n->newer)
        places[count++] = l2_place_of(n);
    pthread_mutex_unlock(&l2->lock);
    if (!places)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to scan L2");
    bool go_on = true;
    ptier_status status = PTIER_OK;
    for (size_t i = 0; i < count && go_on && !status; i++) {
        ptier_l2_line line;
        const ptier_l2_reader reader = l2_reader(l2, false);
        status = l2_read_line(&places[i], &reader, &line);
        if (status == PTIER_DATA_LOSS) {
            (void)l2_drop_damaged(l2, &places[i]);
            status = PTIER_OK;
            continue;
        }
        if (status)
            break;
        const ptier_entry *entry = line.op.entry;
        const ptier_scan_item item = {
            .hash = entry->hash,
            .revision = entry->revision,
            .expires_boot_ms = entry->expires_boot_ms,
            .health = entry->health,
            .key = ptier_entry_key(entry),
            .url = ptier_entry_url(entry),
            .source = ptier_entry_source(entry),
        };
        go_on = fn(context, &item);
        ptier_l2_line_fini(&line);
    }
    free(places);
    return status ? ptier_fail(error, status, "cannot read L2's shards") : PTIER_OK;
}

ptier_status
ptier_l2_residents(ptier_tier *tier, ptier_ref **refs, size_t *count, ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    *count = 0;
    pthread_mutex_lock(&l2->lock);
    *refs = malloc((l2->residents + 1) * sizeof **refs);
    for (const l2_node *n = l2->oldest; *refs && n; n = n->newer)
        (*refs)[(*count)++] = (ptier_ref){.hash = n->hash, .revision = n->revision, .quiet = true};
    pthread_mutex_unlock(&l2->lock);
    return *refs ? PTIER_OK : ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to list L2");
}

/* ---- the log ---- */

typedef struct log_reading {
    ptier_l2_replay_fn fn;
    void *context;
    uint64_t after; /* the last one that was handed out, or is lost */
    uint64_t lost;
    size_t left; /* of the caller's limit */
    bool stopped;
} log_reading;

/* Hands out one logged change, or counts it as lost. */
static ptier_status
hand_out(l2_tier *l2, const l2_place *place, log_reading *r)
{
    ptier_l2_line line;
    const ptier_l2_reader reader = l2_reader(l2, true);
    ptier_status status = l2_read_line(place, &reader, &line);
    if (status == PTIER_DATA_LOSS) {
        r->lost += l2_drop_damaged(l2, place); /* not when the key has a newer line by now */
        r->after = place->revision;
        return PTIER_OK;
    }
    if (status)
        return status;
    line.op.replaces = PTIER_REPLACES_ANY; /* lines in between were passed over */
    r->stopped = !r->fn(r->context, &line.op);
    r->after = place->revision;
    r->left--;
    ptier_l2_line_fini(&line);
    return PTIER_OK;
}

static ptier_status
hand_out_part(l2_tier *l2, log_reading *r, bool *more)
{
    l2_place places[LOG_PART];
    size_t count = 0, want = r->left < LOG_PART ? r->left : LOG_PART;
    pthread_mutex_lock(&l2->lock);
    l2_node *n = l2_log_above_locked(l2, r->after);
    for (; n && count < want; n = n->log_newer) {
        places[count] = l2_place_of(n);
        (void)l2_shard_retain(places[count++].shard);
        l2->log_cursor = n;
    }
    *more = n != NULL;
    pthread_mutex_unlock(&l2->lock);
    ptier_status status = PTIER_OK;
    for (size_t i = 0; i < count; i++) {
        if (!status && !r->stopped)
            status = hand_out(l2, &places[i], r);
        *more |= r->stopped && i + 1 < count;
        l2_shard_release(places[i].shard);
    }
    return status;
}

/* A reading's result, for replay and read_log alike. */
static ptier_status
read_log(l2_tier *l2, log_reading *r, bool *more, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    *more = true;
    while (!status && *more && r->left && !r->stopped)
        status = hand_out_part(l2, r, more);
    return status
               ? ptier_fail(error, status, "cannot read L2's log above revision %" PRIu64, r->after)
               : PTIER_OK;
}

ptier_status
ptier_l2_read_log(ptier_tier *tier, uint64_t after, size_t limit, ptier_l2_replay_fn fn,
                  void *context, bool *more, uint64_t *lost, ptier_error *error)
{
    log_reading r = {.fn = fn, .context = context, .after = after, .left = limit};
    ptier_status status = read_log((l2_tier *)tier, &r, more, error);
    *lost = r.lost;
    return status;
}

ptier_status
ptier_l2_replay(ptier_tier *tier, uint64_t prefix, ptier_l2_replay_fn fn, void *context,
                ptier_error *error)
{
    l2_tier *l2 = (l2_tier *)tier;
    bool more;
    pthread_mutex_lock(&l2->lock);
    bool ready = l2_end_recovery_locked(l2, prefix);
    pthread_mutex_unlock(&l2->lock);
    if (!ready)
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory to replay L2");
    log_reading r = {.fn = fn, .context = context, .after = prefix, .left = SIZE_MAX};
    return read_log(l2, &r, &more, error);
}
