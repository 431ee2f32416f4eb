// shoal-compress LOG MAX-FILES: LOG.N.gz in the place of each LOG.N that a rotation left, the newest first, until there is none.
//
// The writer (shim/log.c) starts it and goes on writing and rotating meanwhile; it may also have ended. What gives or takes
// names of rotated files holds a lock on the directory for these few calls. A copy is made without a name, so that nothing has to
// be cleaned up after a kill, and is on disk before it gets its name and the file loses its own. Its header tells which
// file it is made of (docs/engine.md, Rotation): readers that hold that one do not read it twice.
#include <libgen.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <zlib.h>

#include "../runtime/base.h"

enum { IDENTITY = 28, BLOCK = 1 << 16, IO_IDLE = 3 << 13, IO_PROCESS = 1 };

static int dir;
static const char *log_name;
static int files_max;

static char *numbered(int n, const char *suffix) { return xasprintf("%s.%d%s", log_name, n, suffix); }

static void put64(uint8_t *to, uint64_t v) {
  for (int i = 0; i < 8; i++) to[i] = (uint8_t)(v >> (8 * i));
}

// The extra field of the header, RFC 1952 2.3.1.1: "SH", 24 bytes; inode, size, last write in nanoseconds.
static void identity(uint8_t to[IDENTITY], const struct stat *st) {
  memcpy(to, "SH\x18", 4);
  put64(to + 4, st->st_ino);
  put64(to + 12, (uint64_t)st->st_size);
  put64(to + 20, (uint64_t)st->st_mtim.tv_sec * 1000000000 + (uint64_t)st->st_mtim.tv_nsec);
}

// Was the writer's compressor killed between giving the copy its name and taking the file's?
static bool is_copied(int n, const struct stat *st) {
  autofree char *name = numbered(n, ".gz");
  autofd fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
  uint8_t header[12 + IDENTITY], wanted[IDENTITY];
  identity(wanted, st);
  return fd >= 0 && RETRY(pread(fd, header, sizeof header, 0)) == (ssize_t)sizeof header && !memcmp(header + 12, wanted, IDENTITY);
}

static int lock(void) { return (int)RETRY(flock(dir, LOCK_EX)); }
static void unlock(void) { (void)flock(dir, LOCK_UN); }

// Opens the newest file without a copy; -1: there is none.
static int next_file(struct stat *st) {
  for (int n = 1; n < files_max; n++) {
    autofree char *name = numbered(n, ""), *copy = numbered(n, ".gz");
    autofd fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, st) < 0) continue;
    if (faccessat(dir, copy, F_OK, 0) < 0) return steal_fd(&fd);
    if (is_copied(n, st)) (void)unlinkat(dir, name, 0);
  }
  return -1;
}

static int compress_to(int out, int in, const struct stat *st) {
  static uint8_t from[BLOCK], to[BLOCK];
  uint8_t extra[IDENTITY];
  identity(extra, st);
  gz_header header = {.time = (uLong)st->st_mtim.tv_sec, .os = 3, .extra = extra, .extra_len = sizeof extra};
  z_stream z = {0};
  if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK || deflateSetHeader(&z, &header) != Z_OK)
    return errno = ENOMEM, -1;
  int r = 0;
  for (int end = 0; r == 0 && !end;) {
    ssize_t n = RETRY(read(in, from, sizeof from));
    if (n < 0) r = -1;
    end = n == 0;
    z.next_in = from;
    z.avail_in = n > 0 ? (uInt)n : 0;
    do {
      z.next_out = to;
      z.avail_out = sizeof to;
      (void)deflate(&z, end ? Z_FINISH : Z_NO_FLUSH);
      if (r == 0) r = write_all(out, to, sizeof to - z.avail_out);
    } while (r == 0 && z.avail_out == 0);
  }
  (void)deflateEnd(&z);
  return r;
}

// The file has moved on while it was compressed, or is gone as the oldest: then its copy goes as well.
static int exchange(int out, const struct stat *st) {
  if (lock() < 0) return -1;
  int r = 0;
  for (int n = 1; n < files_max; n++) {
    autofree char *name = numbered(n, ""), *copy = numbered(n, ".gz"), *self = xasprintf("/proc/self/fd/%d", out);
    struct stat now;
    if (fstatat(dir, name, &now, AT_SYMLINK_NOFOLLOW) < 0 || now.st_ino != st->st_ino || now.st_dev != st->st_dev) continue;
    r = linkat(AT_FDCWD, self, dir, copy, AT_SYMLINK_FOLLOW);
    if (r == 0) r = unlinkat(dir, name, 0);
    break;
  }
  unlock();
  return r;
}

static int fail_with(const char *what) {
  fprintf(stderr, "shoal-compress: %s: %s: %s; rotated files stay as they are\n", log_name, what, strerror(errno));
  return 1;
}

int main(int argc, char **argv) {
  files_max = argc == 3 ? atoi(argv[2]) : 0;
  if (files_max < 1) return fprintf(stderr, "usage: shoal-compress LOG MAX-FILES\n"), 2;
  autofree char *path = xstrdup(argv[1]);
  log_name = basename(argv[1]);
  dir = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0 || chdir("/") < 0) return fail_with("cannot open its directory");
  (void)setpriority(PRIO_PROCESS, 0, 19);
  (void)syscall(SYS_ioprio_set, IO_PROCESS, 0, IO_IDLE);
  for (;;) {
    struct stat st;
    if (lock() < 0) return fail_with("cannot lock its directory");
    autofd in = next_file(&st);
    unlock();
    if (in < 0) return 0;
    autofd out = openat(dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0640);
    if (out < 0) return fail_with("cannot make a file");
    if (compress_to(out, in, &st) < 0 || fsync(out) < 0) return fail_with("cannot compress");
    if (exchange(out, &st) < 0) return fail_with("cannot put the compressed file in its place");
  }
}
