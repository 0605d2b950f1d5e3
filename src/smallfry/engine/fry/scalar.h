/* The few functions of a single number that libfry needs, written out, so that every machine gives the same bits and
 * WebAssembly needs no library. Errors are a few units in the last place of a double. */
#ifndef FRY_SCALAR_H
#define FRY_SCALAR_H

#include <stdint.h>
#include <string.h>

static inline double scale_by_two(double x, int64_t n) { /* x 2^n, for |n| <= 1022 */
    const uint64_t bits = (uint64_t)(n + 1023) << 52;
    double power;
    memcpy(&power, &bits, 8);
    return x * power;
}

static inline double nearest(double x) { /* |x| < 2^51, ties to even */
    const double shift = 6755399441055744.0;
    volatile double sum = x + shift;
    return sum - shift;
}

/* e^x: x = n ln 2 + r, then Taylor's series to r^13 (|r| < 0.35). */
static inline double exp_of(double x) {
    if (x > 700.0) x = 700.0;
    if (!(x > -700.0)) return 0.0;
    const double n = nearest(x * 1.4426950408889634);
    const double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    double p = 1.0;
    for (int k = 13; k > 0; k--) p = 1.0 + p * r / k;
    return scale_by_two(p, (int64_t)n);
}

/* ln x for x > 0: x = 2^n m with m in [0.7, 1.41], then 2 atanh((m - 1) / (m + 1)). */
static inline double log_of(double x) {
    if (!(x > 1e-300)) x = 1e-300;
    uint64_t bits;
    memcpy(&bits, &x, 8);
    int64_t n = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | (uint64_t)1023 << 52;
    double m;
    memcpy(&m, &bits, 8);
    if (m > 1.4142135623730951) m *= 0.5, n++;
    const double t = (m - 1.0) / (m + 1.0), square = t * t;
    double p = 0.0;
    for (int k = 23; k > 0; k -= 2) p = p * square + 1.0 / k;
    return (double)n * 0.69314718055994531 + 2.0 * t * p;
}

/* Cosine and sine of |x| < 2^20: x = n pi / 2 + r, then Taylor's series (|r| < 0.79). */
static inline void cos_sin_of(double x, float *cosine, float *sine) {
    const double n = nearest(x * 0.63661977236758138);
    const double r = ((x - n * 1.57079632673412561417) - n * 6.07710050630396597660e-11) - n * 2.02226624879595063154e-21;
    const double square = r * r;
    double c = 1.0, s = 1.0;
    for (int k = 18; k > 0; k -= 2) c = 1.0 - c * square / (k * (k - 1));
    for (int k = 19; k > 1; k -= 2) s = 1.0 - s * square / (k * (k - 1));
    s *= r;
    const int quarter = (int)((int64_t)n & 3);
    *cosine = (float)(quarter == 0 ? c : quarter == 1 ? -s : quarter == 2 ? -c : s);
    *sine = (float)(quarter == 0 ? s : quarter == 1 ? c : quarter == 2 ? -s : -c);
}

#endif
