/* Products of small matrices for attention. A unit is what a lane multiplies at once: a float, or a pair of bf16.
 *
 *   c[row][column] (+)= the sum over s < steps of a[row][s] times b[s][column]
 *
 * Rows, columns and, for pairs, 2 steps are multiples of TILE. With AMX a product goes through the tile registers. */
#ifndef FRY_TRAIN_PRODUCTS_H
#define FRY_TRAIN_PRODUCTS_H

#include "numbers.h"

#define TILE 32

#if defined(FRY_AVX512)
#define ROWS_AT_ONCE 8
#else
#define ROWS_AT_ONCE 4
#endif

INLINE vf unit_fma(const fry_kind kind, vf sum, const uint32_t *b, uint32_t a) {
    return kind == FRY_BF16 ? pair_fma(sum, b, (int32_t)a) : vf_fma(vf_load((const float *)b), vf_set(of_bits(a)), sum);
}

INLINE void tile_product(const fry_kind kind, const int add, const uint32_t *a, int64_t lda, const uint32_t *b,
                         int64_t ldb, int64_t steps, float *c, int64_t ldc) {
    vf sum[ROWS_AT_ONCE][2];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS_AT_ONCE; r++)
#pragma GCC unroll 2
        for (int w = 0; w < 2; w++) sum[r][w] = add ? vf_load(c + r * ldc + w * LANES) : vf_set(0.0f);
    for (int64_t s = 0; s < steps; s++) {
        const uint32_t *column = b + s * ldb;
#pragma GCC unroll 8
        for (int r = 0; r < ROWS_AT_ONCE; r++)
#pragma GCC unroll 2
            for (int w = 0; w < 2; w++) sum[r][w] = unit_fma(kind, sum[r][w], column + w * LANES, a[r * lda + s]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS_AT_ONCE; r++)
#pragma GCC unroll 2
        for (int w = 0; w < 2; w++) vf_store(c + r * ldc + w * LANES, sum[r][w]);
}

INLINE void tiled_product(const fry_kind kind, const int add, const uint32_t *a, int64_t lda, const uint32_t *b,
                          int64_t ldb, int64_t steps, float *c, int64_t ldc, int64_t rows, int64_t columns) {
    for (int64_t n = 0; n < columns; n += 2 * LANES)
        for (int64_t m = 0; m < rows; m += ROWS_AT_ONCE)
            tile_product(kind, add, a + m * lda, lda, b + n, ldb, steps, c + m * ldc + n, ldc);
}

#if defined(FRY_HAS_AMX)
/* Tiles 0-3 hold 2 x 2 blocks of 16 x 16 sums, 4-5 rows of a, 6-7 columns of b. */
INLINE void start_products(fry_kind kind) {
    if (kind != FRY_BF16) return;
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = 16;
    _tile_loadconfig(&config);
}

INLINE void end_products(fry_kind kind) {
    if (kind == FRY_BF16) _tile_release();
}

static void amx_product(const int add, const uint32_t *a, int64_t lda, const uint32_t *b, int64_t ldb, int64_t steps,
                        float *c, int64_t ldc, int64_t rows, int64_t columns) {
    for (int64_t m = 0; m < rows; m += 32)
        for (int64_t n = 0; n < columns; n += 32) {
            float *to = c + m * ldc + n;
            if (add) {
                _tile_loadd(0, to, ldc * 4);
                _tile_loadd(1, to + 16, ldc * 4);
                _tile_loadd(2, to + 16 * ldc, ldc * 4);
                _tile_loadd(3, to + 16 * ldc + 16, ldc * 4);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (int64_t s = 0; s < steps; s += 16) {
                _tile_loadd(4, a + m * lda + s, lda * 4);
                _tile_loadd(6, b + s * ldb + n, ldb * 4);
                _tile_loadd(7, b + s * ldb + n + 16, ldb * 4);
                _tile_loadd(5, a + (m + 16) * lda + s, lda * 4);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, to, ldc * 4);
            _tile_stored(1, to + 16, ldc * 4);
            _tile_stored(2, to + 16 * ldc, ldc * 4);
            _tile_stored(3, to + 16 * ldc + 16, ldc * 4);
        }
}

/* c (32, 32) (+)= blocks of a (32 rows of 16 pairs) times blocks of b (16 pairs of 32 columns). */
INLINE void amx_blocks(const int add, const uint32_t *a, const uint32_t *b, int64_t steps, float *c) {
    if (add) {
        _tile_loadd(0, c, 128);
        _tile_loadd(1, c + 16, 128);
        _tile_loadd(2, c + 16 * 32, 128);
        _tile_loadd(3, c + 16 * 32 + 16, 128);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t s = 0; s < steps; s++, a += 512, b += 512) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 128);
        _tile_loadd(7, b + 16, 128);
        _tile_loadd(5, a + 256, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 128);
    _tile_stored(1, c + 16, 128);
    _tile_stored(2, c + 16 * 32, 128);
    _tile_stored(3, c + 16 * 32 + 16, 128);
}
#else
INLINE void start_products(fry_kind kind) { (void)kind; }
INLINE void end_products(fry_kind kind) { (void)kind; }
#endif

