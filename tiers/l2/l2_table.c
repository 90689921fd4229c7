/* Nodes: which line is the newest of its key, what is resident, what L3 still needs. All with the
 * tier's lock held. */
#include "l2/l2_internal.h"

#include <stdlib.h>

static bool
node_has_revision(const void *value, const void *key)
{
    return ((const l2_node *)value)->revision == *(const uint64_t *)key;
}

l2_node *
l2_find_locked(l2_tier *l2, uint64_t hash, uint64_t revision)
{
    return ptier_map_find(&l2->map, hash, node_has_revision, &revision);
}

/* ---- the two lists ---- */

static void
use_list_remove(l2_tier *l2, l2_node *n)
{
    *(n->newer ? &n->newer->older : &l2->newest) = n->older;
    *(n->older ? &n->older->newer : &l2->oldest) = n->newer;
}

static void
use_list_push(l2_tier *l2, l2_node *n)
{
    n->newer = NULL;
    n->older = l2->newest;
    *(l2->newest ? &l2->newest->newer : &l2->oldest) = n;
    l2->newest = n;
}

static void
log_list_remove(l2_tier *l2, l2_node *n)
{
    *(n->log_newer ? &n->log_newer->log_older : &l2->log_newest) = n->log_older;
    *(n->log_older ? &n->log_older->log_newer : &l2->log_oldest) = n->log_newer;
    if (l2->log_cursor == n)
        l2->log_cursor = n->log_older;
    l2->log_bytes -= n->length + 1u;
    n->logged = false;
}

/* Changes come in revision order, so that the place is at the newest end. */
static void
log_list_insert(l2_tier *l2, l2_node *n)
{
    l2_node *before = l2->log_newest;
    while (before && before->revision > n->revision)
        before = before->log_older;
    n->log_older = before;
    n->log_newer = before ? before->log_newer : l2->log_oldest;
    *(before ? &before->log_newer : &l2->log_oldest) = n;
    *(n->log_newer ? &n->log_newer->log_older : &l2->log_newest) = n;
    l2->log_bytes += n->length + 1u;
    n->logged = true;
}

void
l2_use_locked(l2_tier *l2, l2_node *n)
{
    if (!n->resident || l2->newest == n)
        return;
    use_list_remove(l2, n);
    use_list_push(l2, n);
}

void
l2_forget_locked(l2_tier *l2, l2_node *n)
{
    ptier_map_remove(&l2->map, n->hash, n);
    if (n->resident) {
        use_list_remove(l2, n);
        l2->residents--;
    }
    if (n->logged)
        log_list_remove(l2, n);
    l2->live_bytes -= n->length + 1u;
    n->shard->live -= n->length + 1u;
    free(n);
}

void
l2_evict_locked(l2_tier *l2, l2_node *n)
{
    if (!n->resident)
        return;
    if (!n->logged) {
        l2_forget_locked(l2, n);
        return;
    }
    use_list_remove(l2, n);
    l2->residents--;
    n->resident = false;
}

bool
l2_release_log_locked(l2_tier *l2, uint64_t floor, size_t limit)
{
    if (floor > l2->floor)
        l2->floor = floor;
    while (l2->log_oldest && l2->log_oldest->revision <= l2->floor) {
        l2_node *n = l2->log_oldest;
        if (limit-- == 0)
            return true;
        log_list_remove(l2, n);
        if (!n->resident)
            l2_forget_locked(l2, n);
    }
    return false;
}

l2_node *
l2_log_above_locked(l2_tier *l2, uint64_t revision)
{
    l2_node *n = l2->log_cursor;
    n = n && n->revision <= revision ? n->log_newer : l2->log_oldest;
    while (n && n->revision <= revision)
        n = n->log_newer;
    return n;
}

