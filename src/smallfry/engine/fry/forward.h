/* Reading tokens through a model, with keys and values kept: one kernel set's part. */
#ifndef FRY_FORWARD_H
#define FRY_FORWARD_H

#include "kernels.h"

/* Row `token` of the embedding: a column of its panels. */
static void embed_row(const matrix *m, int64_t token, float *out) {
    const int64_t first = token / (WIDE * PANEL) * (WIDE * PANEL), together = panels_together(m, first);
    const int64_t at = (token - first) / PANEL, lane = token % PANEL;
    const char *panels = panels_at(m, first);
    if (m->kind == FRY_FP32) {
        const float *from = (const float *)panels + at * PANEL + lane;
        for (int64_t i = 0; i < m->k; i++) out[i] = from[i * together * PANEL];
    } else if (m->kind == FRY_BF16) {
        const bf16 *from = (const bf16 *)panels + (at * PANEL + lane) * 2;
        for (int64_t i = 0; i < m->k; i++) out[i] = of_bits((uint32_t)from[i / 2 * together * 2 * PANEL + i % 2] << 16);
    } else {
        for (int64_t g = 0; g < m->steps; g++, panels += together * GROUP_BYTES) {
            const bf16 *scales = (const bf16 *)(panels + together * GROUP * PANEL);
            const float scale = of_bits((uint32_t)scales[at * PANEL + lane] << 16);
            for (int64_t i = 0; i < GROUP && g * GROUP + i < m->k; i++) {
                const char byte = panels[((i / 4 * together + at) * PANEL + lane) * 4 + i % 4];
                out[g * GROUP + i] = scale * (float)(int8_t)(FLIPPED ? byte ^ 0x80 : byte);
            }
        }
    }
}

/* A head of a query or key: its RMSNorm where there is a gain (in halves padded to 16), then turned by its position
 * (half-split rotary, in halves padded to 16) and scaled. */
static void turn(const float *x, const float *gain, const float *cosine, const float *sine, int64_t d, float eps,
                 float scale, float *out) {
    float spare[2 * MOST_HEAD], turned[2 * MOST_HEAD];
    const int64_t half = d / 2, padded = round_up(half, PANEL);
    const float *low = x, *high = x + half;
    float *to_low = out, *to_high = out + half;
    if (half % PANEL) { /* no whole panels: work on padded halves */
        memset(spare, 0, (size_t)(2 * padded) * sizeof(float));
        memcpy(spare, low, (size_t)half * sizeof(float));
        memcpy(spare + padded, high, (size_t)half * sizeof(float));
        low = spare, high = spare + padded, to_low = turned, to_high = turned + padded;
    }
    if (gain) {
        vf squares[EACH];
        for (int e = 0; e < EACH; e++) squares[e] = vf_set(0.0f);
        for (int64_t i = 0; i < half; i += PANEL)
            for (int e = 0; e < EACH; e++) {
                const vf a = vf_load(low + i + e * LANES), b = vf_load(high + i + e * LANES);
                squares[e] = vf_mla(a, a, vf_mla(b, b, squares[e]));
            }
        scale = scale / root_of(lanes_sum(squares) / (float)d + eps);
    }
    const vf by = vf_set(scale);
    for (int64_t i = 0; i < half; i += LANES) {
        vf a = vf_mul(vf_load(low + i), by), b = vf_mul(vf_load(high + i), by);
        if (gain) a = vf_mul(a, vf_load(gain + i)), b = vf_mul(b, vf_load(gain + padded + i));
        const vf cos = vf_load(cosine + i), sin = vf_load(sine + i);
        vf_store(to_low + i, vf_sub(vf_mul(a, cos), vf_mul(b, sin)));
        vf_store(to_high + i, vf_mla(a, sin, vf_mul(b, cos)));
    }
    if (half % PANEL) {
        memcpy(out, turned, (size_t)half * sizeof(float));
        memcpy(out + half, turned + padded, (size_t)half * sizeof(float));
    }
}

/* ---- the cache ---------------------------------------------------------------------------------------------------- */

