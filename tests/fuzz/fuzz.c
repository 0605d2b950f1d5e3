/* Feeds libfry files that may be anything, and calls everything behind them.
 *
 * An input is 32 bytes of choices and then a file. The choices say whether the file is mended first (its size and its
 * checksum put right, or stretched as well to what its header asks for, so that any shape opens) and which arguments
 * the calls get. With libFuzzer (clang -fsanitize=fuzzer) this is its entry point; with -DSTREAM it is a program that
 * reads any number of inputs, each behind its length in four bytes, and says how many opened.
 *
 * Beside what sanitizers see it stops at: an opening or a state that takes seconds; an answer outside of its bounds; and
 * int8 or int4 logits that differ between two kernel sets.
 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime, alarm */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fry.h"

#define CHOICES 32
#define HEADER 128
#define MOST_BYTES (1 << 18) /* of a stretched file */
#define MOST_WORK 1e6        /* products of a case in one kernel set */
#define MOST_LOGITS (1 << 18)
#define MOST_KEPT (1 << 14)  /* logits that are held against those of other kernel sets */
#define MOST_POSITION 4096
#define MOST_SECONDS 2.0     /* of the processor, for opening a file or making a state */
#define MOST_TOKENS 110

typedef struct {
    const uint8_t *bytes;
    size_t size, at;
    uint64_t more; /* what follows where the choices end */
} choices;

static uint8_t byte_of(choices *c) {
    if (c->at < c->size) return c->bytes[c->at++];
    c->more = c->more * 6364136223846793005u + 1442695040888963407u;
    return (uint8_t)(c->more >> 56);
}

static uint32_t word_of(choices *c) {
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) word = word << 8 | byte_of(c);
    return word;
}

static int32_t below(choices *c, int32_t n) { return n > 0 ? (int32_t)(word_of(c) % (uint32_t)n) : 0; }

/* Mostly within [0, n), now and then anything. */
static int32_t about(choices *c, int32_t n) {
    const uint8_t how = byte_of(c);
    if (how < 240) return below(c, n);
    return how < 244 ? (int32_t)word_of(c) : how < 248 ? n : how < 252 ? -1 : n - 1;
}

static float number_of(choices *c) {
    static const float some[] = {0.0f, 1.0f, 0.5f, 1e-30f, 1e30f, -1.0f, 0.9f, 3.0f};
    const uint8_t how = byte_of(c);
    const uint32_t bits = word_of(c);
    float x;
    memcpy(&x, &bits, 4);
    return how < 32 ? x : how < 128 ? some[how % 8] : (float)(bits % 1000) / 500.0f;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void fail(const char *what, const char *kernels) {
    fprintf(stderr, "fuzz: %s (kernels %s)\n", what, kernels ? kernels : "-");
    abort();
}

/* ---- mending a file ------------------------------------------------------------------------------------------------ */

static uint32_t crc32_of(const uint8_t *bytes, size_t size) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++) crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
    }
    return crc ^ 0xffffffffu;
}

/* Goes over the tensors that a header asks for: how long the file has to be, and whether its numbers are a model's. */
typedef struct {
    const uint8_t *file; /* NULL: only the length */
    uint32_t kind;
    double at;
    int odd; /* a number of a vector or a scale is no model's */
} walk;

static void look(walk *w, double count, int wide) {
    /* Only the length of a file may be absurd: where there is one to look into, it is as long as its header says. */
    for (size_t i = 0, n = w->file ? (size_t)count : 0; i < n; i++) {
        uint32_t bits = 0;
        memcpy(wide ? (uint8_t *)&bits : (uint8_t *)&bits + 2, w->file + (size_t)w->at + i * (wide ? 4 : 2), wide ? 4 : 2);
        float x;
        memcpy(&x, &bits, 4);
        if (!(x > -1e4f && x < 1e4f) || (x != 0.0f && x > -1e-6f && x < 1e-6f)) w->odd = 1;
    }
    w->at += count * (wide ? 4.0 : 2.0);
}

static void step_to_64(walk *w) {
    if (w->at < MOST_BYTES) w->at = (double)(((uint64_t)w->at + 63) / 64 * 64);
}

static void vector(walk *w, double n) {
    step_to_64(w);
    look(w, n, 1);
}

