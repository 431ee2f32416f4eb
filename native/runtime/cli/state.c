// What the runtime remembers of a container between two calls, and the verbs that only read or end it.
#include <dirent.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "../hooks.h"
#include "../kernel.h"
#include "../tty.h"
#include "cli.h"

int valid_id(const char *id, struct err *e) {
  STAGE("config");
  size_t n = strlen(id);
  if (n == 0 || n > 255 || id[0] == '.' ||
      strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.") != n)
    return fail(e, EINVAL, "parse", id, "invalid container ID '%s': an invalid character, or none (letters, digits, _ + - and, not first, . are allowed)", id);
  return 0;
}

int state_root(struct err *e) {
  STAGE("config");
  if (mkdir(globals.root, 0711) < 0 && errno != EEXIST) {
    char p[PATH_MAX];
    snprintf(p, sizeof p, "%s", globals.root);
    for (char *s = p + 1; *s; s++)
      if (*s == '/') {
        *s = 0;
        if (mkdir(p, 0711) < 0 && errno != EEXIST) break;
        *s = '/';
      }
    if (mkdir(p, 0711) < 0 && errno != EEXIST)
      return fail(e, 0, "mkdir", globals.root, "cannot make the state directory %s: %s", globals.root, strerror(errno));
  }
  int fd = open(globals.root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return fd < 0 ? fail(e, 0, "open", globals.root, "cannot open the state directory %s: %s", globals.root, strerror(errno)) : fd;
}

int state_open(struct saved *s, const char *id, struct err *e) {
  *s = (struct saved){.dir = -1, .id = id};
  if (valid_id(id, e) < 0) return -1;
  autofd root = state_root(e);
  if (root < 0) return -1;
  s->dir = openat(root, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (s->dir < 0) return fail(e, 0, "open", id, "container '%s' does not exist below %s", id, globals.root);
  s->json = json_load(&s->arena, s->dir, "status", 1 << 20, e);
  if (!s->json || !(s->config = json_load(&s->arena, s->dir, "config.json", 16 << 20, e))) return -1;
  s->bundle = j_gets(s->json, "bundle");
  s->cgroup = j_gets(s->json, "cgroupPath");
  s->pid = (pid_t)j_int(j_get(s->json, "pid"), 0);
  s->ticks = j_uint(j_get(s->json, "startTicks"), 0);
  s->created_ms = j_int(j_get(s->json, "createdMs"), 0);
  return 0;
}

void state_close(struct saved *s) {
  arena_free(&s->arena);
  cleanup_fd(&s->dir);
}

// Where the process's standard streams lead, as a JSON array in a string: crun's status file has that, for those who freeze processes to disk.
static void external_descriptors(struct buf *b, pid_t pid) {
  autobuf list = {0};
  buf_str(&list, "[");
  for (int fd = 0; fd < 3; fd++) {
    char link[64], to[PATH_MAX];
    snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)pid, fd);
    ssize_t n = readlink(link, to, sizeof to);
    if (fd) buf_str(&list, ",");
    json_quote(&list, to, n < 0 ? 0 : (size_t)n);
  }
  buf_str(&list, "]");
  json_quote(b, list.p, list.len);
}

int state_write(int dir, const char *id, const char *bundle, const char *cgroup, pid_t pid, const struct json *config, struct err *e) {
  autobuf b = {0}, c = {0};
  buf_str(&b, "{\"id\":");
  json_quote_str(&b, id);
  buf_str(&b, ",\"bundle\":");
  json_quote_str(&b, bundle);
  buf_str(&b, ",\"cgroupPath\":");
  json_quote_str(&b, cgroup);
  buf_fmt(&b, ",\"pid\":%d,\"startTicks\":%llu,\"createdMs\":%lld", (int)pid, (unsigned long long)(pid ? proc_start_ticks(pid) : 0),
          (long long)now_ms());
  if (pid) {
    buf_str(&b, ",\"external_descriptors\":");
    external_descriptors(&b, pid);
  }
  buf_str(&b, "}\n");
  if (pid) json_write(&c, config);
  if (replace_file_at(dir, "status", b.p, b.len, false) < 0 || (pid && replace_file_at(dir, "config.json", c.p, c.len, false) < 0))
    return fail(e, 0, "write", "status", "cannot write the state of '%s': %s", id, strerror(errno));
  return 0;
}

static bool alive(const struct saved *s) {
  char st = s->pid > 0 ? proc_state(s->pid) : 0;
  return st && st != 'Z' && st != 'X' && proc_start_ticks(s->pid) == s->ticks;
}

const char *state_status(const struct saved *s, const struct cgroup *cg) {
  if (!alive(s)) return "stopped";
  if (faccessat(s->dir, "start.sock", F_OK, 0) == 0) return "created";
  return cg && cgroup_frozen(cg) ? "paused" : "running";
}

// Everything in it: a command that was killed while it replaced a file has left that file's new half under another name.
int state_remove(const struct saved *s, struct err *e) {
  int fd = openat(s->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    if (fd >= 0) close(fd);
    return fail(e, 0, "open", s->id, "cannot read the state directory of '%s': %s", s->id, strerror(errno));
  }
  int r = 0;
  (void)unlinkat(s->dir, "notify/notify", 0);
  (void)unlinkat(s->dir, "notify", AT_REMOVEDIR);
  for (struct dirent *f; r == 0 && (f = readdir(d));) {
    if (!strcmp(f->d_name, ".") || !strcmp(f->d_name, "..")) continue;
    if (unlinkat(s->dir, f->d_name, 0) < 0 && errno != ENOENT) r = fail(e, 0, "unlinkat", f->d_name, "cannot remove %s: %s", f->d_name, strerror(errno));
  }
  closedir(d);
  if (r < 0) return -1;
  autofd root = state_root(e);
  if (root < 0) return -1;
  if (unlinkat(root, s->id, AT_REMOVEDIR) < 0 && errno != ENOENT) return fail(e, 0, "unlinkat", s->id, "cannot remove the state of '%s': %s", s->id, strerror(errno));
  return 0;
}

int signal_number(const char *name) {
  static const char *const names[] = {"", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
                                      "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS"};
  char *end;
  long n = strtol(name, &end, 10);
  if (*name && !*end) return n >= 0 && n < 65 ? (int)n : -1;
  if (!strncasecmp(name, "SIG", 3)) name += 3;
  for (int i = 1; i < 32; i++)
    if (!strcasecmp(name, names[i])) return i;
  if (!strncasecmp(name, "RTMIN", 5)) return 34 + atoi(name + 5);
  if (!strncasecmp(name, "RTMAX", 5)) return 64 + atoi(name + 5);
  return -1;
}

int write_pid_file(const char *path, pid_t pid, struct err *e) {
  if (!path) return 0;
  char text[24];
  int n = snprintf(text, sizeof text, "%d", (int)pid);
  autofree char *tmp = xasprintf("%s.shoal-tmp", path);
  autofd fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0 || write_all(fd, text, (size_t)n) < 0 || rename(tmp, path) < 0)
    return fail(e, 0, "write", path, "cannot write the pid file %s: %s", path, strerror(errno));
  return 0;
}

