// Namespaces: which are made, which are joined by path, and the id maps of a user namespace.
#include "namespaces.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "kernel.h"

const struct namespace_kind namespace_table[8] = {
    {"user", "user", CLONE_NEWUSER}, {"mount", "mnt", CLONE_NEWNS},       {"pid", "pid", CLONE_NEWPID},
    {"network", "net", CLONE_NEWNET}, {"ipc", "ipc", CLONE_NEWIPC},       {"uts", "uts", CLONE_NEWUTS},
    {"cgroup", "cgroup", CLONE_NEWCGROUP}, {"time", "time", CLONE_NEWTIME}};

// What a child inherits when its parent has entered it for a moment. Mount and user namespaces would change the parent itself.
static const unsigned long early = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWTIME;

int namespaces_parse(struct namespaces *ns, const struct json *l, struct err *e) {
  *ns = (struct namespaces){.join_fd = {-1, -1, -1, -1, -1, -1, -1, -1}};
  J_EACH(item, j_get(l, "namespaces")) {
    const char *type = j_gets(item, "type"), *path = j_gets(item, "path");
    int k = 0;
    while (k < 8 && (!type || strcmp(type, namespace_table[k].name))) k++;
    if (k == 8) return fail(e, EINVAL, "parse", "linux.namespaces", "unknown namespace type '%s'", type ? type : "");
    unsigned long flag = namespace_table[k].flag;
    if ((ns->fresh | ns->join) & flag)
      return fail(e, EINVAL, "parse", "linux.namespaces", "namespace type '%s' is given twice", type);
    if (!path || !*path) {
      ns->fresh |= flag;
      continue;
    }
    STAGE("namespace");
    ns->join_fd[k] = (int)RETRY(open(path, O_RDONLY | O_CLOEXEC));
    if (ns->join_fd[k] < 0)
      return fail(e, 0, "open", path, "cannot open the %s namespace %s: %s", type, path, strerror(errno));
    ns->join |= flag;
  }
  ns->uid_map = j_get(l, "uidMappings");
  ns->gid_map = j_get(l, "gidMappings");
  ns->time_offsets = j_get(l, "timeOffsets");
  if (j_items(ns->time_offsets) && !(ns->fresh & CLONE_NEWTIME))
    return fail(e, EINVAL, "parse", "linux.timeOffsets", "linux.timeOffsets needs a new time namespace in linux.namespaces");
  return 0;
}

void namespaces_close(struct namespaces *ns) {
  for (int k = 0; k < 8; k++) cleanup_fd(&ns->join_fd[k]);
}

static int save(struct namespaces_saved *saved, int k, struct err *e) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/ns/%s", namespace_table[k].proc);
  saved->fd[k] = open(path, O_RDONLY | O_CLOEXEC);
  return saved->fd[k] < 0 ? fail(e, 0, "open", path, "cannot open the runtime's own namespace %s: %s", path, strerror(errno)) : 0;
}

// A time namespace takes its offsets before its first process enters, so the parent makes it and the child is born into it.
static int make_time(const struct namespaces *ns, struct err *e) {
  if (unshare(CLONE_NEWTIME) < 0)
    return fail(e, 0, "unshare", "time", "cannot make a time namespace: %s", strerror(errno));
  autobuf b = {0};
  J_EACH(o, ns->time_offsets)
    buf_fmt(&b, "%s %lld %lld\n", o->key, (long long)j_int(j_get(o, "secs"), 0), (long long)j_int(j_get(o, "nanosecs"), 0));
  if (b.len && write_file_at(AT_FDCWD, "/proc/self/timens_offsets", b.p) < 0)
    return fail(e, 0, "write", "/proc/self/timens_offsets", "cannot set time offsets: %s", strerror(errno));
  return 0;
}

int namespaces_enter(const struct namespaces *ns, struct namespaces_saved *saved, struct err *e) {
  STAGE("namespace");
  *saved = (struct namespaces_saved){{-1, -1, -1, -1, -1, -1, -1, -1}};
  for (int k = 0; k < 8; k++) {
    unsigned long flag = namespace_table[k].flag;
    if (!(early & ns->join & flag)) continue;
    if (save(saved, k, e) < 0) return -1;
    if (setns(ns->join_fd[k], (int)flag) < 0)
      return fail(e, 0, "setns", namespace_table[k].name, "cannot join the %s namespace: %s", namespace_table[k].name, strerror(errno));
  }
  if (ns->fresh & CLONE_NEWTIME) {
    if (save(saved, 7, e) < 0 || make_time(ns, e) < 0) return -1;
  }
  return 0;
}

