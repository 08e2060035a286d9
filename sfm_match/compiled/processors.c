/* Which of the kernels this processor can run. */

#include "processors.h"

#if defined(__x86_64__)

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

static int has_neon(void)
{
    return 1;
}

#endif

static const struct processor {
    const char *name;
    int (*here)(void);
} PROCESSORS[] = {
#if defined(__x86_64__)
    {"AVX-512", has_avx512},
    {"AVX2", has_avx2},
#elif defined(__aarch64__)
    {"NEON", has_neon},
#endif
    {NULL, NULL},
};

/* Of the structures that all files here take: raised whenever one of them changes, as in __init__.py. */
size_t kernel_layout(void)
{
    return 1;
}

/* Name of a kernel, the fastest first, if the processor can run it, else "". NULL after the last one. */
const char *kernel_name(size_t number)
{
    const struct processor *const one = PROCESSORS + number;
    return one->name && !one->here() ? "" : one->name;
}