/* n numbers to whole numbers of a scale, n a multiple of LANES. */
static void to_bytes(const float *x, int64_t n, float by, int8_t *to) {
    for (int64_t i = 0; i < n; i += LANES) i8_store(to + i, vf_round(vf_mul(vf_load(x + i), vf_set(by))));
}

static float largest(const float *x, int64_t n) {
    vf most = vf_abs(vf_load(x));
    for (int64_t i = LANES; i < n; i += LANES) most = vf_max(most, vf_abs(vf_load(x + i)));
    return vf_most(most) < LEAST ? 0.0f : vf_most(most);
}

#define FLIP(byte) ((int8_t)(FLIPPED ? (byte) ^ -128 : (byte)))

/* A key of int8, with a scale for each 32 numbers; x is padded with zeros to 32. */
static void keep_key_int8(const matrix *keys, char *panels, int64_t at, const float *x) {
    int8_t bytes[GROUP];
    for (int64_t g = 0; g < keys->steps; g++, panels += WIDE * GROUP_BYTES) {
        const bf16 rounded = (bf16)((bits_of(largest(x + g * GROUP, GROUP) / 127.0f) + 0x8000u) >> 16);
        const float scale = of_bits((uint32_t)rounded << 16);
        to_bytes(x + g * GROUP, GROUP, scale > 0.0f ? 1.0f / scale : 0.0f, bytes);
        int8_t *to = (int8_t *)panels + at * 4;
        for (int64_t i = 0; i < GROUP; i++) to[i / 4 * WIDE * PANEL * 4 + i % 4] = FLIP(bytes[i]);
        memcpy(panels + WIDE * GROUP * PANEL + at * 2, &rounded, 2);
    }
}

/* Keep a key as output t of `keys`; x is padded with zeros to 32. */
static void keep_key(const matrix *keys, int64_t t, const float *x) {
    const int64_t d = keys->k, first = t / (WIDE * PANEL) * (WIDE * PANEL), at = t - first;
    char *panels = panels_at(keys, first);
    if (keys->kind == FRY_INT8) {
        keep_key_int8(keys, panels, at, x);
    } else if (keys->kind == FRY_FP32) {
        float *to = (float *)panels + at;
        for (int64_t i = 0; i < d; i++) to[i * WIDE * PANEL] = x[i];
    } else {
        bf16 rounded[MOST_HEAD + GROUP];
        for (int64_t i = 0; i < d; i += LANES) bf16_store(rounded + i, vf_load(x + i));
        uint32_t *to = (uint32_t *)panels + at;
        for (int64_t i = 0; i < d / 2; i++) memcpy(to + i * WIDE * PANEL, rounded + 2 * i, 4);
    }
}

/* A value of int8 with one scale, which is kept beside: it joins the scores before they become a left operand. */
static void keep_value_int8(const matrix *values, int64_t t, const float *x) {
    int8_t bytes[MOST_HEAD + WIDE * PANEL];
    const float top = largest(x, round_up(values->n, PANEL));
    to_bytes(x, round_up(values->n, PANEL), top > 0.0f ? 127.0f / top : 0.0f, bytes);
    value_scales(values)[t] = top / 127.0f;
    for (int64_t first = 0; first < values->n; first += WIDE * PANEL) {
        const int64_t together = panels_together(values, first), within = t % GROUP;
        char *group = panels_at(values, first) + t / GROUP * together * GROUP_BYTES;
        int8_t *to = (int8_t *)group + within / 4 * together * PANEL * 4 + within % 4;
        for (int64_t i = 0; i < together * PANEL; i++) to[i * 4] = FLIP(bytes[first + i]);
        for (int64_t i = 0; within == 0 && i < together * PANEL; i++) {
            const bf16 one = 0x3f80;
            memcpy(group + together * GROUP * PANEL + i * 2, &one, 2);
        }
    }
}

