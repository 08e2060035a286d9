/* `fit` for one width of vectors: see processors.h. */

typedef float NAME(floats) __attribute__((vector_size(4 * WIDTH)));
typedef float NAME(loose) __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
#define floats NAME(floats)
#define loose NAME(loose)
#define PARTS (LANES / WIDTH) /* vectors of a row */

/* What a patch of the first image asks of one of the second; by rows. */
struct NAME(question) {
    floats template[SIDE][PARTS], x[SIDE][PARTS], y[SIDE][PARTS];
};

static inline float NAME(sum)(floats values)
{
    float sum = 0.0f;
    for (size_t lane = 0; lane < WIDTH; lane++)
        sum += values[lane];
    return sum;
}

/* `value`, or the nearest of what is allowed; of NaN the least. */
static inline float NAME(clip)(float value, float least, float most)
{
    return value > least ? value < most ? value : most : least;
}

/* A place as a whole number, within reason, and what is left. */
static inline ptrdiff_t NAME(whole)(float place, float *left)
{
    const float near = NAME(clip)(place, -1e6f, 1e6f), below = floorf(near);
    *left = near - below;
    return (ptrdiff_t)below;
}

static inline size_t NAME(inside)(ptrdiff_t place, size_t length)
{
    return place < 0 ? 0 : (size_t)place < length ? (size_t)place : length - 1;
}

static inline four NAME(taps)(const four *polynomials, float after)
{
    return ((polynomials[3] * after + polynomials[2]) * after + polynomials[1]) * after + polynomials[0];
}

