#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "martlet_process.h"

#include <errno.h>

#if defined(__linux__)
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

int martlet_spawn_reaper(int32_t *process, char *const arguments[], char *const environment[], int output, int errors,
                         int alive) {
    // Above the four that are about to be replaced, so that none of them is overwritten before it is copied.
    const int out = fcntl(output, F_DUPFD_CLOEXEC, 4);
    const int err = out < 0 ? -1 : fcntl(errors, F_DUPFD_CLOEXEC, 4);
    const int life = err < 0 ? -1 : fcntl(alive, F_DUPFD_CLOEXEC, 4);
    if (life < 0) {
        const int code = errno;
        if (out >= 0) close(out);
        if (err >= 0) close(err);
        return code;
    }
    sigset_t all, before;
    sigfillset(&all);
    // The child shares this memory until it has executed the program: no handler of ours may run in it.
    pthread_sigmask(SIG_BLOCK, &all, &before);
    volatile int failure = 0;
    const pid_t child = vfork();
    if (child == 0) {
        struct sigaction standard;
        memset(&standard, 0, sizeof standard);
        standard.sa_handler = SIG_DFL;
        for (int number = 1; number < NSIG; number++) sigaction(number, &standard, NULL);
        sigset_t none;
        sigemptyset(&none);
        // An old kernel without it leaves what the process group does not hold.
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        const int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (setpgid(0, 0) != 0 || input < 0 || dup2(input, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 ||
            dup2(life, 3) < 0 || sigprocmask(SIG_SETMASK, &none, NULL) != 0) {
            failure = errno;
            _exit(127);
        }
        if (input == 0) fcntl(0, F_SETFD, 0);
        execve(arguments[0], arguments, environment);
        failure = errno;
        _exit(127);
    }
    int code = child < 0 ? errno : failure;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(out);
    close(err);
    close(life);
    if (child > 0 && code != 0) {
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    if (code == 0) *process = child;
    return code;
}

int martlet_pipe(int32_t ends[2]) { return pipe2(ends, O_CLOEXEC) == 0 ? 0 : errno; }

#else

#include <fcntl.h>
#include <unistd.h>

int martlet_spawn_reaper(int32_t *process, char *const arguments[], char *const environment[], int output, int errors,
                         int alive) {
    return ENOSYS;
}

int martlet_pipe(int32_t ends[2]) {
    if (pipe(ends) != 0) return errno;
    for (int end = 0; end < 2; end++) fcntl(ends[end], F_SETFD, FD_CLOEXEC);
    return 0;
}

#endif
