/* AVX-512 with products of bf16 in tile registers (AMX). */
#define _GNU_SOURCE /* syscall */
#include "../compiler.h"
#ifdef FRY_KNOWS_AMX
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,amx-tile,amx-bf16")
#endif
#define FRY_SET amx
#define FRY_AVX512
#define FRY_HAS_VNNI
#define FRY_HAS_BF16
#define FRY_HAS_AMX
#include "../simd.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel must be asked for the tile registers, once a process. */
static int supported(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__builtin_cpu_supports("avx512bf16") || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const int amx = (d >> 22 & 1) && (d >> 24 & 1); /* AMX-BF16, AMX-TILE */
    return amx && syscall(SYS_arch_prctl, 0x1023L /* ARCH_REQ_XCOMP_PERM */, 18L /* XTILEDATA */) == 0;
}
#include "set.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
typedef int not_empty;
