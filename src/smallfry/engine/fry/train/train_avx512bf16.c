#define FRY_TRAINING
#include "../set_avx512bf16.c"
