#pragma once

#include <stddef.h>
#include <stdint.h>

// Loops over whole blocks that the compiler turns into vector code. On x86-64 Linux each is compiled three times (baseline,
// AVX2, AVX-512) and the right one is chosen when the program is loaded; all three give the same bits.
//
// Rounding to the grid is exact: the scale is a power of two, and adding 1.5 * 2^52 rounds to the nearest even integer.
// It needs |value * scale| < 2^51, which `bound` must ensure. Each returns 0, or 1 where a value was not finite or beyond
// the bound: the sums are then of no use.

#ifdef __cplusplus
extern "C" {
#endif

int martlet_fold_f32(int64_t *sums, const float *values, size_t count, double scale, int64_t weight, double bound);
/// Four updates in one pass over the sums: the same bits as one after the other.
int martlet_fold4_f32(int64_t *sums, const float *a, const float *b, const float *c, const float *d, size_t count,
                      double scale, const int64_t *weights, double bound);
int martlet_fold_f16(int64_t *sums, const uint16_t *values, size_t count, double scale, int64_t weight, double bound);
int martlet_fold_bf16(int64_t *sums, const uint16_t *values, size_t count, double scale, int64_t weight, double bound);
int martlet_fold_i8(int64_t *sums, const int8_t *values, size_t count, float block_scale, double scale, int64_t weight,
                    double bound);

void martlet_decode_f16(float *values, const uint16_t *halves, size_t count);
void martlet_decode_bf16(float *values, const uint16_t *halves, size_t count);
void martlet_decode_i8(float *values, const int8_t *integers, size_t count, float block_scale);

/// Whether some value is not finite or beyond the bound; adds the squares to `square_sum`.
int martlet_check_f32(const float *values, size_t count, double bound, double *square_sum);

/// means[i] = sums[i] * factor, in the same memory.
void martlet_sums_to_means(int64_t *sums, size_t count, double step, double denominator);

/// Sum of the 64-bit words: what reading costs at least.
uint64_t martlet_read_words(const uint64_t *words, size_t count);

#ifdef __cplusplus
}
#endif
