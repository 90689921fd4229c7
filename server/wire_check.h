/*
 * What protobuf-c lets through and we do not: strings that are not UTF-8 or have a NUL inside, enum
 * values that the schema does not know, nesting without end. Works on the bytes, before anything is
 * allocated. Thread-safe (no state).
 */
#ifndef PTIER_WIRE_CHECK_H
#define PTIER_WIRE_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include <proxytier/status.h>

/* INVALID_ARGUMENT with the name of the field. Fields the schema does not know are skipped. */
PTIER_MUST_CHECK ptier_status ptier_wire_check(const ProtobufCMessageDescriptor *schema,
                                               const uint8_t *data, size_t length,
                                               ptier_error *error);

#endif
