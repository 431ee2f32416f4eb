// shoal-shim [--wait-start] RUN-DIRECTORY: makes the container, stands by it, records its end. See docs/native.md.
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "../runtime/hooks.h"
#include "../runtime/kernel.h"
#include "shim.h"

struct shim shim = {.epoll = -1, .dir = -1, .status_fd = -1};

int source_add(struct source *s, uint32_t events) {
  struct epoll_event ev = {.events = events, .data.ptr = s};
  s->events = events;
  return epoll_ctl(shim.epoll, EPOLL_CTL_ADD, s->fd, &ev);
}

void source_set(struct source *s, uint32_t events) {
  if (s->fd < 0 || s->events == events) return;
  struct epoll_event ev = {.events = events, .data.ptr = s};
  s->events = events;
  (void)epoll_ctl(shim.epoll, EPOLL_CTL_MOD, s->fd, &ev);
}

// Taken out by name: as long as a process that was just forked has a copy, closing alone leaves it in there, with a pointer to what is freed.
void source_close(struct source *s) {
  if (s->fd >= 0) (void)epoll_ctl(shim.epoll, EPOLL_CTL_DEL, s->fd, NULL);
  cleanup_fd(&s->fd);
}

static void status_line(const char *json) {
  if (shim.status_fd < 0) return;
  // The daemon may be gone: the container goes on without it.
  (void)write_all(shim.status_fd, json, strlen(json));
}

static void report(const struct err *e) {
  autobuf b = {0};
  buf_str(&b, "{\"error\":");
  json_err(&b, e);
  buf_str(&b, "}\n");
  status_line(b.p);
  fprintf(stderr, "shoal-shim %s: %s: %s\n", shim.id ? shim.id : "", e->stage, e->msg);
}

void shim_state(const char *status) {
  autobuf b = {0};
  static int64_t started_at;
  if (!started_at && !strcmp(status, "running")) started_at = now_ms();
  buf_fmt(&b, "{\"shimVersion\":%d,\"shimPid\":%d,\"shimStartTicks\":%llu,\"pid\":%d,\"startTicks\":%llu,\"status\":\"%s\",\"cgroupPath\":",
          SHIM_VERSION, (int)getpid(), (unsigned long long)proc_start_ticks(getpid()), (int)shim.c.pid,
          (unsigned long long)proc_start_ticks(shim.c.pid), status);
  json_quote_str(&b, shim.cgroup_path ? shim.cgroup_path : "");
  buf_fmt(&b, ",\"startedAtMs\":%lld}\n", (long long)started_at);
  if (replace_file_at(shim.dir, "state.json", b.p, b.len, false) < 0)
    fprintf(stderr, "shoal-shim %s: cannot write state.json: %s\n", shim.id, strerror(errno));
}

static int open_socket(struct err *e) {
  STAGE("socket");
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  // The run directory may be deeper than the 107 bytes of an address: the descriptor's own name is short.
  snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/shim.sock", shim.dir);
  if (unlinkat(shim.dir, "shim.sock", 0) < 0 && errno != ENOENT) return fail(e, 0, "unlinkat", "shim.sock", "cannot remove an old shim.sock: %s", strerror(errno));
  mode_t old = umask(0177);
  int r = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&a, sizeof a);
  umask(old);
  if (r < 0 || listen(fd, 64) < 0) return fail(e, 0, "bind", "shim.sock", "cannot open the control socket: %s", strerror(errno));
  shim.listener = (struct source){.fd = steal_fd(&fd), .ready = client_accept};
  return source_add(&shim.listener, EPOLLIN);
}

static void on_signal(struct source *s, uint32_t ev) {
  (void)ev;
  struct signalfd_siginfo info;
  while (RETRY(read(s->fd, &info, sizeof info)) == (ssize_t)sizeof info) {
  }
  proc_reap();
}

// Says once for each kill; also before the end is told, which may come in the same moment.
static void tell_oom(void) {
  int64_t now = cgroup_oom_kills(&shim.c.cg);
  static int64_t told;
  // The v1 notification also comes when the group is removed.
  if (now > shim.oom_before + told) {
    told = now - shim.oom_before;
    clients_event("{\"event\":\"oom\"}", NULL);
  }
}

static void on_oom(struct source *s, uint32_t ev) {
  (void)ev;
  char b[4096];
  while (RETRY(read(s->fd, b, sizeof b)) > 0) {
  }
  if (cgroup_oom_waits(&shim.c.cg)) clients_event("{\"event\":\"oom\"}", NULL);
  else tell_oom();
}

static int set_up_loop(struct err *e) {
  STAGE("socket");
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  shim.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (shim.epoll < 0 || sigprocmask(SIG_SETMASK, &set, NULL) < 0) return fail(e, 0, "epoll_create1", "", "cannot make the event loop: %s", strerror(errno));
  // Signals that a terminal or a service manager sends to everybody are not meant for the shim.
  static const int ignored[] = {SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
  for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++) signal(ignored[i], SIG_IGN);
  shim.signals = (struct source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .ready = on_signal};
  if (shim.signals.fd < 0 || source_add(&shim.signals, EPOLLIN) < 0) return fail(e, 0, "signalfd", "", "cannot watch for children: %s", strerror(errno));
  return 0;
}

