// Processes of the container: their standard streams, their ends, and processes added by exec.
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "../runtime/kernel.h"
#include "../runtime/tty.h"
#include "shim.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

struct proc *proc_find(const char *exec) {
  for (struct proc *p = shim.procs; p; p = p->next)
    if (exec ? p->exec && !strcmp(p->exec, exec) : !p->exec) return p;
  return NULL;
}

struct proc *proc_new(const char *exec) {
  struct proc *p = xalloc(sizeof *p), **tail = &shim.procs;
  p->exec = exec ? xstrdup(exec) : NULL;
  p->in.fd = p->out.fd = p->err.fd = p->sync.fd = -1;
  p->x.sync = p->x.pidfd = p->x.master = p->peer = -1;
  p->child[0] = p->child[1] = p->child[2] = -1;
  while (*tail) tail = &(*tail)->next;
  *tail = p;
  return p;
}

void proc_free(struct proc *p) {
  for (struct proc **q = &shim.procs; *q; q = &(*q)->next)
    if (*q == p) {
      *q = p->next;
      break;
    }
  clients_detach(p);
  source_close(&p->in);
  source_close(&p->out);
  source_close(&p->err);
  source_close(&p->sync);
  cleanup_fd(&p->x.pidfd);
  cleanup_fd(&p->x.master);
  cleanup_fd(&p->peer);
  for (int i = 0; i < 3; i++) cleanup_fd(&p->child[i]);
  free(p->asker.id);
  free(p->file);
  buf_free(&p->to_stdin);
  arena_free(&p->arena);
  free(p->exec);
  free(p);
}

// stdio[] gets the child's ends; the shim's ends go into the sources, to be watched once the process is there.
int proc_pipes(struct proc *p, bool tty, bool want_stdin, int stdio[3], struct err *e) {
  STAGE("process");
  p->tty = tty;
  stdio[0] = stdio[1] = stdio[2] = -1;
  if (tty) return 0;
  int in[2] = {-1, -1}, out[2] = {-1, -1}, er[2] = {-1, -1};
  if (want_stdin ? pipe2(in, O_CLOEXEC) < 0 : (in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
    return fail(e, 0, "pipe2", "stdin", "cannot make standard input: %s", strerror(errno));
  if (pipe2(out, O_CLOEXEC) < 0 || pipe2(er, O_CLOEXEC) < 0) return fail(e, 0, "pipe2", "stdout", "cannot make the output pipes: %s", strerror(errno));
  for (int i = 0; i < 3; i++) {
    int fd = i == 0 ? in[1] : i == 1 ? out[0] : er[0];
    if (fd >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK) < 0) return fail(e, 0, "fcntl", "", "cannot make a pipe non-blocking: %s", strerror(errno));
  }
  p->in.fd = in[1];
  p->out.fd = out[0];
  p->err.fd = er[0];
  stdio[0] = in[0];
  stdio[1] = out[1];
  stdio[2] = er[1];
  return 0;
}

static void close_stdin(struct proc *p) {
  if (p->tty) return;
  source_close(&p->in);
  buf_free(&p->to_stdin);
}

static void flush_stdin(struct proc *p) {
  int fd = p->tty ? p->out.fd : p->in.fd;
  while (p->to_stdin.len && fd >= 0) {
    ssize_t n = RETRY(write(fd, p->to_stdin.p, p->to_stdin.len));
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) {  // nobody will read it any more
      buf_free(&p->to_stdin);
      close_stdin(p);
      return;
    }
    memmove(p->to_stdin.p, p->to_stdin.p + n, p->to_stdin.len - (size_t)n);
    p->to_stdin.len -= (size_t)n;
  }
  if (!p->to_stdin.len) {
    buf_free(&p->to_stdin);
    if (p->stdin_eof) close_stdin(p);
  }
  if (p->tty) source_set(&p->out, (p->held ? EPOLLET : EPOLLIN) | (p->to_stdin.len ? EPOLLOUT : 0));
  else if (p->in.fd >= 0) source_set(&p->in, p->to_stdin.len ? EPOLLOUT : 0);
}

void proc_stdin(struct proc *p, const char *data, size_t n, bool eof) {
  if ((p->tty ? p->out.fd : p->in.fd) < 0 || p->stdin_eof) return;
  buf_add(&p->to_stdin, data, n);
  if (eof && !p->tty) p->stdin_eof = true;
  flush_stdin(p);
}

