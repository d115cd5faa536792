#include "martlet_kernels.h"

#include "generations.h"

#include <math.h>
#include <string.h>

// A product and a sum are rounded one after another on every processor, with or without an instruction for both.
#pragma STDC FP_CONTRACT OFF

static const double magic = 0x1.8p52;

INLINE int64_t bits_of(double value) {
    int64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}

// Nearest even integer of |value| < 2^51: adding 1.5 * 2^52 leaves no room for a fraction.
INLINE int64_t rounded(double value) { return bits_of(value + magic) - bits_of(magic); }

INLINE float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

// IEEE 754 binary16, subnormal numbers included; infinities and NaNs become NaN.
INLINE float float_of_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t magnitude = (uint32_t)(half & 0x7FFF) << 13;
    float value = float_of_bits(magnitude) * 0x1p112f;
    uint32_t not_finite = (half & 0x7C00) == 0x7C00 ? 0x7FC00000u : 0;
    return float_of_bits(bits_of_float(value) | sign | not_finite);
}

// MARK: - Decoding

INLINE void decode_i8(float *restrict values, const int8_t *restrict integers, const float *scales, size_t position,
                      size_t count) {
    while (count > 0) {
        size_t length = MARTLET_I8_BLOCK - position % MARTLET_I8_BLOCK;
        if (length > count) length = count;
        const float scale = scales[position / MARTLET_I8_BLOCK];
        for (size_t i = 0; i < length; i++) values[i] = (float)integers[i] * scale;
        values += length;
        integers += length;
        position += length;
        count -= length;
    }
}

INLINE void decode_i4(float *restrict values, const uint8_t *restrict packed, const float *scales, size_t position,
                      size_t count) {
    // Blocks are even, so that only the first and the last value may be one half of a byte.
    while (count > 0) {
        size_t length = MARTLET_I4_BLOCK - position % MARTLET_I4_BLOCK;
        if (length > count) length = count;
        const float scale = scales[position / MARTLET_I4_BLOCK];
        size_t i = 0;
        if (position % 2 == 1) values[i++] = (float)((*packed++ >> 4) - 8) * scale;
        size_t pairs = (length - i) / 2;
        for (size_t pair = 0; pair < pairs; pair++) {
            values[i + 2 * pair] = (float)((packed[pair] & 15) - 8) * scale;
            values[i + 2 * pair + 1] = (float)((packed[pair] >> 4) - 8) * scale;
        }
        packed += pairs;
        i += 2 * pairs;
        if (i < length) values[i] = (float)((*packed & 15) - 8) * scale;
        values += length;
        position += length;
        count -= length;
    }
}

// Values `start` and on of a row.
INLINE void decode_piece(float *restrict values, const martlet_row *row, size_t start, size_t count) {
    const size_t position = (size_t)row->offset + start;
    switch (row->kind) {
    case MARTLET_F32: memcpy(values, (const float *)row->data + start, count * 4); break;
    case MARTLET_F16: {
        const uint16_t *restrict halves = (const uint16_t *)row->data + start;
        for (size_t i = 0; i < count; i++) values[i] = float_of_half(halves[i]);
        break;
    }
    case MARTLET_BF16: {
        const uint16_t *restrict halves = (const uint16_t *)row->data + start;
        for (size_t i = 0; i < count; i++) values[i] = float_of_bits((uint32_t)halves[i] << 16);
        break;
    }
    case MARTLET_I8: decode_i8(values, (const int8_t *)row->data + start, row->scales, position, count); break;
    default:
        decode_i4(values, (const uint8_t *)row->data + (position / 2 - (size_t)row->offset / 2), row->scales, position,
                  count);
    }
}

VECTOR_CLONES
void martlet_decode(float *values, const martlet_row *row, size_t count) { decode_piece(values, row, 0, count); }

