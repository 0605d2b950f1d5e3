/* States: sequences that are read and written token by token. */
#include "memory.h"
#include "scalar.h"

void fry_fill_rotary(const fry_config *c, workspace *w, int64_t first, int64_t last) {
    const int64_t half = c->head_dim / 2, padded = round_up(half, PANEL);
    for (int64_t i = 0; i < half; i++) {
        const double exponent = -2.0 * (double)i / (double)c->head_dim;
        const float turn = (float)exp_of(exponent * log_of((double)c->rope_theta));
        for (int64_t t = first; t < last; t++) /* the product is rounded to fp32, as elsewhere in the world */
            cos_sin_of((double)((float)t * turn), w->cosines + t * padded + i, w->sines + t * padded + i);
    }
}

static void lay_out(arena *a, fry_state *s) {
    const fry_model *m = s->model;
    const fry_config *c = &m->config;
    s->used = take(a, s->rows, sizeof(int32_t));
    s->live = take(a, s->rows, sizeof(int32_t));
    s->order = take(a, c->vocab_size, sizeof(int32_t));
    s->logits = take(a, s->logit_rows * round_up(c->vocab_size, WIDE * PANEL), sizeof(float));
    lay_workspace(a, &s->w, m, BLOCK, s->padded, s->length);
    s->head_bytes = head_cache_bytes(m->kind, c->head_dim, s->padded);
    s->row_bytes = s->head_bytes * c->num_kv_heads;
    s->layer_bytes = s->row_bytes * s->rows;
    s->cache = take(a, s->layer_bytes * c->num_layers, 1);
}

int fry_state_new(const fry_model *m, int32_t rows, int32_t length, fry_state **state) {
    if (!m || !state || rows < 1 || rows > 1 << 16 || length < 1 || length > 1 << 20) return FRY_BAD_ARGUMENT;
    *state = 0;
    const fry_config *c = &m->config;
    const double numbers = 2.0 * rows * (length + 64.0) * c->num_layers * c->num_kv_heads * (c->head_dim + 16.0);
    if (numbers > 1e12) return FRY_OUT_OF_MEMORY;
    fry_state *s = calloc(1, sizeof *s);
    if (!s) return FRY_OUT_OF_MEMORY;
    s->model = m, s->rows = rows, s->length = length, s->padded = round_up(length, WIDE * PANEL);
    s->logit_rows = rows < BLOCK ? rows : BLOCK;
    arena counted = {0, 0}, real = {0, 0};
    lay_out(&counted, s);
    s->memory = zeros(counted.used);
    if (!s->memory) {
        free(s);
        return FRY_OUT_OF_MEMORY;
    }
    real.base = aligned(s->memory);
    lay_out(&real, s);
    s->bytes = (size_t)counted.used;
    *state = s;
    return FRY_OK;
}

void fry_state_free(fry_state *s) {
    if (!s) return;
    free(s->memory);
    free(s);
}

size_t fry_state_bytes(const fry_state *s) { return s->bytes; }

int32_t fry_length(const fry_state *s, int32_t row) { return row < 0 || row >= s->rows ? -1 : s->used[row]; }

int fry_rewind(fry_state *s, int32_t row, int32_t length) {
    if (!s || row < 0 || row >= s->rows || length < 0 || length > s->used[row]) return FRY_BAD_ARGUMENT;
    s->used[row] = length;
    return FRY_OK;
}

