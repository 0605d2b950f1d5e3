/* Byte-pair encoding: a text is cut into words, each begins as its bytes (or characters), and the pair that was learnt
 * first is joined until none is left. */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* ---- characters ---------------------------------------------------------------------------------------------------- */

/* The character at `at` and how many bytes it has; a byte that begins none stands for itself. */
static uint32_t character(const char *text, size_t n, size_t at, size_t *size) {
    const uint8_t *p = (const uint8_t *)text + at;
    const size_t left = n - at;
    *size = 1;
    if (p[0] < 0x80) return p[0];
    const size_t length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 1;
    if (length == 1 || length > left || p[0] > 0xf4) return 0xfffd;
    uint32_t c = p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0xfffd;
        c = c << 6 | (p[i] & 0x3f);
    }
    *size = length;
    return c;
}

static int among(uint32_t c, const tokenizer_range *ranges, int32_t count) {
    int32_t low = 0, high = count - 1;
    while (low <= high) {
        const int32_t middle = (low + high) / 2;
        if (c < ranges[middle].first) high = middle - 1;
        else if (c > ranges[middle].last) low = middle + 1;
        else return 1;
    }
    return 0;
}

static int is_letter(uint32_t c) { return among(c, tokenizer_letters, tokenizer_letter_count); }
static int is_number(uint32_t c) { return among(c, tokenizer_numbers, tokenizer_number_count); }
static int is_space(uint32_t c) { return among(c, tokenizer_spaces, tokenizer_space_count); }
static int is_break(uint32_t c) { return c == '\r' || c == '\n'; }
static int is_other(uint32_t c) { return !is_space(c) && !is_letter(c) && !is_number(c); }

size_t tokenizer_chars(const char *text, size_t n, size_t count) {
    size_t at = 0, size;
    for (; at < n && count; at += size, count--) character(text, n, at, &size);
    return at;
}

size_t tokenizer_lower(const char *text, size_t n, char *out) {
    size_t size, to = 0;
    for (size_t at = 0; at < n; at += size) {
        uint32_t c = character(text, n, at, &size);
        int32_t low = 0, high = tokenizer_lower_count - 1, found = -1;
        while (low <= high && found < 0) {
            const int32_t middle = (low + high) / 2;
            if (c < tokenizer_lowers[middle].first) high = middle - 1;
            else if (c > tokenizer_lowers[middle].first) low = middle + 1;
            else found = middle;
        }
        if (found < 0) {
            memcpy(out + to, text + at, size);
            to += size;
            continue;
        }
        c = tokenizer_lowers[found].last;
        if (c < 0x80) out[to++] = (char)c;
        else if (c < 0x800) out[to++] = (char)(0xc0 | c >> 6), out[to++] = (char)(0x80 | (c & 0x3f));
        else if (c < 0x10000)
            out[to++] = (char)(0xe0 | c >> 12), out[to++] = (char)(0x80 | (c >> 6 & 0x3f)),
            out[to++] = (char)(0x80 | (c & 0x3f));
        else
            out[to++] = (char)(0xf0 | c >> 18), out[to++] = (char)(0x80 | (c >> 12 & 0x3f)),
            out[to++] = (char)(0x80 | (c >> 6 & 0x3f)), out[to++] = (char)(0x80 | (c & 0x3f));
    }
    return to;
}

/* ---- words --------------------------------------------------------------------------------------------------------- */

/* The end of a run of characters of one sort, from `at` on. */
static size_t run_of(const char *text, size_t n, size_t at, int (*sort)(uint32_t)) {
    size_t size;
    while (at < n && sort(character(text, n, at, &size))) at += size;
    return at;
}

/* Where the word that begins at `at` ends: contractions, letters with one leading sign, single digits, signs, spaces. */
static size_t word_end(const char *text, size_t n, size_t at) {
    size_t size, second_size = 0;
    const uint32_t first = character(text, n, at, &size);
    const uint32_t second = at + size < n ? character(text, n, at + size, &second_size) : 0;
    const int follows = at + size < n;
    if (first == '\'' && follows) {
        const char *ends[] = {"s", "t", "re", "ve", "m", "ll", "d"};
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            const size_t length = strlen(ends[i]);
            size_t j = 0;
            while (j < length && at + 1 + j < n && (text[at + 1 + j] | 32) == ends[i][j]) j++;
            if (j == length) return at + 1 + length;
        }
    }
    if (is_letter(first)) return run_of(text, n, at, is_letter);
    if (!is_break(first) && !is_number(first) && follows && is_letter(second))
        return run_of(text, n, at + size, is_letter);
    if (is_number(first)) return at + size;
    if (is_other(first) || (first == ' ' && follows && is_other(second)))
        return run_of(text, n, run_of(text, n, is_other(first) ? at : at + size, is_other), is_break);
    /* White space: up to its last line break; else all but the last of it, which goes with the next word. */
    const size_t end = run_of(text, n, at, is_space);
    size_t last = at, broken = at;
    for (size_t i = at; i < end; i += size) {
        if (is_break(character(text, n, i, &size))) broken = i + size;
        last = i;
    }
    if (broken > at) return broken;
    return end == n || last == at ? end : last;
}

/* ---- joining ------------------------------------------------------------------------------------------------------- */

