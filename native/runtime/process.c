#include "process.h"

#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "kernel.h"
#include "rootfs.h"

static const struct {
  const char *name;
  int id;
} rlimit_names[] = {{"AS", RLIMIT_AS}, {"CORE", RLIMIT_CORE}, {"CPU", RLIMIT_CPU}, {"DATA", RLIMIT_DATA}, {"FSIZE", RLIMIT_FSIZE},
                    {"LOCKS", 10}, {"MEMLOCK", RLIMIT_MEMLOCK}, {"MSGQUEUE", 12}, {"NICE", 13}, {"NOFILE", RLIMIT_NOFILE},
                    {"NPROC", RLIMIT_NPROC}, {"RSS", RLIMIT_RSS}, {"RTPRIO", 14}, {"RTTIME", 15}, {"SIGPENDING", 11}, {"STACK", RLIMIT_STACK}};

// The largest number stands for "leave it as it is" in setresuid(2): whoever asks for that user must not stay root.
static int id_of(const struct json *v, const char *what, uint32_t *out, struct err *e) {
  *out = 0;
  if (!v) return 0;
  if (!j_isnum(v) || v->u >= UINT32_MAX) return fail(e, EINVAL, "parse", what, "%s must be a number from 0 to 4294967294", what);
  *out = (uint32_t)v->u;
  return 0;
}

static int rlimits_parse(struct rlimits *l, const struct json *list, struct err *e) {
  unsigned seen = 0;
  J_EACH(r, list) {
    const char *type = j_gets(r, "type");
    size_t i = 0, n = sizeof rlimit_names / sizeof rlimit_names[0];
    while (i < n && (!type || strncmp(type, "RLIMIT_", 7) || strcmp(type + 7, rlimit_names[i].name))) i++;
    if (i == n) return fail(e, EINVAL, "parse", "process.rlimits", "unknown limit '%s'", type ? type : "");
    if (seen & 1u << i) return fail(e, EINVAL, "parse", "process.rlimits", "the limit %s is given twice", type);
    seen |= 1u << i;
    l->of[l->n].id = rlimit_names[i].id;
    l->of[l->n].name = rlimit_names[i].name;
    l->of[l->n].soft = j_uint(j_get(r, "soft"), 0);
    l->of[l->n++].hard = j_uint(j_get(r, "hard"), 0);
  }
  return 0;
}

