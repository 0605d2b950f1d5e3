/* What the compiler knows: an older one refuses names of instructions that came after it. */
#ifndef FRY_COMPILER_H
#define FRY_COMPILER_H

#if defined(__clang__)
#define FRY_NEWER(gcc, clang) (__clang_major__ >= (clang))
#elif defined(__GNUC__)
#define FRY_NEWER(gcc, clang) (__GNUC__ >= (gcc))
#else
#define FRY_NEWER(gcc, clang) 0
#endif

#if defined(__x86_64__) && FRY_NEWER(10, 9)
#define FRY_KNOWS_BF16
#endif
#if defined(__x86_64__) && defined(__linux__) && FRY_NEWER(11, 12)
#define FRY_KNOWS_AMX
#endif

#endif
