/* A call whose whole reply is printed: see json_call.h. */
#include "json_call.h"

#include <stdlib.h>

#include "json.h"

ptier_cli_exit
ptier_json_call(ptier_cli *cli, const char *method, const ProtobufCMessage *request,
                const ProtobufCMessageDescriptor *reply)
{
    ptier_error error = {0};
    size_t length = protobuf_c_message_get_packed_size(request);
    uint8_t *packed = malloc(length + 1);
    void *answer = NULL;
    size_t answer_length = 0;
    ProtobufCMessage *message = NULL;
    ptier_cli_exit code;

    if (!packed)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED, "out of memory");
    protobuf_c_message_pack(request, packed);
    ptier_status status =
        ptier_call_raw(cli->client, method, packed, length, &answer, &answer_length, &error);
    free(packed);
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    message = protobuf_c_message_unpack(reply, NULL, answer_length, answer);
    free(answer);
    if (!message)
        return ptier_cli_fail(cli, PTIER_CLI_FAILED,
                              "the daemon's reply cannot be read; its "
                              "version may not fit this program's");
    code = ptier_json_line(stdout, message, false) ? PTIER_CLI_OK : PTIER_CLI_FAILED;
    protobuf_c_message_free_unpacked(message, NULL);
    return code;
}
