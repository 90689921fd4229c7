/* Put, PutMany, Delete, ReportHealth. */
#include "handle_common.h"

#include <math.h>
#include <string.h>

#include "convert.h"
#include "record_encode.h"
#include "report_log.h"
#include "wire_check.h"

#define REPORT_ERROR_MAX 256

/* Records of one put with their labels and results, all in the call's arena. */
typedef struct put_batch {
    ptier_record *records; /* the valid ones, first to last */
    size_t *positions;     /* of each in the request; NULL: it is the same */
    size_t valid;
    ptier_put_result *results; /* in the order of the request */
    ptier_put_result *written; /* in the order of `records` */
} put_batch;

static void
reject(ptier_put_result *result, const Proxytier__V1__Proxy *proxy, const ptier_error *error)
{
    memset(result, 0, sizeof *result);
    size_t length = strnlen(proxy->key, PTIER_KEY_MAX);
    memcpy(result->key, proxy->key, length); /* the result is zeroed: terminated */
    result->outcome = PTIER_PUT_REJECTED;
    (void)snprintf(result->message, sizeof result->message, "%.*s", (int)sizeof result->message - 1,
                   error->message);
    ptier_utf8_clean(result->key); /* both may have been cut */
    ptier_utf8_clean(result->message);
}

/* Converts what is valid, rejects the rest one by one. False: no memory. */
static bool
convert_batch(ptier_call *call, put_batch *batch, Proxytier__V1__Proxy *const *proxies,
              size_t count)
{
    memset(batch, 0, sizeof *batch);
    batch->records = ptier_arena_array(&call->arena, count, sizeof *batch->records);
    batch->positions = ptier_arena_array(&call->arena, count, sizeof *batch->positions);
    batch->results = ptier_arena_array(&call->arena, count, sizeof *batch->results);
    batch->written = ptier_arena_array(&call->arena, count, sizeof *batch->written);
    if (!batch->records || !batch->positions || !batch->results || !batch->written)
        return false;
    for (size_t i = 0; i < count; i++) {
        ptier_label scratch[PTIER_LABELS_MAX];
        ptier_error error;
        ptier_record *record = &batch->records[batch->valid];
        if (ptier_record_from_proxy(record, scratch, proxies[i], &error) != PTIER_OK) {
            reject(&batch->results[i], proxies[i], &error);
            continue;
        }
        ptier_label *labels = ptier_arena_array(&call->arena, record->label_count, sizeof *labels);
        if (!labels)
            return false;
        memcpy(labels, scratch, record->label_count * sizeof *labels);
        record->labels = labels;
        batch->positions[batch->valid++] = i;
    }
    return true;
}

/* The same where all are valid, as records that were decoded are. */
static bool
take_batch(ptier_call *call, put_batch *batch)
{
    memset(batch, 0, sizeof *batch);
    batch->records = call->records;
    batch->valid = call->record_count;
    batch->results = batch->written =
        ptier_arena_array(&call->arena, batch->valid, sizeof *batch->results);
    return batch->results != NULL;
}

/* False: the call has failed. */
static bool
put_records(ptier_call *call, put_batch *batch, Proxytier__V1__Proxy *const *proxies, size_t count,
            const ptier_put_options *options, ptier_written *written)
{
    ptier_error error = {0};
    memset(written, 0, sizeof *written);
    call->items = count;
    if (!(call->records ? take_batch(call, batch) : convert_batch(call, batch, proxies, count))) {
        ptier_call_no_memory(call);
        return false;
    }
    ptier_status status = PTIER_OK;
    if (batch->valid)
        status = ptier_cache_put(call->service->cache, batch->records, batch->valid, options,
                                 batch->written, written, &error);
    if (status != PTIER_OK) {
        ptier_call_fail_as(call, status, &error);
        return false;
    }
    for (size_t i = 0; batch->positions && i < batch->valid; i++)
        batch->results[batch->positions[i]] = batch->written[i];
    return true;
}

