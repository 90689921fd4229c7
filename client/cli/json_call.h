/* Calls made from .proto messages, for commands whose reply has more than the typed call tells. Not
 * thread-safe. */
#ifndef PTIER_CLI_JSON_CALL_H
#define PTIER_CLI_JSON_CALL_H

#include <protobuf-c/protobuf-c.h>

#include "cli.h"

/*
 * Performs `method` and prints the whole reply as JSON: for commands whose reply has more than the
 * typed call tells. Returns OK, or the code of what was told.
 */
PTIER_MUST_CHECK ptier_cli_exit ptier_json_call(ptier_cli *cli, const char *method,
                                                const ProtobufCMessage *request,
                                                const ProtobufCMessageDescriptor *reply);

#endif
