/* The input of a job as the tokens that its model reads. */
#ifndef INPUT_H
#define INPUT_H

#include <stdint.h>

/* Tokens of an input, of one beyond MODEL_INPUT_TOKENS those of both ends: how many, or -1 where memory or `room` (at
 * least as many) do not suffice. */
int32_t input_tokens(const char *text, int lowercase, int32_t *ids, int32_t room);

#endif
