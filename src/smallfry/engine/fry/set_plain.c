/* Plain C: what every machine can do. */
#define FRY_SET plain
#include "simd.h"
static int supported(void) { return 1; }
#include "set.h"
