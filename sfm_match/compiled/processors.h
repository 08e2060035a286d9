/* Sets of instructions that functions are compiled for. A file FOR_EACH is included once for each of them, with WIDTH
   (floats of a vector), ROWS (accumulators of a tile, times two: what the registers hold) and NAME(x) defined, and
   ADD_PRODUCT_OF_PAIRS and CONVERT_TO_FLOATS where products of 16-bit integers are the faster ones.

   GNU C's vectors, of GCC and Clang, serve any processor that has them. */

#ifndef SFM_MATCH_PROCESSORS_H
#define SFM_MATCH_PROCESSORS_H

#include <stddef.h>

#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define FOR(instructions) PRAGMA(clang attribute push(__attribute__((target(instructions))), apply_to = function))
#define FOR_ALL _Pragma("clang attribute pop")
#define WIDE "avx512f,avx512dq,avx512bw,avx512vl,fma"
#else
#define WIDE "avx512f,avx512dq,avx512bw,avx512vl,fma,prefer-vector-width=512"
#define FOR(instructions) _Pragma("GCC push_options") PRAGMA(GCC target(instructions))
#define FOR_ALL _Pragma("GCC pop_options")
#endif

/* Of each processor the name of a function that is compiled for it, the fastest first. */
#if defined(__x86_64__)
#define KERNELS(x) x##_avx512, x##_avx2
#elif defined(__aarch64__)
#define KERNELS(x) x##_neon
#else
#define KERNELS(x) NULL
#endif

#endif

#if defined(FOR_EACH)
#if defined(__x86_64__)

FOR(WIDE)
#define WIDTH 16
#define ROWS 12 /* 24 accumulators of 32 registers */
#define NAME(x) x##_avx512
#include FOR_EACH
#undef WIDTH
#undef ROWS
#undef NAME
FOR_ALL

FOR("avx2,fma")
#define WIDTH 8
#define ROWS 6 /* 12 accumulators of 16 registers */
#define NAME(x) x##_avx2
/* sum += a b, of both of the 16-bit integers that an element of a and b holds. In assembly, because compilers make the
   products of all rows first, and have no registers for them. */
#define ADD_PRODUCT_OF_PAIRS(sum, a, b)                                                                                \
    do {                                                                                                               \
        __typeof__(sum) product;                                                                                       \
        __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=x"(product) : "x"(a), "x"(b));              \
    } while (0)
#define CONVERT_TO_FLOATS(floats, integers) __asm__("vcvtdq2ps %1, %0" : "=x"(floats) : "x"(integers))
#include FOR_EACH
#undef WIDTH
#undef ROWS
#undef NAME
#undef ADD_PRODUCT_OF_PAIRS
#undef CONVERT_TO_FLOATS
FOR_ALL

#elif defined(__aarch64__)

#define WIDTH 4
#define ROWS 12 /* 24 accumulators of 32 registers */
#define NAME(x) x##_neon
#include FOR_EACH
#undef WIDTH
#undef ROWS
#undef NAME

#endif
#undef FOR_EACH
#endif
