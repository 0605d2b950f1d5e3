/* Matrix products, norms and activations of one kernel set. Everything here is static: a kernel set includes it. */
#ifndef FRY_KERNELS_H
#define FRY_KERNELS_H

#include "internal.h"
#include "scalar.h"
#include "simd.h"

#define LEAST 1e-30f           /* groups of less are zeros: 127 / x must be a number */
#define EACH (PANEL / LANES) /* registers that hold a panel's outputs */

/* The sum of sixteen lanes, in one order on every machine: lane i and i + 8, then + 4, + 2, + 1. */
INLINE float lanes_sum(vf sums[EACH]) {
    for (int step = EACH / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++) sums[i] = vf_add(sums[i], sums[i + step]);
    return vf_sum(sums[0]);
}

/* A whole number between -2^22 and 2^22 as 32 bits; of any other float some bits, which a cast would not promise. */
INLINE uint32_t whole_bits(float x) { return bits_of(x + 12582912.0f) - 0x4b400000u; }

/* ---- left operands ------------------------------------------------------------------------------------------------ */

/* Row `row` of a left operand from n floats, which are followed by zeros up to a whole group. */
static void put_row(const operand *left, int64_t row, fry_kind kind, const float *x, int64_t n) {
    if (kind == FRY_FP32) {
        memcpy((float *)left->data + row * left->ld, x, (size_t)n * sizeof(float));
    } else if (kind == FRY_BF16) {
        bf16 *to = (bf16 *)left->data + row * left->ld;
        for (int64_t i = 0; i < n; i += LANES) bf16_store(to + i, vf_load(x + i));
        if (n % 2) to[n] = 0;
    } else {
        int8_t *to = (int8_t *)left->data + row * left->ld;
        const int64_t groups = (n + GROUP - 1) / GROUP;
        for (int64_t g = 0; g < groups; g++) {
            const float *from = x + g * GROUP;
            vf most = vf_abs(vf_load(from));
            for (int64_t i = LANES; i < GROUP; i += LANES) most = vf_max(most, vf_abs(vf_load(from + i)));
            const float top = vf_most(most) < LEAST ? 0.0f : vf_most(most);
            const vf by = vf_set(top > 0.0f ? 127.0f / top : 0.0f);
            vf sum = vf_set(0.0f);
            for (int64_t i = 0; i < GROUP; i += LANES) {
                const vi whole = vf_round(vf_mul(vf_load(from + i), by));
                i8_store(to + g * GROUP + i, whole);
                sum = vf_add(sum, vi_float(whole));
            }
            left->scales[row * (left->ld / GROUP) + g] = top / 127.0f;
            left->offsets[row * (left->ld / GROUP) + g] = FLIPPED ? (int32_t)(0u - 128u * whole_bits(vf_sum(sum))) : 0;
        }
    }
}

/* ---- tiles: `rows` rows of a left operand times `wide` panels of `together` that lie side by side ------------------ */

INLINE void tile_fp32(const int rows, const int wide, const float *a, int64_t lda, const char *b, int64_t together,
                      int64_t steps, float *c, int64_t ldc) {
    vf sum[TILE_ROWS][WIDE * EACH];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int w = 0; w < wide * EACH; w++) sum[r][w] = vf_set(0.0f);
    const float *columns = (const float *)b;
    for (int64_t s = 0; s < steps; s++, columns += together * PANEL) {
        vf column[WIDE * EACH];
#pragma GCC unroll 16
        for (int w = 0; w < wide * EACH; w++) column[w] = vf_load(columns + w * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            const vf left = vf_set(a[r * lda + s]);
#pragma GCC unroll 16
            for (int w = 0; w < wide * EACH; w++) sum[r][w] = vf_fma(left, column[w], sum[r][w]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int w = 0; w < wide * EACH; w++) vf_store(c + r * ldc + w * LANES, sum[r][w]);
}

INLINE void tile_bf16(const int rows, const int wide, const bf16 *a, int64_t lda, const char *b, int64_t together,
                      int64_t steps, float *c, int64_t ldc) {
    vf sum[TILE_ROWS][WIDE * EACH];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int w = 0; w < wide * EACH; w++) sum[r][w] = vf_set(0.0f);
    for (int64_t s = 0; s < steps; s++, b += together * 4 * PANEL)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            const int32_t left = four_bytes(a + r * lda + 2 * s);
#pragma GCC unroll 16
            for (int w = 0; w < wide * EACH; w++) sum[r][w] = pair_fma(sum[r][w], b + w * 4 * LANES, left);
        }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int w = 0; w < wide * EACH; w++) vf_store(c + r * ldc + w * LANES, sum[r][w]);
}