/* Keep a value as input t of `values`; x is padded with zeros to 32. */
static void keep_value(const matrix *values, int64_t t, const float *x) {
    if (values->kind == FRY_INT8) {
        keep_value_int8(values, t, x);
        return;
    }
    for (int64_t first = 0; first < values->n; first += WIDE * PANEL) {
        const int64_t together = panels_together(values, first);
        if (values->kind == FRY_FP32) {
            memcpy((float *)panels_at(values, first) + t * together * PANEL, x + first,
                   (size_t)(together * PANEL) * sizeof(float));
            continue;
        }
        uint32_t *to = (uint32_t *)panels_at(values, first) + t / 2 * together * PANEL;
        for (int64_t i = 0; i < together * PANEL; i += LANES) {
            const vi bits = bf16_bits(vf_load(x + first + i));
            /* The second of a pair joins the first; the first leaves a zero where nothing is yet. */
            vi_store(to + i, t % 2 ? vi_low_or_high(vi_load(to + i), bits) : bits);
        }
    }
}

/* ---- attention ---------------------------------------------------------------------------------------------------- */

/* Which tokens a query sees: those before `prefix`, and those from `branch` to `end`. */
typedef struct {
    int64_t prefix, branch, end;
} sight;

/* Scores (columns, a multiple of 32) to shares not yet divided by their sum, which is returned; row i of an operand. */
static float softmax(float *scores, const operand *shares, int64_t row, const matrix *values, sight s, int64_t columns) {
    for (int64_t i = s.prefix; i < s.branch; i++) scores[i] = -1e30f;
    for (int64_t i = s.end; i < columns; i++) scores[i] = -1e30f;
    const vf top = vf_set(greatest(scores, columns));
    vf sums[EACH];
    for (int e = 0; e < EACH; e++) sums[e] = vf_set(0.0f);
    for (int64_t i = 0; i < columns; i += PANEL)
        for (int e = 0; e < EACH; e++) {
            const vf share = vf_exp(vf_sub(vf_load(scores + i + e * LANES), top));
            sums[e] = vf_add(sums[e], share);
            vf_store(scores + i + e * LANES, share);
        }
    if (values->kind == FRY_INT8) {
        const float *scales = value_scales(values);
        for (int64_t i = 0; i < s.end; i += LANES) vf_store(scores + i, vf_mul(vf_load(scores + i), vf_load(scales + i)));
        for (int64_t i = s.end; i < columns; i++) scores[i] = 0.0f;
    }
    put_row(shares, row, values->kind, scores, columns);
    return lanes_sum(sums);
}

/* Attention of n rows of queries over one head's cache. */
static void attend(const workspace *w, const matrix *keys, const matrix *values, int64_t n, const operand *queries,
                   const sight *sights, int64_t length, float *const *out) {
    const int64_t d = keys->k, ldo = round_up(d, WIDE * PANEL);
    int64_t seen = 0;
    for (int64_t i = 0; i < n; i++) seen = at_least(seen, sights[i].end);
    const int64_t columns = round_up(seen, GROUP);
    operand shares = w->shares;
    shares.ld = length;
    matmul(keys, queries, n, 0, columns, keys->steps, w->scores, length);
    float sums[QUERIES];
    for (int64_t i = 0; i < n; i++) sums[i] = softmax(w->scores + i * length, &shares, i, values, sights[i], columns);
    matmul(values, &shares, n, 0, round_up(d, PANEL), steps_of(values->kind, seen), w->out, ldo);
    for (int64_t i = 0; i < n; i++) {
        const float by = 1.0f / sums[i];
        const float *from = w->out + i * ldo;
        for (int64_t j = 0; j < d; j++) out[i][j] = from[j] * by;
    }
}

/* The rows of `all` from row `first` on, `apart` rows from one to the next. */
static operand rows_from(const operand *all, fry_kind kind, int64_t first, int64_t apart) {
    const int64_t groups = all->ld / GROUP;
    return (operand){(char *)all->data + first * all->ld * number_bytes(kind), all->scales + first * groups,
                     all->offsets + first * groups, all->ld * apart};
}

/* ---- layers: tokens of one block ----------------------------------------------------------------------------------- */