int process_parse(struct process *p, const struct json *o, const struct json *config, const char *init_path, struct err *e) {
  STAGE("process");
  *p = (struct process){.umask = -1, .json = o};
  if (!o) return fail(e, EINVAL, "parse", "process", "config.json has no process: nothing can be started");
  const struct json *args = j_get(o, "args"), *user = j_get(o, "user"), *more = j_get(user, "additionalGids");
  p->args = j_strv(args);
  p->env = j_strv(j_get(o, "env"));
  if (!p->args[0]) return fail(e, EINVAL, "parse", "process.args", "process.args is empty: there is no command to run");
  if (init_path) {
    size_t n = 0;
    while (p->args[n]) n++;
    char **with = xalloc((n + 3) * sizeof *with);
    with[0] = "/sbin/docker-init";
    with[1] = "--";
    memcpy(with + 2, p->args, n * sizeof *with);
    free(p->args);
    p->args = with;
  }
  p->cwd = j_gets(o, "cwd");
  if (!p->cwd || p->cwd[0] != '/') return fail(e, EINVAL, "parse", "process.cwd", "process.cwd '%s' is not an absolute path", p->cwd ? p->cwd : "");
  if (id_of(j_get(user, "uid"), "process.user.uid", &p->uid, e) < 0 || id_of(j_get(user, "gid"), "process.user.gid", &p->gid, e) < 0) return -1;
  p->umask = (int)j_int(j_get(user, "umask"), -1);
  p->groups = xalloc(((size_t)(more ? more->n : 0) + 1) * sizeof(gid_t));
  J_EACH(g, more) if (id_of(g, "process.user.additionalGids", &p->groups[p->n_groups++], e) < 0) return -1;
  // An exec process without a word about them has the container's.
  const struct json *caps = j_get(o, "capabilities");
  caps_parse(&p->caps, caps ? caps : j_path(config, "process.capabilities"));
  if (rlimits_parse(&p->rlimits, j_get(o, "rlimits"), e) < 0) return -1;
  p->no_new_privs = j_bool(j_get(o, "noNewPrivileges"), false);
  p->terminal = j_bool(j_get(o, "terminal"), false);
  p->cols = (int)j_int(j_path(o, "consoleSize.width"), 0);
  p->rows = (int)j_int(j_path(o, "consoleSize.height"), 0);
  p->apparmor = j_gets(o, "apparmorProfile");
  p->selinux = j_gets(o, "selinuxLabel");
  p->personality = j_path(config, "linux.personality");
  p->memory_policy = j_path(config, "linux.memoryPolicy");
  const char *keep = j_gets(j_get(config, "annotations"), "run.oci.keep_original_groups");
  p->keep_groups = keep && strcmp(keep, "0");
  if (p->apparmor && (!*p->apparmor || !strcmp(p->apparmor, "unconfined"))) p->apparmor = NULL;
  if (p->selinux && !*p->selinux) p->selinux = NULL;
  if (p->apparmor && access("/sys/module/apparmor", F_OK) < 0)
    return fail(e, ENOTSUP, "apparmor", p->apparmor, "the AppArmor profile '%s' is asked for, but this kernel runs without AppArmor", p->apparmor);
  if (p->selinux && access("/sys/fs/selinux/enforce", F_OK) < 0)
    return fail(e, ENOTSUP, "selinux", p->selinux, "the SELinux label '%s' is asked for, but this kernel runs without SELinux", p->selinux);
  return 0;
}

void process_free(struct process *p) {
  free(p->args);
  free(p->env);
  free(p->groups);
  *p = (struct process){0};
}

struct sched_attr_v1 {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
};

// What the kernel answers with a bare "invalid argument", sched(7). Worded as crun does.
static int deadline_order(const struct json *s, const struct sched_attr_v1 *a, struct err *e) {
#define DEADLINE "sched_setattr: `SCHED_DEADLINE` "
  static const char where[] = "process.scheduler";
  unsigned long long runtime = a->runtime, deadline = a->deadline, period = a->period, most = INT64_MAX;
  if (!j_get(s, "runtime")) return fail(e, EINVAL, "parse", where, DEADLINE "requires `runtime`");
  if (!j_get(s, "deadline")) return fail(e, EINVAL, "parse", where, DEADLINE "requires `deadline`");
  if (runtime == 0) return fail(e, EINVAL, "parse", where, DEADLINE "runtime must be greater than 0");
  if (runtime < 1024 || runtime > most) return fail(e, EINVAL, "parse", where, DEADLINE "runtime (%llu) must be between 1024 and %llu", runtime, most);
  if (runtime > deadline) return fail(e, EINVAL, "parse", where, DEADLINE "runtime (%llu) must be <= deadline (%llu)", runtime, deadline);
  if (deadline > most) return fail(e, EINVAL, "parse", where, DEADLINE "deadline (%llu) must be between 1024 and %llu", deadline, most);
  if (period && deadline > period) return fail(e, EINVAL, "parse", where, DEADLINE "deadline (%llu) must be <= period (%llu)", deadline, period);
  return 0;
}

