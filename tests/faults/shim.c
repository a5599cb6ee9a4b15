/* Preloaded into a process, it can make the Nth call that touches files fail: the saves of that process are then
   tried at every point where a disk, or somebody with `kill -9`, could stop them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING = -1, SHORT = -2, EMPTY = -3, KILL_BEFORE = -4, KILL_AFTER = -5 }; /* else: an errno */

static int armed, calls, first, last, fault;
static char names[4096];

/* Count calls; those from `from` to `to` have the fault. */
void fault_arm(int from, int to, int what) {
  calls = 0, first = from, last = to, fault = what, names[0] = 0, armed = 1;
}

int fault_disarm(void) {
  armed = 0;
  return calls;
}

const char *fault_names(void) { return names; }

static int meet(const char *name) {
  if (!armed) return NOTHING;
  calls++;
  static size_t used;
  if (calls == 1) used = 0;
  if (used < sizeof names - 32) used += sprintf(names + used, "%s ", name);
  if (calls < first || calls > last) return NOTHING;
  if (fault == KILL_BEFORE) kill(getpid(), SIGKILL);
  return fault;
}

#define CALL(type, name, parameters, arguments)                         \
  type name parameters {                                                \
    static type(*real) parameters;                                      \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);      \
    int what = meet(#name);                                             \
    if (what > 0) return errno = what, -1;                              \
    type result = real arguments;                                       \
    if (what == KILL_AFTER) kill(getpid(), SIGKILL);                    \
    return result;                                                      \
  }

#define WRITE(name, parameters, whole, half)                            \
  ssize_t name parameters {                                             \
    static ssize_t(*real) parameters;                                   \
    if (!real) real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name);   \
    int what = meet(#name);                                             \
    if (what > 0) return errno = what, -1;                              \
    if (what == EMPTY) return 0;                                        \
    ssize_t result = what == SHORT ? real half : real whole;            \
    if (what == KILL_AFTER) kill(getpid(), SIGKILL);                    \
    return result;                                                      \
  }

#define OPEN(name)                                                      \
  int name(const char *path, int flags, ...) {                          \
    static int (*real)(const char *, int, ...);                         \
    va_list rest;                                                       \
    va_start(rest, flags);                                              \
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;   \
    va_end(rest);                                                       \
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
    int what = meet(#name);                                             \
    if (what > 0) return errno = what, -1;                              \
    int result = real(path, flags, mode);                               \
    if (what == KILL_AFTER) kill(getpid(), SIGKILL);                    \
    return result;                                                      \
  }

OPEN(open)
OPEN(open64)
WRITE(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, (size + 1) / 2))
WRITE(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), (fd, parts, (count + 1) / 2))
WRITE(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), (fd, data, (size + 1) / 2, at))
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), (fd, data, (size + 1) / 2, at))
CALL(int, ftruncate, (int fd, off_t size), (fd, size))
CALL(int, ftruncate64, (int fd, off64_t size), (fd, size))
CALL(int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
CALL(int, fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
CALL(int, fsync, (int fd), (fd))
CALL(int, fdatasync, (int fd), (fd))
CALL(int, close, (int fd), (fd))
CALL(int, flock, (int fd, int how), (fd, how))
CALL(int, chmod, (const char *path, mode_t mode), (path, mode))
CALL(int, fchmod, (int fd, mode_t mode), (fd, mode))
CALL(int, unlink, (const char *path), (path))
CALL(int, unlinkat, (int from, const char *path, int flags), (from, path, flags))
CALL(int, rename, (const char *from, const char *to), (from, to))
CALL(int, renameat, (int from, const char *path, int to, const char *other), (from, path, to, other))
CALL(int, renameat2, (int from, const char *path, int to, const char *other, unsigned flags), (from, path, to, other, flags))
CALL(int, link, (const char *from, const char *to), (from, to))
CALL(int, linkat, (int from, const char *path, int to, const char *other, int flags), (from, path, to, other, flags))
