/*
 * Rotation of keys: everything at rest that a previous key made is made anew with the first one,
 * L2 before L3, since what the log has of an older key still goes on to L3. Then L3's file is
 * copied, which leaves behind what was deleted from it, and is durable. When nothing is left,
 * `state` forgets the previous keys, and they need not be given any more.
 */
#include <string.h>

#include "cache/cache_internal.h"

enum {
    ROWS = 2000, /* of L3 in one step: a transaction */
    L2_STEPS = 16,
    WAIT_MS = 200,
};

enum { BEGIN, LOG, FOLLOW, ROWS_OF_L3, COPY, FINISH }; /* ptier_rotation.phase */

/* ---- on the threads that may write ---- */

typedef struct log_step {
    bool begin, done;
    ptier_status status;
    ptier_error *error;
} log_step;

static void
reencrypt_log(ptier_cache *cache, void *context)
{
    log_step *step = context;
    for (int i = 0; i < L2_STEPS && !step->status && !step->done; i++) {
        step->status =
            ptier_l2_reencrypt(cache->tiers[PTIER_TIER_L2], step->begin, &step->done, step->error);
        step->begin = false;
    }
    ptier_note_log(cache, 0);
}

typedef struct row_step {
    ptier_rotation *rotation;
    ptier_status status;
    ptier_error *error;
} row_step;

static void
reencrypt_rows(ptier_cache *cache, void *context)
{
    row_step *step = context;
    uint64_t rewritten = 0;
    step->status = ptier_l3_reencrypt(cache->tiers[PTIER_TIER_L3], &step->rotation->cursor, ROWS,
                                      &rewritten, step->error);
    step->rotation->rewritten += rewritten;
}

/* ---- the phases ---- */

static ptier_status
begin(ptier_cache *cache, ptier_rotation *r, ptier_error *error)
{
    ptier_tier *l2 = cache->tiers[PTIER_TIER_L2], *l3 = cache->tiers[PTIER_TIER_L3];
    log_step step = {.begin = true, .error = error};
    if (l2)
        ptier_lead_log(cache, reencrypt_log, &step);
    r->total = (l2 ? l2->ops->count(l2) : 0) + (l3 ? l3->ops->count(l3) : 0);
    r->phase = step.done || !l2 ? FOLLOW : LOG;
    return step.status;
}

static ptier_status
rotate_log(ptier_cache *cache, ptier_rotation *r, ptier_error *error)
{
    log_step step = {.error = error};
    ptier_lead_log(cache, reencrypt_log, &step);
    if (step.done) {
        uint64_t count = cache->tiers[PTIER_TIER_L2]->ops->count(cache->tiers[PTIER_TIER_L2]);
        r->done = count < r->total ? count : r->total; /* it may have grown */
        r->phase = FOLLOW;
    }
    return step.status;
}

/* Lines of an older key that were on their way to L3 when they were made anew get there first. */
static ptier_status
follow(ptier_cache *cache, ptier_rotation *r)
{
    pthread_mutex_lock(&cache->lock);
    uint64_t logged = r->cursor ? r->cursor : cache->assigned;
    bool waits = cache->tiers[PTIER_TIER_L3] && cache->l3_prefix < logged &&
                 (cache->l3_behind || ptier_waiting_locked(cache));
    waits |= cache->indexing; /* it would have to begin again after the copy */
    if (waits) {
        pthread_cond_signal(&cache->l3_work);
        ptier_wait_locked(cache, &cache->progress, WAIT_MS); /* asked again */
    }
    r->cursor = waits ? logged : 0;
    r->phase = waits ? FOLLOW : cache->tiers[PTIER_TIER_L3] ? ROWS_OF_L3 : FINISH;
    pthread_mutex_unlock(&cache->lock);
    return PTIER_OK;
}

static ptier_status
rotate_rows(ptier_cache *cache, ptier_rotation *r, ptier_error *error)
{
    row_step step = {.rotation = r, .error = error};
    ptier_status status = ptier_on_l3_thread(cache, reencrypt_rows, &step, error);
    if (status || step.status)
        return status ? status : step.status;
    r->done = r->done + ROWS < r->total ? r->done + ROWS : r->total;
    if (r->cursor == 0)
        r->phase = COPY;
    return PTIER_OK;
}