int send_console(const char *path, int master, struct err *e) {
  STAGE("console");
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof a.sun_path) return fail(e, ENAMETOOLONG, "connect", path, "the console socket's path %s is too long", path);
  strcpy(a.sun_path, path);
  autofd s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s < 0 || RETRY(connect(s, (struct sockaddr *)&a, sizeof a)) < 0) return fail(e, 0, "connect", path, "cannot reach the console socket %s: %s", path, strerror(errno));
  static const char name[] = "/dev/ptmx";
  if (fd_send(s, master, name, sizeof name - 1) < 0) return fail(e, 0, "sendmsg", path, "cannot send the terminal to %s: %s", path, strerror(errno));
  return 0;
}

static int open_with_cgroup(struct saved *s, struct cgroup *cg, const char *id, struct err *e) {
  *cg = (struct cgroup){0};
  return state_open(s, id, e) < 0 || cgroup_find(cg, s->cgroup, e) < 0 ? -1 : 0;
}

#define NEED_ID(verb)                                             \
  if (optind >= argc) {                                           \
    fprintf(stderr, "shoal-runtime %s: which container?\n", verb); \
    return 1;                                                     \
  }

static void created_at(const struct saved *s, char when[48]) {
  char seconds[40];
  time_t t = s->created_ms / 1000;
  struct tm tm;
  strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", gmtime_r(&t, &tm));
  snprintf(when, 48, "%s.%03dZ", seconds, (int)(s->created_ms % 1000));
}