INLINE void tile_int8(const int rows, const int wide, const int8_t *a, int64_t lda, const float *scales,
                      const int32_t *offsets, const char *b, int64_t together, int64_t at, int64_t steps, float *c,
                      int64_t ldc) {
    vf sum[TILE_ROWS][WIDE * EACH];
    const int64_t groups = lda / GROUP;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int w = 0; w < wide * EACH; w++) sum[r][w] = vf_set(0.0f);
    for (int64_t g = 0; g < steps; g++, b += together * GROUP_BYTES) {
        vdot dots[TILE_ROWS][WIDE * EACH];
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
            for (int w = 0; w < wide * EACH; w++) dots[r][w] = dot_start(offsets[r * groups + g]);
#pragma GCC unroll 8
        for (int f = 0; f < GROUP / 4; f++) {
            const int8_t *column = (const int8_t *)b + (f * together + at) * 4 * PANEL;
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                const int32_t left = four_bytes(a + r * lda + g * GROUP + 4 * f);
#pragma GCC unroll 16
                for (int w = 0; w < wide * EACH; w++) dots[r][w] = dot4(dots[r][w], column + w * 4 * LANES, left);
            }
        }
        const bf16 *right = (const bf16 *)(b + together * GROUP * PANEL) + at * PANEL;
#pragma GCC unroll 16
        for (int w = 0; w < wide * EACH; w++) {
            const vf scale = bf16_load(right + w * LANES);
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++)
                sum[r][w] = vf_mla(vi_float(dot_sum(dots[r][w])), vf_mul(scale, vf_set(scales[r * groups + g])), sum[r][w]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int w = 0; w < wide * EACH; w++) vf_store(c + r * ldc + w * LANES, sum[r][w]);
}

/* A single row times four panels of two neighbours at once: with eight sums to go on with while each waits for its last,
 * the memory is what is waited for. The sums are those of a tile, in the same order. */
INLINE void row_fp32(const float *a, const char *b, int64_t apart, int64_t steps, float *c) {
    vf sum[2][WIDE * EACH];
    const float *columns = (const float *)b, *others = (const float *)(b + apart);
#pragma GCC unroll 16
    for (int w = 0; w < WIDE * EACH; w++) sum[0][w] = sum[1][w] = vf_set(0.0f);
    for (int64_t s = 0; s < steps; s++, columns += WIDE * PANEL, others += WIDE * PANEL) {
        const vf left = vf_set(a[s]);
#pragma GCC unroll 16
        for (int w = 0; w < WIDE * EACH; w++) sum[0][w] = vf_fma(left, vf_load(columns + w * LANES), sum[0][w]);
#pragma GCC unroll 16
        for (int w = 0; w < WIDE * EACH; w++) sum[1][w] = vf_fma(left, vf_load(others + w * LANES), sum[1][w]);
    }
#pragma GCC unroll 16
    for (int w = 0; w < 2 * WIDE * EACH; w++) vf_store(c + w * LANES, sum[w / (WIDE * EACH)][w % (WIDE * EACH)]);
}

