/*
 * Protobuf messages as JSON, one object a line, by their descriptors: field names and enum names as
 * in the .proto files, 64-bit numbers as JSON numbers, bytes in lower-case hex. Thread-safe as far
 * as the stream is.
 */
#ifndef PTIER_CLI_JSON_H
#define PTIER_CLI_JSON_H

#include <stdbool.h>
#include <stdio.h>

#include <protobuf-c/protobuf-c.h>

/*
 * Left out are: empty strings and bytes, enumerators of value 0, unset messages and oneofs. Zero
 * numbers, false and empty lists are printed, unless `sparse` (for messages where most fields do
 * not apply). False: no memory, or the stream failed.
 */
bool ptier_json_line(FILE *out, const ProtobufCMessage *message, bool sparse);

/* `{"name":"text"}` and a line break. False: no memory, or the stream failed. */
bool ptier_json_pair(FILE *out, const char *name, const char *text);

#endif
