// The child's half of container_create: runs in the container's first process. It reports and never returns.
#include <limits.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "container.h"
#include "devices.h"
#include "hooks.h"
#include "kernel.h"
#include "path.h"
#include "rootfs.h"
#include "tty.h"

_Noreturn void child_fail(int sync, const struct err *e) {
  (void)sync_send(sync, SYNC_ERROR, e);
  _exit(1);
}

// The runtime may ignore or block signals for itself; its program starts with all of them as usual.
void child_signals(void) {
  struct sigaction dfl = {.sa_handler = SIG_DFL};
  for (int s = 1; s < 65; s++)
    if (s != SIGKILL && s != SIGSTOP && s != 32 && s != 33 && s != 34) (void)sigaction(s, &dfl, NULL);
  sigset_t none;
  sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int wait_for(int sync, char kind, struct err *e) {
  struct sync_msg m;
  int r = sync_recv(sync, &m, NULL);
  if (r == 0) _exit(1);  // the parent is gone: so is the reason to be here
  if (r < 0 || m.kind != kind) return fail(e, r < 0 ? 0 : EPROTO, "recvmsg", "", "the runtime and the container's process disagree");
  return 0;
}

static int stdio_in_place(const int stdio[3], struct err *e) {
  for (int fd = 0; fd < 3; fd++)
    if (stdio[fd] >= 0 && RETRY(dup2(stdio[fd], fd)) < 0)
      return fail(e, 0, "dup2", "", "cannot put descriptor %d in place: %s", fd, strerror(errno));
  return 0;
}

static int names(const struct json *config, struct err *e) {
  STAGE("namespace");
  const char *host = j_gets(config, "hostname"), *domain = j_gets(config, "domainname");
  if (host && *host && syscall(SYS_sethostname, host, strlen(host)) < 0)
    return fail(e, 0, "sethostname", host, "cannot set the host name '%s': %s", host, strerror(errno));
  if (domain && *domain && syscall(SYS_setdomainname, domain, strlen(domain)) < 0)
    return fail(e, 0, "setdomainname", domain, "cannot set the domain name '%s': %s", domain, strerror(errno));
  return 0;
}

static int bind_init(int rootfd, const char *path, int tree, struct err *e) {
  STAGE("mount");
  autofd at = make_in_root(rootfd, "/sbin/docker-init", MAKE_FILE, e);
  if (at < 0) return -1;
  if (remount_attr(tree, MOUNT_ATTR_RDONLY, 0, 0, false) < 0 || k_move_mount(tree, at) < 0)
    return fail(e, 0, "move_mount", path, "cannot bind %s on /sbin/docker-init: %s", path, strerror(errno));
  return 0;
}

// A new network namespace has its loopback interface down.
static int loopback_up(struct err *e) {
  STAGE("namespace");
  struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  autofd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &r) < 0) return fail(e, 0, "ioctl", "lo", "cannot bring up the loopback interface: %s", strerror(errno));
  return 0;
}

static int needs_hooks(const struct json *config) {
  return hooks_any(config, "prestart") || hooks_any(config, "createRuntime");
}

// The container process state of the specification, for the seccomp agent. The process knows from /proc of the host by which pid the runtime
// sees it. The version is the one that the receivers of this message know it by, as crun sends it.
void listener_metadata(struct seccomp_filter *f, const struct json *config, const char *id, const char *bundle, const char *status, pid_t first) {
  char self[24] = "";
  pid_t pid = readlink("/proc/self", self, sizeof self - 1) > 0 ? (pid_t)atoi(self) : getpid();
  const char *metadata = j_gets(j_path(config, "linux.seccomp"), "listenerMetadata");
  autobuf b = {0};
  buf_fmt(&b, "{\"ociVersion\":\"0.2.0\",\"fds\":[\"seccompFd\"],\"pid\":%d,\"metadata\":", (int)pid);
  json_quote_str(&b, metadata ? metadata : "");
  buf_str(&b, ",\"state\":");
  oci_state(&b, config, id, status, first ? first : pid, bundle);
  buf_str(&b, "}");
  f->metadata = xstrdup(b.p);
}

