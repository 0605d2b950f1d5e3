/* Memory: counted first, then cut from one allocation. */
#ifndef FRY_MEMORY_H
#define FRY_MEMORY_H

#include <stdlib.h>
#include <string.h>

#include "internal.h"

typedef struct {
    char *base; /* NULL while counting */
    size_t used;
} arena;

static inline void *take(arena *a, int64_t count, size_t size) {
    void *at = a->base ? a->base + a->used : 0;
    a->used += (size_t)round_up(count * (int64_t)size, ALIGNMENT);
    return at;
}

static inline void *aligned_zeros(size_t size) {
    const size_t whole = (size_t)round_up((int64_t)size + ALIGNMENT, ALIGNMENT);
    void *memory = aligned_alloc(ALIGNMENT, whole);
    if (memory) memset(memory, 0, whole);
    return memory;
}

/* A left operand of n rows of `ld` numbers, a multiple of 32. */
static inline operand lay_operand(arena *a, fry_kind kind, int64_t n, int64_t ld) {
    operand o = {take(a, n * ld, (size_t)number_bytes(kind)), 0, 0, ld};
    o.scales = take(a, n * ld / GROUP, sizeof(float));
    o.offsets = take(a, n * ld / GROUP, sizeof(int32_t));
    return o;
}

/* Room for n tokens of a block, `rows` rows of `length` scores and rotary tables for `positions`. */
static inline void lay_workspace(arena *a, workspace *w, const fry_model *m, int64_t n, int64_t length,
                                 int64_t positions) {
    const fry_config *c = &m->config;
    const int64_t d = c->head_dim, most = round_up(widest(c), GROUP), half = round_up(d / 2, PANEL);
    w->x = take(a, n * round_up(c->hidden_size, PANEL), sizeof(float));
    w->wide = take(a, n * widest(c), sizeof(float));
    w->act = take(a, most, sizeof(float));
    w->mixed = take(a, n * round_up((int64_t)c->num_heads * d, GROUP), sizeof(float));
    w->left = lay_operand(a, m->kind, n, most);
    w->q = lay_operand(a, m->kind, n * c->num_heads, round_up(d, GROUP));
    w->scores = take(a, QUERIES * length, sizeof(float));
    w->shares = lay_operand(a, m->kind, QUERIES, length);
    w->out = take(a, QUERIES * round_up(d, WIDE * PANEL), sizeof(float));
    w->cosines = take(a, positions * half, sizeof(float));
    w->sines = take(a, positions * half, sizeof(float));
}

void fry_fill_rotary(const fry_config *c, workspace *w, int64_t positions);

buffer *spares_new(void);
void spares_free(buffer *spares);

#endif
