/* libfry: very small language models without a framework.
 *
 * C11, no dependencies. A model is opened from plain fp32 arrays, which are packed once for the kernels of this machine;
 * a call takes a workspace that is kept for the next one, so that several threads may use one model at once.
 */
#ifndef FRY_H
#define FRY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FRY_VERSION 1

/* The shape of a Qwen3, Qwen2 or Llama model. */
typedef struct {
    int32_t vocab_size, hidden_size, num_layers, num_heads, num_kv_heads, head_dim, intermediate_size;
    int32_t qk_norm;      /* queries and keys have a gain of head_dim */
    int32_t qkv_bias;     /* queries, keys and values have biases */
    float norm_eps, rope_theta;
} fry_config;

/* Weights of one block, row-major (outputs, inputs), fp32. NULL where the model has none. */
typedef struct {
    const float *input_norm;  /* (C) */
    const float *qkv;         /* ((H + 2 K) D, C) */
    const float *qkv_bias;    /* ((H + 2 K) D) or NULL */
    const float *q_norm;      /* (D) or NULL */
    const float *k_norm;      /* (D) or NULL */
    const float *o;           /* (C, H D) */
    const float *post_norm;   /* (C) */
    const float *gate_up;     /* (2 F, C): gate, then up */
    const float *down;        /* (C, F) */
} fry_block;

typedef struct fry_model fry_model;

/* What fry_score reads: rows of tokens laid end to end.
 *
 * A row is a prefix and then branches, each of which sees the prefix and itself only. Questions ask for the
 * log-probability of a target after a place; they are sorted by place.
 */
typedef struct {
    int32_t num_rows;
    const int32_t *row_start; /* (num_rows + 1) first token of each row, and the end */
    const int32_t *prefix;    /* (num_rows) tokens of each prefix, at least 1 */
    const int32_t *ids;       /* (tokens) */
    const int32_t *positions; /* (tokens) */
    const int32_t *branch;    /* (tokens) where in its row the token's branch begins; 0 in the prefix */
    int32_t num_questions;
    const int32_t *places;    /* (num_questions) token after which the target stands, counted over all rows */
    const int32_t *targets;   /* (num_questions) */
} fry_batch;

enum {
    FRY_OK = 0,
    FRY_UNSUPPORTED = 1, /* this machine or this shape has no kernel here */
    FRY_BAD_ARGUMENT = 2,
    FRY_OUT_OF_MEMORY = 3
};

/* Whether this machine has the kernels that fry_score needs (AVX-512 with bf16). */
int fry_supported(void);

/* Pack a model. Weights are rounded to bf16; head is NULL where the embedding is the head. */
int fry_open(const fry_config *config, const float *embed, const float *norm, const float *head,
             const fry_block *blocks, fry_model **model);

void fry_close(fry_model *model);

/* Score a batch: logprobs (num_questions) in nats, greedy (num_questions) 1 where the target is the likeliest token. */
int fry_score(fry_model *model, const fry_batch *batch, float *logprobs, uint8_t *greedy);

#ifdef __cplusplus
}
#endif
#endif
