/* Choosing the next token. */
#include "internal.h"
#include "scalar.h"

/* A number in [0, 1) and the next state (splitmix64: Steele, Lea and Flood 2014). */
static double draw(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static int allowed(const uint8_t *mask, int32_t token) { return !mask || (mask[token / 8] >> (token % 8) & 1); }

/* Whether token a comes before token b: the likelier first, of equals the lower id. */
static int before(const float *logits, int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void sink(const float *logits, int32_t *heap, int32_t n, int32_t at) {
    for (int32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(logits, heap[child + 1], heap[child])) child++;
        if (!before(logits, heap[child], heap[at])) return;
        const int32_t swap = heap[at];
        heap[at] = heap[child], heap[child] = swap;
    }
}

/* Move the likeliest of a heap of n tokens behind it. */
static int32_t pop(const float *logits, int32_t *heap, int32_t n) {
    const int32_t top = heap[0];
    heap[0] = heap[n - 1], heap[n - 1] = top;
    sink(logits, heap, n - 1, 0);
    return top;
}

static void penalise(float *logits, float by, const int32_t *recent, int32_t count, int32_t vocab) {
    for (int32_t i = 0; i < count; i++) {
        const int32_t token = recent[i];
        if (token < 0 || token >= vocab) continue;
        int32_t j = 0;
        while (recent[j] != token) j++;
        if (j == i) logits[token] = logits[token] > 0.0f ? logits[token] / by : logits[token] * by;
    }
}

/* Draw among the n tokens of a heap after top-k, top-p and min-p. */
static int32_t draw_of(const float *logits, const fry_sampling *s, int32_t *heap, int32_t n, uint64_t *random) {
    for (int32_t i = n / 2 - 1; i >= 0; i--) sink(logits, heap, n, i);
    const double top = logits[heap[0]], temperature = s->temperature;
    const int32_t most = s->top_k > 0 && s->top_k < n ? s->top_k : n;
    double total = 0.0, kept = 0.0;
    const double share = s->top_p > 0.0f && s->top_p < 1.0f ? s->top_p : 1.0;
    if (share < 1.0) {
        if (most == n)
            for (int32_t i = 0; i < n; i++) total += exp_of((logits[heap[i]] - top) / temperature);
        else
            for (int32_t i = 0; i < most; i++) total += exp_of((logits[pop(logits, heap, n - i)] - top) / temperature);
        if (most < n)
            for (int32_t i = n / 2 - 1; i >= 0; i--) sink(logits, heap, n, i);
    }
    int32_t count = 0;
    while (count < most) { /* the likeliest gather at the end of the array, the first of them last */
        const double p = exp_of((logits[heap[0]] - top) / temperature);
        if (count && (p < s->min_p || (share < 1.0 && kept >= share * total))) break; /* the likeliest stays */
        pop(logits, heap, n - count);
        kept += p, count++;
    }
    double at = draw(random) * kept;
    for (int32_t i = 0; i < count; i++) {
        at -= exp_of((logits[heap[n - 1 - i]] - top) / temperature);
        if (at < 0.0) return heap[n - 1 - i];
    }
    return heap[n - count];
}

int32_t fry_sample(float *logits, int32_t vocab, const fry_sampling *s, const uint8_t *mask, const int32_t *recent,
                   int32_t num_recent, int32_t *order, uint64_t *random, float *logprob) {
    int32_t n = 0;
    float top = -1e38f;
    for (int32_t i = 0; i < vocab; i++)
        if (allowed(mask, i)) {
            order[n++] = i;
            top = logits[i] > top ? logits[i] : top;
        }
    if (!n) return -1;
    double sum = 0.0; /* of the model's own probabilities, before anything changes them */
    for (int32_t i = 0; i < n && logprob; i++) sum += exp_of((double)logits[order[i]] - top);
    const float by = s->repetition > 0.0f ? s->repetition : 1.0f;
    const int32_t past = recent && by != 1.0f ? num_recent : 0;
    penalise(logits, by, recent, past, vocab);
    int32_t token = order[0];
    if (s->temperature > 0.0f) token = draw_of(logits, s, order, n, random);
    else
        for (int32_t i = 1; i < n; i++) token = before(logits, order[i], token) ? order[i] : token;
    if (logprob) {
        double own = logits[token];
        for (int32_t i = 0; i < past; i++)
            if (recent[i] == token) {
                own = own > 0.0 ? own * by : own / by;
                break;
            }
        *logprob = (float)(own - top - log_of(sum));
    }
    return token;
}
