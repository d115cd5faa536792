#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "martlet_files.h"

#include <errno.h>
#include <fcntl.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <sys/mman.h>
#include <unistd.h>

int martlet_reserve(int descriptor, int64_t offset, int64_t count) {
#if defined(__linux__)
    return fallocate(descriptor, FALLOC_FL_KEEP_SIZE, offset, count);
#else
    errno = ENOTSUP;
    return -1;
#endif
}

void martlet_start_flush(int descriptor, int64_t offset, int64_t count) {
#if defined(__linux__)
    sync_file_range(descriptor, offset, count, SYNC_FILE_RANGE_WRITE);
#endif
}

int martlet_sync_file_system(int descriptor) {
#if defined(__linux__)
    return syncfs(descriptor);
#else
    sync();
    return 0;
#endif
}

void martlet_prefer_huge_pages(void *memory, int64_t count) {
#if defined(__linux__)
    const uintptr_t page = 4096;
    uintptr_t start = ((uintptr_t)memory + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)memory + (uintptr_t)count) & ~(page - 1);
    if (end > start && end - start >= 4 << 20) madvise((void *)start, end - start, MADV_HUGEPAGE);
#endif
}

void martlet_limit_arenas(int count) {
#if defined(__GLIBC__)
    mallopt(M_ARENA_MAX, count);
#endif
}
