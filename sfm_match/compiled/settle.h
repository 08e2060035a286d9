/* `settle` for one set of instructions: see processors.h. */

/* As `tracks_settle`. */
static void NAME(settle)(const struct tracks *const given)
{
    size_t left = given->relations;
    for (size_t i = 0; i < left; i++) {
        const float *const there = given->affines + 4 * i, determinant = there[0] * there[3] - there[1] * there[2];
        float *const back = given->back + 4 * i;
        back[0] = there[3] / determinant;
        back[1] = -there[1] / determinant;
        back[2] = -there[2] / determinant;
        back[3] = there[0] / determinant;
        given->at_work[i] = (int64_t)i;
    }
    for (int32_t round = 0; round < given->rounds; round++) {
        memset(given->sums, 0, 3 * given->keypoints * sizeof(double));
        for (size_t i = 0; i < left; i++) {
            const size_t relation = (size_t)given->at_work[i];
            const size_t first = (size_t)given->first[relation], second = (size_t)given->second[relation];
            const float *const there = given->affines + 4 * relation, *const back = given->back + 4 * relation;
            const float *const offset = given->offsets + 2 * relation;
            const float *const move = given->moves + 2 * first, *const other = given->moves + 2 * second;
            const float x = there[0] * move[0] + there[1] * move[1] + offset[0] - other[0];
            const float y = there[2] * move[0] + there[3] * move[1] + offset[1] - other[1];
            const float distance = sqrtf(x * x + y * y);
            const float weight = 1.0f / (distance > given->noise ? distance : given->noise);
            const float forth_x = x * weight, forth_y = y * weight;
            double *const to_first = given->sums + 3 * first, *const to_second = given->sums + 3 * second;
            to_first[0] += weight;
            to_first[1] -= back[0] * forth_x + back[1] * forth_y;
            to_first[2] -= back[2] * forth_x + back[3] * forth_y;
            to_second[0] += weight;
            to_second[1] += forth_x;
            to_second[2] += forth_y;
        }
        int any = 0;
        memset(given->moving, 0, given->keypoints);
        for (size_t i = 0; i < given->keypoints; i++) {
            const double *const sum = given->sums + 3 * i;
            if (given->fixed[i] || !(sum[0] > 0.0))
                continue;
            const double x = sum[1] / sum[0], y = sum[2] / sum[0];
            given->moves[2 * i] += (float)(x / 2);
            given->moves[2 * i + 1] += (float)(y / 2);
            if (fabs(x) >= given->still || fabs(y) >= given->still)
                any = given->moving[given->track[i]] = 1;
        }
        if (!any)
            break;
        size_t going = 0;
        for (size_t i = 0; i < left; i++)
            going += given->moving[given->track[given->first[given->at_work[i]]]];
        if ((double)going >= given->resting * (double)left)
            continue;
        going = 0;
        for (size_t i = 0; i < left; i++)
            if (given->moving[given->track[given->first[given->at_work[i]]]])
                given->at_work[going++] = given->at_work[i];
        left = going;
    }
}
