// shim.json's `runtime`: another OCI runtime does the library's work. The shim stays what it is to everybody (parent and subreaper, log,
// protocol, exit record); only making, starting, signalling, freezing and removing go through the runtime's command line.
//
// In RUN-DIRECTORY/oci lie the bundle that the runtime sees (config.json with shim.json's settings worked in), its state, its log and
// the pid files. The overlay is mounted in a mount namespace of the shim's own: nothing of it shows on the host, and it is gone with
// the shim and the container, whatever dies first.
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "../runtime/filter.h"
#include "../runtime/kernel.h"
#include "../runtime/rootfs.h"
#include "../runtime/tty.h"
#include "shim.h"

enum { CALL_MS = 120000 };  // the longest that a runtime may take for one command, hooks included

static char *inside(const char *name) { return xasprintf("%s/oci/%s", shim.bundle, name); }

// The runtime's own last word, from its log.
static void reason(const char *verb, int status, struct err *e) {
  struct arena a = {0};
  autobuf log = {0};
  autofree char *said = NULL;
  if (read_file_at(shim.dir, "oci/log", &log, 1 << 20) == 0)
    for (char *line = log.p, *next; line && *line; line = next) {
      struct err none;
      next = strchr(line, '\n');
      if (next) *next++ = 0;
      const struct json *j = json_parse(&a, line, strlen(line), "log", &none);
      if (!j_gets(j, "msg")) continue;
      free(said);
      said = xstrdup(j_gets(j, "msg"));
    }
  arena_free(&a);
  bool starts = !strcmp(verb, "create") || !strcmp(verb, "start") || !strcmp(verb, "exec");
  int eno = EIO;
  if (starts && said && (strstr(said, "o such file") || strstr(said, "not found"))) eno = ENOENT;
  if (starts && said && (strstr(said, "ermission denied"))) eno = EACCES;
  STAGE(eno == EIO ? "process" : "exec");
  if (said) fail(e, eno, verb, shim.runtime, "%s %s: %s", shim.runtime, verb, said);
  else if (WIFSIGNALED(status)) fail(e, eno, verb, shim.runtime, "%s %s was ended by signal %d", shim.runtime, verb, WTERMSIG(status));
  else fail(e, eno, verb, shim.runtime, "%s %s failed with status %d and gave no reason", shim.runtime, verb, WEXITSTATUS(status));
}

static int put_file(const char *name, const struct buf *b, struct err *e) {
  autofd fd = openat(shim.dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  return fd < 0 || write_all(fd, b->p, b->len) < 0 ? fail(e, 0, "write", name, "cannot write %s: %s", name, strerror(errno)) : 0;
}

static int wait_for(pid_t pid, const char *verb, int *status, struct err *e) {
  autofd pidfd = k_pidfd_open(pid);
  struct pollfd p = {pidfd, POLLIN, 0};
  int64_t until = mono_ms() + CALL_MS;
  bool late = false;
  while (pidfd >= 0 && !late) {
    int64_t left = until - mono_ms();
    int n = poll(&p, 1, left > 0 ? (int)left : 0);
    if (n > 0) break;
    late = n == 0;
  }
  if (late) (void)kill(pid, SIGKILL);
  if (RETRY(waitpid(pid, status, 0)) < 0) return fail(e, 0, "waitpid", shim.runtime, "cannot wait for %s %s: %s", shim.runtime, verb, strerror(errno));
  return late ? fail(e, ETIMEDOUT, verb, shim.runtime, "%s %s did not end within %d s", shim.runtime, verb, CALL_MS / 1000) : 0;
}

// args: after the global options, NULL-terminated, the verb first. stdio: of the process that the runtime makes; -1 or NULL: /dev/null.
static int call(const char *const *args, const int *stdio, struct err *e) {
  STAGE("process");
  autofree char *state = inside("state"), *log = inside("log");
  if (unlinkat(shim.dir, "oci/log", 0) < 0 && errno != ENOENT) return fail(e, 0, "unlinkat", log, "cannot remove %s: %s", log, strerror(errno));
  const char *argv[32] = {shim.runtime, "--root", state, "--log", log, "--log-format", "json"};
  int n = 7;
  for (int i = 0; args[i] && n < 31; i++) argv[n++] = args[i];
  pid_t pid = fork();
  if (pid < 0) return fail(e, 0, "fork", shim.runtime, "cannot start %s: %s", shim.runtime, strerror(errno));
  if (pid == 0) {
    child_signals();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
      if (dup2(stdio && stdio[fd] >= 0 ? stdio[fd] : null, fd) < 0) _exit(126);
    (void)k_close_range(3, ~0u, 0);
    execv(shim.runtime, (char *const *)argv);
    _exit(127);
  }
  int status = 0;
  if (wait_for(pid, args[0], &status, e) < 0) return -1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127 && access(shim.runtime, X_OK) < 0)
    return fail(e, 0, "execve", shim.runtime, "cannot run the runtime %s: %s", shim.runtime, strerror(errno));
  reason(args[0], status, e);
  return -1;
}

