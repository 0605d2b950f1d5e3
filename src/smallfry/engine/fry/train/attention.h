/* Causal attention, forwards and backwards, one key head of a sequence at a time.
 *
 * Queries and keys are normalised, turned by their positions and laid out once a head; scores stand in powers of two.
 * Forwards goes through blocks of queries, backwards through blocks of keys: there a block's scores are transposed, so
 * that each of the five products reads its left operand along rows (FlashAttention, Dao et al. 2022, with a head's whole
 * row of scores at once: it fits the second cache at the lengths small models are trained with). */
#ifndef FRY_TRAIN_ATTENTION_H
#define FRY_TRAIN_ATTENTION_H

#include "../scalar.h"
#include "numbers.h"
#include "ops.h"
#include "products.h"

#define HIDDEN -1.0e30f /* a score that nothing looks at */

typedef struct {
    int64_t d, half, half_padded; /* of a head */
    int64_t width;                /* d, a multiple of TILE */
    int64_t units;                /* of a row of `width` numbers */
    int64_t length, padded;       /* tokens, and a multiple of TILE */
    int64_t stride;               /* numbers from token to token of qkv */
    int64_t group;                /* query heads of a key head */
} sizes;

INLINE sizes sizes_of(const fry_attention *a) {
    sizes s;
    s.d = a->head_dim, s.half = s.d / 2, s.half_padded = round_up(s.half, 16), s.width = round_up(s.d, TILE);
    s.units = a->kind == FRY_BF16 ? s.width / 2 : s.width;
    s.length = a->length, s.padded = round_up(s.length, TILE);
    s.stride = (a->heads + 2 * a->kv_heads) * s.d;
    s.group = a->heads / a->kv_heads;
    return s;
}

typedef struct {
    uintptr_t at; /* 0 while only counting */
} shelf;

INLINE void *cut(shelf *s, int64_t bytes) {
    void *found = (void *)s->at;
    s->at += (uintptr_t)round_up(bytes, ALIGNMENT);
    return found;
}

typedef struct {
    char *q, *k, *v, *g;         /* (padded, width) numbers; g is the gradient of what the head gave */
    uint32_t *qt, *kt, *vt, *gt; /* (units, padded) units: columns are tokens */
    uint32_t *qp, *vp, *gp;      /* (padded / 2, width) pairs, or (padded, width) floats */
    char *kc;                    /* (width, padded) numbers: keys by feature */
    float *scores, *slopes;      /* (TILE, padded) */
    char *shares, *dscores;      /* (TILE, padded) numbers */
    uint32_t *dpairs;            /* (TILE / 2, padded) pairs, or (TILE, padded) floats */
    float *out;                  /* (TILE, width) */
    float *dq, *dqt, *dk, *dv;   /* (padded, width), dqt (width, padded) */
    float *tops, *inverses, *delta, *index; /* (padded) */
} room;

INLINE int64_t lay_out(const fry_attention *a, int backward, char *memory, room *r) {
    const sizes s = sizes_of(a);
    const int64_t number = (int64_t)size_of((fry_kind)a->kind);
    shelf shelf = {(uintptr_t)memory};
    const int64_t rows = s.padded * s.width;
    r->q = cut(&shelf, rows * number), r->k = cut(&shelf, rows * number), r->v = cut(&shelf, rows * number);
    r->kt = cut(&shelf, rows * number), r->vp = cut(&shelf, rows * number);
    r->scores = cut(&shelf, TILE * s.padded * 4), r->shares = cut(&shelf, TILE * s.padded * number);
    r->out = cut(&shelf, TILE * s.width * 4), r->index = cut(&shelf, s.padded * 4);
    if (backward) {
        r->g = cut(&shelf, rows * number);
        r->qt = cut(&shelf, rows * number), r->gt = cut(&shelf, rows * number);
        r->qp = cut(&shelf, rows * number), r->gp = cut(&shelf, rows * number), r->kc = cut(&shelf, rows * number);
        r->slopes = cut(&shelf, TILE * s.padded * 4), r->dscores = cut(&shelf, TILE * s.padded * number);
        r->dpairs = cut(&shelf, TILE * s.padded * number);
        r->dq = cut(&shelf, TILE * s.width * 4), r->dqt = cut(&shelf, rows * 4);
        r->dk = cut(&shelf, rows * 4), r->dv = cut(&shelf, rows * 4);
        r->tops = cut(&shelf, s.padded * 4), r->inverses = cut(&shelf, s.padded * 4);
        r->delta = cut(&shelf, s.padded * 4);
    }
    return (int64_t)(shelf.at - (uintptr_t)memory);
}

