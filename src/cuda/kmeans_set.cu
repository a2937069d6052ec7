/* Sets of problems: what is where, in one block of device memory, and the tables of tiles and runs. Host code alone. */
#include <math.h>
#include <string.h>

#include "kmeans.cuh"

#define SLOT_PAD 32
#define LARGE_PROBLEM 65536 /* points above which a problem's own block has all the threads it can */
#define TABLE_BYTES 16384   /* shared memory of a table of sums, at most */
#define SUM_BYTES(width) (8u * (width) + 4u)

struct sizes {
    uint64_t slots, x, w, entries, parts, means, tiles, runs;
    uint32_t most_k, most_count, table_bytes;
    int weighted, element, tail;
};

static uint64_t round_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }
static uint64_t tiles_of(uint64_t points) { return (points + QEM_KM_TILE - 1) / QEM_KM_TILE; }

static int same_codebook(const qem_problem *a, const qem_problem *b)
{
    return a->codebook_offset == b->codebook_offset && a->k == b->k && a->width == b->width;
}

static uint32_t weighting_of(const qem_km_wish *wish, const qem_km_found *found)
{
    if (wish->labels_only) return wish->element_weight ? QEM_KM_ELEMENT : QEM_KM_UNWEIGHTED;
    if (!found->differ) return QEM_KM_UNWEIGHTED;
    return wish->element_weight ? QEM_KM_ELEMENT : QEM_KM_POINT;
}

static void describe(const qem_km_wish *wish, const qem_km_found *found, const qem_problem *problem, qem_km_problem *p)
{
    memset(p, 0, sizeof *p);
    p->given = problem->ids;
    p->first = problem->first;
    p->step = problem->step;
    p->key = problem->key;
    p->codebook_at = problem->codebook_offset;
    p->count = (uint32_t)problem->count;
    p->full = p->count - found->tail;
    p->tail_slot = (uint32_t)round_up(p->full, SLOT_PAD);
    p->slots = p->tail_slot + (uint32_t)round_up(found->tail, SLOT_PAD);
    p->k = (uint32_t)problem->k;
    p->ldc = (uint32_t)round_up(problem->k ? problem->k : 1, QEM_KM_GRAIN);
    p->width = problem->width;
    p->tail_dim = found->tail ? wish->points.tail_dim : 0;
    p->label_base = problem->label_base;
    p->weighting = weighting_of(wish, found);
}

/* Gives a problem its places, after those of the problems before. owner: whose codebook it takes, or NULL. */
static void add_problem(qem_km_problem *p, const qem_km_problem *owner, sizes *s)
{
    const uint64_t tail = p->count - p->full, entries = p->ldc;
    p->slot_at = s->slots;
    p->x_at = s->x;
    p->w_at = s->w;
    p->tile_at = s->tiles;
    s->slots += p->slots;
    s->x += (uint64_t)p->slots * p->width;
    if (p->weighting != QEM_KM_UNWEIGHTED) s->w += (uint64_t)p->slots * (p->weighting == QEM_KM_ELEMENT ? p->width : 1);
    s->tiles += tiles_of(p->full) + tiles_of(tail);
    s->weighted |= p->weighting != QEM_KM_UNWEIGHTED;
    s->element |= p->weighting == QEM_KM_ELEMENT;
    s->tail |= tail > 0;
    if (p->k > s->most_k) s->most_k = p->k;
    if (p->count > s->most_count) s->most_count = p->count;
    const uint64_t table = (uint64_t)p->k * SUM_BYTES(p->width);
    if (table <= TABLE_BYTES && table > s->table_bytes) s->table_bytes = (uint32_t)table;
    p->entry_at = owner ? owner->entry_at : s->entries;
    p->part_at = owner ? owner->part_at : s->parts;
    p->mean_at = owner ? owner->mean_at : s->means;
    if (owner) return;
    s->entries += entries;
    s->parts += entries * p->width;
    s->means += p->width;
    s->runs += (entries + QEM_KM_THREADS - 1) / QEM_KM_THREADS;
}

