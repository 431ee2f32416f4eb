// create, run, start, exec: the verbs that make processes.
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>

#include "../hooks.h"
#include "../kernel.h"
#include "../tty.h"
#include "cli.h"

// main.c looked beside the program; without that, where a package would put it.
static char *helper_path(void) {
  const char *env = getenv("SHOAL_SECCOMP");
  return xstrdup(env && *env ? env : "/usr/libexec/shoal/shoal-seccomp");
}

static char *cgroup_of(const struct json *config, const char *id) {
  const char *p = j_gets(j_get(config, "linux"), "cgroupsPath");
  if (!p || !*p) return xasprintf("/%s", id);
  return p[0] == '/' ? xstrdup(p) : xasprintf("/%s", p);
}

static int number(const char *text, long least, long most, const char *what, int *out, struct err *e) {
  char *end;
  errno = 0;
  long n = strtol(text, &end, 10);
  if (errno || !*text || *end || n < least || n > most)
    return fail(e, EINVAL, "parse", what, "%s is '%s': it must be a number from %ld to %ld", what, text, least, most);
  *out = (int)n;
  return 0;
}

// Puts "KEY=VALUE" into the document's environment, instead of what it may have under that name.
void pass_on(struct arena *a, struct json *config, const char *key, const char *value) {
  struct json *env = json_list(a, j_get(config, "process"), "env"), *at = NULL;
  size_t n = strlen(key);
  if (!env) return;
  J_EACH(v, env)
    if (j_str(v) && !strncmp(v->s, key, n) && v->s[n] == '=') at = v;
  if (!at) {
    at = arena_alloc(a, sizeof *at);
    *at = (struct json){.type = J_STR};
    json_append(env, at);
  }
  size_t size = n + strlen(value) + 2;
  char *text = arena_alloc(a, size);
  at->n = (uint32_t)snprintf(text, size, "%s=%s", key, value);
  at->s = text;
}

static int listen_in(int dir, struct err *e) {
  STAGE("socket");
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/start.sock", dir);
  autofd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 1) < 0)
    return fail(e, 0, "bind", "start.sock", "cannot make the start socket: %s", strerror(errno));
  return steal_fd(&fd);
}

struct create_options {
  const char *bundle, *config, *pid_file, *console;
  int preserve_fds;
  bool no_pivot, no_new_keyring, detach, keep;
};

