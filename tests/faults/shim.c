/* Preloaded into a process, fails the n-th call that changes the files below a folder, or kills the process there.

   faults_arm(folder, n, mode) begins to count: calls that create, write, sync, rename, truncate or remove. faults_count()
   says how many there were. With a log (a path in faults_log) every call is a line "kind path". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, NO_ROOM, IO_ERROR, NO_ROOM_FROM_NOW_ON, IO_ERROR_FROM_NOW_ON, KILLED, TORN };
enum { FREES, FILLS, SYNCS }; /* what a call does to the disk: a full one refuses those that fill it */

static char folder[PATH_MAX];
static size_t folder_length;
static long target;
static int mode = OFF, log_file = -1;
static atomic_long count;

void faults_arm(const char *path, long n, int how) {
    snprintf(folder, sizeof folder, "%s", path);
    folder_length = strlen(folder);
    target = n;
    atomic_store(&count, 0);
    mode = how;
}

long faults_count(void) { return atomic_load(&count); }

void faults_log(const char *path) { log_file = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0644); }

static int is_below(const char *path) {
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

static const char *path_of(int descriptor, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, PATH_MAX - 1);
    buffer[length < 0 ? 0 : length] = 0;
    return buffer;
}

static const char *path_at(int directory, const char *name, char *buffer) {
    if (name[0] == '/' || directory == AT_FDCWD) return name;
    path_of(directory, buffer);
    size_t length = strlen(buffer);
    snprintf(buffer + length, PATH_MAX - length, "/%s", name);
    return buffer;
}

/* 0: go on; an error number: fail with it; -1: write half, then die */
static int fate(const char *kind, const char *path, int does) {
    if (mode == OFF || !is_below(path)) return 0;
    long n = atomic_fetch_add(&count, 1) + 1;
    if (log_file >= 0) {
        char line[PATH_MAX + 32];
        int length = snprintf(line, sizeof line, "%s %s\n", kind, path);
        syscall(SYS_write, log_file, line, length);
    }
    switch (mode) {
    case NO_ROOM: return n == target ? ENOSPC : 0;
    case IO_ERROR: return n == target ? EIO : 0;
    case NO_ROOM_FROM_NOW_ON: return n >= target && does == FILLS ? ENOSPC : 0;
    case IO_ERROR_FROM_NOW_ON: return n >= target ? EIO : 0;
    case KILLED: if (n == target) raise(SIGKILL); return 0;
    case TORN: return n == target ? -1 : 0;
    }
    return 0;
}

#define REAL(name) static typeof(&name) real; if (!real) real = (typeof(&name))dlsym(RTLD_NEXT, #name)
#define DIE_AFTER(call) do { (void)!(call); raise(SIGKILL); } while (0)
#define JUDGED(kind, path, does, call)                                \
    do {                                                              \
        int fault = fate(kind, path, does);                           \
        if (fault > 0) { errno = fault; return -1; }                  \
        if (fault < 0) DIE_AFTER(call);                               \
        return call;                                                  \
    } while (0)
#define MODE_OF(flags) va_list list; va_start(list, flags); mode_t rights = va_arg(list, mode_t); va_end(list)

static int is_writing(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)); }

#define OPEN(name)                                                                            \
    int name(const char *path, int flags, ...) {                                              \
        REAL(name); MODE_OF(flags);                                                           \
        if (!is_writing(flags)) return real(path, flags, rights);                             \
        JUDGED("open", path, FILLS, real(path, flags, rights));                               \
    }
#define OPENAT(name)                                                                          \
    int name(int directory, const char *path, int flags, ...) {                               \
        REAL(name); MODE_OF(flags); char buffer[PATH_MAX];                                    \
        if (!is_writing(flags)) return real(directory, path, flags, rights);                  \
        JUDGED("open", path_at(directory, path, buffer), FILLS, real(directory, path, flags, rights)); \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

#define FOPEN(name)                                                                           \
    FILE *name(const char *path, const char *how) {                                           \
        REAL(name);                                                                           \
        if (!strpbrk(how, "wa+")) return real(path, how);                                     \
        int fault = fate("open", path, FILLS);                                                \
        if (fault > 0) { errno = fault; return NULL; }                                        \
        if (fault < 0) { real(path, how); raise(SIGKILL); }                                   \
        return real(path, how);                                                               \
    }
FOPEN(fopen) FOPEN(fopen64)

ssize_t write(int file, const void *data, size_t size) {
    REAL(write); char buffer[PATH_MAX];
    if (mode == OFF) return real(file, data, size);
    int fault = fate("write", path_of(file, buffer), FILLS);
    if (fault > 0) { errno = fault; return -1; }
    if (fault < 0) DIE_AFTER(real(file, data, size / 2));
    return real(file, data, size);
}

#define PWRITE(name, offset_type)                                                             \
    ssize_t name(int file, const void *data, size_t size, offset_type at) {                   \
        REAL(name); char buffer[PATH_MAX];                                                    \
        if (mode == OFF) return real(file, data, size, at);                                   \
        int fault = fate("write", path_of(file, buffer), FILLS);                              \
        if (fault > 0) { errno = fault; return -1; }                                          \
        if (fault < 0) DIE_AFTER(real(file, data, size / 2, at));                             \
        return real(file, data, size, at);                                                    \
    }
PWRITE(pwrite, off_t) PWRITE(pwrite64, off64_t)

#define ON_FILE(type, kind, does, name, parameters, ...)                                      \
    type name parameters {                                                                    \
        REAL(name); char buffer[PATH_MAX];                                                    \
        if (mode == OFF) return real(__VA_ARGS__);                                            \
        JUDGED(kind, path_of(file, buffer), does, real(__VA_ARGS__));                         \
    }
ON_FILE(ssize_t, "write", FILLS, writev, (int file, const struct iovec *data, int number), file, data, number)
ON_FILE(ssize_t, "write", FILLS, sendfile, (int file, int from, off_t *at, size_t size), file, from, at, size)
ON_FILE(ssize_t, "write", FILLS, sendfile64, (int file, int from, off64_t *at, size_t size), file, from, at, size)
ON_FILE(int, "fsync", SYNCS, fsync, (int file), file)
ON_FILE(int, "fsync", SYNCS, fdatasync, (int file), file)
ON_FILE(int, "truncate", FILLS, ftruncate, (int file, off_t size), file, size)
ON_FILE(int, "truncate", FILLS, ftruncate64, (int file, off64_t size), file, size)

#define ON_PATH(kind, does, path, name, parameters, ...)                                      \
    int name parameters {                                                                     \
        REAL(name); char buffer[PATH_MAX];                                                    \
        (void)buffer;                                                                         \
        if (mode == OFF) return real(__VA_ARGS__);                                            \
        JUDGED(kind, path, does, real(__VA_ARGS__));                                          \
    }
ON_PATH("rename", SYNCS, to, rename, (const char *from, const char *to), from, to)
ON_PATH("rename", SYNCS, path_at(there, to, buffer), renameat,
        (int here, const char *from, int there, const char *to), here, from, there, to)
ON_PATH("mkdir", FILLS, path, mkdir, (const char *path, mode_t rights), path, rights)
ON_PATH("mkdir", FILLS, path_at(directory, path, buffer), mkdirat, (int directory, const char *path, mode_t rights),
        directory, path, rights)
ON_PATH("unlink", FREES, path, unlink, (const char *path), path)
ON_PATH("unlink", FREES, path_at(directory, path, buffer), unlinkat, (int directory, const char *path, int flags),
        directory, path, flags)
ON_PATH("unlink", FREES, path, rmdir, (const char *path), path)