static void
fill_result(Proxytier__V1__PutResult *out, ptier_put_result *in)
{
    proxytier__v1__put_result__init(out);
    out->key = in->key;
    out->revision = in->revision;
    out->outcome = (Proxytier__V1__PutOutcome)in->outcome;
    out->message = in->message;
}

PTIER_HANDLER(ProxyCache, put, PutRequest, PutResponse)
{
    (void)service;
    ptier_call *call = data;
    put_batch batch;
    ptier_written written;
    ptier_put_options options = {.durability = (ptier_durability)request->durability};
    Proxytier__V1__PutResponse response = PROXYTIER__V1__PUT_RESPONSE__INIT;
    Proxytier__V1__PutResult result;
    Proxytier__V1__Tier tiers[PTIER_TIER_COUNT];
    if (!request->proxy) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "the request has no proxy");
        return;
    }
    if (!put_records(call, &batch, &request->proxy, 1, &options, &written))
        return;
    if (batch.results[0].outcome == PTIER_PUT_REJECTED) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "%s", batch.results[0].message);
        return;
    }
    fill_result(&result, &batch.results[0]);
    response.result = &result;
    response.durability = (Proxytier__V1__Durability)written.durability;
    response.n_tiers = ptier_tiers_from_mask(written.tiers, tiers);
    response.tiers = tiers;
    if (request->return_proxy) {
        ptier_entry *entry = NULL;
        response.as_of = ptier_cache_revision(call->service->cache);
        if (ptier_cache_get(call->service->cache, result.key, &entry, NULL) == PTIER_OK &&
            !ptier_reply_entries(call, 4, &entry, 1))
            return;
    }
    closure(&response, call);
}

static bool
reply_results(ptier_call *call, const ptier_put_result *results, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const ptier_put_words words = {.key = results[i].key,
                                       .revision = results[i].revision,
                                       .outcome = results[i].outcome,
                                       .message = results[i].message};
        uint8_t *out = ptier_bytes_reserve(&call->reply, PTIER_PUT_RESULT_ROOM);
        if (!out) {
            ptier_call_no_memory(call);
            return false;
        }
        call->reply.length += ptier_put_result_encode(&words, 1, out);
    }
    return true;
}

PTIER_HANDLER(ProxyCache, put_many, PutManyRequest, PutManyResponse)
{
    (void)service;
    ptier_call *call = data;
    put_batch batch;
    ptier_written written;
    ptier_put_options options = {
        .durability = (ptier_durability)request->durability,
        .mode = (ptier_put_mode)request->mode,
        .restore = request->restore,
    };
    Proxytier__V1__PutManyResponse response = PROXYTIER__V1__PUT_MANY_RESPONSE__INIT;
    Proxytier__V1__Tier tiers[PTIER_TIER_COUNT];
    if (request->n_proxies > PTIER_BATCH_MAX) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "%zu records in one call; at most %d",
                        request->n_proxies, PTIER_BATCH_MAX);
        return;
    }
    if (request->restore && call->role < PTIER_ROLE_ADMIN) {
        ptier_call_fail(call, PTIER_PERMISSION_DENIED, "PutMany with restore needs the role admin");
        return;
    }
    size_t count = call->records ? call->record_count : request->n_proxies;
    if (!put_records(call, &batch, request->proxies, count, &options, &written) ||
        !reply_results(call, batch.results, count))
        return;
    response.durability = (Proxytier__V1__Durability)written.durability;
    response.n_tiers = ptier_tiers_from_mask(written.tiers, tiers);
    response.tiers = tiers;
    closure(&response, call);
}

PTIER_HANDLER(ProxyCache, delete, DeleteRequest, DeleteResponse)
{
    (void)service;
    ptier_call *call = data;
    ptier_written written = {0};
    ptier_error error = {0};
    size_t deleted = 0;
    call->items = request->n_keys;
    Proxytier__V1__DeleteResponse response = PROXYTIER__V1__DELETE_RESPONSE__INIT;
    if (!ptier_keys_valid(call, request->keys, request->n_keys))
        return;
    ptier_status status = ptier_cache_delete(
        call->service->cache, (const char *const *)request->keys, request->n_keys,
        (ptier_durability)request->durability, &deleted, &written, &error);
    if (status != PTIER_OK) {
        ptier_call_fail_as(call, status, &error);
        return;
    }
    response.deleted = (uint32_t)deleted;
    response.not_found = (uint32_t)(request->n_keys - deleted);
    response.revision = ptier_cache_revision(call->service->cache);
    response.durability = (Proxytier__V1__Durability)written.durability;
    closure(&response, call);
}

