/* Fixed tables of levels, the same on every machine: constants, not formulas of a mathematical library. */
#include "artifact.h"

float qem_table_level(qem_table table, uint64_t k, uint32_t code)
{
    return table == QEM_TABLE_UNIFORM && k > 1 ? (float)code / (float)(k - 1) : 0.0f; /* NF: with the method */
}
