/*
 * What protobuf-c lets through and we do not: strings that are not UTF-8 or have a NUL inside, enum
 * values that the schema does not know, numbers that would be cut, nesting without end, and small
 * messages that become large structs. Works on the bytes, before anything is allocated. Thread-safe
 * (no state).
 */
#ifndef PTIER_WIRE_CHECK_H
#define PTIER_WIRE_CHECK_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include <proxytier/status.h>

#define PTIER_WIRE_DEPTH_MAX 8 /* our deepest message has 4 levels; there are no recursive ones */
#define PTIER_WIRE_AGAIN_MAX                                                                       \
    8 /* times that a field which is no list may be given: the last wins                           \
       */
#define PTIER_WIRE_NESTED_MAX  64    /* items of a list inside an item of a list: labels */
#define PTIER_WIRE_UNKNOWN_MAX 40000 /* fields that the schema does not know, in one message */

/*
 * A request: lists have at most PTIER_BATCH_MAX items. INVALID_ARGUMENT with the name of the field.
 * Fields the schema does not know are skipped.
 */
PTIER_MUST_CHECK ptier_status ptier_wire_check(const ProtobufCMessageDescriptor *schema,
                                               const uint8_t *data, size_t length,
                                               ptier_error *error);

/*
 * A reply, or events: lists of any length (the arena's budget bounds them), and enum values of a
 * newer daemon pass.
 */
PTIER_MUST_CHECK ptier_status ptier_wire_check_reply(const ProtobufCMessageDescriptor *schema,
                                                     const uint8_t *data, size_t length,
                                                     ptier_error *error);

/* The last value of a number field of a message, not of nested ones. 0: not there; 1 when the bytes
 * are no message. */
uint64_t ptier_wire_number(const uint8_t *data, size_t length, unsigned field);

/* Whether the bytes are a string as we take them: UTF-8 without a NUL. */
bool ptier_wire_text_valid(const uint8_t *text, size_t length);

/* Whether a client may send the text. */
bool ptier_utf8_valid(const char *text);

/* Makes the text valid UTF-8: what is not becomes '?'. */
void ptier_utf8_clean(char *text);

#endif