static int64_t attention_bytes(const fry_attention *a, int backward) {
    room r;
    return lay_out(a, backward, 0, &r);
}

#define MOST_HALVES (MOST_HEAD / 2 / LANES) /* registers of half a head's row */

typedef struct {
    vf low[MOST_HALVES], high[MOST_HALVES];
} halves; /* a head's row; what fills up the last registers is zero */

/* Numbers of half a row in its register `r`: the last one may be a part. */
#define IN_REGISTER(s, r) ((s)->half - (r) * LANES < LANES ? (s)->half - (r) * LANES : LANES)

/* Registers behind `regs` are never looked at, which the compiler cannot see. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

INLINE halves read_halves(const fry_kind kind, const int regs, const sizes *s, const void *from, int64_t at) {
    halves x;
    for (int r = 0; r < regs; r++) {
        const int64_t part = IN_REGISTER(s, r);
        x.low[r] = GET(kind, from, at + r * LANES), x.high[r] = GET(kind, from, at + s->half + r * LANES);
    }
    return x;
}

/* Rows of a head lie far apart: nobody but us knows which comes next. What lies behind the end does no harm. */
#define AHEAD 12

INLINE void fetch_row(const fry_kind kind, const void *from, int64_t at, int64_t d) {
#if defined(__GNUC__)
    for (int64_t i = 0; i < d; i += 64 / (int64_t)size_of(kind))
        __builtin_prefetch((const void *)((uintptr_t)from + (uintptr_t)(at + i) * size_of(kind)));
#else
    (void)kind, (void)from, (void)at, (void)d;
#endif
}

INLINE float root_mean(const int regs, const halves *x, const sizes *s, float eps) {
    vf squares = vf_set(0.0f);
    for (int r = 0; r < regs; r++) squares = vf_fma(x->low[r], x->low[r], vf_fma(x->high[r], x->high[r], squares));
    return 1.0f / root_of(vf_sum(squares) / (float)s->d + eps);
}

/* A head's rows: normalised where there is a gain, turned where there are positions, times `scale`. */
INLINE void read_rows(const fry_kind kind, const int regs, const int normed, const int turned, const fry_attention *a,
                      const sizes *s, const void *from, const void *gain, float scale, char *to) {
    const int64_t p = s->half_padded, number = (int64_t)size_of(kind);
    halves g;
    if (normed) g = read_halves(kind, regs, s, gain, 0);
    for (int64_t t = 0; t < s->length; t++) {
        halves x = read_halves(kind, regs, s, from, t * s->stride);
        fetch_row(kind, from, (t + AHEAD) * s->stride, s->d);
        const vf by = vf_set(normed ? scale * root_mean(regs, &x, s, a->eps) : scale);
        char *row = to + t * s->width * number;
        for (int r = 0; r < regs; r++) {
            vf low = vf_mul(x.low[r], by), high = vf_mul(x.high[r], by);
            if (normed) low = vf_mul(low, g.low[r]), high = vf_mul(high, g.high[r]);
            if (turned) {
                const vf c = vf_load(a->cosines + t * p + r * LANES), e = vf_load(a->sines + t * p + r * LANES);
                const vf turned_low = vf_sub(vf_mul(low, c), vf_mul(high, e));
                high = vf_fma(high, c, vf_mul(low, e)), low = turned_low;
            }
            x.low[r] = low, x.high[r] = high;
        }
        /* The first half's filling is overwritten by the second half. */
        for (int r = 0; r < regs; r++) store(kind, row, r * LANES, x.low[r]);
        for (int r = 0; r < regs; r++) store(kind, row, s->half + r * LANES, x.high[r]);
    }
}

