/* The one line that sums up a loading. Not thread-safe: when nobody counts any more. */
#ifndef PTIER_CLI_WARM_SUMMARY_H
#define PTIER_CLI_WARM_SUMMARY_H

#include "cli.h"
#include "warm_progress.h"

/* Prints it to stdout, for people or as JSON. */
void ptier_warm_summary(const ptier_cli *cli, const ptier_warm_progress *progress);

#endif
