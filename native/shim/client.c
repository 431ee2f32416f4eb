// The control socket: frames in, answers, events and output back. Protocol version 1 of docs/native.md.
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "../runtime/hooks.h"
#include "../runtime/kernel.h"
#include "../runtime/tty.h"
#include "shim.h"

static bool wants_reading(const struct client *c) {
  const struct proc *p = c->attached;
  return !(p && c->want_in && p->to_stdin.len > FRAME_MAX);
}

static void rearm(struct client *c) {
  if (c->s.fd >= 0) source_set(&c->s, (wants_reading(c) ? EPOLLIN : 0) | (c->out.len > c->sent ? EPOLLOUT : 0));
}

static void flush(struct client *c) {
  while (c->s.fd >= 0 && c->sent < c->out.len) {
    ssize_t n = RETRY(send(c->s.fd, c->out.p + c->sent, c->out.len - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT));
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) {
      c->dead = true;
      return;
    }
    c->sent += (size_t)n;
    c->taken_at = mono_ms();
  }
  if (c->sent == c->out.len) {
    buf_free(&c->out);
    c->sent = 0;
  } else if (c->sent > (256 << 10)) {
    memmove(c->out.p, c->out.p + c->sent, c->out.len - c->sent);
    c->out.len -= c->sent;
    c->sent = 0;
  }
  rearm(c);
}

static void frame(struct client *c, char type, const void *data, size_t n) {
  uint32_t len = htonl((uint32_t)n);
  if (c->dead || c->s.fd < 0) return;
  if (c->out.len - c->sent > 2 * CLIENT_QUEUE) {  // does not even read its answers
    c->dead = true;
    return;
  }
  if (c->out.len == c->sent) c->taken_at = mono_ms();
  buf_add(&c->out, &len, 4);
  buf_add(&c->out, &type, 1);
  buf_add(&c->out, data, n);
}

static void say(struct client *c, const char *json) {
  frame(c, 'J', json, strlen(json));
  flush(c);
}

// After room was made: first the gap is told, then output goes on.
static void tell_gap(struct client *c) {
  if (!c->dropped || c->out.len - c->sent > CLIENT_QUEUE / 2) return;
  autobuf b = {0};
  buf_fmt(&b, "{\"event\":\"dropped\",\"bytes\":%llu}", (unsigned long long)c->dropped);
  c->dropped = 0;
  frame(c, 'J', b.p, b.len);
}

void clients_output(struct proc *p, int stream, const char *data, size_t n) {
  for (struct client *c = shim.clients; c; c = c->next) {
    if (c->dead || c->attached != p || !(stream ? c->want_err : c->want_out)) continue;
    tell_gap(c);
    if (c->dropped || c->out.len - c->sent + n > CLIENT_QUEUE) {
      c->dropped += n;
      continue;
    }
    frame(c, stream ? 'e' : 'o', data, n);
    flush(c);
  }
}

// Some client of the process has not read what it was sent. Its process waits then, as it would for a slow pipe. The
// container's own process waits only for one that still takes something now and then: a stopped terminal must not stop
// the log. What such a client misses it is told (tell_gap).
bool clients_full(const struct proc *p) {
  int64_t patient_since = mono_ms() - CLIENT_PATIENCE_MS;
  for (const struct client *c = shim.clients; c; c = c->next)
    if (!c->dead && c->attached == p && (c->want_out || c->want_err) && c->out.len - c->sent > CLIENT_HOLD && (p->exec || c->taken_at > patient_since))
      return true;
  return false;
}

void clients_event(const char *json, struct proc *to) {
  for (struct client *c = shim.clients; c; c = c->next)
    if (!c->dead && (to ? c->attached == to : c->subscribed)) say(c, json);
}

void clients_eof(struct proc *p) {
  for (struct client *c = shim.clients; c; c = c->next) {
    if (c->dead || c->attached != p || c->eof_sent) continue;
    c->eof_sent = true;
    if (c->dropped) {
      autobuf b = {0};
      buf_fmt(&b, "{\"event\":\"dropped\",\"bytes\":%llu}", (unsigned long long)c->dropped);
      c->dropped = 0;
      frame(c, 'J', b.p, b.len);
    }
    say(c, "{\"event\":\"eof\"}");
  }
}

