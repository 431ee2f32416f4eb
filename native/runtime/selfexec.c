// A container must never get hold of this program for writing: /proc/PID/exe of a process that joins it leads to the file on the host,
// and a program path or "#!" of /proc/self/exe starts it inside (CVE-2019-5736). So the program runs from a read-only mount that no
// process can name or change: whoever opens it for writing gets EROFS. The daemon starts the shim that way already; a program that was
// started in another way executes itself once more.
#include <sys/prctl.h>
#include <sys/statvfs.h>

#include "container.h"
#include "kernel.h"
#include "mount.h"

extern char **environ;

static int sealed_copy(void) {
  autofd in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), out = (int)syscall(SYS_memfd_create, "shoal", 3 /* CLOEXEC, ALLOW_SEALING */);
  if (in < 0 || out < 0) return -1;
  char b[65536];
  for (;;) {
    ssize_t n = RETRY(read(in, b, sizeof b));
    if (n < 0) return -1;
    if (n == 0) break;
    if (write_all(out, b, (size_t)n) < 0) return -1;
  }
  return fcntl(out, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0 ? -1 : steal_fd(&out);
}

int self_protect(char *const argv[], struct err *e) {
  // Without privileges it is what it makes that is hidden, after the id maps are written: files in /proc of a hidden process are root's.
  if (geteuid() == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) return fail(e, 0, "prctl", "PR_SET_DUMPABLE", "cannot protect this process: %s", strerror(errno));
  struct statvfs st;
  autofd exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  if (exe < 0) return fail(e, 0, "open", "/proc/self/exe", "cannot open this program (is /proc mounted?): %s", strerror(errno));
  if (fstatvfs(exe, &st) == 0 && (st.f_flag & ST_RDONLY)) return 0;
  int seals = fcntl(exe, F_GET_SEALS);
  if (seals >= 0 && (seals & F_SEAL_WRITE)) return 0;
  autofd run = k_open_tree(exe, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | 0x1000);
  if (run >= 0 && remount_attr(run, MOUNT_ATTR_RDONLY, 0, 0, false) < 0) cleanup_fd(&run);
  if (run < 0) run = sealed_copy();
  if (run < 0) return fail(e, 0, "memfd_create", "/proc/self/exe", "cannot make a read-only view of this program: %s", strerror(errno));
  syscall(SYS_execveat, run, "", argv, environ, 0x1000);
  return fail(e, 0, "execveat", "/proc/self/exe", "cannot execute this program again from a read-only mount: %s", strerror(errno));
}
