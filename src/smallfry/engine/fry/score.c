/* Scoring: log-probabilities of continuations whose prefixes are read once. See fry.h. */
#include "fry.h"

#include <stdatomic.h>
#include <stdlib.h>

#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#include "kernels.h"

#define BLOCK 96    /* tokens that go through a matrix together: their activations stay in the cache */
#define QUERIES 24  /* queries of one head whose scores are held together */
#define VOCAB 256   /* columns of the head whose logits are held at once */
#define SPARES 64    /* workspaces that are kept */
#define MOST_HALF 256 /* half of the widest head */
#define ALIGNMENT 64

typedef struct {
    float *input_norm, *post_norm, *q_norm, *k_norm, *qkv_bias;
    packed qkv, o, gate_up, down;
} block;

typedef struct {
    int64_t size;
    char padding[ALIGNMENT - sizeof(int64_t)];
    char data[];
} buffer;

struct fry_model {
    fry_config config;
    float *norm, *embed;
    packed head;
    block *blocks;
    void *memory;                     /* one allocation holds everything above */
    _Atomic(buffer *) spares[SPARES]; /* workspaces of earlier calls: pages that are there already */
};

int fry_supported(void) {
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

/* ---- memory: counted first, then cut from one allocation -------------------------------------------------------- */

typedef struct {
    char *base;
    size_t used;
} arena;

static void *take(arena *a, int64_t count, size_t size) {
    void *at = a->base ? a->base + a->used : 0;
    a->used += (size_t)round_up(count * (int64_t)size, ALIGNMENT);
    return at;
}

static void *aligned(size_t size) {
    return aligned_alloc(ALIGNMENT, (size_t)round_up((int64_t)size + ALIGNMENT, ALIGNMENT));
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static float *kept(arena *a, const float *from, int64_t n) {
    float *to = from ? take(a, n + LANES, sizeof(float)) : 0;
    if (to && a->base) memcpy(to, from, (size_t)n * sizeof(float));
    return to;
}

static void packed_into(arena *a, packed *b, const float *weights, int64_t n, int64_t k) {
    bf16 *data = take(a, packed_size(n, k), sizeof(bf16));
    if (a->base) pack(b, weights, n, k, data);
}

static void fill(arena *a, fry_model *m, const float *embed, const float *norm, const float *head,
                 const fry_block *blocks) {
    const fry_config *c = &m->config;
    const int64_t width = c->hidden_size, heads = c->num_heads + 2 * c->num_kv_heads, d = c->head_dim;
    const int64_t inner = c->intermediate_size;
    m->embed = kept(a, embed, (int64_t)c->vocab_size * width);
    m->norm = kept(a, norm, width);
    packed_into(a, &m->head, head ? head : embed, c->vocab_size, width);
    for (int64_t i = 0; i < c->num_layers; i++) {
        const fry_block *from = blocks + i;
        block unused, *to = a->base ? m->blocks + i : &unused;
        to->input_norm = kept(a, from->input_norm, width);
        to->post_norm = kept(a, from->post_norm, width);
        to->q_norm = kept(a, c->qk_norm ? from->q_norm : 0, d);
        to->k_norm = kept(a, c->qk_norm ? from->k_norm : 0, d);
        to->qkv_bias = kept(a, c->qkv_bias ? from->qkv_bias : 0, heads * d);
        packed_into(a, &to->qkv, from->qkv, heads * d, width);
        packed_into(a, &to->o, from->o, width, c->num_heads * d);
        packed_into(a, &to->gate_up, from->gate_up, 2 * inner, width);
        packed_into(a, &to->down, from->down, width, inner);
    }
}

int fry_open(const fry_config *c, const float *embed, const float *norm, const float *head, const fry_block *blocks,
             fry_model **model) {
    if (!fry_supported()) return FRY_UNSUPPORTED;
    if (!c || !embed || !norm || !blocks || !model) return FRY_BAD_ARGUMENT;
    const int32_t sizes[] = {c->vocab_size, c->hidden_size,  c->num_layers,       c->num_heads,
                             c->num_kv_heads, c->head_dim, c->intermediate_size};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] < 1 || sizes[i] > 1 << 24) return FRY_BAD_ARGUMENT;
    if (c->num_heads % c->num_kv_heads) return FRY_BAD_ARGUMENT;
    /* Registers of 16 cut heads, gates and widths without rests; other shapes run elsewhere. */
    if ((c->head_dim % (2 * LANES) && c->head_dim != LANES) || c->head_dim > 2 * MOST_HALF) return FRY_UNSUPPORTED;
    if (c->hidden_size % 2 || c->intermediate_size % LANES) return FRY_UNSUPPORTED;
    fry_model *m = calloc(1, sizeof *m);
    if (!m) return FRY_OUT_OF_MEMORY;
    m->config = *c;
    m->blocks = calloc((size_t)c->num_layers, sizeof *m->blocks);
    arena counted = {0, 0};
    fill(&counted, m, embed, norm, head, blocks);
    arena real = {aligned(counted.used), 0};
    m->memory = real.base;
    if (!m->blocks || !real.base) {
        fry_close(m);
        return FRY_OUT_OF_MEMORY;
    }
    fill(&real, m, embed, norm, head, blocks);
    *model = m;
    return FRY_OK;
}