void clients_detach(struct proc *p) {
  for (struct client *c = shim.clients; c; c = c->next)
    if (c->attached == p) c->attached = NULL;
}

bool clients_pending(void) {
  for (struct client *c = shim.clients; c; c = c->next)
    if (!c->dead && c->out.len > c->sent) return true;
  return false;
}

static const char *status_now(void) {
  const struct proc *p = proc_find(NULL);
  if (p && p->exited) return "stopped";
  if (!shim.started) return "created";
  return cgroup_frozen(&shim.c.cg) ? "paused" : "running";
}

static void exit_event(struct buf *b) {
  const struct proc *p = proc_find(NULL);
  buf_fmt(b, "{\"event\":\"exit\",\"exitCode\":%d,\"signal\":%d,\"oomKilled\":%s,\"finishedAtMs\":%lld}", p->code, p->signal,
          shim.oom_killed ? "true" : "false", (long long)p->finished_at);
}

static struct proc *which(const struct json *rq, struct err *e) {
  const char *id = j_gets(rq, "exec");
  struct proc *p = proc_find(id);
  if (!p) fail(e, ENOENT, "request", id, "there is no exec process '%s' (it may have ended)", id ? id : "");
  return p;
}

static int op_start(struct err *e) {
  if (shim.started) return fail(e, EALREADY, "request", "start", "the container was started already");
  return shim_start(e);
}

// A process that joins a frozen group stops there, and whoever waits for its answer with it.
static int not_paused(const char *id, struct err *e) {
  if (!cgroup_frozen(&shim.c.cg)) return 0;
  return fail(e, EBUSY, "request", id, "the container is paused: resume it before exec");
}

// 1: the answer comes later, from client_answer.
static int later(struct proc *p, struct client *c, const struct json *rq) {
  autobuf id = {0};
  json_write(&id, j_get(rq, "id"));
  p->asker = (struct asker){c, xstrdup(id.p)};
  return 1;
}

static int op_exec(struct client *c, const struct json *rq, struct buf *extra, struct err *e) {
  const char *id = j_gets(rq, "exec");
  struct json *process = j_get(rq, "process");
  if (!id || !*id || !process) return fail(e, EINVAL, "request", "exec", "exec needs an id and a process");
  if (proc_find(id)) return fail(e, EEXIST, "request", id, "an exec process '%s' exists already", id);
  if (!shim.started || proc_find(NULL)->exited) return fail(e, ESRCH, "request", id, "the container is not running: start it before exec");
  if (not_paused(id, e) < 0) return -1;
  struct proc *p = exec_make(id, rq, process, e);
  if (!p) return -1;
  if (!p->made) return later(p, c, rq);
  buf_str(extra, ",\"pid\":0");  // not before it starts
  return 0;
}

static int op_exec_start(struct client *c, const struct json *rq, struct err *e) {
  struct proc *p = which(rq, e);
  if (!p) return -1;
  if (!p->exec || p->running) return fail(e, EALREADY, "request", p->exec, "the exec process '%s' was started already", p->exec ? p->exec : "");
  if (!p->made) return fail(e, EBUSY, "request", p->exec, "the exec process '%s' is still being made: wait for the answer to exec", p->exec);
  if (not_paused(p->exec, e) < 0) return -1;
  p->running = true;
  int r = exec_begin(p, e);
  return r == 0 ? later(p, c, rq) : r < 0 ? -1 : 0;
}

static int op_signal(const struct json *rq, struct err *e) {
  int sig = (int)j_int(j_get(rq, "signal"), 0);
  if (sig < 1 || sig > 64) return fail(e, EINVAL, "request", "signal", "%d is not a signal", sig);
  if (j_bool(j_get(rq, "all"), false)) {
    cgroup_signal(&shim.c.cg, sig);
  } else {
    struct proc *p = which(rq, e);
    if (!p) return -1;
    if (p->pid <= 0 && !p->exited) return fail(e, ESRCH, "kill", "", "cannot send signal %d: the process has not started", sig);
    if (shim.runtime && !p->exec && !p->exited) {
      // A runtime may keep its container elsewhere than in a process. SIGKILL also goes the straight way, should that runtime be gone.
      int r = oci_signal(sig, e);
      return r < 0 && sig == SIGKILL ? kill(p->pid, sig) : r;
    }
    if (p->exited || kill(p->pid, sig) < 0) return fail(e, p->exited ? ESRCH : 0, "kill", "", "cannot send signal %d: the process is gone", sig);
  }
  if (sig != SIGKILL) return 0;
  if (!j_gets(rq, "exec")) proc_find(NULL)->killed = true;
  // A frozen v1 group does not even die of SIGKILL.
  return cgroup_frozen(&shim.c.cg) ? cgroup_freeze(&shim.c.cg, false, e) : 0;
}

