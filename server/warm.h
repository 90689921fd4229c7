/* Loading proxy lists into the cache at start. One thread. */
#ifndef PTIER_WARM_H
#define PTIER_WARM_H

#include "log.h"

/*
 * Puts every record of the file (or of the files in ProxyWhirl's directory) into the cache (mode
 * WARM), logs progress and what was skipped and why (no credentials). `stop` is asked between
 * batches; true ends the loading: CANCELLED. Other failures: the file.
 */
PTIER_MUST_CHECK ptier_status ptier_warm_file(ptier_cache *cache, const char *path, ptier_log *log,
                                              bool (*stop)(void *context), void *context,
                                              ptier_error *error);

#endif