/* False: the call has failed. */
static bool
convert_reports(ptier_call *call, const Proxytier__V1__ReportHealthRequest *request,
                ptier_report *reports)
{
    for (size_t i = 0; i < request->n_reports; i++) {
        const Proxytier__V1__HealthReport *in = request->reports[i];
        const char *wrong = NULL;
        if (!*in->key || strnlen(in->key, PTIER_KEY_MAX + 1) > PTIER_KEY_MAX)
            wrong = "has no key, or one over 256 bytes";
        else if (in->outcome == PROXYTIER__V1__REPORT_OUTCOME__REPORT_OUTCOME_UNSPECIFIED)
            wrong = "has no outcome";
        else if (!isfinite(in->latency_ms) || in->latency_ms < 0)
            wrong = "has a latency_ms that is not a number from 0 up";
        else if (strnlen(in->error, REPORT_ERROR_MAX + 1) > REPORT_ERROR_MAX)
            wrong = "has an error text over 256 bytes";
        if (wrong) {
            ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "report %zu %s", i + 1, wrong);
            return false;
        }
        reports[i].key = in->key;
        reports[i].outcome = (ptier_outcome)in->outcome;
        reports[i].latency_ms = in->latency_ms;
        reports[i].error = *in->error ? in->error : NULL;
    }
    return true;
}

static bool
reply_reports(ptier_call *call, const Proxytier__V1__ReportHealthRequest *request,
              const ptier_report_result *results)
{
    for (size_t i = 0; i < request->n_reports; i++) {
        Proxytier__V1__ReportResult out = PROXYTIER__V1__REPORT_RESULT__INIT;
        out.key = request->reports[i]->key;
        out.found = results[i].found;
        out.removed = results[i].removed;
        out.failure_count = results[i].failure_count;
        out.health = (Proxytier__V1__HealthStatus)results[i].health;
        out.revision = results[i].revision;
        if (ptier_bytes_append_field(&call->reply, 1, &out.base) != PTIER_OK) {
            ptier_call_no_memory(call);
            return false;
        }
    }
    return true;
}

PTIER_HANDLER(ProxyCache, report_health, ReportHealthRequest, ReportHealthResponse)
{
    (void)service;
    ptier_call *call = data;
    ptier_written written = {0};
    ptier_error error = {0};
    Proxytier__V1__ReportHealthResponse response = PROXYTIER__V1__REPORT_HEALTH_RESPONSE__INIT;
    size_t count = request->n_reports;
    call->items = count;
    if (count > PTIER_BATCH_MAX) {
        ptier_call_fail(call, PTIER_INVALID_ARGUMENT, "%zu reports in one call; at most %d", count,
                        PTIER_BATCH_MAX);
        return;
    }
    ptier_report *reports = ptier_arena_array(&call->arena, count, sizeof *reports);
    ptier_report_result *results = ptier_arena_array(&call->arena, count, sizeof *results);
    if (!reports || !results) {
        ptier_call_no_memory(call);
        return;
    }
    if (!convert_reports(call, request, reports))
        return;
    uint64_t before = ptier_report_log_begin(call->service);
    ptier_status status =
        ptier_cache_report(call->service->cache, reports, count,
                           (ptier_durability)request->durability, results, &written, &error);
    if (status != PTIER_OK) {
        ptier_call_fail_as(call, status, &error);
        return;
    }
    ptier_report_log(call->service, before, reports, results, count);
    response.durability = (Proxytier__V1__Durability)written.durability;
    if (reply_reports(call, request, results))
        closure(&response, call);
}