/* The value at a place between pixels; beyond the edge, the edge. */
static inline float NAME(at)(const struct image *image, const four *polynomials, float x, float y)
{
    float right, down;
    const ptrdiff_t column = NAME(whole)(x, &right) - 1, row = NAME(whole)(y, &down) - 1;
    const four across = NAME(taps)(polynomials, right), along = NAME(taps)(polynomials, down);
    const float *pixels = image->pixels;
    float copy[16];
    size_t stride = image->width;
    if (column >= 0 && row >= 0 && column + 4 <= (ptrdiff_t)image->width && row + 4 <= (ptrdiff_t)image->height) {
        pixels += row * (ptrdiff_t)stride + column;
    } else {
        for (ptrdiff_t i = 0; i < 16; i++) {
            const size_t line = NAME(inside)(row + i / 4, image->height);
            copy[i] = pixels[line * stride + NAME(inside)(column + i % 4, image->width)];
        }
        pixels = copy;
        stride = 4;
    }
    four sum = {0};
    for (size_t i = 0; i < 4; i++)
        sum += along[i] * *(const loose_four *)(pixels + i * stride);
    sum *= across;
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* What `ask` compares: the pixels around a place, and one more on each side, at `columns` and `rows` from it. */
static inline void NAME(warped)(
    const struct image *image, const four *polynomials, const float *centre, const float *columns, const float *rows,
    float patch[SIDE + 2][STRIDE])
{
    const float margin = 2.0f, around = RADIUS + 1;
    const float right = around * (fabsf(columns[0]) + fabsf(columns[1]));
    const float down = around * (fabsf(rows[0]) + fabsf(rows[1]));
    const int inside = centre[0] - right >= margin && centre[0] + right < (float)image->width - margin - 2.0f
        && centre[1] - down >= margin && centre[1] + down < (float)image->height - margin - 2.0f;
    const float *const pixels = image->pixels;
    const ptrdiff_t stride = (ptrdiff_t)image->width;
    for (int row = 0; row < SIDE + 2; row++) {
        const float y = (float)row - around;
        float places[2][LANES], after[LANES], weights[4][LANES];
        ptrdiff_t starts[LANES];
        for (int lane = 0; lane < LANES; lane++) {
            const float x = (float)lane - around;
            places[0][lane] = centre[0] + (columns[0] * x + columns[1] * y);
            places[1][lane] = centre[1] + (rows[0] * x + rows[1] * y);
        }
        if (!inside) {
            for (int column = 0; column < SIDE + 2; column++)
                patch[row][column] = NAME(at)(image, polynomials, places[0][column], places[1][column]);
            continue;
        }
        for (int lane = 0; lane < LANES; lane++) { /* above 0: those that matter */
            const int32_t column = (int32_t)places[0][lane], line = (int32_t)places[1][lane];
            const float below = places[1][lane] - (float)line;
            after[lane] = places[0][lane] - (float)column;
            starts[lane] = (line - 1) * stride + column - 1;
            for (int tap = 0; tap < 4; tap++)
                weights[tap][lane] = ((polynomials[3][tap] * below + polynomials[2][tap]) * below + polynomials[1][tap])
                        * below + polynomials[0][tap];
        }
        for (int column = 0; column < SIDE + 2; column++) {
            const float *const from = pixels + starts[column];
            four sum = weights[0][column] * *(const loose_four *)from;
            sum += weights[1][column] * *(const loose_four *)(from + stride);
            sum += weights[2][column] * *(const loose_four *)(from + 2 * stride);
            sum += weights[3][column] * *(const loose_four *)(from + 3 * stride);
            sum *= NAME(taps)(polynomials, after[column]);
            patch[row][column] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        }
    }
}

/* The pixels around a place: rows of at least LANES + 3 floats, of which WINDOW are of the image. */
static inline const float *NAME(window)(
    const struct image *image, ptrdiff_t column, ptrdiff_t row, float copy[WINDOW][STRIDE], size_t *stride)
{
    const ptrdiff_t left = column - RADIUS - 1, top = row - RADIUS - 1;
    const ptrdiff_t width = (ptrdiff_t)image->width, height = (ptrdiff_t)image->height;
    if (left >= 0 && top >= 0 && left + LANES + 3 <= width && top + WINDOW <= height) {
        *stride = image->width;
        return image->pixels + top * width + left;
    }
    for (ptrdiff_t i = 0; i < WINDOW; i++) {
        const float *const from = image->pixels + NAME(inside)(top + i, image->height) * image->width;
        for (ptrdiff_t j = 0; j < WINDOW; j++)
            copy[i][j] = from[NAME(inside)(left + j, image->width)];
    }
    *stride = STRIDE;
    return copy[0];
}

/* The first product of a question tells how a patch correlates with the template, the others are the step in x and y:
   see `_questions` of refine/patch_alignment.py. */
static inline void NAME(ask)(
    const struct patches *given, size_t number, const four *polynomials, const floats weights[SIDE][PARTS],
    struct NAME(question) *question)
{
    const float *const affine = given->affines + 4 * number, *const centre = given->first + 2 * number;
    const float determinant = affine[0] * affine[3] - affine[1] * affine[2];
    float patch[SIDE + 2][STRIDE]; /* one pixel more on each side */
    memset(patch, 0, sizeof patch); /* lanes beyond are numbers */
    const float columns[2] = {affine[3] / determinant, -affine[1] / determinant};
    const float rows[2] = {-affine[2] / determinant, affine[0] / determinant};
    NAME(warped)(&given->image_a, polynomials, centre, columns, rows, patch);
#define PATCH(row, column, part) (*(const loose *)(patch[row] + (column) + (part) * WIDTH))
#define EACH for (size_t row = 0; row < SIDE; row++) for (size_t part = 0; part < PARTS; part++)
    floats sum = {0}, sum_x = {0}, sum_y = {0};
    EACH {
        const floats weight = weights[row][part];
        const floats x = PATCH(row + 1, 2, part) - PATCH(row + 1, 0, part);
        const floats y = PATCH(row + 2, 1, part) - PATCH(row, 1, part);
        sum += weight * PATCH(row + 1, 1, part);
        sum_x += weight * x;
        sum_y += weight * y;
        question->x[row][part] = x;
        question->y[row][part] = y;
    }
    const float mean = NAME(sum)(sum), mean_x = NAME(sum)(sum_x), mean_y = NAME(sum)(sum_y);
    floats square = {0}, with_x = {0}, with_y = {0};
    EACH {
        const floats value = PATCH(row + 1, 1, part) - mean, weighted = weights[row][part] * value;
        square += weighted * value;
        with_x += weighted * (question->x[row][part] -= mean_x);
        with_y += weighted * (question->y[row][part] -= mean_y);
        question->template[row][part] = value;
    }
    const float contrast = sqrtf(NAME(sum)(square)) + given->least_contrast, scale = 0.5f / contrast;
    const float explained_x = scale * NAME(sum)(with_x) / contrast, explained_y = scale * NAME(sum)(with_y) / contrast;
    floats square_x = {0}, both = {0}, square_y = {0};
    EACH {
        const floats weight = weights[row][part], value = question->template[row][part] / contrast;
        const floats x = question->x[row][part] * scale - explained_x * value;
        const floats y = question->y[row][part] * scale - explained_y * value;
        square_x += weight * x * x;
        both += weight * x * y;
        square_y += weight * y * y;
        question->template[row][part] = weight * value;
        question->x[row][part] = weight * x;
        question->y[row][part] = weight * y;
    }
    const float a = NAME(sum)(square_x) + given->damping, b = NAME(sum)(both), c = NAME(sum)(square_y) + given->damping;
    const float inverse = 1.0f / (a * c - b * b);
    EACH {
        const floats x = question->x[row][part], y = question->y[row][part];
        question->x[row][part] = (b * y - c * x) * inverse;
        question->y[row][part] = (b * x - a * y) * inverse;
    }
#undef PATCH
}

/* Asks memory for the pixels around a place that is next: points come in no order. GCC takes a function that does no
   more than that for one that does nothing, unless it is inlined at once. */
static inline __attribute__((always_inline)) void NAME(expect)(const struct image *image, float x, float y)
{
    float part;
    const ptrdiff_t column = NAME(whole)(x, &part), line = NAME(whole)(y, &part);
    if (column < REACH || line < REACH || column + REACH > (ptrdiff_t)image->width
        || line + REACH > (ptrdiff_t)image->height)
        return;
    for (ptrdiff_t row = line - REACH; row < line + REACH; row++) {
        const float *const from = image->pixels + row * (ptrdiff_t)image->width + column - REACH;
        __builtin_prefetch(from);
        __builtin_prefetch(from + REACH);
    }
}

/* As `patches_fit`. */
static void NAME(fit)(const struct patches *const given)
{
    const four *const polynomials = given->cubic ? CUBIC : LINEAR;
    floats weights[SIDE][PARTS];
    for (size_t row = 0; row < SIDE; row++)
        for (size_t lane = 0; lane < LANES; lane++)
            weights[row][lane / WIDTH][lane % WIDTH] = lane < SIDE ? given->weights[row * SIDE + lane] : 0.0f;
    struct NAME(question) question;
    float copy[WINDOW][STRIDE];
    memset(copy, 0, sizeof copy);
    for (size_t number = 0; number < given->count; number++) {
        if (number + 1 < given->count) {
            NAME(expect)(&given->image_a, given->first[2 * number + 2], given->first[2 * number + 3]);
            NAME(expect)(&given->image_b, given->second[2 * number + 2], given->second[2 * number + 3]);
        }
        NAME(ask)(given, number, polynomials, weights, &question);
        const float from_x = given->second[2 * number], from_y = given->second[2 * number + 1];
        float to_x = from_x, to_y = from_y, step_x = 0.0f, step_y = 0.0f, before = 0.0f, correlation = 0.0f;
        for (int32_t iteration = 0; iteration < given->iterations; iteration++) {
            float right, down;
            size_t stride;
            const ptrdiff_t column = NAME(whole)(to_x, &right), line = NAME(whole)(to_y, &down);
            const float *const pixels = NAME(window)(&given->image_b, column, line, copy, &stride);
            const four across = NAME(taps)(polynomials, right), along = NAME(taps)(polynomials, down);
            floats rows[WINDOW][PARTS];
            for (size_t row = 0; row < WINDOW; row++)
                for (size_t part = 0; part < PARTS; part++) {
                    const float *const from = pixels + row * stride + part * WIDTH;
                    rows[row][part] = across[0] * *(const loose *)from + across[1] * *(const loose *)(from + 1)
                        + across[2] * *(const loose *)(from + 2) + across[3] * *(const loose *)(from + 3);
                }
            /* less a number near the mean, for the rounding of the square */
            const float centre = rows[RADIUS + 1][RADIUS / WIDTH][RADIUS % WIDTH];
            floats sum = {0}, square = {0}, with_template = {0}, with_x = {0}, with_y = {0};
            EACH {
                const floats seen = along[0] * rows[row][part] + along[1] * rows[row + 1][part]
                    + along[2] * rows[row + 2][part] + along[3] * rows[row + 3][part] - centre;
                const floats weighted = weights[row][part] * seen;
                sum += weighted;
                square += weighted * seen;
                with_template += question.template[row][part] * seen;
                with_x += question.x[row][part] * seen;
                with_y += question.y[row][part] * seen;
            }
            const float mean = NAME(sum)(sum), variance = NAME(sum)(square) - mean * mean;
            const float contrast = (variance > 0.0f ? sqrtf(variance) : 0.0f) + given->least_contrast;
            correlation = NAME(sum)(with_template) / contrast;
            step_x = NAME(clip)(NAME(sum)(with_x) / contrast, -1.0f, 1.0f);
            step_y = NAME(clip)(NAME(sum)(with_y) / contrast, -1.0f, 1.0f);
            if (!iteration)
                before = correlation;
            to_x += step_x;
            to_y += step_y;
            if (!(fabsf(step_x) > given->still || fabsf(step_y) > given->still))
                break;
        }
        const float x = to_x - from_x, y = to_y - from_y;
        given->offsets[2 * number] = x;
        given->offsets[2 * number + 1] = y;
        given->fits[number] = x * x + y * y <= given->farthest * given->farthest
            && step_x * step_x + step_y * step_y <= given->settled * given->settled
            && correlation >= before && correlation >= given->least_correlation;
    }
}
#undef EACH
#undef PARTS
#undef loose
#undef floats
