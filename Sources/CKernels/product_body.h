// Matrix products of one scalar type; included by products.c for each. SCALAR is the type, NAME(x) makes a name of its own, and a
// VECTOR holds LANE_COUNT scalars: one register with AVX-512, two with AVX2, four with SSE or NEON.

typedef SCALAR NAME(vector) __attribute__((vector_size(64), aligned(sizeof(SCALAR))));
#define VECTOR NAME(vector)
#define LANE_COUNT (64 / sizeof(SCALAR))

// A tile of C: `rows` by `width` vectors (constants once inlined), kept in registers while `inner` goes by. Values beyond
// `columns` are computed from the panel's zeros and not stored.
INLINE void NAME(tile)(const int rows, const int width, size_t inner, const SCALAR *a, size_t row_step, size_t inner_step,
                       const SCALAR *panel, size_t panel_step, int adds, SCALAR *c, size_t stride_c, size_t columns) {
    VECTOR sums[rows_limit][width_limit];
    UNROLLED for (int row = 0; row < rows; row++)
        UNROLLED for (int block = 0; block < width; block++) sums[row][block] = (VECTOR){0};
    for (size_t k = 0; k < inner; k++) {
        VECTOR right[width_limit];
        UNROLLED for (int block = 0; block < width; block++)
            right[block] = *(const VECTOR *)(panel + k * panel_step + LANE_COUNT * block);
        UNROLLED for (int row = 0; row < rows; row++)
            UNROLLED for (int block = 0; block < width; block++)
                sums[row][block] += a[row * row_step + k * inner_step] * right[block];
    }
    UNROLLED for (int row = 0; row < rows; row++) {
        UNROLLED for (int block = 0; block < width; block++) {
            SCALAR *to = c + row * stride_c + LANE_COUNT * block;
            size_t begin = LANE_COUNT * block;
            if (begin + LANE_COUNT <= columns) {
                *(VECTOR *)to = adds ? *(VECTOR *)to + sums[row][block] : sums[row][block];
            } else {
                for (size_t lane = 0; begin + lane < columns; lane++)
                    to[lane] = adds ? to[lane] + sums[row][block][lane] : sums[row][block][lane];
            }
        }
    }
}

// All rows of one panel of columns, `most` (8, 6, 4 or 2) at a time.
INLINE void NAME(rows_of)(const int most, const int width, size_t rows, size_t inner, const SCALAR *a, size_t row_step,
                          size_t inner_step, const SCALAR *panel, size_t panel_step, int adds, SCALAR *c,
                          size_t stride_c, size_t columns) {
    for (; rows >= (size_t)most; rows -= most, a += most * row_step, c += most * stride_c)
        NAME(tile)(most, width, inner, a, row_step, inner_step, panel, panel_step, adds, c, stride_c, columns);
    if (most > 4 && rows >= 4) {
        NAME(tile)(4, width, inner, a, row_step, inner_step, panel, panel_step, adds, c, stride_c, columns);
        rows -= 4, a += 4 * row_step, c += 4 * stride_c;
    }
    if (most > 2 && rows >= 2) {
        NAME(tile)(2, width, inner, a, row_step, inner_step, panel, panel_step, adds, c, stride_c, columns);
        rows -= 2, a += 2 * row_step, c += 2 * stride_c;
    }
    if (rows > 0) NAME(tile)(1, width, inner, a, row_step, inner_step, panel, panel_step, adds, c, stride_c, columns);
}

// The sums go in the order of k, in blocks whose size never changes: the shape of a tile does not reach the result.
INLINE void NAME(product)(const int most, const int width, int transposes_a, int transposes_b, size_t rows,
                          size_t columns, size_t inner, const SCALAR *a, size_t stride_a, const SCALAR *b,
                          size_t stride_b, int adds, SCALAR *c, size_t stride_c) {
    const size_t panel_width = LANE_COUNT * width;
    // A panel of B fits the first-level cache and is used by all rows of A, which are read where they lie.
    SCALAR packed[inner_limit * LANE_COUNT * width_limit] __attribute__((aligned(64)));
    const size_t row_step = transposes_a ? 1 : stride_a, inner_step = transposes_a ? stride_a : 1;
    for (size_t first = 0; first < inner; first += inner_limit) {
        const size_t depth = inner - first < inner_limit ? inner - first : inner_limit;
        for (size_t column = 0; column < columns; column += panel_width) {
            const size_t count = columns - column < panel_width ? columns - column : panel_width;
            const SCALAR *panel = packed;
            size_t panel_step = panel_width;
            if (!transposes_b && rows <= 8 && count == panel_width) {
                // Copying costs what it saves for a handful of rows.
                panel = b + first * stride_b + column, panel_step = stride_b;
            } else if (transposes_b) {
                for (size_t j = 0; j < panel_width; j++) {
                    const SCALAR *from = b + (column + j) * stride_b + first;
                    for (size_t k = 0; k < depth; k++) packed[k * panel_width + j] = j < count ? from[k] : 0;
                }
            } else {
                for (size_t k = 0; k < depth; k++) {
                    const SCALAR *from = b + (first + k) * stride_b + column;
                    for (size_t j = 0; j < panel_width; j++) packed[k * panel_width + j] = j < count ? from[j] : 0;
                }
            }
            NAME(rows_of)(most, width, rows, depth, a + first * inner_step, row_step, inner_step, panel, panel_step,
                          adds || first > 0, c + column, stride_c, count);
        }
    }
}

#ifdef HAS_GENERATIONS
FOR_GENERATION("arch=x86-64-v4")
static void NAME(product_v4)(int transposes_a, int transposes_b, size_t rows, size_t columns, size_t inner,
                             const SCALAR *a, size_t stride_a, const SCALAR *b, size_t stride_b, int adds, SCALAR *c,
                             size_t stride_c) {
    NAME(product)(8, 2, transposes_a, transposes_b, rows, columns, inner, a, stride_a, b, stride_b, adds, c, stride_c);
}

FOR_GENERATION("arch=x86-64-v3")
static void NAME(product_v3)(int transposes_a, int transposes_b, size_t rows, size_t columns, size_t inner,
                             const SCALAR *a, size_t stride_a, const SCALAR *b, size_t stride_b, int adds, SCALAR *c,
                             size_t stride_c) {
    NAME(product)(6, 1, transposes_a, transposes_b, rows, columns, inner, a, stride_a, b, stride_b, adds, c, stride_c);
}
#endif

void NAME(martlet_product)(int transposes_a, int transposes_b, size_t rows, size_t columns, size_t inner,
                           const SCALAR *a, size_t stride_a, const SCALAR *b, size_t stride_b, int adds, SCALAR *c,
                           size_t stride_c) {
    if (inner == 0 && !adds)
        for (size_t row = 0; row < rows; row++)
            for (size_t column = 0; column < columns; column++) c[row * stride_c + column] = 0;
#ifdef HAS_GENERATIONS
    if (__builtin_cpu_supports("x86-64-v4")) {
        NAME(product_v4)(transposes_a, transposes_b, rows, columns, inner, a, stride_a, b, stride_b, adds, c, stride_c);
        return;
    }
    if (__builtin_cpu_supports("x86-64-v3")) {
        NAME(product_v3)(transposes_a, transposes_b, rows, columns, inner, a, stride_a, b, stride_b, adds, c, stride_c);
        return;
    }
#endif
    NAME(product)(base_rows, 1, transposes_a, transposes_b, rows, columns, inner, a, stride_a, b, stride_b, adds, c,
                  stride_c);
}

#undef VECTOR
#undef LANE_COUNT
