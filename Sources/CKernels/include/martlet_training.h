#pragma once

#include <stddef.h>

// Loops of local training over floats, compiled for several processor generations like those of martlet_kernels.h. Here
// multiplications and additions may be fused where the processor can, so the last bits depend on the generation, as they do
// with every BLAS.

#ifdef __cplusplus
extern "C" {
#endif

/// x[i] = exp(x[i] - shift), arguments from -87 to 88; returns the sum.
float martlet_exponential_sum(float *x, float shift, size_t count);
/// x[i] = 1 / (1 + exp(-x[i])).
void martlet_sigmoid(float *x, size_t count);
/// y[i] = tanh(x[i]); y may be x.
void martlet_tanh(const float *x, float *y, size_t count);
/// The largest of `count` values, at least one.
float martlet_maximum(const float *x, size_t count);
/// How many values are strictly larger than `bound`.
size_t martlet_count_above(float bound, const float *x, size_t count);
/// y[i] += a * x[i].
void martlet_axpy(float a, const float *x, float *y, size_t count);
/// The dot product.
float martlet_dot(const float *x, const float *y, size_t count);

/// The CIFG cell of one sequence at one step: f, o, g hold sums and become gates.
///
/// c = f * before + (1 - f) * g goes to `after`, tanh(c) to `squashed`, o * tanh(c) to `hidden`.
void martlet_cifg_cell(float *f, float *o, float *g, const float *before, float *after, float *squashed, float *hidden,
                       size_t count);
/// Back through the cell: from d_hidden and what flows back in d_cell to the sums' gradients; d_cell becomes what flows on.
void martlet_cifg_cell_gradient(const float *f, const float *o, const float *g, const float *before,
                                const float *squashed, const float *d_hidden, float *d_cell, float *df, float *d_o,
                                float *dg, size_t count);

/// C = A B + beta C for few rows: A [rows, inner], B [inner, columns], C [rows, columns], row-major; beta is 0 or 1.
///
/// B is read as it lies. A library packs it first, which for a handful of rows costs as much as the product.
void martlet_multiply_few_rows(size_t rows, size_t columns, size_t inner, const float *a, size_t stride_a, const float *b,
                               size_t stride_b, int beta, float *c, size_t stride_c);

#ifdef __cplusplus
}
#endif