int fry_copy(fry_state *s, int32_t from, int32_t to, int32_t length) {
    if (!s || from < 0 || to < 0 || from >= s->rows || to >= s->rows || length < 0 || length > s->used[from])
        return FRY_BAD_ARGUMENT;
    const fry_model *m = s->model;
    const fry_kind kind = m->kind;
    const int64_t d = m->config.head_dim;
    const int64_t steps = steps_of(kind, length);
    for (int64_t head = 0; from != to && head < (int64_t)m->config.num_layers * m->config.num_kv_heads; head++) {
        const int64_t layer = head / m->config.num_kv_heads, within = head % m->config.num_kv_heads;
        char *base = s->cache + layer * s->layer_bytes + within * s->head_bytes;
        const char *source = base + from * s->row_bytes;
        char *target = base + to * s->row_bytes;
        /* Keys lie by 64 tokens; values by panels of 64 numbers, and in each the tokens follow one another. */
        memcpy(target, source, (size_t)matrix_bytes(kind, round_up(length, WIDE * PANEL), d));
        for (int64_t first = 0; first < d; first += WIDE * PANEL) {
            const matrix values = values_of(kind, target, d, s->padded);
            char *panels = panels_at(&values, first);
            memcpy(panels, source + (panels - target),
                   (size_t)(steps * panels_together(&values, first) * step_bytes(kind)));
        }
        if (kind == FRY_INT8) {
            const matrix ours = values_of(kind, target, d, s->padded), theirs = values_of(kind, (char *)source, d, s->padded);
            memcpy(value_scales(&ours), value_scales(&theirs), (size_t)length * sizeof(float));
        }
    }
    s->used[to] = length;
    return FRY_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

/* Read entries whose tokens are checked; logits (n, vocab padded) are written row by row through `put`. */
typedef struct {
    int32_t ids[BLOCK], rows[BLOCK], positions[BLOCK], which[BLOCK], entry[BLOCK];
    int64_t n, asked;
} tokens;

static void flush(fry_state *s, tokens *t, float *logits, int64_t ldl) {
    if (!t->n) return;
    for (int64_t i = 0; i < t->n; i++) /* rotary tables as far as they are needed: a state is made at once */
        if (t->positions[i] >= s->turned) {
            const int64_t first = s->turned, last = round_up(t->positions[i] + 1, BLOCK);
            s->turned = last < s->length ? last : s->length;
            fry_fill_rotary(&s->model->config, &s->w, first, s->turned);
        }
    const int64_t padded = round_up(s->model->config.vocab_size, WIDE * PANEL);
    s->model->ops->forward(s, t->n, t->ids, t->rows, t->positions, t->asked, t->which, s->logits);
    for (int64_t i = 0; i < t->asked && logits; i++)
        memcpy(logits + t->entry[i] * ldl, s->logits + i * padded, (size_t)s->model->config.vocab_size * sizeof(float));
    t->n = t->asked = 0;
}

/* Entry i: `all` asks for logits after each of its tokens, else after the last one. */
static void read_entries(fry_state *s, int32_t n, const int32_t *rows, const int32_t *counts, const int32_t *ids,
                         float *logits, int all) {
    tokens t;
    t.n = t.asked = 0;
    int64_t at = 0;
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < counts[i]; j++, at++) {
            const int ask = logits && (all || j == counts[i] - 1);
            if (t.n == BLOCK || (ask && t.asked == s->logit_rows)) flush(s, &t, logits, s->model->config.vocab_size);
            if (ask) {
                t.which[t.asked] = (int32_t)t.n;
                t.entry[t.asked++] = all ? j : i;
            }
            t.ids[t.n] = ids[at], t.rows[t.n] = rows[i], t.positions[t.n++] = s->used[rows[i]]++;
        }
    flush(s, &t, logits, s->model->config.vocab_size);
}

static int checked(fry_state *s, int32_t n, const int32_t *rows, const int32_t *counts, const int32_t *ids) {
    if (!s || !rows || !counts || !ids || n < 1 || n > s->rows) return FRY_BAD_ARGUMENT;
    int64_t at = 0;
    memset(s->live, 0, (size_t)s->rows * sizeof *s->live);
    for (int32_t i = 0; i < n; i++) {
        if (rows[i] < 0 || rows[i] >= s->rows || s->live[rows[i]] || counts[i] < 1) return FRY_BAD_ARGUMENT;
        s->live[rows[i]] = 1;
        if (counts[i] > s->length - s->used[rows[i]]) return FRY_FULL;
        for (int32_t j = 0; j < counts[i]; j++, at++)
            if (ids[at] < 0 || ids[at] >= s->model->config.vocab_size) return FRY_BAD_ARGUMENT;
    }
    return FRY_OK;
}

