// UDP: a session for each client, with a socket of its own to the target, until nothing has come either way for a while.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay.h"

enum { IDLE_MS = 90000, MAX_SESSIONS = 4096, BUCKETS = 1024, MAX_DATAGRAM = 65536, A_ROUND = 64 };

struct port {
  struct source source;
  int fd;
  struct target target;
};
struct session {
  struct source source;
  struct port *port;
  int fd;
  struct sockaddr_storage client;
  socklen_t client_size;
  int64_t used_ms;
  struct session *newer, *older;  // by last use
  struct session *in_bucket;
};

static struct session *buckets[BUCKETS];
static struct session *newest, *oldest;
static struct session *ended;  // freed after the round, by in_bucket
static unsigned count;
static char datagram[MAX_DATAGRAM];

static unsigned bucket_of(const struct port *p, const void *client, socklen_t size) {
  unsigned h = 2166136261u ^ (unsigned)p->fd;
  for (socklen_t i = 0; i < size; i++) h = (h ^ ((const unsigned char *)client)[i]) * 16777619u;
  return h % BUCKETS;
}

static void unlink_use(struct session *s) {
  *(s->newer ? &s->newer->older : &newest) = s->older;
  *(s->older ? &s->older->newer : &oldest) = s->newer;
}

static void link_use(struct session *s) {
  s->newer = NULL;
  s->older = newest;
  *(newest ? &newest->newer : &oldest) = s;
  newest = s;
  s->used_ms = now_ms();
}

static void end_session(struct session *s) {
  struct session **at = &buckets[bucket_of(s->port, &s->client, s->client_size)];
  while (*at != s) at = &(*at)->in_bucket;
  *at = s->in_bucket;
  unlink_use(s);
  close(s->fd);
  s->source.gone = true;
  s->in_bucket = ended;
  ended = s;
  count--;
}

// From the target back to the client.
static void session_ready(struct source *source, uint32_t events) {
  (void)events;
  struct session *s = (struct session *)source;
  for (int i = 0; i < A_ROUND; i++) {
    ssize_t n = recv(s->fd, datagram, sizeof datagram, 0);
    if (n < 0) {
      // ECONNREFUSED: nobody listens there yet; the client finds out as with any lost datagram.
      if (errno == EINTR || errno == ECONNREFUSED) continue;
      return;
    }
    sendto(s->port->fd, datagram, n, 0, (struct sockaddr *)&s->client, s->client_size);  // may be lost, as any datagram
    unlink_use(s);
    link_use(s);
  }
}

static struct session *session_of(struct port *p, const struct sockaddr_storage *client, socklen_t size) {
  unsigned b = bucket_of(p, client, size);
  for (struct session *s = buckets[b]; s; s = s->in_bucket)
    if (s->port == p && s->client_size == size && !memcmp(&s->client, client, size)) return s;
  if (count == MAX_SESSIONS) end_session(oldest);
  int fd = socket(p->target.name.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return NULL;
  if (connect(fd, (struct sockaddr *)&p->target.name, p->target.size) < 0) {
    close(fd);
    return NULL;
  }
  struct session *s = calloc(1, sizeof *s);
  if (!s) die("calloc");
  s->source.ready = session_ready;
  s->port = p;
  s->fd = fd;
  memcpy(&s->client, client, size);
  s->client_size = size;
  s->in_bucket = buckets[b];
  buckets[b] = s;
  count++;
  link_use(s);
  watch(fd, EPOLLIN, &s->source);
  return s;
}

static void port_ready(struct source *source, uint32_t events) {
  (void)events;
  struct port *p = (struct port *)source;
  for (int i = 0; i < A_ROUND; i++) {
    struct sockaddr_storage client;
    socklen_t size = sizeof client;
    ssize_t n = recvfrom(p->fd, datagram, sizeof datagram, 0, (struct sockaddr *)&client, &size);
    if (n < 0) {
      if (errno == EINTR) continue;
      return;
    }
    struct session *s = session_of(p, &client, size);
    if (!s) continue;  // as a lost datagram
    send(s->fd, datagram, n, 0);
    unlink_use(s);
    link_use(s);
  }
}

void udp_serve(int fd, const struct target *t) {
  struct port *p = malloc(sizeof *p);
  if (!p) die("malloc");
  *p = (struct port){{port_ready}, fd, *t};
  watch(fd, EPOLLIN, &p->source);
}

int udp_patience_ms(void) {
  if (!oldest) return -1;
  int64_t left = oldest->used_ms + IDLE_MS - now_ms();
  return left < 0 ? 0 : (int)left + 1;
}

void udp_expire(void) {
  int64_t before = now_ms() - IDLE_MS;
  while (oldest && oldest->used_ms <= before) end_session(oldest);
  while (ended) {
    struct session *s = ended;
    ended = s->in_bucket;
    free(s);
  }
}