static buffer *borrow(fry_model *m, int64_t size) {
    for (int i = 0; i < SPARES; i++) {
        buffer *b = atomic_exchange(&m->spares[i], (buffer *)0);
        if (b && b->size >= size) return b;
        free(b);
    }
    buffer *b = aligned((size_t)size + sizeof *b);
    if (b) b->size = size;
    return b;
}

static void give_back(fry_model *m, buffer *b) {
    for (int i = 0; i < SPARES; i++) {
        buffer *none = 0;
        if (atomic_compare_exchange_strong(&m->spares[i], &none, b)) return;
    }
    free(b);
}

void fry_close(fry_model *m) {
    if (!m) return;
    for (int i = 0; i < SPARES; i++) free(atomic_load(&m->spares[i]));
    free(m->memory);
    free(m->blocks);
    free(m);
}

/* ---- the forward pass -------------------------------------------------------------------------------------------- */

typedef struct {
    float *x;                    /* (tokens, C) the residual stream */
    bf16 *q, *k, *v, *mixed;     /* (tokens, heads * D) */
    float *cosines, *sines;      /* (positions, D / 2) */
    bf16 *left;                  /* (BLOCK, max(C, F)) left operand of a product */
    float *wide;                 /* (BLOCK, widest output) its result */
    bf16 *keys, *values;         /* packed operands of one head */
    float *scores;               /* (QUERIES, longest row) */
    bf16 *shares;                /* the same as bf16 */
    float *out;                  /* (QUERIES, D) */
    int32_t *from;               /* (places asked + 1) first question of each */
    uint8_t *asked;              /* (tokens) whether something is asked after a token */
} workspace;

static int64_t widest(const fry_config *c) {
    const int64_t qkv = (int64_t)(c->num_heads + 2 * c->num_kv_heads) * c->head_dim, mlp = 2 * (int64_t)c->intermediate_size;
    const int64_t most = qkv > mlp ? qkv : mlp;
    return round_up(most > c->hidden_size ? most : c->hidden_size, WIDE * LANES) + VOCAB;
}

static void lay_out(arena *a, workspace *w, const fry_config *c, int64_t tokens, int64_t longest, int64_t positions,
                    int64_t questions) {
    const int64_t d = c->head_dim, keys = round_up(longest, WIDE * LANES);
    const int64_t most = c->hidden_size > c->intermediate_size ? c->hidden_size : c->intermediate_size;
    w->x = take(a, tokens * c->hidden_size + LANES, sizeof(float));
    w->q = take(a, tokens * c->num_heads * d, sizeof(bf16));
    w->k = take(a, tokens * c->num_kv_heads * d, sizeof(bf16));
    w->v = take(a, tokens * c->num_kv_heads * d, sizeof(bf16));
    w->mixed = take(a, tokens * c->num_heads * d, sizeof(bf16));
    w->cosines = take(a, positions * d / 2, sizeof(float));
    w->sines = take(a, positions * d / 2, sizeof(float));
    w->left = take(a, BLOCK * (most + 2 * LANES), sizeof(bf16));
    w->wide = take(a, BLOCK * widest(c), sizeof(float));
    w->keys = take(a, keys * d, sizeof(bf16));
    w->values = take(a, keys * round_up(d, LANES), sizeof(bf16));
    w->scores = take(a, QUERIES * keys, sizeof(float));
    w->shares = take(a, QUERIES * keys, sizeof(bf16));
    w->out = take(a, QUERIES * round_up(d, WIDE * LANES), sizeof(float));
    w->from = take(a, questions + 1, sizeof(int32_t));
    w->asked = take(a, tokens, sizeof(uint8_t));
}