/* Widths of heads that the compiler knows keep a row in registers. */
#define FOR_WIDTH(regs, call)                                                                                          \
    switch (regs) {                                                                                                    \
    case 1: { enum { REGS = 1 }; call; break; }                                                                        \
    case 2: { enum { REGS = 2 }; call; break; }                                                                        \
    case 3: { enum { REGS = 3 }; call; break; }                                                                        \
    case 4: { enum { REGS = 4 }; call; break; }                                                                        \
    default: { const int REGS = regs; call; }                                                                          \
    }

INLINE void read_head(const fry_kind kind, const int turned, const fry_attention *a, const sizes *s, const void *from,
                      const void *gain, float scale, char *to) {
    const int regs = (int)((s->half + LANES - 1) / LANES);
    memset(to, 0, (size_t)(s->padded * s->width) * size_of(kind));
    if (gain)
        FOR_WIDTH(regs, read_rows(kind, REGS, 1, turned, a, s, from, gain, scale, to))
    else
        FOR_WIDTH(regs, read_rows(kind, REGS, 0, turned, a, s, from, gain, scale, to))
}

/* The inverse for gradients: rows of floats (count, width) of tokens from `first` on, back through turn and norm. */
INLINE void write_rows(const fry_kind kind, const int regs, const int normed, const int turned, const fry_attention *a,
                       const sizes *s, const float *grad, int64_t first, int64_t count, const void *from,
                       const void *gain, float scale, void *to, float *dgain) {
    const int64_t p = s->half_padded;
    halves g, sums;
    if (normed) {
        g = read_halves(kind, regs, s, gain, 0);
        for (int r = 0; r < regs; r++)
            sums.low[r] = vf_load(dgain + r * LANES), sums.high[r] = vf_load(dgain + p + r * LANES);
    }
    for (int64_t t = first; t < first + count; t++) {
        halves d = read_halves(FRY_FP32, regs, s, grad, (t - first) * s->width);
        for (int r = 0; r < regs; r++) {
            const vf low = vf_mul(d.low[r], vf_set(scale)), high = vf_mul(d.high[r], vf_set(scale));
            d.low[r] = low, d.high[r] = high;
            if (turned) {
                const vf c = vf_load(a->cosines + t * p + r * LANES), e = vf_load(a->sines + t * p + r * LANES);
                d.low[r] = vf_fma(low, c, vf_mul(high, e)), d.high[r] = vf_sub(vf_mul(high, c), vf_mul(low, e));
            }
        }
        if (normed) {
            halves x = read_halves(kind, regs, s, from, t * s->stride);
            fetch_row(kind, from, (t + AHEAD) * s->stride, s->d);
            const vf by = vf_set(root_mean(regs, &x, s, a->eps));
            vf dot = vf_set(0.0f);
            for (int r = 0; r < regs; r++) {
                x.low[r] = vf_mul(x.low[r], by), x.high[r] = vf_mul(x.high[r], by);
                sums.low[r] = vf_fma(d.low[r], x.low[r], sums.low[r]);
                sums.high[r] = vf_fma(d.high[r], x.high[r], sums.high[r]);
                d.low[r] = vf_mul(d.low[r], g.low[r]), d.high[r] = vf_mul(d.high[r], g.high[r]);
                dot = vf_fma(d.low[r], x.low[r], vf_fma(d.high[r], x.high[r], dot));
            }
            const vf mean = vf_set(-vf_sum(dot) / (float)s->d);
            for (int r = 0; r < regs; r++) {
                d.low[r] = vf_mul(by, vf_fma(x.low[r], mean, d.low[r]));
                d.high[r] = vf_mul(by, vf_fma(x.high[r], mean, d.high[r]));
            }
        }
        for (int r = 0; r < regs; r++) {
            const int64_t part = IN_REGISTER(s, r);
            PUT(kind, to, t * s->stride + r * LANES, d.low[r]);
            PUT(kind, to, t * s->stride + s->half + r * LANES, d.high[r]);
        }
    }
    for (int r = 0; normed && r < regs; r++)
        vf_store(dgain + r * LANES, sums.low[r]), vf_store(dgain + p + r * LANES, sums.high[r]);
}

