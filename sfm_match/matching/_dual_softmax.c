/* One pass over the matrix of a dual softmax, in vectors as wide as the processor has them.

   Product, exponential, sums and candidates of a few rows are made while they are in registers and in the nearest
   cache; with numpy each is a pass over memory. GNU C's vectors, of GCC and Clang, serve any processor that has them.
   Loaded by compiled_sweep.py, which states the same structure. */

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

static float *allocate(size_t count)
{
    return aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
}

#if defined(__x86_64__)

/* The functions between are compiled for processors that have these instructions, the others for any. */
#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define FOR(instructions) PRAGMA(clang attribute push(__attribute__((target(instructions))), apply_to = function))
#define FOR_ALL _Pragma("clang attribute pop")
#else
#define FOR(instructions) _Pragma("GCC push_options") PRAGMA(GCC target(instructions))
#define FOR_ALL _Pragma("GCC pop_options")
#endif

FOR("avx512f,avx512dq,avx512bw,avx512vl,fma,prefer-vector-width=512")
#define WIDTH 16
#define ROWS 12 /* 24 accumulators of 32 registers */
#define NAME(x) x##_avx512
#include "_sweep.h"
FOR_ALL

FOR("avx2,fma")
#define WIDTH 8
#define ROWS 6 /* 12 accumulators of 16 registers */
#define NAME(x) x##_avx2
#include "_sweep.h"
FOR_ALL

static int has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#elif defined(__aarch64__)

#define WIDTH 4
#define ROWS 12 /* 24 accumulators of 32 registers */
#define NAME(x) x##_neon
#include "_sweep.h"

static int has_neon(void)
{
    return 1;
}

#endif

static const struct kernel {
    const char *name;
    int (*here)(void);
    size_t (*sweep)(const struct problem *);
} KERNELS[] = {
#if defined(__x86_64__)
    {"AVX-512", has_avx512, sweep_avx512},
    {"AVX2", has_avx2, sweep_avx2},
#elif defined(__aarch64__)
    {"NEON", has_neon, sweep_neon},
#endif
    {NULL, NULL, NULL},
};

/* Name of a kernel, the fastest first, if the processor can run it, else "". NULL after the last one. */
const char *dual_softmax_kernel(size_t number)
{
    const struct kernel *const kernel = KERNELS + number;
    return kernel->name && !kernel->here() ? "" : kernel->name;
}

/* Sums of E's rows and columns, and the places where E is more than `least` of its row's sum: how many there are. FAILED
   if there is no memory, or no room for them. */
size_t dual_softmax_sweep(size_t number, const struct problem *given)
{
    return KERNELS[number].sweep(given);
}
