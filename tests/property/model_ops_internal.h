/* For model_ops.c and model_reads.c only. */
#ifndef PTIER_PROPERTY_MODEL_OPS_INTERNAL_H
#define PTIER_PROPERTY_MODEL_OPS_INTERNAL_H

#include "property/model_ops.h"

enum { PTIER_MODEL_BATCH = 12 };

static inline bool
ptier_model_one_in(ptier_model_run *run, uint64_t n)
{
    return ptier_model_below(run, n) == 0;
}

/* A few keys are hot: the tiers' policies get something to do. */
static inline int
ptier_model_any_key(ptier_model_run *run)
{
    uint64_t limit = ptier_model_one_in(run, 3) ? PTIER_MODEL_KEYS / 8 : PTIER_MODEL_KEYS;
    return (int)ptier_model_below(run, limit);
}

static inline void
ptier_model_check_ok(const ptier_model_run *run, ptier_status status, const ptier_error *error)
{
    PTIER_MODEL_CHECK(run, status == PTIER_OK, "%s: %s", ptier_status_text(status), error->message);
}

/* Settles, where no deletes are counted. */
static inline void
ptier_model_finish(ptier_model_run *run)
{
    size_t most;
    (void)ptier_model_settle(run, &most);
}

void ptier_model_get_one(ptier_model_run *run, int key);
void ptier_model_get_several(ptier_model_run *run);
void ptier_model_pick(ptier_model_run *run);
void ptier_model_list(ptier_model_run *run);

#endif
