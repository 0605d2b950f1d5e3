/* WebAssembly with 128-bit registers. */
#if defined(__wasm_simd128__)
#define FRY_SET wasm
#define FRY_WASM
#include "simd.h"
static int supported(void) { return 1; }
#include "set.h"
#endif
typedef int not_empty;
