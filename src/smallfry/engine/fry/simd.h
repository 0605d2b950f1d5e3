/* Registers of one kernel set: LANES numbers wide, the same few operations everywhere. A file that includes this first
 * defines one of FRY_AVX512, FRY_AVX2, FRY_NEON, FRY_WASM; without any, a register is one number and the compiler sees
 * plain C. */
#ifndef FRY_SIMD_H
#define FRY_SIMD_H

#include <stdint.h>
#include <string.h>

/* A product and a sum are fused only where vf_fma says so (GCC: -std=c11 or -ffp-contract=off). */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bf16;

INLINE uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

INLINE float of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

INLINE int32_t four_bytes(const void *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return four;
}

/* vf: floats; vi: 32-bit integers; vdot: sums of products of bytes, which dot_sum turns into a vi.
 *   vf_fma(a, b, c)      a b + c, rounded once where the machine can
 *   vf_above(x, at, y)   y where x > at, else 0
 *   vf_choose(x, at, y, z)   y where x > at, else z
 *   dot4(acc, w, a)      acc += for each lane, the products of its 4 bytes at w with the 4 bytes of a
 *   bf16_bits(x)         the nearest bf16 of each number, in the low half of each lane
 *   pair_fma(acc, w, a)  acc += for each lane, the products of its 2 bf16 at w with the 2 bf16 of a */

#if defined(FRY_AVX512)

#include <immintrin.h>
#define LANES 16
#define TILE_ROWS 6  /* rows of a tile of floats or bf16: 6 x 4 sums, 4 columns and 1 broadcast fill 29 registers */
#define TILE_ROWS_I8 3
#define TILE_WIDE 4  /* columns of 16 in a tile of several rows */
typedef __m512 vf;
typedef __m512i vi;
typedef __m512i vdot;
INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf vf_abs(vf a) { return _mm512_abs_ps(a); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE float vf_sum(vf a) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
INLINE vf vf_above(vf x, float at, vf y) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(at), _CMP_GT_OQ), y);
}
INLINE vf vf_choose(vf x, float at, vf y, vf z) {
    return _mm512_mask_mov_ps(z, _mm512_cmp_ps_mask(x, _mm512_set1_ps(at), _CMP_GT_OQ), y);
}
INLINE vf vf_root(vf a) { return _mm512_sqrt_ps(a); }
INLINE float vf_most(vf a) { return _mm512_reduce_max_ps(a); }
INLINE vi vf_round(vf a) { return _mm512_cvtps_epi32(a); }
INLINE vf vi_float(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vi vi_set(int32_t x) { return _mm512_set1_epi32(x); }
INLINE vf vi_pow2(vi n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}
INLINE vf bf16_load(const bf16 *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE vi bf16_bits(vf x) {
    const vi bits = _mm512_castps_si512(x);
    const vi odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), vi_set(1));
    return _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, vi_set(0x7fff))), 16);
}
INLINE void i8_store(int8_t *p, vi x) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(x)); }
INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE void vi_store(void *p, vi x) { _mm512_storeu_si512(p, x); }
INLINE vi vi_low_or_high(vi low, vi high) { /* the low halves of low, the low halves of high above them */
    return _mm512_or_si512(_mm512_and_si512(low, vi_set(0xffff)), _mm512_slli_epi32(high, 16));
}
#if defined(FRY_HAS_BF16)
INLINE void bf16_store(bf16 *p, vf x) { _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(x)); }
INLINE vf pair_fma(vf acc, const void *w, int32_t a) {
    return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_loadu_si512(w), (__m512bh)_mm512_set1_epi32(a));
}
#else
INLINE void bf16_store(bf16 *p, vf x) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(bf16_bits(x))); }
INLINE vf pair_fma(vf acc, const void *w, int32_t a) {
    const vi pair = _mm512_loadu_si512(w);
    const vf low = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
    const vf high = _mm512_castsi512_ps(_mm512_and_si512(pair, vi_set((int32_t)0xffff0000u)));
    acc = vf_fma(low, vf_set(of_bits((uint32_t)a << 16)), acc);
    return vf_fma(high, vf_set(of_bits((uint32_t)a & 0xffff0000u)), acc);
}
#endif
#if defined(FRY_HAS_VNNI)
#define FLIPPED 1 /* bytes of weights are kept with 128 added: the instruction wants them unsigned */
INLINE vdot dot_start(int32_t offset) { return _mm512_set1_epi32(offset); }
INLINE vdot dot4(vdot acc, const int8_t *w, int32_t a) {
    return _mm512_dpbusd_epi32(acc, _mm512_loadu_si512(w), _mm512_set1_epi32(a));
}
#else
#define FLIPPED 0
INLINE vdot dot_start(int32_t offset) { return _mm512_set1_epi32(offset); }
INLINE __m256i eight_dots(const int8_t *w, int32_t a) {
    const __m256i left = _mm256_set1_epi32(a);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(left),
                                               _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)w), left));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
