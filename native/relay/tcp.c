// TCP: for each connection another one to the target, and a pipe each way between them.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "relay.h"

enum { CHUNK = 65536 };

struct listener {
  struct source source;
  int fd;
  bool resting;  // out of descriptors: asked again when a connection has ended
  struct target target;
  struct listener *next;
};

struct link;
// One end of a connection.
struct end {
  struct source source;
  struct link *link;
  struct end *other;
  int fd;
  int pipe[2];        // what was read here and not yet written to the other end
  size_t held;        // bytes in the pipe
  bool full;          // the pipe may have no room for more
  bool read_done;     // it has sent its last byte
  bool write_done;    // it has been told that the other end has
  bool connecting;
  uint32_t watched;
};
struct link {
  struct end ends[2];
  struct link *next;  // among those to be freed
};

static struct listener *listeners;
static struct link *dead;

static void close_end(struct end *e) {
  if (e->fd >= 0) close(e->fd);
  for (int i = 0; i < 2; i++)
    if (e->pipe[i] >= 0) close(e->pipe[i]);
}

static void end_link(struct link *l) {
  if (l->ends[0].source.gone) return;
  for (int i = 0; i < 2; i++) {
    l->ends[i].source.gone = true;
    close_end(&l->ends[i]);
  }
  l->next = dead;
  dead = l;
}

// What it waits for now: to read while there is room in the pipe, to write while there is something in the other's. One that waits
// for neither is not watched at all, or its hang-up would be told again and again.
static void adjust(struct end *e) {
  uint32_t want = 0;
  if (e->connecting) want = EPOLLOUT;
  else {
    if (!e->read_done && !e->full && !e->other->connecting) want |= EPOLLIN;
    if (e->other->held > 0) want |= EPOLLOUT;
  }
  if (want == e->watched) return;
  if (want == 0) epoll_ctl(poller, EPOLL_CTL_DEL, e->fd, NULL);
  else if (e->watched == 0) watch(e->fd, want, &e->source);
  else rewatch(e->fd, want, &e->source);
  e->watched = want;
}

// From this end to the other as far as it goes; false: the connection is broken.
static bool carry(struct end *from) {
  struct end *to = from->other;
  for (;;) {
    bool moved = false;
    if (!from->read_done && !from->full) {
      ssize_t n = splice(from->fd, NULL, from->pipe[1], NULL, CHUNK, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
      if (n > 0) from->held += n, moved = true;
      else if (n == 0) from->read_done = true;
      else if (errno == EAGAIN) from->full = from->held > 0;  // the socket is empty or the pipe full: there is no telling which
      else if (errno != EINTR) return false;
    }
    while (from->held > 0) {
      ssize_t n = splice(from->pipe[0], NULL, to->fd, NULL, from->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
      if (n > 0) from->held -= n, from->full = false, moved = true;
      else if (n < 0 && errno == EINTR) continue;
      else if (n < 0 && errno == EAGAIN) break;
      else return false;
    }
    if (from->read_done && from->held == 0 && !to->write_done) {
      to->write_done = true;
      shutdown(to->fd, SHUT_WR);  // the other may have gone meanwhile: then its end says so
    }
    if (!moved) return true;
  }
}

static void end_ready(struct source *s, uint32_t events) {
  struct end *e = (struct end *)s;
  struct link *l = e->link;
  if (e->connecting) {
    int why = 0;
    socklen_t size = sizeof why;
    if (getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &why, &size) < 0 || why) return end_link(l);
    e->connecting = false;
  } else if (events & EPOLLERR) return end_link(l);
  if (!e->other->connecting && (!carry(e) || !carry(e->other))) return end_link(l);
  // Both have said all, or one is gone altogether and nothing waits for it.
  if (e->write_done && e->other->write_done) return end_link(l);
  if ((events & EPOLLHUP) && e->read_done && e->held == 0) return end_link(l);
  adjust(e);
  adjust(e->other);
}

static bool open_end(struct link *l, int i, int fd) {
  struct end *e = &l->ends[i];
  *e = (struct end){{end_ready}, l, &l->ends[!i], fd, {-1, -1}};
  return fd >= 0 && pipe2(e->pipe, O_NONBLOCK | O_CLOEXEC) == 0;
}

static void take(struct listener *at, int fd) {
  struct link *l = malloc(sizeof *l);
  if (!l) die("malloc");
  int out = socket(at->target.name.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  bool ok = open_end(l, 0, fd);
  ok = open_end(l, 1, out) && ok;
  if (ok && connect(out, (struct sockaddr *)&at->target.name, at->target.size) < 0) {
    ok = errno == EINPROGRESS;
    l->ends[1].connecting = true;
  }
  if (!ok) {
    // The client is told at once, by a reset.
    struct linger reset = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close_end(&l->ends[0]);
    close_end(&l->ends[1]);
    free(l);
    return;
  }
  adjust(&l->ends[0]);
  adjust(&l->ends[1]);
}

static void listener_ready(struct source *s, uint32_t events) {
  (void)events;
  struct listener *l = (struct listener *)s;
  for (;;) {
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      take(l, fd);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE) {
      l->resting = true;
      rewatch(l->fd, 0, &l->source);
    } else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) die("accept");
    return;
  }
}

void tcp_serve(int fd, const struct target *t) {
  struct listener *l = malloc(sizeof *l);
  if (!l) die("malloc");
  *l = (struct listener){{listener_ready}, fd, false, *t, listeners};
  listeners = l;
  watch(fd, EPOLLIN, &l->source);
}

// Frees what ended in the round of events that is over.
void tcp_bury(void) {
  if (!dead) return;
  while (dead) {
    struct link *l = dead;
    dead = l->next;
    free(l);
  }
  for (struct listener *l = listeners; l; l = l->next)
    if (l->resting) {
      l->resting = false;
      rewatch(l->fd, EPOLLIN, &l->source);
    }
}