/* L3's thread does it, however long that takes; here it is asked for, and how it went. */
static ptier_status
copy(ptier_cache *cache, ptier_rotation *r, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    pthread_mutex_lock(&cache->lock);
    /* With one key there is nothing of another, not even in free space. */
    bool done = cache->state.key_count == 1 && r->rewritten == 0;
    if (!done && r->cursor == 0)
        r->cursor = cache->rewrites + 1;
    if (!done && cache->rewrites < r->cursor) {
        cache->rewrite_wanted = true;
        pthread_cond_signal(&cache->l3_work);
        ptier_wait_locked(cache, &cache->progress, WAIT_MS); /* asked again */
    }
    if (!done && cache->rewrites >= r->cursor) {
        status = cache->rewrite_error.status;
        if (status && error)
            *error = cache->rewrite_error;
        r->cursor = 0;
        done = !status;
    }
    if (done)
        r->phase = FINISH;
    pthread_mutex_unlock(&cache->lock);
    return status;
}

static ptier_status
finish(ptier_cache *cache, ptier_rotation *r, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    pthread_mutex_lock(&cache->lock);
    cache->keys_rotated = true;
    if (!ptier_await_state_locked(cache, &cache->keys_rotated))
        status = ptier_fail(error, PTIER_UNAVAILABLE,
                            "everything is encrypted anew, but the state file cannot be written: "
                            "the previous keys are still asked for");
    pthread_mutex_unlock(&cache->lock);
    r->finished = !status;
    r->done = r->total;
    return status;
}

/* ---- how far this run came ---- */

/*
 * The caller may have got its state from a run before, which began with other keys or other tiers,
 * or of which L2 has forgotten how far it was: then it begins anew.
 */
static bool
came_this_far(ptier_cache *cache, const ptier_rotation *r)
{
    if ((r->phase == LOG && !cache->tiers[PTIER_TIER_L2]) ||
        ((r->phase == ROWS_OF_L3 || r->phase == COPY) && !cache->tiers[PTIER_TIER_L3]))
        return false;
    pthread_mutex_lock(&cache->lock);
    const ptier_rotation *known = &cache->rotation;
    bool so = r->phase < known->phase ||
              (r->phase == known->phase && (r->phase != ROWS_OF_L3 || r->cursor <= known->cursor));
    pthread_mutex_unlock(&cache->lock);
    return so;
}

static void
note_phase(ptier_cache *cache, const ptier_rotation *r)
{
    pthread_mutex_lock(&cache->lock);
    ptier_rotation *known = &cache->rotation;
    if (r->phase > known->phase || (r->phase == known->phase && r->cursor > known->cursor))
        *known = *r;
    pthread_mutex_unlock(&cache->lock);
}

static ptier_status
check_tiers(ptier_cache *cache, ptier_error *error)
{
    for (int id = PTIER_TIER_L2; id <= PTIER_TIER_L3; id++) {
        pthread_mutex_lock(&cache->lock);
        bool down = cache->tiers[id] && cache->health[id].down;
        pthread_mutex_unlock(&cache->lock);
        if (down)
            return ptier_fail(error, PTIER_UNAVAILABLE,
                              "%s does not work at present: rotate the keys when it is back",
                              ptier_tier_name((ptier_tier_id)id));
    }
    if (!cache->data_dir)
        return ptier_fail(error, PTIER_FAILED_PRECONDITION,
                          "without a disk tier nothing is encrypted");
    return PTIER_OK;
}

static ptier_status
run_phase(ptier_cache *cache, ptier_rotation *r, ptier_error *error)
{
    switch (r->phase) {
    case BEGIN:
        return begin(cache, r, error);
    case LOG:
        return rotate_log(cache, r, error);
    case FOLLOW:
        return follow(cache, r);
    case ROWS_OF_L3:
        return rotate_rows(cache, r, error);
    case COPY:
        return copy(cache, r, error);
    default:
        return finish(cache, r, error);
    }
}

ptier_status
ptier_cache_rotate_step(ptier_cache *cache, ptier_rotation *r, ptier_error *error)
{
    ptier_status status = check_tiers(cache, error);
    if (status)
        return status;
    if (r->phase > FINISH)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "no such phase of a rotation");
    if (!came_this_far(cache, r))
        *r = (ptier_rotation){0};
    status = run_phase(cache, r, error);
    if (!status)
        note_phase(cache, r);
    return status;
}
