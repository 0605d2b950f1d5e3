/* The training kernels as the world sees them: arguments checked, work shared among threads in parts that do not depend
 * on how many there are, partial sums added in one order. */
#include "train.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../internal.h"
#include "ops.h"

static const fry_train_ops *const SETS[] = {
#if defined(__x86_64__) && defined(__GNUC__)
#ifdef FRY_KNOWS_AMX
    &fry_train_ops_amx,
#endif
#ifdef FRY_KNOWS_BF16
    &fry_train_ops_avx512bf16,
#endif
    &fry_train_ops_avx512, &fry_train_ops_avx2,
#endif
#if defined(__aarch64__)
    &fry_train_ops_neon,
#endif
    &fry_train_ops_plain,
};
enum { NUM_SETS = sizeof SETS / sizeof *SETS };

static const fry_train_ops *set_at(int index) {
    for (int i = 0; i < NUM_SETS; i++)
        if (SETS[i]->supported() && index-- == 0) return SETS[i];
    return 0;
}

const char *fry_train_kernels(int index) {
    const fry_train_ops *found = index < 0 ? 0 : set_at(index);
    return found ? found->name : 0;
}

static const fry_train_ops *chosen;

int fry_train_choose(const char *name) {
    for (int i = 0; set_at(i); i++)
        if (!name || !strcmp(set_at(i)->name, name)) {
            chosen = set_at(i);
            return 0;
        }
    return 1;
}

