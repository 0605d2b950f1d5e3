/* What the parts of libfry share. See fry.h for what the world sees. */
#ifndef FRY_INTERNAL_H
#define FRY_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "fry.h"

#define GROUP 32      /* inputs that share a scale */
#define PANEL 16      /* outputs that lie side by side in a packed matrix */
#define WIDE 4        /* panels that lie together, so that a step of a row reads four cache lines in order */
#define GROUP_BYTES (GROUP * PANEL + 2 * PANEL) /* of one panel: bytes, then bf16 scales */
#define BLOCK 96      /* tokens that go through a matrix together: their activations stay in the cache */
#define QUERIES 24    /* queries of one head whose scores are held together */
#define COLUMNS 256   /* of the head whose logits are held at once in scoring */
#define MOST_HEAD 512
#define ALIGNMENT 64

typedef enum { FRY_FP32 = 0, FRY_BF16 = 1, FRY_INT8 = 2, FRY_INT4 = 3 } fry_kind;

/* A right operand of K inputs and N outputs, packed in panels of 16 outputs of which up to four lie together. A step is
 * one input (fp32), two (bf16) or a group of 32 (int8), which holds eight times four bytes an output and then the scales.
 * N is rounded up to 16 and K to a step with zeros. */
typedef struct {
    int64_t n, k;
    int64_t steps;
    char *data;
    fry_kind kind; /* fp32, bf16 or int8: int4 is unpacked when a model is opened */
} matrix;

typedef struct {
    float *input_norm, *post_norm, *q_norm, *k_norm, *qkv_bias; /* padded with zeros to 16 */
    matrix qkv, o, gate_up, down;
} block;

/* A left operand: rows of floats, of bf16, or of bytes with a scale and 128 times the negative sum a group. */
typedef struct {
    void *data;
    float *scales;    /* (rows, groups) */
    int32_t *offsets; /* (rows, groups) */
    int64_t ld;       /* elements from row to row */
} operand;

/* Room for the tokens of one block on their way through the layers. */
typedef struct {
    float *x;       /* (BLOCK, width) the residual stream, rows padded with zeros to 16 */
    float *wide;    /* (BLOCK, widest) what a matrix gave */
    float *act;     /* (widest) one row before it becomes a left operand */
    float *mixed;   /* (BLOCK, H D) what attention gave */
    operand left;   /* (BLOCK, widest) */
    operand q;      /* (BLOCK, H) rows of D padded to 32: queries, in the numbers of the cache */
    float *scores;  /* (rows, length) */
    operand shares; /* (rows, length) in the numbers of the cache */
    float *out;     /* (rows, D padded to 64) */
    float *cosines, *sines; /* (length, D / 2 padded to 16) */
} workspace;

struct fry_scoring;

typedef struct fry_ops {
    const char *name;
    int flipped; /* bytes of int8 weights are kept with 128 added */
    int (*supported)(void);
    void (*forward)(fry_state *state, int64_t n, const int32_t *ids, const int32_t *rows, const int32_t *positions,
                    int64_t asked, const int32_t *which, float *logits);
    void (*score)(const fry_model *model, workspace *w, const struct fry_scoring *s, const fry_batch *in,
                  float *logprobs, uint8_t *greedy);
    int32_t (*argmax)(const float *x, int64_t n);
    float (*log_sum_exp)(const float *x, int64_t n);
} fry_ops;

extern const fry_ops fry_ops_plain, fry_ops_avx2, fry_ops_avx512, fry_ops_avx512vnni, fry_ops_avx512bf16, fry_ops_neon,
    fry_ops_neondot, fry_ops_wasm;

typedef struct buffer buffer; /* see score.c */

struct fry_model {
    fry_config config;
    fry_kind kind;
    const fry_ops *ops;
    float *norm;
    matrix embed, head; /* the same where they are tied */
    block *blocks;
    void *memory; /* one allocation holds everything above */
    buffer *spares; /* SPARES workspaces of earlier scorings: pages that are there already */
};

