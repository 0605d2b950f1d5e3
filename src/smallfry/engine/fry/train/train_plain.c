#define FRY_TRAINING
#include "../set_plain.c"