static void rotary(const fry_config *c, workspace *w, int64_t positions) {
    const int64_t half = c->head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const float frequency = (float)pow((double)c->rope_theta, -2.0 * (double)i / (double)c->head_dim);
        for (int64_t p = 0; p < positions; p++) {
            const float angle = (float)p * frequency;
            w->cosines[p * half + i] = cosf(angle), w->sines[p * half + i] = sinf(angle);
        }
    }
}

/* One head of one token: normalised, turned by its position, scaled. Half a head is a multiple of 16 or it is 8. */
static void turn(const float *x, const float *bias, const float *gain, const float *cosine, const float *sine,
                 int64_t d, float eps, float scale, bf16 *out) {
    const int64_t half = d / 2;
    const __mmask16 mask = half < LANES ? (__mmask16)0xff : (__mmask16)0xffff;
    __m512 low[MOST_HALF / LANES], high[MOST_HALF / LANES], squares = _mm512_setzero_ps();
    for (int64_t i = 0, r = 0; i < half; i += LANES, r++) {
        low[r] = _mm512_maskz_loadu_ps(mask, x + i), high[r] = _mm512_maskz_loadu_ps(mask, x + half + i);
        if (bias) {
            low[r] = _mm512_add_ps(low[r], _mm512_maskz_loadu_ps(mask, bias + i));
            high[r] = _mm512_add_ps(high[r], _mm512_maskz_loadu_ps(mask, bias + half + i));
        }
        squares = _mm512_fmadd_ps(low[r], low[r], _mm512_fmadd_ps(high[r], high[r], squares));
    }
    const float r_norm = gain ? 1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)d + eps) : 1.0f;
    const __m512 by = _mm512_set1_ps(r_norm * scale);
    for (int64_t i = 0, r = 0; i < half; i += LANES, r++) {
        __m512 a = _mm512_mul_ps(low[r], by), b = _mm512_mul_ps(high[r], by);
        if (gain) {
            a = _mm512_mul_ps(a, _mm512_maskz_loadu_ps(mask, gain + i));
            b = _mm512_mul_ps(b, _mm512_maskz_loadu_ps(mask, gain + half + i));
        }
        const __m512 cos = _mm512_maskz_loadu_ps(mask, cosine + i), sin = _mm512_maskz_loadu_ps(mask, sine + i);
        const __m512 left = _mm512_fmsub_ps(a, cos, _mm512_mul_ps(b, sin));
        const __m512 right = _mm512_fmadd_ps(b, cos, _mm512_mul_ps(a, sin));
        _mm256_mask_storeu_epi16(out + i, mask, (__m256i)_mm512_cvtneps_pbh(left));
        _mm256_mask_storeu_epi16(out + half + i, mask, (__m256i)_mm512_cvtneps_pbh(right));
    }
}

static void project(const fry_model *m, const block *b, workspace *w, const fry_batch *in, int64_t first, int64_t n) {
    const fry_config *c = &m->config;
    const int64_t width = c->hidden_size, d = c->head_dim, h = c->num_heads, kv = c->num_kv_heads;
    const int64_t lda = round_up(width, 2), ldc = widest(c);
    for (int64_t i = 0; i < n; i++)
        rms_norm(w->x + (first + i) * width, b->input_norm, width, c->norm_eps, w->left + i * lda);
    matmul(w->left, lda, n, &b->qkv, 0, (h + 2 * kv) * d, b->qkv.pairs, 0, w->wide, ldc);
    const float scale = 1.0f / sqrtf((float)d);
    for (int64_t i = 0; i < n; i++) {
        const int64_t t = first + i, at = in->positions[t] * (d / 2);
        const float *row = w->wide + i * ldc, *bias = b->qkv_bias;
        for (int64_t j = 0; j < h + kv; j++) {
            bf16 *out = j < h ? w->q + (t * h + j) * d : w->k + (t * kv + j - h) * d;
            turn(row + j * d, bias ? bias + j * d : 0, j < h ? b->q_norm : b->k_norm, w->cosines + at, w->sines + at, d,
                 c->norm_eps, j < h ? scale : 1.0f, out);
        }
        const float *value = row + (h + kv) * d;
        for (int64_t j = 0; j < kv * d; j += LANES) {
            __m512 v = _mm512_loadu_ps(value + j);
            if (bias) v = _mm512_add_ps(v, _mm512_loadu_ps(bias + (h + kv) * d + j));
            store_bf16(w->v + t * kv * d + j, v);
        }
    }
}

