/* Training kernels: what a training step does between its matrix products, each in one pass over its tensors.
 *
 * Tensors are rows of fp32 or bf16 numbers (`kind`), laid end to end; statistics, gains' gradients, masters and moments
 * are floats. Nothing here multiplies weights: those products belong to the caller's library.
 */
#ifndef FRY_TRAIN_H
#define FRY_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#define FRY_TRAIN_VERSION 1

/* Names of the kernel sets that this machine can use, best first; NULL after the last. */
const char *fry_train_kernels(int index);

/* Compute with this set from now on; NULL is the best. Returns 0, or 1 where the machine lacks it. */
int fry_train_choose(const char *name);

/* Share work among threads: run(work, job, threads, 0) calls work(job) in that many threads at once and waits for all.
 * That is GOMP_parallel of the OpenMP library that the matrix products use, so that cores are not asked for twice.
 * Without it, or with threads = 1, everything is computed in the calling thread. */
void fry_train_threads(void (*run)(void (*work)(void *), void *job, unsigned threads, unsigned flags), int threads);

/* All functions return 0, 2 for a wrong argument, or 3 where there is no memory. */

/* sum = x + update mask;  y = sum r gain with r = (mean(sum^2) + eps)^-1/2. Without an update, sum is x and not written.
 * Backwards: dx = dsum + the gradient of y;  dupdate = dx mask (where there is a mask);  dgain is added to. */
typedef struct {
    int32_t kind;
    float eps;
    int64_t rows, width;
    const void *x, *update, *mask, *gain; /* (rows, width), or NULL: update, mask; (width) gain */
    void *sum, *y;                        /* (rows, width) */
    float *r;                             /* (rows) */
    const void *dy, *dsum;                /* (rows, width); dsum or NULL */
    void *dx, *dupdate;                   /* (rows, width); dupdate or NULL */
    float *dgain;                         /* (width) */
} fry_norm;
int fry_norm_forward(const fry_norm *args);
int fry_norm_backward(const fry_norm *args); /* x is what sum was */

/* out = silu(gate) up, where a row of gate_up is gate, then up. */
typedef struct {
    int32_t kind;
    int64_t rows, width;
    const void *gate_up; /* (rows, 2 width) */
    void *out;           /* (rows, width) */
    const void *dout;
    void *dgate_up;
} fry_swiglu;
int fry_swiglu_forward(const fry_swiglu *args);
int fry_swiglu_backward(const fry_swiglu *args);

/* Causal attention over rows of queries, keys and values as one matrix gave them, with norms and rotary positions. */
typedef struct {
    int32_t kind;
    float eps;
    int64_t batch, length, heads, kv_heads, head_dim;
    const void *qkv;             /* (batch, length, heads + 2 kv_heads, head_dim) */
    const void *q_gain, *k_gain; /* (head_dim), or NULL: no norm */
    const float *cosines, *sines; /* (length, head_dim / 2 padded to 16) */
    void *out;                   /* (batch, length, heads, head_dim) */
    float *tops, *inverses;      /* (batch, heads, length) of the softmax, for the way back */
    const void *dout;
    void *dqkv;
    float *dq_gain, *dk_gain;    /* (head_dim), added to; NULL where there is no norm */
} fry_attention;
int fry_attention_forward(const fry_attention *args);
int fry_attention_backward(const fry_attention *args);

/* Cross-entropy of rows of logits, which become their gradients:
 *   loss = scale ((1 - smoothing) (lse - logit of the target) + smoothing (lse - mean logit)) */
typedef struct {
    int32_t kind;
    float smoothing;
    int64_t rows, vocab;
    void *logits;           /* (rows, vocab) */
    const int64_t *targets; /* (rows) */
    const float *scales;    /* (rows); 0 leaves a row out */
    float *losses;          /* (rows) */
    int32_t gradient;       /* 0: logits stay as they are */
} fry_cross_entropy;
int fry_cross_entropy_rows(const fry_cross_entropy *args);

/* dw (out, in) = the sum over rows of dy (rows, out) times x (rows, in), all bf16. Returns 1 where the kernel set has no
 * faster way than a library's product. */
typedef struct {
    int64_t rows, out, in;
    const void *dy, *x;
    void *dw;
} fry_weight_gradient;
int fry_weights_gradient(const fry_weight_gradient *args);

/* sums (count) += x (count) of a kind. */
int fry_add(int32_t kind, int64_t count, const void *x, float *sums);

/* The sum of squares of `count` numbers of a kind. */
int fry_sum_squares(int32_t kind, int64_t count, const void *x, double *sum);

/* One step of a parameter: decoupled decay, then Adam (Kingma and Ba 2015; Loshchilov and Hutter 2019) or a given
 * direction; the average moves towards the master; the weight is the master, rounded. */
typedef struct {
    int32_t kind;      /* of the weight */
    int32_t grad_kind; /* of the gradient or direction */
    int64_t count;
    const void *grad;
    void *weight;
    float *master, *first, *second, *average; /* average or NULL */
    float lr, beta1, beta2, eps, weight_decay; /* weight_decay is lr times the decay */
    float scale;       /* of the gradient: clipping */
    float correct1, correct2; /* 1 - beta1^t and its like */
    float towards;     /* how far the average moves to the master */
} fry_step;
int fry_adamw(const fry_step *args);

/* first = beta1 first + (1 - beta1) g;  out = beta1 first + (1 - beta1) g (Nesterov), in the weight's kind, at `weight`;
 * sum is of the squares of out. */
int fry_momentum(const fry_step *args, double *sum);

/* master = master (1 - weight_decay) - lr grad. */
int fry_apply(const fry_step *args);

#endif