/* A clear stands in for every older line. */
static void
clear_locked(l2_tier *l2, uint64_t revision)
{
    for (size_t i = 0; l2->map.cells && i <= l2->map.mask;) {
        l2_node *n = l2->map.cells[i].value;
        if (n && n->revision < revision)
            l2_forget_locked(l2, n); /* may shift another node into this cell: look again */
        else
            i++;
    }
}

static l2_node *
add_node(l2_tier *l2, uint64_t hash)
{
    l2_node *n = malloc(sizeof *n); /* glibc has no quick way for calloc */
    if (!n || !ptier_map_insert(&l2->map, hash, n)) {
        free(n);
        return NULL;
    }
    *n = (l2_node){.hash = hash};
    return n;
}

void
l2_move_locked(l2_tier *l2, l2_node *n, l2_shard *shard, uint64_t offset, size_t length)
{
    uint64_t before = n->shard ? n->length + 1u : 0;
    l2->live_bytes += length + 1 - before;
    if (n->logged)
        l2->log_bytes += length + 1 - before;
    if (n->shard)
        n->shard->live -= before;
    shard->live += length + 1;
    n->shard = shard;
    n->offset = (uint32_t)offset;
    n->length = (uint32_t)length;
}

/* Takes the lines' place: what the node pointed at before is dead from now on. */
static void
point_node(l2_tier *l2, l2_node *n, const ptier_op *op, l2_shard *shard, uint64_t offset,
           size_t length)
{
    l2_move_locked(l2, n, shard, offset, length);
    n->kind = (uint8_t)op->kind;
    bool relisted = n->revision != op->revision;
    if (relisted && n->logged)
        log_list_remove(l2, n);
    n->revision = op->revision;
    if (!n->logged && op->revision > l2->floor && !l2->recovering)
        log_list_insert(l2, n);
    bool resident = op->kind == PTIER_OP_PUT;
    if (n->resident)
        use_list_remove(l2, n);
    l2->residents += (uint64_t)resident - (uint64_t)n->resident;
    n->resident = resident;
    if (resident)
        use_list_push(l2, n);
}

bool
l2_install_locked(l2_tier *l2, const ptier_op *op, l2_shard *shard, uint64_t offset, size_t length)
{
    uint64_t hash = op->entry ? op->entry->hash : 0;
    if (op->kind == PTIER_OP_CLEAR)
        clear_locked(l2, op->revision);
    l2_node *n = l2_find_locked(l2, hash, op->revision);
    if (!n && op->replaces)
        n = l2_find_locked(l2, hash, op->replaces);
    if (!n)
        n = add_node(l2, hash);
    if (!n)
        return false;
    point_node(l2, n, op, shard, offset, length);
    if (!n->resident && !n->logged && !l2->recovering)
        l2_forget_locked(l2, n); /* a tombstone that nobody waits for */
    return true;
}

static int
compare_revisions(const void *a, const void *b)
{
    uint64_t x = (*(l2_node *const *)a)->revision, y = (*(l2_node *const *)b)->revision;
    return x < y ? -1 : x > y;
}

bool
l2_end_recovery_locked(l2_tier *l2, uint64_t floor)
{
    l2_node **nodes = malloc((l2->map.count ? l2->map.count : 1) * sizeof(l2_node *));
    size_t count = 0;
    if (!nodes)
        return false;
    l2->recovering = false;
    l2->floor = floor;
    for (size_t i = 0; l2->map.cells && i <= l2->map.mask;) {
        l2_node *n = l2->map.cells[i].value;
        if (n && !n->resident && n->revision <= floor) {
            l2_forget_locked(l2, n); /* look at this cell again */
            continue;
        }
        if (n && n->revision > floor)
            nodes[count++] = n;
        i++;
    }
    qsort(nodes, count, sizeof *nodes, compare_revisions);
    for (size_t i = 0; i < count; i++)
        if (!nodes[i]->logged) /* a node may be met twice: forgetting others moves cells */
            log_list_insert(l2, nodes[i]);
    free(nodes);
    return true;
}