INLINE void write_head(const fry_kind kind, const int turned, const fry_attention *a, const sizes *s, const float *grad,
                       int64_t first, int64_t count, const void *from, const void *gain, float scale, void *to,
                       float *dgain) {
    const int regs = (int)((s->half + LANES - 1) / LANES);
    if (gain)
        FOR_WIDTH(regs, write_rows(kind, REGS, 1, turned, a, s, grad, first, count, from, gain, scale, to, dgain))
    else
        FOR_WIDTH(regs, write_rows(kind, REGS, 0, turned, a, s, grad, first, count, from, gain, scale, to, dgain))
}

#define PLACE(kind, p, i) ((void *)((char *)(p) + (i) * (int64_t)size_of(kind)))
#define PLACE_IN(kind, p, i) ((const void *)((const char *)(p) + (i) * (int64_t)size_of(kind)))

/* One row of scores, of which the first `seen` count, becomes powers of 2 of what they are below the greatest, which is
 * returned; `inverse` is of the powers' sum. */
INLINE float softmax_row(const fry_kind kind, float *scores, int64_t seen, int64_t all, const float *index, void *shares,
                         float *inverse) {
    const float edge = (float)seen - 0.5f;
    const int64_t whole = seen / LANES * LANES;
    vf most = vf_set(HIDDEN);
    for (int64_t j = 0; j < whole; j += LANES) most = vf_max(most, vf_load(scores + j));
    for (int64_t j = whole; j < all; j += LANES) {
        const vf x = vf_choose(vf_load(index + j), edge, vf_set(HIDDEN), vf_load(scores + j));
        vf_store(scores + j, x);
        most = vf_max(most, x);
    }
    const float top = vf_most(most);
    const vf base = vf_set(top);
    vf powers = vf_set(0.0f);
    for (int64_t j = 0; j < whole; j += LANES) {
        const vf p = exp2_of_register(vf_sub(vf_load(scores + j), base));
        powers = vf_add(powers, p);
        store(kind, shares, j, p);
    }
    for (int64_t j = whole; j < all; j += LANES) { /* what is hidden has 2^-126 here, not 0 */
        const vf p = vf_choose(vf_load(index + j), edge, vf_set(0.0f), exp2_of_register(vf_sub(vf_load(scores + j), base)));
        powers = vf_add(powers, p);
        store(kind, shares, j, p);
    }
    *inverse = 1.0f / vf_sum(powers);
    return top;
}

