/* libfry: very small language models without a framework.
 *
 * C11, no dependencies. A model is opened from the bytes of a flat file (version 1, described in
 * smallfry/engine/weights.py and checked here in every field). A state holds keys, values and every workspace for a
 * number of sequences; after it is made, reading and writing allocate nothing. Several threads may use one model, each
 * with a state of its own.
 *
 *     fry_model *model;
 *     fry_state *state;
 *     fry_open(bytes, size, NULL, &model);
 *     fry_state_new(model, 1, 256, &state);
 *     float logits[VOCAB];                       // fry_config_of(model)->vocab_size
 *     int32_t row = 0, count = 3, prompt[3] = {...};
 *     fry_read(state, 1, &row, &count, prompt, logits);
 *     int32_t next = fry_argmax(model, logits);
 */
#ifndef FRY_H
#define FRY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FRY_VERSION 2 /* of this interface */

/* The shape of a Qwen3, Qwen2 or Llama model. */
typedef struct {
    int32_t vocab_size, hidden_size, num_layers, num_heads, num_kv_heads, head_dim, intermediate_size;
    int32_t qk_norm;       /* queries and keys have a gain of head_dim */
    int32_t qkv_bias;      /* queries, keys and values have biases */
    int32_t untied;        /* the head is not the embedding */
    int32_t max_positions; /* longest sequence the model was made for; longer ones are computed all the same */
    int32_t bos, end, pad; /* ids, -1 where there is none */
    float norm_eps, rope_theta;
} fry_config;

typedef struct fry_model fry_model;
typedef struct fry_state fry_state;

enum {
    FRY_OK = 0,
    FRY_UNSUPPORTED = 1, /* this machine lacks the kernel set, or a head is wider than 512 */
    FRY_BAD_ARGUMENT = 2,
    FRY_OUT_OF_MEMORY = 3,
    FRY_BAD_FILE = 4,    /* not a flat file of this version, or damaged */
    FRY_FULL = 5         /* a sequence would be longer than its state */
};

/* Names of the kernel sets that this machine can use, best first; NULL after the last. */
const char *fry_kernels(int index);

/* Open a model. `kernels` names a set, NULL is the best. The bytes are not needed afterwards. */
int fry_open(const void *bytes, size_t size, const char *kernels, fry_model **model);
void fry_close(fry_model *model);
const fry_config *fry_config_of(const fry_model *model);
const char *fry_kernels_of(const fry_model *model);
size_t fry_weight_bytes(const fry_model *model); /* of the packed matrices: what a token of one sequence reads */

/* ---- reading and writing ------------------------------------------------------------------------------------------ */

/* Room for `rows` sequences of up to `length` tokens. */
int fry_state_new(const fry_model *model, int32_t rows, int32_t length, fry_state **state);
void fry_state_free(fry_state *state);
size_t fry_state_bytes(const fry_state *state);

/* Tokens that a row holds. */
int32_t fry_length(const fry_state *state, int32_t row);

/* Forget what a row holds behind its first `length` tokens. */
int fry_rewind(fry_state *state, int32_t row, int32_t length);

/* Make row `to` begin with the first `length` tokens of row `from`, as if it had read them (prefix reuse). */
int fry_copy(fry_state *state, int32_t from, int32_t to, int32_t length);

/* Read tokens: entry i gives row rows[i] its next counts[i] >= 1 tokens, all entries' tokens end to end in ids; no row
 * twice. logits (n, vocab_size) are those after the last token of each entry, or NULL. */
int fry_read(fry_state *state, int32_t n, const int32_t *rows, const int32_t *counts, const int32_t *ids,
             float *logits);

/* The logits after every token of one row's next `count` tokens: (count, vocab_size). */
int fry_read_all(fry_state *state, int32_t row, int32_t count, const int32_t *ids, float *logits);

/* The first of the greatest logits. */
int32_t fry_argmax(const fry_model *model, const float *logits);

/* Logits to log-probabilities in nats, in place. */
void fry_log_softmax(const fry_model *model, float *logits);

/* ---- choosing ----------------------------------------------------------------------------------------------------- */

/* How the next token is drawn; all zeros takes the likeliest. Filters apply in this order. */
typedef struct {
    float repetition;  /* divides positive and multiplies negative logits of recent tokens (Keskar 2019); 0 or 1: off */
    float temperature; /* logits are divided by it; 0: the likeliest */
    int32_t top_k;     /* only the k likeliest; 0: all */
    float top_p;       /* only the likeliest that have this probability together (Holtzman 2020); 0 or 1: all */
    float min_p;       /* only those with at least this share of the likeliest one's probability; 0: all */
} fry_sampling;

/* Draw a token. Nothing is allocated; logits are changed.
 *   mask     a bit a token, lowest bit first, 1 where it may be written; NULL where any may
 *   recent   the tokens that repetition looks at
 *   order    room for vocab_size integers
 *   random   state of the draws: any number to begin with
 *   logprob  log-probability of the token among those the mask allows, before temperature and filters; may be NULL
 * Returns the token, or -1 where the mask allows none. */
int32_t fry_sample(float *logits, int32_t vocab_size, const fry_sampling *sampling, const uint8_t *mask,
                   const int32_t *recent, int32_t num_recent, int32_t *order, uint64_t *random, float *logprob);

/* Called for every token written; anything but 0 ends that sequence. */
typedef int (*fry_token)(void *context, int32_t entry, int32_t token, float logprob);

/* Write on: entry i continues row rows[i], whose next token's logits are logits[i] (n, vocab_size; changed), with up to
 * max_new tokens or up to `end` (-1: none), which is written too.
 *   ids      (n, max_new) tokens written;  counts (n) how many
 *   logprobs (n, max_new) or NULL
 *   random   (n) states of the draws; NULL where sampling is NULL
 *   tell     or NULL
 * The last token of each entry is not yet read. */
int fry_generate(fry_state *state, int32_t n, const int32_t *rows, float *logits, const fry_sampling *sampling,
                 uint64_t *random, int32_t end, int32_t max_new, int32_t *ids, int32_t *counts, float *logprobs,
                 fry_token tell, void *context);

/* ---- scoring ------------------------------------------------------------------------------------------------------ */

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

/* Score a batch: logprobs (num_questions) in nats, greedy (num_questions) 1 where the target is the likeliest token. */
int fry_score(fry_model *model, const fry_batch *batch, float *logprobs, uint8_t *greedy);

#ifdef __cplusplus
}
#endif
#endif
