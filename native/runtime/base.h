// What every file of the runtime library stands on: errors that say where, scope-bound descriptors and buffers, small file helpers.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

// An error as it travels from the child to the parent and on to the caller: plain bytes, no pointers.
struct err {
  int code;        // errno
  char stage[16];  // one of the stages listed in docs/native.md
  char call[24];   // system call or library operation
  char path[256];  // what it was tried on
  char msg[400];   // one sentence
};

extern const char *err_stage;
#define STAGE(name) (err_stage = (name))

// Fills *e and returns -1, so that `return fail(...)` reads as one step. eno 0 means errno.
int fail(struct err *e, int eno, const char *call, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
const char *errno_name(int eno);

#define RETRY(expr)                                   \
  ({                                                  \
    long retry_r;                                     \
    do retry_r = (long)(expr);                        \
    while (retry_r == -1 && errno == EINTR);          \
    retry_r;                                          \
  })

static inline void cleanup_fd(int *fd) {
  if (*fd >= 0) {
    int keep = errno;
    (void)close(*fd);
    errno = keep;
    *fd = -1;
  }
}
static inline void cleanup_ptr(void *p) { free(*(void **)p); }
#define autofd __attribute__((cleanup(cleanup_fd))) int
#define autofree __attribute__((cleanup(cleanup_ptr)))
static inline int steal_fd(int *fd) {
  int r = *fd;
  *fd = -1;
  return r;
}

// Allocation that ends the program with one line when memory is gone: there is nothing sensible to undo with.
void *xalloc(size_t n);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

struct buf {
  char *p;
  size_t len, cap;
};
char *buf_room(struct buf *b, size_t n);  // where n bytes and a NUL can be written; the caller adds to len
void buf_add(struct buf *b, const void *data, size_t n);
void buf_str(struct buf *b, const char *s);
void buf_fmt(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_free(struct buf *b);
static inline void cleanup_buf(struct buf *b) { buf_free(b); }
#define autobuf __attribute__((cleanup(cleanup_buf))) struct buf

// Whole file, NUL-terminated beyond len; at most max bytes, EFBIG above. -1 with errno.
int read_fd(int fd, struct buf *out, size_t max);
int read_file_at(int dirfd, const char *path, struct buf *out, size_t max);
// One write(2) to an existing file (cgroup, proc). -1 with errno; a short write is EIO.
int write_file_at(int dirfd, const char *path, const char *data);
int write_all(int fd, const void *data, size_t n);
// Replaces a file by rename; durable when sync is set.
int replace_file_at(int dirfd, const char *name, const void *data, size_t n, bool sync);
uint64_t proc_start_ticks(pid_t pid);  // field 22 of /proc/PID/stat, 0 when there is no such process
char proc_state(pid_t pid);            // field 3, 0 when there is no such process
int64_t now_ms(void);   // of the calendar
int64_t mono_ms(void);  // for deadlines: nobody sets this clock back
void pause_ms(long ms);
void mountinfo_unescape(char *s);         // in place: it writes blanks and backslashes as \ooo
