/* Health.Check by component and Reflection, over a service without a cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "framing.h"
#include "methods.h"
#include "proxytier/v1/rpc.pb-c.h"

/* The reply to be freed; NULL: the status is *status. */
static ProtobufCMessage *
perform(ptier_service *service, const char *method, const ProtobufCMessage *request,
        const ProtobufCMessageDescriptor *schema, ptier_status *status)
{
    uint8_t message[512];
    ptier_call call;
    const ptier_peer peer = {.role = PTIER_ROLE_READER};
    Proxytier__V1__RequestHeader header = PROXYTIER__V1__REQUEST_HEADER__INIT;
    header.method = (char *)(uintptr_t)method;
    size_t length = proxytier__v1__request_header__pack(&header, message + PTIER_FRAME_PREFIX);
    ptier_frame_prefix(message, length);
    length += PTIER_FRAME_PREFIX;
    length += protobuf_c_message_pack(request, message + length);
    ptier_call_init(&call, service);
    *status = ptier_call_begin(&call, &peer, ptier_monotonic_ms(), message, length);
    assert_int_equal(*status, PTIER_OK);
    ptier_call_run(&call);
    *status = call.status;
    ProtobufCMessage *reply = NULL;
    if (call.status == PTIER_OK)
        reply = protobuf_c_message_unpack(schema, NULL, call.reply.length, call.reply.data);
    ptier_call_fini(&call);
    return reply;
}

/* Status of one component, or -1: NOT_FOUND. */
static int
check(ptier_service *service, const char *component)
{
    ptier_status status;
    Proxytier__V1__CheckRequest request = PROXYTIER__V1__CHECK_REQUEST__INIT;
    request.component = (char *)(uintptr_t)component;
    ProtobufCMessage *reply = perform(service, "/proxytier.v1.Health/Check", &request.base,
                                      &proxytier__v1__check_response__descriptor, &status);
    if (status == PTIER_NOT_FOUND)
        return -1;
    assert_non_null(reply);
    int found = (int)((const Proxytier__V1__CheckResponse *)reply)->status;
    protobuf_c_message_free_unpacked(reply, NULL);
    return found;
}

#define SERVING  PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_SERVING
#define DEGRADED PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_DEGRADED
#define STOPPING PROXYTIER__V1__SERVING_STATUS__SERVING_STATUS_STOPPING

static void
each_component_has_its_own_state(void **state)
{
    (void)state;
    ptier_service service = {.enabled_tiers = 1u << PTIER_TIER_L1 | 1u << PTIER_TIER_L3};
    assert_int_equal(check(&service, ""), SERVING);
    assert_int_equal(check(&service, "calls"), SERVING);
    assert_int_equal(check(&service, "l1"), SERVING);
    assert_int_equal(check(&service, "l3"), SERVING);
    assert_int_equal(check(&service, "l2"), -1); /* switched off */
    assert_int_equal(check(&service, "events"), -1);
    assert_int_equal(check(&service, "l4"), -1);
    service.event_urls[PTIER_DOOR_IPC] = "ipc:///somewhere";
    assert_int_equal(check(&service, "events"), SERVING);
    atomic_store(&service.degraded_tiers, 1u << PTIER_TIER_L3);
    assert_int_equal(check(&service, "l3"), DEGRADED);
    assert_int_equal(check(&service, "l1"), SERVING);
    assert_int_equal(check(&service, "calls"), SERVING);
    assert_int_equal(check(&service, ""), DEGRADED);
    atomic_store(&service.stopping, true);
    assert_int_equal(check(&service, ""), STOPPING);
    assert_int_equal(check(&service, "calls"), STOPPING);
    assert_int_equal(check(&service, "l3"), DEGRADED);
}

static void
whole_daemon_lists_what_is_switched_on(void **state)
{
    (void)state;
    static const char *const expected[] = {"calls", "events", "l1", "l2", "l3"};
    ptier_status status;
    ptier_service service = {.event_urls = {[PTIER_DOOR_IPC] = "ipc:///somewhere"},
                             .enabled_tiers = 0xe};
    Proxytier__V1__CheckRequest request = PROXYTIER__V1__CHECK_REQUEST__INIT;
    ProtobufCMessage *message = perform(&service, "/proxytier.v1.Health/Check", &request.base,
                                        &proxytier__v1__check_response__descriptor, &status);
    const Proxytier__V1__CheckResponse *reply = (const Proxytier__V1__CheckResponse *)message;
    assert_non_null(reply);
    assert_int_equal(reply->n_components, 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(reply->components[i]->name, expected[i]);
    protobuf_c_message_free_unpacked(message, NULL);
}

static void
reflection_names_every_method_and_message(void **state)
{
    (void)state;
    static const ProtobufCServiceDescriptor *const services[] = {
        &proxytier__v1__proxy_cache__descriptor, &proxytier__v1__events__descriptor,
        &proxytier__v1__admin__descriptor,       &proxytier__v1__server_info__descriptor,
        &proxytier__v1__health__descriptor,      &proxytier__v1__reflection__descriptor,
    };
    ptier_status status;
    ptier_service service = {0};
    Proxytier__V1__GetDescriptorsRequest request = PROXYTIER__V1__GET_DESCRIPTORS_REQUEST__INIT;
    ProtobufCMessage *message =
        perform(&service, "/proxytier.v1.Reflection/GetDescriptors", &request.base,
                &proxytier__v1__get_descriptors_response__descriptor, &status);
    assert_non_null(message);
    const ProtobufCBinaryData *set =
        &((const Proxytier__V1__GetDescriptorsResponse *)message)->file_descriptor_set;
    for (size_t s = 0; s < sizeof services / sizeof *services; s++)
        for (unsigned m = 0; m < services[s]->n_methods; m++) {
            const ProtobufCMethodDescriptor *method = &services[s]->methods[m];
            char name[128];
            (void)snprintf(name, sizeof name, "%c%s", (int)strlen(method->name), method->name);
            assert_non_null(memmem(set->data, set->len, name, strlen(name)));
            (void)snprintf(name, sizeof name, ".%s", method->output->name);
            assert_non_null(memmem(set->data, set->len, name, strlen(name)));
        }
    protobuf_c_message_free_unpacked(message, NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_component_has_its_own_state),
        cmocka_unit_test(whole_daemon_lists_what_is_switched_on),
        cmocka_unit_test(reflection_names_every_method_and_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
