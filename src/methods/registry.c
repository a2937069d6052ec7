#include "registry.h"

#include <string.h>

static const qem_method_ops *const methods[] = {
    &qem_rtn_ops, &qem_lloydmax_ops, &qem_vq_ops, &qem_pq_ops, &qem_hyperchr_ops, &qem_qet_ops, &qem_grid_ops, &qem_nf_ops,
};

#define METHOD_COUNT (sizeof methods / sizeof methods[0])

const qem_method_ops *qem_method_find(qem_method method)
{
    for (size_t i = 0; i < METHOD_COUNT; i++)
        if (methods[i]->id == method) return methods[i];
    return NULL;
}

const char *qem_method_name(qem_method method)
{
    const qem_method_ops *ops = qem_method_find(method);
    return ops ? ops->name : "?";
}

qem_method qem_method_from_name(const char *name)
{
    for (size_t i = 0; name && i < METHOD_COUNT; i++)
        if (strcmp(methods[i]->name, name) == 0) return methods[i]->id;
    return QEM_METHOD_NONE;
}
