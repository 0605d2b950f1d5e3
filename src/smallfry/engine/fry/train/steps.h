/* The optimizer's passes over a parameter. */
#ifndef FRY_TRAIN_STEPS_H
#define FRY_TRAIN_STEPS_H

#include "numbers.h"
#include "ops.h"

static void add(int32_t kind, const void *x, float *sums, int64_t first, int64_t last) {
    if (kind == FRY_BF16)
        EACH_REGISTER(i, first, last, { PUT(FRY_FP32, sums, i, vf_add(GET(FRY_FP32, sums, i), GET(FRY_BF16, x, i))); });
    else
        EACH_REGISTER(i, first, last, { PUT(FRY_FP32, sums, i, vf_add(GET(FRY_FP32, sums, i), GET(FRY_FP32, x, i))); });
}

#define BLOCK_OF_SQUARES 4096 /* floats are summed in blocks, blocks in double */

INLINE double squares_of(const fry_kind kind, const void *x, int64_t first, int64_t last) {
    double sum = 0.0;
    for (int64_t at = first; at < last; at += BLOCK_OF_SQUARES) {
        const int64_t end = at + BLOCK_OF_SQUARES < last ? at + BLOCK_OF_SQUARES : last;
        vf squares = vf_set(0.0f);
        EACH_REGISTER(i, at, end, {
            const vf v = GET(kind, x, i);
            squares = vf_fma(v, v, squares);
        });
        sum += (double)vf_sum(squares);
    }
    return sum;
}

static double sum_squares(int32_t kind, const void *x, int64_t first, int64_t last) {
    return kind == FRY_BF16 ? squares_of(FRY_BF16, x, first, last) : squares_of(FRY_FP32, x, first, last);
}

/* The master, decayed and moved by `move`; then the average and the weight. */
#define MOVE(kind, a, i, move)                                                                                         \
    do {                                                                                                               \
        const vf moved = vf_sub(vf_mul(GET(FRY_FP32, (a)->master, i), vf_set(1.0f - (a)->weight_decay)), move);        \
        PUT(FRY_FP32, (a)->master, i, moved);                                                                          \
        PUT(kind, (a)->weight, i, moved);                                                                              \
        if ((a)->average) {                                                                                            \
            const vf mean = GET(FRY_FP32, (a)->average, i);                                                            \
            PUT(FRY_FP32, (a)->average, i, vf_fma(vf_sub(moved, mean), vf_set((a)->towards), mean));                   \
        }                                                                                                              \
    } while (0)

INLINE void adamw_numbers(const fry_kind kind, const fry_kind grad, const fry_step *a, int64_t first, int64_t last) {
    const vf keep1 = vf_set(1.0f - a->beta1), keep2 = vf_set(1.0f - a->beta2), beta2 = vf_set(a->beta2);
    const vf root2 = vf_set(1.0f / root_of(a->correct2)), rate = vf_set(a->lr / a->correct1), eps = vf_set(a->eps);
    EACH_REGISTER(i, first, last, {
        const vf g = vf_mul(GET(grad, a->grad, i), vf_set(a->scale));
        const vf was = GET(FRY_FP32, a->first, i);
        const vf m = vf_fma(vf_sub(g, was), keep1, was);
        const vf v = vf_fma(vf_mul(g, g), keep2, vf_mul(GET(FRY_FP32, a->second, i), beta2));
        PUT(FRY_FP32, a->first, i, m);
        PUT(FRY_FP32, a->second, i, v);
        const vf move = vf_mul(rate, vf_div(m, vf_fma(vf_root(v), root2, eps)));
        MOVE(kind, a, i, move);
    });
}

static void adamw(const fry_step *a, int64_t first, int64_t last) {
    if (a->kind == FRY_BF16 && a->grad_kind == FRY_BF16) adamw_numbers(FRY_BF16, FRY_BF16, a, first, last);
    else if (a->kind == FRY_BF16) adamw_numbers(FRY_BF16, FRY_FP32, a, first, last);
    else adamw_numbers(FRY_FP32, (fry_kind)a->grad_kind, a, first, last);
}

INLINE double momentum_numbers(const fry_kind kind, const fry_kind grad, const fry_step *a, int64_t first,
                               int64_t last) {
    const vf keep = vf_set(1.0f - a->beta1), beta = vf_set(a->beta1);
    double sum = 0.0;
    for (int64_t at = first; at < last; at += BLOCK_OF_SQUARES) {
        const int64_t end = at + BLOCK_OF_SQUARES < last ? at + BLOCK_OF_SQUARES : last;
        vf squares = vf_set(0.0f);
        EACH_REGISTER(i, at, end, {
            const vf g = vf_mul(GET(grad, a->grad, i), vf_set(a->scale));
            const vf was = GET(FRY_FP32, a->first, i);
            const vf m = vf_fma(vf_sub(g, was), keep, was);
            PUT(FRY_FP32, a->first, i, m);
            const vf direction = vf_fma(vf_sub(m, g), beta, g);
            PUT(kind, a->weight, i, direction);
            squares = vf_fma(direction, direction, squares);
        });
        sum += (double)vf_sum(squares);
    }
    return sum;
}

static double momentum(const fry_step *a, int64_t first, int64_t last) {
    if (a->kind == FRY_BF16 && a->grad_kind == FRY_BF16) return momentum_numbers(FRY_BF16, FRY_BF16, a, first, last);
    if (a->kind == FRY_BF16) return momentum_numbers(FRY_BF16, FRY_FP32, a, first, last);
    return momentum_numbers(FRY_FP32, (fry_kind)a->grad_kind, a, first, last);
}

INLINE void apply_numbers(const fry_kind kind, const fry_kind grad, const fry_step *a, int64_t first, int64_t last) {
    EACH_REGISTER(i, first, last, {
        const vf move = vf_mul(GET(grad, a->grad, i), vf_set(a->lr));
        MOVE(kind, a, i, move);
    });
}

static void apply(const fry_step *a, int64_t first, int64_t last) {
    if (a->kind == FRY_BF16 && a->grad_kind == FRY_BF16) apply_numbers(FRY_BF16, FRY_BF16, a, first, last);
    else apply_numbers((fry_kind)a->kind, (fry_kind)a->grad_kind, a, first, last);
}

#endif