static const fry_train_ops *ops(void) {
    if (!chosen) chosen = set_at(0);
    return chosen;
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

static void (*runner)(void (*)(void *), void *, unsigned, unsigned);
static int threads = 1;

void fry_train_threads(void (*run)(void (*)(void *), void *, unsigned, unsigned), int count) {
    runner = run, threads = run && count > 1 ? count : 1;
}

typedef struct {
    void (*work)(const void *args, int64_t part, int64_t slot);
    const void *args;
    int64_t parts;
    atomic_llong next;  /* the next part to be done */
    atomic_llong slots; /* threads that have begun */
} crew;

static void labour(void *data) {
    crew *c = data;
    const int64_t slot = atomic_fetch_add(&c->slots, 1);
    for (int64_t part; (part = atomic_fetch_add(&c->next, 1)) < c->parts;) c->work(c->args, part, slot);
}

static void share(int64_t parts, void (*work)(const void *, int64_t, int64_t), const void *args) {
    crew c = {work, args, parts, 0, 0};
    if (threads > 1 && parts > 1)
        runner(labour, &c, (unsigned)(threads < parts ? threads : parts), 0);
    else
        labour(&c);
}

/* Rows in parts of about this many numbers: enough that a thread's start does not matter. */
#define NUMBERS_A_PART 32768
#define MOST_PARTS 64

static int64_t parts_of(int64_t rows, int64_t width) {
    const int64_t parts = rows * width / NUMBERS_A_PART + 1;
    const int64_t most = parts < MOST_PARTS ? parts : MOST_PARTS;
    return most < rows ? most : rows > 1 ? rows : 1;
}

static int64_t begin_of(int64_t rows, int64_t parts, int64_t part) { return rows * part / parts; }

static int is_kind(int32_t kind) { return kind == FRY_FP32 || kind == FRY_BF16; }

static int is_size(int64_t n) { return n >= 1 && n <= (int64_t)1 << 40; }

typedef struct {
    const void *args;
    int64_t rows, parts, width; /* width of the partial sums */
    float *partial;             /* (parts, width) */
    double *sums;               /* (parts) */
} shared;

static void add_up(const shared *s, float *to) {
    for (int64_t i = 0; i < s->width; i++) {
        double sum = 0.0;
        for (int64_t part = 0; part < s->parts; part++) sum += (double)s->partial[part * s->width + i];
        to[i] += (float)sum;
    }
}

#define RANGE(s, part) begin_of((s)->rows, (s)->parts, part), begin_of((s)->rows, (s)->parts, (part) + 1)

/* ---- rows --------------------------------------------------------------------------------------------------------- */

static void norm_forward_part(const void *data, int64_t part, int64_t slot) {
    const shared *s = data;
    (void)slot;
    ops()->norm_forward(s->args, RANGE(s, part));
}

int fry_norm_forward(const fry_norm *a) {
    if (!is_kind(a->kind) || !is_size(a->rows) || !is_size(a->width)) return FRY_BAD_ARGUMENT;
    const shared s = {.args = a, .rows = a->rows, .parts = parts_of(a->rows, a->width)};
    share(s.parts, norm_forward_part, &s);
    return FRY_OK;
}

static void norm_backward_part(const void *data, int64_t part, int64_t slot) {
    const shared *s = data;
    (void)slot;
    ops()->norm_backward(s->args, RANGE(s, part), s->partial + part * s->width);
}

int fry_norm_backward(const fry_norm *a) {
    if (!is_kind(a->kind) || !is_size(a->rows) || !is_size(a->width)) return FRY_BAD_ARGUMENT;
    shared s = {.args = a, .rows = a->rows, .parts = parts_of(a->rows, a->width), .width = a->width};
    if (!(s.partial = calloc((size_t)(s.parts * s.width), sizeof(float)))) return FRY_OUT_OF_MEMORY;
    share(s.parts, norm_backward_part, &s);
    add_up(&s, a->dgain);
    free(s.partial);
    return FRY_OK;
}

static void swiglu_forward_part(const void *data, int64_t part, int64_t slot) {
    const shared *s = data;
    (void)slot;
    ops()->swiglu_forward(s->args, RANGE(s, part));
}

static void swiglu_backward_part(const void *data, int64_t part, int64_t slot) {
    const shared *s = data;
    (void)slot;
    ops()->swiglu_backward(s->args, RANGE(s, part));
}

static int swiglu(const fry_swiglu *a, void (*work)(const void *, int64_t, int64_t)) {
    if (!is_kind(a->kind) || !is_size(a->rows) || !is_size(a->width)) return FRY_BAD_ARGUMENT;
    const shared s = {.args = a, .rows = a->rows, .parts = parts_of(a->rows, a->width)};
    share(s.parts, work, &s);
    return FRY_OK;
}

int fry_swiglu_forward(const fry_swiglu *a) { return swiglu(a, swiglu_forward_part); }
int fry_swiglu_backward(const fry_swiglu *a) { return swiglu(a, swiglu_backward_part); }

static void cross_entropy_part(const void *data, int64_t part, int64_t slot) {
    const shared *s = data;
    (void)slot;
    ops()->cross_entropy(s->args, RANGE(s, part));
}

int fry_cross_entropy_rows(const fry_cross_entropy *a) {
    if (!is_kind(a->kind) || !is_size(a->rows) || !is_size(a->vocab)) return FRY_BAD_ARGUMENT;
    for (int64_t row = 0; row < a->rows; row++)
        if (a->targets[row] < 0 || a->targets[row] >= a->vocab) return FRY_BAD_ARGUMENT;
    const shared s = {.args = a, .rows = a->rows, .parts = parts_of(a->rows, a->vocab)};
    share(s.parts, cross_entropy_part, &s);
    return FRY_OK;
}

/* ---- attention ---------------------------------------------------------------------------------------------------- */

typedef struct {
    const fry_attention *args;
    char *scratch; /* (slots, bytes) */
    int64_t bytes;
    float *gains; /* (items, 2, 2 half_padded) */
    int64_t gain_width;
} attending;

static int sound(const fry_attention *a) {
    return is_kind(a->kind) && is_size(a->batch) && is_size(a->length) && a->length <= 1 << 20 && is_size(a->heads) &&
           is_size(a->kv_heads) && a->heads % a->kv_heads == 0 && is_size(a->head_dim) && a->head_dim % 2 == 0 &&
           a->head_dim <= MOST_HEAD && !a->q_gain == !a->k_gain;
}

static char *line_up(void *memory) { return (char *)(((uintptr_t)memory + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT); }

static void attend_part(const void *data, int64_t part, int64_t slot) {
    const attending *s = data;
    ops()->attention_forward(s->args, part, s->scratch + slot * s->bytes);
}

int fry_attention_forward(const fry_attention *a) {
    if (!sound(a)) return FRY_BAD_ARGUMENT;
    attending s = {.args = a, .bytes = ops()->attention_bytes(a, 0)};
    void *memory = malloc((size_t)(s.bytes * threads + ALIGNMENT));
    if (!memory) return FRY_OUT_OF_MEMORY;
    s.scratch = line_up(memory);
    share(a->batch * a->kv_heads, attend_part, &s);
    free(memory);
    return FRY_OK;
}

static void attend_back_part(const void *data, int64_t part, int64_t slot) {
    const attending *s = data;
    float *gains = s->gains + part * 2 * s->gain_width;
    ops()->attention_backward(s->args, part, s->scratch + slot * s->bytes, gains, gains + s->gain_width);
}

/* Gains' gradients stand as two padded halves a head. */
static void add_gains(const attending *s, int64_t items, int which, float *to) {
    const int64_t half = s->args->head_dim / 2, padded = s->gain_width / 2;
    for (int64_t i = 0; to && i < 2 * half; i++) {
        const int64_t at = which * s->gain_width + (i < half ? i : padded + i - half);
        double sum = 0.0;
        for (int64_t item = 0; item < items; item++) sum += (double)s->gains[item * 2 * s->gain_width + at];
        to[i] += (float)sum;
    }
}

int fry_attention_backward(const fry_attention *a) {
    if (!sound(a)) return FRY_BAD_ARGUMENT;
    const int64_t items = a->batch * a->kv_heads;
    attending s = {.args = a, .bytes = ops()->attention_bytes(a, 1), .gain_width = 2 * round_up(a->head_dim / 2, 16)};
    void *memory = malloc((size_t)(s.bytes * threads + ALIGNMENT));
    s.gains = calloc((size_t)(items * 2 * s.gain_width), sizeof(float));
    if (memory && s.gains) {
        s.scratch = line_up(memory);
        share(items, attend_back_part, &s);
        add_gains(&s, items, 0, a->dq_gain);
        add_gains(&s, items, 1, a->dk_gain);
    }
    const int done = memory && s.gains;
    free(memory);
    free(s.gains);
    return done ? FRY_OK : FRY_OUT_OF_MEMORY;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

typedef struct {
    const fry_weight_gradient *args;
    int64_t panels, parts, bytes;
    char *scratch; /* (parts, bytes) */
} gradient;

static void gradient_part(const void *data, int64_t part, int64_t slot) {
    const gradient *g = data;
    (void)slot;
    ops()->weight_gradient(g->args, begin_of(g->panels, g->parts, part), begin_of(g->panels, g->parts, part + 1),
                           g->scratch + part * g->bytes);
}

int fry_weights_gradient(const fry_weight_gradient *a) {
    if (!is_size(a->rows) || !is_size(a->out) || !is_size(a->in)) return FRY_BAD_ARGUMENT;
    if (!ops()->weight_gradient) return FRY_UNSUPPORTED;
    /* Every thread lays the narrow side out for itself: a part each, and the sums are the same whatever their number. */
    gradient g = {.args = a, .panels = ops()->gradient_panels(a)};
    g.parts = threads < g.panels ? threads : g.panels;
    g.bytes = round_up(ops()->gradient_bytes(a, (g.panels + g.parts - 1) / g.parts), ALIGNMENT);
    void *memory = malloc((size_t)(g.bytes * g.parts + ALIGNMENT));
    if (!memory) return FRY_OUT_OF_MEMORY;
    g.scratch = line_up(memory);
    share(g.parts, gradient_part, &g);
    free(memory);
    return FRY_OK;
}

/* ---- the optimizer ------------------------------------------------------------------------------------------------ */

typedef struct {
    int32_t kind;
    const void *x;
    float *to;
} numbers;

static void add_part(const void *data, int64_t part, int64_t slot) {
    const shared *s = data;
    const numbers *n = s->args;
    (void)slot;
    ops()->add(n->kind, n->x, n->to, RANGE(s, part));
}

int fry_add(int32_t kind, int64_t count, const void *x, float *sums) {
    if (!is_kind(kind) || !is_size(count)) return FRY_BAD_ARGUMENT;
    const numbers n = {kind, x, sums};
    const shared s = {.args = &n, .rows = count, .parts = parts_of(count, 1)};
    share(s.parts, add_part, &s);
    return FRY_OK;
}

static void squares_part(const void *data, int64_t part, int64_t slot) {
    const shared *s = data;
    const numbers *n = s->args;
    (void)slot;
    s->sums[part] = ops()->sum_squares(n->kind, n->x, RANGE(s, part));
}

static double total(const double *sums, int64_t parts) {
    double sum = 0.0;
    for (int64_t part = 0; part < parts; part++) sum += sums[part];
    return sum;
}

int fry_sum_squares(int32_t kind, int64_t count, const void *x, double *sum) {
    if (!is_kind(kind) || !is_size(count)) return FRY_BAD_ARGUMENT;
    double sums[MOST_PARTS];
    const numbers n = {kind, x, 0};
    const shared s = {.args = &n, .rows = count, .parts = parts_of(count, 1), .sums = sums};
    share(s.parts, squares_part, &s);
    *sum = total(sums, s.parts);
    return FRY_OK;
}

static void adamw_part(const void *data, int64_t part, int64_t slot) {
    const shared *s = data;
    (void)slot;
    ops()->adamw(s->args, RANGE(s, part));
}

static void apply_part(const void *data, int64_t part, int64_t slot) {
    const shared *s = data;
    (void)slot;
    ops()->apply(s->args, RANGE(s, part));
}

static void momentum_part(const void *data, int64_t part, int64_t slot) {
    const shared *s = data;
    (void)slot;
    s->sums[part] = ops()->momentum(s->args, RANGE(s, part));
}

static int step(const fry_step *a, double *sum, void (*work)(const void *, int64_t, int64_t)) {
    if (!is_kind(a->kind) || !is_kind(a->grad_kind) || !is_size(a->count)) return FRY_BAD_ARGUMENT;
    double sums[MOST_PARTS];
    const shared s = {.args = a, .rows = a->count, .parts = parts_of(a->count, 1), .sums = sums};
    share(s.parts, work, &s);
    if (sum) *sum = total(sums, s.parts);
    return FRY_OK;
}

int fry_adamw(const fry_step *a) { return step(a, 0, adamw_part); }
int fry_apply(const fry_step *a) { return step(a, 0, apply_part); }
int fry_momentum(const fry_step *a, double *sum) { return step(a, sum, momentum_part); }
