/* See record_list.h: which replies are lists of records, and the long way to their records. */
#include "record_list.h"

#include <string.h>

#include "convert.h"
#include "proxytier/v1/cache.pb-c.h"
#include "record_decode.h"
#include "unpack.h"

static const ptier_list_layout layouts[] = {
    {.type = &proxytier__v1__get_response__descriptor, .as_of = 2, .tier = 3, .single = true},
    {.type = &proxytier__v1__get_many_response__descriptor, .as_of = 2, .unreadable = 3},
    {.type = &proxytier__v1__pick_response__descriptor, .as_of = 2},
    {.type = &proxytier__v1__list_response__descriptor, .next_page_token = 2, .as_of = 3},
};
enum { GET, GET_MANY, PICK, LIST, LAYOUT_COUNT };

const ptier_list_layout *
ptier_list_layout_of(const ProtobufCMessageDescriptor *type)
{
    for (size_t i = 0; i < LAYOUT_COUNT; i++)
        if (layouts[i].type == type)
            return &layouts[i];
    return NULL;
}

bool
ptier_record_list_type(const ProtobufCMessageDescriptor *type)
{
    return ptier_list_layout_of(type) != NULL;
}

/* The parts of an unpacked reply. Returns its messages of records. */
static Proxytier__V1__Proxy *const *
read_reply(const ptier_list_layout *layout, const ProtobufCMessage *message,
           ptier_record_list *list)
{
    list->next_page_token = "";
    switch (layout - layouts) {
    case GET: {
        const Proxytier__V1__GetResponse *get = (const void *)message;
        list->count = get->proxy != NULL;
        list->as_of = get->as_of;
        list->tier = (ptier_tier_id)get->tier;
        return &get->proxy;
    }
    case GET_MANY: {
        const Proxytier__V1__GetManyResponse *many = (const void *)message;
        list->count = many->n_proxies;
        list->as_of = many->as_of;
        list->unreadable = many->unreadable;
        return many->proxies;
    }
    case PICK: {
        const Proxytier__V1__PickResponse *pick = (const void *)message;
        list->count = pick->n_proxies;
        list->as_of = pick->as_of;
        return pick->proxies;
    }
    default: {
        const Proxytier__V1__ListResponse *page = (const void *)message;
        list->count = page->n_proxies;
        list->as_of = page->as_of;
        list->next_page_token = page->next_page_token;
        return page->proxies;
    }
    }
}

static ptier_status
no_memory(ptier_error *error)
{
    return ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory for the reply");
}

static ptier_status
convert(ptier_record *record, ptier_arena *arena, const Proxytier__V1__Proxy *proxy,
        ptier_error *error)
{
    ptier_error detail = {.message = ""};
    size_t room = proxy->n_labels < PTIER_LABELS_MAX ? proxy->n_labels : PTIER_LABELS_MAX;
    ptier_label *labels = ptier_arena_array(arena, room, sizeof *labels);
    if (!labels)
        return no_memory(error);
    ptier_status status = ptier_record_from_proxy(record, labels, proxy, &detail);
    if (status == PTIER_OK && !record->key)
        status = ptier_fail(&detail, PTIER_INVALID_ARGUMENT, "it has no key");
    if (status != PTIER_OK)
        return ptier_fail(error, status,
                          "the reply holds a record this library does not understand: %s",
                          detail.message);
    return PTIER_OK;
}

ptier_status
ptier_record_convert(const ptier_list_layout *layout, ptier_arena *arena, const uint8_t *data,
                     size_t length, ptier_record_list *list, ptier_error *error)
{
    ptier_error detail = {.message = ""};
    const ProtobufCMessage *message =
        ptier_unpack_reply(layout->type, arena, data, length, &detail);
    if (!message)
        return ptier_fail(error,
                          arena->exhausted ? PTIER_RESOURCE_EXHAUSTED : PTIER_INVALID_ARGUMENT,
                          "%s", detail.message);
    memset(list, 0, sizeof *list);
    Proxytier__V1__Proxy *const *proxies = read_reply(layout, message, list);
    list->records = ptier_arena_array(arena, list->count, sizeof *list->records);
    if (!list->records)
        return no_memory(error);
    ptier_status status = PTIER_OK;
    for (size_t i = 0; i < list->count && status == PTIER_OK; i++)
        status = convert(&list->records[i], arena, proxies[i], error);
    return status;
}

ptier_record_list *
ptier_record_list_unpack(const ProtobufCMessageDescriptor *type, ptier_arena *arena,
                         const uint8_t *data, size_t length, ptier_error *error)
{
    const ptier_list_layout *layout = ptier_list_layout_of(type);
    ptier_record_list *list = ptier_arena_alloc(arena, sizeof *list);
    if (list && ptier_record_decode(layout, arena, data, length, list))
        return list;
    ptier_arena_reset(arena, arena->budget);
    list = ptier_arena_alloc(arena, sizeof *list);
    if (!list) {
        (void)no_memory(error); /* NULL says the same */
        return NULL;
    }
    ptier_status status = ptier_record_convert(layout, arena, data, length, list, error);
    return status == PTIER_OK ? list : NULL;
}
