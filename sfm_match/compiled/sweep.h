/* `sweep` for one width of vectors: see processors.h. */

typedef float NAME(floats) __attribute__((vector_size(4 * WIDTH), may_alias));
typedef int32_t NAME(ints) __attribute__((vector_size(4 * WIDTH), may_alias));
#define floats NAME(floats)
#define ints NAME(ints)
#define CHUNK (8 * WIDTH) /* columns that are compared at once */
#define COLUMNS (2 * WIDTH) /* of a tile: with ROWS accumulators each, what the registers hold */

/* What a product is made of: STEP components in 32 bits. Pairs of 16-bit integers where the processor multiplies and
   adds twice as many of them as of floats; their sums are exact. Components are then rounded to 1/FULL, about as
   finely as the float16 of a file; what is found is made again in float. */
#if defined(ADD_PRODUCT_OF_PAIRS)
#define STEP 2
#define FULL 32000.0f /* FULL^2 < 2^31 and FULL < 2^15, with room for vectors a little longer than 1 */
#define terms ints
#define ADD_PRODUCT ADD_PRODUCT_OF_PAIRS
#define TAKE(to, sum) CONVERT_TO_FLOATS(to, sum)
#else
#define STEP 1
#define FULL 1.0f
#define terms floats
#define ADD_PRODUCT(sum, a, b) ((sum) += (a) * (b))
#define TAKE(to, sum) ((to) = (sum))
#endif

/* Component `k` of a vector, in the lowest bits of as many as it has there. */
static inline uint32_t NAME(component)(const float *vector, size_t k, size_t dimension)
{
    union { float value; uint32_t bits; } one = {k < dimension ? vector[k] : 0.0f};
    if (STEP == 1)
        return one.bits;
    one.value = one.value * FULL + 0x1.8p23f; /* the nearest integer, in two's complement, in the lowest bits */
    return one.bits & 0xffff;
}

static inline uint32_t NAME(term)(const float *vector, size_t step, size_t dimension)
{
    const uint32_t first = NAME(component)(vector, step * STEP, dimension);
    return STEP == 1 ? first : first | NAME(component)(vector, step * STEP + 1, dimension) << 16;
}

static float NAME(dot)(const float *a, const float *b, size_t dimension)
{
    float parts[WIDTH] = {0}, sum = 0.0f;
    size_t k = 0;
    for (; k + WIDTH <= dimension; k += WIDTH)
        for (size_t lane = 0; lane < WIDTH; lane++)
            parts[lane] += a[k + lane] * b[k + lane];
    for (; k < dimension; k++)
        sum += a[k] * b[k];
    for (size_t lane = 0; lane < WIDTH; lane++)
        sum += parts[lane];
    return sum;
}

/* 2^x for |x| < 126: 2^n P(f), |f| <= 1/2, with P of least relative error (Remez); 2.2e-7 with its rounding. */
static inline floats NAME(exp2)(floats x)
{
    const float nearest = 0x1.8p23f; /* x + nearest has x's nearest integer in its lowest bits */
    floats shifted = x + nearest;
    floats f = x - (shifted - nearest);
    floats p = f * 1.3276472e-3f + 9.6755410e-3f;
    p = p * f + 5.5507131e-2f;
    p = p * f + 2.4022120e-1f;
    p = p * f + 6.9314694e-1f;
    p = p * f + 1.0000001f;
    return (floats)((ints)p + ((ints)shifted << 23));
}

/* As `dual_softmax_sweep`. `right` lies in panels of COLUMNS columns, each (steps, COLUMNS), and `left` in a tile of
   (steps, ROWS): the innermost loop reads both in order, and keeps ROWS x COLUMNS sums in registers. The rows of a
   tile are kept until their sums are known. */
static size_t NAME(sweep)(const struct problem *const given)
{
    const size_t n = given->rows, m = given->columns, dimension = given->dimension;
    const size_t panels = (m + COLUMNS - 1) / COLUMNS, padded = panels * COLUMNS;
    const size_t stride = (padded + CHUNK - 1) / CHUNK * CHUNK;
    const size_t steps = (dimension + STEP - 1) / STEP;
    const float unit = given->scale / (FULL * FULL);
    uint32_t *const right = allocate(padded * steps), *const left = allocate(ROWS * steps);
    float *const block = allocate(ROWS * stride), *const below = allocate(padded);
    size_t found = FAILED;
    if (!right || !left || !block || !below)
        goto end;

    for (size_t panel = 0; panel < panels; panel++)
        for (size_t column = 0; column < COLUMNS; column++) {
            const size_t j = panel * COLUMNS + column;
            uint32_t *const to = right + panel * COLUMNS * steps + column;
            for (size_t step = 0; step < steps; step++)
                to[step * COLUMNS] = j < m ? NAME(term)(given->right + j * dimension, step, dimension) : 0;
        }
    memset(below, 0, padded * sizeof(float));
    memset(block, 0, ROWS * stride * sizeof(float));
    floats last[2]; /* 1 where the last panel has a column */
    for (size_t column = 0; column < COLUMNS; column++)
        last[column / WIDTH][column % WIDTH] = (panels - 1) * COLUMNS + column < m;

    found = 0;
    for (size_t start = 0; start < n; start += ROWS) {
        const size_t rows = n - start < ROWS ? n - start : ROWS;
        for (size_t step = 0; step < steps; step++)
            for (size_t row = 0; row < ROWS; row++)
                left[step * ROWS + row] =
                    row < rows ? NAME(term)(given->left + (start + row) * dimension, step, dimension) : 0;
        floats across[ROWS] = {0};
        for (size_t panel = 0; panel < panels; panel++) {
            const terms *b = (const terms *)(right + panel * COLUMNS * steps);
            const uint32_t *a = left;
            terms sums[ROWS][2] = {0};
            for (size_t step = 0; step < steps; step++, a += ROWS, b += 2) {
                const terms b0 = b[0], b1 = b[1];
#pragma GCC unroll 16
                for (size_t row = 0; row < ROWS; row++) {
                    const terms of_row = (terms)((ints){0} + (int32_t)a[row]);
                    ADD_PRODUCT(sums[row][0], of_row, b0);
                    ADD_PRODUCT(sums[row][1], of_row, b1);
                }
            }
            floats down0 = {0}, down1 = {0};
            float *const to = block + panel * COLUMNS;
#pragma GCC unroll 16
            for (size_t row = 0; row < ROWS; row++) {
                floats e0, e1;
                TAKE(e0, sums[row][0]);
                TAKE(e1, sums[row][1]);
                e0 = NAME(exp2)(e0 * unit);
                e1 = NAME(exp2)(e1 * unit);
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
            const float *const of_row = block + row * stride, *const a = given->left + (start + row) * dimension;
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
                        float value = of_row[column];
                        if (STEP > 1) {
                            const float product = NAME(dot)(a, given->right + column * dimension, dimension);
                            value = NAME(exp2)((floats){0} + given->scale * product)[0];
                            given->row_sums[start + row] += value - of_row[column];
                            below[column] += value - of_row[column];
                        }
                        given->found_rows[found] = (int32_t)(start + row);
                        given->found_columns[found] = (int32_t)column;
                        given->found_e[found++] = value;
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
#undef terms
#undef STEP
#undef FULL
#undef ADD_PRODUCT
#undef TAKE
#undef COLUMNS
#undef CHUNK
