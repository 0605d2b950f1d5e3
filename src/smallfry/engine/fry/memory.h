/* Memory: counted first, then cut from one allocation. */
#ifndef FRY_MEMORY_H
#define FRY_MEMORY_H

#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Under AddressSanitizer what is cut lies apart, and what lies between may not be touched. */
#if defined(__SANITIZE_ADDRESS__)
#define APART ALIGNMENT
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define APART ALIGNMENT
#endif
#endif
#ifdef APART
#include <sanitizer/asan_interface.h>
#else
#define APART 0
#endif

typedef struct {
    char *base;    /* NULL while counting */
    uint64_t used; /* more than 32 bits on every machine: what none could hold must not look small */
} arena;

static inline void *take(arena *a, int64_t count, size_t size) {
    char *at = a->base ? a->base + a->used : 0;
    const uint64_t bytes = (uint64_t)count * size;
    const uint64_t whole = (uint64_t)round_up((int64_t)bytes, ALIGNMENT) + APART;
    a->used += whole;
#if APART
    if (at) {
        __asan_unpoison_memory_region(at, bytes);
        __asan_poison_memory_region(at + bytes, whole - bytes);
    }
#endif
    return at;
}

static inline char *aligned(void *memory) {
    return (char *)memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT;
}

/* Zeros, of which `aligned` gives the begin; pages that nobody touches are not made. */
static inline void *zeros(uint64_t size) {
    return size > SIZE_MAX / 2 - ALIGNMENT ? 0 : calloc(1, (size_t)size + ALIGNMENT);
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

void fry_fill_rotary(const fry_config *c, workspace *w, int64_t first, int64_t last); /* positions first to last - 1 */

buffer *spares_new(void);
void spares_free(buffer *spares);

#endif