// The foreground of run and exec: signals and the terminal's bytes go to the process until it ends, and its readiness to the service manager.
// Gives its exit status.
static int foreground(pid_t pid, int pidfd, int master, int notify) {
  sigset_t set, old;
  sigfillset(&set);
  sigdelset(&set, SIGSEGV);
  sigprocmask(SIG_SETMASK, &set, &old);
  autofd sig = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  struct termios saved;
  bool raw = master >= 0 && tcgetattr(0, &saved) == 0;
  if (raw) {
    struct termios t = saved;
    cfmakeraw(&t);
    tcsetattr(0, TCSANOW, &t);
    struct winsize w;
    if (ioctl(0, TIOCGWINSZ, &w) == 0) (void)ioctl(master, TIOCSWINSZ, &w);
  }
  bool in_open = master >= 0, ended = false;
  int status = 0;
  char b[16384];
  while (!ended) {
    struct pollfd fds[5] = {{sig, POLLIN, 0}, {pidfd, POLLIN, 0}, {master, POLLIN, 0}, {in_open ? 0 : -1, POLLIN, 0}, {notify, POLLIN, 0}};
    if (RETRY(poll(fds, 5, -1)) < 0) break;
    if (fds[4].revents && notify_forward(notify, 0)) notify = -1;
    if (fds[0].revents) {
      struct signalfd_siginfo si;
      while (RETRY(read(sig, &si, sizeof si)) == (ssize_t)sizeof si) {
        struct winsize w;
        if (si.ssi_signo == SIGWINCH && master >= 0 && ioctl(0, TIOCGWINSZ, &w) == 0) (void)ioctl(master, TIOCSWINSZ, &w);
        else if (si.ssi_signo != SIGCHLD && si.ssi_signo != SIGWINCH && si.ssi_signo != SIGPIPE) (void)kill(pid, (int)si.ssi_signo);
      }
    }
    if (fds[3].revents) {
      ssize_t n = RETRY(read(0, b, sizeof b));
      if (n <= 0 || write_all(master, b, (size_t)n) < 0) in_open = false;
    }
    if (fds[2].revents) {
      ssize_t n = RETRY(read(master, b, sizeof b));
      if (n > 0) (void)write_all(1, b, (size_t)n);
      else master = -1;
    }
    if (fds[1].revents && waitpid(pid, &status, WNOHANG) == pid) ended = true;
  }
  if (master >= 0) {
    fcntl(master, F_SETFL, O_NONBLOCK);
    ssize_t n;
    while ((n = RETRY(read(master, b, sizeof b))) > 0) (void)write_all(1, b, (size_t)n);
  }
  if (raw) tcsetattr(0, TCSANOW, &saved);
  sigprocmask(SIG_SETMASK, &old, NULL);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The specification: a poststart hook that fails stops the container, which then is deleted.
static int poststart(struct saved *s, struct cgroup *cg, struct err *e) {
  if (!hooks_any(s->config, "poststart")) return 0;
  autobuf state = {0};
  oci_state(&state, s->config, s->id, "running", s->pid, s->bundle);
  if (hooks_run(s->config, "poststart", state.p, e) == 0) return 0;
  struct err ignored;
  (void)remove_container(s, cg, true, &ignored);
  return -1;
}

// What prestart and createRuntime hooks have set up outside, poststop hooks take down, also where a hook's failure ends the creation.
static void undo_hooks(const struct saved *s) {
  autobuf state = {0};
  struct err e;
  oci_state(&state, s->config, s->id, "stopped", 0, s->bundle);
  if (hooks_run(s->config, "poststop", state.p, &e) < 0) cli_fail(&e);
}

// run.oci.pidfd_receiver, as crun has it: a socket that gets a pidfd of the container's first process.
static int send_pidfd(const struct container *c, struct err *e) {
  const char *path = j_gets(j_get(c->config, "annotations"), "run.oci.pidfd_receiver");
  if (!path || !*path) return 0;
  STAGE("socket");
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof a.sun_path) return fail(e, ENAMETOOLONG, "connect", path, "the pidfd receiver's path %s is too long", path);
  strcpy(a.sun_path, path);
  autofd s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s < 0 || RETRY(connect(s, (struct sockaddr *)&a, sizeof a)) < 0 || fd_send(s, c->pidfd, c->id, strlen(c->id)) < 0)
    return fail(e, 0, "connect", path, "cannot send a pidfd to the receiver %s: %s", path, strerror(errno));
  return 0;
}

static int create(struct container *c, int dir, const struct create_options *o, const char *cgroup, struct err *e) {
  const struct json *seccomp = j_path(c->config, "linux.seccomp");
  if (cgroup_find(&c->cg, cgroup, e) < 0) return -1;
  autofree pid_t *others = NULL;
  int n = cgroup_pids(&c->cg, &others);
  c->shared = n > 0;
  if (n > 0) fprintf(stderr, "warning: the container's cgroup is not empty: %d process(es) in %s, which end with the container\n", n, cgroup);
  // On disk before anything exists, so that delete --force finds a cgroup that a killed create has made.
  if (state_write(dir, c->id, c->bundle, cgroup, 0, c->config, e) < 0) return -1;
  if (seccomp) {
    autofree char *helper = helper_path();
    if (seccomp_compile(&c->filter, helper, seccomp, e) < 0) return -1;
  }
  if (container_create(c, e) < 0) return -1;
  if (state_write(dir, c->id, c->bundle, c->cg.n ? cgroup : "", c->pid, c->config, e) < 0) return -1;
  if (send_pidfd(c, e) < 0) return -1;
  if (o->console && c->master >= 0 && send_console(o->console, c->master, e) < 0) return -1;
  return write_pid_file(o->pid_file, c->pid, e);
}

