/*
 * Between ptier_record and proxytier.v1.Proxy. Thread-safe (no state).
 */
#ifndef PTIER_CONVERT_H
#define PTIER_CONVERT_H

#include <proxytier/status.h>
#include <proxytier/types.h>

#include "proxytier/v1/types.pb-c.h"

/* Room for the label messages of one record. */
typedef struct ptier_proxy_message {
    Proxytier__V1__Proxy proxy;
    Proxytier__V1__Label labels[PTIER_LABELS_MAX];
    Proxytier__V1__Label *label_list[PTIER_LABELS_MAX];
} ptier_proxy_message;

/* Fills *message for packing; its strings are borrowed from the record. `credentials` false leaves
 * them out. */
void ptier_proxy_from_record(ptier_proxy_message *message, const ptier_record *record,
                             bool credentials);

/*
 * Fills *record from an unpacked message; strings are borrowed from it, `labels` is the caller's
 * room. INVALID_ARGUMENT: too many labels, an enum value we do not know, a limit exceeded.
 */
PTIER_MUST_CHECK ptier_status ptier_record_from_proxy(ptier_record *record,
                                                      ptier_label labels[PTIER_LABELS_MAX],
                                                      const Proxytier__V1__Proxy *proxy,
                                                      ptier_error *error);

#endif
