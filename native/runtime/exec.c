// Another process in a running container: joins its namespaces and its cgroup, then goes the last stretch of init.c.
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "container.h"
#include "kernel.h"
#include "spec.h"
#include "tty.h"

// The namespaces of the target that differ from this process's own. Entering one's own user namespace again is an error.
int foreign_namespaces(pid_t target, unsigned long *flags, struct err *e) {
  *flags = 0;
  for (int k = 0; k < 8; k++) {
    char theirs[64], ours[64];
    struct stat a, b;
    snprintf(theirs, sizeof theirs, "/proc/%d/ns/%s", (int)target, namespace_table[k].proc);
    snprintf(ours, sizeof ours, "/proc/self/ns/%s", namespace_table[k].proc);
    if (stat(ours, &b) < 0) continue;  // a kind that this kernel does not have
    if (stat(theirs, &a) < 0) return fail(e, 0, "stat", theirs, "cannot look at the container's namespaces: %s", strerror(errno));
    if (a.st_ino != b.st_ino || a.st_dev != b.st_dev) *flags |= namespace_table[k].flag;
  }
  return 0;
}

struct place {
  int target;
  unsigned long flags;
};

static int join_place(void *arg, struct err *e) {
  const struct place *at = arg;
  return setns(at->target, (int)at->flags) < 0 ? fail(e, 0, "setns", "user", "cannot join the container's user namespace: %s", strerror(errno)) : 0;
}

// joined: namespaces that the process is in from its birth on.
static _Noreturn void exec_child(struct exec *x, struct process *p, const struct cgroup_door *door, unsigned long flags, unsigned long joined, int target, int sync) {
  struct err e = {0};
  struct sync_msg m;
  cleanup_fd(&x->sync);
  if (process_affinity(p, "initial", &e) < 0 || cgroup_enter(door, x->cg, &e) < 0 || process_affinity(p, "final", &e) < 0) child_fail(sync, &e);
  prctl(PR_SET_NAME, "shoal:[exec]");
  child_signals();
  int n = 0, keep[17 + 64];
  for (int i = 0; i < x->preserve_fds && n < 64; i++) keep[n++] = 3 + i;
  for (int i = 0; i < 3; i++)
    if (x->stdio[i] >= 0) keep[n++] = x->stdio[i];
  if (x->filter.listener >= 0) keep[n++] = x->filter.listener;
  keep[n++] = target;
  keep[n++] = sync;
  close_all_except(keep, n);
  if (sync_recv(sync, &m, NULL) <= 0) _exit(1);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // see selfexec.c
  if (x->filter.listener >= 0) listener_metadata(&x->filter, x->config, x->id, x->bundle, "running", x->target);
  STAGE("namespace");
  unsigned long still = flags & ~joined;
  if (still && setns(target, (int)still) < 0) {
    fail(&e, 0, "setns", "", "cannot join the container's namespaces: %s", strerror(errno));
    child_fail(sync, &e);
  }
  close(target);
  if (setsid() < 0) fail(&e, 0, "setsid", "", "cannot make a session: %s", strerror(errno));
  if (!e.code && (flags & CLONE_NEWUSER) && (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0))
    fail(&e, 0, "setresuid", "0", "cannot become root of the container's user namespace: %s", strerror(errno));
  if (e.code) child_fail(sync, &e);
  for (int fd = 0; fd < 3; fd++) {
    if (x->stdio[fd] < 0) continue;
    if (RETRY(dup2(x->stdio[fd], fd)) < 0) {
      fail(&e, 0, "dup2", "", "cannot put descriptor %d in place: %s", fd, strerror(errno));
      child_fail(sync, &e);
    }
  }
  for (int fd = 0; fd < 3; fd++)
    if (x->stdio[fd] > 2) close(x->stdio[fd]);
  if (p->terminal) {
    int slave = -1, master = tty_open(-1, p->cols, p->rows, &slave, &e);
    if (master < 0 || tty_control(slave, &e) < 0) child_fail(sync, &e);
    if (fd_send(sync, master, &(char){SYNC_CONSOLE}, 1) < 0) _exit(1);
    close(master);
    close(slave);
  }
  child_start(p, &x->filter, NULL, x->id, x->bundle, false, x->preserve_fds, sync, -1);
}

int exec_follow(struct exec *x, struct err *e) {
  for (;;) {
    struct sync_msg m;
    int fd = -1, r = sync_recv(x->sync, &m, &fd);
    if (r < 0 && errno == EAGAIN) return 0;
    if (r < 0) return fail(e, 0, "recvmsg", "", "cannot hear from the new process: %s", strerror(errno));
    if (r == 0) return fail(e, EIO, "recvmsg", "", "the new process ended while it was being set up");
    if (m.kind == SYNC_ERROR) return *e = m.err, -1;
    if (m.kind == SYNC_CONSOLE) x->master = fd;
    else if (fd >= 0) close(fd);
    if (m.kind == SYNC_READY) return process_rlimits(&x->rlimits, x->pid, e) < 0 ? -1 : 1;
  }
}

