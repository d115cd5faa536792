#pragma once

// How kernels are compiled for several processor generations; private to this module.

// ThreadSanitizer would follow the choice between clones, which the loader makes before the sanitizer has begun.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define IS_WATCHED_BY_THREAD_SANITIZER 1
#endif
#endif
#if defined(__x86_64__) && defined(__linux__) && !defined(IS_WATCHED_BY_THREAD_SANITIZER)
#define VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define FOR_GENERATION(name) __attribute__((target(name)))
#define HAS_GENERATIONS 1
#else
#define VECTOR_CLONES
#endif
#define INLINE static inline __attribute__((always_inline))
