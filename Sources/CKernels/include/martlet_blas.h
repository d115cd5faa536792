#pragma once

/// The core whose kernels OpenBLAS runs, such as `Haswell`; NULL without OpenBLAS.
const char *martlet_blas_core(void);

/// OpenBLAS's version and build; NULL without OpenBLAS.
const char *martlet_blas_library(void);

/// The widest core that this processor can run, by CPUID: `SkylakeX`, `Haswell`, or NULL.
const char *martlet_blas_best_core(void);

/// Lets OpenBLAS choose its core again where the processor can do more than the one it chose.
///
/// Call it before the first product, and while no other thread uses OpenBLAS. Does nothing where `OPENBLAS_CORETYPE` is set.
///
/// Returns 1 where another core runs now.
int martlet_choose_blas_core(void);

/// Makes OpenBLAS run the kernels of the core named, or with NULL of the one that its own table chooses; for measurements.
///
/// Call it while no other thread uses OpenBLAS. Returns the core that runs now, another one where the build has none of that name.
const char *martlet_set_blas_core(const char *core);