int cmd_create(int argc, char **argv, bool run) {
  static const struct option opts[] = {{"bundle", 1, 0, 'b'}, {"config", 1, 0, 'f'}, {"pid-file", 1, 0, 'p'}, {"console-socket", 1, 0, 'c'},
                                       {"preserve-fds", 1, 0, 'n'}, {"no-pivot", 0, 0, 'P'}, {"no-new-keyring", 0, 0, 'k'},
                                       {"no-subreaper", 0, 0, 'S'}, {"detach", 0, 0, 'd'}, {"keep", 0, 0, 'K'}, {0}};
  struct create_options o = {.bundle = "."};
  struct err e = {0};
  STAGE("config");
  int ch;
  while ((ch = getopt_long(argc, argv, "b:f:d", opts, NULL)) != -1) {
    if (ch == 'b') o.bundle = optarg;
    else if (ch == 'f') o.config = optarg;
    else if (ch == 'p') o.pid_file = optarg;
    else if (ch == 'c') o.console = optarg;
    else if (ch == 'n' && number(optarg, 0, 1000, "--preserve-fds", &o.preserve_fds, &e) == 0) continue;
    else if (ch == 'n') return cli_fail(&e);
    else if (ch == 'P') o.no_pivot = true;
    else if (ch == 'k') o.no_new_keyring = true;
    else if (ch == 'd') o.detach = true;
    else if (ch == 'K') o.keep = true;
    else if (ch != 'S') return 1;
  }
  if (optind >= argc) return fprintf(stderr, "shoal-runtime: which container?\n"), 1;
  const char *id = argv[optind];
  char bundle[PATH_MAX];
  if (valid_id(id, &e) < 0) return cli_fail(&e);
  // An absolute path is kept as it was given: hooks and `state` name the bundle as its maker does.
  if (!realpath(o.bundle, bundle) || (o.bundle[0] == '/' && snprintf(bundle, sizeof bundle, "%s", o.bundle) >= (int)sizeof bundle)) return fail(&e, 0, "realpath", o.bundle, "cannot find the bundle %s: %s", o.bundle, strerror(errno)), cli_fail(&e);
  // Sockets of a service manager (sd_listen_fds(3)) are meant for the container's program.
  int listen = 0;
  if (getenv("LISTEN_FDS") && number(getenv("LISTEN_FDS"), 0, 1000, "LISTEN_FDS", &listen, &e) < 0) return cli_fail(&e);
  o.preserve_fds += listen;
  struct arena arena = {0};
  autofree char *file = o.config ? xstrdup(o.config) : xasprintf("%s/config.json", bundle);
  struct container c;
  container_init(&c);
  c.id = id;
  c.bundle = bundle;
  struct json *config = json_load(&arena, AT_FDCWD, file, 16 << 20, &e);
  if (!config) return cli_fail(&e);
  c.config = config;
  const char *version = j_gets(c.config, "ociVersion");
  if (!version || strncmp(version, "1.", 2))
    return fail(&e, EINVAL, "parse", "ociVersion", "%s has ociVersion '%s': this runtime takes 1.0 to 1.2", file, version ? version : ""), cli_fail(&e);
  if (listen > 0) {
    pass_on(&arena, config, "LISTEN_FDS", getenv("LISTEN_FDS"));
    pass_on(&arena, config, "LISTEN_PID", "1");
  }
  bool tty = j_bool(j_path(c.config, "process.terminal"), false), fg = run && !o.detach;
  if (tty && !o.console && !fg) return fail(&e, EINVAL, "parse", "process.terminal", "a terminal without a foreground: use --console-socket, or run without --detach"), cli_fail(&e);
  if (!tty && o.console) return fail(&e, EINVAL, "parse", "process.terminal", "--console-socket is given, but process.terminal is false"), cli_fail(&e);
  c.no_pivot = o.no_pivot;
  c.no_new_keyring = o.no_new_keyring;
  c.preserve_fds = o.preserve_fds;
  autofree char *cgroup = cgroup_of(c.config, id);
  autofd root = state_root(&e);
  if (root < 0) return cli_fail(&e);
  if (mkdirat(root, id, 0700) < 0)
    return fail(&e, 0, "mkdirat", id, errno == EEXIST ? "container '%s' exists already" : "cannot make the state directory of '%s'", id), cli_fail(&e);
  struct saved s = {.id = id, .dir = openat(root, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC), .config = c.config, .bundle = bundle};
  int r = s.dir < 0 ? fail(&e, 0, "open", id, "cannot open the state directory: %s", strerror(errno)) : 0;
  if (r == 0 && !run && (c.listen_fd = listen_in(s.dir, &e)) < 0) r = -1;
  if (r == 0) r = notify_prepare(&arena, config, s.dir, &e);
  autofd notify = -1;
  if (r == 0 && run) r = notify_listen(s.dir, &notify, &e);
  if (fg) prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (r == 0) r = create(&c, s.dir, &o, cgroup, &e);
  if (r == 0 && run) r = container_start(&c, &e);
  if (r < 0) {
    struct err ignored;
    container_kill(&c);
    if (!c.shared) (void)cgroup_remove(&c.cg, &ignored);
    if (!strcmp(e.stage, "hook")) undo_hooks(&s);
    (void)state_remove(&s, &ignored);
    return cli_fail(&e);
  }
  s.pid = c.pid;
  s.ticks = proc_start_ticks(c.pid);
  if (run && poststart(&s, &c.cg, &e) < 0) return cli_fail(&e);
  if (!fg && notify >= 0) notify_wait(notify, c.pid, c.pidfd);
  if (!fg) return 0;
  int code = foreground(c.pid, c.pidfd, o.console ? -1 : c.master, notify);
  if (!o.keep) {
    if (cgroup_remove(&c.cg, &e) < 0) cli_fail(&e);
    undo_hooks(&s);
    if (state_remove(&s, &e) < 0) cli_fail(&e);
  }
  return code;
}

