/* Scoring: log-probabilities of continuations whose prefixes are read once. See fry.h. */
#include <stdatomic.h>

#include "memory.h"

#define SPARES 64 /* workspaces that are kept: as many as threads may score at once */

struct buffer {
    _Atomic(void *) memory[SPARES];
    int64_t size[SPARES];
};

buffer *spares_new(void) { return calloc(1, sizeof(buffer)); }

void spares_free(buffer *spares) {
    for (int i = 0; spares && i < SPARES; i++) free(atomic_load(&spares->memory[i]));
    free(spares);
}

typedef struct {
    uint64_t size;
    char padding[ALIGNMENT - sizeof(uint64_t)];
    char data[];
} loan;

/* Memory of at least `size` bytes: one that an earlier call left, or a new one. */
static loan *borrow(fry_model *m, uint64_t size) {
    for (int i = 0; i < SPARES; i++) {
        loan *found = atomic_exchange(&m->spares->memory[i], 0);
        if (found && found->size >= size) return found;
        free(found);
    }
    const uint64_t whole = (size + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    loan *made = whole > SIZE_MAX / 2 ? 0 : aligned_alloc(ALIGNMENT, (size_t)whole);
    if (!made) return 0;
    memset(made, 0, (size_t)whole);
    made->size = size;
    return made;
}

static void give_back(fry_model *m, loan *memory) {
    for (int i = 0; i < SPARES; i++) {
        void *none = 0;
        if (atomic_compare_exchange_strong(&m->spares->memory[i], &none, memory)) return;
    }
    free(memory);
}

static int checked(const fry_model *m, const fry_batch *in, int64_t *longest, int64_t *positions) {
    if (in->num_rows < 1 || in->num_questions < 0 || in->row_start[0] != 0) return FRY_BAD_ARGUMENT;
    const int64_t tokens = in->row_start[in->num_rows];
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
static void find_places(const fry_batch *in, struct fry_scoring *s) {
    s->places = 0;
    memset(s->asked, 0, (size_t)in->row_start[in->num_rows]);
    for (int32_t q = 0; q < in->num_questions; q++) {
        if (q && in->places[q] == in->places[q - 1]) continue;
        s->from[s->places++] = q;
        s->asked[in->places[q]] = 1;
    }
    s->from[s->places] = in->num_questions;
}

static void lay_out(arena *a, const fry_model *m, workspace *w, struct fry_scoring *s, const fry_batch *in,
                    int64_t longest, int64_t positions) {
    const fry_config *c = &m->config;
    const int64_t tokens = in->row_start[in->num_rows], d = c->head_dim;
    const int64_t ldm = round_up((int64_t)c->num_heads * d, GROUP);
    lay_workspace(a, w, m, BLOCK, round_up(longest, WIDE * PANEL), positions);
    s->x = take(a, tokens * round_up(c->hidden_size, PANEL), sizeof(float));
    s->mixed = take(a, tokens * ldm, sizeof(float));
    s->q = lay_operand(a, m->kind, tokens * c->num_heads, round_up(d, GROUP));
    s->row_cache = take(a, in->num_rows + 1, sizeof(int64_t));
    s->from = take(a, in->num_questions + 1, sizeof(int32_t));
    s->asked = take(a, tokens, 1);
    int64_t bytes = 0;
    for (int64_t r = 0; r < in->num_rows; r++) {
        const int64_t length = round_up(in->row_start[r + 1] - in->row_start[r], WIDE * PANEL);
        if (a->base) s->row_cache[r] = bytes;
        bytes += c->num_kv_heads * head_cache_bytes(m->kind, d, length);
    }
    s->cache = take(a, bytes, 1);
    if (!a->base) return;
    /* Memory of an earlier call holds its numbers: what stands behind a row's end must be zero. */
    const int64_t ldx = round_up(c->hidden_size, PANEL), out = (int64_t)c->num_heads * d;
    for (int64_t t = 0; t < tokens; t++) {
        memset(s->x + t * ldx + c->hidden_size, 0, (size_t)(ldx - c->hidden_size) * sizeof(float));
        memset(s->mixed + t * ldm + out, 0, (size_t)(ldm - out) * sizeof(float));
    }
    const size_t table = (size_t)(positions * round_up(d / 2, PANEL)) * sizeof(float);
    memset(w->cosines, 0, table), memset(w->sines, 0, table);
}

int fry_score(fry_model *m, const fry_batch *in, float *logprobs, uint8_t *greedy) {
    int64_t longest, positions;
    if (!m || !in || !logprobs || !greedy || checked(m, in, &longest, &positions) != FRY_OK) return FRY_BAD_ARGUMENT;
    workspace w;
    struct fry_scoring s;
    arena counted = {0, 0};
    lay_out(&counted, m, &w, &s, in, longest, positions);
    loan *memory = borrow(m, counted.used);
    if (!memory) return FRY_OUT_OF_MEMORY;
    arena real = {memory->data, 0};
    lay_out(&real, m, &w, &s, in, longest, positions);
    find_places(in, &s);
    fry_fill_rotary(&m->config, &w, 0, positions);
    m->ops->score(m, &w, &s, in, logprobs, greedy);
    give_back(m, memory);
    return FRY_OK;
}