// Who made the container: the owner of its state.
static const char *owner_of(const struct saved *s) {
  struct stat st;
  struct passwd *who = fstat(s->dir, &st) < 0 ? NULL : getpwuid(st.st_uid);
  return who ? who->pw_name : "";
}

static void member(struct buf *b, bool pretty, const char *name, const char *value) {
  buf_fmt(b, pretty ? "%s\n  \"%s\": " : "%s\"%s\":", b->p[b->len - 1] == '{' ? "" : ",", name);
  if (value) json_quote_str(b, value);
}

// What state says of a container.
static void say(struct buf *b, const struct saved *s, const struct cgroup *cg, bool pretty) {
  const char *status = state_status(s, cg), *root = j_gets(j_get(s->config, "root"), "path");
  autofree char *full = root && root[0] == '/' ? xstrdup(root) : xasprintf("%s/%s", s->bundle, root ? root : "");
  char when[48];
  created_at(s, when);
  buf_str(b, "{");
  member(b, pretty, "ociVersion", "1.0.2");
  member(b, pretty, "id", s->id);
  member(b, pretty, "pid", NULL);
  buf_fmt(b, "%d", strcmp(status, "stopped") ? (int)s->pid : 0);
  member(b, pretty, "status", status);
  member(b, pretty, "bundle", s->bundle);
  member(b, pretty, "rootfs", full);
  member(b, pretty, "created", when);
  member(b, pretty, "owner", owner_of(s));
  if (j_items(j_get(s->config, "annotations"))) {
    member(b, pretty, "annotations", NULL);
    json_write(b, j_get(s->config, "annotations"));
  }
  buf_str(b, pretty ? "\n}" : "}");
}

int cmd_state(int argc, char **argv) {
  struct saved s;
  struct cgroup cg;
  struct err e = {0};
  optind = 1;
  NEED_ID("state")
  if (open_with_cgroup(&s, &cg, argv[optind], &e) < 0) return cli_fail(&e);
  autobuf b = {0};
  say(&b, &s, &cg, true);
  buf_str(&b, "\n");
  return fputs(b.p, stdout) < 0;
}

static int shown(const struct dirent *f) { return f->d_name[0] != '.'; }

int cmd_list(int argc, char **argv) {
  static const struct option opts[] = {{"quiet", 0, 0, 'q'}, {"format", 1, 0, 'f'}, {0}};
  bool quiet = false, json = false;
  int c;
  while ((c = getopt_long(argc, argv, "qf:", opts, NULL)) != -1) {
    if (c == 'q') quiet = true;
    else if (c == 'f') json = !strcmp(optarg, "json");
    else return 1;
  }
  struct err e = {0};
  struct dirent **names = NULL;
  autofd root = state_root(&e);
  if (root < 0) return cli_fail(&e);
  int n = scandir(globals.root, &names, shown, alphasort);
  if (n < 0) return fail(&e, 0, "scandir", globals.root, "cannot read the state directory %s: %s", globals.root, strerror(errno)), cli_fail(&e);
  autobuf b = {0};
  if (json) buf_str(&b, "[");
  else if (!quiet) buf_fmt(&b, "%-24s %-8s %-9s %-40s %-24s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER");
  bool first = true;
  for (int i = 0; i < n; i++) {
    struct saved s;
    struct cgroup cg;
    struct err one = {0};
    if (open_with_cgroup(&s, &cg, names[i]->d_name, &one) == 0) {
      const char *st = state_status(&s, &cg);
      char when[48];
      created_at(&s, when);
      if (json) {
        if (!first) buf_str(&b, ",");
        say(&b, &s, &cg, false);
      } else if (quiet) {
        buf_fmt(&b, "%s\n", s.id);
      } else {
        buf_fmt(&b, "%-24s %-8d %-9s %-40s %-24s %s\n", s.id, strcmp(st, "stopped") ? (int)s.pid : 0, st, s.bundle, when, owner_of(&s));
      }
      first = false;
    }
    cgroup_free(&cg);
    state_close(&s);
    free(names[i]);
  }
  free(names);
  if (json) buf_str(&b, "]\n");
  return b.p && fputs(b.p, stdout) < 0;
}

