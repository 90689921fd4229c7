#include "records.h"

#include <stdlib.h>
#include <string.h>

/* Whom the records of a result belong to. In the arena itself, or on the heap, with the near
 * records' references and then the records behind it. */
typedef struct owner {
    ptier_arena *arena; /* NULL: none */
    bool on_heap;
    size_t near_count;
    ptier_near_record *near[];
} owner;

ptier_status
ptier_records_fill(ptier_records *result, ptier_arena *arena, const ptier_record_list *list,
                   ptier_error *error)
{
    owner *of = ptier_arena_alloc(arena, sizeof *of);
    if (!of) {
        ptier_arena_destroy(arena);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory for the reply");
    }
    of->arena = arena;
    result->records = list->records;
    result->count = list->count;
    result->as_of = list->as_of;
    result->internal = of;
    return PTIER_OK;
}

static owner *
create_owner(size_t near_count, size_t count)
{
    owner *made =
        malloc(sizeof *made + near_count * sizeof *made->near + count * sizeof(ptier_record));
    if (made)
        *made = (owner){.on_heap = true, .near_count = 0};
    return made;
}

bool
ptier_records_from_near(ptier_records *result, ptier_near_record *record, int64_t now)
{
    owner *made = create_owner(1, 1);
    if (!made)
        return false;
    ptier_record *view = (ptier_record *)&made->near[1];
    ptier_near_record_view(record, now, view);
    made->near[made->near_count++] = record;
    result->records = view;
    result->count = 1;
    result->internal = made;
    return true;
}

bool
ptier_records_merge(ptier_records *result, const char *const *keys, ptier_near_record *const *near,
                    size_t count, int64_t now)
{
    size_t of_reply = 0, total = 0;
    owner *made = create_owner(count, count), *old = result->internal;
    if (!made)
        return false;
    ptier_record *records = (ptier_record *)&made->near[count];
    for (size_t i = 0; i < count; i++) {
        if (near[i] && !near[i]->absent) {
            ptier_near_record_view(near[i], now, &records[total++]);
            made->near[made->near_count++] = ptier_near_record_retain(near[i]);
        } else if (!near[i] && of_reply < result->count &&
                   strcmp(result->records[of_reply].key, keys[i]) == 0) {
            records[total++] = result->records[of_reply++];
        }
    }
    made->arena = old ? old->arena : NULL;
    result->near_count = made->near_count;
    result->records = records;
    result->count = total;
    result->internal = made;
    return true;
}

void
ptier_records_free(ptier_records *records)
{
    if (!records)
        return;
    owner *of = records->internal;
    if (of) {
        ptier_arena *arena = of->arena;
        for (size_t i = 0; i < of->near_count; i++)
            ptier_near_record_release(of->near[i]);
        if (of->on_heap)
            free(of);
        ptier_arena_destroy(arena);
    }
    memset(records, 0, sizeof *records);
}

void
ptier_put_results_free(ptier_put_results *results)
{
    if (!results)
        return;
    ptier_arena_destroy(results->internal);
    memset(results, 0, sizeof *results);
}

void
ptier_report_results_free(ptier_report_results *results)
{
    if (!results)
        return;
    ptier_arena_destroy(results->internal);
    memset(results, 0, sizeof *results);
}

static ptier_status
check_records(const ptier_record *records, size_t count, size_t *labels, ptier_error *error)
{
    *labels = 0;
    for (size_t i = 0; i < count; i++) {
        if (!records[i].url)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT, "record %zu has no URL", i);
        if (records[i].label_count > PTIER_LABELS_MAX)
            return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                              "record %zu has %zu labels, at most %d are allowed", i,
                              records[i].label_count, PTIER_LABELS_MAX);
        *labels += records[i].label_count;
    }
    return PTIER_OK;
}

/* The labels go to shared arrays: room for PTIER_LABELS_MAX in every record would be 2 KiB each. */
static void
add_record(ptier_proxy_list *messages, const ptier_record *record, size_t *labels_used)
{
    ptier_proxy_message one;
    size_t i = messages->count++;
    ptier_proxy_from_record(&one, record, true);
    messages->proxies[i] = one.proxy;
    messages->proxies[i].labels = &messages->label_list[*labels_used];
    messages->list[i] = &messages->proxies[i];
    for (size_t l = 0; l < one.proxy.n_labels; l++, (*labels_used)++) {
        messages->labels[*labels_used] = *one.proxy.labels[l];
        messages->label_list[*labels_used] = &messages->labels[*labels_used];
    }
}

ptier_status
ptier_proxy_list_init(ptier_proxy_list *messages, const ptier_record *records, size_t count,
                      ptier_error *error)
{
    size_t labels, used = 0;
    memset(messages, 0, sizeof *messages);
    ptier_status status = check_records(records, count, &labels, error);
    if (status != PTIER_OK)
        return status;
    messages->list = calloc(count + 1, sizeof *messages->list);
    messages->proxies = calloc(count + 1, sizeof *messages->proxies);
    messages->labels = calloc(labels + 1, sizeof *messages->labels);
    messages->label_list = calloc(labels + 1, sizeof *messages->label_list);
    if (!messages->list || !messages->proxies || !messages->labels || !messages->label_list) {
        ptier_proxy_list_fini(messages);
        return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    }
    for (size_t i = 0; i < count; i++)
        add_record(messages, &records[i], &used);
    return PTIER_OK;
}

void
ptier_proxy_list_fini(ptier_proxy_list *messages)
{
    free(messages->list);
    free(messages->proxies);
    free(messages->labels);
    free(messages->label_list);
    memset(messages, 0, sizeof *messages);
}
