/* Norms, SwiGLU and cross-entropy: one pass over a row that is still in the first cache. */
#ifndef FRY_TRAIN_ROWS_H
#define FRY_TRAIN_ROWS_H

#include "../scalar.h"
#include "numbers.h"
#include "ops.h"

#define ROW(kind, p, row, width) ((const void *)((const char *)(p) + (row) * (width) * (int64_t)size_of(kind)))
#define ROW_OUT(kind, p, row, width) ((void *)((char *)(p) + (row) * (width) * (int64_t)size_of(kind)))

INLINE void norm_forward_rows(const fry_kind kind, const int update, const int mask, const fry_norm *a, int64_t first,
                              int64_t last) {
    const int64_t w = a->width;
    for (int64_t row = first; row < last; row++) {
        const void *x = ROW(kind, a->x, row, w);
        vf squares = vf_set(0.0f);
        if (update) {
            const void *u = ROW(kind, a->update, row, w), *m = mask ? ROW(kind, a->mask, row, w) : 0;
            void *sum = ROW_OUT(kind, a->sum, row, w);
            EACH_REGISTER(i, 0, w, {
                const vf more = GET(kind, u, i);
                const vf v = mask ? vf_fma(more, GET(kind, m, i), GET(kind, x, i)) : vf_add(more, GET(kind, x, i));
                squares = vf_fma(v, v, squares);
                PUT(kind, sum, i, v);
            });
            x = sum;
        } else {
            EACH_REGISTER(i, 0, w, {
                const vf v = GET(kind, x, i);
                squares = vf_fma(v, v, squares);
            });
        }
        const float r = 1.0f / root_of(vf_sum(squares) / (float)w + a->eps);
        a->r[row] = r;
        void *y = ROW_OUT(kind, a->y, row, w);
        EACH_REGISTER(i, 0, w, { PUT(kind, y, i, vf_mul(vf_mul(GET(kind, x, i), vf_set(r)), GET(kind, a->gain, i))); });
    }
}

static void norm_forward(const fry_norm *a, int64_t first, int64_t last) {
    if (a->kind == FRY_BF16) {
        if (!a->update) norm_forward_rows(FRY_BF16, 0, 0, a, first, last);
        else if (!a->mask) norm_forward_rows(FRY_BF16, 1, 0, a, first, last);
        else norm_forward_rows(FRY_BF16, 1, 1, a, first, last);
    } else {
        norm_forward_rows(FRY_FP32, a->update != 0, a->mask != 0, a, first, last);
    }
}

INLINE void norm_backward_rows(const fry_kind kind, const int further, const int mask, const fry_norm *a, int64_t first,
                               int64_t last, float *dgain) {
    const int64_t w = a->width;
    for (int64_t row = first; row < last; row++) {
        const void *x = ROW(kind, a->x, row, w), *dy = ROW(kind, a->dy, row, w);
        const void *dsum = further ? ROW(kind, a->dsum, row, w) : 0, *m = mask ? ROW(kind, a->mask, row, w) : 0;
        void *dx = ROW_OUT(kind, a->dx, row, w), *dupdate = mask ? ROW_OUT(kind, a->dupdate, row, w) : 0;
        const vf r = vf_set(a->r[row]);
        vf dot = vf_set(0.0f);
        EACH_REGISTER(i, 0, w, {
            const vf n = vf_mul(GET(kind, x, i), r), d = GET(kind, dy, i);
            dot = vf_fma(vf_mul(d, n), GET(kind, a->gain, i), dot);
            PUT(FRY_FP32, dgain, i, vf_fma(d, n, GET(FRY_FP32, dgain, i)));
        });
        const vf mean = vf_set(-vf_sum(dot) / (float)w);
        EACH_REGISTER(i, 0, w, {
            const vf n = vf_mul(GET(kind, x, i), r);
            vf d = vf_mul(vf_fma(n, mean, vf_mul(GET(kind, dy, i), GET(kind, a->gain, i))), r);
            if (further) d = vf_add(d, GET(kind, dsum, i));
            PUT(kind, dx, i, d);
            if (mask) PUT(kind, dupdate, i, vf_mul(d, GET(kind, m, i)));
        });
    }
}

static void norm_backward(const fry_norm *a, int64_t first, int64_t last, float *dgain) {
    if (a->kind == FRY_BF16) {
        if (!a->dsum) norm_backward_rows(FRY_BF16, 0, a->mask != 0, a, first, last, dgain);
        else if (!a->mask) norm_backward_rows(FRY_BF16, 1, 0, a, first, last, dgain);
        else norm_backward_rows(FRY_BF16, 1, 1, a, first, last, dgain);
    } else {
        norm_backward_rows(FRY_FP32, a->dsum != 0, a->mask != 0, a, first, last, dgain);
    }
}

