#pragma once

#include <stdint.h>

// Linux calls that Swift's Glibc overlay lacks.

#ifdef __cplusplus
extern "C" {
#endif

/// Reserves space for bytes that will be written, without changing the file's size; 0, or -1 with `errno`.
int martlet_reserve(int descriptor, int64_t offset, int64_t count);

/// Starts to write bytes of the page cache to the disk and does not wait.
void martlet_start_flush(int descriptor, int64_t offset, int64_t count);

/// Waits until all files of the directory's file system are on the disk; 0, or -1 with `errno`.
int martlet_sync_file_system(int descriptor);

/// Asks for large pages for memory that has not been touched yet: fewer page faults where whole models are written.
void martlet_prefer_huge_pages(void *memory, int64_t count);

/// Bounds the arenas among which the C library's allocator shares out threads.
void martlet_limit_arenas(int count);

#ifdef __cplusplus
}
#endif
