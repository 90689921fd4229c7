/* For calls_*.c only: requests and replies that synchronous and asynchronous calls share. */
#ifndef PTIER_CALLS_INTERNAL_H
#define PTIER_CALLS_INTERNAL_H

#include "arena.h"
#include "client_internal.h"
#include "proxytier/v1/cache.pb-c.h"
#include "records.h"

/* Requests are only read by packing, but the generated structs have no const. */
#define PTIER_UNCONST(type, value) ((type)(uintptr_t)(value))

PTIER_MUST_CHECK ptier_status ptier_check_keys(const char *const *keys, size_t count,
                                               ptier_error *error);

/* A Pick, borrowed from the options (NULL: any), and room for what it points to. */
typedef struct ptier_pick_message {
    Proxytier__V1__PickRequest request;
    struct ptier_filter_message {
        Proxytier__V1__Filter filter;
        Proxytier__V1__Label labels[PTIER_LABELS_MAX];
        Proxytier__V1__Label *label_list[PTIER_LABELS_MAX];
    } filter;
} ptier_pick_message;
PTIER_MUST_CHECK ptier_status ptier_pack_pick(ptier_pick_message *message,
                                              const ptier_pick_options *options,
                                              ptier_error *error);

/* Reports as messages, borrowed. Free both with free(); a failure leaves nothing. */
typedef struct ptier_report_messages {
    Proxytier__V1__HealthReport **list;
    Proxytier__V1__HealthReport *messages;
} ptier_report_messages;
PTIER_MUST_CHECK ptier_status ptier_pack_reports(ptier_report_messages *packed,
                                                 const ptier_report *reports, size_t count,
                                                 ptier_error *error);
void ptier_report_messages_fini(ptier_report_messages *packed);

/* The arena of the reply is moved, also on failure. */
PTIER_MUST_CHECK ptier_status ptier_read_get(ptier_arena *arena, const ptier_record_list *reply,
                                             ptier_records *result, ptier_error *error);

/* Results of puts. On success the arena of the items is moved. */
PTIER_MUST_CHECK ptier_status ptier_read_puts(ptier_arena *arena,
                                              Proxytier__V1__PutResult *const *items, size_t count,
                                              ptier_put_results *results, ptier_error *error);
uint32_t ptier_tier_bits(const Proxytier__V1__Tier *tiers, size_t count);

/* INTERNAL: not `count` results. On success the arena of the reply is moved. */
PTIER_MUST_CHECK ptier_status ptier_read_reports(ptier_arena *arena,
                                                 const Proxytier__V1__ReportHealthResponse *reply,
                                                 size_t count, ptier_report_results *results,
                                                 ptier_error *error);

void ptier_read_delete(const Proxytier__V1__DeleteResponse *reply, ptier_delete_result *result);

/* `call` NULL: the daemon's. */
Proxytier__V1__Durability ptier_change_durability(const ptier_change_call *call);

#endif
