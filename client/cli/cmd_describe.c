/*
 * proxytier describe: the protocol as the daemon speaks it. Reads as much of a FileDescriptorSet as
 * it shows: the field numbers below are those of google/protobuf/descriptor.proto.
 */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "proxytier/v1/info.pb-c.h"
#include "unpack.h"
#include "varint.h"

#define SET_FILE         1
#define FILE_PACKAGE     2
#define FILE_SERVICE     6
#define SERVICE_NAME     1
#define SERVICE_METHOD   2
#define METHOD_NAME      1
#define METHOD_INPUT     2
#define METHOD_OUTPUT    3
#define REPLY_BUDGET_MIN ((size_t)64 * 1024)

/* The next length-delimited field of that number, passing over everything else. False: no more, or
 * damaged. */
static bool
next_field(ptier_span *in, unsigned wanted, ptier_span *part)
{
    uint64_t tag, value;
    while (in->at < in->end && ptier_take_varint(in, &tag)) {
        unsigned wire_type = (unsigned)tag & 7;
        size_t fixed = wire_type == 1 ? 8 : wire_type == 5 ? 4 : 0;
        if (wire_type == 0 || wire_type == 2) {
            if (!ptier_take_varint(in, &value))
                return false;
            fixed = wire_type == 2 ? value : 0;
        } else if (fixed == 0) {
            return false;
        }
        if (fixed > (size_t)(in->end - in->at))
            return false;
        *part = (ptier_span){in->at, in->at + fixed};
        in->at += fixed;
        if (wire_type == 2 && tag >> 3 == wanted)
            return true;
    }
    return false;
}

static ptier_span
only_field(ptier_span in, unsigned wanted)
{
    ptier_span part;
    return next_field(&in, wanted, &part) ? part : (ptier_span){in.end, in.end};
}

/* A name; of a full one (".package.Name") the last word. */
static void
print_name(ptier_span name, bool last_word)
{
    char text[128];
    size_t length = (size_t)(name.end - name.at);
    for (size_t i = 0; last_word && i < length; i++)
        if (name.at[i] == '.')
            return print_name((ptier_span){name.at + i + 1, name.end}, true);
    length = length < sizeof text ? length : sizeof text - 1;
    memcpy(text, name.at, length);
    text[length] = '\0';
    ptier_cli_text(stdout, text, 0);
}

static void
print_service(ptier_span package, ptier_span service)
{
    ptier_span method;
    print_name(package, false);
    putchar('.');
    print_name(only_field(service, SERVICE_NAME), false);
    putchar('\n');
    while (next_field(&service, SERVICE_METHOD, &method)) {
        fputs("  ", stdout);
        print_name(only_field(method, METHOD_NAME), false);
        putchar('(');
        print_name(only_field(method, METHOD_INPUT), true);
        fputs(") returns ", stdout);
        print_name(only_field(method, METHOD_OUTPUT), true);
        putchar('\n');
    }
}

static ptier_cli_exit
show(ptier_cli *cli, const ProtobufCBinaryData *set)
{
    ptier_span files = {set->data, set->data + set->len}, file, service;
    const char *path = cli->argument_count == 1 ? cli->arguments[0] : NULL;
    if (path) {
        FILE *out = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
        bool written = out && fwrite(set->data, 1, set->len, out) == set->len;
        if (out && out != stdout && fclose(out) != 0)
            written = false;
        return written ? PTIER_CLI_OK
                       : ptier_cli_fail(cli, PTIER_CLI_FAILED, "cannot write %s", path);
    }
    while (next_field(&files, SET_FILE, &file)) {
        ptier_span package = only_field(file, FILE_PACKAGE), services = file;
        while (next_field(&services, FILE_SERVICE, &service))
            print_service(package, service);
    }
    return PTIER_CLI_OK;
}

ptier_cli_exit
ptier_cmd_describe(ptier_cli *cli)
{
    const ptier_cli_option none[] = {{NULL, 0, PTIER_CLI_FLAG, NULL, NULL, NULL, NULL}};
    ptier_cli_exit code;
    ptier_error error;
    void *bytes = NULL;
    size_t length = 0;
    if (!ptier_cli_parse(cli, none, 0, 1, &code))
        return code;
    code = ptier_cli_connect(cli);
    if (code != PTIER_CLI_OK)
        return code;
    ptier_status status = ptier_call_raw(cli->client, "/proxytier.v1.Reflection/GetDescriptors",
                                         NULL, 0, &bytes, &length, &error);
    if (status != PTIER_OK)
        return ptier_cli_status(cli, status, &error);
    ptier_arena *arena = ptier_arena_create(REPLY_BUDGET_MIN + 4 * length);
    const Proxytier__V1__GetDescriptorsResponse *reply =
        arena
            ? (const void *)ptier_unpack_reply(&proxytier__v1__get_descriptors_response__descriptor,
                                               arena, bytes, length, NULL)
            : NULL;
    code = reply ? show(cli, &reply->file_descriptor_set)
                 : ptier_cli_fail(cli, PTIER_CLI_FAILED, "the reply cannot be read");
    ptier_arena_destroy(arena);
    free(bytes);
    return code;
}
