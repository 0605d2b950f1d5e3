/* AVX-512 with products of bytes (VNNI) and of bf16. */
#include "compiler.h"
#ifdef FRY_KNOWS_BF16
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")
#endif
#define FRY_SET avx512bf16
#define FRY_AVX512
#define FRY_HAS_VNNI
#define FRY_HAS_BF16
#include "simd.h"
static int supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}
#include "set.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
typedef int not_empty;
