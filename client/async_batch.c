/*
 * See async_batch.h. On the wire a GetRequest is a GetManyRequest of one key, and the part of a
 * GetManyResponse that is one record is a GetResponse: so requests are joined and replies cut
 * without a look at what is in them, and each record is checked and unpacked as that of a Get is.
 */
#include "async_batch.h"

#include <stdlib.h>
#include <string.h>

#include "calls_internal.h"
#include "client_internal.h"
#include "varint.h"

/* Field numbers and wire types, as tags: proxytier/v1/cache.proto. */
#define REQUEST_WITH_TIERS 0x10
#define REPLY_PROXIES      0x0a
#define REPLY_AS_OF        0x10
#define REPLY_UNREADABLE   0x18
#define REPLY_TIERS        0x22

typedef struct field {
    uint64_t tag, number; /* the value of a number, the length of `data` */
    const uint8_t *whole, *data;
} field;

/* The next field. False: the end, or not one that such messages have. */
static bool
take_field(ptier_span *in, field *f)
{
    f->whole = in->at;
    if (!ptier_take_varint(in, &f->tag) || !ptier_take_varint(in, &f->number))
        return false;
    f->data = in->at;
    if ((f->tag & 7) == 0)
        return true;
    if ((f->tag & 7) != 2 || f->number > (size_t)(in->end - in->at))
        return false;
    in->at += f->number;
    return true;
}

bool
ptier_async_batch_takes(size_t body_length)
{
    return body_length > 0 && body_length <= 2 + 127; /* a key in a field with a length of 1 byte */
}

ptier_async_batch *
ptier_async_batch_create(ptier_async_engine *engine, ptier_client *client)
{
    ptier_async_batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        return NULL;
    batch->engine = engine;
    batch->attempt.client = client;
    ptier_call_describe(PTIER_METHOD_GET_MANY, &batch->attempt);
    batch->attempt.raw = batch->body;
    return batch;
}

bool
ptier_async_batch_add(ptier_async_batch *batch, ptier_async *call)
{
    size_t used = batch->attempt.body_length, more = call->attempt.body_length;
    if (batch->count == PTIER_ASYNC_BATCH_MAX || used + more + 2 > sizeof batch->body)
        return false;
    memcpy(batch->body + used, call->body, more);
    batch->attempt.body_length = used + more;
    batch->members[batch->count++] = call;
    call->batch = batch;
    return true;
}

void
ptier_async_batch_leave(ptier_async_batch *batch, const ptier_async *call)
{
    for (size_t i = 0; i < batch->count; i++)
        if (batch->members[i] == call)
            batch->members[i] = NULL;
}

nng_msg *
ptier_async_batch_pack(ptier_async_batch *batch, int64_t deadline)
{
    ptier_attempt *a = &batch->attempt;
    ptier_error error;
    batch->body[a->body_length++] = REQUEST_WITH_TIERS;
    batch->body[a->body_length++] = true;
    a->deadline = deadline;
    return ptier_attempt_begin(a, &error) == PTIER_OK ? ptier_attempt_pack(a) : NULL;
}

/* Unpacks one record as the reply to a Get. False: it says nothing that can be understood. */
static bool
read_record(ptier_async_batch *batch, const field *f, ptier_records *records)
{
    ptier_attempt part = batch->attempt;
    ptier_arena *arena;
    void *reply;
    ptier_error error;
    part.frame.body = f->whole;
    part.frame.body_length = (size_t)(f->data - f->whole) + f->number;
    if (ptier_attempt_unpack(&part, &proxytier__v1__get_response__descriptor, &arena, &reply,
                             &error) != PTIER_OK)
        return false;
    memset(records, 0, sizeof *records);
    return ptier_read_get(arena, reply, records, &error) == PTIER_OK;
}

typedef struct batch_reply {
    const uint8_t *asked; /* the next key, in the request */
    size_t next;          /* whose it is */
    uint64_t as_of, unreadable;
    field tiers;
    size_t served, positions[PTIER_ASYNC_BATCH_MAX];
} batch_reply;

/* Goes on to the next that asks for this key. False: there is none. */
static bool
find_asker(const ptier_async_batch *batch, batch_reply *answer, const char *key, size_t *asker)
{
    if (!key)
        return false;
    size_t length = strlen(key);
    bool found = false;
    while (!found && answer->next < batch->count) {
        const uint8_t *asked = answer->asked;
        found = asked[1] == length && memcmp(asked + 2, key, length) == 0;
        *asker = answer->next++;
        answer->asked += 2 + asked[1];
    }
    return found;
}

static bool
take_record(ptier_async_batch *batch, const field *f, batch_reply *answer)
{
    ptier_records records;
    size_t asker;
    if (!read_record(batch, f, &records))
        return false;
    bool found = find_asker(batch, answer, records.records[0].key, &asker);
    if (found && batch->members[asker])
        batch->members[asker]->result.records = records;
    else
        ptier_records_free(&records);
    if (!found)
        return false;
    batch->outcomes[asker] = PTIER_ASYNC_SERVED;
    answer->positions[answer->served++] = asker;
    return true;
}

/* False: damaged. */
static bool
take_answer(ptier_async_batch *batch, batch_reply *answer)
{
    const ptier_frame *frame = &batch->attempt.frame;
    ptier_span in = {frame->body, frame->body + frame->body_length};
    while (in.at < in.end) {
        field f;
        if (!take_field(&in, &f))
            return false;
        if (f.tag == REPLY_PROXIES && !take_record(batch, &f, answer))
            return false;
        if (f.tag == REPLY_AS_OF)
            answer->as_of = f.number;
        else if (f.tag == REPLY_UNREADABLE)
            answer->unreadable = f.number;
        else if (f.tag == REPLY_TIERS)
            answer->tiers = f;
    }
    return true;
}

static void
forget(ptier_async_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->members[i])
            ptier_records_free(&batch->members[i]->result.records);
        batch->outcomes[i] = PTIER_ASYNC_UNSAID;
    }
}

void
ptier_async_batch_read(ptier_async_batch *batch)
{
    batch_reply answer = {.asked = batch->body};
    for (size_t i = 0; i < batch->count; i++)
        batch->outcomes[i] = PTIER_ASYNC_UNSAID;
    if (!take_answer(batch, &answer)) {
        forget(batch);
        return;
    }
    for (size_t i = 0; answer.unreadable == 0 && i < batch->count; i++)
        if (batch->outcomes[i] == PTIER_ASYNC_UNSAID)
            batch->outcomes[i] = PTIER_ASYNC_ABSENT;
    for (size_t i = 0; i < answer.served; i++) {
        ptier_async *member = batch->members[answer.positions[i]];
        if (!member)
            continue;
        member->result.records.as_of = answer.as_of;
        if (answer.tiers.number == answer.served && answer.tiers.data[i] < PTIER_TIER_COUNT)
            member->result.records.tier = (ptier_tier_id)answer.tiers.data[i];
    }
}
