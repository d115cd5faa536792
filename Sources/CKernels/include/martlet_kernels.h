#pragma once

#include <stddef.h>
#include <stdint.h>

// Loops over whole blocks that the compiler turns into vector code. On x86-64 Linux each is compiled three times (baseline,
// AVX2, AVX-512) and the right one is chosen when the program is loaded; all three give the same bits.

#ifdef __cplusplus
extern "C" {
#endif

// How the values of a row are stored.
#define MARTLET_F32 0
#define MARTLET_F16 1
#define MARTLET_BF16 2
/// Signed bytes with one float scale for each block of MARTLET_I8_BLOCK.
#define MARTLET_I8 3
/// Two values a byte, low bits first, 8 more than the integer, with one float scale for each block of MARTLET_I4_BLOCK.
#define MARTLET_I4 4

#define MARTLET_I8_BLOCK 128
#define MARTLET_I4_BLOCK 32

/// A piece of one update, as it lies in its file.
typedef struct {
    /// The values; for MARTLET_I4 the byte that the first value is in.
    const void *data;
    /// The scales from the first value's block on; NULL where there are none.
    const float *scales;
    /// Where in its block the first value lies.
    int64_t offset;
    /// 1 or more.
    int64_t weight;
    int32_t kind;
    /// From 0 to 1: each decoded value is multiplied by it, in double precision, and rounded to single before anything else.
    double factor;
} martlet_row;

/// Adds `weight * round(value * scale)` of every row to the sums, exactly, whatever the number and order of rows.
///
/// Decoding, the check, rounding to the nearest even integer and weighting are one pass, eight rows at a time, over pieces
/// that stay in the first cache. `scale` is a power of two, and `bound * scale` must be less than 2^51.
///
/// Returns -1, or the number of a row with a value that is not finite or beyond the bound: the sums are then of no use.
int64_t martlet_fold(int64_t *sums, const martlet_row *rows, size_t row_count, size_t count, double scale, double bound);

/// The same into sums of 128 bits (two's complement, aligned to 16 bytes), for weights whose products leave 64.
int64_t martlet_fold_wide(void *sums, const martlet_row *rows, size_t row_count, size_t count, double scale,
                          double bound);

/// Decodes a row.
void martlet_decode(float *values, const martlet_row *row, size_t count);

/// Whether some value is not finite or beyond the bound; adds the squares to `square_sum`.
int martlet_check_f32(const float *values, size_t count, double bound, double *square_sum);

/// means[i] = sums[i] * step / denominator; `means` may be the memory of the sums.
void martlet_sums_to_means(double *means, const int64_t *sums, size_t count, double step, double denominator);

/// The same from sums of 128 bits: where they fit 64 the means are the same to the bit. The two do not overlap.
void martlet_wide_to_means(double *means, const void *sums, size_t count, double step, double denominator);

/// values[i] += rate * directions[i], in doubles, rounded once; the two do not overlap.
void martlet_step(float *values, const double *directions, size_t count, double rate);

/// Sum of the 64-bit words: what reading costs at least.
uint64_t martlet_read_words(const uint64_t *words, size_t count);

#ifdef __cplusplus
}
#endif
