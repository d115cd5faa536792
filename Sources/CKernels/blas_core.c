// Chooses OpenBLAS's core by what the processor can do, where the library's table of models is older than the processor.
//
// OpenBLAS picks its kernels by family and model. Debian's 0.3.21 does not know Intel's newer ones and runs its SSE3 kernels on
// them, at a quarter of their speed (OpenBLAS issue 4267; right from 0.3.25). Its symbols are weak here: without OpenBLAS, or with
// a build for one core, nothing happens.

#include "martlet_blas.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WEAK __attribute__((weak))
char *openblas_get_corename(void) WEAK;
char *openblas_get_config(void) WEAK;
void gotoblas_dynamic_quit(void) WEAK;
void gotoblas_dynamic_init(void) WEAK;

const char *martlet_blas_core(void) { return openblas_get_corename ? openblas_get_corename() : NULL; }

const char *martlet_blas_library(void) { return openblas_get_config ? openblas_get_config() : NULL; }

const char *martlet_blas_best_core(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        return "SkylakeX";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "Haswell";
#endif
    return NULL;
}

#if defined(__x86_64__)
// Width of a core's kernels: 0 for SSE, 1 for AVX, 2 for AVX2, 3 for AVX-512; cores that are not named are newer than these.
static int width_of(const char *core) {
    static const char *const sse[] = {"Prescott", "Core2",  "Penryn",   "Dunnington", "Nehalem",   "Atom",  "Nano",
                                      "Katmai",   "Coppermine", "Northwood", "Banias", "Athlon", "Opteron",
                                      "Opteron_SSE3", "Barcelona", "Bobcat"};
    static const char *const avx[] = {"Sandybridge", "Bulldozer", "Piledriver", "Steamroller"};
    static const char *const avx2[] = {"Haswell", "Zen", "Excavator"};
    for (size_t i = 0; i < sizeof sse / sizeof *sse; i++)
        if (strcasecmp(core, sse[i]) == 0) return 0;
    for (size_t i = 0; i < sizeof avx / sizeof *avx; i++)
        if (strcasecmp(core, avx[i]) == 0) return 1;
    for (size_t i = 0; i < sizeof avx2 / sizeof *avx2; i++)
        if (strcasecmp(core, avx2[i]) == 0) return 2;
    return 3;
}

#endif

const char *martlet_set_blas_core(const char *core) {
    if (!openblas_get_corename || !gotoblas_dynamic_quit || !gotoblas_dynamic_init) return martlet_blas_core();
    const char *named = getenv("OPENBLAS_CORETYPE");
    char *kept = named ? strdup(named) : NULL;
    if (core) setenv("OPENBLAS_CORETYPE", core, 1);
    else unsetenv("OPENBLAS_CORETYPE");
    gotoblas_dynamic_quit();
    gotoblas_dynamic_init();
    if (kept) setenv("OPENBLAS_CORETYPE", kept, 1);
    else unsetenv("OPENBLAS_CORETYPE");
    free(kept);
    return openblas_get_corename();
}

int martlet_choose_blas_core(void) {
#if defined(__x86_64__)
    if (!openblas_get_corename || !gotoblas_dynamic_quit || !gotoblas_dynamic_init) return 0;
    // Whoever names a core gets it.
    if (getenv("OPENBLAS_CORETYPE")) return 0;
    const char *best = martlet_blas_best_core();
    const int before = width_of(openblas_get_corename());
    if (!best || before >= width_of(best)) return 0;
    if (width_of(martlet_set_blas_core(best)) > before) return 1;
    // This build has no such core: a narrower one, or what it was.
    if (strcmp(best, "SkylakeX") == 0 && before < 2 && width_of(martlet_set_blas_core("Haswell")) > before) return 1;
    martlet_set_blas_core(NULL);
#endif
    return 0;
}
