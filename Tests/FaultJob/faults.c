/* Preloaded before FaultJob: makes the n-th call of a kind on a file under a directory fail with an errno, for a number of calls.
 *
 *   clang -shared -fPIC -o faults.so faults.c -ldl
 *
 * FaultJob finds faults_arm, faults_disarm, faults_seen and faults_lost by dlsym. Nothing fails before it arms.
 *
 * A sync that fails loses what it was for, though the kernel may report success the next time: what was written to that file, and the
 * names that were made or removed in that directory since its last good sync. faults_lost names what relies on such a second sync: a
 * name that was made or removed before a sync of its directory failed, where that was synced again without another change; and a file
 * that got a name after its own sync had failed. The database's files are SQLite's business. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum kind { WRITE, SYNC, RENAME, OPEN, LINK, READ, STATUS, UNLINK, KINDS };

static char root[PATH_MAX];
static atomic_int armed_kind = -1;
static atomic_int error_code;
static atomic_int first, last;
static atomic_int counts[KINDS];
static atomic_int failures;

/* Whether names and syncs are remembered: from faults_arm on, also after faults_disarm. */
static int watching;

/* A name that is not known to be on the disk. */
enum fate { NONE, PENDING, LOST };
struct name {
    char path[256];
    enum fate fate;
    int is_removed;
};
#define NAMES 4096
static struct name names[NAMES];
static int name_count;
/* Files whose sync failed. */
static ino_t bad[256];
static int bad_count;
/* The first file that got a name all the same. */
static char named_bad[256];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int is_counted(const char *path) { return !strstr(path, ".sqlite") && strlen(path) < sizeof names[0].path; }

static void note_name(const char *path, int is_removed) {
    if (!is_counted(path)) return;
    pthread_mutex_lock(&lock);
    int place = 0;
    while (place < name_count && strcmp(names[place].path, path)) place++;
    if (place == name_count && name_count < NAMES) strcpy(names[name_count++].path, path);
    if (place < name_count) {
        names[place].fate = PENDING;
        names[place].is_removed = is_removed;
    }
    pthread_mutex_unlock(&lock);
}

static int is_in(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return !strncmp(path, directory, length) && path[length] == '/' && !strchr(path + length + 1, '/');
}

static void note_directory_sync(const char *directory, int is_good) {
    pthread_mutex_lock(&lock);
    int is_changed = 0;
    for (int i = 0; i < name_count; i++)
        if (names[i].fate == PENDING && is_in(names[i].path, directory)) is_changed = 1;
    for (int i = 0; i < name_count; i++) {
        if (!is_in(names[i].path, directory)) continue;
        if (names[i].fate == PENDING) names[i].fate = is_good ? NONE : LOST;
        /* A directory that has changed since is written again, as it is now. */
        if (names[i].fate == LOST && is_good && is_changed) names[i].fate = NONE;
    }
    pthread_mutex_unlock(&lock);
}

static void note_file_named(ino_t number, const char *path) {
    if (!is_counted(path)) return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < bad_count; i++)
        if (bad[i] == number && !named_bad[0]) snprintf(named_bad, sizeof named_bad, "%s", path);
    pthread_mutex_unlock(&lock);
}

static void note_file_gone(ino_t number) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < bad_count; i++)
        if (bad[i] == number) bad[i] = bad[--bad_count];
    pthread_mutex_unlock(&lock);
}

/* What relies on a sync that came after one that failed: its path, or an empty text. */
void faults_lost(char *path, int size) {
    path[0] = 0;
    pthread_mutex_lock(&lock);
    if (named_bad[0]) snprintf(path, size, "%s, whose contents were lost", named_bad);
    for (int i = 0; i < name_count && !path[0]; i++) {
        struct stat status;
        if (names[i].fate != LOST) continue;
        /* What a start removes may come back; noise, its keys and results that were given up may not. */
        if (names[i].is_removed && !strstr(names[i].path, ".result") && !strstr(names[i].path, "/noise")) continue;
        int is_there = syscall(SYS_newfstatat, AT_FDCWD, names[i].path, &status, 0) == 0;
        if (is_there != names[i].is_removed)
            snprintf(path, size, "%s, %s", names[i].path, is_there ? "whose name was lost" : "which comes back");
    }
    pthread_mutex_unlock(&lock);
}

void faults_arm(const char *directory, int kind, int number, int code, int calls) {
    snprintf(root, sizeof root, "%s", directory);
    for (int i = 0; i < KINDS; i++) atomic_store(&counts[i], 0);
    atomic_store(&failures, 0);
    pthread_mutex_lock(&lock);
    name_count = bad_count = 0;
    watching = 1;
    named_bad[0] = 0;
    pthread_mutex_unlock(&lock);
    atomic_store(&error_code, code);
    atomic_store(&first, number);
    atomic_store(&last, number + calls - 1);
    atomic_store(&armed_kind, kind);
}

/* How many calls have failed since faults_arm. */
int faults_disarm(void) {
    atomic_store(&armed_kind, -1);
    return atomic_load(&failures);
}

int faults_seen(int kind) { return atomic_load(&counts[kind]); }

static int is_ours(const char *path) { return root[0] && path && strncmp(path, root, strlen(root)) == 0; }

