#define FRY_TRAINING
#include "../set_neon.c"