INLINE vdot dot4(vdot acc, const int8_t *w, int32_t a) {
    return _mm512_add_epi32(acc, _mm512_inserti64x4(_mm512_castsi256_si512(eight_dots(w, a)), eight_dots(w + 32, a), 1));
}
#endif
INLINE vi dot_sum(vdot acc) { return acc; }
INLINE float root_of(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

#elif defined(FRY_AVX2)

#include <immintrin.h>
#define LANES 8
#define TILE_ROWS 4
#define TILE_ROWS_I8 2
#define TILE_WIDE 1
#define FLIPPED 0
typedef __m256 vf;
typedef __m256i vi;
typedef __m256i vdot;
INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
INLINE vf vf_set(float x) { return _mm256_set1_ps(x); }
INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf vf_above(vf x, float at, vf y) {
    return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_set1_ps(at), _CMP_GT_OQ), y);
}
INLINE vf vf_choose(vf x, float at, vf y, vf z) {
    return _mm256_blendv_ps(z, y, _mm256_cmp_ps(x, _mm256_set1_ps(at), _CMP_GT_OQ));
}
INLINE vf vf_root(vf a) { return _mm256_sqrt_ps(a); }
INLINE float vf_sum(vf a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
INLINE float vf_most(vf a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
INLINE vi vf_round(vf a) { return _mm256_cvtps_epi32(a); }
INLINE vf vi_float(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE vi vi_set(int32_t x) { return _mm256_set1_epi32(x); }
INLINE vf vi_pow2(vi n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
INLINE vf bf16_load(const bf16 *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
INLINE vi bf16_bits(vf x) {
    const vi bits = _mm256_castps_si256(x);
    const vi odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), vi_set(1));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, vi_set(0x7fff))), 16);
}
INLINE void bf16_store(bf16 *p, vf x) {
    const vi bits = bf16_bits(x);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1)));
}
INLINE void i8_store(int8_t *p, vi x) {
    const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(half, half));
}
INLINE vi vi_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void vi_store(void *p, vi x) { _mm256_storeu_si256((__m256i *)p, x); }
INLINE vi vi_low_or_high(vi low, vi high) {
    return _mm256_or_si256(_mm256_and_si256(low, vi_set(0xffff)), _mm256_slli_epi32(high, 16));
}
INLINE vf pair_fma(vf acc, const void *w, int32_t a) {
    const vi pair = vi_load(w);
    const vf low = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
    const vf high = _mm256_castsi256_ps(_mm256_and_si256(pair, vi_set((int32_t)0xffff0000u)));
    acc = vf_fma(low, vf_set(of_bits((uint32_t)a << 16)), acc);
    return vf_fma(high, vf_set(of_bits((uint32_t)a & 0xffff0000u)), acc);
}
INLINE vdot dot_start(int32_t offset) { return vi_set(offset); }
INLINE vdot dot4(vdot acc, const int8_t *w, int32_t a) { /* |a| w with the sign of a: no sum of two leaves 16 bits */
    const vi left = vi_set(a);
    const vi pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(left), _mm256_sign_epi8(vi_load(w), left));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