int cmd_start(int argc, char **argv) {
  struct saved s;
  struct err e = {0};
  if (argc < 2) return fprintf(stderr, "shoal-runtime start: which container?\n"), 1;
  if (state_open(&s, argv[1], &e) < 0) return cli_fail(&e);
  const char *status = state_status(&s, NULL);
  STAGE("request");
  if (strcmp(status, "created")) return fail(&e, EINVAL, "start", s.id, "container '%s' is %s, not created", s.id, status), cli_fail(&e);
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/start.sock", s.dir);
  struct container c;
  container_init(&c);
  c.sync = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (c.sync < 0 || RETRY(connect(c.sync, (struct sockaddr *)&a, sizeof a)) < 0)
    return fail(&e, 0, "connect", s.id, "cannot reach the created process of '%s': %s", s.id, strerror(errno)), cli_fail(&e);
  autofd notify = -1, pidfd = k_pidfd_open(s.pid);
  int r = notify_listen(s.dir, &notify, &e);
  if (r == 0) r = container_start(&c, &e);
  if (unlinkat(s.dir, "start.sock", 0) < 0 && r == 0) r = fail(&e, 0, "unlinkat", "start.sock", "cannot remove the start socket: %s", strerror(errno));
  if (r < 0) return cli_fail(&e);
  struct cgroup cg = {0};
  if (cgroup_find(&cg, s.cgroup, &e) < 0 || poststart(&s, &cg, &e) < 0) return cli_fail(&e);
  if (notify >= 0 && pidfd >= 0) notify_wait(notify, s.pid, pidfd);
  return 0;
}

// The exec process when no document is given: the container's own with what the flags change.
struct exec_options {
  const char *process, *console, *pid_file, *cwd, *user, *apparmor, *selinux;
  char *env[256], *caps[64];
  const char *below[CGROUP_TREES + 1];
  uid_t uid, gid;  // of `user`
  int gids[64], n_env, n_caps, n_gids, n_below, preserve_fds;
  bool tty, detach, no_new_privs, ignore_paused;
};

static int user_of(struct exec_options *o, struct err *e) {
  unsigned long uid = 0, gid = 0;
  char more = 0;
  if (strspn(o->user, "0123456789:") != strlen(o->user) || sscanf(o->user, "%lu:%lu%c", &uid, &gid, &more) < 1 || more || uid > UINT32_MAX || gid > UINT32_MAX)
    return fail(e, EINVAL, "parse", "--user", "--user '%s' is not UID or UID:GID, in numbers", o->user);
  o->uid = (uid_t)uid;
  o->gid = (gid_t)gid;
  return 0;
}

// --env takes the place of a variable of that name, the last one that of those before it.
static bool named_by_flag(const struct exec_options *o, int from, const char *variable) {
  size_t n = strcspn(variable, "=");
  for (int i = from; i < o->n_env; i++)
    if (strcspn(o->env[i], "=") == n && !strncmp(o->env[i], variable, n)) return true;
  return false;
}

// --user takes the place of ids and groups, --additional-gids adds to the groups.
static void exec_user(struct buf *b, const struct json *base, const struct exec_options *o) {
  if (!o->user && !o->n_gids) return json_write(b, base);
  buf_fmt(b, "{\"uid\":%lu,\"gid\":%lu,", (unsigned long)(o->user ? o->uid : j_uint(j_get(base, "uid"), 0)),
          (unsigned long)(o->user ? o->gid : j_uint(j_get(base, "gid"), 0)));
  if (j_isnum(j_get(base, "umask"))) buf_fmt(b, "\"umask\":%lu,", (unsigned long)j_uint(j_get(base, "umask"), 0));
  buf_str(b, "\"additionalGids\":[");
  const char *comma = "";
  if (!o->user)
    J_EACH(gid, j_get(base, "additionalGids")) {
      buf_str(b, comma);
      json_write(b, gid);
      comma = ",";
    }
  for (int i = 0; i < o->n_gids; i++, comma = ",") buf_fmt(b, "%s%d", comma, o->gids[i]);
  buf_str(b, "]}");
}

