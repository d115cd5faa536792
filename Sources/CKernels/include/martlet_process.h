#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Starts a program as the leader of a process group of its own, to which the kernel gives whatever its children leave behind.
///
/// On Linux the attribute is set in the new process between its birth and `execve`, so that the caller's own process, which may be an
/// app that has children of its own, stays as it is. Signals have their defaults there, and the input is empty.
///
/// @param process Receives its id.
/// @param arguments The program's path and its arguments; ends with NULL.
/// @param environment Its variables, and no others; ends with NULL.
/// @param output Descriptor of its standard output.
/// @param errors Descriptor of its standard error.
/// @param alive Becomes its descriptor 3: the reading end of a pipe that ends when this process does.
/// @return 0, or a number of errno: ENOSYS where the system cannot do it.
int martlet_spawn_reaper(int32_t *process, char *const arguments[], char *const environment[], int output, int errors,
                         int alive);

/// Makes a pipe that no program inherits which another thread starts meanwhile.
///
/// @param ends Receives the reading and the writing end.
/// @return 0, or a number of errno.
int martlet_pipe(int32_t ends[2]);

#ifdef __cplusplus
}
#endif