INLINE vi dot_sum(vdot acc) { return acc; }
INLINE float root_of(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

#elif defined(FRY_NEON)

#include <arm_neon.h>
#define LANES 4
#define TILE_ROWS 4
#define TILE_ROWS_I8 2
#define TILE_WIDE 1
#define FLIPPED 0
typedef float32x4_t vf;
typedef int32x4_t vi;
INLINE vf vf_load(const float *p) { return vld1q_f32(p); }
INLINE void vf_store(float *p, vf x) { vst1q_f32(p, x); }
INLINE vf vf_set(float x) { return vdupq_n_f32(x); }
INLINE vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
INLINE vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
INLINE vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
INLINE vf vf_min(vf a, vf b) { return vminq_f32(a, b); }
INLINE vf vf_abs(vf a) { return vabsq_f32(a); }
INLINE vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
INLINE vf vf_above(vf x, float at, vf y) {
    return vreinterpretq_f32_u32(vandq_u32(vcgtq_f32(x, vdupq_n_f32(at)), vreinterpretq_u32_f32(y)));
}
INLINE vf vf_choose(vf x, float at, vf y, vf z) { return vbslq_f32(vcgtq_f32(x, vdupq_n_f32(at)), y, z); }
INLINE vf vf_root(vf a) { return vsqrtq_f32(a); }
INLINE float vf_sum(vf a) {
    const float32x2_t half = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(half, 0) + vget_lane_f32(half, 1);
}
INLINE float vf_most(vf a) { return vmaxvq_f32(a); }
INLINE vi vf_round(vf a) { return vcvtnq_s32_f32(a); }
INLINE vf vi_float(vi a) { return vcvtq_f32_s32(a); }
INLINE vi vi_set(int32_t x) { return vdupq_n_s32(x); }
INLINE vf vi_pow2(vi n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)); }
INLINE vf bf16_load(const bf16 *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
INLINE vi bf16_bits(vf x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    return vreinterpretq_s32_u32(vshrq_n_u32(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16));
}
INLINE void bf16_store(bf16 *p, vf x) { vst1_u16(p, vmovn_u32(vreinterpretq_u32_s32(bf16_bits(x)))); }
INLINE void i8_store(int8_t *p, vi x) {
    const int16x4_t half = vmovn_s32(x);
    const int32_t four = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(half, half))), 0);
    memcpy(p, &four, 4);
}
INLINE vi vi_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t *)p)); }
INLINE void vi_store(void *p, vi x) { vst1q_u8((uint8_t *)p, vreinterpretq_u8_s32(x)); }
INLINE vi vi_low_or_high(vi low, vi high) { return vorrq_s32(vandq_s32(low, vi_set(0xffff)), vshlq_n_s32(high, 16)); }
INLINE vf pair_fma(vf acc, const void *w, int32_t a) {
    const vi pair = vi_load(w);
    const vf low = vreinterpretq_f32_s32(vshlq_n_s32(pair, 16));
    const vf high = vreinterpretq_f32_s32(vandq_s32(pair, vi_set((int32_t)0xffff0000u)));
    acc = vf_fma(low, vf_set(of_bits((uint32_t)a << 16)), acc);
    return vf_fma(high, vf_set(of_bits((uint32_t)a & 0xffff0000u)), acc);
}
#if defined(FRY_HAS_DOTPROD)
typedef int32x4_t vdot;
INLINE vdot dot_start(int32_t offset) { return vi_set(offset); }
INLINE vdot dot4(vdot acc, const int8_t *w, int32_t a) {
    return vdotq_s32(acc, vld1q_s8(w), vreinterpretq_s8_s32(vi_set(a)));
}
INLINE vi dot_sum(vdot acc) { return acc; }
#else
typedef struct {
    int32x4_t low, high; /* two sums a lane, of the first two lanes and the last two */
} vdot;
INLINE vdot dot_start(int32_t offset) { return (vdot){vi_set(offset), vi_set(offset)}; }
INLINE vdot dot4(vdot acc, const int8_t *w, int32_t a) {
    const int8x16_t bytes = vld1q_s8(w), left = vreinterpretq_s8_s32(vi_set(a));
    acc.low = vpadalq_s16(acc.low, vmull_s8(vget_low_s8(bytes), vget_low_s8(left)));
    acc.high = vpadalq_s16(acc.high, vmull_s8(vget_high_s8(bytes), vget_low_s8(left)));
    return acc;
}
INLINE vi dot_sum(vdot acc) { return vpaddq_s32(acc.low, acc.high); }
#endif
INLINE float root_of(float x) { return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0); }