int namespaces_return(struct namespaces_saved *saved, struct err *e) {
  int r = 0;
  for (int k = 7; k >= 0; k--) {
    if (saved->fd[k] < 0) continue;
    if (setns(saved->fd[k], (int)namespace_table[k].flag) < 0)
      r = fail(e, 0, "setns", namespace_table[k].name, "cannot go back to the runtime's own %s namespace: %s",
               namespace_table[k].name, strerror(errno));
    cleanup_fd(&saved->fd[k]);
  }
  return r;
}

int namespaces_join_late(const struct namespaces *ns, unsigned long which, struct err *e) {
  for (int k = 0; k < 8; k++) {
    unsigned long flag = namespace_table[k].flag;
    if (!(ns->join & which & flag)) continue;
    STAGE("namespace");
    if (setns(ns->join_fd[k], (int)flag) < 0)
      return fail(e, 0, "setns", namespace_table[k].name, "cannot join the %s namespace: %s", namespace_table[k].name, strerror(errno));
  }
  return 0;
}

unsigned long namespaces_late(const struct namespaces *ns) {
  unsigned long late = CLONE_NEWCGROUP | CLONE_NEWTIME;
  if ((ns->fresh | ns->join) & CLONE_NEWUSER) late |= CLONE_NEWIPC;
  return late;
}

// Without a map in the document root inside is who runs this outside, and nobody else is.
static int write_map(pid_t pid, const char *file, const struct json *maps, unsigned own, struct err *e) {
  autobuf b = {0};
  if (!j_items(maps)) buf_fmt(&b, "0 %u 1\n", own);
  J_EACH(m, maps)
    buf_fmt(&b, "%lld %lld %lld\n", (long long)j_int(j_get(m, "containerID"), 0), (long long)j_int(j_get(m, "hostID"), 0),
            (long long)j_int(j_get(m, "size"), 0));
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
  if (write_file_at(AT_FDCWD, path, b.p ? b.p : "") < 0)
    return fail(e, 0, "write", file, "cannot write the id map of the user namespace (%s): %s", file, strerror(errno));
  return 0;
}

// Whoever has no right to give other ids than his own asks newuidmap(1) and newgidmap(1), which know /etc/subuid and /etc/subgid.
static int ask_for_map(const char *program, pid_t pid, const struct json *maps, struct err *e) {
  static const char *const fields[] = {"containerID", "hostID", "size"};
  size_t n = 0;
  autofree char **argv = xalloc((2 + 3 * (size_t)maps->n + 1) * sizeof *argv);
  argv[n++] = (char *)program;
  argv[n++] = xasprintf("%d", (int)pid);
  J_EACH(m, maps)
    for (int i = 0; i < 3; i++) argv[n++] = xasprintf("%lld", (long long)j_int(j_get(m, fields[i]), 0));
  pid_t helper = fork();
  if (helper == 0) {
    execvp(program, argv);
    _exit(127);
  }
  int status = -1;
  bool waited = helper > 0 && RETRY(waitpid(helper, &status, 0)) == helper;
  while (n-- > 1) free(argv[n]);
  if (waited && status == 0) return 0;
  return fail(e, EPERM, program, program, waited && WIFEXITED(status) && WEXITSTATUS(status) == 127 ? "user namespaces with other ids than one's own need root or %s, which is not there"
                                          : "%s does not allow the id map: see /etc/subuid and /etc/subgid", program);
}

static bool own_alone(const struct json *maps, unsigned own) {
  const struct json *m = j_items(maps);
  return !m || (!m->next && j_uint(j_get(m, "hostID"), 0) == own && j_uint(j_get(m, "size"), 0) == 1);
}

