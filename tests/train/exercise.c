/* Calls every training kernel of every set with tensors that end where they should: for sanitizers, which see what
 * lies behind. Numbers are not checked here; tests/test_fused.py does that. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/train.h"

static uint64_t seed = 1;

static uint32_t draw(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

/* Exactly `count` numbers of a kind, between -1 and 1. */
static void *numbers(int kind, int64_t count) {
    void *x = malloc((size_t)count * (kind ? 2 : 4));
    for (int64_t i = 0; i < count; i++) {
        const float value = (float)(draw() % 2001) / 1000.0f - 1.0f;
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (kind)
            ((uint16_t *)x)[i] = (uint16_t)(bits >> 16);
        else
            ((float *)x)[i] = value;
    }
    return x;
}

static void must(int code, const char *what) {
    if (code) {
        fprintf(stderr, "%s: %d\n", what, code);
        exit(1);
    }
}

static void rows(int kind, int64_t n, int64_t w) {
    fry_norm a = {.kind = kind, .eps = 1e-6f, .rows = n, .width = w};
    void *x = numbers(kind, n * w), *update = numbers(kind, n * w), *mask = numbers(kind, n * w), *gain = numbers(kind, w);
    void *sum = numbers(kind, n * w), *y = numbers(kind, n * w), *dx = numbers(kind, n * w), *du = numbers(kind, n * w);
    float *r = numbers(0, n), *dgain = numbers(0, w);
    a.x = x, a.gain = gain, a.y = y, a.r = r, a.sum = x;
    must(fry_norm_forward(&a), "norm");
    a.update = update, a.mask = mask, a.sum = sum;
    must(fry_norm_forward(&a), "sum and norm");
    a.x = sum, a.dy = y, a.dsum = update, a.dx = dx, a.dupdate = du, a.dgain = dgain;
    must(fry_norm_backward(&a), "norm back");
    void *wide = numbers(kind, 2 * n * w), *dwide = numbers(kind, 2 * n * w);
    fry_swiglu s = {kind, n, w, wide, y, dx, dwide};
    must(fry_swiglu_forward(&s), "swiglu");
    must(fry_swiglu_backward(&s), "swiglu back");
    int64_t *targets = malloc((size_t)n * 8);
    for (int64_t i = 0; i < n; i++) targets[i] = draw() % w;
    fry_cross_entropy c = {kind, draw() % 2 ? 0.1f : 0.0f, n, w, y, targets, r, dgain, 1};
    float *losses = numbers(0, n);
    c.losses = losses;
    must(fry_cross_entropy_rows(&c), "loss");
    void *all[] = {x, update, mask, gain, sum, y, dx, du, r, dgain, wide, dwide, targets, losses};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void attention(int kind, int64_t batch, int64_t length, int64_t heads, int64_t kv, int64_t d, int normed) {
    const int64_t w = (heads + 2 * kv) * d, padded = (d / 2 + 15) / 16 * 16;
    void *qkv = numbers(kind, batch * length * w), *dqkv = numbers(kind, batch * length * w);
    void *out = numbers(kind, batch * length * heads * d), *dout = numbers(kind, batch * length * heads * d);
    void *qg = numbers(kind, d), *kg = numbers(kind, d);
    float *cosines = numbers(0, length * padded), *sines = numbers(0, length * padded);
    float *tops = numbers(0, batch * heads * length), *inverses = numbers(0, batch * heads * length);
    float *dqg = numbers(0, d), *dkg = numbers(0, d);
    fry_attention a = {.kind = kind, .eps = 1e-6f, .batch = batch, .length = length, .heads = heads, .kv_heads = kv,
                       .head_dim = d, .qkv = qkv, .cosines = cosines, .sines = sines, .out = out, .tops = tops,
                       .inverses = inverses, .dout = dout, .dqkv = dqkv};
    if (normed) a.q_gain = qg, a.k_gain = kg, a.dq_gain = dqg, a.dk_gain = dkg;
    must(fry_attention_forward(&a), "attention");
    must(fry_attention_backward(&a), "attention back");
    void *all[] = {qkv, dqkv, out, dout, qg, kg, cosines, sines, tops, inverses, dqg, dkg};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void steps(int kind, int grad, int64_t n) {
    float *master = numbers(0, n), *first = numbers(0, n), *second = numbers(0, n), *average = numbers(0, n);
    for (int64_t i = 0; i < n; i++) second[i] *= second[i];
    void *weight = numbers(kind, n), *g = numbers(grad, n);
    fry_step a = {kind, grad, n, g, weight, master, first, second, draw() % 2 ? average : 0, .01f, .9f, .98f, 1e-8f, .1f,
                  1.0f, .1f, .02f, .1f};
    double sum;
    must(fry_adamw(&a), "adamw");
    must(fry_momentum(&a, &sum), "momentum");
    must(fry_apply(&a), "apply");
    must(fry_add(grad, n, g, first), "add");
    must(fry_sum_squares(grad, n, g, &sum), "squares");
    void *all[] = {master, first, second, average, weight, g};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static void weights(int64_t n, int64_t out, int64_t in) {
    void *dy = numbers(1, n * out), *x = numbers(1, n * in), *dw = numbers(1, out * in);
    fry_weight_gradient a = {n, out, in, dy, x, dw};
    const int code = fry_weights_gradient(&a);
    if (code != 1) must(code, "weights");
    free(dy), free(x), free(dw);
}

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 10;
    for (int set = 0; fry_train_kernels(set); set++) {
        must(fry_train_choose(fry_train_kernels(set)), "choose");
        for (int round = 0; round < rounds; round++) {
            const int kind = (int)(draw() % 2), grad = (int)(draw() % 2);
            rows(kind, 1 + draw() % 70, 1 + draw() % 150);
            const int64_t kv = 1 + draw() % 3;
            attention(kind, 1 + draw() % 2, 1 + draw() % 140, kv * (1 + draw() % 2), kv, 2 * (1 + draw() % 70), draw() % 2);
            steps(kind, grad, 1 + draw() % 9000);
            weights(1 + draw() % 1200, 1 + draw() % 150, 1 + draw() % 150);
        }
        printf("%s ", fry_train_kernels(set));
    }
    printf("%d rounds each\n", rounds);
    return 0;
}