int fry_read(fry_state *s, int32_t n, const int32_t *rows, const int32_t *counts, const int32_t *ids, float *logits) {
    const int code = checked(s, n, rows, counts, ids);
    if (code == FRY_OK) read_entries(s, n, rows, counts, ids, logits, 0);
    return code;
}

int fry_read_all(fry_state *s, int32_t row, int32_t count, const int32_t *ids, float *logits) {
    const int code = logits ? checked(s, 1, &row, &count, ids) : FRY_BAD_ARGUMENT;
    if (code == FRY_OK) read_entries(s, 1, &row, &count, ids, logits, 1);
    return code;
}

int32_t fry_argmax(const fry_model *m, const float *logits) { return m->ops->argmax(logits, m->config.vocab_size); }

void fry_log_softmax(const fry_model *m, float *logits) {
    const float sum = m->ops->log_sum_exp(logits, m->config.vocab_size);
    for (int32_t i = 0; i < m->config.vocab_size; i++) logits[i] -= sum;
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

/* One token of entry i from its logits: the likeliest, or drawn. */
static int32_t choose(fry_state *s, float *logits, const fry_sampling *sampling, uint64_t *random,
                      const int32_t *written, int32_t count, float *logprob) {
    const fry_model *m = s->model;
    if (sampling && (sampling->temperature > 0.0f || (sampling->repetition > 0.0f && sampling->repetition != 1.0f)))
        return fry_sample(logits, m->config.vocab_size, sampling, 0, written, count, s->order, random, logprob);
    const int32_t best = m->ops->argmax(logits, m->config.vocab_size);
    if (logprob) *logprob = logits[best] - m->ops->log_sum_exp(logits, m->config.vocab_size);
    return best;
}

int fry_generate(fry_state *s, int32_t n, const int32_t *rows, float *logits, const fry_sampling *sampling,
                 uint64_t *random, int32_t end, int32_t max_new, int32_t *ids, int32_t *counts, float *logprobs,
                 fry_token tell, void *context) {
    if (!s || !rows || !logits || !ids || !counts || n < 1 || n > s->rows || max_new < 1 || (sampling && !random))
        return FRY_BAD_ARGUMENT;
    memset(s->live, 0, (size_t)s->rows * sizeof *s->live);
    for (int32_t i = 0; i < n; i++) {
        if (rows[i] < 0 || rows[i] >= s->rows || s->live[rows[i]]) return FRY_BAD_ARGUMENT;
        s->live[rows[i]] = 1;
        if (max_new - 1 > s->length - s->used[rows[i]]) return FRY_FULL;
    }
    for (int32_t i = 0; i < n; i++) counts[i] = 0, s->live[i] = i;
    const int64_t vocab = s->model->config.vocab_size;
    int32_t left = n;
    while (left) {
        int32_t kept = 0;
        for (int32_t l = 0; l < left; l++) {
            const int32_t i = s->live[l];
            float logprob = 0.0f;
            const int32_t token = choose(s, logits + i * vocab, sampling, random ? random + i : 0,
                                         ids + (int64_t)i * max_new, counts[i], logprobs || tell ? &logprob : 0);
            const int64_t at = (int64_t)i * max_new + counts[i]++;
            ids[at] = token;
            if (logprobs) logprobs[at] = logprob;
            const int stop = tell && tell(context, i, token, logprob);
            if (!stop && token != end && counts[i] < max_new) s->live[kept++] = i;
        }
        left = kept;
        tokens t;
        t.n = t.asked = 0;
        for (int32_t l = 0; l < left; l++) {
            const int32_t i = s->live[l];
            if (t.n == BLOCK || t.asked == s->logit_rows) flush(s, &t, logits, vocab);
            t.which[t.asked] = (int32_t)t.n, t.entry[t.asked++] = i;
            t.ids[t.n] = ids[(int64_t)i * max_new + counts[i] - 1], t.rows[t.n] = rows[i];
            t.positions[t.n++] = s->used[rows[i]]++;
        }
        flush(s, &t, logits, vocab);
    }
    return FRY_OK;
}