// Values `start` and on of a row, multiplied by its factor: where they lie, or in `space`.
INLINE const float *scaled_piece(float *restrict space, const martlet_row *row, size_t start, size_t count) {
    const double factor = row->factor;
    if (row->kind == MARTLET_F32) {
        const float *restrict values = (const float *)row->data + start;
        if (factor == 1) return values;
        for (size_t i = 0; i < count; i++) space[i] = (float)((double)values[i] * factor);
        return space;
    }
    decode_piece(space, row, start, count);
    if (factor != 1)
        for (size_t i = 0; i < count; i++) space[i] = (float)((double)space[i] * factor);
    return space;
}

// MARK: - Folding

// Values of a row that are worked on at a time: eight rows of them and their sums fit the first cache.
enum { piece_count = 512, group_count = 8 };

// The largest magnitude, as bits: infinities and NaNs are above every number.
INLINE uint32_t largest_magnitude(const float *restrict values, size_t count) {
    uint32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t magnitude = bits_of_float(values[i]) & 0x7FFFFFFF;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

// What `fold_group` does when the products leave the range in which doubles are exact.
INLINE void fold_wide(int64_t *restrict sums, const float *restrict values, size_t count, double scale, int64_t weight) {
    for (size_t i = 0; i < count; i++) sums[i] += rounded((double)values[i] * scale) * weight;
}

// Weighted whole numbers of `n` rows in doubles, every partial sum exact; the exponents that occur are gathered on the way.
INLINE uint32_t gather(double *restrict wholes, const float *const *rows, const double *weights, int n, size_t count,
                       double scale) {
    const float *restrict a = rows[0], *restrict b = rows[n > 1 ? 1 : 0], *restrict c = rows[n > 2 ? 2 : 0],
                *restrict d = rows[n > 3 ? 3 : 0], *restrict e = rows[n > 4 ? 4 : 0], *restrict f = rows[n > 5 ? 5 : 0],
                *restrict g = rows[n > 6 ? 6 : 0], *restrict h = rows[n > 7 ? 7 : 0];
    double w[8];
    for (int j = 0; j < n; j++) w[j] = weights[j];
    uint32_t seen = 0;
#define WHOLE(row) (((double)row[i] * scale + magic) - magic)
#define SEEN(row) (bits_of_float(row[i]) & 0x7F800000)
    for (size_t i = 0; i < count; i++) {
        double sum = WHOLE(a) * w[0];
        seen |= SEEN(a);
        if (n > 1) sum += WHOLE(b) * w[1], seen |= SEEN(b);
        if (n > 2) sum += WHOLE(c) * w[2], seen |= SEEN(c);
        if (n > 3) sum += WHOLE(d) * w[3], seen |= SEEN(d);
        if (n > 4) sum += WHOLE(e) * w[4], seen |= SEEN(e);
        if (n > 5) sum += WHOLE(f) * w[5], seen |= SEEN(f);
        if (n > 6) sum += WHOLE(g) * w[6], seen |= SEEN(g);
        if (n > 7) sum += WHOLE(h) * w[7], seen |= SEEN(h);
        wholes[i] = sum;
    }
    return seen;
}

// A piece of up to eight rows; the number of a row that is wrong, or -1.
INLINE int64_t fold_group(int64_t *restrict sums, const float *const *rows, const int64_t *weights, int n, size_t count,
                          double scale, double bound) {
    double wholes[piece_count], factors[group_count], total = 0;
    for (int j = 0; j < n; j++) total += factors[j] = (double)weights[j];
    // While every magnitude is within this, sums of products stay exact, roundings included.
    const double exact = 0x1p50 / (scale * total);
    const double limit = exact < bound ? exact : bound;
    uint32_t seen;
    switch (n) {
    case 8: seen = gather(wholes, rows, factors, 8, count, scale); break;
    case 4: seen = gather(wholes, rows, factors, 4, count, scale); break;
    default: seen = gather(wholes, rows, factors, 1, count, scale);
    }
    // The exponents together are at least the largest one; where that is not good enough the magnitudes are looked at.
    if ((double)float_of_bits(seen | 0x7FFFFF) > limit || seen == 0x7F800000) {
        double largest = 0;
        for (int j = 0; j < n; j++) {
            double magnitude = float_of_bits(largest_magnitude(rows[j], count));
            if (!(magnitude <= bound)) return j;
            largest = magnitude > largest ? magnitude : largest;
        }
        if (largest > exact) {
            for (int j = 0; j < n; j++) fold_wide(sums, rows[j], count, scale, weights[j]);
            return -1;
        }
    }
    for (size_t i = 0; i < count; i++) sums[i] += rounded(wholes[i]);
    return -1;
}

VECTOR_CLONES
int64_t martlet_fold(int64_t *sums, const martlet_row *rows, size_t row_count, size_t count, double scale,
                     double bound) {
    float space[group_count][piece_count];
    for (size_t row = 0; row < row_count;) {
        const size_t left = row_count - row;
        const int n = left >= 8 ? 8 : left >= 4 ? 4 : 1;
        int64_t weights[group_count];
        for (int j = 0; j < n; j++) weights[j] = rows[row + (size_t)j].weight;
        for (size_t start = 0; start < count; start += piece_count) {
            const size_t length = count - start < piece_count ? count - start : piece_count;
            const float *values[group_count];
            for (int j = 0; j < n; j++) {
                values[j] = scaled_piece(space[j], &rows[row + (size_t)j], start, length);
            }
            int64_t wrong = fold_group(sums + start, values, weights, n, length, scale, bound);
            if (wrong >= 0) return (int64_t)row + wrong;
        }
        row += (size_t)n;
    }
    return -1;
}

// Row by row, since what is slow is the sums: twice as long, and added with carry.
VECTOR_CLONES
int64_t martlet_fold_wide(void *sums, const martlet_row *rows, size_t row_count, size_t count, double scale,
                          double bound) {
    __int128 *wide = sums;
    float space[piece_count];
    for (size_t start = 0; start < count; start += piece_count) {
        const size_t length = count - start < piece_count ? count - start : piece_count;
        for (size_t row = 0; row < row_count; row++) {
            const float *values = scaled_piece(space, &rows[row], start, length);
            if (!(float_of_bits(largest_magnitude(values, length)) <= bound)) return (int64_t)row;
            const __int128 weight = rows[row].weight;
            for (size_t i = 0; i < length; i++) wide[start + i] += rounded((double)values[i] * scale) * weight;
        }
    }
    return -1;
}

// MARK: - The rest

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
void martlet_sums_to_means(double *means, const int64_t *sums, size_t count, double step, double denominator) {
    // Through a piece of its own: where both are the same memory the compiler would go value by value, which costs a round
    // of 25 million parameters as much as the sum of eight updates.
    enum { means_piece = 64 };
    for (size_t start = 0; start < count; start += means_piece) {
        const size_t length = count - start < means_piece ? count - start : means_piece;
        int64_t piece[means_piece] = {0};
        double quotients[means_piece];
        memcpy(piece, sums + start, length * 8);
        for (size_t i = 0; i < means_piece; i++) quotients[i] = (double)piece[i] * step / denominator;
        memcpy(means + start, quotients, length * 8);
    }
}

VECTOR_CLONES
void martlet_wide_to_means(double *means, const void *sums, size_t count, double step, double denominator) {
    const __int128 *wide = sums;
    for (size_t i = 0; i < count; i++) means[i] = (double)wide[i] * step / denominator;
}

VECTOR_CLONES
void martlet_step(float *restrict values, const double *restrict directions, size_t count, double rate) {
    for (size_t i = 0; i < count; i++) values[i] = (float)((double)values[i] + rate * directions[i]);
}

VECTOR_CLONES
uint64_t martlet_read_words(const uint64_t *words, size_t count) {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) sum += words[i];
    return sum;
}
