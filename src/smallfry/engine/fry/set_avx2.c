/* AVX2 with fused products: x86-64 since 2013. */
#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define FRY_SET avx2
#define FRY_AVX2
#include "simd.h"
static int supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#include "set.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
typedef int not_empty;