struct fry_state {
    const fry_model *model;
    int32_t rows, length; /* as asked for */
    int64_t padded;       /* length, a multiple of 64 */
    int64_t turned;       /* positions whose rotary tables are filled */
    int32_t *used;        /* (rows) tokens read */
    int32_t *live;        /* (rows) entries still being written; also marks rows while arguments are checked */
    int32_t *order;       /* (vocab) */
    int64_t logit_rows;   /* places of a block after which logits may be asked */
    float *logits;        /* (logit_rows, vocab padded to 64) */
    workspace w;
    char *cache; /* (layers, rows, heads) */
    int64_t head_bytes, row_bytes, layer_bytes;
    void *memory;
    size_t bytes;
};

/* What scoring needs beside a workspace; laid out by model.c, used by the kernels. */
struct fry_scoring {
    float *x;            /* (tokens, width padded) the residual stream of every token */
    float *mixed;        /* (tokens, H D) */
    operand q;           /* (tokens, H) rows of D padded to 32 */
    char *cache;         /* keys and values of every row in one layer */
    int64_t *row_cache;  /* (rows + 1) where each row's begin */
    int32_t *from;       /* (places + 1) */
    uint8_t *asked;      /* (tokens) */
    int64_t places;
};

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static inline int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

static inline int64_t steps_of(fry_kind kind, int64_t k) {
    return kind == FRY_FP32 ? k : kind == FRY_BF16 ? (k + 1) / 2 : (k + GROUP - 1) / GROUP;
}

static inline int64_t step_bytes(fry_kind kind) { /* of one panel */
    return kind == FRY_INT8 ? GROUP_BYTES : 4 * PANEL;
}

static inline int64_t matrix_bytes(fry_kind kind, int64_t n, int64_t k) {
    return round_up(n, PANEL) / PANEL * steps_of(kind, k) * step_bytes(kind);
}

/* Where the four panels begin that output n, a multiple of 64, is the first of. */
static inline char *panels_at(const matrix *m, int64_t n) {
    return m->data + n / PANEL * m->steps * step_bytes(m->kind);
}

/* How many panels lie together there. */
static inline int64_t panels_together(const matrix *m, int64_t n) {
    const int64_t rest = (round_up(m->n, PANEL) - n) / PANEL;
    return rest < WIDE ? rest : WIDE;
}

static inline int64_t number_bytes(fry_kind kind) { return kind == FRY_FP32 ? 4 : kind == FRY_BF16 ? 2 : 1; }

/* Keys and values of one head, as right operands in the model's kind: keys of `length` outputs and D inputs, values of
 * D outputs and `length` inputs, and for int8 a scale a value, whose group holds 1. */
static inline int64_t head_cache_bytes(fry_kind kind, int64_t d, int64_t length) {
    const int64_t scales = kind == FRY_INT8 ? length * (int64_t)sizeof(float) : 0;
    return round_up(matrix_bytes(kind, length, d) + matrix_bytes(kind, d, length) + scales, ALIGNMENT);
}

static inline matrix keys_of(fry_kind kind, char *cache, int64_t d, int64_t length) {
    return (matrix){length, d, steps_of(kind, d), cache, kind};
}

static inline matrix values_of(fry_kind kind, char *cache, int64_t d, int64_t length) {
    return (matrix){d, length, steps_of(kind, length), cache + matrix_bytes(kind, length, d), kind};
}

static inline float *value_scales(const matrix *values) { /* (length), of int8 */
    return (float *)(values->data + matrix_bytes(values->kind, values->n, values->k));
}

static inline int64_t widest(const fry_config *c) {
    int64_t most = (int64_t)(c->num_heads + 2 * c->num_kv_heads) * c->head_dim;
    most = at_least(most, at_least(2 * (int64_t)c->intermediate_size, c->hidden_size));
    return round_up(at_least(most, COLUMNS), WIDE * PANEL) + WIDE * PANEL;
}

#endif