static int op_resize(const struct json *rq, struct err *e) {
  struct proc *p = which(rq, e);
  if (!p) return -1;
  if (!p->tty || p->out.fd < 0) return fail(e, ENOTTY, "request", "resize", "the process has no terminal");
  if (tty_resize(p->out.fd, (int)j_int(j_get(rq, "width"), 0), (int)j_int(j_get(rq, "height"), 0)) < 0)
    return fail(e, 0, "ioctl", "TIOCSWINSZ", "cannot set the terminal's size: %s", strerror(errno));
  return 0;
}

static int op_delete(const struct json *rq, struct err *e) {
  struct proc *p = proc_find(NULL);
  if (!p->exited && shim.started && !j_bool(j_get(rq, "force"), false))
    return fail(e, EBUSY, "request", "delete", "the container is running: stop it first, or use force");
  shim.deleting = true;
  if (!p->exited) {
    (void)kill(p->pid, SIGKILL);
    cgroup_signal(&shim.c.cg, SIGKILL);
    if (cgroup_frozen(&shim.c.cg)) return cgroup_freeze(&shim.c.cg, false, e);
  }
  return 0;
}

static int op_freeze(bool on, struct err *e) {
  const struct proc *p = proc_find(NULL);
  // One that is about to die of SIGKILL would not get to it in a frozen v1 group.
  if (!shim.started || p->exited || (on && p->killed)) return fail(e, ESRCH, "request", on ? "pause" : "resume", "the container is not running");
  if ((shim.runtime ? oci_freeze(on, e) : cgroup_freeze(&shim.c.cg, on, e)) < 0) return -1;
  shim_state(on ? "paused" : "running");
  return 0;
}

// 0: done; 1: the answer comes later; -1.
static int dispatch(struct client *c, const struct json *rq, const char *op, struct buf *extra, struct err *e) {
  STAGE("request");
  if (!c->hello) {
    if (strcmp(op, "hello")) return fail(e, EPROTO, "request", op, "the first request on a connection is 'hello'");
    if (j_int(j_get(rq, "version"), 0) < 1) return fail(e, EPROTO, "request", "version", "protocol versions start at 1");
    c->hello = true;
  }
  if (!strcmp(op, "hello")) {
    buf_fmt(extra, ",\"version\":%d,\"status\":\"%s\",\"pid\":%d", SHIM_VERSION, status_now(), (int)shim.c.pid);
    return 0;
  }
  if (!strcmp(op, "start")) return op_start(e);
  if (!strcmp(op, "exec")) return op_exec(c, rq, extra, e);
  if (!strcmp(op, "execStart")) return op_exec_start(c, rq, e);
  if (!strcmp(op, "signal")) return op_signal(rq, e);
  if (!strcmp(op, "resize")) return op_resize(rq, e);
  if (!strcmp(op, "pause")) return op_freeze(true, e);
  if (!strcmp(op, "resume")) return op_freeze(false, e);
  if (!strcmp(op, "update")) return shim.runtime ? oci_update(j_get(rq, "resources"), e) : cgroup_apply(&shim.c.cg, j_get(rq, "resources"), e);
  if (!strcmp(op, "closeLog")) return log_reopen(&shim.log, e);
  if (!strcmp(op, "delete")) return op_delete(rq, e);
  if (!strcmp(op, "subscribe")) return 0;
  if (!strcmp(op, "attach")) return which(rq, e) ? 0 : -1;
  return fail(e, ENOSYS, "request", op, "this shim does not know the operation '%s' (it speaks version %d)", op, SHIM_VERSION);
}