static int create(struct err *e) {
  struct json *config = json_load(&shim.arena, shim.dir, "config.json", 16 << 20, e), *s;
  if (!config || !(s = json_load(&shim.arena, shim.dir, "shim.json", 16 << 20, e))) return -1;
  STAGE("config");
  const char *id = j_gets(s, "id"), *cgroup = j_gets(s, "cgroup"), *filter = j_gets(s, "seccomp");
  if (j_int(j_get(s, "version"), 0) < 1 || !id) return fail(e, EINVAL, "parse", "shim.json", "shim.json has no version or no id");
  shim.id = xstrdup(id);
  shim.cgroup_path = cgroup ? xstrdup(cgroup) : NULL;
  shim.seccomp_file = filter ? xstrdup(filter) : NULL;
  shim.runtime = j_gets(s, "runtime") ? xstrdup(j_gets(s, "runtime")) : NULL;
  shim.stdin_once = j_bool(j_get(s, "stdinOnce"), false);
  shim.has_agent = j_gets(j_path(config, "linux.seccomp"), "listenerPath");
  shim.has_poststop = !shim.runtime && hooks_any(config, "poststop");
  struct container *c = &shim.c;
  c->id = shim.id;
  c->bundle = shim.bundle;
  c->config = config;
  c->overlay = j_get(s, "rootfs");
  c->init_path = j_gets(s, "initPath");
  c->terminal = j_bool(j_get(s, "tty"), false);
  c->cols = (int)j_int(j_get(s, "ttyWidth"), 0);
  c->rows = (int)j_int(j_get(s, "ttyHeight"), 0);
  struct proc *p = proc_new(NULL);
  p->close_stdin_with_client = shim.stdin_once;
  bool tty = c->terminal || j_bool(j_path(config, "process.terminal"), false);
  if (log_open(&shim.log, j_get(s, "log"), e) < 0 || open_socket(e) < 0) return -1;
  if (filter && !shim.runtime && seccomp_read(&c->filter, shim.dir, filter, e) < 0) return -1;
  if (cgroup_find(&c->cg, shim.cgroup_path, e) < 0 || proc_pipes(p, tty, j_bool(j_get(s, "stdin"), false), c->stdio, e) < 0) return -1;
  int r = shim.runtime ? oci_create(c, config, s, tty, e) : container_create(c, e);
  for (int i = 0; i < 3; i++) cleanup_fd(&c->stdio[i]);
  if (r < 0) return -1;
  shim.created = true;
  p->pid = c->pid;
  proc_watch(p, c->master);
  c->master = -1;
  int64_t ooms = cgroup_oom_kills(&c->cg);
  shim.oom_before = ooms < 0 ? 0 : ooms;
  shim.oom = (struct source){.fd = cgroup_oom_watch(&c->cg), .ready = on_oom};
  if (shim.oom.fd >= 0) source_add(&shim.oom, EPOLLIN);
  shim_state("created");
  autofree char *line = xasprintf("{\"stage\":\"created\",\"pid\":%d}\n", (int)c->pid);
  status_line(line);
  return 0;
}

// The documents and the filter are of no more use once the process runs: the shim gives their memory back.
static void forget_documents(void) {
  unsigned flags = shim.c.filter.flags;
  seccomp_free(&shim.c.filter);
  shim.c.filter.flags = flags;
  shim.c.config = shim.c.overlay = NULL;
  shim.c.init_path = NULL;
  arena_free(&shim.arena);
}

int shim_start(struct err *e) {
  if ((shim.runtime ? oci_start(e) : container_start(&shim.c, e)) < 0) {
    shim.ending = true;
    shim.created = false;
    return -1;
  }
  shim.started = proc_find(NULL)->running = true;
  shim_state("running");
  if (!shim.runtime && hooks_any(shim.c.config, "poststart")) {
    autobuf state = {0};
    struct err failed;
    oci_state(&state, shim.c.config, shim.id, "running", shim.c.pid, shim.bundle);
    // The specification: a poststart hook that fails is reported, and the container runs on.
    if (hooks_run(shim.c.config, "poststart", state.p, &failed) < 0) fprintf(stderr, "shoal-shim %s: %s\n", shim.id, failed.msg);
  }
  status_line("{\"stage\":\"running\"}\n");
  cleanup_fd(&shim.status_fd);
  forget_documents();
  return 0;
}

static void poststop(void) {
  struct arena a = {0};
  struct err e;
  const struct json *config = shim.has_poststop ? json_load(&a, shim.dir, "config.json", 16 << 20, &e) : NULL;
  if (config) {
    autobuf state = {0};
    oci_state(&state, config, shim.id, "stopped", 0, shim.bundle);
    if (hooks_run(config, "poststop", state.p, &e) < 0) fprintf(stderr, "shoal-shim %s: %s\n", shim.id, e.msg);
  }
  arena_free(&a);
}

