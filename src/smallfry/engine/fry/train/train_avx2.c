#define FRY_TRAINING
#include "../set_avx2.c"
