/* Reads through the near cache. What it does not have is asked for by GetMany, whose reply says as
 * of when a key is not cached; Get's does not. */
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "monotonic.h"
#include "near_client_internal.h"
#include "records.h"

/* Requests are only read by packing, but the generated structs have no const. */
#define UNCONST(type, value) ((type)(uintptr_t)(value))

static ptier_status
not_found(ptier_error *error)
{
    return ptier_fail(error, PTIER_NOT_FOUND, "no entry has this key");
}

static ptier_status
no_contact(ptier_error *error)
{
    return ptier_fail(error, PTIER_UNAVAILABLE,
                      "contact with the daemon is not fresh: what is known of this key here may be "
                      "out of date");
}

/* What was looked up when all up to `revision` was known is as new as that, and as the record says.
 */
static uint64_t
as_of(uint64_t revision, const ptier_near_record *record)
{
    return record->as_of > revision ? record->as_of : revision;
}

/* Whether the caller gets what was found, rather than an answer of the daemon's, or an error. */
static bool
serves(const ptier_near_client *near, ptier_near_outcome outcome)
{
    return outcome == PTIER_NEAR_HIT ||
           (outcome == PTIER_NEAR_STALE && near->options.on_stale == PTIER_ON_STALE_SERVE);
}

/* ---- one ---- */

/* A result of one near record (moved). */
static ptier_status
give(ptier_near_record *record, int64_t now, ptier_records *result, ptier_error *error)
{
    ptier_status status = PTIER_OK;
    if (record->absent)
        status = not_found(error);
    else if (!ptier_records_from_near(result, record, now))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    else
        return PTIER_OK;
    ptier_near_record_release(record);
    return status;
}

static ptier_status
fail_late(ptier_error *error)
{
    return ptier_fail(error, PTIER_DEADLINE_EXCEEDED, "no answer within the timeout");
}

static ptier_status
ask(ptier_near_client *near, const char *const *keys, size_t count, int64_t deadline,
    ptier_arena **arena, const ptier_record_list **reply, ptier_error *error)
{
    Proxytier__V1__GetManyRequest request = PROXYTIER__V1__GET_MANY_REQUEST__INIT;
    int64_t left = deadline - ptier_monotonic_ms();
    if (left <= 0)
        return fail_late(error);
    request.keys = UNCONST(char **, keys);
    request.n_keys = count;
    ptier_call call = {.method = PTIER_METHOD_GET_MANY,
                       .request = &request.base,
                       .reply_type = &proxytier__v1__get_many_response__descriptor,
                       .timeout_ms = (uint32_t)left};
    return ptier_call_perform(near->client, &call, arena, reply, error);
}

/* A record for the near cache out of a reply. NULL: out of memory. */
static ptier_near_record *
learn(const ptier_record *record, uint64_t revision, int64_t sent)
{
    return ptier_near_record_create(record, false, revision,
                                    ptier_near_expiry(sent, record->remaining_ttl_ms));
}

static ptier_near_record *
learn_absence(const ptier_near_client *near, const char *key, uint64_t revision, int64_t sent)
{
    ptier_record record = {.key = key};
    return ptier_near_record_create(&record, true, revision,
                                    sent + near->options.negative_ttl_ms * PTIER_NEAR_MS);
}

ptier_near_start
ptier_near_client_start(ptier_near_client *near)
{
    ptier_near_start start = {.sent = 0};
    if (near) {
        start.sent = ptier_near_now();
        ptier_near_begin(near->cache, "", &start.ticket); /* the daemon may derive the key */
    }
    return start;
}

void
ptier_near_client_learn(ptier_near_client *near, const ptier_near_start *start,
                        const Proxytier__V1__Proxy *proxy, uint64_t revision)
{
    ptier_label labels[PTIER_LABELS_MAX];
    ptier_record known;
    if (!near || !proxy || ptier_record_from_proxy(&known, labels, proxy, NULL) != PTIER_OK ||
        !known.key)
        return;
    ptier_near_record *record = learn(&known, revision, start->sent);
    if (record)
        (void)ptier_near_fill(near->cache, &start->ticket, record); /* refused: no harm */
    ptier_near_record_release(record);
}

/* One key that is asked for. */
typedef struct one_read {
    ptier_near_client *near;
    const char *key;
    ptier_near_ticket ticket;
    int64_t begun;    /* ptier_near_now */
    int64_t deadline; /* ptier_monotonic_ms: of all that it waits for */
} one_read;

