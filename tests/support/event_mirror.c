/*
 * A program: event_mirror URL [MICROSECONDS]. Keeps a copy of what the daemon holds, key and
 * revision, by a subscription: listed at first and after each RESYNC, then kept up by events. Ends
 * when it has all up to the record whose source is "sentinel", and prints `KEY REVISION` for each,
 * sorted, then how it went. MICROSECONDS: how long each callback takes. "following" is printed when
 * the first listing is done.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <proxytier/client.h>

#define SLOTS    (1u << 21) /* a power of two, more than keys */
#define LIMIT_MS 300000

typedef struct slot {
    char key[24];      /* the tests let keys be derived: 16 hex digits */
    uint64_t revision; /* of the last change; 0: the slot is free */
    bool present;
} slot;

/* All of it is the subscription's thread's, which tells main by `done`. */
typedef struct mirror {
    ptier_client *client;
    slot *slots;
    bool listed;
    uint64_t sentinel;      /* its revision, 0 unknown */
    uint64_t reached;       /* everything up to this revision is in */
    uint64_t last_sequence; /* 0: any may come */
    uint64_t last_revision;
    uint64_t events, resyncs, disorder, clears;
    long callback_us;
    atomic_int done; /* 1: complete, 2: failed */
} mirror;

static slot *
slot_of(mirror *m, const char *key)
{
    uint64_t hash = 1469598103934665603u;
    for (const char *c = key; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    size_t i = hash & (SLOTS - 1);
    while (m->slots[i].revision != 0 && strcmp(m->slots[i].key, key) != 0)
        i = (i + 1) & (SLOTS - 1);
    if (m->slots[i].revision == 0)
        (void)snprintf(m->slots[i].key, sizeof m->slots[i].key, "%s", key);
    return &m->slots[i];
}

static void
set(mirror *m, const char *key, uint64_t revision, bool present)
{
    slot *s = slot_of(m, key);
    if (revision <= s->revision)
        return;
    s->revision = revision;
    s->present = present;
}

static void
note_sentinel(mirror *m, const ptier_record *record, uint64_t revision)
{
    if (record->source && strcmp(record->source, "sentinel") == 0)
        m->sentinel = revision;
}

static void
end_if_complete(mirror *m)
{
    if (m->sentinel != 0 && m->reached >= m->sentinel)
        atomic_store(&m->done, 1);
}

/* False: try again. */
static bool
list_all(mirror *m)
{
    char token[40] = "";
    uint64_t as_of = 0;
    memset(m->slots, 0, SLOTS * sizeof *m->slots);
    m->sentinel = m->reached = 0;
    do {
        ptier_records page;
        if (ptier_list(m->client, NULL, 1000, token, &page, NULL) != PTIER_OK)
            return false;
        if (as_of == 0)
            as_of = page.as_of;
        for (size_t i = 0; i < page.count; i++) {
            set(m, page.records[i].key, page.records[i].revision, true);
            note_sentinel(m, &page.records[i], page.records[i].revision);
        }
        memcpy(token, page.next_page_token, sizeof token);
        ptier_records_free(&page);
    } while (token[0]);
    m->reached = as_of;
    m->listed = true;
    end_if_complete(m);
    return true;
}

static void
on_state(void *context, ptier_subscription_state state)
{
    mirror *m = context;
    if (atomic_load(&m->done))
        return;
    if (state == PTIER_SUBSCRIPTION_RESYNC) {
        m->resyncs++;
        m->last_sequence = m->last_revision = 0;
        m->listed = false;
    }
    if (m->listed || state == PTIER_SUBSCRIPTION_LOST)
        return;
    bool first = m->resyncs == 0 && m->events == 0;
    for (int tries = 0; !list_all(m); tries++) {
        const struct timespec pause = {.tv_nsec = 20000000};
        nanosleep(&pause, NULL);
        if (tries > 1000) {
            atomic_store(&m->done, 2);
            return;
        }
    }
    if (first) {
        puts("following");
        fflush(stdout);
    }
}

static void
clear(mirror *m, uint64_t revision)
{
    m->clears++;
    for (size_t i = 0; i < SLOTS; i++)
        if (m->slots[i].revision != 0 && m->slots[i].revision <= revision)
            m->slots[i].present = false;
}

static void
on_event(void *context, const ptier_event *event)
{
    mirror *m = context;
    if (atomic_load(&m->done))
        return;
    m->events++;
    m->disorder += (m->last_sequence != 0 && event->sequence != m->last_sequence + 1) ||
                   event->revision <= m->last_revision;
    m->last_sequence = event->sequence;
    m->last_revision = event->revision;
    if (event->type == PTIER_EVENT_CLEARED)
        clear(m, event->revision);
    else
        set(m, event->record.key, event->revision, event->type != PTIER_EVENT_REMOVED);
    if (event->revision > m->reached)
        m->reached = event->revision;
    note_sentinel(m, &event->record, event->revision);
    end_if_complete(m);
    if (m->callback_us > 0) {
        const struct timespec pause = {.tv_nsec = m->callback_us * 1000};
        nanosleep(&pause, NULL);
    }
}

static int
compare_slots(const void *a, const void *b)
{
    return strcmp(((const slot *)a)->key, ((const slot *)b)->key);
}

static void
print_all(mirror *m)
{
    size_t count = 0;
    for (size_t i = 0; i < SLOTS; i++)
        if (m->slots[i].present)
            m->slots[count++] = m->slots[i];
    qsort(m->slots, count, sizeof *m->slots, compare_slots);
    for (size_t i = 0; i < count; i++)
        printf("%s %" PRIu64 "\n", m->slots[i].key, m->slots[i].revision);
    printf("end events %" PRIu64 " resyncs %" PRIu64 " disorder %" PRIu64 " clears %" PRIu64 "\n",
           m->events, m->resyncs, m->disorder, m->clears);
}

int
main(int argc, char **argv)
{
    static mirror m;
    ptier_client_options client_options;
    ptier_subscription_options options;
    ptier_subscription *subscription;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc < 2 || !(m.slots = calloc(SLOTS, sizeof *m.slots)))
        return 2;
    m.callback_us = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    ptier_client_options_init(&client_options);
    client_options.url = argv[1];
    if (ptier_client_open(&client_options, &m.client, NULL) != PTIER_OK)
        return 2;
    ptier_subscription_options_init(&options);
    options.on_event = on_event;
    options.on_state = on_state;
    options.context = &m;
    if (ptier_subscribe(m.client, &options, &subscription, NULL) != PTIER_OK)
        return 2;
    for (int waited = 0; !atomic_load(&m.done) && waited < LIMIT_MS; waited += 5) {
        const struct timespec pause = {.tv_nsec = 5000000};
        nanosleep(&pause, NULL);
    }
    ptier_subscription_close(subscription);
    ptier_client_close(m.client);
    print_all(&m);
    free(m.slots);
    return atomic_load(&m.done) == 1 ? 0 : 1;
}