/* Left operands from normalised rows of x. */
static void normed(const fry_model *m, const workspace *w, const float *x, const float *gain, int64_t n) {
    const int64_t width = m->config.hidden_size, ldx = round_up(width, PANEL), end = round_up(width, GROUP);
    for (int64_t i = 0; i < n; i++) {
        rms_norm(x + i * ldx, gain, width, m->config.norm_eps, w->act);
        for (int64_t j = round_up(width, LANES); j < end; j++) w->act[j] = 0.0f;
        put_row(&w->left, i, m->kind, w->act, width);
    }
}

/* Queries, keys and values of n tokens: those of token i go to row `places[i]` of `caches[i]`, queries to rows of q. */
static void project(const fry_model *m, const block *b, const workspace *w, int64_t n, const float *x, const operand *q,
                    const int32_t *positions, char *const *caches, const int64_t *places, int64_t head_bytes,
                    int64_t length) {
    const fry_config *c = &m->config;
    const int64_t d = c->head_dim, h = c->num_heads, kv = c->num_kv_heads, ldc = widest(c);
    const int64_t half = round_up(d / 2, PANEL);
    const float scale = 1.0f / root_of((float)d);
    float head[MOST_HEAD + WIDE * PANEL];
    normed(m, w, x, b->input_norm, n);
    matmul(&b->qkv, &w->left, n, 0, (h + 2 * kv) * d, b->qkv.steps, w->wide, ldc);
    memset(head, 0, sizeof head);
    for (int64_t i = 0; i < n; i++) {
        float *row = w->wide + i * ldc;
        const float *cos = w->cosines + positions[i] * half, *sin = w->sines + positions[i] * half;
        if (b->qkv_bias) add_to(row, b->qkv_bias, (h + 2 * kv) * d);
        for (int64_t j = 0; j < h; j++) {
            turn(row + j * d, b->q_norm, cos, sin, d, c->norm_eps, scale, head);
            put_row(q, i * h + j, m->kind, head, d);
        }
        for (int64_t j = 0; j < kv; j++) {
            char *cache = caches[i] + j * head_bytes;
            const matrix keys = keys_of(m->kind, cache, d, length), values = values_of(m->kind, cache, d, length);
            turn(row + (h + j) * d, b->k_norm, cos, sin, d, c->norm_eps, 1.0f, head);
            keep_key(&keys, places[i], head);
            memcpy(head, row + (h + kv + j) * d, (size_t)d * sizeof(float));
            keep_value(&values, places[i], head);
        }
    }
}

/* Attention's output and the SwiGLU half, both added to x (n, width). */
static void mix(const fry_model *m, const block *b, const workspace *w, float *x, const float *mixed, int64_t n) {
    const fry_config *c = &m->config;
    const int64_t width = c->hidden_size, ldx = round_up(width, PANEL), inner = c->intermediate_size, ldc = widest(c);
    const int64_t out = (int64_t)c->num_heads * c->head_dim, ldm = round_up(out, GROUP);
    for (int64_t i = 0; i < n; i++) put_row(&w->left, i, m->kind, mixed + i * ldm, out);
    matmul(&b->o, &w->left, n, 0, width, b->o.steps, w->wide, ldc);
    for (int64_t i = 0; i < n; i++) add_to(x + i * ldx, w->wide + i * ldc, width);
    normed(m, w, x, b->post_norm, n);
    matmul(&b->gate_up, &w->left, n, 0, 2 * inner, b->gate_up.steps, w->wide, ldc);
    for (int64_t i = 0; i < n; i++) {
        swiglu(w->wide + i * ldc, w->wide + i * ldc + inner, inner, w->act);
        for (int64_t j = inner; j < round_up(inner, GROUP); j++) w->act[j] = 0.0f;
        put_row(&w->left, i, m->kind, w->act, inner);
    }
    matmul(&b->down, &w->left, n, 0, width, b->down.steps, w->wide, ldc);
    for (int64_t i = 0; i < n; i++) add_to(x + i * ldx, w->wide + i * ldc, width);
}

