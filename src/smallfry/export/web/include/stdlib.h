/* What libfry uses of a C library's stdlib.h; shim.c has it. */
#ifndef FRY_STDLIB_H
#define FRY_STDLIB_H
#include <stddef.h>
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void free(void *memory);
#endif
