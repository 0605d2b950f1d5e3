/* A model's tokenizer: text to tokens and back. The tables are in tokenizer_data.c, which was made with the model. */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

/* Tables. Tokens are bytes laid end to end; merges are sorted by pair. */
typedef struct {
    int32_t left, right, rank, result;
} tokenizer_merge;
typedef struct {
    uint32_t first, last;
} tokenizer_range;
typedef struct {
    const char *text;
    int32_t id;
} tokenizer_added;

extern const int32_t tokenizer_count;             /* tokens */
extern const uint8_t tokenizer_bytes[];           /* what each token writes; special ones write nothing */
extern const uint32_t tokenizer_starts[];         /* (tokens + 1) */
extern const int32_t tokenizer_merge_count;
extern const tokenizer_merge tokenizer_merges[];
extern const int32_t tokenizer_of_byte[256];      /* the token of each byte */
extern const int32_t tokenizer_added_count;
extern const tokenizer_added tokenizer_addeds[];  /* texts that are one token wherever they stand, longest first */
extern const int32_t tokenizer_pieces;            /* 1: SentencePiece's way, by characters; 0: by words and bytes */
extern const int32_t tokenizer_leading_space;     /* pieces: a space goes before a text, and is left out when read back */
extern const int32_t tokenizer_sorted_count;
extern const int32_t tokenizer_sorted[];          /* pieces: tokens of one character, sorted by their bytes */
extern const int32_t tokenizer_letter_count, tokenizer_number_count, tokenizer_space_count, tokenizer_lower_count;
extern const tokenizer_range tokenizer_letters[], tokenizer_numbers[], tokenizer_spaces[];
extern const tokenizer_range tokenizer_lowers[];  /* upper-case character, lower-case character */

/* Tokens of a text of n bytes: how many, or -1 where there are more than `room`. */
int32_t tokenizer_encode(const char *text, size_t n, int32_t *ids, int32_t room);

/* The same of a text in which special tokens that are written out are text. */
int32_t tokenizer_encode_plain(const char *text, size_t n, int32_t *ids, int32_t room);

/* Where the word that begins at `at` ends; tokens never reach from one word into the next. */
size_t tokenizer_word(const char *text, size_t n, size_t at);

/* How many bytes the first `count` characters take, or all there are. */
size_t tokenizer_chars(const char *text, size_t n, size_t count);

/* What a token writes. */
const char *tokenizer_text(int32_t id, size_t *n);

/* Lower-case a text in place of `out`, which has room for 2 n + 4 bytes; its length. */
size_t tokenizer_lower(const char *text, size_t n, char *out);

#endif