/* Where a descriptor's file lies; an empty text for one that has no name. */
static void descriptor_path(int descriptor, char *path) {
    char link[64];
    static ssize_t (*real)(const char *, char *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "readlink");
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = real(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
}

static int is_our_descriptor(int descriptor) {
    char path[PATH_MAX];
    descriptor_path(descriptor, path);
    return is_ours(path);
}

/* Counts a call; whether it is one that fails, with errno set. */
static int fails(enum kind kind) {
    if (atomic_load(&armed_kind) == -1) return 0;
    int number = atomic_fetch_add(&counts[kind], 1) + 1;
    if (atomic_load(&armed_kind) != (int)kind || number < atomic_load(&first) || number > atomic_load(&last)) return 0;
    atomic_fetch_add(&failures, 1);
    errno = atomic_load(&error_code);
    return 1;
}

static int armed(void) { return atomic_load(&armed_kind) != -1; }

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, #name)

#define WRITES(name, offset_type) \
    ssize_t name(int fd, const void *bytes, size_t count, offset_type offset) { \
        REAL(ssize_t, name, int, const void *, size_t, offset_type); \
        if (armed() && is_our_descriptor(fd) && fails(WRITE)) return -1; \
        return real(fd, bytes, count, offset); \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (armed() && is_our_descriptor(fd) && fails(WRITE)) return -1;
    return real(fd, bytes, count);
}

#define READS(name, offset_type) \
    ssize_t name(int fd, void *bytes, size_t count, offset_type offset) { \
        REAL(ssize_t, name, int, void *, size_t, offset_type); \
        if (armed() && is_our_descriptor(fd) && fails(READ)) return -1; \
        return real(fd, bytes, count, offset); \
    }
READS(pread, off_t)
READS(pread64, off64_t)

ssize_t read(int fd, void *bytes, size_t count) {
    REAL(ssize_t, read, int, void *, size_t);
    if (armed() && is_our_descriptor(fd) && fails(READ)) return -1;
    return real(fd, bytes, count);
}

static void note_sync(int fd, int is_good) {
    struct stat status;
    char path[PATH_MAX];
    if (syscall(SYS_newfstatat, fd, "", &status, AT_EMPTY_PATH) != 0) return;
    descriptor_path(fd, path);
    if (S_ISDIR(status.st_mode)) {
        note_directory_sync(path, is_good);
    } else if (!is_good && is_counted(path)) {
        pthread_mutex_lock(&lock);
        if (bad_count < 256) bad[bad_count++] = status.st_ino;
        pthread_mutex_unlock(&lock);
    }
}

static ino_t number_of(const char *path) {
    struct stat status;
    return syscall(SYS_newfstatat, AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status.st_ino : 0;
}

#define SYNCS(name) \
    int name(int fd) { \
        REAL(int, name, int); \
        if (!watching || !is_our_descriptor(fd)) return real(fd); \
        int is_good = !(armed() && fails(SYNC)); \
        int code = errno; \
        note_sync(fd, is_good); \
        errno = code; \
        return is_good ? real(fd) : -1; \
    }
SYNCS(fsync)
SYNCS(fdatasync)
SYNCS(syncfs)

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    if (armed() && is_ours(to) && fails(RENAME)) return -1;
    int result = real(from, to);
    if (result == 0 && watching && is_ours(to)) {
        note_file_named(number_of(to), to);
        note_name(from, 1);
        note_name(to, 0);
    }
    return result;
}

#define REMOVALS(name) \
    int name(const char *path) { \
        REAL(int, name, const char *); \
        if (!watching || !is_ours(path)) return real(path); \
        if (armed() && fails(UNLINK)) return -1; \
        ino_t number = number_of(path); \
        int result = real(path); \
        int code = errno; \
        if (result == 0) note_file_gone(number); \
        if (result == 0) note_name(path, 1); \
        errno = code; \
        return result; \
    }
REMOVALS(unlink)

int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    if (armed() && is_ours(to) && fails(LINK)) return -1;
    int result = real(from, to);
    if (result == 0 && watching && is_ours(to)) {
        note_file_named(number_of(to), to);
        note_name(to, 0);
    }
    return result;
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, name, const char *, int, ...); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list list; \
            va_start(list, flags); \
            mode = va_arg(list, mode_t); \
            va_end(list); \
        } \
        if (armed() && is_ours(path) && fails(OPEN)) return -1; \
        int is_made = watching && (flags & O_CREAT) && is_ours(path) && number_of(path) == 0; \
        int result = real(path, flags, mode); \
        int code = errno; \
        if (is_made && result >= 0) note_name(path, 0); \
        errno = code; \
        return result; \
    }
OPENS(open)
OPENS(open64)

#define STATUSES(name) \
    int name(const char *path, struct stat *status) { \
        REAL(int, name, const char *, struct stat *); \
        if (armed() && is_ours(path) && fails(STATUS)) return -1; \
        return real(path, status); \
    }
STATUSES(stat)
STATUSES(lstat)

int access(const char *path, int mode) {
    REAL(int, access, const char *, int);
    if (armed() && is_ours(path) && fails(STATUS)) return -1;
    return real(path, mode);
}
