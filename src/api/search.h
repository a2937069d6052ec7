/* What the parts of a search share: the recipes it begins with (candidates.c) and goes on with (neighbours.c). */
#ifndef QEM_API_SEARCH_H
#define QEM_API_SEARCH_H

#include "api.h"

#define QEM_SEARCH_MOST_NEIGHBOURS 16

/* The recipes tried first for so many bits an element; returns how many. */
uint32_t qem_search_candidates(const qem_recipe *asked, uint64_t rows, uint64_t cols, double bits, qem_recipe list[QEM_MOST_TRIALS]);
/* The recipes that differ from a good one in one thing. */
uint32_t qem_search_neighbours(const qem_recipe *asked, const qem_recipe *leader, double bits,
                               qem_recipe list[QEM_SEARCH_MOST_NEIGHBOURS]);

/* Does a rotation of so many columns take long? */
int qem_search_is_wide(uint64_t cols);
/* Is `dim` elements' worth of bits a length of codes that a codebook can have? */
int qem_search_suits(double bits, uint32_t dim);
/* Integers fine enough for the error that is left at such a rate. */
uint32_t qem_search_codebook_bits(double bits);
/* Do outliers leave most of the budget to the codes? */
int qem_search_affords_outliers(double bits, double fraction);
/* Scales along these axes, stored as asked, or as is usual for them. */
void qem_search_standardize(const qem_recipe *asked, qem_recipe *r, uint32_t axes);

#endif
