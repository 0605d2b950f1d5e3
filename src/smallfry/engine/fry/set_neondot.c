/* NEON with products of bytes: ARM since 2018. */
#if defined(__aarch64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#define FRY_SET neondot
#define FRY_NEON
#define FRY_HAS_DOTPROD
#include "simd.h"
#if defined(__linux__)
#include <sys/auxv.h>
static int supported(void) { return (getauxval(AT_HWCAP) >> 20) & 1; } /* HWCAP_ASIMDDP */
#elif defined(__APPLE__)
static int supported(void) { return 1; } /* every Apple processor that runs 64-bit programs of today */
#else
static int supported(void) { return 0; }
#endif
#include "set.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
typedef int not_empty;
