#define FRY_TRAINING
#include "../set_avx512.c"
