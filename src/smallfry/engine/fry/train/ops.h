/* What a kernel set offers to train.c: each function does rows or items [first, last) of its arguments. */
#ifndef FRY_TRAIN_OPS_H
#define FRY_TRAIN_OPS_H

#include "train.h"

typedef struct {
    const char *name;
    int (*supported)(void);
    void (*norm_forward)(const fry_norm *a, int64_t first, int64_t last);
    void (*norm_backward)(const fry_norm *a, int64_t first, int64_t last, float *dgain);
    void (*swiglu_forward)(const fry_swiglu *a, int64_t first, int64_t last);
    void (*swiglu_backward)(const fry_swiglu *a, int64_t first, int64_t last);
    /* One item is a sequence's key head and the query heads that use it; scratch as attention_bytes says. */
    int64_t (*attention_bytes)(const fry_attention *a, int backward);
    void (*attention_forward)(const fry_attention *a, int64_t item, char *scratch);
    void (*attention_backward)(const fry_attention *a, int64_t item, char *scratch, float *dq_gain, float *dk_gain);
    void (*cross_entropy)(const fry_cross_entropy *a, int64_t first, int64_t last);
    /* The gradient of weights, by panels of the wider side; NULL where libraries do it well. */
    int64_t (*gradient_panels)(const fry_weight_gradient *a);
    int64_t (*gradient_bytes)(const fry_weight_gradient *a, int64_t panels);
    void (*weight_gradient)(const fry_weight_gradient *a, int64_t first, int64_t last, char *scratch);
    void (*add)(int32_t kind, const void *x, float *sums, int64_t first, int64_t last);
    double (*sum_squares)(int32_t kind, const void *x, int64_t first, int64_t last);
    void (*adamw)(const fry_step *a, int64_t first, int64_t last);
    double (*momentum)(const fry_step *a, int64_t first, int64_t last);
    void (*apply)(const fry_step *a, int64_t first, int64_t last);
} fry_train_ops;

extern const fry_train_ops fry_train_ops_plain, fry_train_ops_avx2, fry_train_ops_avx512, fry_train_ops_avx512bf16,
    fry_train_ops_amx, fry_train_ops_neon;

#endif