static void on_stdin(struct source *s, uint32_t ev) {
  struct proc *p = s->owner;
  if (ev & (EPOLLERR | EPOLLHUP)) return close_stdin(p);
  flush_stdin(p);
}

// Edge-triggered and nothing wanted: a hang-up is still reported, but once, not for as long as it is held.
static void hold(struct proc *p) {
  p->held = true;
  source_set(&p->out, EPOLLET | (p->tty && p->to_stdin.len ? EPOLLOUT : 0));
  if (!p->tty) source_set(&p->err, EPOLLET);
}

void proc_release(void) {
  for (struct proc *p = shim.procs; p; p = p->next) {
    if (!p->held || (!p->exited && clients_full(p))) continue;
    p->held = false;
    source_set(&p->out, EPOLLIN | (p->tty && p->to_stdin.len ? EPOLLOUT : 0));
    if (!p->tty) source_set(&p->err, EPOLLIN);
  }
}

// Reads what is there now; at end of file the source closes.
static void pump(struct proc *p, struct source *s, int stream) {
  static char b[65536];
  for (int i = 0; i < 16 && s->fd >= 0; i++) {
    // What is left when the process has ended is little, and its record must not wait.
    if (!p->exited && clients_full(p)) return hold(p);
    ssize_t n = RETRY(read(s->fd, b, sizeof b));
    if (n < 0 && errno == EAGAIN) {
      // The shim holds the terminal's other end itself, so there is no end of file: empty after the process's end is the end.
      if (p->tty && p->exited) source_close(s);
      return;
    }
    if (n <= 0) return source_close(s);
    clients_output(p, stream, b, (size_t)n);
    if (!p->exec && !log_write(&shim.log, stream, b, (size_t)n)) {
      source_set(&p->out, 0);
      if (!p->tty) source_set(&p->err, 0);
      return;
    }
    if (n < (ssize_t)sizeof b / 2 && p->tty == false && !p->exited) return;
  }
}

static void on_out(struct source *s, uint32_t ev) {
  struct proc *p = s->owner;
  if (p->tty && (ev & EPOLLOUT)) flush_stdin(p);
  if (ev & ~(uint32_t)EPOLLOUT) pump(p, s, 0);
}
static void on_err(struct source *s, uint32_t ev) {
  (void)ev;
  pump(s->owner, s, 1);
}

void proc_watch(struct proc *p, int master) {
  p->in.owner = p->out.owner = p->err.owner = p;
  p->in.ready = on_stdin;
  p->out.ready = on_out;
  p->err.ready = on_err;
  if (p->tty) {
    (void)fcntl(master, F_SETFL, O_NONBLOCK);
    // Without an opener the master would report a hang-up for ever while the process lives on without its terminal.
    p->peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    p->out.fd = master;
  } else {
    if (p->in.fd >= 0) source_add(&p->in, 0);
    source_add(&p->err, EPOLLIN);
  }
  source_add(&p->out, EPOLLIN);
}

void proc_reap(void) {
  for (;;) {
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) return;
    if (pid == shim.log.compressing) shim.log.compressing = 0;
    for (struct proc *p = shim.procs; p; p = p->next) {
      if (p->pid != pid || p->exited) continue;
      p->exited = true;
      p->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
      p->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + p->signal;
      p->finished_at = now_ms();
      p->drain_until = mono_ms() + DRAIN_MS;
      if (!p->exec) {
        int64_t ooms = cgroup_oom_kills(&shim.c.cg);
        shim.oom_killed = ooms > shim.oom_before;
        struct err ignored;
        if (cgroup_frozen(&shim.c.cg)) (void)cgroup_freeze(&shim.c.cg, false, &ignored);
        cgroup_signal(&shim.c.cg, SIGKILL);
      }
      close_stdin(p);
    }
  }
}

static void drain(struct proc *p) {
  if (p->out.fd >= 0) pump(p, &p->out, 0);
  if (p->err.fd >= 0) pump(p, &p->err, 1);
}