static void matrix(walk *w, double n, double k) {
    const double groups = (double)(((uint64_t)k + 31) / 32);
    step_to_64(w);
    if (w->kind < 2) {
        w->at += n * k * (w->kind ? 2.0 : 4.0);
    } else {
        w->at += n * groups * (w->kind == 2 ? 32.0 : 16.0);
        look(w, n * groups, 0);
    }
}

/* The length, or 0 where that is nothing sane. */
static size_t wanted_size(const uint8_t *header, walk *w) {
    int32_t n[10];
    memcpy(&w->kind, header + 12, 4), memcpy(n, header + 24, sizeof n);
    if (w->kind > 3) return 0;
    for (int i = 0; i < 7; i++)
        if (n[i] < 1) return 0;
    const double vocab = n[0], width = n[1], heads = n[3], kv = n[4], d = n[5], inner = n[6];
    const double sides = heads + 2.0 * kv;
    w->at = HEADER;
    matrix(w, vocab, width);
    if (n[7] & 4) matrix(w, vocab, width);
    vector(w, width);
    for (int32_t layer = 0; layer < n[2] && w->at <= MOST_BYTES; layer++) {
        vector(w, width), matrix(w, sides * d, width);
        if (n[7] & 2) vector(w, sides * d);
        if (n[7] & 1) vector(w, d), vector(w, d);
        matrix(w, width, heads * d), vector(w, width);
        matrix(w, 2.0 * inner, width), matrix(w, width, inner);
    }
    return w->at > MOST_BYTES ? 0 : (size_t)w->at;
}

/* A copy of a file in memory of exactly its size, mended as the choices say. */
static uint8_t *mended(choices *c, const uint8_t *bytes, size_t size, size_t *out) {
    const int how = byte_of(c) % 8; /* 0: as it is; 1: size and checksum; else stretched too */
    walk measured = {0};
    const size_t wanted = how > 1 && size > HEADER ? wanted_size(bytes, &measured) : 0;
    *out = wanted ? wanted : size;
    uint8_t *copy = malloc(*out ? *out : 1);
    if (!copy) abort();
    for (size_t i = 0; i < *out; i++) copy[i] = i < size ? bytes[i] : bytes[HEADER + i % (size - HEADER)];
    for (size_t i = HEADER; how > 2 && *out > HEADER && i < *out; i++) /* -128, for which a file of int8 is refused */
        if (copy[i] == 0x80 && copy[12] == 2) copy[i] = 0x81;
    if (how && *out >= HEADER) {
        const uint64_t whole = *out;
        const uint32_t crc = crc32_of(copy + HEADER, *out - HEADER);
        memcpy(copy + 16, &whole, 8), memcpy(copy + 84, &crc, 4);
    }
    return copy;
}

/* ---- calls --------------------------------------------------------------------------------------------------------- */

typedef struct {
    const fry_config *config;
    const char *kernels;
    choices c;
    double work; /* products of one token */
    float *kept; /* logits of the first kernel set; NULL before */
    size_t count, most;
} calls;

static void keep(calls *s, const float *logits, int32_t rows, float *all) {
    const size_t n = (size_t)rows * (size_t)s->config->vocab_size;
    for (size_t i = 0; i < n && s->count < s->most; i++) all[s->count++] = logits[i];
}

static int32_t *tokens_of(calls *s, int32_t count) {
    int32_t *ids = malloc((size_t)(count > 0 ? count : 1) * sizeof *ids);
    if (!ids) abort();
    const int wild = byte_of(&s->c) > 250;
    for (int32_t i = 0; i < count; i++)
        ids[i] = wild ? about(&s->c, s->config->vocab_size) : below(&s->c, s->config->vocab_size);
    return ids;
}

static int told(void *context, int32_t entry, int32_t token, float logprob) {
    const calls *s = context;
    (void)logprob;
    if (entry < 0 || token < 0 || token >= s->config->vocab_size) fail("a token outside of the vocabulary", s->kernels);
    return 0;
}