void shim_undo(void) {
  struct err e;
  const struct proc *p = proc_find(NULL);
  if (p && p->exited) shim.c.pid = 0;  // buried: the number may be somebody else's by now
  container_kill(&shim.c);
  if (shim.runtime) oci_delete();
  if (cgroup_remove(&shim.c.cg, &e) < 0) fprintf(stderr, "shoal-shim %s: %s\n", shim.id, e.msg);
  (void)unlinkat(shim.dir, "shim.sock", 0);
}

// The end of the container's own process: on disk first, then to whoever listens.
static void record_exit(void) {
  struct proc *p = proc_find(NULL);
  struct err e;
  log_finish(&shim.log);
  if (shim.started) {
    autobuf b = {0};
    buf_fmt(&b, "{\"exitCode\":%d,\"signal\":%d,\"oomKilled\":%s,\"error\":\"\",\"finishedAtMs\":%lld}\n", p->code, p->signal,
            shim.oom_killed ? "true" : "false", (long long)p->finished_at);
    if (replace_file_at(shim.dir, "exit.json", b.p, b.len, true) < 0)
      fprintf(stderr, "shoal-shim %s: cannot write exit.json: %s\n", shim.id, strerror(errno));
  }
  log_compress(&shim.log, true);  // it outlives the shim
  shim_state("stopped");
  shim.ending = true;
  tell_oom();
  clients_eof(p);
  autobuf ev = {0};
  buf_fmt(&ev, "{\"event\":\"exit\",\"exitCode\":%d,\"signal\":%d,\"oomKilled\":%s,\"finishedAtMs\":%lld}", p->code, p->signal,
          shim.oom_killed ? "true" : "false", (long long)p->finished_at);
  clients_event(ev.p, NULL);
  source_close(&shim.oom);
  poststop();
  if (shim.runtime) oci_delete();
  if (cgroup_remove(&shim.c.cg, &e) < 0) fprintf(stderr, "shoal-shim %s: %s\n", shim.id, e.msg);
  (void)unlinkat(shim.dir, "shim.sock", 0);
}

static void step(int64_t deadline) {
  struct epoll_event ev[32];
  int64_t wait = deadline == INT64_MAX ? -1 : deadline - mono_ms();
  if ((shim.log.waiting.len || shim.log.forward.waiting.len) && (wait < 0 || wait > 100)) wait = 100;
  // Patience with a client that takes nothing ends without an event.
  if (proc_find(NULL)->held && (wait < 0 || wait > 500)) wait = 500;
  int n = epoll_wait(shim.epoll, ev, 32, wait < -1 ? 0 : (int)wait);
  for (int i = 0; i < n; i++) {
    struct source *s = ev[i].data.ptr;
    if (s->fd >= 0) s->ready(s, ev[i].events);
  }
  forward_retry(&shim.log.forward);
  log_compress(&shim.log, false);
  if (shim.log.waiting.len && log_retry(&shim.log)) {
    struct proc *p = proc_find(NULL);
    source_set(&p->out, EPOLLIN);
    source_set(&p->err, EPOLLIN);
  }
  proc_settle();
  clients_sweep();
  proc_release();
}

static int serve(void) {
  struct proc *p = proc_find(NULL);
  while (!p->finished && !shim.ending) step(proc_deadline());
  int status = 0;
  if (p->finished) {
    record_exit();
  } else {  // start failed on request: the answer is on its way, everything else goes
    shim_undo();
    status = 1;
  }
  int64_t until = mono_ms() + LINGER_MS;
  source_close(&shim.listener);
  while (clients_pending() && mono_ms() < until) step(until);
  return status;
}

int main(int argc, char **argv) {
  struct err e = {0};
  if (self_protect(argv, &e) < 0) {
    fprintf(stderr, "shoal-shim: %s\n", e.msg);
    return 1;
  }
  prctl(PR_SET_NAME, "shoal-shim");
  bool wait_start = false;
  const char *dir = ".";
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--wait-start")) wait_start = true;
    else if (argv[i][0] == '-') return fprintf(stderr, "usage: shoal-shim [--wait-start] RUN-DIRECTORY\n"), 2;
    else dir = argv[i];
  }
  // Descriptor 3 is the status pipe when there is one; a shim started by hand has none.
  struct stat st;
  if (fstat(3, &st) == 0 && S_ISFIFO(st.st_mode)) {
    shim.status_fd = 3;
    fcntl(3, F_SETFD, FD_CLOEXEC);
  }
  container_init(&shim.c);
  shim.oom.fd = -1;
  setsid();  // fails only where this is a session leader already
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  umask(0022);
  char full[PATH_MAX];
  STAGE("config");
  int r = 0;
  shim.dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (shim.dir < 0 || !realpath(dir, full)) r = fail(&e, 0, "open", dir, "cannot open the run directory %s: %s", dir, strerror(errno));
  if (r == 0) {
    shim.bundle = xstrdup(full);
    r = set_up_loop(&e);
  }
  if (r == 0) r = create(&e);
  if (r == 0 && !wait_start) r = shim_start(&e);
  if (r < 0) {
    report(&e);
    if (shim.dir >= 0) shim_undo();
    return 1;
  }
  if (wait_start) cleanup_fd(&shim.status_fd);
  return serve();
}