/* Keys of one head as a right operand of `tokens` outputs, values as one of D outputs; both zero behind the row's end. */
static void pack_head(const bf16 *k, const bf16 *v, int64_t stride, int64_t tokens, int64_t d, packed *keys,
                      packed *values, workspace *w) {
    const int64_t padded = round_up(tokens, WIDE * LANES);
    keys->n = padded, keys->k = d, keys->pairs = d / 2, keys->data = w->keys;
    for (int64_t t = 0; t < padded; t++) {
        uint32_t *out = (uint32_t *)(w->keys + (t / (WIDE * LANES)) * WIDE * LANES * d) + t % (WIDE * LANES);
        const bf16 *row = k + t * stride;
        for (int64_t p = 0; p < d / 2; p++) {
            uint32_t pair = 0;
            if (t < tokens) memcpy(&pair, row + 2 * p, 4);
            out[p * WIDE * LANES] = pair;
        }
    }
    values->n = d, values->k = padded, values->pairs = padded / 2, values->data = w->values;
    for (int64_t first = 0; first < d; first += WIDE * LANES) {
        const int64_t wide = d - first < WIDE * LANES ? d - first : WIDE * LANES;
        for (int64_t p = 0; p < padded / 2; p++) {
            uint32_t *out = (uint32_t *)(w->values + first * padded) + p * wide;
            const bf16 *a = v + 2 * p * stride + first, *b = a + stride;
            const __mmask16 has_a = 2 * p < tokens ? 0xffff : 0, has_b = 2 * p + 1 < tokens ? 0xffff : 0;
            for (int64_t j = 0; j < wide; j += LANES) {
                const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(has_a, a + j));
                const __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(has_b, b + j));
                _mm512_storeu_si512(out + j, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
            }
        }
    }
}

/* Scores of a query to shares of its keys, not yet divided by their sum, which is returned. */
static float softmax(float *scores, bf16 *shares, int64_t query, int64_t prefix, int64_t branch, int64_t columns) {
    const int64_t seen = branch ? prefix : query + 1;
    for (int64_t i = seen; i < (branch ? branch : columns); i++) scores[i] = -INFINITY;
    if (branch)
        for (int64_t i = query + 1; i < columns; i++) scores[i] = -INFINITY;
    const float top = greatest(scores, columns);
    const __m512 most = _mm512_set1_ps(top);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < columns; i += LANES) {
        const __m512 e = exp512(_mm512_sub_ps(_mm512_loadu_ps(scores + i), most));
        sum = _mm512_add_ps(sum, e);
        store_bf16(shares + i, e);
    }
    return _mm512_reduce_add_ps(sum);
}

/* Attention of one row; where `only_asked`, blocks of queries after which nothing is asked are left out. */
static void attend(const fry_config *c, workspace *w, const fry_batch *in, int64_t row, int only_asked) {
    const int64_t start = in->row_start[row], tokens = in->row_start[row + 1] - in->row_start[row];
    const int64_t d = c->head_dim, h = c->num_heads, kv = c->num_kv_heads, lds = round_up(tokens, WIDE * LANES);
    const int64_t ldo = round_up(d, WIDE * LANES);
    for (int64_t g = 0; g < kv; g++) {
        packed keys, values;
        pack_head(w->k + (start * kv + g) * d, w->v + (start * kv + g) * d, kv * d, tokens, d, &keys, &values, w);
        for (int64_t j = g * (h / kv); j < (g + 1) * (h / kv); j++)
            for (int64_t first = 0; first < tokens; first += QUERIES) {
                const int64_t n = tokens - first < QUERIES ? tokens - first : QUERIES;
                const int64_t columns = round_up(first + n, WIDE * LANES);
                const bf16 *q = w->q + ((start + first) * h + j) * d;
                float sums[QUERIES];
                if (only_asked && !memchr(w->asked + start + first, 1, (size_t)n)) continue;
                matmul(q, h * d, n, &keys, 0, columns, keys.pairs, 0, w->scores, lds);
                for (int64_t i = 0; i < n; i++)
                    sums[i] = softmax(w->scores + i * lds, w->shares + i * lds, first + i, in->prefix[row],
                                      in->branch[start + first + i], columns);
                matmul(w->shares, lds, n, &values, 0, round_up(d, LANES), columns / 2, 0, w->out, ldo);
                for (int64_t i = 0; i < n; i++) {
                    const __m512 one = _mm512_set1_ps(1.0f / sums[i]);
                    bf16 *to = w->mixed + ((start + first + i) * h + j) * d;
                    for (int64_t e = 0; e < d; e += LANES)
                        store_bf16(to + e, _mm512_mul_ps(_mm512_loadu_ps(w->out + i * ldo + e), one));
                }
            }
    }
}

