#include "records.h"

#include <stdlib.h>
#include <string.h>

#include "proxytier/v1/cache.pb-c.h"
#include "record_encode.h"

#define FIRST_ROOM ((size_t)4096) /* of a packed request; doubles */

/* Whom the records of a result belong to, unless that is a near record. In the arena itself, or on
 * the heap, with the near records' references and then the records behind it. */
typedef struct owner {
    uint8_t owned_by;   /* ARENA, HEAP */
    ptier_arena *arena; /* NULL: none */
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
    of->owned_by = PTIER_OWNED_BY_ARENA;
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
        *made = (owner){.owned_by = PTIER_OWNED_BY_HEAP, .near_count = 0};
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

static void
free_owner(owner *of)
{
    ptier_arena *arena = of->arena;
    for (size_t i = 0; i < of->near_count; i++)
        ptier_near_record_release(of->near[i]);
    if (of->owned_by == PTIER_OWNED_BY_HEAP)
        free(of);
    ptier_arena_destroy(arena);
}

void
ptier_records_free(ptier_records *records)
{
    if (!records)
        return;
    const uint8_t *owned_by = records->internal;
    if (owned_by && *owned_by == PTIER_OWNED_BY_NEAR_RECORD)
        ptier_near_record_take_back(records->internal);
    else if (owned_by)
        free_owner(records->internal);
    ptier_records_clear(records);
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

ptier_status
ptier_record_checked(const ptier_record *record, size_t number, ptier_error *error)
{
    if (!record->url)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT, "record %zu has no URL", number);
    if (record->label_count > PTIER_LABELS_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "record %zu has %zu labels, at most %d are allowed", number,
                          record->label_count, PTIER_LABELS_MAX);
    return PTIER_OK;
}

static bool
grow(ptier_packed *packed)
{
    size_t room = packed->room ? packed->room * 2 : FIRST_ROOM;
    uint8_t *bytes = malloc(room); /* not realloc: the old copy must be wiped */
    if (!bytes)
        return false;
    if (packed->length)
        memcpy(bytes, packed->bytes, packed->length);
    const size_t length = packed->length;
    ptier_packed_fini(packed);
    *packed = (ptier_packed){.bytes = bytes, .length = length, .room = room};
    return true;
}

/* False: out of memory. */
static bool
add_record(ptier_packed *packed, const ptier_record *record)
{
    for (;;) {
        size_t written = packed->room
                             ? ptier_record_encode(record, true, 1, packed->bytes + packed->length,
                                                   packed->room - packed->length)
                             : 0;
        packed->length += written;
        if (written)
            return true;
        if (!grow(packed))
            return false;
    }
}

/* Its other fields. */
static bool
add_options(ptier_packed *packed, const ptier_put_call *put)
{
    Proxytier__V1__PutManyRequest rest = PROXYTIER__V1__PUT_MANY_REQUEST__INIT;
    rest.durability = (Proxytier__V1__Durability)put->durability;
    rest.mode = (Proxytier__V1__PutMode)put->mode;
    rest.restore = put->restore;
    if (packed->room - packed->length < proxytier__v1__put_many_request__get_packed_size(&rest) &&
        !grow(packed))
        return false;
    packed->length += proxytier__v1__put_many_request__pack(&rest, packed->bytes + packed->length);
    return true;
}

ptier_status
ptier_puts_pack(ptier_packed *packed, const ptier_record *records, size_t count,
                const ptier_put_call *put, ptier_error *error)
{
    *packed = (ptier_packed){0};
    if (count > PTIER_BATCH_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "%zu records in one call, at most %d are allowed", count,
                          PTIER_BATCH_MAX);
    ptier_status status = PTIER_OK;
    for (size_t i = 0; i < count && status == PTIER_OK; i++)
        status = ptier_record_checked(&records[i], i, error);
    bool room = grow(packed);
    for (size_t i = 0; i < count && status == PTIER_OK && room; i++)
        room = add_record(packed, &records[i]);
    if (status == PTIER_OK && !(room && add_options(packed, put)))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (status != PTIER_OK)
        ptier_packed_fini(packed);
    return status;
}

void
ptier_packed_fini(ptier_packed *packed)
{
    if (packed->bytes)
        explicit_bzero(packed->bytes, packed->length);
    free(packed->bytes);
    *packed = (ptier_packed){0};
}