INLINE void swiglu_forward_rows(const fry_kind kind, const fry_swiglu *a, int64_t first, int64_t last) {
    const int64_t w = a->width;
    for (int64_t row = first; row < last; row++) {
        const void *in = ROW(kind, a->gate_up, row, 2 * w);
        void *out = ROW_OUT(kind, a->out, row, w);
        EACH_REGISTER(i, 0, w, {
            const vf gate = GET(kind, in, i);
            PUT(kind, out, i, vf_mul(vf_mul(gate, sigmoid(gate)), GET(kind, in, w + i)));
        });
    }
}

static void swiglu_forward(const fry_swiglu *a, int64_t first, int64_t last) {
    if (a->kind == FRY_BF16) swiglu_forward_rows(FRY_BF16, a, first, last);
    else swiglu_forward_rows(FRY_FP32, a, first, last);
}

INLINE void swiglu_backward_rows(const fry_kind kind, const fry_swiglu *a, int64_t first, int64_t last) {
    const int64_t w = a->width;
    for (int64_t row = first; row < last; row++) {
        const void *in = ROW(kind, a->gate_up, row, 2 * w), *dout = ROW(kind, a->dout, row, w);
        void *din = ROW_OUT(kind, a->dgate_up, row, 2 * w);
        EACH_REGISTER(i, 0, w, {
            const vf gate = GET(kind, in, i), up = GET(kind, in, w + i), d = GET(kind, dout, i);
            const vf s = sigmoid(gate), silu = vf_mul(gate, s);
            /* d silu = s (1 + gate (1 - s)) = s + silu (1 - s) */
            const vf slope = vf_fma(silu, vf_sub(vf_set(1.0f), s), s);
            PUT(kind, din, i, vf_mul(vf_mul(d, up), slope));
            PUT(kind, din, w + i, vf_mul(d, silu));
        });
    }
}

static void swiglu_backward(const fry_swiglu *a, int64_t first, int64_t last) {
    if (a->kind == FRY_BF16) swiglu_backward_rows(FRY_BF16, a, first, last);
    else swiglu_backward_rows(FRY_FP32, a, first, last);
}

#define LEAST_SCORE -3.0e38f

INLINE float number_at(fry_kind kind, const void *p, int64_t i) {
    return kind == FRY_BF16 ? of_bits((uint32_t)((const bf16 *)p)[i] << 16) : ((const float *)p)[i];
}

INLINE void cross_entropy_rows(const fry_kind kind, const fry_cross_entropy *a, int64_t first, int64_t last) {
    const int64_t v = a->vocab;
    const float keep = 1.0f - a->smoothing, spread = a->smoothing / (float)v;
    for (int64_t row = first; row < last; row++) {
        void *logits = ROW_OUT(kind, a->logits, row, v);
        const float scale = a->scales[row];
        a->losses[row] = 0.0f;
        if (scale == 0.0f) {
            if (a->gradient) memset(logits, 0, (size_t)v * size_of(kind));
            continue;
        }
        vf most = vf_set(LEAST_SCORE);
        EACH_REGISTER(i, 0, v - v % LANES, { most = vf_max(most, GET(kind, logits, i)); });
        float top = vf_most(most);
        for (int64_t i = v - v % LANES; i < v; i++) {
            const float x = number_at(kind, logits, i);
            top = x > top ? x : top;
        }
        const vf to_two = vf_set(LOG2_E), base = vf_set(-top * LOG2_E);
        vf powers = vf_set(0.0f), sums = vf_set(0.0f);
        float rest = 0.0f;
        for (int64_t i = 0; i + LANES <= v; i += LANES) {
            const vf x = load(kind, logits, i);
            powers = vf_add(powers, exp2_of_register(vf_fma(x, to_two, base)));
            if (a->smoothing > 0.0f) sums = vf_add(sums, x);
        }
        for (int64_t i = v - v % LANES; i < v; i++) {
            const float x = number_at(kind, logits, i);
            rest += (float)exp_of((double)(x - top));
            if (a->smoothing > 0.0f) sums = vf_add(sums, vf_set(x / (float)LANES));
        }
        const float lse = top + (float)log_of((double)(vf_sum(powers) + rest));
        const int64_t target = a->targets[row];
        const float x = number_at(kind, logits, target);
        float loss = lse - keep * x;
        if (a->smoothing > 0.0f) loss -= spread * vf_sum(sums);
        a->losses[row] = scale * loss;
        if (!a->gradient) continue;
        const vf zero = vf_set(-lse * LOG2_E), by = vf_set(scale), less = vf_set(-scale * spread);
        EACH_REGISTER(i, 0, v, {
            const vf p = exp2_of_register(vf_fma(GET(kind, logits, i), to_two, zero));
            PUT(kind, logits, i, vf_fma(p, by, less));
        });
        /* Written anew rather than changed: the share of a likely target rounded to bf16 would hide what is missing. */
        const float share = (float)exp_of((double)(x - lse));
        store_part(kind, logits, target, 1, vf_set(scale * (share - spread - keep)));
    }
}

static void cross_entropy(const fry_cross_entropy *a, int64_t first, int64_t last) {
    if (a->kind == FRY_BF16) cross_entropy_rows(FRY_BF16, a, first, last);
    else cross_entropy_rows(FRY_FP32, a, first, last);
}

#endif
