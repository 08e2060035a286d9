/* Patches of two images aligned by the inverse compositional algorithm of Lucas and Kanade, for a translation.

   All of a patch stays in the nearest cache from its first pixel to its last step; with numpy and OpenCV each operation
   is a pass over memory. Called by refine/compiled_alignment.py, which states the same structures; does what `_fit` and
   `_local_affines` of refine/patch_alignment.py do. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define RADIUS 5 /* pixels of a patch each way */
#define SIDE (2 * RADIUS + 1)
#define LANES 16 /* of a row of a patch: those beyond it have the weight 0 */
#define WINDOW (SIDE + 3) /* pixels each way that the patch is interpolated from */
#define REACH 8 /* pixels each way that a patch is mostly within */
#define STRIDE 24 /* of a row of pixels in memory of ours */

struct image {
    const float *pixels; /* (height, width) */
    size_t height, width;
};

struct patches {
    struct image image_a, image_b;
    const float *first, *second; /* (count, 2) x, y; the centre of the top-left pixel at 0, 0 */
    const float *affines; /* (count, 2, 2) second from first; none is singular */
    const float *weights; /* (SIDE, SIDE) of a patch's pixels; their sum is 1 */
    size_t count;
    int32_t cubic; /* interpolation; else linear */
    int32_t iterations; /* at most */
    float still; /* pixels: a smaller step is a point's last */
    float damping; /* of steps where a patch is flat */
    float least_contrast;
    float farthest; /* pixels that a point may move */
    float settled; /* pixels: the last step of a point that has settled */
    float least_correlation;
    float *offsets; /* (count, 2) of the second points */
    uint8_t *fits; /* (count,) */
};

struct surroundings {
    const float *first, *second; /* (matches, 2) x, y */
    const int64_t *near; /* (count, neighbours) matches that are next to one of the rows; at most LANES */
    const int64_t *rows; /* (count,) matches */
    size_t matches, count, neighbours;
    int32_t rounds; /* of the weights */
    float stiffness; /* square pixels: weight of the identity */
    float stretch; /* most that a map may magnify or shrink */
    float *maps; /* (count, 2, 2) second from first */
};

typedef float four __attribute__((vector_size(16)));
typedef float loose_four __attribute__((vector_size(16), aligned(4), may_alias));

/* Of pixels at -1, 0, 1 and 2: polynomials of how far after 0 a place is, from the constant up. The cubic ones are
   those of Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981), with OpenCV's -0.75. */
static const four CUBIC[4] = {
    {0, 1, 0, 0}, {-0.75f, 0, 0.75f, 0}, {1.5f, -2.25f, 1.5f, -0.75f}, {-0.75f, 1.25f, -1.25f, 0.75f}};
static const four LINEAR[4] = {{0, 1, 0, 0}, {0, -1, 1, 0}, {0}, {0}};

#define FOR_EACH "fit.h"
#include "processors.h"
#define FOR_EACH "affines.h"
#include "processors.h"

/* Offsets to where the patches fit, and whether to believe them. */
void patches_fit(size_t number, const struct patches *given)
{
    static void (*const fits[])(const struct patches *) = {KERNELS(fit)};
    fits[number](given);
}

/* How the surroundings of matches are mapped: see `local_affines` of refine/patch_alignment.py. */
void local_affines(size_t number, const struct surroundings *given)
{
    static void (*const all[])(const struct surroundings *) = {KERNELS(affines)};
    all[number](given);
}
