/*
 * What the files of the proxytier command share: the context of one run, options, exit codes, and
 * the commands. One process, one run: not thread-safe, except where a function says so. Output
 * rules: results on stdout; one line on stderr for an error; no credential unless asked for, none
 * in an error.
 */
#ifndef PTIER_CLI_H
#define PTIER_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <proxytier/client.h>
#include <proxytier/status.h>
#include <proxytier/types.h>

/* ---- exit codes: frozen, documented in docs/CLI.md and --help ---- */

/* X(enumerator suffix, value, text) */
#define PTIER_CLI_EXIT_TABLE(X)                                                                    \
    X(OK, 0, "done")                                                                               \
    X(FAILED, 1, "failed: the daemon refused, or a file could not be read or written")             \
    X(USAGE, 2, "wrong usage: unknown command or option, malformed value")                         \
    X(NOT_FOUND, 3, "no such entry, or none that matches")                                         \
    X(UNREACHABLE, 4, "no daemon answers")                                                         \
    X(DEADLINE, 5, "no answer within --timeout")                                                   \
    X(PERMISSION, 6, "not allowed: this user or role, a wrong token or certificate, not our daemon")

typedef enum ptier_cli_exit {
#define PTIER_CLI_EXIT_ENUM(name, value, text) PTIER_CLI_##name = (value),
    PTIER_CLI_EXIT_TABLE(PTIER_CLI_EXIT_ENUM)
#undef PTIER_CLI_EXIT_ENUM
} ptier_cli_exit;

/* ---- the context of one run ---- */

#define PTIER_CLI_SECRET_MAX PTIER_CREDENTIAL_MAX
#define PTIER_CLI_TOKEN_MAX  4096

typedef struct ptier_cli {
    const struct ptier_cli_command *commands; /* the table, ended by a NULL name */
    const struct ptier_cli_command *command;  /* NULL until one was recognised */

    /* Global options, before or after the command. */
    const char *url;
    const char *token_file;
    const char *daemon_user;
    const char *tls_ca, *tls_cert, *tls_key, *tls_name;
    int64_t timeout_ms; /* -1: the SDK's default */
    bool json;
    bool help;
    bool version;

    /* Arguments left after options were taken out; strings live as long as the context. */
    const char **arguments;
    size_t argument_count;
    const char **argument_list; /* owned; what `arguments` points into */
    const char **keys;          /* owned; made by ptier_cli_keys */

    ptier_client *client; /* opened by ptier_cli_connect */
    char token[PTIER_CLI_TOKEN_MAX + 1];
    char **strings; /* owned copies of option values and arguments; wiped and freed at the end */
    size_t string_count;
} ptier_cli;

typedef struct ptier_cli_command {
    const char *name;
    const char *arguments; /* as --help shows them */
    const char *summary;
    ptier_cli_exit (*run)(ptier_cli *cli);
} ptier_cli_command;

void ptier_cli_init(ptier_cli *cli, const ptier_cli_command *commands);

/* Closes, wipes, frees; flushes stdout. Returns the exit code, FAILED instead of OK when the output
 * could not be written. */
ptier_cli_exit ptier_cli_fini(ptier_cli *cli, ptier_cli_exit code);

/* Opens cli->client from the global options. On failure the line has been written. */
PTIER_MUST_CHECK ptier_cli_exit ptier_cli_connect(ptier_cli *cli);

/* Writes `proxytier COMMAND: MESSAGE` as one line; returns the exit code that goes with the status.
 * Thread-safe. */
ptier_cli_exit ptier_cli_status(const ptier_cli *cli, ptier_status status,
                                const ptier_error *error);

/* The same with a message of our own. */
PTIER_PRINTF(3, 4)
ptier_cli_exit ptier_cli_fail(const ptier_cli *cli, ptier_cli_exit code, const char *format, ...);

/* What was done (a participle) reached less than --durability asked for: says so; returns FAILED.
 */
ptier_cli_exit ptier_cli_not_durable(const ptier_cli *cli, const char *done, ptier_durability asked,
                                     ptier_durability reached);

/* The same where nothing was asked for: only memory is worth a line. Returns `code`. */
ptier_cli_exit ptier_cli_memory_only(const ptier_cli *cli, ptier_durability reached,
                                     ptier_cli_exit code);

/* Wrong usage: adds where help is to be had; returns USAGE. */
PTIER_PRINTF(2, 3)
ptier_cli_exit ptier_cli_usage(const ptier_cli *cli, const char *format, ...);

/* ---- options (options.c, values.c) ---- */

typedef struct ptier_cli_word {
    const char *word;
    int value;
} ptier_cli_word;

