/* `affines` for one width of vectors: see processors.h. By lanes: the matches that are next to one. */

typedef float NAME(near) __attribute__((vector_size(4 * LANES), aligned(4)));
#define floats NAME(near)

static inline float NAME(total)(const floats *values)
{
    float sum = 0.0f;
    for (size_t lane = 0; lane < LANES; lane++)
        sum += (*values)[lane];
    return sum;
}

/* As `local_affines`. */
static void NAME(affines)(const struct surroundings *const given)
{
    for (size_t number = 0; number < given->count; number++) {
        const size_t row = (size_t)given->rows[number];
        const int64_t *const near = given->near + number * given->neighbours;
        floats x = {0}, y = {0}, u = {0}, v = {0}, weight = {0};
        for (size_t lane = 0; lane < given->neighbours; lane++) {
            const size_t other = (size_t)near[lane];
            if (other >= given->matches) /* of points that are no numbers, a search tree may find none */
                continue;
            x[lane] = given->first[2 * other] - given->first[2 * row];
            y[lane] = given->first[2 * other + 1] - given->first[2 * row + 1];
            u[lane] = given->second[2 * other] - given->second[2 * row];
            v[lane] = given->second[2 * other + 1] - given->second[2 * row + 1];
            weight[lane] = 1.0f;
        }
        const floats there = weight;
        float a = 1.0f, b = 0.0f, c = 0.0f, d = 1.0f;
        for (int32_t round = 0; round < given->rounds; round++) {
            const floats weighted_x = weight * x, weighted_y = weight * y;
            const floats products[7] = {weighted_x * x, weighted_x * y, weighted_y * y, weighted_x * u, weighted_y * u,
                weighted_x * v, weighted_y * v};
            const float xx = NAME(total)(products) + given->stiffness, xy = NAME(total)(products + 1);
            const float yy = NAME(total)(products + 2) + given->stiffness;
            const float xu = NAME(total)(products + 3) + given->stiffness, yu = NAME(total)(products + 4);
            const float xv = NAME(total)(products + 5), yv = NAME(total)(products + 6) + given->stiffness;
            const float inverse = 1.0f / (xx * yy - xy * xy);
            a = (yy * xu - xy * yu) * inverse;
            b = (xx * yu - xy * xu) * inverse;
            c = (yy * xv - xy * yv) * inverse;
            d = (xx * yv - xy * xv) * inverse;
            const floats off_x = a * x + b * y - u, off_y = c * x + d * y - v;
            const floats square = off_x * off_x + off_y * off_y;
            for (size_t lane = 0; lane < LANES; lane++)
                weight[lane] = there[lane] / sqrtf(square[lane] > 1.0f ? square[lane] : 1.0f);
        }
        /* singular values: their squares have the sum |A|^2 and the product det^2 */
        const float sum = a * a + b * b + c * c + d * d, determinant = a * d - b * c;
        const float square = sum * sum - 4.0f * determinant * determinant, apart = square > 0.0f ? sqrtf(square) : 0.0f;
        const float most = (sum + apart) / 2.0f, least = (sum - apart) / 2.0f;
        const float stretch = given->stretch * given->stretch;
        const int wild = !(most <= stretch && least * stretch >= 1.0f && determinant >= 0.0f);
        const float map[4] = {wild ? 1.0f : a, wild ? 0.0f : b, wild ? 0.0f : c, wild ? 1.0f : d};
        memcpy(given->maps + 4 * number, map, sizeof map);
    }
}
#undef floats
