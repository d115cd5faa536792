#include "martlet_training.h"

#include "generations.h"

#include <stdint.h>
#include <string.h>

// Sixteen floats: one register with AVX-512, two with AVX2, four with SSE or NEON. Sums and maxima are kept in lanes of
// it, in one order whatever the processor.
typedef float lanes __attribute__((vector_size(64), aligned(4)));
typedef int32_t whole_lanes __attribute__((vector_size(64), aligned(4)));

// Cody and Waite's reduction and a polynomial of degree 6, accurate to about 2 units in the last place. The integer part
// goes into the exponent's bits by way of the constant 1.5 * 2^23, which needs no rounding instruction. NaN stays NaN.
INLINE float exponential(float value) {
    float x = value > 88.0f ? 88.0f : value;
    x = x < -87.0f ? -87.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f;
    float whole = shifted - 12582912.0f;
    float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-04f;
    float power = 1.9875691500e-04f;
    power = power * rest + 1.3981999507e-03f;
    power = power * rest + 8.3334519073e-03f;
    power = power * rest + 4.1665795894e-02f;
    power = power * rest + 1.6666665459e-01f;
    power = power * rest + 5.0000001201e-01f;
    power = power * rest * rest + rest + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits - 0x4B400000u + 127u) << 23;
    float factor;
    memcpy(&factor, &bits, 4);
    return power * factor;
}

// The rational approximation of degree 13/6 that Eigen uses too.
INLINE float hyperbolic_tangent(float value) {
    float x = value > 7.905311f ? 7.905311f : value;
    x = x < -7.905311f ? -7.905311f : x;
    float square = x * x;
    float above = -2.76076847742355e-16f;
    above = above * square + 2.00018790482477e-13f;
    above = above * square + -8.60467152213735e-11f;
    above = above * square + 5.12229709037114e-08f;
    above = above * square + 1.48572235717979e-05f;
    above = above * square + 6.37261928875436e-04f;
    above = above * square + 4.89352455891786e-03f;
    float below = 1.19825839466702e-06f;
    below = below * square + 1.18534705686654e-04f;
    below = below * square + 2.26843463243900e-03f;
    below = below * square + 4.89352518554385e-03f;
    return x * above / below;
}

INLINE float logistic(float value) { return 1.0f / (1.0f + exponential(-value)); }

// A macro, because vectors as arguments would need one processor generation for the whole file.
#define LANES(x) (*(lanes *)(x))
#define CONST_LANES(x) (*(const lanes *)(x))

INLINE float sum_of(const lanes *sums) {
    float sum = 0;
    for (int lane = 0; lane < 16; lane++) sum += (*sums)[lane];
    return sum;
}

VECTOR_CLONES
float martlet_exponential_sum(float *x, float shift, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] = exponential(x[i] - shift);
    lanes sums = {0};
    size_t end = count & ~(size_t)15;
    for (size_t i = 0; i < end; i += 16) sums += CONST_LANES(x + i);
    float sum = sum_of(&sums);
    for (size_t i = end; i < count; i++) sum += x[i];
    return sum;
}

VECTOR_CLONES
void martlet_sigmoid(float *x, size_t count) {
    for (size_t i = 0; i < count; i++) x[i] = logistic(x[i]);
}

VECTOR_CLONES
void martlet_tanh(const float *x, float *y, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] = hyperbolic_tangent(x[i]);
}

VECTOR_CLONES
float martlet_maximum(const float *x, size_t count) {
    float largest = x[0];
    size_t end = count & ~(size_t)15;
    if (end > 0) {
        whole_lanes most = (whole_lanes)CONST_LANES(x);
        for (size_t i = 16; i < end; i += 16) {
            lanes block = CONST_LANES(x + i);
            whole_lanes larger = block > (lanes)most;
            most = ((whole_lanes)block & larger) | (most & ~larger);
        }
        lanes found = (lanes)most;
        for (int lane = 0; lane < 16; lane++) largest = found[lane] > largest ? found[lane] : largest;
    }
    for (size_t i = end; i < count; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

VECTOR_CLONES
size_t martlet_count_above(float bound, const float *x, size_t count) {
    int32_t above = 0;
    for (size_t i = 0; i < count; i++) above += x[i] > bound;
    return (size_t)above;
}

VECTOR_CLONES
void martlet_axpy(float a, const float *restrict x, float *restrict y, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] += a * x[i];
}

VECTOR_CLONES
float martlet_dot(const float *x, const float *y, size_t count) {
    lanes sums = {0};
    size_t end = count & ~(size_t)15;
    for (size_t i = 0; i < end; i += 16) sums += CONST_LANES(x + i) * CONST_LANES(y + i);
    float sum = sum_of(&sums);
    for (size_t i = end; i < count; i++) sum += x[i] * y[i];
    return sum;
}

VECTOR_CLONES
void martlet_cifg_cell(float *restrict f, float *restrict o, float *restrict g, const float *restrict before,
                       float *restrict after, float *restrict squashed, float *restrict hidden, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float forget = logistic(f[i]), out = logistic(o[i]), candidate = hyperbolic_tangent(g[i]);
        float cell = forget * before[i] + (1.0f - forget) * candidate;
        float small = hyperbolic_tangent(cell);
        f[i] = forget;
        o[i] = out;
        g[i] = candidate;
        after[i] = cell;
        squashed[i] = small;
        hidden[i] = out * small;
    }
}

