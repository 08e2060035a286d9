/* One pass over the matrix of a dual softmax, in vectors as wide as the processor has them.

   Product, exponential, sums and candidates of a few rows are made while they are in registers and in the nearest
   cache; with numpy each is a pass over memory. Called by matching/compiled_sweep.py, which states the same
   structure. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FAILED ((size_t)-1)

struct problem {
    const float *left, *right; /* (rows, dimension), (columns, dimension) */
    size_t rows, columns, dimension;
    float scale; /* E = 2^(scale * left right^T); |scale| < 126 for unit vectors */
    float least; /* of a row's sum, that a candidate is more than; above 0 */
    float *row_sums, *column_sums;
    int32_t *found_rows, *found_columns; /* capacity of each; in the order of the rows, then of the columns */
    float *found_e;
    size_t capacity;
};

/* `count` times 32 bits. */
static void *allocate(size_t count)
{
    return aligned_alloc(64, (count * 4 + 63) / 64 * 64);
}

#define FOR_EACH "sweep.h"
#include "processors.h"

/* Sums of E's rows and columns, and the places where E is more than `least` of its row's sum: how many there are.
   FAILED if there is no memory, or no room for them. */
size_t dual_softmax_sweep(size_t number, const struct problem *given)
{
    static size_t (*const sweeps[])(const struct problem *) = {KERNELS(sweep)};
    return sweeps[number](given);
}
