/* Numbers of either kind in registers, and functions of them that training may round as it likes. */
#ifndef FRY_TRAIN_NUMBERS_H
#define FRY_TRAIN_NUMBERS_H

#include "../internal.h"
#include "../simd.h"

/* `count` numbers from place i; a part of a register is filled up with zeros. */
INLINE vf load(fry_kind kind, const void *p, int64_t i) {
    return kind == FRY_BF16 ? bf16_load((const bf16 *)p + i) : vf_load((const float *)p + i);
}

INLINE void store(fry_kind kind, void *p, int64_t i, vf x) {
    if (kind == FRY_BF16)
        bf16_store((bf16 *)p + i, x);
    else
        vf_store((float *)p + i, x);
}

INLINE size_t size_of(fry_kind kind) { return kind == FRY_BF16 ? sizeof(bf16) : sizeof(float); }

INLINE vf load_part(fry_kind kind, const void *p, int64_t i, int64_t count) {
    float part[LANES] = {0};
    memcpy(part, (const char *)p + i * (int64_t)size_of(kind), (size_t)count * size_of(kind));
    return load(kind, part, 0);
}

INLINE void store_part(fry_kind kind, void *p, int64_t i, int64_t count, vf x) {
    float part[LANES];
    store(kind, part, 0, x);
    memcpy((char *)p + i * (int64_t)size_of(kind), part, (size_t)count * size_of(kind));
}

/* Run `body` with LOAD and STORE over places [first, last): whole registers, then a part. */
#define EACH_REGISTER(i, first, last, ...)                                                                             \
    do {                                                                                                               \
        int64_t i = (first);                                                                                           \
        for (; i + LANES <= (last); i += LANES) {                                                                      \
            const int64_t part = LANES;                                                                                \
            __VA_ARGS__                                                                                                       \
        }                                                                                                              \
        if (i < (last)) {                                                                                              \
            const int64_t part = (last)-i;                                                                             \
            __VA_ARGS__                                                                                                       \
        }                                                                                                              \
    } while (0)
#if LANES == 1 /* there are no parts */
#define GET(kind, p, i) load(kind, p, ((void)part, i))
#define PUT(kind, p, i, x) store(kind, p, ((void)part, i), x)
#else
#define GET(kind, p, i) (part == LANES ? load(kind, p, i) : load_part(kind, p, i, part))
#define PUT(kind, p, i, x) (part == LANES ? store(kind, p, i, x) : store_part(kind, p, i, part, x))
#endif

/* 2^x for x <= 127, relative error about 2e-7; 2^-126 below -126. */
INLINE vf exp2_of_register(vf x) {
    x = vf_max(x, vf_set(-126.0f));
#if defined(FRY_AVX512)
    const vf n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = vf_sub(x, n);
#else
    const vi n = vf_round(x);
    const vf r = vf_sub(x, vi_float(n));
#endif
    vf p = vf_set(1.33335581e-3f);
    p = vf_fma(p, r, vf_set(9.61812911e-3f));
    p = vf_fma(p, r, vf_set(5.55041087e-2f));
    p = vf_fma(p, r, vf_set(2.40226507e-1f));
    p = vf_fma(p, r, vf_set(6.93147181e-1f));
    p = vf_fma(p, r, vf_set(1.0f));
#if defined(FRY_AVX512)
    return _mm512_scalef_ps(p, n);
#else
    return vf_mul(p, vi_pow2(n));
#endif
}

#define LOG2_E 1.44269504088896341f
#define LN_2 0.693147180559945309f

/* 1 / x for ordinary numbers, relative error about 1e-7: a division takes as long as the rest of a sigmoid. */
INLINE vf inverse(vf x) {
#if defined(FRY_AVX512)
    const vf guess = _mm512_rcp14_ps(x);
    return vf_mul(guess, vf_sub(vf_set(2.0f), vf_mul(x, guess)));
#else
    return vf_div(vf_set(1.0f), x);
#endif
}

/* 1 / (1 + e^-x) */
INLINE vf sigmoid(vf x) {
    const vf power = exp2_of_register(vf_min(vf_mul(x, vf_set(-LOG2_E)), vf_set(126.0f)));
    return inverse(vf_add(vf_set(1.0f), power));
}

#endif