int idmap_write(pid_t pid, const struct json *uids, const struct json *gids, struct err *e) {
  STAGE("namespace");
  if (geteuid() == 0) return write_map(pid, "uid_map", uids, 0, e) < 0 || write_map(pid, "gid_map", gids, getegid(), e) < 0 ? -1 : 0;
  if (own_alone(uids, geteuid()) ? write_map(pid, "uid_map", uids, geteuid(), e) < 0 : ask_for_map("newuidmap", pid, uids, e) < 0) return -1;
  if (!own_alone(gids, getegid())) return ask_for_map("newgidmap", pid, gids, e);
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/setgroups", (int)pid);
  if (write_file_at(AT_FDCWD, path, "deny") < 0) return fail(e, 0, "write", "setgroups", "cannot write %s: %s", path, strerror(errno));
  return write_map(pid, "gid_map", gids, getegid(), e);
}

pid_t clone_process(unsigned long flags, int cgroup_fd, int *pidfd) {
  struct clone_args a = {.flags = flags, .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD};  // a sibling has its maker's
  if (pidfd) {
    a.flags |= CLONE_PIDFD;
    a.pidfd = (uintptr_t)pidfd;
  }
  if (cgroup_fd >= 0) {
    a.flags |= CLONE_INTO_CGROUP;
    a.cgroup = (uint64_t)cgroup_fd;
  }
  pid_t pid = (pid_t)syscall(SYS_clone3, &a, sizeof a);
#ifndef __s390x__  // takes its arguments in another order
  // Filters that cannot look into clone3's structure say that there is no such call: the process that runs startContainer hooks is under one.
  if (pid < 0 && errno == ENOSYS && cgroup_fd < 0) pid = (pid_t)syscall(SYS_clone, a.flags | SIGCHLD, 0, pidfd, 0, 0);
#endif
  return pid;
}

pid_t clone_from(int (*join)(void *arg, struct err *e), void *arg, unsigned long flags, int cgroup_fd, int *pidfd, struct err *e) {
  struct {
    pid_t pid;
    struct err e;
  } r = {0};
  int pipefd[2];
  if (pipe2(pipefd, O_CLOEXEC) < 0) return fail(e, 0, "pipe2", "", "cannot make a pipe: %s", strerror(errno));
  autofd in = pipefd[0], out = pipefd[1];
  pid_t helper = fork();
  if (helper < 0) return fail(e, 0, "fork", "", "cannot fork: %s", strerror(errno));
  if (helper == 0) {
    if (join(arg, &r.e) == 0) {
      r.pid = clone_process(flags | CLONE_PARENT, cgroup_fd, NULL);
      if (r.pid == 0) return 0;
      if (r.pid < 0) fail(&r.e, 0, "clone3", "", "cannot make the container's process: %s", strerror(errno));
    }
    _exit(write_all(out, &r, sizeof r) < 0);
  }
  cleanup_fd(&out);
  ssize_t n = RETRY(read(in, &r, sizeof r));
  if (RETRY(waitpid(helper, NULL, 0)) < 0) return fail(e, 0, "waitpid", "", "cannot wait for a helper: %s", strerror(errno));
  if (n != (ssize_t)sizeof r) return fail(e, EIO, "read", "", "the helper that enters the container's namespaces ended early");
  if (r.pid <= 0) {
    *e = r.e;
    return -1;
  }
  *pidfd = k_pidfd_open(r.pid);
  return *pidfd < 0 ? fail(e, 0, "pidfd_open", "", "cannot open the container's process: %s", strerror(errno)) : r.pid;
}

int userns_fd_for_maps(const struct json *uids, const struct json *gids, struct err *e) {
  STAGE("namespace");
  int life[2];
  if (pipe2(life, O_CLOEXEC) < 0) return fail(e, 0, "pipe2", "user", "cannot make a pipe: %s", strerror(errno));
  autofd ours = life[1], its = life[0];
  pid_t pid = clone_process(CLONE_NEWUSER, -1, NULL);
  if (pid < 0) return fail(e, 0, "clone3", "user", "cannot make a user namespace for an idmapped mount: %s", strerror(errno));
  if (pid == 0) {  // until this process's end, should it be killed in between
    char c;
    close(ours);
    _exit(RETRY(read(its, &c, 1)) != 0);
  }
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
  int fd = idmap_write(pid, uids, gids, e) < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 && !e->code) fail(e, 0, "open", path, "cannot open the user namespace of an idmapped mount: %s", strerror(errno));
  if (kill(pid, SIGKILL) < 0 || RETRY(waitpid(pid, NULL, 0)) < 0) {
    cleanup_fd(&fd);
    return fail(e, 0, "waitpid", path, "cannot end the helper of an idmapped mount: %s", strerror(errno));
  }
  return fd;
}