/* Asks the daemon, and fills. OK: *record is owned. */
static ptier_status
fetch(const one_read *r, ptier_near_record **record, ptier_error *error)
{
    ptier_near_client *near = r->near;
    const char *key = r->key;
    const ptier_record_list *reply;
    ptier_arena *arena;
    int64_t sent = ptier_near_now();
    ptier_status status = ask(near, &key, 1, r->deadline, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    *record = NULL;
    if (reply->count == 0 && reply->unreadable)
        status = ptier_fail(error, PTIER_UNAVAILABLE, "no disk of the daemon's gives the entry");
    else if (reply->count > 1 || (reply->count == 1 && strcmp(reply->records[0].key, key) != 0))
        status = ptier_fail(error, PTIER_INTERNAL, "the reply is about other keys");
    else if (reply->count == 1)
        *record = learn(&reply->records[0], reply->as_of, sent);
    else
        *record = learn_absence(near, key, reply->as_of, sent);
    if (status == PTIER_OK && !*record)
        status = ptier_fail(error, PTIER_INTERNAL, "no memory for the reply");
    if (status == PTIER_OK)
        (void)ptier_near_fill(near->cache, &r->ticket,
                              *record); /* it serves the caller either way */
    ptier_arena_destroy(arena);
    return status;
}

/* The answer of another thread's call. False: it does not serve. */
static bool
share(const one_read *r, ptier_flight *flight, ptier_near_record **record, ptier_status *status,
      ptier_error *error)
{
    if (!ptier_flight_wait(&r->near->flights, flight, r->deadline)) {
        *status = fail_late(error);
        return true;
    }
    if (!ptier_flight_serves(flight, &r->ticket, r->begun))
        return false;
    *status = flight->status;
    if (*status == PTIER_OK)
        *record = ptier_near_record_retain(flight->record);
    else
        (void)ptier_fail(error, *status, "%s", flight->error.message); /* returned by *status */
    return true;
}

static ptier_status
fetch_once(ptier_near_client *near, const char *key, ptier_near_record **record, ptier_error *error)
{
    one_read r = {.near = near,
                  .key = key,
                  .begun = ptier_near_now(),
                  .deadline = ptier_monotonic_ms() + near->client->timeout_ms};
    ptier_error failure = {.message = ""};
    ptier_status status;
    bool lead, served = true;
    ptier_near_begin(near->cache, key, &r.ticket);
    ptier_flight *flight =
        ptier_flight_board(&near->flights, key, &r.ticket, r.begun,
                           near->options.max_staleness_ms * PTIER_NEAR_MS, &lead);
    if (!flight)
        return fetch(&r, record, error);
    if (lead) {
        status = fetch(&r, record, &failure);
        ptier_flight_land(&near->flights, flight, status, &failure, *record);
        if (status != PTIER_OK)
            (void)ptier_fail(error, status, "%s", failure.message); /* returned below */
    } else {
        served = share(&r, flight, record, &status, error);
    }
    ptier_flight_leave(&near->flights, flight);
    return served ? status : fetch(&r, record, error);
}

static ptier_status
ask_instead(ptier_near_client *near, const char *key, ptier_records *result, ptier_error *error)
{
    ptier_near_record *record = NULL;
    ptier_status status = fetch_once(near, key, &record, error);
    if (status != PTIER_OK)
        return status;
    result->as_of = record->as_of;
    return give(record, ptier_near_now(), result, error);
}

/* Of a look-up that has not been left; leaves it. Apart, so that hits do not pay for its room. */
__attribute__((noinline)) static ptier_status
do_not_serve(ptier_near_client *near, ptier_near_look *look, ptier_near_outcome outcome,
             ptier_records *result, ptier_error *error)
{
    /* Close waits for look-ups, and then for those who came in here. */
    ptier_status status = ptier_client_enter_read(near->client, error);
    ptier_near_leave(look);
    ptier_near_record_release(look->record);
    if (status != PTIER_OK)
        return status;
    if (outcome == PTIER_NEAR_STALE && near->options.on_stale == PTIER_ON_STALE_FAIL)
        status = no_contact(error);
    else
        status = ask_instead(near, look->key.text, result, error);
    ptier_client_leave_read(near->client);
    return status;
}

/* Likewise. */
static ptier_status
serve(ptier_near_client *near, ptier_near_look *look, bool stale, int64_t now,
      ptier_records *result, ptier_error *error)
{
    ptier_near_record *record = look->record;
    const bool absent = record->absent, lent = !absent && ptier_near_record_lend(record, now);
    if (look->first)
        ptier_near_client_used(near);
    result->stale = stale;
    result->as_of = stale ? record->as_of : as_of(look->revision, record);
    result->near_count = !absent;
    ptier_near_leave(look); /* nothing of the client's is touched from here on */
    if (!lent)
        return give(record, now, result, error);
    ptier_records_lent(result, record);
    return PTIER_OK;
}

ptier_status
ptier_near_client_get(ptier_near_client *near, const char *key, ptier_records *result,
                      ptier_error *error)
{
    ptier_near_look look;
    ptier_status status = ptier_client_check_fork(near->client, error);
    if (status != PTIER_OK)
        return status;
    ptier_near_look_up(near->cache, key, &look);
    if (atomic_load(
            &near->client->closed)) { /* close waits for no look-up that begins after that */
        ptier_near_leave(&look);
        return ptier_client_was_closed(error);
    }
    int64_t now = ptier_near_now();
    ptier_near_outcome outcome = ptier_near_take(near->cache, &look, now);
    if (serves(near, outcome))
        return serve(near, &look, outcome == PTIER_NEAR_STALE, now, result, error);
    return do_not_serve(near, &look, outcome, result, error);
}

/* ---- many ---- */

typedef struct many {
    ptier_near_client *near;
    const char *const *keys;
    size_t count;
    int64_t now;
    ptier_near_record **records; /* of each key; owned; NULL: asked for */
    const char **asked;          /* these keys */
    ptier_near_ticket *tickets;  /* of these */
    size_t asked_count;
    uint64_t as_of;
    bool stale;
} many;

static bool
init_many(many *m)
{
    m->records = calloc(m->count + 1, sizeof(ptier_near_record *));
    m->asked = calloc(m->count + 1, sizeof(char *));
    m->tickets = calloc(m->count + 1, sizeof *m->tickets);
    return m->records && m->asked && m->tickets;
}

static void
fini_many(many *m)
{
    for (size_t i = 0; m->records && i < m->count; i++)
        ptier_near_record_release(m->records[i]);
    free(m->records);
    free(m->asked);
    free(m->tickets);
}

/* Looks in the near cache. False: contact is not fresh, and the caller wants to know. */
static bool
look_near(many *m)
{
    const ptier_on_stale on_stale = m->near->options.on_stale;
    const uint64_t revision = ptier_near_revision(m->near->cache);
    for (size_t i = 0; i < m->count; i++) {
        ptier_near_record *record;
        ptier_near_outcome outcome = ptier_near_get(m->near->cache, m->keys[i], m->now, &record);
        bool stale = outcome == PTIER_NEAR_STALE;
        if (serves(m->near, outcome)) {
            uint64_t known = stale ? record->as_of : as_of(revision, record);
            m->as_of = known < m->as_of ? known : m->as_of;
            m->stale = m->stale || stale;
            m->records[i] = record;
            continue;
        }
        ptier_near_record_release(record);
        if (stale && on_stale == PTIER_ON_STALE_FAIL)
            return false;
        ptier_near_begin(m->near->cache, m->keys[i], &m->tickets[m->asked_count]);
        m->asked[m->asked_count++] = m->keys[i];
    }
    return true;
}

/* Takes in the answer. Keys that it does not have leave a hole: known to be absent, or not. */
static void
fill_many(many *m, const ptier_record_list *reply, int64_t sent)
{
    size_t at = 0;
    for (size_t i = 0; i < m->asked_count; i++) {
        ptier_near_record *record = NULL;
        if (at < reply->count && strcmp(reply->records[at].key, m->asked[i]) == 0)
            record = learn(&reply->records[at++], reply->as_of, sent);
        else if (reply->unreadable == 0)
            record = learn_absence(m->near, m->asked[i], reply->as_of, sent);
        if (record)
            (void)ptier_near_fill(m->near->cache, &m->tickets[i], record); /* refused: no harm */
        ptier_near_record_release(record);
    }
}

static ptier_status
ask_many(many *m, ptier_records *result, ptier_error *error)
{
    const ptier_record_list *reply;
    ptier_arena *arena;
    int64_t sent = ptier_near_now();
    int64_t deadline = ptier_monotonic_ms() + m->near->client->timeout_ms;
    ptier_status status = ask(m->near, m->asked, m->asked_count, deadline, &arena, &reply, error);
    if (status != PTIER_OK)
        return status;
    fill_many(m, reply, sent);
    m->as_of = reply->as_of < m->as_of ? reply->as_of : m->as_of;
    return ptier_records_fill(result, arena, reply, error);
}

ptier_status
ptier_near_client_get_many(ptier_near_client *near, const char *const *keys, size_t count,
                           ptier_records *result, ptier_error *error)
{
    many m = {.near = near, .keys = keys, .count = count, .as_of = UINT64_MAX};
    m.now = ptier_near_now();
    ptier_status status = PTIER_OK;
    if (!init_many(&m))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    else if (!look_near(&m))
        status = no_contact(error);
    else if (m.asked_count > 0)
        status = ask_many(&m, result, error);
    if (status == PTIER_OK && m.asked_count < count &&
        !ptier_records_merge(result, keys, m.records, count, m.now))
        status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "out of memory");
    if (status == PTIER_OK) {
        result->as_of = m.as_of == UINT64_MAX ? ptier_near_revision(near->cache) : m.as_of;
        result->stale = m.stale;
        ptier_near_client_used(near);
    } else {
        ptier_records_free(result);
    }
    fini_many(&m);
    return status;
}
