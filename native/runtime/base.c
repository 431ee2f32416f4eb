#include "base.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

static void die_oom(void) {
  static const char line[] = "shoal: out of memory\n";
  if (write(2, line, sizeof line - 1) < 0) _exit(2);
  _exit(1);
}

void *xalloc(size_t n) {
  void *p = calloc(1, n ? n : 1);
  if (!p) die_oom();
  return p;
}

void *xrealloc(void *old, size_t n) {
  void *p = realloc(old, n ? n : 1);
  if (!p) die_oom();
  return p;
}

char *xstrdup(const char *s) {
  size_t n = strlen(s) + 1;
  return memcpy(xalloc(n), s, n);
}

char *xasprintf(const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  char *p = NULL;
  if (vasprintf(&p, fmt, ap) < 0) die_oom();
  va_end(ap);
  return p;
}

char *buf_room(struct buf *b, size_t n) {
  if (b->len + n + 1 <= b->cap) return b->p + b->len;
  size_t cap = b->cap ? b->cap : 256;
  while (cap < b->len + n + 1) cap *= 2;
  b->p = xrealloc(b->p, cap);
  b->cap = cap;
  return b->p + b->len;
}

void buf_add(struct buf *b, const void *data, size_t n) {
  buf_room(b, n);
  if (n) memcpy(b->p + b->len, data, n);
  b->len += n;
  b->p[b->len] = 0;
}

void buf_str(struct buf *b, const char *s) { buf_add(b, s, strlen(s)); }

void buf_fmt(struct buf *b, const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  if (n < 0) die_oom();
  buf_room(b, (size_t)n);
  vsnprintf(b->p + b->len, (size_t)n + 1, fmt, again);
  va_end(again);
  b->len += (size_t)n;
}

void buf_free(struct buf *b) {
  free(b->p);
  *b = (struct buf){0};
}

int read_fd(int fd, struct buf *out, size_t max) {
  out->len = 0;
  for (;;) {
    buf_room(out, 4096);
    ssize_t n = RETRY(read(fd, out->p + out->len, out->cap - out->len - 1));
    if (n < 0) return -1;
    if (n == 0) break;
    out->len += (size_t)n;
    if (out->len > max) {
      errno = EFBIG;
      return -1;
    }
  }
  out->p[out->len] = 0;
  return 0;
}

int read_file_at(int dirfd, const char *path, struct buf *out, size_t max) {
  autofd fd = (int)RETRY(openat(dirfd, path, O_RDONLY | O_CLOEXEC));
  return fd < 0 ? -1 : read_fd(fd, out, max);
}

int write_file_at(int dirfd, const char *path, const char *data) {
  autofd fd = (int)RETRY(openat(dirfd, path, O_WRONLY | O_CLOEXEC));
  if (fd < 0) return -1;
  size_t n = strlen(data);
  ssize_t w = RETRY(write(fd, data, n));
  if (w < 0) return -1;
  if ((size_t)w != n) {
    errno = EIO;
    return -1;
  }
  return 0;
}

int write_all(int fd, const void *data, size_t n) {
  const char *p = data;
  while (n) {
    ssize_t w = RETRY(write(fd, p, n));
    if (w < 0) return -1;
    p += w;
    n -= (size_t)w;
  }
  return 0;
}

int replace_file_at(int dirfd, const char *name, const void *data, size_t n, bool sync) {
  autofree char *tmp = xasprintf(".%s.%d", name, (int)getpid());
  autofd fd = (int)RETRY(openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd < 0) return -1;
  if (write_all(fd, data, n) < 0 || (sync && fsync(fd) < 0) || renameat(dirfd, tmp, dirfd, name) < 0) {
    int keep = errno;
    (void)unlinkat(dirfd, tmp, 0);
    errno = keep;
    return -1;
  }
  if (sync) {
    autofd dir = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fsync(dir) < 0) return -1;
  }
  return 0;
}

// The fields after the command's name, which may itself hold spaces and brackets: the last ')' ends it.
static const char *stat_fields(pid_t pid, char *buf, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  autofd fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NULL;
  ssize_t n = RETRY(read(fd, buf, size - 1));
  if (n <= 0) return NULL;
  buf[n] = 0;
  char *p = strrchr(buf, ')');
  return p && p[1] == ' ' ? p + 2 : NULL;
}

uint64_t proc_start_ticks(pid_t pid) {
  char buf[1024];
  const char *p = stat_fields(pid, buf, sizeof buf);
  for (int field = 3; p && field < 22; field++) {
    p = strchr(p, ' ');
    if (p) p++;
  }
  return p ? strtoull(p, NULL, 10) : 0;
}

char proc_state(pid_t pid) {
  char buf[1024];
  const char *p = stat_fields(pid, buf, sizeof buf);
  return p ? *p : 0;
}

static int64_t clock_ms(clockid_t clock) {
  struct timespec ts;
  clock_gettime(clock, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t now_ms(void) { return clock_ms(CLOCK_REALTIME); }
int64_t mono_ms(void) { return clock_ms(CLOCK_MONOTONIC); }

void pause_ms(long ms) {
  struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&ts, NULL);
}

void mountinfo_unescape(char *s) {
  char *o = s;
  for (; *s; s++) {
    if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
      *o++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
      s += 3;
    } else {
      *o++ = *s;
    }
  }
  *o = 0;
}
