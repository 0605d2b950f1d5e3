/* Inputs are read whole, or where they are too long, as many words from both ends as fit. */
#include "input.h"

#include <stdlib.h>
#include <string.h>

#include "model_data.h"
#include "tokenizer.h"

#define HALF (MODEL_INPUT_TOKENS / 2)
#define FAR (8 * MODEL_INPUT_TOKENS)  /* characters at each end that are worth cutting into words */
#define PART (MODEL_INPUT_TOKENS / 8) /* characters of an end that is one word as long as this: none of it would be read */

static size_t count_chars(const char *text, size_t n) {
    size_t chars = 0;
    for (size_t at = 0; at < n; at += tokenizer_chars(text + at, n - at, 1)) chars++;
    return chars;
}

/* A piece of an input as the model reads it: with or without the space that begins texts. */
static char *spell(const char *text, size_t n, int space, int lowercase, size_t *length) {
    char *out = malloc(2 * n + 8);
    if (!out) return NULL;
    size_t at = 0;
    if (space) out[at++] = ' ';
    if (lowercase) at += tokenizer_lower(text, n, out + at);
    else memcpy(out + at, text, n), at += n;
    *length = at;
    return out;
}

/* Tokens of the first or last characters of a text. */
static int32_t part_tokens(const char *text, size_t n, int space, int lowercase, int32_t *ids, int32_t room) {
    size_t length;
    char *spelled = spell(text, n, space, lowercase, &length);
    const int32_t count = spelled ? tokenizer_encode_plain(spelled, length, ids, room) : -1;
    free(spelled);
    return count;
}

/* A word of more bytes than this has more tokens than are read of any input. */
static size_t longest_word(void) {
    size_t longest = 1;
    for (int32_t i = 0; i < tokenizer_merge_count; i++) {
        const int32_t id = tokenizer_merges[i].result;
        const size_t bytes = tokenizer_starts[id + 1] - tokenizer_starts[id];
        if (bytes > longest) longest = bytes;
    }
    return longest * MODEL_INPUT_TOKENS;
}

/* Tokens of each word, one word behind the other, and where each begins: how many words, or -1. */
static int32_t word_tokens(const char *text, size_t n, int32_t *ids, int32_t *starts) {
    const size_t most = longest_word();
    int32_t words = 0, count = 0;
    for (size_t at = 0, end; at < n; at = end) {
        end = tokenizer_word(text, n, at);
        starts[words++] = count;
        if (end - at > most) { /* too many, whatever they are */
            memset(ids + count, 0, (end - at) * sizeof *ids);
            count += (int32_t)(end - at);
            continue;
        }
        const int32_t more = tokenizer_encode_plain(text + at, end - at, ids + count, (int32_t)(end - at));
        if (more < 0) return -1;
        count += more;
    }
    starts[words] = count;
    return words;
}

/* The two ends of a text of `words` words that are too many tokens. */
static int32_t ends_of(const char *text, size_t n, int lowercase, const int32_t *all, const int32_t *starts,
                       int32_t words, int32_t *ids, int32_t room) {
    const int32_t total = starts[words];
    int32_t front = 0, back = words, count;
    while (starts[front + 1] <= HALF) front++;
    while (total - starts[back - 1] <= HALF) back--;
    if (front) memcpy(ids, all, (size_t)(count = starts[front]) * sizeof *ids);
    else count = part_tokens(text, tokenizer_chars(text, n, PART), 1, lowercase, ids, room);
    if (count < 0) return -1;
    if (back < words) {
        memcpy(ids + count, all + starts[back], (size_t)(total - starts[back]) * sizeof *ids);
        return count + total - starts[back];
    }
    const size_t chars = count_chars(text, n);
    const size_t from = chars > PART ? tokenizer_chars(text, n, chars - PART) : 0;
    const int32_t more = part_tokens(text + from, n - from, 0, lowercase, ids + count, room - count);
    return more < 0 ? -1 : count + more;
}

/* Tokens of a text of a length that need not be far: see input_tokens. */
static int32_t text_tokens(const char *text, size_t n, int lowercase, int32_t *ids, int32_t room) {
    size_t length = 0;
    char *spelled = spell(text, n, 1, lowercase, &length);
    int32_t *all = malloc((length + 1) * sizeof *all), *starts = malloc((length + 2) * sizeof *starts);
    int32_t words = -1, count = -1;
    if (spelled && all && starts) words = word_tokens(spelled, length, all, starts);
    if (words >= 0 && starts[words] <= MODEL_INPUT_TOKENS) memcpy(ids, all, (size_t)(count = starts[words]) * sizeof *ids);
    else if (words >= 0) count = ends_of(text, n, lowercase, all, starts, words, ids, room);
    free(spelled), free(all), free(starts);
    return count;
}

int32_t input_tokens(const char *text, int lowercase, int32_t *ids, int32_t room) {
    const size_t n = strlen(text), chars = count_chars(text, n);
    if (room < MODEL_INPUT_TOKENS) return -1;
    if (chars <= MODEL_INPUT_TOKENS / 4) return part_tokens(text, n, 1, lowercase, ids, room); /* 4 tokens each at most */
    if (chars <= 2 * FAR) return text_tokens(text, n, lowercase, ids, room);
    const size_t head = tokenizer_chars(text, n, FAR), tail = n - tokenizer_chars(text, n, chars - FAR);
    char *ends = malloc(head + tail);
    if (!ends) return -1;
    memcpy(ends, text, head), memcpy(ends + head, text + n - tail, tail);
    const int32_t count = text_tokens(ends, head + tail, lowercase, ids, room);
    free(ends);
    return count;
}