extern const ptier_cli_word ptier_cli_tiers[];        /* L1, L2, L3 */
extern const ptier_cli_word ptier_cli_upper_tiers[];  /* L1, L2 */
extern const ptier_cli_word ptier_cli_schemes[];      /* of proxies; for PTIER_CLI_NAME */
extern const ptier_cli_word ptier_cli_durabilities[]; /* memory, logged, synced */
extern const ptier_cli_word ptier_cli_healths[];
extern const ptier_cli_word ptier_cli_formats[]; /* of ptier_import_format */
extern const ptier_cli_word ptier_cli_outcomes[];
extern const ptier_cli_word ptier_cli_reasons[]; /* of removals */

/* --label name=value, repeated. */
typedef struct ptier_cli_labels {
    ptier_label items[PTIER_LABELS_MAX];
    size_t count;
} ptier_cli_labels;

/* What a value is read as, and the type of its target. */
typedef enum ptier_cli_kind {
    PTIER_CLI_FLAG,     /* bool, no value */
    PTIER_CLI_STRING,   /* const char *; lives as long as the context. As the next three */
    PTIER_CLI_FILE,     /* not empty */
    PTIER_CLI_TEXT,     /* UTF-8 */
    PTIER_CLI_SOURCE,   /* UTF-8, up to PTIER_SOURCE_MAX bytes */
    PTIER_CLI_DURATION, /* int64_t, milliseconds */
    PTIER_CLI_TTL,      /* the same; 0 never expires */
    PTIER_CLI_TIMEOUT,  /* the same; 1ms to 24h */
    PTIER_CLI_COUNT,    /* uint64_t, at least 1 */
    PTIER_CLI_REAL,     /* double, at least 0 */
    PTIER_CLI_WORD,     /* int, by `words` */
    PTIER_CLI_WORD_SET, /* uint32_t: gets bit (1u << value) of each; may be repeated */
    PTIER_CLI_NAME,     /* const char *, one of `words` as it is spelled there */
    PTIER_CLI_LABEL,    /* ptier_cli_labels */
} ptier_cli_kind;

typedef struct ptier_cli_option {
    const char *name;
    char letter; /* 0: none */
    ptier_cli_kind kind;
    void *target;
    const char *value_name;
    const char *help;
    const ptier_cli_word *words;
} ptier_cli_option;

#define PTIER_CLI_OPTIONS_MAX 24

/*
 * Reads the command's options (ended by a NULL name) and the global ones out of cli->arguments, and
 * leaves the rest there. False: the run ends here with *code (an error was told, or --help was
 * shown).
 */
PTIER_MUST_CHECK bool ptier_cli_parse(ptier_cli *cli, const ptier_cli_option *options,
                                      size_t min_arguments, size_t max_arguments,
                                      ptier_cli_exit *code);

/* The same for what stands before the command: stops at the first argument that is no option. */
PTIER_MUST_CHECK bool ptier_cli_parse_global(ptier_cli *cli, int argc, const char *const *argv,
                                             ptier_cli_exit *code);

/* An owned copy that lives as long as the context; NULL without memory. */
char *ptier_cli_keep(ptier_cli *cli, const char *text);

/* `2s`, `500ms`, `10m`, `24h`, `7d`, `0`; a plain number is seconds. */
PTIER_MUST_CHECK bool ptier_cli_duration(const char *text, int64_t *ms);
PTIER_MUST_CHECK bool ptier_cli_word_value(const ptier_cli_word *words, const char *text,
                                           int *value);
/* The one of `words` that is spelled so in any case; NULL: none. */
const char *ptier_cli_word_name(const ptier_cli_word *words, const char *text);
/* Adds `name=value`; cuts `text` (kept by the caller) at the `=`. */
PTIER_MUST_CHECK bool ptier_cli_label(ptier_cli_labels *labels, char *text);

/* The row of each command that changes something; `durability` is an int *. */
#define PTIER_CLI_DURABILITY_OPTION(durability)                                                    \
    {                                                                                              \
        "durability", 0, PTIER_CLI_WORD, (durability), "WORD",                                     \
            "memory, logged or synced (default: the daemon's)", ptier_cli_durabilities             \
    }

/* ---- arguments and secrets (keys.c, secret.c) ---- */

/* How KEY arguments name entries. Rows for the option table of each command that takes KEYs. */
typedef struct ptier_cli_naming {
    bool exact;       /* as they stand */
    const char *user; /* NULL: what an address itself says */
} ptier_cli_naming;
#define PTIER_CLI_NAMING_OPTIONS(naming)                                                           \
    {"exact",                                                                                      \
     0,                                                                                            \
     PTIER_CLI_FLAG,                                                                               \
     &(naming)->exact,                                                                             \
     NULL,                                                                                         \
     "take KEY as it stands, even if it looks like an address",                                    \
     NULL},                                                                                        \
    {                                                                                              \
        "user", 0, PTIER_CLI_TEXT, &(naming)->user, "NAME",                                        \
            "the user name that belongs to an address without one", NULL                           \
    }

