/* One kernel set of the training kernels: a file that defines FRY_SET, includes simd.h and says supported(). */
#include "attention.h"
#include "rows.h"
#include "steps.h"
#include "weights.h"

#if !defined(FRY_HAS_AMX)
#define gradient_panels 0
#define gradient_bytes 0
#define weight_gradient 0
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)
const fry_train_ops JOIN(fry_train_ops_, FRY_SET) = {
    TEXT(FRY_SET),     supported,         norm_forward,       norm_backward,   swiglu_forward, swiglu_backward,
    attention_bytes,   attention_forward, attention_backward, cross_entropy,   gradient_panels, gradient_bytes,
    weight_gradient,   add,               sum_squares,        adamw,           momentum,       apply,
};
