/* One kernel set, compiled once for each: a file that defines FRY_SET and what simd.h asks for, and includes this. */
#if defined(FRY_TRAINING) /* the set of a file in train/ */
#include "train/set.h"
#else
#include "scoring.h"

static int32_t argmax(const float *x, int64_t n) {
    const float top = greatest(x, n);
    for (int64_t i = 0; i < n; i++)
        if (x[i] == top) return (int32_t)i;
    return 0; /* not a number anywhere */
}

static float log_sum_exp(const float *x, int64_t n) {
    const float top = greatest(x, n);
    return top + (float)log_of(exp_sum(x, n, top));
}

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)
const fry_ops JOIN(fry_ops_, FRY_SET) = {TEXT(FRY_SET), FLIPPED, supported, forward, score, argmax, log_sum_exp};
#endif
