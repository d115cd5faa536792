// Matrix products without a library: plain C that the compiler vectorises, for apps that leave OpenBLAS out.

#include "martlet_products.h"

#include "generations.h"

#define UNROLLED _Pragma("clang loop unroll(full)")

enum {
    // The largest tile, and how deep a panel is; with 16 floats a vector it has 32 KiB.
    rows_limit = 8,
    width_limit = 2,
    inner_limit = 256,
    // Of a processor's own registers: NEON has 32, SSE has 16.
#if defined(__aarch64__)
    base_rows = 6,
#else
    base_rows = 2,
#endif
};

#define JOINED(a, b) a##b

#define SCALAR float
#define NAME(x) JOINED(x, _f32)
#include "product_body.h"
#undef SCALAR
#undef NAME

#define SCALAR double
#define NAME(x) JOINED(x, _f64)
#include "product_body.h"
#undef SCALAR
#undef NAME