int exec_go(struct exec *x, struct err *e) { return start_send(x->sync, e); }
int exec_went(struct exec *x, struct err *e) { return start_result(x->sync, e); }
int exec_start(struct exec *x, struct err *e) {
  int r = exec_go(x, e) < 0 || exec_went(x, e) < 0 ? -1 : 0;
  cleanup_fd(&x->sync);
  return r;
}

static void abandon(struct exec *x) {
  if (x->pid > 0) {
    (void)kill(x->pid, SIGKILL);
    (void)RETRY(waitpid(x->pid, NULL, 0));
  }
  x->pid = 0;
  cleanup_fd(&x->pidfd);
  cleanup_fd(&x->sync);
  cleanup_fd(&x->master);
}

int exec_spawn(struct exec *x, struct err *e) {
  struct process p;
  unsigned long flags;
  x->pid = 0;
  x->pidfd = x->sync = x->master = -1;
  if (spec_check(x->process, "process", e) < 0) return -1;
  if (process_parse(&p, x->process, x->config, NULL, e) < 0) {
    process_free(&p);
    return -1;
  }
  p.terminal |= x->terminal;
  if (x->cols) p.cols = x->cols, p.rows = x->rows;
  STAGE("namespace");
  autofd target = k_pidfd_open(x->target), own = -1;
  struct cgroup_door door = {.into = -1};
  int sv[2] = {-1, -1}, r = -1;
  if (target < 0 || (x->ticks && proc_start_ticks(x->target) != x->ticks)) {
    if (target >= 0) errno = ESRCH;
    fail(e, 0, "pidfd_open", "", "the container's process %d is gone: %s", (int)x->target, strerror(errno));
    goto out;
  }
  if (foreign_namespaces(x->target, &flags, e) < 0 || cgroup_open_door(x->cg, x->below, &door, e) < 0) goto out;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0) {
    fail(e, 0, "socketpair", "", "cannot make a socket pair: %s", strerror(errno));
    goto out;
  }
  x->sync = sv[0];
  // Only a child gets a new pid namespace: this process enters it for a moment, has the child, and goes back. Who is not root may enter it from
  // the container's user namespace only, from which there is no way back.
  unsigned long joined = flags & CLONE_NEWPID;
  if (geteuid() != 0 && (flags & CLONE_NEWUSER)) {
    joined |= CLONE_NEWUSER;
    x->pid = clone_from(join_place, &(struct place){target, joined}, 0, door.into, &x->pidfd, e);
    if (x->pid == 0) exec_child(x, &p, &door, flags, joined, target, sv[1]);
    close(sv[1]);
    if (x->pid < 0) goto out;
    goto made;
  }
  if (joined) {
    own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (own < 0 || setns(target, CLONE_NEWPID) < 0) {
      fail(e, 0, "setns", "pid", "cannot join the container's pid namespace: %s", strerror(errno));
      close(sv[1]);
      goto out;
    }
  }
  x->pid = clone_process(0, door.into, &x->pidfd);
  // v2: a group that hands controllers down takes no process; the container's first one has moved on to a group below.
  if (x->pid < 0 && errno == EBUSY && !x->below && cgroup_follow(x->cg, x->target, &door) == 0) x->pid = clone_process(0, door.into, &x->pidfd);
  if (x->pid == 0) exec_child(x, &p, &door, flags, joined, target, sv[1]);
  int clone_errno = errno;
  close(sv[1]);
  if (own >= 0 && setns(own, CLONE_NEWPID) < 0) {
    fail(e, 0, "setns", "pid", "cannot go back to the runtime's own pid namespace: %s", strerror(errno));
    goto out;
  }
  if (x->pid < 0) {
    STAGE("clone");
    fail(e, clone_errno, "clone3", "", "cannot make a process in the container: %s", strerror(clone_errno));
    goto out;
  }
made:
  x->rlimits = p.rlimits;
  if (process_limits(&p, x->pid, e) < 0) goto out;
  (void)sync_send(x->sync, SYNC_GO, NULL);  // where that fails, the child has ended: its reason is read next
  r = 0;
out:
  cgroup_close_door(&door);
  if (r < 0) abandon(x);
  process_free(&p);
  return r;
}

int exec_create(struct exec *x, struct err *e) {
  if (exec_spawn(x, e) < 0) return -1;
  if (exec_follow(x, e) == 1) return 0;
  abandon(x);
  return -1;
}