INLINE void forward_item(const fry_kind kind, const fry_attention *a, int64_t item, char *scratch) {
    const sizes s = sizes_of(a);
    room r;
    lay_out(a, 0, scratch, &r);
    const int64_t sequence = item / a->kv_heads, key_head = item % a->kv_heads;
    const void *qkv = PLACE_IN(kind, a->qkv, sequence * s.length * s.stride);
    const float scale = LOG2_E / root_of((float)s.d);
    start_products(kind);
    read_head(kind, 1, a, &s, PLACE_IN(kind, qkv, (a->heads + key_head) * s.d), a->k_gain, 1.0f, r.k);
    read_head(kind, 0, a, &s, PLACE_IN(kind, qkv, (a->heads + a->kv_heads + key_head) * s.d), 0, 1.0f, r.v);
    turn(r.k, s.units, r.kt, s.padded, s.padded, s.units);
    pair_rows(kind, r.v, s.width, r.vp, s.padded, s.width);
    for (int64_t j = 0; j < s.padded; j++) r.index[j] = (float)j;
    for (int64_t head = key_head * s.group; head < (key_head + 1) * s.group; head++) {
        read_head(kind, 1, a, &s, PLACE_IN(kind, qkv, head * s.d), a->q_gain, scale, r.q);
        float *tops = a->tops + (sequence * a->heads + head) * s.length;
        float *inverses = a->inverses + (sequence * a->heads + head) * s.length;
        for (int64_t first = 0; first < s.padded; first += TILE) {
            const int64_t seen = first + TILE, rows = s.length - first < TILE ? s.length - first : TILE;
            const int64_t steps = kind == FRY_BF16 ? seen / 2 : seen, units = kind == FRY_BF16 ? s.padded / 2 : s.padded;
            product(kind, 0, (uint32_t *)r.q + first * s.units, s.units, r.kt, s.padded, s.units, r.scores, s.padded,
                    TILE, seen);
            float top[TILE], inverse[TILE];
            for (int64_t row = 0; row < TILE; row++)
                top[row] = softmax_row(kind, r.scores + row * s.padded, first + row + 1, seen, r.index,
                                       PLACE(kind, r.shares, row * s.padded), inverse + row);
            memcpy(tops + first, top, (size_t)rows * 4), memcpy(inverses + first, inverse, (size_t)rows * 4);
            product(kind, 0, r.shares, units, r.vp, s.width, steps, r.out, s.width, TILE, s.width);
            for (int64_t row = 0; row < rows; row++) {
                void *to = PLACE(kind, a->out, ((sequence * s.length + first + row) * a->heads + head) * s.d);
                const vf by = vf_set(inverse[row]);
                EACH_REGISTER(i, 0, s.d, { PUT(kind, to, i, vf_mul(GET(FRY_FP32, r.out + row * s.width, i), by)); });
            }
        }
    }
    end_products(kind);
}

/* The gradients of a block of keys' scores, two keys at a time: shares and slopes by key, slopes in pairs of keys too. */
INLINE void slopes_of_block(const fry_kind kind, const sizes *s, room *r, int64_t first) {
    for (int64_t row = 0; row < TILE; row += 2) {
        const float *x0 = r->scores + row * s->padded, *x1 = x0 + s->padded;
        const float *y0 = r->slopes + row * s->padded, *y1 = y0 + s->padded;
        void *p0 = PLACE(kind, r->shares, row * s->padded), *p1 = PLACE(kind, p0, s->padded);
        void *d0 = PLACE(kind, r->dscores, row * s->padded), *d1 = PLACE(kind, d0, s->padded);
        const float edge = (float)(first + row) - 0.5f;
        for (int64_t i = first; i < s->padded; i += LANES) {
            const vf top = vf_load(r->tops + i), by = vf_load(r->inverses + i), delta = vf_load(r->delta + i);
            vf a0 = vf_mul(by, exp2_of_register(vf_sub(vf_load(x0 + i), top)));
            vf a1 = vf_mul(by, exp2_of_register(vf_sub(vf_load(x1 + i), top)));
            if (i < first + TILE) { /* queries before the key do not see it */
                const vf at = vf_load(r->index + i);
                a0 = vf_above(at, edge, a0), a1 = vf_above(at, edge + 1.0f, a1);
            }
            const vf b0 = vf_mul(a0, vf_sub(vf_load(y0 + i), delta)), b1 = vf_mul(a1, vf_sub(vf_load(y1 + i), delta));
            store(kind, p0, i, a0), store(kind, p1, i, a1);
            store(kind, d0, i, b0), store(kind, d1, i, b1);
            if (kind == FRY_BF16) {
                vi_store(r->dpairs + row / 2 * s->padded + i, pair_of(b0, b1));
            } else {
                vf_store((float *)r->dpairs + row * s->padded + i, b0);
                vf_store((float *)r->dpairs + (row + 1) * s->padded + i, b1);
            }
        }
    }
}