static int scheduler(const struct json *s, pid_t pid, struct err *e) {
  static const char *const policies[] = {"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"};
  static const struct {
    const char *name;
    uint64_t flag;
  } flags[] = {{"SCHED_FLAG_RESET_ON_FORK", 1}, {"SCHED_FLAG_RECLAIM", 2}, {"SCHED_FLAG_DL_OVERRUN", 4}, {"SCHED_FLAG_KEEP_POLICY", 8},
               {"SCHED_FLAG_KEEP_PARAMS", 16}, {"SCHED_FLAG_UTIL_CLAMP_MIN", 32}, {"SCHED_FLAG_UTIL_CLAMP_MAX", 64}};
  const char *policy = j_gets(s, "policy");
  struct sched_attr_v1 a = {.size = sizeof a,
                            .nice = (int32_t)j_int(j_get(s, "nice"), 0),
                            .priority = (uint32_t)j_int(j_get(s, "priority"), 0),
                            .runtime = j_uint(j_get(s, "runtime"), 0),
                            .deadline = j_uint(j_get(s, "deadline"), 0),
                            .period = j_uint(j_get(s, "period"), 0)};
  while (a.policy < 7 && (!policy || strcmp(policy, policies[a.policy]))) a.policy++;
  if (a.policy == 7) return fail(e, EINVAL, "parse", "process.scheduler", "unknown scheduling policy '%s'", policy ? policy : "");
  if (a.policy == 6 && deadline_order(s, &a, e) < 0) return -1;
  J_EACH(f, j_get(s, "flags"))
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
      if (j_str(f) && !strcmp(f->s, flags[i].name)) a.flags |= flags[i].flag;
  if (syscall(SYS_sched_setattr, pid, &a, 0) < 0)
    return fail(e, 0, "sched_setattr", policy, "cannot set the scheduling policy %s: %s", policy, strerror(errno));
  return 0;
}

static int io_priority(const struct json *io, pid_t pid, struct err *e) {
  static const char *const classes[] = {"IOPRIO_CLASS_NONE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"};
  const char *class = j_gets(io, "class");
  int c = 0;
  while (c < 4 && (!class || strcmp(class, classes[c]))) c++;
  if (c == 4) return fail(e, EINVAL, "parse", "process.ioPriority", "unknown I/O priority class '%s'", class ? class : "");
  if (syscall(SYS_ioprio_set, 1, pid, c << 13 | (int)j_int(j_get(io, "priority"), 0)) < 0)
    return fail(e, 0, "ioprio_set", class, "cannot set the I/O priority: %s", strerror(errno));
  return 0;
}

// "0-3,5": processors, or memory nodes.
static int number_list(const char *list, cpu_set_t *out) {
  CPU_ZERO(out);
  for (const char *s = list; *s;) {
    char *end;
    unsigned long from = strtoul(s, &end, 10), to = from;
    if (end == s) return -1;
    if (*end == '-') {
      s = end + 1;
      to = strtoul(s, &end, 10);
      if (end == s) return -1;
    }
    if (to < from || to >= CPU_SETSIZE) return -1;
    for (unsigned long c = from; c <= to; c++) CPU_SET(c, out);
    if (*end && (*end != ',' || !end[1])) return -1;
    s = end + (*end == ',');
  }
  return CPU_COUNT(out) ? 0 : -1;
}

int process_affinity(const struct process *p, const char *when, struct err *e) {
  STAGE("process");
  const char *list = j_gets(j_get(p->json, "execCPUAffinity"), when);
  cpu_set_t set;
  if (!list || !*list) return 0;
  if (number_list(list, &set) < 0)
    return fail(e, EINVAL, "parse", "process.execCPUAffinity", "process.execCPUAffinity.%s '%s' is not a list of CPUs like 0-3,5", when, list);
  if (sched_setaffinity(0, sizeof set, &set) < 0)
    return fail(e, 0, "sched_setaffinity", list, "cannot run on the CPUs %s (process.execCPUAffinity.%s): %s", list, when, strerror(errno));
  return 0;
}

int process_rlimits(const struct rlimits *l, pid_t pid, struct err *e) {
  STAGE("process");
  for (int i = 0; i < l->n; i++) {
    unsigned long long soft = l->of[i].soft, hard = l->of[i].hard;
    if (syscall(SYS_prlimit64, pid, l->of[i].id, &l->of[i].soft, NULL) < 0)
      return fail(e, 0, "prlimit64", l->of[i].name, "cannot set RLIMIT_%s to %llu:%llu: %s", l->of[i].name, soft, hard, strerror(errno));
  }
  return 0;
}