// Calls `one` with each container whose id the expression matches, in whole or in part; 0 also when there is none.
static int each_match(const char *expression, int (*one)(const char *id, const void *arg), const void *arg) {
  struct err e = {0};
  regex_t re;
  STAGE("request");
  if (regcomp(&re, expression, REG_EXTENDED | REG_NOSUB))
    return fail(&e, EINVAL, "regcomp", expression, "'%s' is not a regular expression", expression), cli_fail(&e);
  int root = state_root(&e), r = 0;
  DIR *d = root < 0 ? NULL : fdopendir(root);
  if (!d) return regfree(&re), cli_fail(&e);
  for (struct dirent *f; (f = readdir(d));)
    if (f->d_name[0] != '.' && regexec(&re, f->d_name, 0, NULL, 0) == 0) r |= one(f->d_name, arg);
  closedir(d);
  regfree(&re);
  return r;
}

struct kill_wish {
  const char *signal;
  bool all;
};

static int kill_one(const char *id, const void *arg) {
  const struct kill_wish *w = arg;
  struct saved s;
  struct cgroup cg;
  struct err e = {0};
  int sig = signal_number(w->signal);
  if (open_with_cgroup(&s, &cg, id, &e) < 0) return cli_fail(&e);
  STAGE("request");
  if (sig < 0) return fail(&e, EINVAL, "kill", w->signal, "unknown signal '%s'", w->signal), cli_fail(&e);
  if (w->all && cg.n) {
    cgroup_signal(&cg, sig);
  } else {
    autofd pidfd = k_pidfd_open(s.pid);
    // The descriptor first, then the look at who it is: the number cannot change hands in between.
    if (pidfd < 0 || !alive(&s) || k_pidfd_send_signal(pidfd, sig) < 0)
      return fail(&e, ESRCH, "kill", s.id, "container '%s' is not running", s.id), cli_fail(&e);
  }
  if (sig == SIGKILL && cgroup_frozen(&cg) && cgroup_freeze(&cg, false, &e) < 0) return cli_fail(&e);
  return 0;
}

int cmd_kill(int argc, char **argv) {
  static const struct option opts[] = {{"all", 0, 0, 'a'}, {"regex", 0, 0, 'r'}, {0}};
  struct kill_wish wish = {.signal = "TERM"};
  bool regex = false;
  int c;
  while ((c = getopt_long(argc, argv, "ar", opts, NULL)) != -1) {
    if (c == 'a') wish.all = true;
    else if (c == 'r') regex = true;
    else return 1;
  }
  NEED_ID("kill")
  if (optind + 1 < argc) wish.signal = argv[optind + 1];
  return regex ? each_match(argv[optind], kill_one, &wish) : kill_one(argv[optind], &wish);
}

int remove_container(struct saved *s, struct cgroup *cg, bool force, struct err *e) {
  const char *status = state_status(s, cg);
  STAGE("request");
  if (strcmp(status, "stopped")) {
    if (!force && strcmp(status, "created"))
      return fail(e, EBUSY, "delete", s->id, "container '%s' is %s: stop it first, or use --force", s->id, status);
    autofd pidfd = k_pidfd_open(s->pid);
    if (pidfd >= 0 && alive(s)) {
      (void)k_pidfd_send_signal(pidfd, SIGKILL);
      if (cgroup_frozen(cg) && cgroup_freeze(cg, false, e) < 0) return -1;
      struct pollfd p = {pidfd, POLLIN, 0};
      if (RETRY(poll(&p, 1, 200)) == 0) {  // it stands still, or waits for the others of its pid namespace, who do
        cgroup_thaw_process(cg, s->pid);
        cgroup_signal(cg, SIGKILL);
      }
      if (RETRY(poll(&p, 1, 10000)) == 0) return fail(e, ETIMEDOUT, "kill", s->id, "the process of '%s' did not end within 10 s of SIGKILL", s->id);
    }
  }
  if (cgroup_remove(cg, e) < 0) return -1;
  autobuf state = {0};
  oci_state(&state, s->config, s->id, "stopped", 0, s->bundle);
  struct err hook;
  // The specification: poststop hooks that fail are reported, the deletion goes on.
  if (hooks_run(s->config, "poststop", state.p, &hook) < 0) fprintf(stderr, "shoal-runtime: %s\n", hook.msg);
  return state_remove(s, e);
}

