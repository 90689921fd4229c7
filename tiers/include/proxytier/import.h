/*
 * Reading the proxy lists that people have: plain text, CSV, JSON, JSON lines; and the SQLite
 * databases of ProxyWhirl and of our own backups. Streams: memory does not grow with the file.
 * Knows nothing of the cache: it hands out records. Not thread-safe: one importer, one thread.
 */
#ifndef PROXYTIER_IMPORT_H
#define PROXYTIER_IMPORT_H

#include <proxytier/status.h>
#include <proxytier/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ptier_import_format {
    PTIER_IMPORT_AUTO = 0, /* by the file's name, then by its first bytes */
    PTIER_IMPORT_TEXT,
    PTIER_IMPORT_CSV,
    PTIER_IMPORT_JSON,
    PTIER_IMPORT_JSONL,
    PTIER_IMPORT_SQLITE, /* found out by AUTO, never asked for; files only */
} ptier_import_format;

/*
 * One record; strings borrowed for the call. restore: it is an entry of a cache (an own export or
 * backup, or ProxyWhirl's) and its output fields are set. Return false to stop (the import then
 * ends with CANCELLED).
 */
typedef struct ptier_import_record {
    ptier_record record;
    bool restore;
    uint64_t line; /* 1-based line of the input where the record began; of a database: rowid */
} ptier_import_record;
typedef bool (*ptier_import_fn)(void *context, const ptier_import_record *record);

/* A record that was skipped, and why. The text of the reason has no credentials. */
typedef void (*ptier_import_skip_fn)(void *context, uint64_t line, const char *reason);

typedef struct ptier_import_options {
    size_t size; /* set by init */
    ptier_import_format format;
    const char *scheme; /* for entries without one; NULL: a heading, the file's name, then http */
    const char *source; /* for records that state none; NULL: "" */
    ptier_import_fn on_record;
    ptier_import_skip_fn on_skip; /* may be NULL */
    void (*on_progress)(void *context, uint64_t bytes_read,
                        uint64_t bytes_total); /* may be NULL; total 0: unknown */
    void *context;
} ptier_import_options;

typedef struct ptier_import_summary {
    uint64_t records; /* handed to on_record */
    uint64_t skipped;
    ptier_import_format format; /* that was used */
} ptier_import_summary;

PTIER_API void ptier_import_options_init(ptier_import_options *options);

/* Paths of inputs. Owned by the caller; free empties it, also one of all zeros. */
typedef struct ptier_import_inputs {
    char **paths;
    size_t count;
} ptier_import_inputs;

/*
 * Adds the inputs that `path` names: itself; or, when it is a directory, what ProxyWhirl's file
 * tier keeps there (shard_NN.jsonl in the order of their numbers, l2_cache.db). INVALID_ARGUMENT: a
 * directory without any; others: the file system.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_import_inputs_add(ptier_import_inputs *inputs,
                                                                const char *path,
                                                                ptier_error *error);
PTIER_API void ptier_import_inputs_free(ptier_import_inputs *inputs);

/*
 * Reads a file ("-": standard input). NOT_FOUND / PERMISSION_DENIED: the file; INVALID_ARGUMENT:
 * not a list at all (broken JSON: the message has the line); CANCELLED: on_record said so. What
 * came before an error was handed out. *summary is always filled.
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_import_file(const char *path,
                                                          const ptier_import_options *options,
                                                          ptier_import_summary *summary,
                                                          ptier_error *error);

/* The same from memory; `name` stands for the file's name (may be NULL). */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_import_memory(const void *data, size_t length,
                                                            const char *name,
                                                            const ptier_import_options *options,
                                                            ptier_import_summary *summary,
                                                            ptier_error *error);

/* ---- proxy URLs ---- */

#define PTIER_URL_BUFFER        (PTIER_URL_MAX + 1)
#define PTIER_CREDENTIAL_BUFFER (PTIER_CREDENTIAL_MAX + 1)

/* The parts of a proxy address, in caller-owned room. Wipe it (ptier_url_wipe) when it held a
 * password. */
typedef struct ptier_url {
    char url[PTIER_URL_BUFFER]; /* scheme://host:port, scheme and host in lower case */
    char scheme[16];
    char username[PTIER_CREDENTIAL_BUFFER]; /* "" none; percent-decoded */
    char password[PTIER_CREDENTIAL_BUFFER];
    bool has_username, has_password;
} ptier_url;

/*
 * Parses `scheme://[user[:password]@]host:port`, `host:port`, `host:port:user:password`,
 * `user:password@host:port`, IPv6 hosts in brackets. default_scheme stands in where there is none.
 * INVALID_ARGUMENT with a message that names what is wrong and never shows the credentials.
 * Schemes: http, https, socks4, socks4a, socks5, socks5h. The port may be missing only when the
 * scheme has a usual one (http 80, https 443, socks* 1080).
 */
PTIER_MUST_CHECK PTIER_API ptier_status ptier_url_parse(const char *text,
                                                        const char *default_scheme, ptier_url *url,
                                                        ptier_error *error);
PTIER_API void ptier_url_wipe(ptier_url *url);

/*
 * The derived key of an entry (the first 16 hex digits, or all 64 when `full`, of SHA-256 of
 * the URL, or of scheme://user@host:port when username is not NULL or empty). key has room for 65
 * bytes.
 */
PTIER_API void ptier_key_derive(const char *url, const char *username, bool full, char key[65]);

#ifdef __cplusplus
}
#endif
#endif
