/* The operations of the model test, each at random and checked at once. See model_run.h. */
#ifndef PTIER_PROPERTY_MODEL_OPS_H
#define PTIER_PROPERTY_MODEL_OPS_H

#include "property/model_run.h"

uint64_t ptier_model_below(ptier_model_run *run, uint64_t limit);

/* One operation, any. */
void ptier_model_step(ptier_model_run *run);

/* Clears the cache. */
void ptier_model_clear(ptier_model_run *run);

/* Reads every key. */
void ptier_model_read_all(ptier_model_run *run);

/* A put that is acknowledged as LOGGED: all that was told before it is certain. */
void ptier_model_barrier(ptier_model_run *run);

/* Waits until the lowest tier is within its bound, and compares counts. */
void ptier_model_await_bound(ptier_model_run *run);

#endif
