/* Log-probabilities of continuations whose prefixes are read once: one kernel set's part. */
#ifndef FRY_SCORING_H
#define FRY_SCORING_H

#include "forward.h"

/* Queries, keys and values of all tokens, block by block. */
static void project_all(const fry_model *m, const block *b, const workspace *w, const struct fry_scoring *s,
                        const fry_batch *in) {
    const fry_config *c = &m->config;
    const int64_t ldx = round_up(c->hidden_size, PANEL), d = c->head_dim;
    for (int64_t r = 0; r < in->num_rows; r++) {
        const int64_t start = in->row_start[r], end = in->row_start[r + 1], length = round_up(end - start, WIDE * PANEL);
        for (int64_t t = start; t < end; t += BLOCK) {
            const int64_t n = end - t < BLOCK ? end - t : BLOCK;
            char *caches[BLOCK];
            int64_t places[BLOCK];
            for (int64_t i = 0; i < n; i++) caches[i] = s->cache + s->row_cache[r], places[i] = t - start + i;
            const operand q = rows_from(&s->q, m->kind, t * c->num_heads, 1);
            project(m, b, w, n, s->x + t * ldx, &q, in->positions + t, caches, places,
                    head_cache_bytes(m->kind, d, length), length);
        }
    }
}

/* Attention of one row; where `only_asked`, blocks of queries after which nothing is asked are left out. */
static void attend_row(const fry_model *m, const workspace *w, const struct fry_scoring *s, const fry_batch *in,
                       int64_t row, int only_asked) {
    const fry_config *c = &m->config;
    const int64_t start = in->row_start[row], tokens = in->row_start[row + 1] - start;
    const int64_t d = c->head_dim, h = c->num_heads, shared = h / c->num_kv_heads;
    const int64_t length = round_up(tokens, WIDE * PANEL), bytes = head_cache_bytes(m->kind, d, length);
    const int64_t ldm = round_up(h * d, GROUP);
    sight sights[QUERIES];
    float *out[QUERIES];
    for (int64_t j = 0; j < h; j++) {
        char *cache = s->cache + s->row_cache[row] + j / shared * bytes;
        const matrix keys = keys_of(m->kind, cache, d, length);
        const matrix values = values_of(m->kind, cache, d, length);
        for (int64_t first = 0; first < tokens; first += QUERIES) {
            const int64_t n = tokens - first < QUERIES ? tokens - first : QUERIES;
            if (only_asked && !memchr(s->asked + start + first, 1, (size_t)n)) continue;
            for (int64_t i = 0; i < n; i++) {
                const int64_t at = first + i, branch = in->branch[start + at];
                sights[i] = branch ? (sight){in->prefix[row], branch, at + 1} : (sight){at + 1, at + 1, at + 1};
                out[i] = s->mixed + (start + at) * ldm + j * d;
            }
            const operand queries = rows_from(&s->q, m->kind, (start + first) * h + j, h);
            attend(w, &keys, &values, n, &queries, sights, length, out);
        }
    }
}

/* Move the states of the places asked to the front; they only ever move forwards, so none is overwritten unread. */
static void keep_asked(const fry_model *m, const struct fry_scoring *s, const fry_batch *in) {
    const fry_config *c = &m->config;
    const int64_t ldx = round_up(c->hidden_size, PANEL), ldm = round_up((int64_t)c->num_heads * c->head_dim, GROUP);
    for (int64_t i = 0; i < s->places; i++) {
        const int64_t t = in->places[s->from[i]];
        memmove(s->x + i * ldx, s->x + t * ldx, (size_t)ldx * sizeof(float));
        memmove(s->mixed + i * ldm, s->mixed + t * ldm, (size_t)ldm * sizeof(float));
    }
}

/* Log-probabilities after `n` places whose states are x; the questions of place i are those in [from[i], from[i + 1]). */
static void judge(const fry_model *m, const workspace *w, const fry_batch *in, const float *x, const int32_t *from,
                  int64_t n, float *logprobs, uint8_t *greedy) {
    const int64_t ldc = widest(&m->config), vocab = m->config.vocab_size;
    float top[BLOCK], sum[BLOCK];
    int32_t best[BLOCK];
    normed(m, w, x, m->norm, n);
    for (int64_t i = 0; i < n; i++) top[i] = -1e38f, sum[i] = 0.0f, best[i] = -1;
    for (int64_t first = 0; first < vocab; first += COLUMNS) {
        const int64_t here = vocab - first < COLUMNS ? vocab - first : COLUMNS;
        matmul(&m->head, &w->left, n, first, first + here, m->head.steps, w->wide, ldc);
        for (int64_t i = 0; i < n; i++) {
            const float *logits = w->wide + i * ldc;
            const float most = greatest(logits, here);
            if (most > top[i]) {
                sum[i] *= (float)exp_of((double)top[i] - most);
                top[i] = most;
                int64_t j = 0;
                while (j < here && logits[j] != most) j++;
                best[i] = (int32_t)(first + j);
            }
            sum[i] += exp_sum(logits, here, top[i]);
            for (int32_t q = from[i]; q < from[i + 1]; q++)
                if (in->targets[q] >= first && in->targets[q] < first + here) logprobs[q] = logits[in->targets[q] - first];
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (int32_t q = from[i]; q < from[i + 1]; q++) {
            logprobs[q] -= top[i] + (float)log_of(sum[i]);
            greedy[q] = in->targets[q] == best[i];
        }
}

static void score(const fry_model *m, workspace *w, const struct fry_scoring *s, const fry_batch *in, float *logprobs,
                  uint8_t *greedy) {
    const fry_config *c = &m->config;
    const int64_t tokens = in->row_start[in->num_rows], ldx = round_up(c->hidden_size, PANEL);
    const int64_t ldm = round_up((int64_t)c->num_heads * c->head_dim, GROUP);
    for (int64_t t = 0; t < tokens; t++) embed_row(&m->embed, in->ids[t], s->x + t * ldx);
    for (int64_t layer = 0; layer < c->num_layers; layer++) {
        const block *b = m->blocks + layer;
        const int last = layer == c->num_layers - 1;
        project_all(m, b, w, s, in);
        for (int64_t r = 0; r < in->num_rows; r++) attend_row(m, w, s, in, r, last);
        if (last) keep_asked(m, s, in); /* of the others only keys and values were needed */
        const int64_t rows = last ? s->places : tokens;
        for (int64_t t = 0; t < rows; t += BLOCK)
            mix(m, b, w, s->x + t * ldx, s->mixed + t * ldm, rows - t < BLOCK ? rows - t : BLOCK);
    }
    for (int64_t i = 0; i < s->places; i += BLOCK)
        judge(m, w, in, s->x + i * ldx, s->from + i, s->places - i < BLOCK ? s->places - i : BLOCK, logprobs, greedy);
}

#endif