#elif defined(FRY_WASM)

#include <wasm_simd128.h>
#define LANES 4
#define TILE_ROWS 2
#define TILE_ROWS_I8 1
#define TILE_WIDE 1
#define FLIPPED 0
typedef v128_t vf;
typedef v128_t vi;
typedef struct {
    v128_t low, high; /* two sums a lane, of the first two lanes and the last two */
} vdot;
INLINE vf vf_load(const float *p) { return wasm_v128_load(p); }
INLINE void vf_store(float *p, vf x) { wasm_v128_store(p, x); }
INLINE vf vf_set(float x) { return wasm_f32x4_splat(x); }
INLINE vf vf_add(vf a, vf b) { return wasm_f32x4_add(a, b); }
INLINE vf vf_sub(vf a, vf b) { return wasm_f32x4_sub(a, b); }
INLINE vf vf_mul(vf a, vf b) { return wasm_f32x4_mul(a, b); }
INLINE vf vf_div(vf a, vf b) { return wasm_f32x4_div(a, b); }
INLINE vf vf_max(vf a, vf b) { return wasm_f32x4_pmax(a, b); }
INLINE vf vf_min(vf a, vf b) { return wasm_f32x4_pmin(a, b); }
INLINE vf vf_abs(vf a) { return wasm_f32x4_abs(a); }
INLINE vf vf_fma(vf a, vf b, vf c) { return wasm_f32x4_add(wasm_f32x4_mul(a, b), c); }
INLINE vf vf_above(vf x, float at, vf y) { return wasm_v128_and(wasm_f32x4_gt(x, wasm_f32x4_splat(at)), y); }
INLINE vf vf_choose(vf x, float at, vf y, vf z) {
    return wasm_v128_bitselect(y, z, wasm_f32x4_gt(x, wasm_f32x4_splat(at)));
}
INLINE vf vf_root(vf a) { return wasm_f32x4_sqrt(a); }
INLINE float vf_sum(vf a) {
    a = wasm_f32x4_add(a, wasm_i32x4_shuffle(a, a, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(a, 0) + wasm_f32x4_extract_lane(a, 1);
}
INLINE float vf_most(vf a) {
    a = wasm_f32x4_pmax(a, wasm_i32x4_shuffle(a, a, 2, 3, 0, 1));
    const float x = wasm_f32x4_extract_lane(a, 0), y = wasm_f32x4_extract_lane(a, 1);
    return x > y ? x : y;
}
INLINE vi vf_round(vf a) { return wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(a)); }
INLINE vf vi_float(vi a) { return wasm_f32x4_convert_i32x4(a); }
INLINE vi vi_set(int32_t x) { return wasm_i32x4_splat(x); }
INLINE vf vi_pow2(vi n) { return wasm_i32x4_shl(wasm_i32x4_add(n, vi_set(127)), 23); }
INLINE vf bf16_load(const bf16 *p) { return wasm_i32x4_shl(wasm_u32x4_load16x4(p), 16); }
INLINE vi bf16_bits(vf x) {
    const vi odd = wasm_v128_and(wasm_u32x4_shr(x, 16), vi_set(1));
    return wasm_u32x4_shr(wasm_i32x4_add(x, wasm_i32x4_add(odd, vi_set(0x7fff))), 16);
}
INLINE void bf16_store(bf16 *p, vf x) {
    const vi bits = bf16_bits(x);
    wasm_v128_store64_lane(p, wasm_u16x8_narrow_i32x4(bits, bits), 0);
}
INLINE void i8_store(int8_t *p, vi x) {
    const v128_t half = wasm_i16x8_narrow_i32x4(x, x);
    wasm_v128_store32_lane(p, wasm_i8x16_narrow_i16x8(half, half), 0);
}
INLINE vi vi_load(const void *p) { return wasm_v128_load(p); }
INLINE void vi_store(void *p, vi x) { wasm_v128_store(p, x); }
INLINE vi vi_low_or_high(vi low, vi high) {
    return wasm_v128_or(wasm_v128_and(low, vi_set(0xffff)), wasm_i32x4_shl(high, 16));
}
INLINE vf pair_fma(vf acc, const void *w, int32_t a) {
    const vi pair = wasm_v128_load(w);
    acc = vf_fma(wasm_i32x4_shl(pair, 16), vf_set(of_bits((uint32_t)a << 16)), acc);
    return vf_fma(wasm_v128_and(pair, vi_set((int32_t)0xffff0000u)), vf_set(of_bits((uint32_t)a & 0xffff0000u)), acc);
}
INLINE vdot dot_start(int32_t offset) { return (vdot){vi_set(offset), vi_set(offset)}; }
INLINE vdot dot4(vdot acc, const int8_t *w, int32_t a) {
    const v128_t bytes = wasm_v128_load(w), left = wasm_i16x8_extend_low_i8x16(vi_set(a));
    acc.low = wasm_i32x4_add(acc.low, wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(bytes), left));
    acc.high = wasm_i32x4_add(acc.high, wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(bytes), left));
    return acc;
}
INLINE vi dot_sum(vdot acc) {
    return wasm_i32x4_add(wasm_i32x4_shuffle(acc.low, acc.high, 0, 2, 4, 6),
                          wasm_i32x4_shuffle(acc.low, acc.high, 1, 3, 5, 7));
}
INLINE float root_of(float x) { return wasm_f32x4_extract_lane(wasm_f32x4_sqrt(wasm_f32x4_splat(x)), 0); }