static unsigned char *carve(unsigned char *memory, uint64_t *used, uint64_t count, uint64_t size)
{
    unsigned char *const at = memory ? memory + *used : nullptr;
    *used += round_up(count * size, QEM_CUDA_ALIGNMENT);
    return at;
}

#define CARVE(field, count) view->field = (decltype(view->field))carve(memory, &used, count, sizeof *view->field)

/* Arrays of a set in `memory`, or, where that is NULL, only their bytes. */
static uint64_t place(qem_km_view *view, const qem_km_wish *wish, const sizes *s, uint64_t problems, unsigned char *memory)
{
    uint64_t used = 0;
    const int fitted = !wish->labels_only;
    CARVE(problems, problems);
    CARVE(states, problems);
    CARVE(tiles, s->tiles);
    CARVE(runs, s->runs);
    CARVE(x, s->x);
    CARVE(w, s->w);
    CARVE(d2, s->slots);
    CARVE(ids, s->slots);
    CARVE(labels, s->slots);
    CARVE(c, s->parts);
    CARVE(h, 2 * s->entries);
    CARVE(features, s->element ? 2 * s->parts : 0);
    CARVE(mean, s->means);
    CARVE(flags, 2);
    if (fitted) {
        CARVE(stored, s->parts);
        CARVE(only_tail, s->entries);
        CARVE(sums, s->parts);
        CARVE(counts, 2 * s->entries);
        CARVE(keys, s->entries);
        CARVE(tile_sums, 2 * s->tiles);
        CARVE(mean_sums, s->means);
    }
    if (fitted && s->weighted) {
        CARVE(weight_sums, s->parts);
        CARVE(heaviest, s->parts);
        CARVE(weight_scale, s->parts);
    }
    view->points = wish->points;
    view->weights = wish->element_weight ? wish->element_weight : wish->point_weight;
    view->entry_total = s->entries;
    view->part_total = s->parts;
    view->mean_total = s->means;
    view->tile_total = s->tiles;
    view->problem_count = (uint32_t)problems;
    return used;
}

/* ---- batches ---- */

/* Describes problems begin .. end-1 and adds up their sizes, as long as they stay within `most_bytes`; returns where that ends.
 * list (room for all of them) may be NULL. */
static uint64_t measure(const qem_km_wish *wish, const qem_km_found *found, uint64_t begin, uint64_t end, uint64_t most_bytes,
                        qem_km_problem *list, sizes *s)
{
    qem_km_problem whole_place, here;
    uint64_t whole = begin; /* the largest codebook so far: cells that were empty at the fit all search the whole one */
    memset(s, 0, sizeof *s);
    memset(&whole_place, 0, sizeof whole_place);
    for (uint64_t i = begin; i < end; i++) {
        const qem_problem *problem = &wish->problems[i];
        const int shared = wish->labels_only && i > begin && same_codebook(problem, &wish->problems[whole]);
        sizes after = *s;
        qem_km_view none;
        describe(wish, &found[i], problem, &here);
        add_problem(&here, shared ? &whole_place : nullptr, &after);
        if (i > begin && place(&none, wish, &after, i + 1 - begin, nullptr) > most_bytes) return i;
        *s = after;
        here.owner = (uint32_t)((shared ? whole : i) - begin);
        if (i == begin || (!shared && problem->k > wish->problems[whole].k)) {
            whole = i;
            whole_place = here;
        }
        if (list) list[i - begin] = here;
    }
    return end;
}

uint64_t qem_km_batch(const qem_km_wish *wish, const qem_km_found *found, uint64_t begin, uint64_t most_bytes)
{
    sizes s;
    return measure(wish, found, begin, wish->problem_count, most_bytes, nullptr, &s);
}

/* ---- tables ---- */

static qem_km_tile *add_tiles(qem_km_tile *to, uint32_t problem, uint32_t first, uint32_t points, uint32_t part)
{
    for (uint32_t at = 0; at < points; at += QEM_KM_TILE)
        *to++ = { problem, first + at, points - at < QEM_KM_TILE ? points - at : QEM_KM_TILE, part };
    return to;
}

