/* Writes the logits after each token: logits KERNELS FILE OUT ID... */
#include <stdio.h>
#include <stdlib.h>

#include "fry.h"

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    FILE *in = fopen(argv[2], "rb");
    if (!in) return 3;
    fseek(in, 0, SEEK_END);
    const size_t size = (size_t)ftell(in);
    rewind(in);
    char *bytes = malloc(size);
    if (!bytes || fread(bytes, 1, size, in) != size) return 4;
    fclose(in);
    fry_model *model;
    fry_state *state;
    if (fry_open(bytes, size, argv[1], &model)) return 5;
    free(bytes);
    const int32_t count = argc - 4, vocab = fry_config_of(model)->vocab_size;
    int32_t *ids = malloc((size_t)count * sizeof *ids);
    float *logits = malloc((size_t)count * (size_t)vocab * sizeof *logits);
    if (!ids || !logits) return 6;
    for (int32_t i = 0; i < count; i++) ids[i] = atoi(argv[4 + i]);
    if (fry_state_new(model, 1, count, &state) || fry_read_all(state, 0, count, ids, logits)) return 7;
    FILE *out = fopen(argv[3], "wb");
    if (!out || fwrite(logits, sizeof *logits, (size_t)count * (size_t)vocab, out) != (size_t)count * (size_t)vocab)
        return 8;
    fclose(out);
    fry_state_free(state);
    fry_close(model);
    free(ids), free(logits);
    return 0;
}
