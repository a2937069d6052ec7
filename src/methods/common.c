/* Steps that several methods take. */
#include <string.h>

#include "../core/threshold.h"
#include "method.h"

qem_status qem_fit_problems(qem_fit *fit, uint64_t count)
{
    void *memory;
    qem_release(fit->context, fit->problems);
    fit->problems = NULL;
    QEM_TRY(qem_allocate_zero(fit->context, count, sizeof(qem_problem), &memory));
    fit->problems = memory;
    fit->problem_count = count;
    return QEM_OK;
}

int qem_fit_widths_vary(const qem_fit *fit)
{
    return fit->kind == QEM_CODEBOOK_PER_GROUP && fit->recipe.allocation == QEM_ALLOCATION_VARIANCE;
}

uint64_t qem_fit_group_k(const qem_fit *fit, uint64_t group)
{
    return fit->group_bits ? (uint64_t)1 << fit->group_bits[group] : fit->k;
}

uint64_t qem_pack_groups(const uint32_t *labels, uint64_t count, const uint8_t *bits, uint64_t groups, uint64_t bit,
                         uint8_t *stream)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t word = (uint64_t)labels[i] << (bit % 8);
        for (uint8_t *byte = stream + bit / 8; word; word >>= 8) *byte++ |= (uint8_t)word;
        bit += bits[i % groups];
    }
    return bit;
}

qem_status qem_fit_group_problems(qem_fit *fit, uint64_t k)
{
    const qem_subvectors *v = &fit->points;
    uint64_t offset = 0;
    QEM_TRY(qem_fit_problems(fit, v->groups));
    for (uint64_t g = 0; g < v->groups; g++) {
        qem_problem *problem = &fit->problems[g];
        problem->key = g;
        problem->first = g;
        problem->step = v->groups;
        problem->count = v->rows;
        problem->k = fit->group_bits ? qem_fit_group_k(fit, g) : k;
        problem->codebook_offset = offset;
        problem->width = g + 1 == v->groups ? v->tail_dim : v->dim;
        offset += problem->k * problem->width;
    }
    return QEM_OK;
}

qem_kmeans_args qem_fit_kmeans_args(const qem_fit *fit)
{
    qem_kmeans_args args;
    memset(&args, 0, sizeof args);
    args.points = fit->points;
    args.problems = fit->problems;
    args.problem_count = fit->problem_count;
    args.codebook_dtype = fit->recipe.codebook;
    args.iterations = fit->recipe.iterations;
    args.restarts = fit->recipe.restarts;
    args.tolerance = fit->recipe.tolerance;
    args.seed = fit->context->seed;
    args.element_weight = fit->element_weight;
    args.point_weight = fit->point_weight;
    args.codebook = fit->codebook;
    args.labels = fit->labels;
    args.used = fit->used;
    return args;
}

static qem_status new_thresholds(qem_fit *fit, uint64_t k)
{
    void *memory;
    qem_release(fit->context, fit->thresholds);
    fit->thresholds = NULL;
    QEM_TRY(qem_allocate(fit->context, k, sizeof(float), &memory));
    fit->thresholds = memory;
    return QEM_OK;
}

qem_status qem_fit_scalar_levels(qem_fit *fit, const float *levels, uint64_t k)
{
    QEM_TRY(new_thresholds(fit, k));
    for (uint64_t j = 0; j + 1 < k; j++) fit->thresholds[j] = qem_threshold(((double)levels[j] + (double)levels[j + 1]) * 0.5);
    return QEM_OK;
}

/* Against j / (k-1) before it is rounded to f32: what lies in the middle of two levels is a tie, as of a symmetric range 0 is. */
static qem_status uniform_levels(qem_fit *fit, uint64_t k)
{
    QEM_TRY(new_thresholds(fit, k));
    for (uint64_t j = 0; j + 1 < k; j++) fit->thresholds[j] = qem_threshold(((double)j + 0.5) / (double)(k - 1));
    return QEM_OK;
}

qem_status qem_fit_table(qem_fit *fit, qem_table table)
{
    void *memory;
    fit->table = table;
    if (table == QEM_TABLE_UNIFORM) return uniform_levels(fit, fit->k);
    QEM_TRY(qem_allocate(fit->context, fit->k, sizeof(float), &memory));
    float *levels = memory;
    for (uint64_t j = 0; j < fit->k; j++) levels[j] = qem_table_level(table, fit->k, (uint32_t)j);
    const qem_status status = qem_fit_scalar_levels(fit, levels, fit->k);
    qem_release(fit->context, memory);
    return status;
}

qem_status qem_encode_scalar(qem_fit *fit, const qem_artifact *base)
{
    const qem_stage *stage = &base->stages[0];
    if (stage->kind == QEM_CODEBOOK_TABLE && stage->table == QEM_TABLE_UNIFORM) return uniform_levels(fit, stage->k);
    return qem_fit_scalar_levels(fit, stage->codebook, stage->k);
}
