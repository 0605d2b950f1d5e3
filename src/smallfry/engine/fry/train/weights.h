/* The gradient of a matrix of weights: the sum over tokens of what came out times what went in, with tile registers.
 *
 * Libraries lay both sides out anew and reach half of their speed here. The narrower side is turned into rows of tokens,
 * the wider one into pairs of tokens, a span of tokens at a time that stays in the first two caches. */
#ifndef FRY_TRAIN_WEIGHTS_H
#define FRY_TRAIN_WEIGHTS_H

#include "ops.h"
#include "products.h"

#if defined(FRY_HAS_AMX)

#define SPAN 512                   /* tokens */
#define STEPS (SPAN / TILE)        /* of 32 tokens: one product of tiles */
#define BLOCK_UNITS (TILE * TILE / 2) /* pairs of a block of 32 tokens and 32 features */

typedef struct {
    const bf16 *narrow, *wide; /* (rows, narrow_width), (rows, wide_width) */
    int64_t rows, narrow_width, wide_width;
    int64_t narrow_panels, wide_panels; /* of 32 features */
    int turned;                         /* the wide side is what came out: dw's rows */
    bf16 *to;
} product_of_rows;

INLINE product_of_rows sides(const fry_weight_gradient *a) {
    product_of_rows p;
    p.turned = a->in <= a->out;
    p.narrow = p.turned ? a->x : a->dy, p.wide = p.turned ? a->dy : a->x;
    p.narrow_width = p.turned ? a->in : a->out, p.wide_width = p.turned ? a->out : a->in;
    p.narrow_panels = (p.narrow_width + TILE - 1) / TILE, p.wide_panels = (p.wide_width + TILE - 1) / TILE;
    p.rows = a->rows, p.to = a->dw;
    return p;
}

static int64_t gradient_panels(const fry_weight_gradient *a) { return sides(a).wide_panels; }

/* Panels of the wide side that are laid out together: half of the second cache. */
#define WIDE_PANELS 24

static int64_t gradient_bytes(const fry_weight_gradient *a, int64_t panels) {
    const product_of_rows p = sides(a);
    const int64_t wide = panels < WIDE_PANELS ? panels : WIDE_PANELS;
    const int64_t spans = (p.narrow_panels + wide) * STEPS * BLOCK_UNITS * 4;
    return spans + BLOCK_UNITS * 4 + panels * p.narrow_panels * TILE * TILE * 4;
}

/* 32 features of 32 tokens as pairs of tokens: (16, 32) units; what lies outside is zero. */
INLINE void pair_block(const bf16 *from, int64_t ld, int64_t tokens, int64_t features, uint32_t *to) {
    const __mmask32 mask = features >= 32 ? 0xffffffffu : (1u << features) - 1u;
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (int64_t t = 0; t < TILE; t += 2, to += TILE) {
        const __m512i one = t < tokens ? _mm512_maskz_loadu_epi16(mask, from + t * ld) : _mm512_setzero_si512();
        const __m512i two = t + 1 < tokens ? _mm512_maskz_loadu_epi16(mask, from + (t + 1) * ld) : _mm512_setzero_si512();
        _mm512_storeu_si512(to, _mm512_permutex2var_epi16(one, low, two));
        _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(one, high, two));
    }
}

/* A block's sums to their place in dw. */
INLINE void write_block(const product_of_rows *p, const float *sums, int64_t narrow_panel, int64_t wide_panel) {
    const int64_t n = narrow_panel * TILE, w = wide_panel * TILE;
    const int64_t narrow = p->narrow_width - n < TILE ? p->narrow_width - n : TILE;
    const int64_t wide = p->wide_width - w < TILE ? p->wide_width - w : TILE;
    float other[TILE * TILE];
    const int64_t rows = p->turned ? wide : narrow, columns = p->turned ? narrow : wide;
    bf16 *to = p->turned ? p->to + w * p->narrow_width + n : p->to + n * p->wide_width + w;
    const int64_t ld = p->turned ? p->narrow_width : p->wide_width;
    if (p->turned) turn(sums, TILE, other, TILE, TILE, TILE), sums = other;
    for (int64_t r = 0; r < rows; r++)
        EACH_REGISTER(i, 0, columns, { PUT(FRY_BF16, to, r * ld + i, vf_load(sums + r * TILE + i)); });
}

/* A span of tokens laid out: blocks of (32 features, 16 pairs) for the narrow side. Rows are read whole, in order. */
INLINE void lay_narrow(const product_of_rows *p, int64_t token, int64_t tokens, uint32_t *to, uint32_t *pairs) {
    for (int64_t s = 0; s * TILE < tokens; s++)
        for (int64_t panel = 0; panel < p->narrow_panels; panel++) {
            uint32_t *block = to + (panel * STEPS + s) * BLOCK_UNITS;
            pair_block(p->narrow + (token + s * TILE) * p->narrow_width + panel * TILE, p->narrow_width,
                       tokens - s * TILE, p->narrow_width - panel * TILE, pairs);
            turn_16(pairs, TILE, block, 16);
            turn_16(pairs + 16, TILE, block + BLOCK_UNITS / 2, 16);
        }
}

/* Blocks of (16 pairs, 32 features) for panels [first, last) of the wide side. */
INLINE void lay_wide(const product_of_rows *p, int64_t token, int64_t tokens, int64_t first, int64_t last, uint32_t *to) {
    for (int64_t s = 0; s * TILE < tokens; s++)
        for (int64_t panel = first; panel < last; panel++)
            pair_block(p->wide + (token + s * TILE) * p->wide_width + panel * TILE, p->wide_width, tokens - s * TILE,
                       p->wide_width - panel * TILE, to + ((panel - first) * STEPS + s) * BLOCK_UNITS);
}

/* Panels [first, last) of the wide side. */
static void weight_gradient(const fry_weight_gradient *a, int64_t first, int64_t last, char *scratch) {
    const product_of_rows p = sides(a);
    const int64_t together = last - first < WIDE_PANELS ? last - first : WIDE_PANELS;
    uint32_t *narrow = (uint32_t *)scratch, *wide = narrow + p.narrow_panels * STEPS * BLOCK_UNITS;
    uint32_t *pairs = wide + together * STEPS * BLOCK_UNITS;
    float *sums = (float *)(pairs + BLOCK_UNITS);
    start_products(FRY_BF16);
    for (int64_t token = 0; token < p.rows; token += SPAN) {
        const int64_t tokens = p.rows - token < SPAN ? p.rows - token : SPAN, steps = (tokens + TILE - 1) / TILE;
        lay_narrow(&p, token, tokens, narrow, pairs);
        for (int64_t begin = first; begin < last; begin += together) {
            const int64_t end = last - begin < together ? last : begin + together;
            lay_wide(&p, token, tokens, begin, end, wide);
            for (int64_t panel = begin; panel < end; panel++)
                for (int64_t row = 0; row < p.narrow_panels; row++)
                    amx_blocks(token > 0, narrow + row * STEPS * BLOCK_UNITS, wide + (panel - begin) * STEPS * BLOCK_UNITS,
                               steps, sums + ((panel - first) * p.narrow_panels + row) * TILE * TILE);
        }
    }
    end_products(FRY_BF16);
    for (int64_t panel = first; panel < last; panel++)
        for (int64_t row = 0; row < p.narrow_panels; row++)
            write_block(&p, sums + ((panel - first) * p.narrow_panels + row) * TILE * TILE, row, panel);
}

#endif
#endif
