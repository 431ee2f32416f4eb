// mounts add and remove, as crun has them: what stands in a file is mounted in a running container, or taken away again.
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>

#include "../kernel.h"
#include "../mount.h"
#include "cli.h"

static int unmount(const struct json *list, struct err *e) {
  STAGE("mount");
  J_EACH(mnt, list) {
    const char *dest = j_gets(mnt, "destination");
    if (!dest || dest[0] != '/') return fail(e, EINVAL, "parse", "mounts", "a mount to remove needs an absolute destination");
    if (k_umount(dest, MNT_DETACH | 8 /* UMOUNT_NOFOLLOW */) < 0) return fail(e, 0, "umount2", dest, "cannot unmount %s: %s", dest, strerror(errno));
  }
  return 0;
}

// In a child that has joined the container: its root is the container's.
static int inside(struct mount_plan *m, bool add, unsigned long flags, int target, struct err *e) {
  STAGE("namespace");
  if (flags && setns(target, (int)flags) < 0) return fail(e, 0, "setns", "", "cannot join the container's namespaces: %s", strerror(errno));
  if ((flags & CLONE_NEWUSER) && (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0))
    return fail(e, 0, "setresuid", "0", "cannot become root of the container's user namespace: %s", strerror(errno));
  if (!add) return unmount(j_get(m->config, "mounts"), e);
  m->rootfd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (m->rootfd < 0) return fail(e, 0, "open", "/", "cannot open the container's root: %s", strerror(errno));
  return mounts_do(m, e) < 0 ? -1 : mounts_finish(m, e);
}

int cmd_mounts(int argc, char **argv) {
  bool add = argc > 1 && !strcmp(argv[1], "add");
  if (argc != 4 || (!add && strcmp(argv[1], "remove"))) return fprintf(stderr, "shoal-runtime mounts: add or remove, a container, a file\n"), 1;
  struct saved s;
  struct err e = {0};
  if (state_open(&s, argv[2], &e) < 0) return cli_fail(&e);
  STAGE("request");
  const char *status = state_status(&s, NULL);
  if (strcmp(status, "running")) return fail(&e, EINVAL, "mounts", s.id, "container '%s' is %s, not running", s.id, status), cli_fail(&e);
  autobuf list = {0}, document = {0};
  if (read_file_at(AT_FDCWD, argv[3], &list, 1 << 20) < 0) return fail(&e, 0, "open", argv[3], "cannot read %s: %s", argv[3], strerror(errno)), cli_fail(&e);
  buf_fmt(&document, "{\"mounts\":%s}", list.p);
  struct cgroup none = {0};
  // As in a user namespace: sources are opened out here, with the host's rights and names.
  struct mount_plan m = {.bundle = s.bundle, .cg = &none, .userns = true, .early = true, .rootfd = -1, .procfd = -1};
  m.config = json_parse(&s.arena, document.p, document.len, argv[3], &e);
  if (!m.config || (add && mounts_prepare(&m, &e) < 0)) return cli_fail(&e);
  unsigned long flags;
  autofd target = k_pidfd_open(s.pid);
  if (target < 0 || strcmp(state_status(&s, NULL), "running") || foreign_namespaces(s.pid, &flags, &e) < 0)
    return fail(&e, ESRCH, "pidfd_open", s.id, "container '%s' is not running", s.id), cli_fail(&e);
  pid_t pid = fork();
  if (pid < 0) return fail(&e, 0, "fork", "", "cannot fork: %s", strerror(errno)), cli_fail(&e);
  if (pid == 0) _exit(inside(&m, add, flags & (CLONE_NEWUSER | CLONE_NEWNS), target, &e) < 0 ? cli_fail(&e) : 0);
  int code = 0;
  if (RETRY(waitpid(pid, &code, 0)) < 0) return fail(&e, 0, "waitpid", "", "cannot wait for the mounting process: %s", strerror(errno)), cli_fail(&e);
  mounts_free(&m);
  return WIFEXITED(code) ? WEXITSTATUS(code) : 1;
}