INLINE void read_gradient(const fry_kind kind, const fry_attention *a, const sizes *s, int64_t sequence, int64_t head,
                          room *r) {
    const int64_t number = (int64_t)size_of(kind);
    const int64_t first = (sequence * a->heads + head) * s->length, rest = s->padded - s->length;
    memset(r->g, 0, (size_t)(s->padded * s->width * number));
    memcpy(r->tops, a->tops + first, (size_t)s->length * 4);
    memcpy(r->inverses, a->inverses + first, (size_t)s->length * 4);
    memset(r->tops + s->length, 0, (size_t)rest * 4); /* whoever looks after the end has no share of anything */
    memset(r->inverses + s->length, 0, (size_t)rest * 4);
    memset(r->delta + s->length, 0, (size_t)rest * 4);
    for (int64_t t = 0; t < s->length; t++) {
        const int64_t at = ((sequence * s->length + t) * a->heads + head) * s->d;
        vf dot = vf_set(0.0f);
        fetch_row(kind, a->dout, at + AHEAD * a->heads * s->d, s->d);
        fetch_row(kind, a->out, at + AHEAD * a->heads * s->d, s->d);
        EACH_REGISTER(i, 0, s->d, {
            const vf g = GET(kind, a->dout, at + i);
            dot = vf_fma(g, GET(kind, a->out, at + i), dot);
            PUT(kind, r->g, t * s->width + i, g);
        });
        r->delta[t] = vf_sum(dot);
    }
    turn(r->g, s->units, r->gt, s->padded, s->padded, s->units);
    pair_rows(kind, r->g, s->width, r->gp, s->padded, s->width);
}

/* Everything that a query head's gradient gives: to queries (dqt), and added to keys and values. */
INLINE void backward_head(const fry_kind kind, const sizes *s, room *r, int first_head) {
    const int64_t half = kind == FRY_BF16 ? 2 : 1, units = s->padded / half; /* of a row of tokens */
    memset(r->dqt, 0, (size_t)(s->width * s->padded) * 4);
    for (int64_t first = 0; first < s->padded; first += TILE) {
        const int64_t rest = s->padded - first;
        product(kind, 0, (uint32_t *)r->k + first * s->units, s->units, r->qt + first, s->padded, s->units,
                r->scores + first, s->padded, TILE, rest);
        product(kind, 0, (uint32_t *)r->v + first * s->units, s->units, r->gt + first, s->padded, s->units,
                r->slopes + first, s->padded, TILE, rest);
        slopes_of_block(kind, s, r, first);
        float *dk = r->dk + first * s->width, *dv = r->dv + first * s->width;
        const uint32_t *p = (uint32_t *)r->shares + first / half, *d = (uint32_t *)r->dscores + first / half;
        const uint32_t *g = r->gp + first / half * s->width, *q = r->qp + first / half * s->width;
        if (first_head) {
            product(kind, 0, p, units, g, s->width, rest / half, dv, s->width, TILE, s->width);
            product(kind, 0, d, units, q, s->width, rest / half, dk, s->width, TILE, s->width);
        } else {
            product(kind, 1, p, units, g, s->width, rest / half, dv, s->width, TILE, s->width);
            product(kind, 1, d, units, q, s->width, rest / half, dk, s->width, TILE, s->width);
        }
        product(kind, 1, (uint32_t *)r->kc + first / half, units, r->dpairs + first, s->padded, TILE / half,
                r->dqt + first, s->padded, s->width, rest);
    }
}

