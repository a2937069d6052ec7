/* Walking over the points of a problem. */
#ifndef QEM_CPU_PROBLEM_H
#define QEM_CPU_PROBLEM_H

#include "../backend.h"

/* Id of point t. */
static inline uint32_t qem_problem_id(const qem_problem *problem, uint64_t t)
{
    return problem->ids ? problem->ids[t] : (uint32_t)(problem->first + t * problem->step);
}

/* Ids are below 2^32, so the divisions are 32-bit ones when the groups are. */
static inline uint32_t qem_subvector_group(const qem_subvectors *v, uint32_t id)
{
    return id % (uint32_t)v->groups;
}

static inline const float *qem_subvector(const qem_subvectors *v, uint32_t id)
{
    if (qem_are_dense(v)) return v->x + (uint64_t)id * v->dim; /* no division */
    const uint32_t groups = (uint32_t)v->groups;
    const uint32_t row = id / groups;
    return v->x + (uint64_t)row * v->cols + (uint64_t)(id - row * groups) * v->dim;
}

static inline uint32_t qem_subvector_width(const qem_subvectors *v, uint32_t id)
{
    if (v->tail_dim == v->dim) return v->dim;
    return qem_subvector_group(v, id) + 1 == v->groups ? v->tail_dim : v->dim;
}

#endif
