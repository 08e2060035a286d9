/* Keypoints of tracks brought to agree: what `_settled` of refine/track_optimization.py does, a relation at a time.
   Called by refine/compiled_tracks.py, which states the same structure. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct tracks {
    const int64_t *first, *second; /* (relations,) keypoints */
    const float *offsets; /* (relations, 2) pixels: second should be there if first is at its place */
    const float *affines; /* (relations, 2, 2) second from first, of small movements */
    const int64_t *track; /* (keypoints,) a keypoint of the track of each */
    const uint8_t *fixed; /* (keypoints,) */
    size_t relations, keypoints;
    int32_t rounds; /* at most */
    float still; /* pixels: steps below it are the last */
    float resting; /* of the relations that are left; with fewer at work, the others are left out */
    float noise; /* pixels: disagreement beyond it weighs by its size, not by the square */
    float *moves; /* (keypoints, 2) pixels; 0 at first */
    float *back; /* (relations, 2, 2) to work with, and so are those below */
    double *sums; /* (keypoints, 3) weights, and what they pull by */
    int64_t *at_work; /* (relations,) */
    uint8_t *moving; /* (keypoints,) */
};

#define FOR_EACH "settle.h"
#include "processors.h"

/* Each keypoint goes half way to where its relations want it, at once with all others, again and again. */
void tracks_settle(size_t number, const struct tracks *given)
{
    static void (*const all[])(const struct tracks *) = {KERNELS(settle)};
    all[number](given);
}
