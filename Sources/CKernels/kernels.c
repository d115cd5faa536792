#include "martlet_kernels.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__)
#define VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTOR_CLONES
#endif

static const double magic = 0x1.8p52;

static inline int64_t bits_of(double value) {
    int64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}

// Nearest even integer of |value| < 2^51.
static inline int64_t rounded(double value) { return bits_of(value + magic) - bits_of(magic); }

static inline float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// IEEE 754 binary16, subnormal numbers included; infinities and NaNs become NaN.
static inline float float_of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t magnitude = (uint32_t)(half & 0x7FFF) << 13;
    float value = float_of_bits(magnitude) * 0x1p112f;
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t not_finite = (half & 0x7C00) == 0x7C00 ? 0x7FC00000u : 0;
    return float_of_bits(bits | sign | not_finite);
}

static inline float float_of_brain(uint16_t half) { return float_of_bits((uint32_t)half << 16); }

// Whether value * scale, rounded, times the weight stays in the range that `rounded` takes: then the product is exact in
// double precision, and cheaper than one of 64-bit integers.
static inline int is_exact(double scale, int64_t weight, double bound) {
    return bound * scale * (double)weight < 0x1p51;
}

VECTOR_CLONES
int martlet_fold_f32(int64_t *restrict sums, const float *restrict values, size_t count, double scale, int64_t weight,
                     double bound) {
    int64_t bad = 0;
    if (weight == 1) {
        for (size_t i = 0; i < count; i++) {
            double value = values[i];
            bad |= !(fabs(value) <= bound);
            sums[i] += rounded(value * scale);
        }
    } else if (is_exact(scale, weight, bound)) {
        double factor = (double)weight;
        for (size_t i = 0; i < count; i++) {
            double value = values[i];
            bad |= !(fabs(value) <= bound);
            double whole = (value * scale + magic) - magic;
            sums[i] += rounded(whole * factor);
        }
    } else {
        for (size_t i = 0; i < count; i++) {
            double value = values[i];
            bad |= !(fabs(value) <= bound);
            sums[i] += rounded(value * scale) * weight;
        }
    }
    return bad != 0;
}

// Four updates in one pass over the sums. Magnitudes are compared as integers, in which infinities and NaNs are the largest.
VECTOR_CLONES
int martlet_fold4_f32(int64_t *restrict sums, const float *restrict a, const float *restrict b, const float *restrict c,
                      const float *restrict d, size_t count, double scale, const int64_t *weights, double bound) {
    int64_t largest_weight = weights[0];
    for (int i = 1; i < 4; i++) largest_weight = weights[i] > largest_weight ? weights[i] : largest_weight;
    if (!is_exact(scale, 4 * largest_weight, bound)) {
        return martlet_fold_f32(sums, a, count, scale, weights[0], bound)
            | martlet_fold_f32(sums, b, count, scale, weights[1], bound)
            | martlet_fold_f32(sums, c, count, scale, weights[2], bound)
            | martlet_fold_f32(sums, d, count, scale, weights[3], bound);
    }
    const double wa = (double)weights[0], wb = (double)weights[1], wc = (double)weights[2], wd = (double)weights[3];
    int32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t bits[4];
        memcpy(&bits[0], &a[i], 4);
        memcpy(&bits[1], &b[i], 4);
        memcpy(&bits[2], &c[i], 4);
        memcpy(&bits[3], &d[i], 4);
        for (int j = 0; j < 4; j++) {
            int32_t magnitude = bits[j] & 0x7FFFFFFF;
            largest = magnitude > largest ? magnitude : largest;
        }
        double wholes = (((double)a[i] * scale + magic) - magic) * wa + (((double)b[i] * scale + magic) - magic) * wb
            + (((double)c[i] * scale + magic) - magic) * wc + (((double)d[i] * scale + magic) - magic) * wd;
        sums[i] += rounded(wholes);
    }
    return !((double)float_of_bits((uint32_t)largest) <= bound);
}