// What changes only after the answer is on its way.
static void after(struct client *c, const struct json *rq, const char *op) {
  if (!strcmp(op, "subscribe")) {
    c->subscribed = true;
    const struct proc *p = proc_find(NULL);
    if (p->finished && shim.ending) {
      autobuf b = {0};
      exit_event(&b);
      say(c, b.p);
    }
  } else if (!strcmp(op, "attach")) {
    c->attached = proc_find(j_gets(rq, "exec"));
    c->want_in = j_bool(j_get(rq, "stdin"), false);
    c->want_out = j_bool(j_get(rq, "stdout"), false);
    c->want_err = j_bool(j_get(rq, "stderr"), false);
    c->eof_sent = false;
    if (c->attached && c->attached->finished) clients_eof(c->attached);
  }
}

static void answer(struct client *c, const char *id, const char *extra, const struct err *e) {
  autobuf out = {0};
  buf_fmt(&out, "{\"id\":%s", id);
  if (e) {
    buf_str(&out, ",\"error\":");
    json_err(&out, e);
  } else {
    buf_str(&out, ",\"ok\":true");
    buf_str(&out, extra ? extra : "");
  }
  buf_str(&out, "}");
  say(c, out.p);
}

void client_answer(struct asker *a, const char *extra, const struct err *e) {
  if (a->client) answer(a->client, a->id, extra, e);
  free(a->id);
  *a = (struct asker){0};
}

static void request(struct client *c, const char *text, size_t n) {
  struct arena a = {0};
  struct err e = {0};
  autobuf id = {0}, extra = {0};
  STAGE("request");
  const struct json *rq = json_parse(&a, text, n, "request", &e);
  const char *op = j_gets(rq, "op");
  int r = !rq ? -1 : !op ? fail(&e, EINVAL, "request", "op", "a request needs an op") : dispatch(c, rq, op, &extra, &e);
  json_write(&id, j_get(rq, "id"));
  if (r <= 0) answer(c, id.p, extra.p, r < 0 ? &e : NULL);
  if (r == 0) after(c, rq, op);
  arena_free(&a);
}

static void gone(struct client *c) {
  c->dead = true;
  struct proc *p = c->attached;
  if (p && c->want_in && p->close_stdin_with_client) proc_stdin(p, NULL, 0, true);
}

static void on_client(struct source *s, uint32_t ev) {
  struct client *c = s->owner;
  static char b[65536];
  if (ev & EPOLLOUT) flush(c);
  if (c->dead || !(ev & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
  ssize_t n = RETRY(recv(s->fd, b, sizeof b, MSG_DONTWAIT));
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) return gone(c);
  buf_add(&c->in, b, (size_t)n);
  size_t at = 0;
  while (!c->dead && c->in.len - at >= 5) {
    uint32_t len;
    memcpy(&len, c->in.p + at, 4);
    len = ntohl(len);
    char type = c->in.p[at + 4];
    if (len > FRAME_MAX || (type != 'J' && type != 'i')) {
      struct err e;
      STAGE("request");
      fail(&e, EPROTO, "request", "frame", "a frame of type %d with %u bytes is not part of the protocol", type, len);
      answer(c, "null", NULL, &e);
      return gone(c);
    }
    if (c->in.len - at - 5 < len) break;
    const char *payload = c->in.p + at + 5;
    at += 5 + len;
    if (type == 'J') request(c, payload, len);
    else if (c->attached && c->want_in) proc_stdin(c->attached, payload, len, len == 0);
  }
  memmove(c->in.p, c->in.p + at, c->in.len - at);
  c->in.len -= at;
  if (!c->in.len) buf_free(&c->in);
  if (!c->dead) rearm(c);
}

void client_accept(struct source *s, uint32_t ev) {
  (void)ev;
  int fd = (int)RETRY(accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd < 0) return;
  struct client *c = xalloc(sizeof *c);
  c->s = (struct source){.fd = fd, .ready = on_client, .owner = c};
  c->next = shim.clients;
  shim.clients = c;
  if (source_add(&c->s, EPOLLIN) < 0) c->dead = true;
}

void clients_sweep(void) {
  for (struct client **q = &shim.clients; *q;) {
    struct client *c = *q;
    if (!c->dead) {
      if (c->attached && c->want_in) rearm(c);
      if (c->dropped) {
        tell_gap(c);
        flush(c);
      }
      q = &c->next;
      continue;
    }
    *q = c->next;
    for (struct proc *p = shim.procs; p; p = p->next)
      if (p->asker.client == c) p->asker.client = NULL;
    source_close(&c->s);
    buf_free(&c->in);
    buf_free(&c->out);
    free(c);
  }
}
