/* What libfry needs where there is no C library, and what a page asks of it beside fry.h.
 *
 * Memory: blocks of 16 bytes and more with their size before them; free ones stand in a list by address, neighbours
 * joined. A model, its state and the file it came from are a handful of blocks, so the list is short. */
#include "internal.h"
#include "memory.h"
#include "scalar.h"

#define PAGE 65536u
#define HEAD 16u

typedef struct hole {
    size_t size; /* of the whole block, head included */
    struct hole *next;
} hole;

extern unsigned char __heap_base;
static hole *holes;
static size_t top; /* of what was ever given out; everything above it is zeros */

static size_t blocks_for(size_t size) { return (size + HEAD + 15u) & ~(size_t)15u; }

static void *fresh(size_t whole) {
    if (!top) top = ((size_t)&__heap_base + 15u) & ~(size_t)15u;
    if (whole > SIZE_MAX - top) return 0;
    const size_t have = (size_t)__builtin_wasm_memory_size(0) * PAGE, want = top + whole;
    if (want > have && __builtin_wasm_memory_grow(0, (want - have + PAGE - 1) / PAGE) == SIZE_MAX) return 0;
    hole *block = (hole *)top;
    block->size = whole;
    top = want;
    return (char *)block + HEAD;
}

/* A free block, whose rest stays free; NULL where none is large enough. */
static void *reused(size_t whole) {
    for (hole **link = &holes; *link; link = &(*link)->next) {
        hole *block = *link;
        if (block->size < whole) continue;
        if (block->size - whole >= 4 * HEAD) {
            hole *rest = (hole *)((char *)block + whole);
            rest->size = block->size - whole, rest->next = block->next;
            block->size = whole, *link = rest;
        } else {
            *link = block->next;
        }
        return (char *)block + HEAD;
    }
    return 0;
}

void *malloc(size_t size) {
    if (size > SIZE_MAX / 2) return 0;
    void *found = reused(blocks_for(size));
    return found ? found : fresh(blocks_for(size));
}

void *calloc(size_t count, size_t size) {
    if (size && count > SIZE_MAX / 2 / size) return 0;
    void *found = reused(blocks_for(count * size));
    if (found) memset(found, 0, count * size);
    return found ? found : fresh(blocks_for(count * size)); /* pages come as zeros */
}

void free(void *memory) {
    if (!memory) return;
    hole *block = (hole *)((char *)memory - HEAD), *before = 0, *after = holes;
    while (after && after < block) before = after, after = after->next;
    block->next = after;
    if (before) before->next = block;
    else holes = block;
    if (after && (char *)block + block->size == (char *)after) block->size += after->size, block->next = after->next;
    if (before && (char *)before + before->size == (char *)block)
        before->size += block->size, before->next = block->next;
}

void *memcpy(void *to, const void *from, size_t n) { return __builtin_memcpy(to, from, n); }
void *memmove(void *to, const void *from, size_t n) { return __builtin_memmove(to, from, n); }
void *memset(void *to, int byte, size_t n) { return __builtin_memset(to, byte, n); }

int memcmp(const void *a, const void *b, size_t n) {
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}

void *memchr(const void *bytes, int byte, size_t n) {
    const unsigned char *at = bytes;
    for (size_t i = 0; i < n; i++)
        if (at[i] == (unsigned char)byte) return (void *)(at + i);
    return 0;
}

int strcmp(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return (unsigned char)*a - (unsigned char)*b;
}

/* Scoring stays out, and plain C: a browser without 128-bit registers cannot load this file at all. */
static char none;
buffer *spares_new(void) { return (buffer *)&none; }
void spares_free(buffer *spares) { (void)spares; }
static int never(void) { return 0; }
const fry_ops fry_ops_plain = {.name = "plain", .supported = never};

/* The likeliest of the tokens that the mask allows (NULL: all), the likelier first, of equals the lower id, with their
 * log-probabilities among these: ids (count), logprobs (count). Returns how many there are. */
int32_t fry_likeliest(const fry_model *m, const float *logits, const uint8_t *mask, int32_t count, int32_t *ids,
                      float *logprobs) {
    const int32_t vocab = m->config.vocab_size;
    int32_t found = 0;
    for (int32_t i = 0; i < vocab; i++) {
        if (mask && !(mask[i / 8] >> (i % 8) & 1)) continue;
        if (found == count && !(logits[i] > logits[ids[count - 1]])) continue;
        int32_t at = found < count ? found++ : count - 1;
        for (; at > 0 && logits[i] > logits[ids[at - 1]]; at--) ids[at] = ids[at - 1];
        ids[at] = i;
    }
    if (!found) return 0;
    float total;
    if (mask) {
        const float most = logits[ids[0]];
        double sum = 0.0;
        for (int32_t i = 0; i < vocab; i++)
            if (mask[i / 8] >> (i % 8) & 1) sum += exp_of((double)logits[i] - most);
        total = most + (float)log_of(sum);
    } else {
        total = m->ops->log_sum_exp(logits, vocab);
    }
    for (int32_t i = 0; i < found; i++) logprobs[i] = logits[ids[i]] - total;
    return found;
}
