/*
 * The quarantine on disk: `quarantine` in the data directory, one line a change, the last one of a
 * key counts. Appended without a sync every MAINTENANCE_PERIOD_MS, so that it survives the process;
 * replaced as a whole when most of it is history. A line:
 *
 *   check of the rest | end by the wall clock, 0: lifted | boot tag | end by boot time | key
 *
 * One thread, but for the notes.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/cache_internal.h"
#include "file.h"

#define NAME "quarantine"

enum {
    CHECK_TEXT = 2 * PTIER_CHECK_BYTES,
    BODY_MAX = 64 + PTIER_KEY_MAX,             /* three numbers and the key */
    LINE_ROOM = CHECK_TEXT + 1 + BODY_MAX + 2, /* line break and NUL */
    NEWS_MAX = 8 << 20, /* the disk has failed for long: what comes then is for this run only */
    HISTORY_MAX = 1024, /* lines that no longer matter, beyond as many as do */
};

static void
path_of(const ptier_cache *cache, char path[PTIER_PATH_MAX])
{
    (void)snprintf(path, PTIER_PATH_MAX, "%s/" NAME, cache->data_dir); /* the state's name fitted */
}

/* ---- lines ---- */

PTIER_MUST_CHECK static ptier_status
put_line(ptier_cache *cache, ptier_buffer *text, const char *key, int64_t until_boot_ms)
{
    char body[BODY_MAX + 1];
    uint8_t check[PTIER_CHECK_BYTES];
    const ptier_clock *clock = &cache->clock;
    int64_t wall =
        until_boot_ms ? ptier_clock_wall(clock) + (until_boot_ms - ptier_clock_boot(clock)) : 0;
    int length = snprintf(body, sizeof body, "%" PRId64 " %016" PRIx64 " %" PRId64 " %s", wall,
                          clock->boot_tag, until_boot_ms, key);
    ptier_status status = ptier_keyring_check(cache->keyring, body, (size_t)length, check);
    if (status)
        return status;
    if (!ptier_buffer_reserve(text, LINE_ROOM))
        return PTIER_RESOURCE_EXHAUSTED;
    for (int i = 0; i < PTIER_CHECK_BYTES; i++)
        text->length += (size_t)sprintf(text->data + text->length, "%02x", check[i]);
    text->length += (size_t)sprintf(text->data + text->length, " %s\n", body);
    return PTIER_OK;
}

typedef struct line {
    int64_t wall_ms, boot_ms;
    uint64_t boot_tag;
    const char *key;
    int which; /* key of the key ring */
} line;

