#include "registry.h"

#include <string.h>

static const qem_method_ops *const methods[] = {
    &qem_rtn_ops, &qem_lloydmax_ops, &qem_vq_ops, &qem_pq_ops, &qem_hyperchr_ops, &qem_qet_ops,
    &qem_grid_ops, &qem_nf_ops, &qem_opq_ops, &qem_lopq_ops,
};

#define METHOD_COUNT (sizeof methods / sizeof methods[0])

const qem_method_ops *qem_method_find(qem_method method)
{
    for (size_t i = 0; i < METHOD_COUNT; i++)
        if (methods[i]->id == method) return methods[i];
    return NULL;
}

/* By number. Files and command lines name methods that are no entry above too: auto is a search. */
static const char *const names[] = { NULL, "rtn", "lloydmax", "vq", "pq", "hyperchr", "qet", "grid", "nf", "opq", "lopq", "auto" };

#define NAME_COUNT (sizeof names / sizeof names[0])

const char *qem_method_name(qem_method method)
{
    return method > QEM_METHOD_NONE && (size_t)method < NAME_COUNT ? names[method] : "?";
}

qem_method qem_method_from_name(const char *name)
{
    for (size_t i = 1; name && i < NAME_COUNT; i++)
        if (strcmp(names[i], name) == 0) return (qem_method)i;
    return QEM_METHOD_NONE;
}
