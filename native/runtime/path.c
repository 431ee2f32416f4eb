#include "path.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "kernel.h"

int open_in_root(int rootfd, const char *path, int flags) {
  while (*path == '/') path++;
  if (!*path) path = ".";
  // EAGAIN: a rename somewhere in the system raced with a ".." in the path. It is rare; try a bounded number of times.
  for (int tries = 0;; tries++) {
    int fd = k_openat2(rootfd, path, (uint64_t)(unsigned)(flags | O_CLOEXEC), 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR) || tries == 100) return fd;
  }
}

// Copies path without repeated or trailing slashes; "." components go too. ".." stays: the kernel resolves it inside the root.
static int tidy(const char *path, char out[PATH_MAX]) {
  size_t n = 0;
  while (*path) {
    while (*path == '/') path++;
    size_t len = strcspn(path, "/");
    if (len && !(len == 1 && *path == '.')) {
      if (n + len + 2 > PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
      }
      if (n) out[n++] = '/';
      memcpy(out + n, path, len);
      n += len;
    }
    path += len;
  }
  out[n] = 0;
  return 0;
}

// Makes the missing components of path one by one, each in a parent that was opened inside the root. A link that leads
// nowhere yet is followed as text, as the image's author meant it (/var/run -> /run without /run).
static int make_walk(int rootfd, const char *path, enum make_kind kind, int links, struct err *e) {
  char p[PATH_MAX];
  if (tidy(path, p) < 0) return fail(e, 0, "openat2", path, "path %s is too long", path);
  autofd parent = open_in_root(rootfd, "/", O_PATH | O_DIRECTORY);
  if (parent < 0) return fail(e, 0, "openat2", "/", "cannot open the root file system: %s", strerror(errno));
  size_t from = 0;
  while (p[from]) {
    size_t len = strcspn(p + from, "/"), end = from + len;
    bool last = !p[end];
    char keep = p[end];
    p[end] = 0;
    const char *name = p + from;
    int fd = open_in_root(rootfd, p, O_PATH);
    if (fd < 0 && errno == ENOENT) {
      int r;
      if (last && kind == MAKE_FILE) {
        r = (int)RETRY(openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644));
        if (r >= 0) close(r);
      } else {
        r = mkdirat(parent, name, 0755);
      }
      if (r < 0 && errno == EEXIST) {
        char target[PATH_MAX], next[PATH_MAX * 2];
        ssize_t n = readlinkat(parent, name, target, sizeof target - 1);
        if (n < 0 || links >= 40)
          return fail(e, n < 0 ? 0 : ELOOP, "readlinkat", path, "cannot make %s in the root file system", path);
        target[n] = 0;
        p[end] = keep;
        size_t before = target[0] == '/' ? 0 : from;
        int w = snprintf(next, sizeof next, "%.*s%s%s", (int)before, p, target, p + end);
        if (w < 0 || w >= PATH_MAX) return fail(e, ENAMETOOLONG, "readlinkat", path, "links in %s lead to a too long path", path);
        return make_walk(rootfd, next, kind, links + 1, e);
      }
      if (r < 0)
        return fail(e, 0, last && kind == MAKE_FILE ? "openat" : "mkdirat", path, "cannot make %s in the root file system: %s",
                    path, strerror(errno));
      fd = open_in_root(rootfd, p, O_PATH);
    }
    if (fd < 0) return fail(e, 0, "openat2", path, "cannot open %s in the root file system: %s", path, strerror(errno));
    close(parent);
    parent = fd;
    p[end] = keep;
    from = end + (keep == '/');
  }
  return steal_fd(&parent);
}

int make_in_root(int rootfd, const char *path, enum make_kind kind, struct err *e) {
  int fd = open_in_root(rootfd, path, O_PATH);
  if (fd >= 0) return fd;
  if (errno != ENOENT)
    return fail(e, 0, "openat2", path, "cannot open %s in the root file system: %s", path, strerror(errno));
  return make_walk(rootfd, path, kind, 0, e);
}

int parent_in_root(int rootfd, const char *path, char name[256], struct err *e) {
  char p[PATH_MAX];
  if (tidy(path, p) < 0) return fail(e, 0, "openat2", path, "path %s is too long", path);
  char *slash = strrchr(p, '/'), *base = slash ? slash + 1 : p;
  if (!*base || !strcmp(base, "..") || strlen(base) > 255)
    return fail(e, EINVAL, "openat2", path, "%s does not name a file", path);
  strcpy(name, base);
  if (slash) *slash = 0;
  return make_in_root(rootfd, slash ? p : "/", MAKE_DIR, e);
}

bool fd_is_fs(int fd, long magic) {
  struct statfs s;
  return fstatfs(fd, &s) == 0 && (long)s.f_type == magic;
}
