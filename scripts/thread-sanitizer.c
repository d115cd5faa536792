// What ThreadSanitizer is told about Swift's own libraries, which are not built with it; preloaded by scripts/check-sanitizers.
//
// On Linux two hand-overs between threads are invisible to it, and whatever they carry is reported as a race:
//
// - A continuation that is resumed on one thread and goes on on another. The Swift runtime would tell the sanitizer, by hooks that
//   __tsan_on_initialize of libswiftCore fills in; the sanitizer, which is linked into the program, does not find that function.
//   They leave out the continuation that is resumed just before the task suspends; the task then enters its context again.
// - A Mutex that is contended: it is taken and given back on a futex inside libswiftSynchronization, not in the program's code.
//
// Tests/Sanitizers has a program for each, which the sanitizer reports without this file and not with it, and one with a real
// race, which must be reported either way.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

typedef void (*tsan_function)(void *);
tsan_function martlet_tsan_acquire, martlet_tsan_release;
void (*martlet_lock_slow)(void), (*martlet_unlock_slow)(void);
static void (*enter_context)(void *), *(*current_task)(void);

#define LOCK_SLOW "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK_SLOW "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

__attribute__((constructor)) static void tell(void) {
    martlet_tsan_acquire = (tsan_function)dlsym(RTLD_DEFAULT, "__tsan_acquire");
    martlet_tsan_release = (tsan_function)dlsym(RTLD_DEFAULT, "__tsan_release");
    martlet_lock_slow = (void (*)(void))dlsym(RTLD_NEXT, LOCK_SLOW);
    martlet_unlock_slow = (void (*)(void))dlsym(RTLD_NEXT, UNLOCK_SLOW);
    enter_context = (void (*)(void *))dlsym(RTLD_NEXT, "swift_task_enterThreadLocalContext");
    current_task = (void *(*)(void))dlsym(RTLD_DEFAULT, "swift_task_getCurrent");
    // A program without the sanitizer, such as a shell that starts one with it.
    if (!martlet_tsan_acquire || !martlet_tsan_release) return;
    void (*initialize)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "__tsan_on_initialize");
    if (initialize) initialize();
    else fprintf(stderr, "thread-sanitizer: this Swift has no hook for continuations: expect false reports\n");
}

void swift_task_enterThreadLocalContext(void *context) {
    if (martlet_tsan_acquire && current_task && current_task()) martlet_tsan_acquire(current_task());
    if (enter_context) enter_context(context);
}

#if defined(__x86_64__)
// Swift's calling convention has the address of the mutex in r13; an argument in rdi goes through as it is.
__asm__(
    ".text\n"
    ".globl \"" LOCK_SLOW "\"\n"
    ".type \"" LOCK_SLOW "\", @function\n"
    "\"" LOCK_SLOW "\":\n"
    "  pushq %r13\n"
    "  movq martlet_lock_slow@GOTPCREL(%rip), %rax\n"
    "  callq *(%rax)\n"
    "  movq (%rsp), %rdi\n"
    "  movq martlet_tsan_acquire@GOTPCREL(%rip), %rax\n"
    "  movq (%rax), %rax\n"
    "  testq %rax, %rax\n"
    "  je 1f\n"
    "  callq *%rax\n"
    "1: popq %r13\n"
    "  retq\n"
    ".globl \"" UNLOCK_SLOW "\"\n"
    ".type \"" UNLOCK_SLOW "\", @function\n"
    "\"" UNLOCK_SLOW "\":\n"
    "  pushq %r13\n"
    "  movq %r13, %rdi\n"
    "  movq martlet_tsan_release@GOTPCREL(%rip), %rax\n"
    "  movq (%rax), %rax\n"
    "  testq %rax, %rax\n"
    "  je 1f\n"
    "  callq *%rax\n"
    "1: movq (%rsp), %r13\n"
    "  movq martlet_unlock_slow@GOTPCREL(%rip), %rax\n"
    "  callq *(%rax)\n"
    "  popq %r13\n"
    "  retq\n"
    ".section .note.GNU-stack,\"\",@progbits\n");
#else
#warning "contended mutexes are not shown to the sanitizer on this processor: expect false reports"
#endif
