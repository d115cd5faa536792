#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// C = A B, or C += A B with `adds`: row-major, A [rows, inner] and B [inner, columns], each stored transposed on request.
///
/// Strides are those of rows as stored. Sums are in the scalar's own precision; with an instruction for both, products and sums are
/// rounded once, so the last bits depend on the processor's generation.
void martlet_product_f32(int transposes_a, int transposes_b, size_t rows, size_t columns, size_t inner, const float *a,
                         size_t stride_a, const float *b, size_t stride_b, int adds, float *c, size_t stride_c);

/// The same in doubles.
void martlet_product_f64(int transposes_a, int transposes_b, size_t rows, size_t columns, size_t inner, const double *a,
                         size_t stride_a, const double *b, size_t stride_b, int adds, double *c, size_t stride_c);

#ifdef __cplusplus
}
#endif