static void write_on(calls *s, fry_state *state, int32_t rows, float *logits, int32_t most) {
    choices *c = &s->c;
    fry_sampling sampling = {number_of(c), number_of(c), about(c, s->config->vocab_size + 2), number_of(c), number_of(c)};
    uint64_t random[4] = {1, 2, 3, word_of(c)};
    int32_t order[4] = {0, 1, 2, 3}, counts[4], *ids = malloc((size_t)(rows * most) * sizeof *ids);
    float *logprobs = malloc((size_t)(rows * most) * sizeof *logprobs);
    if (!ids || !logprobs) abort();
    const int greedy = byte_of(c) < 64;
    const int code = fry_generate(state, rows, order, logits, greedy ? 0 : &sampling, random,
                                  about(c, s->config->vocab_size), most, ids, counts, byte_of(c) & 1 ? logprobs : 0,
                                  byte_of(c) & 1 ? told : 0, s);
    for (int32_t i = 0; code == FRY_OK && i < rows; i++) {
        if (counts[i] < 1 || counts[i] > most) fail("a count outside of its bounds", s->kernels);
        for (int32_t j = 0; j < counts[i]; j++)
            if (ids[i * most + j] < 0 || ids[i * most + j] >= s->config->vocab_size) fail("a token written", s->kernels);
    }
    free(ids), free(logprobs);
}

/* Rows are read, copied, rewound, read on and written on. */
static void converse(calls *s, const fry_model *model, float *all) {
    choices *c = &s->c;
    const int32_t vocab = s->config->vocab_size, rows = 1 + below(c, 3);
    int32_t most = 1 + below(c, MOST_TOKENS);
    while (most > 1 && s->work * most * rows > MOST_WORK) most /= 2;
    if ((double)vocab * most * 3 > MOST_LOGITS || s->work * most > MOST_WORK) return;
    fry_state *state;
    const double begin = seconds();
    const int code = fry_state_new(model, rows, most, &state);
    if (seconds() - begin > MOST_SECONDS) fail("a state took seconds to make", s->kernels);
    if (code != FRY_OK) return;
    float *logits = calloc((size_t)vocab * (size_t)(most > 3 ? most : 3), sizeof *logits);
    if (!logits) abort();
    int32_t counts[3], order[3] = {0, 1, 2}, sum = 0;
    for (int32_t i = 0; i < rows; i++) sum += counts[i] = 1 + below(c, most);
    int32_t *ids = tokens_of(s, sum);
    int read = fry_read(state, rows, order, counts, ids, logits) == FRY_OK;
    free(ids);
    if (read) keep(s, logits, rows, all);
    fry_copy(state, about(c, rows), about(c, rows), about(c, most));
    fry_rewind(state, about(c, rows), about(c, most));
    int32_t row = about(c, rows), count = about(c, most + 1);
    ids = tokens_of(s, count > 0 && count <= most ? count : 0);
    if (count <= most && fry_read_all(state, row, count, ids, logits) == FRY_OK) keep(s, logits, count, all);
    free(ids);
    if (read && byte_of(c) & 1) fry_log_softmax(model, logits);
    const int32_t best = read ? fry_argmax(model, logits) : 0;
    if (best < 0 || best >= vocab) fail("a likeliest token outside of the vocabulary", s->kernels);
    if (read) write_on(s, state, rows, logits, 1 + below(c, most));
    if (fry_length(state, 0) > most) fail("a row longer than its state", s->kernels);
    free(logits);
    fry_state_free(state);
}

/* Rows with a prefix and branches, whose numbers are now and then wrong. */
static void ask(calls *s, fry_model *model) {
    choices *c = &s->c;
    int32_t rows = 1 + below(c, 3), tokens = 0, start[4] = {0}, prefix[3];
    int32_t ids[3 * MOST_TOKENS], positions[3 * MOST_TOKENS], branch[3 * MOST_TOKENS], places[64], targets[64];
    for (int32_t r = 0; r < rows; r++) {
        int32_t n = 1 + below(c, MOST_TOKENS);
        while (n > 1 && s->work * n * rows > MOST_WORK) n /= 2;
        if (s->work * n > MOST_WORK) return;
        prefix[r] = 1 + below(c, n);
        for (int32_t i = 0, from = 0; i < n; i++, tokens++) {
            if (i >= prefix[r] && (!from || byte_of(c) < 50)) from = i;
            ids[tokens] = below(c, s->config->vocab_size), branch[tokens] = from;
            positions[tokens] = from ? prefix[r] + i - from : i;
        }
        start[r + 1] = tokens;
    }
    const int32_t questions = below(c, 64);
    for (int32_t q = 0, place = 0; q < questions; q++) {
        place += below(c, 2 + tokens / 16);
        places[q] = place < tokens ? place : tokens - 1, targets[q] = below(c, s->config->vocab_size);
    }
    if (byte_of(c) > 220) {
        int32_t *const all[] = {prefix, ids, positions, branch, places, targets};
        int32_t *const one = all[byte_of(c) % 6] + below(c, rows);
        *one = about(c, s->config->vocab_size);
        for (int32_t i = 0; i < tokens; i++) /* tables of a million positions are right, and slow */
            if (positions[i] > MOST_POSITION && positions[i] <= 1 << 20) positions[i] = MOST_POSITION;
    }
    const fry_batch batch = {rows, start, prefix, ids, positions, branch, questions, places, targets};
    float logprobs[64];
    uint8_t greedy[64];
    fry_score(model, &batch, logprobs, greedy);
}