/* Keys by feature, as numbers: what kt holds as units. */
INLINE void keys_by_feature(const fry_kind kind, const sizes *s, room *r) {
    if (kind == FRY_FP32) {
        turn(r->k, s->width, r->kc, s->padded, s->padded, s->width);
        return;
    }
    /* A unit of kt is two features of a token: the even features' row and the odd ones'. */
    for (int64_t u = 0; u < s->units; u++) {
        const uint32_t *from = r->kt + u * s->padded;
        bf16 *even = (bf16 *)r->kc + 2 * u * s->padded, *odd = even + s->padded;
        for (int64_t t = 0; t < s->padded; t++) even[t] = (bf16)from[t], odd[t] = (bf16)(from[t] >> 16);
    }
}

INLINE void backward_item(const fry_kind kind, const fry_attention *a, int64_t item, char *scratch, float *dq_gain,
                          float *dk_gain) {
    const sizes s = sizes_of(a);
    room r;
    lay_out(a, 1, scratch, &r);
    const int64_t sequence = item / a->kv_heads, key_head = item % a->kv_heads;
    const int64_t key_at = (a->heads + key_head) * s.d, value_at = key_at + a->kv_heads * s.d;
    const void *qkv = PLACE_IN(kind, a->qkv, sequence * s.length * s.stride);
    void *dqkv = PLACE(kind, a->dqkv, sequence * s.length * s.stride);
    const float scale = 1.0f / root_of((float)s.d);
    start_products(kind);
    read_head(kind, 1, a, &s, PLACE_IN(kind, qkv, key_at), a->k_gain, 1.0f, r.k);
    read_head(kind, 0, a, &s, PLACE_IN(kind, qkv, value_at), 0, 1.0f, r.v);
    if (kind == FRY_BF16) turn(r.k, s.units, r.kt, s.padded, s.padded, s.units);
    keys_by_feature(kind, &s, &r);
    for (int64_t j = 0; j < s.padded; j++) r.index[j] = (float)j;
    for (int64_t n = 0; n < s.group; n++) {
        const int64_t head = key_head * s.group + n;
        const void *from = PLACE_IN(kind, qkv, head * s.d);
        read_head(kind, 1, a, &s, from, a->q_gain, scale * LOG2_E, r.q);
        turn(r.q, s.units, r.qt, s.padded, s.padded, s.units);
        pair_rows(kind, r.q, s.width, r.qp, s.padded, s.width);
        read_gradient(kind, a, &s, sequence, head, &r);
        backward_head(kind, &s, &r, n == 0);
        for (int64_t t = 0; t < s.length; t += TILE) {
            const int64_t rows = s.length - t < TILE ? s.length - t : TILE;
            turn(r.dqt + t, s.padded, r.dq, s.width, s.width, TILE);
            write_head(kind, 1, a, &s, r.dq, t, rows, from, a->q_gain, scale, PLACE(kind, dqkv, head * s.d), dq_gain);
        }
    }
    /* The queries that met the keys carried the scores' scale and log2 e: the gradient wants the scale alone. */
    write_head(kind, 1, a, &s, r.dk, 0, s.length, PLACE_IN(kind, qkv, key_at), a->k_gain, LN_2,
               PLACE(kind, dqkv, key_at), dk_gain);
    write_head(kind, 0, a, &s, r.dv, 0, s.length, 0, 0, 1.0f, PLACE(kind, dqkv, value_at), 0);
    end_products(kind);
}

static void attention_forward(const fry_attention *a, int64_t item, char *scratch) {
    if (a->kind == FRY_BF16) forward_item(FRY_BF16, a, item, scratch);
    else forward_item(FRY_FP32, a, item, scratch);
}

static void attention_backward(const fry_attention *a, int64_t item, char *scratch, float *dq_gain, float *dk_gain) {
    if (a->kind == FRY_BF16) backward_item(FRY_BF16, a, item, scratch, dq_gain, dk_gain);
    else backward_item(FRY_FP32, a, item, scratch, dq_gain, dk_gain);
}

#endif