static int set_up(struct container *c, struct process *p, struct namespaces *ns, struct mount_plan *m, int tree, int devices, int sync, struct err *e) {
  if (wait_for(sync, SYNC_GO, e) < 0) return -1;
  STAGE("namespace");
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // see selfexec.c
  if (setsid() < 0) return fail(e, 0, "setsid", "", "cannot make a session: %s", strerror(errno));
  bool own_users = (ns->fresh | ns->join) & CLONE_NEWUSER;
  if (own_users && (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0))
    return fail(e, 0, "setresuid", "0", "cannot become root of the user namespace (is id 0 mapped?): %s", strerror(errno));
  if (own_users && !p->keep_groups && syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
    return fail(e, 0, "setgroups", "", "cannot clear the groups: %s", strerror(errno));
  autofd init_tree = -1;
  if (c->init_path) {
    init_tree = k_open_tree(AT_FDCWD, c->init_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (init_tree < 0) return fail(e, 0, "open_tree", c->init_path, "cannot open the init program %s: %s", c->init_path, strerror(errno));
  }
  if (namespaces_join_late(ns, CLONE_NEWCGROUP | CLONE_NEWNS, e) < 0) return -1;
  unsigned long late = ns->fresh & namespaces_late(ns) & ~(unsigned long)CLONE_NEWTIME;
  if (late && unshare((int)late) < 0)
    return fail(e, 0, "unshare", late & CLONE_NEWIPC ? "ipc" : "cgroup", "cannot make a %s namespace: %s", late & CLONE_NEWIPC ? "ipc" : "cgroup", strerror(errno));
  if ((ns->fresh & CLONE_NEWNET) && loopback_up(e) < 0) return -1;
  if (c->filter.listener >= 0) listener_metadata(&c->filter, c->config, c->id, c->bundle, "creating", 0);
  umask(0);
  const char *root = j_gets(j_get(c->config, "root"), "path");
  char abs[PATH_MAX];
  if (snprintf(abs, sizeof abs, "%s%s%s", root[0] == '/' ? "" : c->bundle, root[0] == '/' ? "" : "/", root) >= (int)sizeof abs)
    return fail(e, ENAMETOOLONG, "parse", root, "root.path is too long");
  if (rootfs_attach(m, tree, c->overlay, abs, e) < 0 || mounts_do(m, e) < 0) return -1;
  if (devices_make(m->rootfd, c->config, m->userns, devices, e) < 0 || devices_links(m->rootfd, e) < 0) return -1;
  if (c->init_path && bind_init(m->rootfd, c->init_path, init_tree, e) < 0) return -1;
  STAGE("rootfs");
  autofd cwd = open_in_root(m->rootfd, p->cwd, O_PATH);
  if (cwd < 0 && errno == ENOENT && (cwd = make_in_root(m->rootfd, p->cwd, MAKE_DIR, e)) < 0) return -1;
  if (needs_hooks(c->config)) {
    if (sync_send(sync, SYNC_HOOKS, NULL) < 0) return fail(e, 0, "send", "", "cannot reach the runtime: %s", strerror(errno));
    if (wait_for(sync, SYNC_HOOKS, e) < 0) return -1;
  }
  if (hooks_any(c->config, "createContainer")) {
    // As with crun and runc they find the container's root file system where they stand.
    if (fchdir(m->rootfd) < 0) return fail(e, 0, "fchdir", "/", "cannot enter the new root: %s", strerror(errno));
    autobuf state = {0};
    oci_state(&state, c->config, c->id, "created", getpid(), c->bundle);
    if (hooks_run(c->config, "createContainer", state.p, e) < 0) return -1;
  }
  if (stdio_in_place(c->stdio, e) < 0) return -1;
  autofd slave = -1, master = -1;
  if (p->terminal) {
    master = tty_open(m->rootfd, p->cols, p->rows, &slave, e);
    if (master < 0 || tty_console(m->rootfd, slave, e) < 0) return -1;
  }
  if (rootfs_pivot(m, c->no_pivot, e) < 0 || names(c->config, e) < 0 || rootfs_seal(m, e) < 0) return -1;
  if (p->terminal) {
    if (tty_control(slave, e) < 0) return -1;
    if (fd_send(sync, master, &(char){SYNC_CONSOLE}, 1) < 0) return fail(e, 0, "sendmsg", "", "cannot hand over the terminal: %s", strerror(errno));
  }
  return 0;
}

_Noreturn void child_start(struct process *p, const struct seccomp_filter *f, const struct json *config, const char *id, const char *bundle,
                           bool keyring, int preserve_fds, int sync, int listen_fd) {
  struct err e = {0};
  struct sync_msg m;
  if (sync_send(sync, SYNC_READY, NULL) < 0) _exit(1);
  if (listen_fd >= 0) {
    // `create` and `start` are different processes: the second one comes as a connection, and gets the answer on it.
    close(sync);
    sync = (int)RETRY(accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC));
    if (sync < 0) _exit(1);
    close(listen_fd);
  }
  int r = sync_recv(sync, &m, NULL);
  if (r <= 0 || m.kind != SYNC_START) _exit(1);
  if (process_become(p, f, id, keyring, preserve_fds, &e) < 0) child_fail(sync, &e);
  // The container's own programs: they get no more rights than the one that follows.
  if (hooks_any(config, "startContainer")) {
    autobuf state = {0};
    oci_state(&state, config, id, "created", getpid(), bundle);
    if (hooks_run(config, "startContainer", state.p, &e) < 0) child_fail(sync, &e);
  }
  process_exec(p, &e);
  child_fail(sync, &e);
}

_Noreturn void container_child(struct container *c, struct birth *b) {
  struct err e = {0};
  struct process *p = b->p;
  struct namespaces *ns = b->ns;
  struct mount_plan *m = b->m;
  int tree = b->tree, sync = b->sync;
  cleanup_fd(&c->sync);  // the parent's end: its death must be seen
  if (cgroup_enter(&b->door, &c->cg, &e) < 0) child_fail(sync, &e);
  prctl(PR_SET_NAME, "shoal:[init]");
  child_signals();
  // What the parent has open is not the container's business, also while this process only waits.
  int n = 0, *keep = xalloc(((size_t)m->n + (size_t)c->preserve_fds + 24) * sizeof(int));
  for (int i = 0; i < c->preserve_fds; i++) keep[n++] = 3 + i;
  for (int i = 0; i < m->n; i++)
    if (m->tree_fd[i] >= 0) keep[n++] = m->tree_fd[i];
  for (int i = 0; i < 3; i++)
    if (c->stdio[i] >= 0) keep[n++] = c->stdio[i];
  for (int i = 0; i < 8; i++)
    if (ns->join_fd[i] >= 0) keep[n++] = ns->join_fd[i];
  if (tree >= 0) keep[n++] = tree;
  if (b->devices >= 0) keep[n++] = b->devices;
  if (c->listen_fd >= 0) keep[n++] = c->listen_fd;
  if (c->filter.listener >= 0) keep[n++] = c->filter.listener;
  keep[n++] = sync;
  close_all_except(keep, n);
  free(keep);
  if (set_up(c, p, ns, m, tree, b->devices, sync, &e) < 0) child_fail(sync, &e);
  mounts_free(m);
  cleanup_fd(&b->devices);
  namespaces_close(ns);
  for (int i = 0; i < 3; i++)
    if (c->stdio[i] > 2) close(c->stdio[i]);
  child_start(p, &c->filter, c->config, c->id, c->bundle, !c->no_new_keyring, c->preserve_fds, sync, c->listen_fd);
}