INLINE void row_bf16(const bf16 *a, const char *b, int64_t apart, int64_t steps, float *c) {
    vf sum[2][WIDE * EACH];
#pragma GCC unroll 16
    for (int w = 0; w < WIDE * EACH; w++) sum[0][w] = sum[1][w] = vf_set(0.0f);
    for (int64_t s = 0; s < steps; s++, b += 4 * WIDE * PANEL) {
        const int32_t left = four_bytes(a + 2 * s);
#pragma GCC unroll 16
        for (int w = 0; w < WIDE * EACH; w++) sum[0][w] = pair_fma(sum[0][w], b + w * 4 * LANES, left);
#pragma GCC unroll 16
        for (int w = 0; w < WIDE * EACH; w++) sum[1][w] = pair_fma(sum[1][w], b + apart + w * 4 * LANES, left);
    }
#pragma GCC unroll 16
    for (int w = 0; w < 2 * WIDE * EACH; w++) vf_store(c + w * LANES, sum[w / (WIDE * EACH)][w % (WIDE * EACH)]);
}

/* A single row, from output n on: how many outputs were done two neighbours at a time. */
static int64_t rows_of_two(const matrix *b, const operand *a, int64_t first, int64_t last, int64_t steps, float *c) {
    const int64_t both = 2 * WIDE * PANEL, apart = b->steps * WIDE * 4 * PANEL;
    int64_t n = first;
    for (; n + both <= last; n += both) {
        if (b->kind == FRY_FP32) row_fp32(a->data, panels_at(b, n), apart, steps, c + (n - first));
        else row_bf16(a->data, panels_at(b, n), apart, steps, c + (n - first));
    }
    return n - first;
}

typedef struct {
    const matrix *b;
    const operand *a;
    int64_t steps;
    float *c;
    int64_t ldc;
} product;

/* The panels from `at` on of those that begin at b. */
INLINE void tile(const product *p, const int rows, const int wide, int64_t row, const char *b, int64_t together,
                 int64_t at, float *c) {
    const operand *a = p->a;
    if (p->b->kind == FRY_FP32) {
        tile_fp32(rows, wide, (const float *)a->data + row * a->ld, a->ld, b + at * 4 * PANEL, together, p->steps, c,
                  p->ldc);
    } else if (p->b->kind == FRY_BF16) {
        const bf16 *left = (const bf16 *)a->data + row * a->ld;
        tile_bf16(rows, wide, left, a->ld, b + at * 4 * PANEL, together, p->steps, c, p->ldc);
    } else {
        const int64_t groups = a->ld / GROUP;
        tile_int8(rows, wide, (const int8_t *)a->data + row * a->ld, a->ld, a->scales + row * groups,
                  a->offsets + row * groups, b, together, at, p->steps, c, p->ldc);
    }
}

#define TILES_OF(rows)                                                                                            \
    static void tile_##rows(const product *p, int wide, int64_t row, const char *b, int64_t together, int64_t at, \
                            float *c) {                                                                           \
        switch (rows == 1 || wide <= TILE_WIDE ? wide : 1) {                                                      \
            case 1: tile(p, rows, 1, row, b, together, at, c); break;                                             \
            case 2: if (TILE_WIDE > 1 || rows == 1) tile(p, rows, 2, row, b, together, at, c); break;             \
            case 3: if (TILE_WIDE > 1 || rows == 1) tile(p, rows, 3, row, b, together, at, c); break;             \
            default: if (TILE_WIDE > 1 || rows == 1) tile(p, rows, 4, row, b, together, at, c); break;            \
        }                                                                                                         \
    }
TILES_OF(1)
#if TILE_ROWS > 1
TILES_OF(2)
#endif
#if TILE_ROWS > 2
TILES_OF(3)
TILES_OF(4)
#endif
#if TILE_ROWS > 4
TILES_OF(5)
TILES_OF(6)
#endif