int process_limits(const struct process *p, pid_t pid, struct err *e) {
  STAGE("process");
  const struct json *oom = j_get(p->json, "oomScoreAdj");
  if (oom) {
    char path[64], value[24], old[24] = "";
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
    snprintf(value, sizeof value, "%lld", (long long)j_int(oom, 0));
    autofd fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || RETRY(read(fd, old, sizeof old - 1)) < 0) return fail(e, 0, "open", path, "cannot read %s: %s", path, strerror(errno));
    // Writing the same value may need a right that keeping it does not; who is not root may only raise it.
    if (atoll(old) != j_int(oom, 0) && write_all(fd, value, strlen(value)) < 0 && (geteuid() == 0 || errno != EACCES))
      return fail(e, 0, "write", path, "cannot set oom_score_adj to %s: %s", value, strerror(errno));
  }
  if (j_get(p->json, "scheduler") && scheduler(j_get(p->json, "scheduler"), pid, e) < 0) return -1;
  if (j_get(p->json, "ioPriority") && io_priority(j_get(p->json, "ioPriority"), pid, e) < 0) return -1;
  return 0;
}

static int set_personality(const struct json *p, struct err *e) {
  const char *domain = j_gets(p, "domain");
  unsigned long value = domain && !strcmp(domain, "LINUX32") ? PER_LINUX32 : PER_LINUX;
  if (!domain || (strcmp(domain, "LINUX") && strcmp(domain, "LINUX32")))
    return fail(e, EINVAL, "parse", "linux.personality", "unknown execution domain '%s': use LINUX or LINUX32", domain ? domain : "");
  if (personality(value) < 0) return fail(e, 0, "personality", domain, "cannot set the execution domain %s: %s", domain, strerror(errno));
  return 0;
}

static int set_memory_policy(const struct json *policy, struct err *e) {
  static const char *const modes[] = {"MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED_MANY",
                                      "MPOL_WEIGHTED_INTERLEAVE"};
  static const char *const flags[] = {"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"};  // bits 13, 14, 15
  const char *mode = j_gets(policy, "mode"), *nodes = j_gets(policy, "nodes");
  int value = 0;
  while (value < 7 && (!mode || strcmp(mode, modes[value]))) value++;
  if (value == 7) return fail(e, EINVAL, "parse", "linux.memoryPolicy", "unknown memory policy '%s'", mode ? mode : "");
  J_EACH(f, j_get(policy, "flags")) {
    int i = 0;
    while (i < 3 && (!j_str(f) || strcmp(f->s, flags[i]))) i++;
    if (i == 3) return fail(e, EINVAL, "parse", "linux.memoryPolicy", "unknown memory policy flag '%s'", j_str(f) ? f->s : "?");
    value |= 1 << (13 + i);
  }
  cpu_set_t set;  // as many bits as any kernel has nodes
  bool some = nodes && *nodes;
  if (some && number_list(nodes, &set) < 0)
    return fail(e, EINVAL, "parse", "linux.memoryPolicy", "linux.memoryPolicy.nodes '%s' is not a list of nodes like 0-3,5", nodes);
  if (syscall(SYS_set_mempolicy, value, some ? &set : NULL, some ? CPU_SETSIZE + 1ul : 0ul) < 0)
    return fail(e, 0, "set_mempolicy", mode, "cannot set the memory policy %s on nodes '%s': %s", mode, some ? nodes : "", strerror(errno));
  return 0;
}

// A label is written into a /proc that nothing can have been laid over: a redirected write would leave the process unconfined.
static int security_label(const char *below, const char *fallback, const char *value, struct err *e) {
  autofd fd = proc_open(NULL, below, O_WRONLY);
  if (fd < 0 && fallback) fd = proc_open(NULL, fallback, O_WRONLY);
  if (fd < 0 || write_all(fd, value, strlen(value)) < 0)
    return fail(e, 0, "write", below, "cannot set the security label '%s': %s", value, strerror(errno));
  return 0;
}