static void exec_document(struct buf *b, const struct json *base, const struct exec_options *o, char **args) {
  static const char *const sets[] = {"bounding", "effective", "permitted", "inheritable", "ambient"};
  // no_new_privs is the flag's alone, as with crun: who may exec decides.
  buf_fmt(b, "{\"terminal\":%s,\"noNewPrivileges\":%s,\"cwd\":", o->tty ? "true" : "false", o->no_new_privs ? "true" : "false");
  json_quote_str(b, o->cwd ? o->cwd : j_gets(base, "cwd") ? j_gets(base, "cwd") : "/");
  buf_str(b, ",\"args\":[");
  for (int i = 0; args[i]; i++) {
    if (i) buf_str(b, ",");
    json_quote_str(b, args[i]);
  }
  buf_str(b, "],\"env\":[");
  bool first = true;
  J_EACH(v, j_get(base, "env")) {
    if (!j_str(v) || named_by_flag(o, 0, v->s)) continue;
    if (!first) buf_str(b, ",");
    first = false;
    json_quote_str(b, v->s);
  }
  for (int i = 0; i < o->n_env; i++) {
    if (named_by_flag(o, i + 1, o->env[i])) continue;
    if (!first) buf_str(b, ",");
    first = false;
    json_quote_str(b, o->env[i]);
  }
  buf_str(b, "],\"user\":");
  exec_user(b, j_get(base, "user"), o);
  const struct json *caps = j_get(base, "capabilities");
  if (caps || o->n_caps) {
    buf_str(b, ",\"capabilities\":{");
    for (int k = 0; k < 5; k++) {
      buf_fmt(b, "%s\"%s\":[", k ? "," : "", sets[k]);
      bool one = true;
      J_EACH(v, j_get(caps, sets[k])) {
        if (!j_str(v)) continue;
        if (!one) buf_str(b, ",");
        one = false;
        json_quote_str(b, v->s);
      }
      for (int i = 0; i < o->n_caps && k < 3; i++) {
        if (!one) buf_str(b, ",");
        one = false;
        json_quote_str(b, o->caps[i]);
      }
      buf_str(b, "]");
    }
    buf_str(b, "}");
  }
  static const char *const same[] = {"rlimits", "oomScoreAdj", "scheduler", "ioPriority", "execCPUAffinity", "apparmorProfile", "selinuxLabel"};
  const char *const instead[] = {NULL, NULL, NULL, NULL, NULL, o->apparmor, o->selinux};
  for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
    if (instead[i]) {
      buf_fmt(b, ",\"%s\":", same[i]);
      json_quote_str(b, instead[i]);
    } else if (j_get(base, same[i])) {
      buf_fmt(b, ",\"%s\":", same[i]);
      json_write(b, j_get(base, same[i]));
    }
  buf_str(b, "}");
}

// The status of exec when it fails itself, as with runc: no program's own.
enum { EXEC_FAILED = 255 };

static int exec_fail(const struct err *e) {
  (void)cli_fail(e);
  return EXEC_FAILED;
}