typedef void (*tile_of_rows)(const product *, int, int64_t, const char *, int64_t, int64_t, float *);
static const tile_of_rows TILES[TILE_ROWS + 1] = {
    0, tile_1,
#if TILE_ROWS > 1
    tile_2,
#endif
#if TILE_ROWS > 2
    tile_3, tile_4,
#endif
#if TILE_ROWS > 4
    tile_5, tile_6,
#endif
};

/* c (m, last - first) = a (m, K) times the outputs [first, last) of b, over the first `steps` of its inputs; first is a
 * multiple of 64. Rows of c are written in whole panels of 16. */
static void matmul(const matrix *b, const operand *a, int64_t m, int64_t first, int64_t last, int64_t steps, float *c,
                   int64_t ldc) {
    const product p = {b, a, steps, c, ldc};
    const int64_t most = b->kind == FRY_INT8 ? TILE_ROWS_I8 : TILE_ROWS;
    const int64_t done = m == 1 && LANES > 4 && b->kind != FRY_INT8 ? rows_of_two(b, a, first, last, steps, c) : 0;
    for (int64_t n = first + done; n < last; n += WIDE * PANEL) {
        const char *panels = panels_at(b, n);
        const int64_t together = panels_together(b, n), wanted = (last - n + PANEL - 1) / PANEL;
        const int wide = (int)(wanted < together ? wanted : together);
        for (int64_t row = 0; row < m;) {
            const int64_t rows = m - row < most ? m - row : most;
            float *to = c + row * ldc + (n - first);
            if (rows == 1 || TILE_WIDE == WIDE) TILES[rows](&p, wide, row, panels, together, 0, to);
            else
                for (int w = 0; w < wide; w++) TILES[rows](&p, 1, row, panels, together, w, to + w * PANEL);
            row += rows;
        }
    }
}

/* ---- norms, activations ------------------------------------------------------------------------------------------ */

/* out = x * gain / sqrt(mean(x^2) + eps) over n numbers, all padded with zeros to 16. */
static void rms_norm(const float *x, const float *gain, int64_t n, float eps, float *out) {
    vf squares[EACH];
    for (int e = 0; e < EACH; e++) squares[e] = vf_set(0.0f);
    for (int64_t i = 0; i < n; i += PANEL)
        for (int e = 0; e < EACH; e++) {
            const vf v = vf_load(x + i + e * LANES);
            squares[e] = vf_mla(v, v, squares[e]);
        }
    const vf scale = vf_set(1.0f / root_of(lanes_sum(squares) / (float)n + eps));
    for (int64_t i = 0; i < n; i += LANES) vf_store(out + i, vf_mul(vf_mul(vf_load(x + i), scale), vf_load(gain + i)));
}

/* out = silu(gate) * up over n numbers; what lies behind them is written too. */
static void swiglu(const float *gate, const float *up, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i += LANES) {
        const vf g = vf_load(gate + i);
        const vf e = vf_exp(vf_min(vf_sub(vf_set(0.0f), g), vf_set(80.0f)));
        vf_store(out + i, vf_mul(vf_div(g, vf_add(vf_set(1.0f), e)), vf_load(up + i)));
    }
}

static void add_to(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) vf_store(x + i, vf_add(vf_load(x + i), vf_load(y + i)));
}

static float greatest(const float *x, int64_t n) {
    int64_t i = 0;
    float top = x[0];
    if (n >= LANES) {
        vf most = vf_load(x);
        for (i = LANES; i + LANES <= n; i += LANES) most = vf_max(most, vf_load(x + i));
        top = vf_most(most);
    }
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

/* The sum of e^(x - top) over n numbers. */
static float exp_sum(const float *x, int64_t n, float top) {
    vf sum = vf_set(0.0f);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sum = vf_add(sum, vf_exp(vf_sub(vf_load(x + i), vf_set(top))));
    float total = vf_sum(sum);
    for (; i < n; i++) total += (float)exp_of((double)x[i] - top);
    return total;
}

#endif