// What the new process of an exec says: that it is ready, then how its start went.
static void on_sync(struct source *s, uint32_t ev) {
  (void)ev;
  struct proc *p = s->owner;
  struct err e = {0};
  if (p->failed) return;
  if (!p->made) {
    int r = exec_follow(&p->x, &e);
    if (r < 0) {
      p->failed = true;
      (void)kill(p->pid, SIGKILL);
      client_answer(&p->asker, NULL, &e);
    } else if (r > 0) {
      p->made = true;
      proc_watch(p, p->x.master);
      p->x.master = -1;
      autofree char *pid = xasprintf(",\"pid\":%d", (int)p->pid);
      client_answer(&p->asker, pid, NULL);
    }
  } else if (p->running) {
    int r = exec_went(&p->x, &e);
    if (!r) return;
    source_close(s);
    client_answer(&p->asker, NULL, r < 0 ? &e : NULL);
  }
}

int exec_begin(struct proc *p, struct err *e) {
  if (shim.runtime) return oci_exec_start(p, e) < 0 ? -1 : 1;
  int r = exec_go(&p->x, e) < 0 ? -1 : exec_went(&p->x, e);
  if (r) source_close(&p->sync);
  return r;
}

void proc_settle(void) {
  for (struct proc *p = shim.procs, *next; p; p = next) {
    next = p->next;
    if (!p->exited || p->finished) continue;
    if (p->sync.fd >= 0) on_sync(&p->sync, 0);  // its last word is there
    if (p->failed) {
      clients_eof(p);
      proc_free(p);
      continue;
    }
    drain(p);
    if ((p->out.fd >= 0 || p->err.fd >= 0) && mono_ms() < p->drain_until) continue;
    source_close(&p->out);
    source_close(&p->err);
    p->finished = true;
    if (!p->exec) continue;  // main.c records the container's own end first
    autobuf b = {0};
    buf_str(&b, "{\"event\":\"execExit\",\"exec\":");
    json_quote_str(&b, p->exec);
    buf_fmt(&b, ",\"exitCode\":%d}", p->code);
    clients_eof(p);
    clients_event(b.p, NULL);
    proc_free(p);
  }
}

int64_t proc_deadline(void) {
  int64_t d = INT64_MAX;
  for (struct proc *p = shim.procs; p; p = p->next)
    if (p->exited && !p->finished && p->drain_until < d) d = p->drain_until;
  return d;
}

struct proc *exec_make(const char *id, const struct json *request, struct json *process, struct err *e) {
  struct proc *p = proc_new(id);
  struct exec *x = &p->x;
  int stdio[3];
  bool tty = j_bool(j_get(request, "tty"), false) || j_bool(j_get(process, "terminal"), false);
  const char *below[] = {j_gets(request, "cgroup"), NULL};
  *x = (struct exec){.target = shim.c.pid, .id = shim.id, .bundle = shim.bundle, .process = process, .cg = &shim.c.cg,
                     .below = *below ? below : NULL, .terminal = tty, .filter = {.listener = -1},
                     .sync = -1, .pidfd = -1, .master = -1};
  int r = proc_pipes(p, tty, j_bool(j_get(request, "stdin"), false), stdio, e);
  if (shim.runtime) {
    if (r < 0 || oci_exec_make(p, process, stdio, e) < 0) {
      proc_free(p);
      return NULL;
    }
    p->close_stdin_with_client = p->made = true;
    if (!tty) proc_watch(p, -1);
    return p;
  }
  if (r == 0 && shim.seccomp_file) r = seccomp_read(&x->filter, shim.dir, shim.seccomp_file, e);
  struct arena a = {0};
  if (r == 0 && shim.has_agent && x->filter.bytes) {
    x->config = json_load(&a, shim.dir, "config.json", 16 << 20, e);
    r = x->config ? seccomp_connect(&x->filter, j_path(x->config, "linux.seccomp"), e) : -1;
  }
  if (r == 0) {
    x->filter.flags = shim.c.filter.flags;
    memcpy(x->stdio, stdio, sizeof stdio);
    r = exec_spawn(x, e);
  }
  for (int i = 0; i < 3; i++) cleanup_fd(&stdio[i]);
  seccomp_free(&x->filter);
  x->config = NULL;
  arena_free(&a);
  if (r < 0) {
    proc_free(p);
    return NULL;
  }
  p->pid = x->pid;
  p->close_stdin_with_client = true;
  p->sync = (struct source){.fd = x->sync, .ready = on_sync, .owner = p};  // which closes it, too
  (void)fcntl(x->sync, F_SETFL, O_NONBLOCK);
  source_add(&p->sync, EPOLLIN | EPOLLET);  // the end of a process that is not asked for is told once
  return p;
}