/* Tiles of one kernel lie together: number 0 or 1 for the dimension, 2 more for weights of elements. */
static void list_tiles(qem_km_set *set, const qem_km_problem *list, qem_km_tile *tiles)
{
    const qem_subvectors *v = &set->view.points;
    qem_km_tile *to = tiles;
    for (uint32_t kind = 0; kind < 4; kind++) {
        set->first_tile[kind] = (uint32_t)(to - tiles);
        for (uint32_t i = 0; i < set->view.problem_count; i++) {
            const qem_km_problem *p = &list[i];
            const uint32_t narrow = p->width != v->dim, element = 2 * (p->weighting == QEM_KM_ELEMENT);
            if (kind == element + narrow) to = add_tiles(to, i, 0, p->full, 0);
            if (kind == element + 1) to = add_tiles(to, i, p->tail_slot, p->count - p->full, 1);
        }
    }
    set->first_tile[4] = (uint32_t)(to - tiles);
}

static void list_runs(uint32_t problems, const qem_km_problem *list, qem_km_run *to)
{
    for (uint32_t i = 0; i < problems; i++)
        for (uint32_t first = 0; list[i].owner == i && first < list[i].ldc; first += QEM_KM_THREADS) *to++ = { i, first };
}

static qem_status put_tables(qem_km_set *set, const qem_km_problem *list, const qem_km_found *found, unsigned char *host,
                             const sizes *s)
{
    qem_cuda_call *call = set->call;
    const qem_km_view *view = &set->view;
    qem_km_tile *const tiles = (qem_km_tile *)host;
    qem_km_run *const runs = (qem_km_run *)(tiles + s->tiles);
    qem_km_state *const states = (qem_km_state *)(runs + s->runs);
    list_tiles(set, list, tiles);
    list_runs(view->problem_count, list, runs);
    memset(states, 0, view->problem_count * sizeof *states);
    for (uint32_t i = 0; i < view->problem_count; i++) {
        states[i].weight_unit = found[i].common;
        states[i].best = HUGE_VAL;
        states[i].k = list[i].k;
    }
    QEM_TRY(call->to_device((void *)view->problems, list, view->problem_count * sizeof *list));
    QEM_TRY(call->to_device((void *)view->tiles, tiles, s->tiles * sizeof *tiles));
    QEM_TRY(call->to_device((void *)view->runs, runs, s->runs * sizeof *runs));
    return call->to_device(view->states, states, view->problem_count * sizeof *states);
}

qem_status qem_km_make(qem_cuda_call *call, const qem_km_wish *wish, const qem_km_found *found, uint64_t begin, uint64_t end,
                       qem_km_set *set)
{
    sizes s;
    void *list, *tables;
    unsigned char *memory;
    const uint64_t problems = end - begin;
    memset(set, 0, sizeof *set);
    set->call = call;
    QEM_TRY(qem_allocate(call->context, problems, sizeof(qem_km_problem), &list));
    (void)measure(wish, found, begin, end, UINT64_MAX, (qem_km_problem *)list, &s);
    const uint64_t bytes = place(&set->view, wish, &s, problems, nullptr);
    qem_status status = call->take(bytes, &memory);
    if (status == QEM_OK && (s.tiles > INT32_MAX || s.runs > INT32_MAX))
        status = qem_fail(call->context, QEM_ERR_RANGE, "more points or centroids than a launch can have blocks");
    if (status == QEM_OK)
        status = qem_allocate(call->context,
                              s.tiles * sizeof(qem_km_tile) + s.runs * sizeof(qem_km_run) + problems * sizeof(qem_km_state), 1,
                              &tables);
    if (status == QEM_OK) {
        (void)place(&set->view, wish, &s, problems, memory);
        set->tiles = (uint32_t)s.tiles;
        set->runs = (uint32_t)s.runs;
        set->most_k = s.most_k;
        set->table_bytes = s.table_bytes;
        set->problem_threads = s.most_count > LARGE_PROBLEM ? 1024 : QEM_KM_THREADS;
        set->any_weighted = s.weighted;
        set->any_tail = s.tail;
        status = put_tables(set, (const qem_km_problem *)list, found + begin, (unsigned char *)tables, &s);
        qem_release(call->context, tables);
    }
    qem_release(call->context, list);
    return status;
}
