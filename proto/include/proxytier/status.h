/*
 * Status of every fallible call of proxytier: the 17 gRPC codes, frozen, equal to
 * proxytier.v1.StatusCode. A plain vocabulary header: it knows neither protobuf nor nng.
 * Thread-safe throughout (no state).
 */
#ifndef PROXYTIER_STATUS_H
#define PROXYTIER_STATUS_H

#include <stdarg.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PTIER_MUST_CHECK        __attribute__((warn_unused_result))
#define PTIER_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define PTIER_API               __attribute__((visibility("default")))
#else
#define PTIER_MUST_CHECK
#define PTIER_PRINTF(fmt, args)
#define PTIER_API
#endif

/* For a PTIER_MUST_CHECK result that may be ignored; say why beside it. (gcc does not let a cast to
 * void do this.) */
#define PTIER_IGNORE(call)                                                                         \
    do {                                                                                           \
        if (call) {                                                                                \
        }                                                                                          \
    } while (0)

/* X(enumerator suffix, frozen value, text) */
#define PTIER_STATUS_TABLE(X)                                                                      \
    X(OK, 0, "ok")                                                                                 \
    X(CANCELLED, 1, "cancelled")                                                                   \
    X(UNKNOWN, 2, "unknown")                                                                       \
    X(INVALID_ARGUMENT, 3, "invalid argument")                                                     \
    X(DEADLINE_EXCEEDED, 4, "deadline exceeded")                                                   \
    X(NOT_FOUND, 5, "not found")                                                                   \
    X(ALREADY_EXISTS, 6, "already exists")                                                         \
    X(PERMISSION_DENIED, 7, "permission denied")                                                   \
    X(RESOURCE_EXHAUSTED, 8, "resource exhausted")                                                 \
    X(FAILED_PRECONDITION, 9, "failed precondition")                                               \
    X(ABORTED, 10, "aborted")                                                                      \
    X(OUT_OF_RANGE, 11, "out of range")                                                            \
    X(UNIMPLEMENTED, 12, "unimplemented")                                                          \
    X(INTERNAL, 13, "internal error")                                                              \
    X(UNAVAILABLE, 14, "unavailable")                                                              \
    X(DATA_LOSS, 15, "data loss")                                                                  \
    X(UNAUTHENTICATED, 16, "unauthenticated")

typedef enum ptier_status {
#define PTIER_STATUS_ENUM(name, value, text) PTIER_##name = (value),
    PTIER_STATUS_TABLE(PTIER_STATUS_ENUM)
#undef PTIER_STATUS_ENUM
} ptier_status;

/* The text of a status, "status 42" style values give "unknown". Static storage. */
static inline const char *
ptier_status_text(ptier_status status)
{
    switch (status) {
#define PTIER_STATUS_CASE(name, value, text)                                                       \
    case PTIER_##name:                                                                             \
        return text;
        PTIER_STATUS_TABLE(PTIER_STATUS_CASE)
#undef PTIER_STATUS_CASE
    }
    return "unknown";
}

#define PTIER_ERROR_MESSAGE_MAX 256

/*
 * Caller-owned room for one line that says what is wrong and what to do. Fallible calls take an
 * optional one (NULL: not wanted) and write it only when they fail. Never holds a credential.
 */
typedef struct ptier_error {
    ptier_status status;
    char message[PTIER_ERROR_MESSAGE_MAX]; /* NUL-terminated, no line break */
} ptier_error;

/* Fills *error (may be NULL) and returns status, so that `return ptier_fail(...)` is the idiom. */
PTIER_PRINTF(3, 4)
static inline ptier_status
ptier_fail(ptier_error *error, ptier_status status, const char *format, ...)
{
    if (error) {
        va_list args;
        error->status = status;
        va_start(args, format);
        (void)vsnprintf(error->message, sizeof error->message, format, args); /* cut is fine */
        va_end(args);
        for (char *c = error->message; *c; c++)
            if ((unsigned char)*c < 0x20)
                *c = ' ';
    }
    return status;
}

#ifdef __clang_analyzer__
/* clang's analyzer does not look into variadic functions, and would think that a failure may be
 * PTIER_OK. */
#define ptier_fail(error, status, ...) (ptier_fail((error), (status), __VA_ARGS__), (status))
#endif

#ifdef __cplusplus
}
#endif
#endif