int cmd_exec(int argc, char **argv) {
  static const struct option opts[] = {{"process", 1, 0, 'p'}, {"console-socket", 1, 0, 's'}, {"pid-file", 1, 0, 'P'}, {"cwd", 1, 0, 'w'},
                                       {"env", 1, 0, 'e'}, {"user", 1, 0, 'u'}, {"cap", 1, 0, 'c'}, {"tty", 2, 0, 't'},
                                       {"detach", 0, 0, 'd'}, {"no-new-privs", 0, 0, 'n'}, {"preserve-fds", 1, 0, 'F'}, {"cgroup", 1, 0, 'C'},
                                       {"apparmor", 1, 0, 'a'}, {"process-label", 1, 0, 'l'}, {"no-subreaper", 0, 0, 'S'},
                                       {"ignore-paused", 0, 0, 'i'}, {"additional-gids", 1, 0, 'g'}, {0}};
  struct exec_options o = {0};
  struct err e = {0};
  STAGE("request");
  int ch;
  while ((ch = getopt_long(argc, argv, "+p:e:u:t::dc:g:", opts, NULL)) != -1) {
    if (ch == 'p') o.process = optarg;
    else if (ch == 's') o.console = optarg;
    else if (ch == 'P') o.pid_file = optarg;
    else if (ch == 'w') o.cwd = optarg;
    else if (ch == 'e' && o.n_env < 256) o.env[o.n_env++] = optarg;
    else if (ch == 'u') o.user = optarg;
    else if (ch == 'c' && o.n_caps < 64) o.caps[o.n_caps++] = optarg;
    else if (ch == 't') o.tty = !optarg || strcmp(optarg, "false");
    else if (ch == 'd') o.detach = true;
    else if (ch == 'a') o.apparmor = optarg;
    else if (ch == 'l') o.selinux = optarg;
    else if (ch == 'n') o.no_new_privs = true;
    else if (ch == 'i') o.ignore_paused = true;
    else if (ch == 'g' && o.n_gids < 64 && number(optarg, 0, INT_MAX, "--additional-gids", &o.gids[o.n_gids++], &e) == 0) continue;
    else if (ch == 'F' && number(optarg, 0, 64, "--preserve-fds", &o.preserve_fds, &e) == 0) continue;
    else if (ch == 'C' && o.n_below < CGROUP_TREES) o.below[o.n_below++] = optarg;
    else if (e.code) return exec_fail(&e);
    else if (strchr("ecgC", ch)) return fail(&e, E2BIG, "parse", optarg, "too many of --env (256), --cap (64), --additional-gids (64) or --cgroup (24)"), exec_fail(&e);
    else if (ch != 'S') return EXEC_FAILED;
  }
  if (optind >= argc) return fprintf(stderr, "shoal-runtime exec: which container?\n"), EXEC_FAILED;
  struct saved s;
  struct cgroup cg;
  if (state_open(&s, argv[optind], &e) < 0 || cgroup_find(&cg, s.cgroup, &e) < 0) return exec_fail(&e);
  const char *status = state_status(&s, &cg);
  STAGE("request");
  bool paused = !strcmp(status, "paused");
  if (paused && !o.ignore_paused)
    return fail(&e, EBUSY, "exec", s.id, "cannot exec in a paused container: '%s' is paused, use --ignore-paused to wait until it is not", s.id), exec_fail(&e);
  if (!paused && strcmp(status, "running") && strcmp(status, "created"))
    return fail(&e, EINVAL, "exec", s.id, "container '%s' is %s, not running", s.id, status), exec_fail(&e);
  const struct json *process;
  autobuf doc = {0};
  if (o.user && user_of(&o, &e) < 0) return exec_fail(&e);
  if (o.process) {
    process = json_load(&s.arena, AT_FDCWD, o.process, 16 << 20, &e);
  } else {
    exec_document(&doc, j_get(s.config, "process"), &o, argv + optind + 1);
    process = json_parse(&s.arena, doc.p, doc.len, "process", &e);
  }
  if (!process) return exec_fail(&e);
  bool tty = j_bool(j_get(process, "terminal"), false);
  if (tty && o.detach && !o.console) return fail(&e, EINVAL, "exec", "", "a terminal without a foreground: use --console-socket, or exec without --detach"), exec_fail(&e);
  struct exec x = {.target = s.pid, .ticks = s.ticks, .id = s.id, .bundle = s.bundle, .config = s.config, .process = process, .cg = &cg, .below = o.n_below ? o.below : NULL,
                   .filter = {.listener = -1}, .stdio = {-1, -1, -1}, .terminal = tty, .preserve_fds = o.preserve_fds};
  const struct json *seccomp = j_path(s.config, "linux.seccomp");
  if (seccomp) {
    autofree char *helper = helper_path();
    if (seccomp_compile(&x.filter, helper, seccomp, &e) < 0 || seccomp_flags(&x.filter, seccomp, &e) < 0 || seccomp_connect(&x.filter, seccomp, &e) < 0) return exec_fail(&e);
  }
  if (exec_create(&x, &e) < 0) return exec_fail(&e);
  int r = write_pid_file(o.pid_file, x.pid, &e);
  if (r == 0 && o.console && x.master >= 0) r = send_console(o.console, x.master, &e);
  if (r < 0) {
    (void)kill(x.pid, SIGKILL);
    return exec_fail(&e);
  }
  if (exec_start(&x, &e) < 0) return exec_fail(&e);
  return o.detach ? 0 : foreground(x.pid, x.pidfd, o.console ? -1 : x.master, -1);
}