// HOME as /etc/passwd of the image has it, when the environment does not say. The file is the image's: it is read with a bound.
static char *home_of(uid_t uid) {
  autobuf b = {0};
  char *found = NULL, *save = NULL;
  // Opened once: a program in the container may put a fifo in its place, on which a second opening would wait for ever.
  autofd probe = open("/etc/passwd", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat st;
  if (probe < 0 || fstat(probe, &st) < 0 || !S_ISREG(st.st_mode)) return NULL;
  if (read_fd(probe, &b, 1 << 20) < 0) return NULL;
  for (char *line = strtok_r(b.p, "\n", &save); line && !found; line = strtok_r(NULL, "\n", &save)) {
    char *field[7] = {0}, *p = line;
    int n = 0;
    while (n < 7 && p) field[n++] = strsep(&p, ":");
    if (n >= 6 && *field[2] && strtoul(field[2], NULL, 10) == uid && *field[5]) found = xasprintf("HOME=%s", field[5]);
  }
  return found;
}

static const char *env_get(char **env, const char *key) {
  size_t n = strlen(key);
  const char *v = NULL;
  for (; *env; env++)
    if (!strncmp(*env, key, n) && (*env)[n] == '=') v = *env + n + 1;
  return v;
}

static void default_home(struct process *p) {
  if (env_get(p->env, "HOME")) return;
  size_t n = 0;
  while (p->env[n]) n++;
  p->env = xrealloc(p->env, (n + 2) * sizeof *p->env);
  char *home = home_of(p->uid);
  p->env[n] = home ? home : xstrdup("HOME=/");
  p->env[n + 1] = NULL;
}

// So that a process of another user can open /dev/stdout again. Files of the host keep their owner.
static void own_stdio(const struct process *p) {
  for (int fd = 0; fd < 3; fd++) {
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_uid == p->uid || !(S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode) || S_ISSOCK(st.st_mode))) continue;
    if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) continue;
    if (fchown(fd, p->uid, st.st_gid) < 0) continue;  // a socket or a mapped id that cannot be changed: it keeps working as it is
  }
}

static int enter_cwd(const struct process *p, struct err *e) {
  if (chdir(p->cwd) < 0) return -1;
  // A working directory that is not below the root would be a way out (a leaked descriptor of the host).
  char now[PATH_MAX];
  if (syscall(SYS_getcwd, now, sizeof now) < 0 || now[0] != '/') {
    fail(e, EPERM, "getcwd", p->cwd, "the working directory %s lies outside of the container's root", p->cwd);
    return -2;
  }
  return 0;
}

int process_exec(struct process *p, struct err *e) {
  STAGE("exec");
  const char *file = p->args[0];
  if (!*file) return fail(e, ENOENT, "execve", file, "process.args[0] is empty");
  if (strchr(file, '/')) {
    execve(file, p->args, p->env);
    int keep = errno;
    struct stat st;
    if (keep == ENOENT && stat(file, &st) == 0)
      return fail(e, keep, "execve", file, "exec %s: the file is there, but the interpreter it names is not", file);
    if (keep == EACCES && stat(file, &st) == 0 && S_ISDIR(st.st_mode)) return fail(e, keep, "execve", file, "exec %s: is a directory", file);
    return fail(e, keep, "execve", file, "exec %s: %s", file, keep == ENOENT ? "no such file or directory" : keep == EACCES ? "permission denied" : strerror(keep));
  }
  const char *path = env_get(p->env, "PATH");
  if (!path || !*path) path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  int worst = ENOENT;
  for (const char *d = path;; d++) {
    size_t n = strcspn(d, ":");
    autofree char *full = n ? xasprintf("%.*s/%s", (int)n, d, file) : xasprintf("./%s", file);
    execve(full, p->args, p->env);
    if (errno == EACCES) {
      struct stat st;
      if (stat(full, &st) == 0 && S_ISREG(st.st_mode)) worst = EACCES;
    } else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != ENAMETOOLONG) {
      return fail(e, 0, "execve", full, "exec %s: %s", full, strerror(errno));
    } else if (errno == ENOENT && access(full, F_OK) == 0) {
      return fail(e, ENOENT, "execve", full, "exec %s: the file is there, but the interpreter it names is not", full);
    }
    d += n;
    if (!*d) break;
  }
  return worst == EACCES ? fail(e, worst, "execve", file, "exec: \"%s\": permission denied", file)
                         : fail(e, worst, "execve", file, "exec: \"%s\": executable file not found in $PATH", file);
}