VECTOR_CLONES
int martlet_fold_f16(int64_t *restrict sums, const uint16_t *restrict values, size_t count, double scale,
                     int64_t weight, double bound) {
    int64_t bad = 0;
    if (is_exact(scale, weight, bound)) {
        double factor = (double)weight;
        for (size_t i = 0; i < count; i++) {
            double value = float_of_half(values[i]);
            bad |= !(fabs(value) <= bound);
            double whole = (value * scale + magic) - magic;
            sums[i] += rounded(whole * factor);
        }
        return bad != 0;
    }
    for (size_t i = 0; i < count; i++) {
        double value = float_of_half(values[i]);
        bad |= !(fabs(value) <= bound);
        sums[i] += rounded(value * scale) * weight;
    }
    return bad != 0;
}

VECTOR_CLONES
int martlet_fold_bf16(int64_t *restrict sums, const uint16_t *restrict values, size_t count, double scale,
                      int64_t weight, double bound) {
    int64_t bad = 0;
    if (is_exact(scale, weight, bound)) {
        double factor = (double)weight;
        for (size_t i = 0; i < count; i++) {
            double value = float_of_brain(values[i]);
            bad |= !(fabs(value) <= bound);
            double whole = (value * scale + magic) - magic;
            sums[i] += rounded(whole * factor);
        }
        return bad != 0;
    }
    for (size_t i = 0; i < count; i++) {
        double value = float_of_brain(values[i]);
        bad |= !(fabs(value) <= bound);
        sums[i] += rounded(value * scale) * weight;
    }
    return bad != 0;
}

VECTOR_CLONES
int martlet_fold_i8(int64_t *restrict sums, const int8_t *restrict values, size_t count, float block_scale,
                    double scale, int64_t weight, double bound) {
    int64_t bad = 0;
    if (is_exact(scale, weight, bound)) {
        double factor = (double)weight;
        for (size_t i = 0; i < count; i++) {
            float product = (float)values[i] * block_scale;
            double value = product;
            bad |= !(fabs(value) <= bound);
            double whole = (value * scale + magic) - magic;
            sums[i] += rounded(whole * factor);
        }
        return bad != 0;
    }
    for (size_t i = 0; i < count; i++) {
        float product = (float)values[i] * block_scale;
        double value = product;
        bad |= !(fabs(value) <= bound);
        sums[i] += rounded(value * scale) * weight;
    }
    return bad != 0;
}

VECTOR_CLONES
void martlet_decode_f16(float *restrict values, const uint16_t *restrict halves, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = float_of_half(halves[i]);
}

VECTOR_CLONES
void martlet_decode_bf16(float *restrict values, const uint16_t *restrict halves, size_t count) {
    for (size_t i = 0; i < count; i++) values[i] = float_of_brain(halves[i]);
}

VECTOR_CLONES
void martlet_decode_i8(float *restrict values, const int8_t *restrict integers, size_t count, float block_scale) {
    for (size_t i = 0; i < count; i++) values[i] = (float)integers[i] * block_scale;
}

VECTOR_CLONES
int martlet_check_f32(const float *restrict values, size_t count, double bound, double *square_sum) {
    int64_t bad = 0;
    double lanes[8] = {0};
    size_t vector_end = count & ~(size_t)7;
    for (size_t i = 0; i < vector_end; i += 8) {
        for (size_t lane = 0; lane < 8; lane++) {
            double value = values[i + lane];
            bad |= !(fabs(value) <= bound);
            lanes[lane] += value * value;
        }
    }
    double sum = 0;
    for (size_t lane = 0; lane < 8; lane++) sum += lanes[lane];
    for (size_t i = vector_end; i < count; i++) {
        double value = values[i];
        bad |= !(fabs(value) <= bound);
        sum += value * value;
    }
    *square_sum += sum;
    return bad != 0;
}

VECTOR_CLONES
void martlet_sums_to_means(int64_t *sums, size_t count, double step, double denominator) {
    for (size_t i = 0; i < count; i++) {
        double mean = (double)sums[i] * step / denominator;
        memcpy(&sums[i], &mean, 8);
    }
}

VECTOR_CLONES
uint64_t martlet_read_words(const uint64_t *words, size_t count) {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) sum += words[i];
    return sum;
}