static struct json *put(struct arena *a, struct json *object, const char *key, struct json value) {
  struct json *m = j_get(object, key), **end = &object->child;
  struct json *next = m ? m->next : NULL;
  if (!m) {
    while (*end) end = &(*end)->next;
    m = *end = arena_alloc(a, sizeof *m);
    object->n++;
  }
  *m = value;
  m->key = key;
  m->next = next;
  return m;
}

static struct json text(const char *s) { return (struct json){.type = J_STR, .n = (uint32_t)strlen(s), .s = s}; }

static void list_add(struct arena *a, struct json *list, struct json value, bool front) {
  struct json *m = arena_alloc(a, sizeof *m), **end = &list->child;
  *m = value;
  while (*end && !front) end = &(*end)->next;
  m->next = *end;
  *end = m;
  list->n++;
}

static struct json *member(struct arena *a, struct json *object, const char *key, enum json_type type) {
  struct json *m = j_get(object, key);
  return m && m->type == type ? m : put(a, object, key, (struct json){.type = type});
}

// The init program becomes a mount and the first words of the command.
static int add_init(struct arena *a, struct json *config, const char *path, struct err *e) {
  autobuf b = {0};
  buf_str(&b, "{\"destination\":\"/sbin/docker-init\",\"type\":\"bind\",\"options\":[\"bind\",\"ro\"],\"source\":");
  json_quote_str(&b, path);
  buf_str(&b, "}");
  const struct json *m = json_parse(a, b.p, b.len, "mount", e);
  if (!m) return -1;
  list_add(a, member(a, config, "mounts", J_ARR), *m, false);
  struct json *args = member(a, member(a, config, "process", J_OBJ), "args", J_ARR);
  list_add(a, args, text("--"), true);
  list_add(a, args, text("/sbin/docker-init"), true);
  return 0;
}

static int write_bundle(struct arena *a, struct json *config, const char *root, const char *init, bool tty, struct err *e) {
  STAGE("config");
  struct json *linux_ = member(a, config, "linux", J_OBJ), *seccomp = j_get(linux_, "seccomp");
  put(a, member(a, config, "root", J_OBJ), "path", text(root));
  put(a, member(a, config, "process", J_OBJ), "terminal", (struct json){.type = J_BOOL, .b = tty});
  if (shim.cgroup_path) put(a, linux_, "cgroupsPath", text(shim.cgroup_path));
  if (init && add_init(a, config, init, e) < 0) return -1;
  autobuf b = {0};
  if (seccomp) {  // Docker's form has conditions that other runtimes do not read: they would allow too much
    char **caps = j_strv(j_path(config, "process.capabilities.bounding"));
    size_t n = 0;
    while (caps && caps[n]) n++;
    int r = filter_resolve(&b, seccomp, (const char *const *)caps, n, e);
    free(caps);
    const struct json *plain = r < 0 ? NULL : json_parse(a, b.p, b.len, "linux.seccomp", e);
    if (!plain) return -1;
    put(a, linux_, "seccomp", *plain);
  }
  autobuf out = {0};
  json_write(&out, config);
  if (mkdirat(shim.dir, "oci", 0700) < 0 && errno != EEXIST) return fail(e, 0, "mkdirat", "oci", "cannot make the bundle: %s", strerror(errno));
  return put_file("oci/config.json", &out, e);
}

static int mount_root(const struct json *rootfs, const char *root, struct err *e) {
  STAGE("rootfs");
  if (unshare(CLONE_NEWNS) < 0 || k_mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
    return fail(e, 0, "unshare", "/", "cannot make a mount namespace: %s", strerror(errno));
  autofd tree = overlay_open(rootfs, e), at = -1;
  if (tree == -2) return overlay_mount_old(rootfs, root, e);
  if (tree < 0) return -1;
  at = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (at < 0 || k_move_mount(tree, at) < 0) return fail(e, 0, "move_mount", root, "cannot mount the root file system on %s: %s", root, strerror(errno));
  return 0;
}

// A socket on which the runtime hands over the terminal. Its name as the runtime sees it is short, however deep the run directory is.
static int console_listen(char name[64], struct err *e) {
  STAGE("console");
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  snprintf(name, 64, "/proc/%d/fd/%d/oci/console", (int)getpid(), shim.dir);
  strcpy(a.sun_path, name);
  autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (unlinkat(shim.dir, "oci/console", 0) < 0 && errno != ENOENT) return fail(e, 0, "unlinkat", name, "cannot remove an old console socket: %s", strerror(errno));
  if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 1) < 0)
    return fail(e, 0, "bind", name, "cannot make the console socket: %s", strerror(errno));
  return steal_fd(&fd);
}

