// tmpcopyup: a tmpfs that starts with what the image has in that place.
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "mount.h"

static int same_owner(int to, const char *name, const struct stat *st, struct err *e) {
  if (fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
      (!S_ISLNK(st->st_mode) && fchmodat(to, name, st->st_mode & 07777, 0) < 0))
    return fail(e, 0, "fchownat", name, "cannot copy the owner of %s: %s", name, strerror(errno));
  struct timespec t[2] = {st->st_atim, st->st_mtim};
  if (utimensat(to, name, t, AT_SYMLINK_NOFOLLOW) < 0) return fail(e, 0, "utimensat", name, "cannot copy the times of %s", name);
  return 0;
}

static int copy_file(int from, int to, const char *name, struct err *e) {
  autofd in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  autofd out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (in < 0 || out < 0) return fail(e, 0, "openat", name, "cannot copy %s into the tmpfs: %s", name, strerror(errno));
  char b[16384];
  for (;;) {
    ssize_t n = RETRY(read(in, b, sizeof b));
    if (n == 0) return 0;
    if (n < 0 || write_all(out, b, (size_t)n) < 0) return fail(e, 0, "write", name, "cannot copy %s into the tmpfs: %s", name, strerror(errno));
  }
}

static int copy_dir(int from, int to, int depth, struct err *e) {
  if (depth > 64) return fail(e, ELOOP, "openat", "", "tmpcopyup: directories are nested deeper than 64");
  int fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
  if (!d) return fail(e, 0, "openat", "", "cannot list a directory for tmpcopyup: %s", strerror(errno));
  int r = 0;
  struct dirent *de;
  while (r == 0 && (de = readdir(d))) {
    const char *name = de->d_name;
    struct stat st;
    if (!strcmp(name, ".") || !strcmp(name, "..")) continue;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
      r = fail(e, 0, "fstatat", name, "cannot look at %s: %s", name, strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
      autofd sub = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (sub < 0 || mkdirat(to, name, 0700) < 0) r = fail(e, 0, "mkdirat", name, "cannot copy %s: %s", name, strerror(errno));
      autofd dst = r ? -1 : openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (!r) r = dst < 0 ? fail(e, 0, "openat", name, "cannot open %s: %s", name, strerror(errno)) : copy_dir(sub, dst, depth + 1, e);
    } else if (S_ISLNK(st.st_mode)) {
      char target[PATH_MAX];
      ssize_t n = readlinkat(fd, name, target, sizeof target - 1);
      target[n > 0 ? n : 0] = 0;
      if (n < 0 || symlinkat(target, to, name) < 0) r = fail(e, 0, "symlinkat", name, "cannot copy the link %s: %s", name, strerror(errno));
    } else if (S_ISREG(st.st_mode)) {
      r = copy_file(fd, to, name, e);
    } else if (mknodat(to, name, st.st_mode, st.st_rdev) < 0) {
      r = fail(e, 0, "mknodat", name, "cannot copy %s: %s", name, strerror(errno));
    }
    if (r == 0) r = same_owner(to, name, &st, e);
  }
  closedir(d);
  return r;
}

int copy_up(int from, int to, struct err *e) { return copy_dir(from, to, 0, e); }