INLINE void product(const fry_kind kind, const int add, const void *a, int64_t lda, const void *b, int64_t ldb,
                    int64_t steps, float *c, int64_t ldc, int64_t rows, int64_t columns) {
#if defined(FRY_HAS_AMX)
    if (kind == FRY_BF16) {
        amx_product(add, a, lda, b, ldb, steps, c, ldc, rows, columns);
        return;
    }
#endif
    tiled_product(kind, add, a, lda, b, ldb, steps, c, ldc, rows, columns);
}

/* ---- laying units out --------------------------------------------------------------------------------------------- */

/* to[column][row] = from[row][column] for 32-bit units; both counts are multiples of 16. */
#if defined(FRY_AVX512)
INLINE void turn_16(const uint32_t *from, int64_t ld, uint32_t *to, int64_t ldt) {
    __m512i r[16], t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(from + i * ld);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    /* r[4 g + c] holds rows 4 g .. 4 g + 3 of columns c, c + 4, c + 8, c + 12, a quarter each. */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        const __m512i low01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x44), high01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xee);
        const __m512i low23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x44);
        const __m512i high23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xee);
        _mm512_storeu_si512(to + c * ldt, _mm512_shuffle_i32x4(low01, low23, 0x88));
        _mm512_storeu_si512(to + (c + 4) * ldt, _mm512_shuffle_i32x4(low01, low23, 0xdd));
        _mm512_storeu_si512(to + (c + 8) * ldt, _mm512_shuffle_i32x4(high01, high23, 0x88));
        _mm512_storeu_si512(to + (c + 12) * ldt, _mm512_shuffle_i32x4(high01, high23, 0xdd));
    }
}
#else
INLINE void turn_16(const uint32_t *from, int64_t ld, uint32_t *to, int64_t ldt) {
    for (int c = 0; c < 16; c++)
        for (int r = 0; r < 16; r++) to[c * ldt + r] = from[r * ld + c];
}
#endif

INLINE void turn(const void *from, int64_t ld, void *to, int64_t ldt, int64_t rows, int64_t columns) {
    for (int64_t r = 0; r < rows; r += 16)
        for (int64_t c = 0; c < columns; c += 16)
            turn_16((const uint32_t *)from + r * ld + c, ld, (uint32_t *)to + c * ldt + r, ldt);
}

/* Two registers of numbers as units: pairs of bf16, the first below the second. */
INLINE vi pair_of(vf first, vf second) { return vi_low_or_high(bf16_bits(first), bf16_bits(second)); }

/* Rows of numbers as a right operand: to[s][column], where a pair is rows 2 s and 2 s + 1. Counts are multiples of TILE. */
INLINE void pair_rows(const fry_kind kind, const void *from, int64_t ld, uint32_t *to, int64_t rows, int64_t columns) {
    if (kind == FRY_FP32) {
        for (int64_t r = 0; r < rows; r++) memcpy(to + r * columns, (const float *)from + r * ld, (size_t)columns * 4);
        return;
    }
    for (int64_t r = 0; r < rows; r += 2)
        for (int64_t c = 0; c < columns; c += LANES) {
            const bf16 *first = (const bf16 *)from + r * ld + c, *second = first + ld;
#if defined(FRY_AVX512)
            const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)first));
            const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)second));
            _mm512_storeu_si512(to + r / 2 * columns + c, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
#else
            for (int l = 0; l < LANES; l++) to[r / 2 * columns + c + l] = first[l] | (uint32_t)second[l] << 16;
#endif
        }
}

#endif