// The runtime has ended by now, so what it sent is here.
static int console_take(int listener, struct err *e) {
  STAGE("console");
  autofd s = (int)RETRY(accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
  int master = -1;
  char name[256];
  if (s >= 0) (void)fd_recv(s, &master, name, sizeof name);
  return master < 0 ? fail(e, EPROTO, "recvmsg", shim.runtime, "%s did not hand over the terminal", shim.runtime) : master;
}

static pid_t pid_from(const char *file, struct err *e) {
  autobuf b = {0};
  if (read_file_at(shim.dir, file, &b, 64) < 0) return fail(e, 0, "open", file, "%s left no pid file: %s", shim.runtime, strerror(errno));
  pid_t pid = (pid_t)atoi(b.p);
  return pid > 1 ? pid : fail(e, EPROTO, "read", file, "%s wrote '%.20s' as a pid", shim.runtime, b.p);
}

int oci_create(struct container *c, struct json *config, const struct json *s, bool tty, struct err *e) {
  const char *root = j_gets(j_get(config, "root"), "path");
  char name[64];
  autofd console = -1;
  if (!root) return STAGE("config"), fail(e, EINVAL, "parse", "root.path", "config.json has no root.path");
  autofree char *full = root[0] == '/' ? xstrdup(root) : xasprintf("%s/%s", shim.bundle, root);
  if (j_get(s, "rootfs") && j_get(s, "rootfs")->type == J_OBJ && mount_root(j_get(s, "rootfs"), full, e) < 0) return -1;
  if (write_bundle(&shim.arena, config, full, j_gets(s, "initPath"), tty, e) < 0) return -1;
  if (tty && (console = console_listen(name, e)) < 0) return -1;
  autofree char *bundle = xasprintf("%s/oci", shim.bundle), *pid_file = inside("pid");
  const char *args[] = {"create", "--bundle", bundle, "--pid-file", pid_file, tty ? "--console-socket" : shim.id, tty ? name : NULL, shim.id, NULL};
  if (call(args, c->stdio, e) < 0) return -1;
  c->pid = pid_from("oci/pid", e);
  if (c->pid < 0) return c->pid = 0, -1;
  if (tty) {
    if ((c->master = console_take(console, e)) < 0) return -1;
    if (c->cols && tty_resize(c->master, c->cols, c->rows) < 0) return fail(e, 0, "ioctl", "TIOCSWINSZ", "cannot set the terminal's size: %s", strerror(errno));
  }
  return 0;
}

static int plain(const char *verb, struct err *e) {
  const char *args[] = {verb, shim.id, NULL};
  return call(args, NULL, e);
}

int oci_start(struct err *e) { return plain("start", e); }
int oci_freeze(bool on, struct err *e) { return plain(on ? "pause" : "resume", e); }

int oci_signal(int sig, struct err *e) {
  char number[12];
  snprintf(number, sizeof number, "%d", sig);
  const char *args[] = {"kill", shim.id, number, NULL};
  return call(args, NULL, e);
}

int oci_update(const struct json *resources, struct err *e) {
  autobuf b = {0};
  json_write(&b, resources);
  if (put_file("oci/resources.json", &b, e) < 0) return -1;
  autofree char *file = inside("resources.json");
  const char *args[] = {"update", "--resources", file, shim.id, NULL};
  return call(args, NULL, e);
}

// What the runtime keeps of the container. Errors only reach the shim's log: there is nobody to ask, and the cgroup goes anyway.
void oci_delete(void) {
  struct err e;
  const char *args[] = {"delete", "--force", shim.id, NULL};
  if (faccessat(shim.dir, "oci/state", F_OK, 0) == 0 && call(args, NULL, &e) < 0) fprintf(stderr, "shoal-shim %s: %s\n", shim.id, e.msg);
}

// There is no "made, not started" on an exec's command line: until execStart the process is only a document and its pipes.
int oci_exec_make(struct proc *p, const struct json *process, const int stdio[3], struct err *e) {
  autobuf b = {0};
  static unsigned counter;
  p->file = xasprintf("oci/exec-%u.json", ++counter);
  json_write(&b, process);
  for (int i = 0; i < 3; i++) p->child[i] = stdio[i];
  STAGE("process");
  return put_file(p->file, &b, e);
}

static int exec_run(struct proc *p, struct err *e) {
  char name[64];
  autofd console = -1;
  autofree char *file = xasprintf("%s/%s", shim.bundle, p->file), *pid_file = inside("exec-pid");
  if (p->tty && (console = console_listen(name, e)) < 0) return -1;
  const char *args[] = {"exec", "--detach", "--process", file, "--pid-file", pid_file, p->tty ? "--console-socket" : shim.id, p->tty ? name : NULL, shim.id, NULL};
  int r = call(args, p->child, e);
  (void)unlinkat(shim.dir, p->file, 0);
  for (int i = 0; i < 3; i++) cleanup_fd(&p->child[i]);
  if (r < 0) return -1;
  pid_t pid = pid_from("oci/exec-pid", e);
  if (pid < 0) return -1;
  p->pid = pid;
  if (!p->tty) return 0;
  int master = console_take(console, e);
  if (master < 0) return -1;
  proc_watch(p, master);
  return 0;
}

int oci_exec_start(struct proc *p, struct err *e) {
  if (exec_run(p, e) == 0) return 0;
  if (p->pid == 0) {  // never was a process: its end is told all the same
    p->exited = true;
    p->code = e->code == ENOENT ? 127 : e->code == EACCES ? 126 : 1;
    p->finished_at = now_ms();
    p->drain_until = mono_ms();
  }
  return -1;
}
