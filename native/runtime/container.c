#include "container.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "devices.h"
#include "hooks.h"
#include "kernel.h"
#include "rootfs.h"
#include "spec.h"
#include "tty.h"

void container_init(struct container *c) {
  *c = (struct container){.stdio = {-1, -1, -1}, .listen_fd = -1, .pidfd = -1, .sync = -1, .master = -1, .filter = {.listener = -1}};
}

int sync_send(int fd, char kind, const struct err *e) {
  struct sync_msg m = {.kind = kind};
  if (e) m.err = *e;
  return RETRY(send(fd, &m, e ? sizeof m : 1, MSG_NOSIGNAL)) < 0 ? -1 : 0;
}

int sync_recv(int fd, struct sync_msg *m, int *passed) {
  int extra = -1;
  memset(m, 0, sizeof *m);
  ssize_t n = fd_recv(fd, &extra, m, sizeof *m);
  // The other end closed before it had read what was sent to it. What it sent itself, its reason, comes after that error.
  if (n < 0 && errno == ECONNRESET) n = fd_recv(fd, &extra, m, sizeof *m);
  if (passed) *passed = extra;
  else if (extra >= 0) close(extra);
  if (n < 0) return -1;
  return n > 0;
}

static int by_number(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

void close_all_except(int *keep, int n) {
  qsort(keep, (size_t)n, sizeof *keep, by_number);
  unsigned from = 3;
  for (int i = 0; i < n; i++) {
    if (keep[i] < (int)from) continue;
    if ((unsigned)keep[i] > from) (void)k_close_range(from, (unsigned)keep[i] - 1, 0);
    from = (unsigned)keep[i] + 1;
  }
  (void)k_close_range(from, ~0u, 0);
}

void container_kill(struct container *c) {
  if (c->pid > 0) {
    (void)kill(c->pid, SIGKILL);
    (void)RETRY(waitpid(c->pid, NULL, 0));
  }
  c->pid = 0;
  cleanup_fd(&c->pidfd);
  cleanup_fd(&c->sync);
  cleanup_fd(&c->master);
}

// A user namespace given by path has to be entered before the others are made, or they would belong to the host's.
static int join_users(void *arg, struct err *e) { return namespaces_join_late(arg, CLONE_NEWUSER, e); }

// What the child says until it is ready.
static int follow_child(struct container *c, const struct process *p, struct err *e) {
  for (;;) {
    struct sync_msg m;
    int fd = -1, r = sync_recv(c->sync, &m, &fd);
    if (r < 0) return fail(e, 0, "recvmsg", "", "cannot hear from the container's process: %s", strerror(errno));
    if (r == 0) {
      STAGE("clone");
      int status = 0;
      pid_t w = waitpid(c->pid, &status, WNOHANG | WNOWAIT);
      return fail(e, EIO, "recvmsg", "", "the container's process ended while it was being set up%s",
                  w > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? " (killed: is the memory limit too small?)" : "");
    }
    if (m.kind == SYNC_ERROR) {
      *e = m.err;
      return -1;
    }
    if (m.kind == SYNC_CONSOLE) c->master = fd;
    else if (fd >= 0) close(fd);
    if (m.kind == SYNC_READY) return process_rlimits(&p->rlimits, c->pid, e);
    if (m.kind == SYNC_HOOKS) {
      autobuf state = {0};
      oci_state(&state, c->config, c->id, "created", c->pid, c->bundle);
      if (hooks_run(c->config, "prestart", state.p, e) < 0 || hooks_run(c->config, "createRuntime", state.p, e) < 0) return -1;
      if (sync_send(c->sync, SYNC_HOOKS, NULL) < 0) return fail(e, 0, "send", "", "cannot reach the container's process: %s", strerror(errno));
    }
  }
}

static int spawn(struct container *c, struct birth *b, struct err *e) {
  struct namespaces *ns = b->ns;
  int sv[2];
  STAGE("clone");
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
    return fail(e, 0, "socketpair", "", "cannot make a socket pair: %s", strerror(errno));
  c->sync = sv[0];
  b->sync = sv[1];
  if (cgroup_open_door(&c->cg, NULL, &b->door, e) < 0) return -1;
  unsigned long flags = ns->fresh & ~namespaces_late(ns);
  struct namespaces_saved saved;
  int entered = namespaces_enter(ns, &saved, e);
  if (entered == 0) {
    STAGE("clone");
    if (ns->join & CLONE_NEWUSER) {
      c->pid = clone_from(join_users, ns, flags, b->door.into, &c->pidfd, e);
      if (c->pid == 0) container_child(c, b);
    } else {
      c->pid = clone_process(flags, b->door.into, &c->pidfd);
      if (c->pid == 0) container_child(c, b);
      if (c->pid < 0) fail(e, 0, "clone3", "", "cannot make the container's process in its namespaces: %s", strerror(errno));
    }
  }
  struct err back;
  int returned = namespaces_return(&saved, entered < 0 || c->pid < 0 ? &back : e);
  if (entered < 0 || c->pid < 0 || returned < 0) return -1;
  if ((ns->fresh & CLONE_NEWUSER) && idmap_write(c->pid, ns->uid_map, ns->gid_map, e) < 0) return -1;
  if (process_limits(b->p, c->pid, e) < 0) return -1;
  cleanup_fd(&b->sync);
  (void)sync_send(c->sync, SYNC_GO, NULL);  // where that fails, the child has ended: its reason is read next
  return follow_child(c, b->p, e);
}

// What would reach beyond the container, or be dropped without a word.
static int refuse(const struct json *config, const struct namespaces *ns, struct err *e) {
  STAGE("config");
  unsigned long own = ns->fresh | ns->join;
  if (!(own & CLONE_NEWNS))
    return fail(e, EINVAL, "parse", "linux.namespaces", "a container without a mount namespace is not supported: add {\"type\":\"mount\"}");
  static const char *const names[] = {"hostname", "domainname"};
  for (int i = 0; i < 2; i++) {
    const char *value = j_gets(config, names[i]);
    if (value && *value && !(own & CLONE_NEWUTS))
      return fail(e, EINVAL, "parse", names[i], "%s '%s' would rename the host: add {\"type\":\"uts\"} to linux.namespaces, or leave it out", names[i], value);
  }
  if (j_path(config, "linux.intelRdt"))
    return fail(e, ENOTSUP, "parse", "linux.intelRdt", "linux.intelRdt is asked for, but this runtime does not manage resctrl: leave it out");
  return 0;
}

// Whoever may not make groups gets none, unless the document asks for one or for limits. Devices are out of reach of such a user anyway.
static bool goes_without_cgroup(struct container *c, struct err *e) {
  const struct json *l = j_get(c->config, "linux");
  if (geteuid() == 0 || (e->code != EACCES && e->code != EPERM && e->code != EROFS) || j_get(l, "cgroupsPath")) return false;
  J_EACH(limit, j_get(l, "resources")) if (j_items(limit) && strcmp(limit->key, "devices")) return false;
  (void)cgroup_remove(&c->cg, e);  // what could be made
  cgroup_free(&c->cg);
  *e = (struct err){0};
  return true;
}

int container_create(struct container *c, struct err *e) {
  struct namespaces ns = {.join_fd = {-1, -1, -1, -1, -1, -1, -1, -1}};
  struct process p = {0};
  struct mount_plan m = {.config = c->config, .bundle = c->bundle, .cg = &c->cg, .rootfd = -1, .procfd = -1};
  struct birth b = {.p = &p, .ns = &ns, .m = &m, .door = {.into = -1}, .tree = -1, .devices = -1, .sync = -1};
  autofree char *root_abs = NULL;
  int r = -1;
  STAGE("config");
  const struct json *l = j_get(c->config, "linux"), *seccomp = j_get(l, "seccomp");
  const char *root = j_gets(j_get(c->config, "root"), "path");
  if (spec_check(c->config, NULL, e) < 0 || namespaces_parse(&ns, l, e) < 0) goto out;
  STAGE("config");
  if (!root) {
    fail(e, EINVAL, "parse", "root.path", "config.json has no root.path");
    goto out;
  }
  if (geteuid() != 0 && !(ns.join & CLONE_NEWUSER)) ns.fresh |= CLONE_NEWUSER;  // the others take rights that only its root has
  if (refuse(c->config, &ns, e) < 0) goto out;
  if (process_parse(&p, j_get(c->config, "process"), c->config, c->init_path, e) < 0) goto out;
  if (c->terminal) p.terminal = true;
  if (c->cols) p.cols = c->cols, p.rows = c->rows;
  if (c->filter.bytes && (seccomp_flags(&c->filter, seccomp, e) < 0 || seccomp_connect(&c->filter, seccomp, e) < 0)) goto out;
  if (cgroup_frozen(&c->cg)) {
    STAGE("cgroup");
    fail(e, EBUSY, "freeze", c->cg.path, "container's cgroup unexpectedly frozen: thaw %s, or name another one", c->cg.path);
    cgroup_free(&c->cg);  // somebody else's: nothing in it is ended or removed
    goto out;
  }
  if (cgroup_make(&c->cg, e) < 0 && !goes_without_cgroup(c, e)) goto undo;
  if (cgroup_apply(&c->cg, j_get(l, "resources"), e) < 0) goto undo;
  m.cgroupns = (ns.fresh | ns.join) & CLONE_NEWCGROUP;
  m.userns = (ns.fresh | ns.join) & CLONE_NEWUSER;
  m.early = m.userns && geteuid() == 0;
  root_abs = root[0] == '/' ? xstrdup(root) : xasprintf("%s/%s", c->bundle, root);
  if (c->overlay) {
    b.tree = overlay_open(c->overlay, e);
    if (b.tree == -1) goto undo;
    if (b.tree == -2 && m.userns) {
      fail(e, ENOTSUP, "fsconfig", "lowerdir+", "user namespaces with these layers need kernel 6.7 or newer (overlay lowerdir+)");
      goto undo;
    }
  } else if (m.early) {
    STAGE("rootfs");
    b.tree = k_open_tree(AT_FDCWD, root_abs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (b.tree < 0 || remount_attr(b.tree, 0, 0, MS_SLAVE, true) < 0) {
      fail(e, 0, "open_tree", root_abs, "cannot bind the root file system %s: %s", root_abs, strerror(errno));
      goto undo;
    }
  }
  if ((ns.fresh & CLONE_NEWUSER) && (b.devices = devices_prepare(c->config, e)) < 0 && e->code) goto undo;
  if (mounts_prepare(&m, e) < 0) goto undo;
  if (spawn(c, &b, e) == 0) {
    r = 0;
    goto out;
  }
undo:
  container_kill(c);
  if (c->shared) {
    cgroup_free(&c->cg);
  } else {
    struct err ignored;  // the first error is the one to report
    (void)cgroup_remove(&c->cg, &ignored);
  }
out:
  cgroup_close_door(&b.door);
  if (b.tree >= 0) close(b.tree);
  cleanup_fd(&b.devices);
  cleanup_fd(&b.sync);
  mounts_free(&m);
  namespaces_close(&ns);
  process_free(&p);
  return r;
}

int start_send(int sync, struct err *e) {
  STAGE("process");
  return sync_send(sync, SYNC_START, NULL) < 0 ? fail(e, ESRCH, "send", "", "cannot start: the created process is gone") : 0;
}

int start_result(int sync, struct err *e) {
  struct sync_msg m;
  STAGE("process");
  int r = sync_recv(sync, &m, NULL);
  if (r < 0 && errno == EAGAIN) return 0;
  if (r < 0) return fail(e, 0, "recvmsg", "", "cannot hear from the container's process: %s", strerror(errno));
  if (r == 0) return 1;
  *e = m.err;
  return -1;
}

int container_start(struct container *c, struct err *e) {
  int r = start_send(c->sync, e) < 0 || start_result(c->sync, e) < 0 ? -1 : 0;
  cleanup_fd(&c->sync);
  return r;
}