VECTOR_CLONES
void martlet_cifg_cell_gradient(const float *restrict f, const float *restrict o, const float *restrict g,
                                const float *restrict before, const float *restrict squashed,
                                const float *restrict d_hidden, float *restrict d_cell, float *restrict df,
                                float *restrict d_o, float *restrict dg, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float cell = d_cell[i] + d_hidden[i] * o[i] * (1.0f - squashed[i] * squashed[i]);
        d_o[i] = d_hidden[i] * squashed[i] * o[i] * (1.0f - o[i]);
        dg[i] = cell * (1.0f - f[i]) * (1.0f - g[i] * g[i]);
        df[i] = cell * (before[i] - g[i]) * f[i] * (1.0f - f[i]);
        d_cell[i] = cell * f[i];
    }
}

// A tile of C: `rows` (a constant once inlined) by 16 * `width`, kept in registers while `inner` goes by.
INLINE void tile(const int rows, const int width, size_t inner, const float *a, size_t stride_a, const float *b,
                 size_t stride_b, int beta, float *c, size_t stride_c) {
    lanes sums[4][2];
    for (int row = 0; row < rows; row++)
        for (int block = 0; block < width; block++)
            sums[row][block] = beta ? CONST_LANES(c + row * stride_c + 16 * block) : (lanes){0};
    for (size_t k = 0; k < inner; k++) {
        for (int block = 0; block < width; block++) {
            lanes right = CONST_LANES(b + k * stride_b + 16 * block);
            for (int row = 0; row < rows; row++) sums[row][block] += a[row * stride_a + k] * right;
        }
    }
    for (int row = 0; row < rows; row++)
        for (int block = 0; block < width; block++) LANES(c + row * stride_c + 16 * block) = sums[row][block];
}

INLINE void columns_of(const int rows, const int width, size_t columns, size_t inner, const float *a, size_t stride_a,
                       const float *b, size_t stride_b, int beta, float *c, size_t stride_c) {
    size_t column = 0;
    if (width == 2)
        for (; column + 32 <= columns; column += 32)
            tile(rows, 2, inner, a, stride_a, b + column, stride_b, beta, c + column, stride_c);
    for (; column + 16 <= columns; column += 16)
        tile(rows, 1, inner, a, stride_a, b + column, stride_b, beta, c + column, stride_c);
    for (; column < columns; column++) {
        for (int row = 0; row < rows; row++) {
            float sum = beta ? c[row * stride_c + column] : 0;
            for (size_t k = 0; k < inner; k++) sum += a[row * stride_a + k] * b[k * stride_b + column];
            c[row * stride_c + column] = sum;
        }
    }
}

INLINE void multiply(const int width, size_t rows, size_t columns, size_t inner, const float *a, size_t stride_a,
                     const float *b, size_t stride_b, int beta, float *c, size_t stride_c) {
    for (; rows >= 4; rows -= 4, a += 4 * stride_a, c += 4 * stride_c)
        columns_of(4, width, columns, inner, a, stride_a, b, stride_b, beta, c, stride_c);
    if (rows >= 2) {
        columns_of(2, width, columns, inner, a, stride_a, b, stride_b, beta, c, stride_c);
        rows -= 2, a += 2 * stride_a, c += 2 * stride_c;
    }
    if (rows == 1) columns_of(1, width, columns, inner, a, stride_a, b, stride_b, beta, c, stride_c);
}

// With AVX-512 a tile is two registers wide; with fewer or smaller registers that would spill.
#ifdef HAS_GENERATIONS
FOR_GENERATION("arch=x86-64-v4")
static void multiply_v4(size_t rows, size_t columns, size_t inner, const float *a, size_t stride_a, const float *b,
                        size_t stride_b, int beta, float *c, size_t stride_c) {
    multiply(2, rows, columns, inner, a, stride_a, b, stride_b, beta, c, stride_c);
}

FOR_GENERATION("arch=x86-64-v3")
static void multiply_v3(size_t rows, size_t columns, size_t inner, const float *a, size_t stride_a, const float *b,
                        size_t stride_b, int beta, float *c, size_t stride_c) {
    multiply(1, rows, columns, inner, a, stride_a, b, stride_b, beta, c, stride_c);
}
#endif

void martlet_multiply_few_rows(size_t rows, size_t columns, size_t inner, const float *a, size_t stride_a, const float *b,
                               size_t stride_b, int beta, float *c, size_t stride_c) {
#ifdef HAS_GENERATIONS
    if (__builtin_cpu_supports("x86-64-v4")) {
        multiply_v4(rows, columns, inner, a, stride_a, b, stride_b, beta, c, stride_c);
        return;
    }
    if (__builtin_cpu_supports("x86-64-v3")) {
        multiply_v3(rows, columns, inner, a, stride_a, b, stride_b, beta, c, stride_c);
        return;
    }
#endif
    multiply(1, rows, columns, inner, a, stride_a, b, stride_b, beta, c, stride_c);
}