/* NUL-terminated, without its line break. False: damaged. */
static bool
take_line(ptier_cache *cache, const char *text, size_t length, line *out)
{
    uint8_t check[PTIER_CHECK_BYTES];
    if (length <= CHECK_TEXT || strlen(text) != length ||
        strspn(text, "0123456789abcdef") != CHECK_TEXT || text[CHECK_TEXT] != ' ')
        return false;
    for (int i = 0; i < PTIER_CHECK_BYTES; i++) {
        const char digits[] = {text[2 * i], text[2 * i + 1], 0};
        check[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    const char *body = text + CHECK_TEXT + 1;
    out->which = ptier_keyring_verify_which(cache->keyring, body, strlen(body), check);
    if (out->which < 0)
        return false;
    char *at;
    out->wall_ms = strtoll(body, &at, 10); /* ours, as the check says: so these are numbers */
    out->boot_tag = strtoull(at, &at, 16);
    out->boot_ms = strtoll(at, &at, 10);
    out->key = at + 1; /* may begin with blanks */
    return *at == ' ' && *out->key && strlen(out->key) <= PTIER_KEY_MAX;
}

/* ---- reading ---- */

typedef struct reading {
    size_t lines;
    size_t damaged; /* not ours, or cut */
    bool old_key;   /* some were written with a previous key */
} reading;

/* After a reboot the wall clock decides, and may be far off: nobody serves longer than one who is
 * quarantined now. */
static int64_t
end_of(const ptier_cache *cache, const line *l)
{
    int64_t until = ptier_clock_expiry(&cache->clock, l->boot_tag, l->boot_ms, l->wall_ms);
    int64_t most = ptier_clock_boot(&cache->clock) + cache->options.health_quarantine_ms;
    return until < most ? until : most;
}

static void
apply_line(ptier_cache *cache, ptier_map *map, const line *l)
{
    int64_t until = end_of(cache, l);
    if (l->wall_ms == 0 || until <= ptier_clock_boot(&cache->clock))
        ptier_quarantine_unset(cache, map, l->key);
    else
        (void)ptier_quarantine_set(cache, map, l->key, until); /* full: as when it was added */
}

/* The next line, of which `room` bytes are kept; *length is the whole one's. False: the end. */
static bool
next_line(FILE *file, char *text, size_t room, size_t *length, bool *ended)
{
    int c;
    *length = 0;
    while ((c = getc(file)) != EOF && c != '\n') {
        if (*length < room - 1)
            text[*length] = (char)c;
        ++*length;
    }
    text[*length < room ? *length : room - 1] = 0;
    *ended = c == '\n';
    return *ended || *length > 0;
}

/* NOT_FOUND: there is no file. */
PTIER_MUST_CHECK static ptier_status
read_file(ptier_cache *cache, ptier_map *map, reading *r, ptier_error *error)
{
    char path[PTIER_PATH_MAX], text[LINE_ROOM];
    size_t length;
    bool ended;
    line l;
    path_of(cache, path);
    FILE *file = fopen(path, "re");
    if (!file)
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    while (next_line(file, text, sizeof text, &length, &ended)) {
        if (length == 0)
            continue; /* stands behind an append that failed */
        if (ended && take_line(cache, text, length, &l)) {
            r->lines++;
            r->old_key |= l.which > 0;
            apply_line(cache, map, &l);
        } else {
            r->damaged++;
        }
    }
    bool failed = ferror(file);
    (void)fclose(file); /* only read from */
    return failed ? ptier_fail(error, PTIER_UNAVAILABLE, "cannot read %s", path) : PTIER_OK;
}

/* ---- writing ---- */

/* An append that fails may leave half a line: the next one then starts on a line of its own. */
PTIER_MUST_CHECK static ptier_status
append(ptier_cache *cache, const ptier_buffer *text, ptier_error *error)
{
    char path[PTIER_PATH_MAX];
    ptier_quarantine_log *log = &cache->quarantine_log;
    path_of(cache, path);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return ptier_fail_errno(error, errno, "cannot open %s", path);
    ptier_status status = PTIER_OK;
    if (log->torn && write(fd, "\n", 1) != 1)
        status = ptier_fail_errno(error, errno, "cannot write %s", path);
    for (size_t done = 0; !status && done < text->length;) {
        ssize_t written = write(fd, text->data + done, text->length - done);
        if (written > 0)
            done += (size_t)written;
        else if (written == 0 || errno != EINTR)
            status = ptier_fail_errno(error, written ? errno : ENOSPC, "cannot write %s", path);
    }
    log->torn = status != PTIER_OK;
    (void)close(fd); /* what the kernel has taken survives us; no more is promised */
    return status;
}

/* From what the file says, so that no lock is held. */
PTIER_MUST_CHECK static ptier_status
rewrite(ptier_cache *cache, ptier_error *error)
{
    ptier_map map;
    ptier_buffer text = {0};
    reading r = {0};
    ptier_map_init(&map);
    ptier_status status = read_file(cache, &map, &r, error);
    for (size_t i = 0; !status && map.cells && i <= map.mask; i++) {
        const ptier_quarantined *item = map.cells[i].value;
        if (item && put_line(cache, &text, item->key, item->until_boot_ms))
            status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for " NAME);
    }
    if (!status)
        status = ptier_replace_file(cache->data_dir, NAME, text.data ? text.data : "", text.length,
                                    error);
    if (!status) {
        cache->quarantine_log.lines = map.count;
        cache->quarantine_log.torn = false;
        cache->quarantine_log.old_key = false;
    }
    ptier_buffer_fini(&text);
    ptier_quarantine_empty(&map);
    return status;
}

/* Once per failure that lasts. */
static void
tell(ptier_cache *cache, ptier_status status, const ptier_error *error)
{
    ptier_quarantine_log *log = &cache->quarantine_log;
    if (status && !log->failing)
        ptier_cache_log(cache, PTIER_LOG_WARN, "quarantine",
                        "it will not survive a restart until this works again: %s", error->message);
    log->failing = status != PTIER_OK;
}

/* ---- news ---- */

void
ptier_quarantine_note_locked(ptier_cache *cache, const char *key, int64_t until_boot_ms)
{
    ptier_buffer *news = &cache->quarantine_log.news;
    size_t size = strlen(key) + 1;
    if (!cache->data_dir || news->length > NEWS_MAX ||
        !ptier_buffer_reserve(news, sizeof until_boot_ms + size))
        return;
    memcpy(news->data + news->length, &until_boot_ms, sizeof until_boot_ms);
    memcpy(news->data + news->length + sizeof until_boot_ms, key, size);
    news->length += sizeof until_boot_ms + size;
}

static ptier_buffer
take_news(ptier_cache *cache, size_t *live)
{
    pthread_mutex_lock(&cache->lock);
    ptier_buffer news = cache->quarantine_log.news;
    cache->quarantine_log.news = (ptier_buffer){0};
    *live = cache->quarantine.count;
    pthread_mutex_unlock(&cache->lock);
    return news;
}

/* What could not be written stands before what has come since. */
static void
give_back(ptier_cache *cache, ptier_buffer *old)
{
    pthread_mutex_lock(&cache->lock);
    ptier_buffer *news = &cache->quarantine_log.news;
    if (ptier_buffer_reserve(old, news->length)) {
        if (news->length)
            memcpy(old->data + old->length, news->data, news->length);
        old->length += news->length;
        ptier_buffer newer = *news;
        *news = *old;
        *old = newer;
    }
    pthread_mutex_unlock(&cache->lock);
}

PTIER_MUST_CHECK static ptier_status
write_news(ptier_cache *cache, const ptier_buffer *news, ptier_error *error)
{
    ptier_buffer text = {0};
    ptier_status status = PTIER_OK;
    size_t lines = 0;
    for (size_t at = 0; !status && at < news->length; lines++) {
        int64_t until;
        memcpy(&until, news->data + at, sizeof until);
        const char *key = news->data + at + sizeof until;
        at += sizeof until + strlen(key) + 1;
        if (put_line(cache, &text, key, until))
            status = ptier_fail(error, PTIER_RESOURCE_EXHAUSTED, "no memory for " NAME);
    }
    if (!status)
        status = append(cache, &text, error);
    if (!status)
        cache->quarantine_log.lines += lines;
    ptier_buffer_fini(&text);
    return status;
}

void
ptier_quarantine_flush(ptier_cache *cache)
{
    ptier_error error;
    size_t live;
    ptier_buffer news = take_news(cache, &live);
    if (news.length == 0)
        return;
    ptier_status status = write_news(cache, &news, &error);
    if (status)
        give_back(cache, &news);
    else if (cache->quarantine_log.lines > 2 * live + HISTORY_MAX)
        status = rewrite(cache, &error);
    tell(cache, status, &error);
    ptier_buffer_fini(&news);
}

ptier_status
ptier_quarantine_renew(ptier_cache *cache, ptier_error *error)
{
    if (!cache->quarantine_log.old_key)
        return PTIER_OK;
    ptier_status status = rewrite(cache, error);
    if (status == PTIER_NOT_FOUND)
        status = PTIER_OK;
    cache->quarantine_log.old_key = status != PTIER_OK;
    tell(cache, status, error);
    return status;
}

/* ---- start ---- */

void
ptier_quarantine_load(ptier_cache *cache)
{
    ptier_error error;
    reading r = {0};
    char path[PTIER_PATH_MAX];
    if (!cache->data_dir)
        return;
    path_of(cache, path);
    if (cache->options.health_quarantine_ms <= 0) {
        (void)unlink(path); /* switched off: nobody keeps it up to date from here on */
        return;
    }
    ptier_status status = read_file(cache, &cache->quarantine, &r, &error);
    if (status == PTIER_NOT_FOUND)
        return;
    if (r.damaged)
        ptier_cache_log(cache, PTIER_LOG_WARN, "quarantine_damaged",
                        "%zu damaged lines of %s were skipped", r.damaged, path);
    cache->quarantine_log.lines = r.lines;
    cache->quarantine_log.old_key = r.old_key || status; /* until it was written anew */
    if (!status && (r.damaged || r.old_key || r.lines > cache->quarantine.count))
        status = rewrite(cache, &error);
    tell(cache, status, &error);
}
