#include "framing.h"

ptier_status
ptier_frame_split(const void *message, size_t length, ptier_frame *frame, ptier_error *error)
{
    const uint8_t *bytes = message;
    if (length < PTIER_FRAME_PREFIX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "message of %zu bytes is too short for a header length", length);
    size_t header =
        (size_t)bytes[0] << 24 | (size_t)bytes[1] << 16 | (size_t)bytes[2] << 8 | bytes[3];
    if (header > PTIER_HEADER_MAX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "header length %zu is over the limit of %d", header, PTIER_HEADER_MAX);
    if (header > length - PTIER_FRAME_PREFIX)
        return ptier_fail(error, PTIER_INVALID_ARGUMENT,
                          "header length %zu does not fit a message of %zu bytes", header, length);
    frame->header = bytes + PTIER_FRAME_PREFIX;
    frame->header_length = header;
    frame->body = frame->header + header;
    frame->body_length = length - PTIER_FRAME_PREFIX - header;
    return PTIER_OK;
}