/*
 * The keys that cli->arguments[0..count) name: of a proxy address (scheme://…, host:port) its
 * derived key, anything else as it stands. `naming` borrowed. The keys live as long as
 * the context. False: told, *code is set; also for an address with a password.
 */
PTIER_MUST_CHECK bool ptier_cli_keys(ptier_cli *cli, size_t count, const ptier_cli_naming *naming,
                                     const char *const **keys, ptier_cli_exit *code);

#define PTIER_CLI_MISSING_SHOWN 20
/* Tells that the i-th KEY, as it was typed, is not cached; the first few of a run. *missing counts
 * them. */
void ptier_cli_missing(const ptier_cli *cli, size_t i, const ptier_cli_naming *naming,
                       size_t *missing);
/* NOT_FOUND, or OK when none is missing; tells how many were not named. */
PTIER_MUST_CHECK ptier_cli_exit ptier_cli_missing_end(const ptier_cli *cli, size_t missing,
                                                      size_t count);

/* Room for a secret; wipe with explicit_bzero. */
typedef struct ptier_cli_secret {
    char text[PTIER_CLI_SECRET_MAX + 1];
    bool set;
} ptier_cli_secret;

/*
 * Fills *secret from `--password -` (standard input, without echo on a terminal) or
 * `--password-file`. Neither: not set. Returns OK, or the code of what was told.
 */
PTIER_MUST_CHECK ptier_cli_exit ptier_cli_read_password(const ptier_cli *cli, const char *password,
                                                        const char *file, ptier_cli_secret *secret);

/* First line of a file, without its line break, into room bytes. `secret`: a file that others may
 * read is refused. */
PTIER_MUST_CHECK ptier_status ptier_cli_read_line(const char *path, bool secret, char *line,
                                                  size_t room, ptier_error *error);

/* ---- output (text.c, output.c) ---- */

/* Text from elsewhere for a terminal: control characters become '?'. Padded to `width` bytes. */
void ptier_cli_text(FILE *out, const char *text, int width);

#define PTIER_CLI_SPAN_MAX 24
/* `1h 5m`, `2.0s`, `never`: a span for people. */
const char *ptier_cli_span(int64_t ms, char out[PTIER_CLI_SPAN_MAX]);
#define PTIER_CLI_SIZE_MAX 24
/* `12.5 MiB` */
const char *ptier_cli_size(uint64_t bytes, char out[PTIER_CLI_SIZE_MAX]);

/* One record: a line of a table, or all its fields, or JSON. `credentials`: show user name and
 * password. */
void ptier_cli_record_header(const ptier_cli *cli, bool credentials);
void ptier_cli_record_line(const ptier_cli *cli, const ptier_record *record, bool credentials);
void ptier_cli_record_full(const ptier_cli *cli, const ptier_record *record, ptier_tier_id tier,
                           bool credentials);

/* ---- commands ---- */

ptier_cli_exit ptier_cmd_put(ptier_cli *cli);
ptier_cli_exit ptier_cmd_get(ptier_cli *cli);
ptier_cli_exit ptier_cmd_delete(ptier_cli *cli);
ptier_cli_exit ptier_cmd_pick(ptier_cli *cli);
ptier_cli_exit ptier_cmd_list(ptier_cli *cli);
ptier_cli_exit ptier_cmd_report(ptier_cli *cli);
ptier_cli_exit ptier_cmd_warm(ptier_cli *cli);
ptier_cli_exit ptier_cmd_restore(ptier_cli *cli);
ptier_cli_exit ptier_cmd_export(ptier_cli *cli);
ptier_cli_exit ptier_cmd_backup(ptier_cli *cli);
ptier_cli_exit ptier_cmd_clear(ptier_cli *cli);
ptier_cli_exit ptier_cmd_stats(ptier_cli *cli);
ptier_cli_exit ptier_cmd_describe(ptier_cli *cli);
ptier_cli_exit ptier_cmd_watch(ptier_cli *cli);
ptier_cli_exit ptier_cmd_info(ptier_cli *cli);
ptier_cli_exit ptier_cmd_keygen(ptier_cli *cli);
ptier_cli_exit ptier_cmd_tls_init(ptier_cli *cli);
ptier_cli_exit ptier_cmd_token(ptier_cli *cli);
ptier_cli_exit ptier_cmd_rotate(ptier_cli *cli);
ptier_cli_exit ptier_cmd_shutdown(ptier_cli *cli);

#endif