// A create that was killed half way leaves a directory with a state that names a cgroup, or not even that.
static int remove_half(const char *id, struct err *e) {
  struct saved s = {.id = id};
  struct cgroup cg = {0};
  autofd root = state_root(e);
  if (root < 0) return -1;
  s.dir = openat(root, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (s.dir < 0) return 0;
  struct err none;
  const struct json *j = json_load(&s.arena, s.dir, "status", 1 << 20, &none);
  if (j && cgroup_find(&cg, j_gets(j, "cgroupPath"), e) == 0 && cgroup_remove(&cg, e) < 0) return -1;
  int r = state_remove(&s, e);
  state_close(&s);
  return r;
}

static int delete_one(const char *id, const void *arg) {
  const bool *force = arg;
  struct saved s;
  struct cgroup cg = {0};
  struct err e = {0};
  if (open_with_cgroup(&s, &cg, id, &e) < 0) {
    if (!*force) return cli_fail(&e);
    // --force on what is not there, or not whole, is not an error.
    return valid_id(id, &e) < 0 || remove_half(id, &e) < 0 ? cli_fail(&e) : 0;
  }
  return remove_container(&s, &cg, *force, &e) < 0 ? cli_fail(&e) : 0;
}

int cmd_delete(int argc, char **argv) {
  static const struct option opts[] = {{"force", 0, 0, 'f'}, {"regex", 0, 0, 'r'}, {0}};
  bool force = false, regex = false;
  int c;
  while ((c = getopt_long(argc, argv, "fr", opts, NULL)) != -1) {
    if (c == 'f') force = true;
    else if (c == 'r') regex = true;
    else return 1;
  }
  NEED_ID("delete")
  return regex ? each_match(argv[optind], delete_one, &force) : delete_one(argv[optind], &force);
}

int cmd_pause(int argc, char **argv, bool freeze) {
  optind = 1;
  NEED_ID(freeze ? "pause" : "resume")
  struct saved s;
  struct cgroup cg;
  struct err e = {0};
  if (open_with_cgroup(&s, &cg, argv[optind], &e) < 0) return cli_fail(&e);
  const char *status = state_status(&s, &cg);
  STAGE("request");
  if (strcmp(status, freeze ? "running" : "paused"))
    return fail(&e, EINVAL, "freeze", s.id, "container '%s' is %s, not %s", s.id, status, freeze ? "running" : "paused"), cli_fail(&e);
  return cgroup_freeze(&cg, freeze, &e) < 0 ? cli_fail(&e) : 0;
}

int cmd_ps(int argc, char **argv) {
  static const struct option opts[] = {{"format", 1, 0, 'f'}, {0}};
  bool json = false;
  int c;
  while ((c = getopt_long(argc, argv, "f:", opts, NULL)) != -1) {
    if (c != 'f') return 1;
    json = !strcmp(optarg, "json");
  }
  NEED_ID("ps")
  struct saved s;
  struct cgroup cg;
  struct err e = {0};
  if (open_with_cgroup(&s, &cg, argv[optind], &e) < 0) return cli_fail(&e);
  autofree pid_t *pids = NULL;
  int n = cgroup_pids(&cg, &pids);
  if (json) printf("[");
  else printf("PID\n");
  for (int i = 0; i < n; i++) json ? printf("%s%d", i ? "," : "", (int)pids[i]) : printf("%d\n", (int)pids[i]);
  if (json) printf("]\n");
  return 0;
}
