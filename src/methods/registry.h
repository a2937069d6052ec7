/* The list of methods; the only way from one method to another. */
#ifndef QEM_METHODS_REGISTRY_H
#define QEM_METHODS_REGISTRY_H

#include "method.h"

/* The row of a method, or NULL. */
const qem_method_ops *qem_method_find(qem_method method);

extern const qem_method_ops qem_rtn_ops, qem_lloydmax_ops, qem_vq_ops, qem_pq_ops, qem_hyperchr_ops, qem_qet_ops,
    qem_grid_ops, qem_nf_ops, qem_opq_ops, qem_lopq_ops;

#endif