/* Attention of one block's tokens, each over its own row's cache up to itself. */
static void attend_block(const fry_state *s, int64_t layer, int64_t n, const int32_t *rows, const int32_t *positions) {
    const fry_model *m = s->model;
    const fry_config *c = &m->config;
    const workspace *w = &s->w;
    const int64_t d = c->head_dim, h = c->num_heads, shared = h / c->num_kv_heads, ldm = round_up(h * d, GROUP);
    sight sights[QUERIES];
    float *out[QUERIES];
    for (int64_t first = 0; first < n;) {
        int64_t run = 1; /* tokens of one row that follow each other */
        while (run < QUERIES && first + run < n && rows[first + run] == rows[first]) run++;
        char *cache = s->cache + layer * s->layer_bytes + rows[first] * s->row_bytes;
        for (int64_t j = 0; j < h;) {
            const matrix keys = keys_of(m->kind, cache + j / shared * s->head_bytes, d, s->padded);
            const matrix values = values_of(m->kind, cache + j / shared * s->head_bytes, d, s->padded);
            /* The rows of a product are a single token's heads that share keys, or one head of several tokens. */
            const int64_t heads = run > 1 ? 1 : shared - j % shared < QUERIES ? shared - j % shared : QUERIES;
            for (int64_t i = 0; i < run * heads; i++) {
                const int64_t token = run > 1 ? first + i : first, head = run > 1 ? j : j + i;
                const int64_t end = positions[token] + 1;
                sights[i] = (sight){end, end, end};
                out[i] = w->mixed + token * ldm + head * d;
            }
            const operand queries = rows_from(&w->q, m->kind, first * h + j, run > 1 ? h : 1);
            attend(w, &keys, &values, run * heads, &queries, sights, s->padded, out);
            j += heads;
        }
        first += run;
    }
}

static void move_rows(const operand *all, fry_kind kind, int64_t to, int64_t from, int64_t n) {
    const operand a = rows_from(all, kind, to, 1), b = rows_from(all, kind, from, 1);
    memmove(a.data, b.data, (size_t)(n * all->ld * number_bytes(kind)));
    memmove(a.scales, b.scales, (size_t)(n * all->ld / GROUP) * sizeof(float));
    memmove(a.offsets, b.offsets, (size_t)(n * all->ld / GROUP) * sizeof(int32_t));
}

/* Read n <= BLOCK tokens; logits (asked, vocab padded to 64) after the tokens `which`. */
static void forward(fry_state *s, int64_t n, const int32_t *ids, const int32_t *rows, const int32_t *positions,
                    int64_t asked, const int32_t *which, float *logits) {
    const fry_model *m = s->model;
    const workspace *w = &s->w;
    const fry_config *c = &m->config;
    const int64_t ldx = round_up(c->hidden_size, PANEL);
    char *caches[BLOCK];
    int64_t places[BLOCK];
    for (int64_t i = 0; i < n; i++) embed_row(&m->embed, ids[i], w->x + i * ldx), places[i] = positions[i];
    for (int64_t layer = 0; layer < c->num_layers; layer++) {
        const block *b = m->blocks + layer;
        for (int64_t i = 0; i < n; i++) caches[i] = s->cache + layer * s->layer_bytes + rows[i] * s->row_bytes;
        project(m, b, w, n, w->x, &w->q, positions, caches, places, s->head_bytes, s->padded);
        int64_t rest = n;
        if (layer == c->num_layers - 1 && asked < n) { /* of the others only keys and values were needed */
            int32_t kept_rows[BLOCK], kept_positions[BLOCK];
            for (int64_t i = 0; i < asked; i++) {
                memmove(w->x + i * ldx, w->x + which[i] * ldx, (size_t)ldx * sizeof(float));
                move_rows(&w->q, m->kind, i * c->num_heads, which[i] * c->num_heads, c->num_heads);
                kept_rows[i] = rows[which[i]], kept_positions[i] = positions[which[i]];
            }
            rest = asked;
            attend_block(s, layer, rest, kept_rows, kept_positions);
        } else {
            attend_block(s, layer, n, rows, positions);
        }
        mix(m, b, w, w->x, w->mixed, rest);
    }
    if (!asked) return;
    normed(m, w, w->x, m->norm, asked);
    matmul(&m->head, &w->left, asked, 0, c->vocab_size, m->head.steps, logits, round_up(c->vocab_size, WIDE * PANEL));
}

#endif
