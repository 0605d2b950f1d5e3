/* What libfry uses of a C library's string.h; shim.c has it. */
#ifndef FRY_STRING_H
#define FRY_STRING_H
#include <stddef.h>
void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
void *memchr(const void *bytes, int byte, size_t n);
int strcmp(const char *a, const char *b);
#endif
