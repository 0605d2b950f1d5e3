/* AVX-512 kernels on bf16 operands with fp32 sums. Everything here is static: one file includes it. */
#ifndef FRY_KERNELS_H
#define FRY_KERNELS_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define ROWS 6   /* rows of a register tile */
#define LANES 16 /* fp32 numbers in a register */
#define WIDE 4   /* registers across a tile: 6 x 4 sums, 4 columns and 1 broadcast fill 29 of 32 registers */

typedef uint16_t bf16;

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static inline bf16 to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (bf16)((bits >> 16) | 0x40);
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

static inline void store_bf16(bf16 *to, __m512 values) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(values));
}

/* e^x for x <= 88, relative error about 1e-7; below -87 it is 0. */
static inline __m512 exp512(__m512 x) {
    const __m512 log2e = _mm512_set1_ps(1.44269504088896341f);
    const __m512 ln2_hi = _mm512_set1_ps(0.693359375f), ln2_lo = _mm512_set1_ps(-2.12194440e-4f);
    const __mmask16 alive = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_GT_OQ);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2e), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, ln2_hi, x);
    r = _mm512_fnmadd_ps(n, ln2_lo, r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(alive, p, n);
}

/* ---- matrix products ---------------------------------------------------------------------------------------------
 *
 * A right operand of K inputs and N outputs is packed in panels of 64 outputs (the last one narrower): for each pair of
 * inputs, 16 outputs x 2 inputs a register. K is rounded up to 2 and N to 16 with zeros.
 */

typedef struct {
    int64_t n, k;  /* as given */
    int64_t pairs; /* ceil(k / 2) */
    bf16 *data;    /* round_up(n, 16) * 2 * pairs */
} packed;

static inline int64_t packed_size(int64_t n, int64_t k) { return round_up(n, LANES) * round_up(k, 2); }

/* Where the panel of output n (a multiple of 64) begins. */
static inline const bf16 *panel_of(const packed *b, int64_t n) { return b->data + n * 2 * b->pairs; }

static void pack(packed *b, const float *weights, int64_t n, int64_t k, bf16 *data) {
    b->n = n, b->k = k, b->pairs = (k + 1) / 2, b->data = data;
    const int64_t columns = round_up(n, LANES);
    for (int64_t first = 0; first < columns; first += WIDE * LANES) {
        const int64_t wide = columns - first < WIDE * LANES ? (columns - first) / LANES : WIDE;
        bf16 *out = data + first * 2 * b->pairs;
        for (int64_t pair = 0; pair < b->pairs; pair++)
            for (int64_t lane = 0; lane < wide * LANES; lane++)
                for (int64_t half = 0; half < 2; half++) {
                    const int64_t row = first + lane, column = 2 * pair + half;
                    *out++ = row < n && column < k ? to_bf16(weights[row * k + column]) : 0;
                }
    }
}

/* One tile: c (rows x 16 wide) = or += a (rows, 2 pairs) times a panel. */
static inline __attribute__((always_inline)) void tile(const int rows, const int wide, const int add, const bf16 *a,
                                                       int64_t lda, const bf16 *b, int64_t pairs, float *c,
                                                       int64_t ldc) {
    __m512 sum[ROWS][WIDE];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int w = 0; w < wide; w++)
            sum[r][w] = add ? _mm512_loadu_ps(c + r * ldc + w * LANES) : _mm512_setzero_ps();
    for (int64_t p = 0; p < pairs; p++) {
        __m512i column[WIDE];
#pragma GCC unroll 4
        for (int w = 0; w < wide; w++) column[w] = _mm512_loadu_si512(b + (p * wide + w) * 2 * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, a + r * lda + 2 * p, 4);
            const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int w = 0; w < wide; w++) sum[r][w] = _mm512_dpbf16_ps(sum[r][w], left, (__m512bh)column[w]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int w = 0; w < wide; w++) _mm512_storeu_ps(c + r * ldc + w * LANES, sum[r][w]);
}

#define TILE_ROWS(rows)                                                                                      \
    static void tile_##rows(int wide, int add, const bf16 *a, int64_t lda, const bf16 *b, int64_t pairs,     \
                            float *c, int64_t ldc) {                                                         \
        switch (wide * 2 + add) {                                                                            \
            case 2: tile(rows, 1, 0, a, lda, b, pairs, c, ldc); break;                                       \
            case 3: tile(rows, 1, 1, a, lda, b, pairs, c, ldc); break;                                       \
            case 4: tile(rows, 2, 0, a, lda, b, pairs, c, ldc); break;                                       \
            case 5: tile(rows, 2, 1, a, lda, b, pairs, c, ldc); break;                                       \
            case 6: tile(rows, 3, 0, a, lda, b, pairs, c, ldc); break;                                       \
            case 7: tile(rows, 3, 1, a, lda, b, pairs, c, ldc); break;                                       \
            case 8: tile(rows, 4, 0, a, lda, b, pairs, c, ldc); break;                                       \
            default: tile(rows, 4, 1, a, lda, b, pairs, c, ldc); break;                                      \
        }                                                                                                    \
    }
