/* Runs the model of this folder: ./model "text" [-n tokens] [-t temperature] [-k top_k] [-p top_p] [-m min_p] [-s seed] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fry.h"
#include "input.h"
#include "model_data.h"
#include "tokenizer.h"

#define MOST_TOKENS 2048

typedef struct {
    int bare; /* the next text is the first: without the space that an answer or SentencePiece's texts begin with */
} output;

static int fail(const char *message) {
    fprintf(stderr, "error: %s\n", message);
    return 2;
}

/* What a token adds. */
static void tell(output *out, int32_t token) {
    size_t n;
    const char *text = tokenizer_text(token, &n);
    const int space = out->bare && n && *text == ' ';
    fwrite(text + space, 1, n - (size_t)space, stdout);
    fflush(stdout);
    if (n > (size_t)space || !model_job) out->bare = out->bare && !n;
}

static int is_end(int32_t token) {
    for (int32_t i = 0; i < model_end_count; i++)
        if (model_ends[i] == token) return 1;
    return 0;
}

/* The model's bytes: in the program, or in a file beside it. */
static int load(fry_model **model, const char *file) {
    if (model_size) return fry_open(model_bytes, model_size, NULL, model);
    FILE *in = fopen(file, "rb");
    if (!in) return FRY_BAD_FILE;
    fseek(in, 0, SEEK_END);
    const long size = ftell(in);
    rewind(in);
    void *bytes = size > 0 ? malloc((size_t)size) : NULL;
    const int whole = bytes && fread(bytes, 1, (size_t)size, in) == (size_t)size;
    fclose(in);
    const int code = whole ? fry_open(bytes, (size_t)size, NULL, model) : FRY_BAD_FILE;
    free(bytes);
    return code;
}

/* Prompt tokens, spelled as the model was trained: how many, or -1. */
static int32_t prompt_of(const char *text, int32_t *ids) {
    int32_t n = 0;
    for (int32_t i = 0; i < model_begin_count; i++) ids[n++] = model_begins[i];
    const int32_t room = MOST_TOKENS - n - model_behind_count;
    const int32_t more = model_job ? input_tokens(text, model_lowercase, ids + n, room) :
                                     tokenizer_encode(text, strlen(text), ids + n, room);
    if (more < 0) return -1;
    n += more;
    for (int32_t i = 0; i < model_behind_count; i++) ids[n++] = model_behinds[i];
    return n;
}

/* Bits of the tokens that continue a label whose first `n` tokens are written. */
static void allow(uint8_t *mask, size_t bytes, const int32_t *written, int32_t n) {
    memset(mask, 0, bytes);
    for (int32_t i = 0; i < model_label_count; i++) {
        const int32_t *label = model_labels + model_label_starts[i];
        const int32_t length = model_label_starts[i + 1] - model_label_starts[i];
        if (length > n && !memcmp(label, written, (size_t)n * sizeof *label)) mask[label[n] / 8] |= (uint8_t)(1 << label[n] % 8);
    }
}

static int write_answer(fry_model *model, const int32_t *prompt, int32_t n, int32_t most, const fry_sampling *sampling,
                        uint64_t seed, int show_ids, int bare) {
    const int32_t vocab = fry_config_of(model)->vocab_size;
    fry_state *state;
    if (fry_state_new(model, 1, n + most, &state)) return fail("no memory for so many tokens");
    float *logits = malloc((size_t)vocab * sizeof *logits);
    int32_t *order = malloc((size_t)vocab * sizeof *order), *written = malloc((size_t)most * sizeof *written);
    const size_t bytes = (size_t)vocab / 8 + 1;
    uint8_t *mask = malloc(bytes);
    if (!logits || !order || !written || !mask) return fail("no memory");
    const clock_t start = clock();
    const int32_t row = 0;
    int code = fry_read(state, 1, &row, &n, prompt, logits);
    output out = {bare};
    int32_t count = 0;
    while (code == FRY_OK && count < most) {
        if (model_label_count) allow(mask, bytes, written, count);
        const int32_t token = fry_sample(logits, vocab, sampling, model_label_count ? mask : NULL, written, count, order,
                                         &seed, NULL);
        if (token < 0 || (is_end(token) && !show_ids)) break;
        written[count++] = token;
        if (show_ids) printf("%d ", (int)token);
        else tell(&out, token);
        const int32_t one = 1;
        if (count < most) code = fry_read(state, 1, &row, &one, &token, logits);
    }
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    printf("\n");
    fprintf(stderr, "%d tokens, %.0f tokens/s (%s)\n", (int)count, seconds > 0 ? count / seconds : 0.0, fry_kernels_of(model));
    free(logits), free(order), free(written), free(mask);
    fry_state_free(state);
    return code == FRY_OK ? 0 : fail("the text is too long");
}

int main(int argc, char **argv) {
    const char *text = NULL, *file = "model.fry";
    fry_sampling sampling = {0};
    long most = model_max_new, seed = 0;
    int show_tokens = 0, show_ids = 0;
    for (int i = 1; i < argc; i++) {
        const char *option = argv[i];
        if (option[0] != '-' || !option[1]) {
            text = option;
            continue;
        }
        if (!strcmp(option, "--tokens")) show_tokens = 1; /* ids of the text (of a job's, its prompt), nothing else */
        else if (!strcmp(option, "--ids")) show_ids = 1;  /* ids of the answer, which no end token ends */
        else if (i + 1 == argc) return fail("an option without its value");
        else if (!strcmp(option, "-n")) most = atol(argv[++i]);
        else if (!strcmp(option, "-t")) sampling.temperature = (float)atof(argv[++i]);
        else if (!strcmp(option, "-k")) sampling.top_k = atoi(argv[++i]);
        else if (!strcmp(option, "-p")) sampling.top_p = (float)atof(argv[++i]);
        else if (!strcmp(option, "-m")) sampling.min_p = (float)atof(argv[++i]);
        else if (!strcmp(option, "-s")) seed = atol(argv[++i]);
        else if (!strcmp(option, "-f")) file = argv[++i];
        else return fail("unknown option; there are -n -t -k -p -m -s -f");
    }
    if (!text || most < 1 || most > 1 << 20) return fail("expected a text, and -n from 1: ./model \"text\" -n 100");
    static int32_t ids[MOST_TOKENS];
    if (show_tokens) {
        const int32_t n = model_job ? prompt_of(text, ids) : tokenizer_encode(text, strlen(text), ids, MOST_TOKENS);
        for (int32_t i = 0; i < n; i++) printf("%d ", (int)ids[i]);
        printf("\n");
        return n < 0 ? fail("the text is too long") : 0;
    }
    fry_model *model;
    if (load(&model, file)) return fail("the model cannot be read (model.fry belongs beside the program; or -f FILE)");
    const int32_t n = prompt_of(text, ids);
    const int code = n < 0 ? fail("the text is too long: this program reads about 2,000 tokens; give it a part") :
                     n < 1 ? fail("an empty text, and no token that begins texts: give a word") :
                             write_answer(model, ids, n, (int32_t)most, &sampling, (uint64_t)seed, show_ids,
                                          model_job || (tokenizer_pieces && !*text));
    fry_close(model);
    return code;
}