int process_become(struct process *p, const struct seccomp_filter *f, const char *id, bool keyring, int preserve_fds, struct err *e) {
  STAGE("process");
  default_home(p);
  if (keyring) {
    autofree char *name = xasprintf("_ses.%s", id);
    if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, name) < 0 && errno != ENOSYS && errno != EPERM)
      return fail(e, 0, "keyctl", name, "cannot make a session keyring (use --no-new-keyring to go without): %s", strerror(errno));
  }
  if (p->personality && set_personality(p->personality, e) < 0) return -1;
  if (p->memory_policy && set_memory_policy(p->memory_policy, e) < 0) return -1;
  if (p->apparmor) {
    autofree char *v = xasprintf("exec %s", p->apparmor);
    if (security_label("thread-self/attr/apparmor/exec", "thread-self/attr/exec", v, e) < 0) return -1;
  }
  if (p->selinux && security_label("thread-self/attr/exec", NULL, p->selinux, e) < 0) return -1;
  own_stdio(p);
  // Every other descriptor closes at exec; a link of /proc/self/fd must find nothing of the host's. The preserved ones came through
  // the runtime's own exec without close-on-exec; where the caller had left a number open, what the runtime put there has the flag.
  if (k_close_range(3 + (unsigned)preserve_fds, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
    return fail(e, 0, "close_range", "", "cannot close the runtime's descriptors: %s", strerror(errno));
  // The right to enter the directory may come from being root or from being the user: try as both.
  int in = enter_cwd(p, e);
  if (in == -2) return -1;
  if (p->umask >= 0) umask((mode_t)p->umask);
  else umask(0022);
  // Without no_new_privs loading a filter takes CAP_SYS_ADMIN, which is about to go.
  if (!p->no_new_privs && seccomp_load(f, e) < 0) return -1;
  STAGE("process");
  if (caps_drop_bounding(&p->caps, e) < 0) return -1;
  if (caps_keep(e) < 0) return -1;
  if (!p->keep_groups && syscall(SYS_setgroups, (size_t)p->n_groups, p->groups) < 0 && (errno != EPERM || p->n_groups))
    return fail(e, 0, "setgroups", "process.user.additionalGids", "cannot set the additional groups: %s", strerror(errno));
  if (syscall(SYS_setresgid, p->gid, p->gid, p->gid) < 0)
    return fail(e, 0, "setresgid", "process.user.gid", "cannot become group %u: %s", p->gid, strerror(errno));
  if (syscall(SYS_setresuid, p->uid, p->uid, p->uid) < 0)
    return fail(e, 0, "setresuid", "process.user.uid", "cannot become user %u: %s", p->uid, strerror(errno));
  if (caps_apply(&p->caps, e) < 0) return -1;
  if (in < 0) {
    in = enter_cwd(p, e);
    if (in == -2) return -1;
    if (in < 0) return fail(e, 0, "chdir", p->cwd, "cannot enter the working directory %s: %s", p->cwd, strerror(errno));
  }
  if (p->no_new_privs) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return fail(e, 0, "prctl", "PR_SET_NO_NEW_PRIVS", "cannot set no_new_privs: %s", strerror(errno));
    if (seccomp_load(f, e) < 0) return -1;
  }
  return 0;
}