TILE_ROWS(1)
TILE_ROWS(2)
TILE_ROWS(3)
TILE_ROWS(4)
TILE_ROWS(5)
TILE_ROWS(6)

typedef void (*tile_of_rows)(int, int, const bf16 *, int64_t, const bf16 *, int64_t, float *, int64_t);
static const tile_of_rows TILES[ROWS + 1] = {0, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

/* c (m, n) = or += a (m, 2 pairs) times the columns [first, last) of b, the first 2 pairs of its inputs; first is a
 * multiple of 64. Columns of c are counted from first; its rows hold round_up(last - first, 64) numbers. */
static void matmul(const bf16 *a, int64_t lda, int64_t m, const packed *b, int64_t first, int64_t last, int64_t pairs,
                   int add, float *c, int64_t ldc) {
    for (int64_t n = first; n < last; n += WIDE * LANES) {
        const bf16 *panel = panel_of(b, n);
        const int64_t whole = round_up(b->n, LANES) - n; /* the panel's own width decides its layout */
        const int wide = (int)(whole < WIDE * LANES ? whole / LANES : WIDE);
        for (int64_t row = 0; row < m; row += ROWS) {
            const int64_t rows = m - row < ROWS ? m - row : ROWS;
            TILES[rows](wide, add, a + row * lda, lda, panel, pairs, c + row * ldc + (n - first), ldc);
        }
    }
}

/* ---- norms, activations ------------------------------------------------------------------------------------------ */

/* out = x * gain / sqrt(mean(x^2) + eps) over n numbers, as bf16; gain may be NULL for 1. */
static void rms_norm(const float *x, const float *gain, int64_t n, float eps, bf16 *out) {
    __m512 squares = _mm512_setzero_ps();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const __m512 v = _mm512_loadu_ps(x + i);
        squares = _mm512_fmadd_ps(v, v, squares);
    }
    const __mmask16 rest = (__mmask16)((1u << (n - i)) - 1u);
    const __m512 tail = _mm512_maskz_loadu_ps(rest, x + i);
    squares = _mm512_fmadd_ps(tail, tail, squares);
    const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)n + eps));
    for (i = 0; i + LANES <= n; i += LANES)
        store_bf16(out + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), scale), _mm512_loadu_ps(gain + i)));
    if (rest) {
        const __m512 v = _mm512_mul_ps(_mm512_mul_ps(tail, scale), _mm512_maskz_loadu_ps(rest, gain + i));
        _mm256_mask_storeu_epi16(out + i, rest, (__m256i)_mm512_cvtneps_pbh(v));
    }
}

/* out = silu(gate) * up over n numbers, as bf16. */
static void swiglu(const float *gate, const float *up, int64_t n, bf16 *out) {
    const __m512 one = _mm512_set1_ps(1.0f);
    for (int64_t i = 0; i < n; i += LANES) {
        const __mmask16 mask = n - i < LANES ? (__mmask16)((1u << (n - i)) - 1u) : (__mmask16)0xffff;
        const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
        const __m512 e = exp512(_mm512_min_ps(_mm512_sub_ps(_mm512_setzero_ps(), g), _mm512_set1_ps(80.0f)));
        const __m512 v = _mm512_mul_ps(_mm512_div_ps(g, _mm512_add_ps(one, e)), _mm512_maskz_loadu_ps(mask, up + i));
        _mm256_mask_storeu_epi16(out + i, mask, (__m256i)_mm512_cvtneps_pbh(v));
    }
}

/* The greatest of n numbers, n a multiple of 16. */
static float greatest(const float *x, int64_t n) {
    __m512 top = _mm512_loadu_ps(x);
    for (int64_t i = LANES; i < n; i += LANES) top = _mm512_max_ps(top, _mm512_loadu_ps(x + i));
    return _mm512_reduce_max_ps(top);
}

/* The sum of e^(x - top) over n numbers, n a multiple of 16. */
static float exp_sum(const float *x, int64_t n, float top) {
    const __m512 most = _mm512_set1_ps(top);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += LANES) sum = _mm512_add_ps(sum, exp512(_mm512_sub_ps(_mm512_loadu_ps(x + i), most)));
    return _mm512_reduce_add_ps(sum);
}

#endif
