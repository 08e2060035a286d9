/* `sweep` for one width of vectors: see processors.h. */

typedef float NAME(floats) __attribute__((vector_size(4 * WIDTH), may_alias));
typedef int32_t NAME(ints) __attribute__((vector_size(4 * WIDTH)));
#define floats NAME(floats)
#define ints NAME(ints)
#define CHUNK (8 * WIDTH) /* columns that are compared at once */
#define COLUMNS (2 * WIDTH) /* of a tile: with ROWS accumulators each, what the registers hold */

/* 2^x for |x| < 126, by Cephes' exp2f (S. L. Moshier): 2^n (1 + f P(f)), |f| <= 1/2; relative error 1.7e-7. */
static inline floats NAME(exp2)(floats x)
{
    const float nearest = 0x1.8p23f; /* x + nearest has x's nearest integer in its lowest bits */
    floats shifted = x + nearest;
    floats f = x - (shifted - nearest);
    floats p = f * 1.535336188319500e-4f + 1.339887440266574e-3f;
    p = p * f + 9.618437357674640e-3f;
    p = p * f + 5.550332471162809e-2f;
    p = p * f + 2.402264791363012e-1f;
    p = p * f + 6.931472028550421e-1f;
    p = p * f + 1.0f;
    return (floats)((ints)p + ((ints)shifted << 23));
}

/* As `dual_softmax_sweep`. `right` lies in panels of COLUMNS columns, each (dimension, COLUMNS), and `left` in a tile
   of (dimension, ROWS): the innermost loop reads both in order, and keeps ROWS x COLUMNS sums in registers. The rows of a
   tile are kept until their sums are known. */
static size_t NAME(sweep)(const struct problem *const given)
{
    const size_t n = given->rows, m = given->columns, dimension = given->dimension;
    const size_t panels = (m + COLUMNS - 1) / COLUMNS, padded = panels * COLUMNS;
    const size_t stride = (padded + CHUNK - 1) / CHUNK * CHUNK;
    float *const right = allocate(padded * dimension), *const left = allocate(ROWS * dimension);
    float *const block = allocate(ROWS * stride), *const below = allocate(padded);
    size_t found = FAILED;
    if (!right || !left || !block || !below)
        goto end;

    for (size_t panel = 0; panel < panels; panel++)
        for (size_t column = 0; column < COLUMNS; column++) {
            const size_t j = panel * COLUMNS + column;
            float *const to = right + panel * COLUMNS * dimension + column;
            for (size_t k = 0; k < dimension; k++)
                to[k * COLUMNS] = j < m ? given->right[j * dimension + k] * given->scale : 0.0f;
        }
    memset(below, 0, padded * sizeof(float));
    memset(block, 0, ROWS * stride * sizeof(float));
    floats last[2]; /* 1 where the last panel has a column */
    for (size_t column = 0; column < COLUMNS; column++)
        last[column / WIDTH][column % WIDTH] = (panels - 1) * COLUMNS + column < m;

    found = 0;
    for (size_t start = 0; start < n; start += ROWS) {
        const size_t rows = n - start < ROWS ? n - start : ROWS;
        for (size_t k = 0; k < dimension; k++)
            for (size_t row = 0; row < ROWS; row++)
                left[k * ROWS + row] = row < rows ? given->left[(start + row) * dimension + k] : 0.0f;
        floats across[ROWS] = {0};
        for (size_t panel = 0; panel < panels; panel++) {
            const floats *b = (const floats *)(right + panel * COLUMNS * dimension);
            const float *a = left;
            floats e[ROWS][2] = {0};
            for (size_t k = 0; k < dimension; k++, a += ROWS, b += 2) {
                const floats b0 = b[0], b1 = b[1];
#pragma GCC unroll 16
                for (size_t row = 0; row < ROWS; row++) {
                    e[row][0] += a[row] * b0;
                    e[row][1] += a[row] * b1;
                }
            }
            floats down0 = {0}, down1 = {0};
            float *const to = block + panel * COLUMNS;
#pragma GCC unroll 16
            for (size_t row = 0; row < ROWS; row++) {
                floats e0 = NAME(exp2)(e[row][0]), e1 = NAME(exp2)(e[row][1]);
                if (panel == panels - 1) {
                    e0 *= last[0];
                    e1 *= last[1];
                }
                *(floats *)(to + row * stride) = e0;
                *(floats *)(to + row * stride + WIDTH) = e1;
                across[row] += e0 + e1;
                if (row < rows) {
                    down0 += e0;
                    down1 += e1;
                }
            }
            *(floats *)(below + panel * COLUMNS) += down0;
            *(floats *)(below + panel * COLUMNS + WIDTH) += down1;
        }
        for (size_t row = 0; row < rows; row++) {
            float sum = 0.0f;
            for (size_t column = 0; column < WIDTH; column++)
                sum += across[row][column];
            given->row_sums[start + row] = sum;
            const float bar = given->least * sum;
            const float *const of_row = block + row * stride;
            for (size_t j = 0; j < stride; j += CHUNK) {
                const floats *const e = (const floats *)(of_row + j);
                ints above = e[0] > bar;
                for (size_t part = 1; part < CHUNK / WIDTH; part++)
                    above |= e[part] > bar;
                int32_t any = 0;
                for (size_t lane = 0; lane < WIDTH; lane++)
                    any |= above[lane];
                if (!any)
                    continue;
                for (size_t column = j; column < j + CHUNK; column++)
                    if (of_row[column] > bar) {
                        if (found == given->capacity) {
                            found = FAILED;
                            goto end;
                        }
                        given->found_rows[found] = (int32_t)(start + row);
                        given->found_columns[found] = (int32_t)column;
                        given->found_e[found++] = of_row[column];
                    }
            }
        }
    }
    memcpy(given->column_sums, below, m * sizeof(float));
end:
    free(right);
    free(left);
    free(block);
    free(below);
    return found;
}
#undef floats
#undef ints
#undef COLUMNS
#undef CHUNK