static void add_rows(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

static void mix(const fry_model *m, const block *b, workspace *w, int64_t first, int64_t n) {
    const fry_config *c = &m->config;
    const int64_t width = c->hidden_size, inner = c->intermediate_size, ldc = widest(c), lda = round_up(width, 2);
    const int64_t out = c->num_heads * c->head_dim;
    matmul(w->mixed + first * out, out, n, &b->o, 0, width, b->o.pairs, 0, w->wide, ldc);
    for (int64_t i = 0; i < n; i++) {
        float *x = w->x + (first + i) * width;
        add_rows(x, w->wide + i * ldc, width);
        rms_norm(x, b->post_norm, width, c->norm_eps, w->left + i * lda);
    }
    matmul(w->left, lda, n, &b->gate_up, 0, 2 * inner, b->gate_up.pairs, 0, w->wide, ldc);
    for (int64_t i = 0; i < n; i++) swiglu(w->wide + i * ldc, w->wide + i * ldc + inner, inner, w->left + i * inner);
    matmul(w->left, inner, n, &b->down, 0, width, b->down.pairs, 0, w->wide, ldc);
    for (int64_t i = 0; i < n; i++) add_rows(w->x + (first + i) * width, w->wide + i * ldc, width);
}

/* Log-probabilities after `n` places whose states are x; the questions of place i are those in [from[i], from[i + 1]). */
static void judge(const fry_model *m, workspace *w, const fry_batch *in, const float *x, const int32_t *from, int64_t n,
                  float *logprobs, uint8_t *greedy) {
    const fry_config *c = &m->config;
    const int64_t width = c->hidden_size, lda = round_up(width, 2), ldc = widest(c), vocab = c->vocab_size;
    float top[BLOCK], sum[BLOCK];
    int32_t best[BLOCK];
    for (int64_t i = 0; i < n; i++) {
        rms_norm(x + i * width, m->norm, width, c->norm_eps, w->left + i * lda);
        top[i] = -INFINITY, sum[i] = 0.0f, best[i] = -1;
    }
    for (int64_t first = 0; first < vocab; first += VOCAB) {
        const int64_t here = vocab - first < VOCAB ? vocab - first : VOCAB, padded = round_up(here, LANES);
        matmul(w->left, lda, n, &m->head, first, first + padded, m->head.pairs, 0, w->wide, ldc);
        for (int64_t i = 0; i < n; i++) {
            float *logits = w->wide + i * ldc;
            for (int64_t j = here; j < padded; j++) logits[j] = -INFINITY;
            const float most = greatest(logits, padded);
            if (most > top[i]) {
                sum[i] *= expf(top[i] - most);
                top[i] = most;
                int64_t j = 0;
                while (j < here && logits[j] != most) j++;
                best[i] = (int32_t)(first + j);
            }
            sum[i] += exp_sum(logits, padded, top[i]);
            for (int32_t q = from[i]; q < from[i + 1]; q++)
                if (in->targets[q] >= first && in->targets[q] < first + here) logprobs[q] = logits[in->targets[q] - first];
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (int32_t q = from[i]; q < from[i + 1]; q++) {
            logprobs[q] -= top[i] + logf(sum[i]);
            greedy[q] = in->targets[q] == best[i];
        }
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

static int checked(const fry_model *m, const fry_batch *in, int64_t *longest, int64_t *positions) {
    const int64_t tokens = in->num_rows < 1 ? 0 : in->row_start[in->num_rows];
    if (in->num_rows < 1 || in->num_questions < 0 || in->row_start[0] != 0) return FRY_BAD_ARGUMENT;
    *longest = *positions = 1;
    for (int64_t r = 0; r < in->num_rows; r++) {
        const int64_t n = (int64_t)in->row_start[r + 1] - in->row_start[r];
        if (n < 1 || in->prefix[r] < 1 || in->prefix[r] > n) return FRY_BAD_ARGUMENT;
        *longest = n > *longest ? n : *longest;
        for (int64_t i = 0; i < n; i++) {
            const int64_t t = in->row_start[r] + i, b = in->branch[t];
            if (b < 0 || b > i || (b && b < in->prefix[r]) || (!b && i >= in->prefix[r])) return FRY_BAD_ARGUMENT;
            if (in->ids[t] < 0 || in->ids[t] >= m->config.vocab_size) return FRY_BAD_ARGUMENT;
            if (in->positions[t] < 0 || in->positions[t] > 1 << 20) return FRY_BAD_ARGUMENT;
            *positions = in->positions[t] >= *positions ? in->positions[t] + 1 : *positions;
        }
    }
    for (int64_t q = 0; q < in->num_questions; q++) {
        if (in->places[q] < 0 || in->places[q] >= tokens || (q && in->places[q] < in->places[q - 1]))
            return FRY_BAD_ARGUMENT;
        if (in->targets[q] < 0 || in->targets[q] >= m->config.vocab_size) return FRY_BAD_ARGUMENT;
    }
    return FRY_OK;
}

/* Questions by place: how many places there are, where the questions of each begin, and which tokens they are. */
static int64_t places_asked(const fry_batch *in, workspace *w) {
    int64_t n = 0;
    memset(w->asked, 0, (size_t)in->row_start[in->num_rows]);
    for (int32_t q = 0; q < in->num_questions; q++) {
        if (q && in->places[q] == in->places[q - 1]) continue;
        w->from[n++] = q;
        w->asked[in->places[q]] = 1;
    }
    w->from[n] = in->num_questions;
    return n;
}

/* Move the states of the places asked to the front; they only ever move forwards, so none is overwritten unread. */
static void keep_asked(const fry_config *c, workspace *w, const fry_batch *in, int64_t places) {
    const int64_t width = c->hidden_size, out = c->num_heads * c->head_dim;
    for (int64_t i = 0; i < places; i++) {
        const int64_t t = in->places[w->from[i]];
        memmove(w->x + i * width, w->x + t * width, (size_t)width * sizeof(float));
        memmove(w->mixed + i * out, w->mixed + t * out, (size_t)out * sizeof(bf16));
    }
}

int fry_score(fry_model *m, const fry_batch *in, float *logprobs, uint8_t *greedy) {
    int64_t longest, positions;
    if (!m || !in || !logprobs || !greedy || checked(m, in, &longest, &positions) != FRY_OK) return FRY_BAD_ARGUMENT;
    const fry_config *c = &m->config;
    const int64_t tokens = in->row_start[in->num_rows], width = c->hidden_size;
    workspace w;
    arena counted = {0, 0};
    lay_out(&counted, &w, c, tokens, longest, positions, in->num_questions);
    buffer *memory = borrow(m, (int64_t)counted.used);
    if (!memory) return FRY_OUT_OF_MEMORY;
    arena real = {memory->data, 0};
    lay_out(&real, &w, c, tokens, longest, positions, in->num_questions);
    rotary(c, &w, positions);
    for (int64_t t = 0; t < tokens; t++)
        memcpy(w.x + t * width, m->embed + in->ids[t] * width, (size_t)width * sizeof(float));
    const int64_t places = places_asked(in, &w);
    for (int64_t layer = 0; layer < c->num_layers; layer++) {
        const block *b = m->blocks + layer;
        const int last = layer == c->num_layers - 1;
        for (int64_t t = 0; t < tokens; t += BLOCK) project(m, b, &w, in, t, tokens - t < BLOCK ? tokens - t : BLOCK);
        for (int64_t r = 0; r < in->num_rows; r++) attend(c, &w, in, r, last);
        const int64_t rows = last ? places : tokens;
        if (last) keep_asked(c, &w, in, places); /* of the others only keys and values were needed */
        for (int64_t t = 0; t < rows; t += BLOCK) mix(m, b, &w, t, rows - t < BLOCK ? rows - t : BLOCK);
    }
    for (int64_t i = 0; i < places; i += BLOCK)
        judge(m, &w, in, w.x + i * width, w.from + i, places - i < BLOCK ? places - i : BLOCK, logprobs, greedy);
    give_back(m, memory);
    return FRY_OK;
}

#else /* no kernels for this machine: the caller uses another engine */

struct fry_model {
    int unused;
};

int fry_supported(void) { return 0; }
int fry_open(const fry_config *c, const float *e, const float *n, const float *h, const fry_block *b, fry_model **m) {
    (void)c, (void)e, (void)n, (void)h, (void)b, (void)m;
    return FRY_UNSUPPORTED;
}
void fry_close(fry_model *m) { (void)m; }
int fry_score(fry_model *m, const fry_batch *b, float *l, uint8_t *g) {
    (void)m, (void)b, (void)l, (void)g;
    return FRY_UNSUPPORTED;
}

#endif