static const tokenizer_merge *merge_of(int32_t left, int32_t right) {
    int32_t low = 0, high = tokenizer_merge_count - 1;
    while (low <= high) {
        const int32_t middle = (low + high) / 2;
        const tokenizer_merge *m = tokenizer_merges + middle;
        if (m->left < left || (m->left == left && m->right < right)) low = middle + 1;
        else if (m->left > left || m->right > right) high = middle - 1;
        else return m;
    }
    return 0;
}

static int32_t rank_of(int32_t left, int32_t right) {
    const tokenizer_merge *m = merge_of(left, right);
    return m ? m->rank : INT32_MAX;
}

/* Joins `n` tokens in place; `ranks` has room for as many. Each pair is looked up once, and again when a side changes. */
static int32_t join(int32_t *ids, int32_t n, int32_t *ranks) {
    for (int32_t i = 0; i + 1 < n; i++) ranks[i] = rank_of(ids[i], ids[i + 1]);
    for (;;) {
        int32_t at = -1, best = INT32_MAX;
        for (int32_t i = 0; i + 1 < n; i++)
            if (ranks[i] < best) best = ranks[i], at = i;
        if (at < 0) return n;
        ids[at] = merge_of(ids[at], ids[at + 1])->result;
        memmove(ids + at + 1, ids + at + 2, (size_t)(n - at - 2) * sizeof *ids);
        memmove(ranks + at, ranks + at + 1, (size_t)(n - at - 2) * sizeof *ranks);
        n--;
        if (at) ranks[at - 1] = rank_of(ids[at - 1], ids[at]);
        if (at + 1 < n) ranks[at] = rank_of(ids[at], ids[at + 1]);
    }
}

/* A token that is one character, or -1. */
static int32_t piece(const char *text, size_t size) {
    int32_t low = 0, high = tokenizer_sorted_count - 1;
    while (low <= high) {
        const int32_t middle = (low + high) / 2, id = tokenizer_sorted[middle];
        const size_t length = tokenizer_starts[id + 1] - tokenizer_starts[id];
        int order = memcmp(text, tokenizer_bytes + tokenizer_starts[id], size < length ? size : length);
        if (!order) order = size < length ? -1 : size > length;
        if (!order) return id;
        if (order < 0) high = middle - 1;
        else low = middle + 1;
    }
    return -1;
}

/* Tokens of a word or a piece of text without added tokens. */
static int32_t encode_part(const char *text, size_t n, int32_t *ids, int32_t room) {
    int32_t count = 0;
    size_t size;
    for (size_t at = 0; at < n; at += size) {
        size = 1;
        int32_t id = -1;
        if (tokenizer_pieces) {
            character(text, n, at, &size);
            id = piece(text + at, size);
        }
        if (id >= 0) {
            if (count == room) return -1;
            ids[count++] = id;
            continue;
        }
        for (size_t i = 0; i < size; i++) {
            if (count == room) return -1;
            ids[count++] = tokenizer_of_byte[(uint8_t)text[at + i]];
        }
    }
    int32_t few[64], *ranks = count <= 64 ? few : malloc((size_t)count * sizeof *ranks);
    if (!ranks) return -1;
    count = join(ids, count, ranks);
    if (ranks != few) free(ranks);
    return count;
}

size_t tokenizer_word(const char *text, size_t n, size_t at) { return tokenizer_pieces ? n : word_end(text, n, at); }

int32_t tokenizer_encode_plain(const char *text, size_t n, int32_t *ids, int32_t room) {
    int32_t count = 0;
    for (size_t at = 0, end; at < n; at = end) {
        end = tokenizer_word(text, n, at);
        const int32_t more = encode_part(text + at, end - at, ids + count, room - count);
        if (more < 0) return -1;
        count += more;
    }
    return count;
}

int32_t tokenizer_encode(const char *text, size_t n, int32_t *ids, int32_t room) {
    int32_t count = 0;
    char *spaced = 0;
    if (tokenizer_pieces && n) { /* a space leads, and the sign that tokens spell a space with is one */
        spaced = malloc(n + 1);
        if (!spaced) return -1;
        size_t to = 0;
        if (tokenizer_leading_space) spaced[to++] = ' ';
        for (size_t at = 0; at < n; at++) {
            const int sign = n - at >= 3 && !memcmp(text + at, "\xe2\x96\x81", 3);
            spaced[to++] = sign ? ' ' : text[at];
            if (sign) at += 2;
        }
        text = spaced, n = to;
    }
    size_t from = 0;
    for (size_t at = 0; at <= n && count >= 0;) {
        const tokenizer_added *found = 0;
        for (int32_t i = 0; at < n && i < tokenizer_added_count && !found; i++) {
            const size_t length = strlen(tokenizer_addeds[i].text);
            if (length <= n - at && !memcmp(text + at, tokenizer_addeds[i].text, length)) found = tokenizer_addeds + i;
        }
        if (at < n && !found) {
            at++;
            continue;
        }
        const int32_t more = tokenizer_encode_plain(text + from, at - from, ids + count, room - count);
        count = more < 0 ? -1 : count + more;
        if (!found) break;
        if (count < 0 || count == room) {
            count = -1;
            break;
        }
        ids[count++] = found->id;
        at += strlen(found->text);
        from = at;
    }
    free(spaced);
    return count;
}

const char *tokenizer_text(int32_t id, size_t *n) {
    *n = id < 0 || id >= tokenizer_count ? 0 : tokenizer_starts[id + 1] - tokenizer_starts[id];
    return (const char *)tokenizer_bytes + (*n ? tokenizer_starts[id] : 0);
}