/* States of any size: refused, or made at once. */
static void make_states(calls *s, const fry_model *model) {
    static const int32_t some[] = {1, 64, 4096, 1 << 16, 1 << 20, 0x7fffffff, 0, -1};
    for (int i = 0; i < 2; i++) {
        const uint8_t how = byte_of(&s->c);
        const int32_t rows = some[how % 8], length = some[how / 8 % 8];
        fry_state *state;
        const double begin = seconds();
        if (fry_state_new(model, rows, length, &state) == FRY_OK) fry_state_free(state);
        if (seconds() - begin > MOST_SECONDS) fail("a state took seconds to make", s->kernels);
    }
}

/* Whether every kernel set has to compute the same bits from a file that opens: bytes, and numbers of a model. */
static int alike(const uint8_t *file) {
    walk w = {.file = file};
    float eps;
    memcpy(&eps, file + 64, 4);
    return wanted_size(file, &w) && w.kind > 1 && !w.odd && eps > 1e-12f;
}

/* Everything in one kernel set; logits are kept, or held against those that were. */
static int run(const uint8_t *file, size_t size, const char *kernels, choices c, float **first, size_t *count) {
    fry_model *model;
    const double begin = seconds();
    const int code = fry_open(file, size, kernels, &model);
    if (seconds() - begin > MOST_SECONDS) fail("opening took seconds", kernels);
    if (code != FRY_OK) {
        if (model) fail("a model in spite of an error", kernels);
        return 0;
    }
    float *all = malloc(MOST_KEPT * sizeof *all);
    if (!all) abort();
    calls s = {fry_config_of(model), kernels, c, 0.0, *first, 0, MOST_KEPT};
    s.work = (double)fry_weight_bytes(model) * (4.0 / 3.0) + 64.0;
    converse(&s, model, all);
    if (*first && (*count != s.count || (memcmp(all, *first, s.count * sizeof *all) && alike(file))))
        fail("logits that differ between kernel sets", kernels);
    ask(&s, model);
    make_states(&s, model);
    fry_close(model);
    if (*first) free(all);
    else *first = all, *count = s.count;
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static int opened;

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (size < CHOICES) return 0;
    choices c = {bytes, CHOICES, 0, 1};
    size_t length, count = 0;
    uint8_t *file = mended(&c, bytes + CHOICES, size - CHOICES, &length);
    float *first = 0;
    int any = 0;
    for (int i = 0; fry_kernels(i); i++) any |= run(file, length, fry_kernels(i), c, &first, &count);
    opened += any;
    free(first), free(file);
    return 0;
}

#ifdef STREAM
#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
#include <sanitizer/common_interface_defs.h>
#endif

static const uint8_t *current;
static uint32_t current_size;
static const char *place; /* where the input goes that ends the program */

static void save(void) {
    FILE *file = place ? fopen(place, "wb") : 0;
    if (!file) return;
    fwrite(current, 1, current_size, file);
    fclose(file);
}

static void ended(int signal_number) {
    save();
    fprintf(stderr, signal_number == SIGALRM ? "fuzz: an input takes too long\n" : "fuzz: stopped\n");
    _exit(1);
}

int main(int argc, char **argv) {
    place = argc > 1 ? argv[1] : 0;
    signal(SIGABRT, ended), signal(SIGALRM, ended);
#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
    __sanitizer_set_death_callback(save);
#endif
    long read = 0;
    while (fread(&current_size, 4, 1, stdin) == 1) {
        uint8_t *bytes = malloc(current_size ? current_size : 1);
        if (!bytes || fread(bytes, 1, current_size, stdin) != current_size) return 2;
        current = bytes;
        alarm(60);
        LLVMFuzzerTestOneInput(bytes, current_size);
        free(bytes);
        read++;
    }
    printf("%ld %d\n", read, opened);
    return 0;
}
#endif
