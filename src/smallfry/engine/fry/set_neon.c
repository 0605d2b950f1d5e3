/* NEON: every 64-bit ARM. */
#if defined(__aarch64__)
#define FRY_SET neon
#define FRY_NEON
#include "simd.h"
static int supported(void) { return 1; }
#include "set.h"
#endif
typedef int not_empty;
