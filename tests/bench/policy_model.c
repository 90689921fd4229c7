#include "policy_model.h"

#include <stdlib.h>

#include "harness.h"

/* Keys are 1 more than the caller's: 0 is no key, and the ends of the list. */
typedef struct slot {
    uint32_t newer, older;     /* LRU, FIFO, SIEVE: the list */
    uint32_t place;            /* LFU: in the heap, from 1 on */
    uint64_t uses;             /* LFU */
    uint64_t priority, moment; /* LFU: the order of the heap */
    bool cached, used;         /* used: SIEVE */
} slot;

struct bench_model {
    ptier_eviction policy;
    size_t capacity, count;
    slot *slots;
    uint32_t *heap; /* LFU: keys, the next victim first */
    uint32_t hand;  /* SIEVE; 0: at the oldest */
    uint64_t age, now;
};

bench_model *
bench_model_create(ptier_eviction policy, size_t keys, size_t capacity)
{
    bench_model *m = calloc(1, sizeof *m);
    if (!m)
        bench_fail("out of memory");
    *m = (bench_model){.policy = policy, .capacity = capacity};
    m->slots = calloc(keys + 1, sizeof *m->slots);
    m->heap = calloc(capacity + 1, sizeof *m->heap);
    if (!m->slots || !m->heap)
        bench_fail("out of memory");
    return m;
}

void
bench_model_destroy(bench_model *m)
{
    free(m->slots);
    free(m->heap);
    free(m);
}

/* ---- a ring through slot 0: its `newer` is the oldest, its `older` the newest ---- */

static void
push(bench_model *m, uint32_t key)
{
    uint32_t newest = m->slots[0].older;
    m->slots[key].newer = 0;
    m->slots[key].older = newest;
    m->slots[newest].newer = key;
    m->slots[0].older = key;
}

static void
unlink_key(bench_model *m, uint32_t key)
{
    slot *s = &m->slots[key];
    m->slots[s->newer].older = s->older;
    m->slots[s->older].newer = s->newer;
}

static uint32_t
sieve_victim(bench_model *m)
{
    uint32_t key = m->hand ? m->hand : m->slots[0].newer;
    while (m->slots[key].used) {
        m->slots[key].used = false;
        key = m->slots[key].newer ? m->slots[key].newer : m->slots[0].newer;
    }
    m->hand = key; /* moves on when that is taken out */
    return key;
}

/* ---- LFU: a heap by (priority, moment of the last use) ---- */

static bool
goes_first(const bench_model *m, uint32_t a, uint32_t b)
{
    const slot *x = &m->slots[a], *y = &m->slots[b];
    return x->priority != y->priority ? x->priority < y->priority : x->moment < y->moment;
}

static void
set_place(bench_model *m, size_t place, uint32_t key)
{
    m->heap[place] = key;
    m->slots[key].place = (uint32_t)place;
}

/* Puts the key where it belongs, from `place` on. */
static void
settle(bench_model *m, size_t place, uint32_t key)
{
    for (; place > 1 && goes_first(m, key, m->heap[place / 2]); place /= 2)
        set_place(m, place, m->heap[place / 2]);
    for (size_t child = 2 * place; child <= m->count; child = 2 * place) {
        if (child < m->count && goes_first(m, m->heap[child + 1], m->heap[child]))
            child++;
        if (!goes_first(m, m->heap[child], key))
            break;
        set_place(m, place, m->heap[child]);
        place = child;
    }
    set_place(m, place, key);
}

static void
count_use(bench_model *m, uint32_t key)
{
    slot *s = &m->slots[key];
    s->uses++;
    s->priority = m->age + s->uses;
    s->moment = ++m->now;
    settle(m, s->place, key);
}

/* ---- all ---- */

static void
take_out(bench_model *m, uint32_t key)
{
    slot *s = &m->slots[key];
    s->cached = false;
    if (m->policy != PTIER_EVICTION_LFU) {
        if (m->hand == key)
            m->hand = s->newer;
        unlink_key(m, key);
        m->count--;
        return;
    }
    uint32_t last = m->heap[m->count--];
    s->uses = 0;
    if (last != key)
        settle(m, s->place, last);
}

static void
evict(bench_model *m)
{
    uint32_t key = m->policy == PTIER_EVICTION_LFU     ? m->heap[1]
                   : m->policy == PTIER_EVICTION_SIEVE ? sieve_victim(m)
                                                       : m->slots[0].newer;
    if (m->policy == PTIER_EVICTION_LFU)
        m->age = m->slots[key].priority;
    take_out(m, key);
}

static void
insert(bench_model *m, uint32_t key)
{
    if (m->count == m->capacity)
        evict(m);
    m->slots[key].cached = true;
    m->slots[key].used = false;
    m->count++;
    if (m->policy == PTIER_EVICTION_LFU) {
        m->slots[key].place = (uint32_t)m->count;
        count_use(m, key);
    } else {
        push(m, key);
    }
}

bool
bench_model_read(bench_model *m, uint32_t number)
{
    uint32_t key = number + 1;
    if (!m->slots[key].cached) {
        insert(m, key);
        return false;
    }
    m->slots[key].used = true;
    if (m->policy == PTIER_EVICTION_LFU) {
        count_use(m, key);
    } else if (m->policy == PTIER_EVICTION_LRU) {
        unlink_key(m, key);
        push(m, key);
    }
    return true;
}

void
bench_model_remove(bench_model *m, uint32_t number)
{
    if (m->slots[number + 1].cached)
        take_out(m, number + 1);
}
