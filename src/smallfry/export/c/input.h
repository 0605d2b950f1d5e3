/* The input of a job as the tokens that its model reads. */
#ifndef INPUT_H
#define INPUT_H

#include <stdint.h>

#define INPUT_MOST_TOKENS 1536 /* what lies between the first and the last half of a longer input is not read */

/* Tokens of an input: how many, or -1 where memory or `room` (at least INPUT_MOST_TOKENS) do not suffice. */
int32_t input_tokens(const char *text, int lowercase, int32_t *ids, int32_t room);

#endif