#else

#define LANES 1
#define TILE_ROWS 1
#define TILE_ROWS_I8 1
#define TILE_WIDE 1
#define FLIPPED 0
typedef float vf;
typedef int32_t vi;
typedef int32_t vdot;
INLINE vf vf_load(const float *p) { return *p; }
INLINE void vf_store(float *p, vf x) { *p = x; }
INLINE vf vf_set(float x) { return x; }
INLINE vf vf_add(vf a, vf b) { return a + b; }
INLINE vf vf_sub(vf a, vf b) { return a - b; }
INLINE vf vf_mul(vf a, vf b) { return a * b; }
INLINE vf vf_div(vf a, vf b) { return a / b; }
INLINE vf vf_max(vf a, vf b) { return a > b ? a : b; }
INLINE vf vf_min(vf a, vf b) { return a < b ? a : b; }
INLINE vf vf_abs(vf a) { return of_bits(bits_of(a) & 0x7fffffffu); }
INLINE vf vf_above(vf x, float at, vf y) { return x > at ? y : 0.0f; }
INLINE vf vf_choose(vf x, float at, vf y, vf z) { return x > at ? y : z; }
INLINE vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE float vf_sum(vf a) { return a; }
INLINE float vf_most(vf a) { return a; }
INLINE vi vf_round(vf a) { /* to the nearest, ties to even, without the library: |a| < 2^22, else its bound */
    const float bounded = a > 4194303.0f ? 4194303.0f : a < -4194303.0f ? -4194303.0f : a == a ? a : 0.0f;
    return (int32_t)(bits_of(bounded + 12582912.0f) - 0x4b400000u);
}
INLINE vf vi_float(vi a) { return (float)a; }
INLINE vi vi_set(int32_t x) { return x; }
INLINE vf vi_pow2(vi n) { return of_bits((uint32_t)(n + 127) << 23); }
INLINE vf bf16_load(const bf16 *p) { return of_bits((uint32_t)*p << 16); }
INLINE vi bf16_bits(vf x) {
    const uint32_t bits = bits_of(x);
    return (int32_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
INLINE void bf16_store(bf16 *p, vf x) { *p = (bf16)bf16_bits(x); }
INLINE void i8_store(int8_t *p, vi x) { *p = (int8_t)x; }
INLINE vi vi_load(const void *p) { return four_bytes(p); }
INLINE void vi_store(void *p, vi x) { memcpy(p, &x, 4); }
INLINE vi vi_low_or_high(vi low, vi high) {
    return (int32_t)(((uint32_t)low & 0xffffu) | (uint32_t)high << 16);
}
INLINE vf pair_fma(vf acc, const void *w, int32_t a) {
    const uint32_t pair = (uint32_t)four_bytes(w), left = (uint32_t)a;
    acc += of_bits(pair << 16) * of_bits(left << 16);
    return acc + of_bits(pair & 0xffff0000u) * of_bits(left & 0xffff0000u);
}
INLINE vdot dot_start(int32_t offset) { return offset; }
INLINE vdot dot4(vdot acc, const int8_t *w, int32_t a) {
    int8_t left[4];
    memcpy(left, &a, 4);
    return acc + w[0] * left[0] + w[1] * left[1] + w[2] * left[2] + w[3] * left[3];
}
INLINE vi dot_sum(vdot acc) { return acc; }
/* The square root of x >= 0, rounded as everywhere, without the library that a compiler may call: a guess from half of
 * the exponent, then Newton's steps in double. */
INLINE float root_of(float x) {
    if (!(x <= 3.40282347e38f)) return x;
    double root = x;
    uint64_t bits;
    memcpy(&bits, &root, 8);
    bits = (bits >> 1) + ((uint64_t)1023 << 51);
    memcpy(&root, &bits, 8);
    for (int i = 0; i < 4; i++) root = 0.5 * (root + (double)x / root);
    return (float)root;
}
INLINE vf vf_root(vf a) { return root_of(a); }

#endif

/* a b + c with two roundings, on every machine. */
INLINE vf vf_mla(vf a, vf b, vf c) { return vf_add(vf_mul(a, b), c); }

/* e^x for x <= 88, relative error about 1e-7; 0 below -87. */
INLINE vf vf_exp(vf x) {
    const vf bounded = vf_max(x, vf_set(-87.5f));
    const vi n = vf_round(vf_mul(bounded, vf_set(1.44269504088896341f)));
    const vf whole = vi_float(n);
    vf r = vf_mla(whole, vf_set(-0.693359375f), bounded);
    r = vf_mla(whole, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.9875691500e-4f);
    p = vf_mla(p, r, vf_set(1.3981999507e-3f));
    p = vf_mla(p, r, vf_set(8.3334519073e-3f));
    p = vf_mla(p, r, vf_set(4.1665795894e-2f));
    p = vf_mla(p, r, vf_set(1.6666665459e-1f));
    p = vf_mla(p, r, vf_set(5.0000001201e-1f));
    p = vf_add(vf_mla(p, vf_mul(r, r), r), vf_set(1.0f));
    return vf_above(x, -87.0f, vf_mul(p, vi_pow2(n)));
}

#endif
