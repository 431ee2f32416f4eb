// Log lines on their way to syslog or the journal. Nothing here ever waits for the other side while the container runs: what it
// does not take is kept up to a limit, then lost and counted, and the count is sent as a line of its own when it takes again.
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "shim.h"

enum {
  CONNECT_MS = 5000,  // at the start the other side must answer within this
  RETRY_MS = 1000,    // between attempts to reach it again
  FLUSH_MS = 2000,    // how long the last lines are waited for when the container has ended
  INFO = 6, ERR = 3,  // severities of standard output and error
};

// Its other end is a shoal-tls of its own, which holds little: what is on the way is lost with the connection.
static int open_tls(struct forward *f) {
  int pair[2], few = 8192;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return -1;
  autofd theirs = pair[1], ours = pair[0];
  (void)setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &few, sizeof few);
  if (fcntl(ours, F_SETFL, O_NONBLOCK) < 0 || !helper_start(f->tls, theirs)) return -1;
  f->connecting = true;
  return steal_fd(&ours);
}

static int open_socket(struct forward *f) {
  int type = f->stream ? SOCK_STREAM : SOCK_DGRAM;
  int fd = f->tls[0] ? open_tls(f) : socket(f->address.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  if (!f->tls[0] && RETRY(connect(fd, (struct sockaddr *)&f->address, f->address_len)) < 0) {
    if (errno != EINPROGRESS) {
      cleanup_fd(&fd);
      return -1;
    }
    f->connecting = true;
  }
  f->fd = fd;
  f->since = mono_ms();
  f->sent = 0;
  return 0;
}

static void hang_up(struct forward *f) {
  cleanup_fd(&f->fd);
  f->connecting = false;
  f->retry_at = mono_ms() + RETRY_MS;
}

// shoal-tls says "+", or "-" and why not.
static int greeted(struct forward *f) {
  ssize_t n = RETRY(read(f->fd, f->refusal, sizeof f->refusal - 1));
  f->connecting = false;
  if (n > 0 && f->refusal[0] == '+') return 1;
  f->refusal[n > 0 ? n : 0] = 0;
  return errno = ECONNREFUSED, -1;
}

// What it waits for; a connecting TLS's socket takes bytes already.
static short wanted(const struct forward *f) { return f->connecting && f->tls[0] ? POLLIN : POLLOUT; }

// 1: connected, 0: not yet, -1 with errno.
static int connected(struct forward *f, int wait_ms) {
  if (!f->connecting) return 1;
  struct pollfd p = {.fd = f->fd, .events = wanted(f)};
  if (RETRY(poll(&p, 1, wait_ms)) <= 0) return 0;
  if (f->tls[0]) return greeted(f);
  int code = 0;
  socklen_t n = sizeof code;
  getsockopt(f->fd, SOL_SOCKET, SO_ERROR, &code, &n);
  if (code) return errno = code, -1;
  f->connecting = false;
  return 1;
}

static int parse_address(struct forward *f, const struct json *conf, struct err *e) {
  const char *network = j_gets(conf, "network"), *address = j_gets(conf, "address");
  if (!network || !address) return fail(e, EINVAL, "parse", "log.forward", "log.forward needs network and address");
  f->stream = !strcmp(network, "tcp") || !strcmp(network, "unix");
  f->udp = !strcmp(network, "udp");
  if (address[0] == '/') {
    struct sockaddr_un *u = (struct sockaddr_un *)&f->address;
    if (strlen(address) >= sizeof u->sun_path) return fail(e, ENAMETOOLONG, "parse", "log.forward.address", "%s is too long for a socket", address);
    u->sun_family = AF_UNIX;
    strcpy(u->sun_path, address);
    f->address_len = sizeof *u;
    return 0;
  }
  in_port_t port = htons((uint16_t)j_int(j_get(conf, "port"), 514));
  struct sockaddr_in *v4 = (struct sockaddr_in *)&f->address;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&f->address;
  if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = port;
    f->address_len = sizeof *v4;
  } else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = port;
    f->address_len = sizeof *v6;
  } else return fail(e, EINVAL, "parse", "log.forward.address", "'%s' is neither an address nor a path", address);
  return 0;
}

static void parse_tls(struct forward *f, const struct json *conf) {
  const struct json *tls = j_get(conf, "tls");
  const char *program = j_gets(tls, "program"), *name = j_gets(tls, "name");
  if (!program || !name) return;
  size_t n = 0;
  f->tls[n++] = xstrdup(program);
  f->tls[n++] = xstrdup(j_gets(conf, "address"));
  f->tls[n++] = xasprintf("%d", (int)j_int(j_get(conf, "port"), 514));
  f->tls[n++] = xstrdup(name);
  J_EACH(v, j_get(tls, "arguments"))
    if (v->type == J_STR && n < sizeof f->tls / sizeof f->tls[0] - 1) f->tls[n++] = xstrdup(v->s);
}

// NAME=value, or with a length where the value has line ends (systemd's native journal protocol).
static void field(struct buf *b, const char *name, const char *value, size_t n) {
  buf_str(b, name);
  if (memchr(value, '\n', n)) {
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)n >> (8 * i));
    buf_str(b, "\n");
    buf_add(b, length, sizeof length);
  } else buf_str(b, "=");
  buf_add(b, value, n);
  buf_str(b, "\n");
}

int forward_open(struct forward *f, const struct json *conf, struct err *e) {
  *f = (struct forward){.fd = -1};
  if (!conf || conf->type == J_NULL) return 0;
  STAGE("log");
  const char *driver = j_gets(conf, "driver"), *format = j_gets(conf, "format"), *tag = j_gets(conf, "tag"), *host = j_gets(conf, "hostname");
  f->journal = driver && !strcmp(driver, "journald");
  if (!f->journal && (!driver || strcmp(driver, "syslog")))
    return fail(e, EINVAL, "parse", "log.forward.driver", "the shim forwards to syslog and journald, not '%s'", driver ? driver : "");
  f->facility = (int)j_int(j_get(conf, "facility"), 3);
  f->keep = (size_t)j_int(j_get(conf, "bufferBytes"), 1 << 20);
  f->format = !format || !strcmp(format, "unix")  ? FORMAT_UNIX
              : !strcmp(format, "rfc3164")        ? FORMAT_3164
              : !strcmp(format, "rfc5424micro")   ? FORMAT_5424_MICRO
                                                  : FORMAT_5424;
  f->tag = xstrdup(tag ? tag : "");
  f->host = xstrdup(host ? host : "");
  J_EACH(v, j_get(conf, "fields")) if (v->type == J_STR) field(&f->fields, v->key, v->s, v->n);
  if (parse_address(f, conf, e) < 0) return -1;
  parse_tls(f, conf);
  const char *address = j_gets(conf, "address");
  int r = open_socket(f);
  // "unix" names a path: whether the server there takes streams or datagrams is found out.
  if (r < 0 && errno == EPROTOTYPE && f->stream && f->address.ss_family == AF_UNIX) {
    f->stream = false;
    r = open_socket(f);
  }
  int up = r < 0 ? -1 : connected(f, CONNECT_MS);
  if (up <= 0) {
    int code = up < 0 ? errno : ETIMEDOUT;
    const char *why = f->tls[0] && f->refusal[0] == '-' ? f->refusal + 1 : strerror(code);
    cleanup_fd(&f->fd);
    return fail(e, code, "connect", address, "failed to initialize logging driver: cannot reach %s at %s: %s", driver, address, why);
  }
  f->on = true;
  return 0;
}

static void queue(struct forward *f, const struct buf *m) {
  if (f->waiting.len + m->len + sizeof(uint32_t) > f->keep) {
    f->lost++;
    return;
  }
  uint32_t n = (uint32_t)m->len;
  buf_add(&f->waiting, &n, sizeof n);
  buf_add(&f->waiting, m->p, m->len);
}

static void stamp(struct buf *b, int format) {
  struct timespec now;
  struct tm tm;
  char text[40];
  clock_gettime(CLOCK_REALTIME, &now);
  localtime_r(&now.tv_sec, &tm);
  if (format == FORMAT_UNIX || format == FORMAT_3164) {
    strftime(text, sizeof text, "%b %e %H:%M:%S", &tm);
    buf_str(b, text);
    return;
  }
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
  buf_str(b, text);
  if (format == FORMAT_5424_MICRO) buf_fmt(b, ".%06ld", now.tv_nsec / 1000);
  long off = tm.tm_gmtoff / 60, abs = off < 0 ? -off : off;
  if (off == 0) buf_str(b, "Z");
  else buf_fmt(b, "%c%02ld:%02ld", off < 0 ? '-' : '+', abs / 60, abs % 60);
}

static void syslog_line(struct forward *f, struct buf *b, int severity, const char *text, size_t n) {
  buf_fmt(b, "<%d>", f->facility * 8 + severity);
  int pid = (int)getpid();
  if (f->format == FORMAT_5424 || f->format == FORMAT_5424_MICRO) {
    buf_str(b, "1 ");
    stamp(b, f->format);
    buf_fmt(b, " %s %s %d %s - ", f->host, f->tag, pid, f->tag);
  } else {
    stamp(b, f->format);
    if (f->format == FORMAT_3164) buf_fmt(b, " %s", f->host);
    buf_fmt(b, " %s[%d]: ", f->tag, pid);
  }
  buf_add(b, text, n);
  buf_str(b, "\n");
}

static void message(struct forward *f, struct buf *b, int severity, const char *text, size_t n, bool partial) {
  if (f->journal) {
    field(b, "MESSAGE", text, n);
    buf_fmt(b, "PRIORITY=%d\n", severity);
    buf_add(b, f->fields.p, f->fields.len);
    if (partial) buf_str(b, "CONTAINER_PARTIAL_MESSAGE=true\n");
    return;
  }
  bool counted = f->tls[0] && (f->format == FORMAT_5424 || f->format == FORMAT_5424_MICRO);  // RFC 5425, 4.3
  autobuf line = {0};
  syslog_line(f, &line, severity, text, n);
  if (counted) buf_fmt(b, "%zu ", line.len);
  buf_add(b, line.p, line.len);
}

static void drop_first(struct forward *f, size_t n) {
  memmove(f->waiting.p, f->waiting.p + n, f->waiting.len - n);
  f->waiting.len -= n;
}

// Sends what it can at once. A stream that broke in the middle of a line begins with that line again.
static void flush(struct forward *f) {
  size_t at = 0;
  while (at < f->waiting.len) {
    if (f->fd < 0 && (mono_ms() < f->retry_at || open_socket(f) < 0)) {
      if (f->fd < 0 && mono_ms() >= f->retry_at) f->retry_at = mono_ms() + RETRY_MS;
      break;
    }
    int up = connected(f, 0);
    if (up < 0 || (up == 0 && mono_ms() - f->since > CONNECT_MS)) {
      hang_up(f);
      break;
    }
    char c;
    if (up == 0) break;
    // A peer that has closed would swallow one line more.
    if (f->stream && recv(f->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
      hang_up(f);
      continue;
    }
    uint32_t n;
    memcpy(&n, f->waiting.p + at, sizeof n);
    const char *m = f->waiting.p + at + sizeof n;
    ssize_t w = RETRY(send(f->fd, m + f->sent, n - f->sent, MSG_NOSIGNAL | MSG_DONTWAIT));
    if (w < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) break;
      if (errno == EMSGSIZE || f->udp) {  // too large; or nobody listens, which datagrams do not mind
        if (errno == EMSGSIZE) f->lost++;
        at += sizeof n + n;
        continue;
      }
      hang_up(f);
      break;
    }
    if (f->stream && f->sent + (size_t)w < n) {
      f->sent += (size_t)w;
      break;
    }
    f->sent = 0;
    at += sizeof n + n;
  }
  if (at) drop_first(f, at);
  if (!f->waiting.len) buf_free(&f->waiting);
}

static void tell_lost(struct forward *f) {
  if (!f->lost) return;
  autofree char *note = xasprintf("shoal-shim: %llu lines of log were lost: the log server took no more", (unsigned long long)f->lost);
  autobuf b = {0};
  message(f, &b, ERR, note, strlen(note), false);
  f->lost = 0;
  queue(f, &b);
}

void forward_line(struct forward *f, int stream, const char *text, size_t n) {
  if (!f->on) return;
  bool partial = !n || text[n - 1] != '\n';
  autobuf b = {0};
  if (f->waiting.len < f->keep / 2) tell_lost(f);
  message(f, &b, stream ? ERR : INFO, text, partial ? n : n - 1, partial);
  queue(f, &b);
  flush(f);
}

void forward_retry(struct forward *f) {
  if (f->on && f->waiting.len) flush(f);
}

void forward_finish(struct forward *f) {
  int64_t until = mono_ms() + FLUSH_MS;
  f->retry_at = 0;
  while (f->on && (f->waiting.len || f->lost) && mono_ms() < until) {
    if (!f->waiting.len) tell_lost(f);
    flush(f);
    if (f->waiting.len) {
      struct pollfd p = {.fd = f->fd, .events = wanted(f)};
      (void)poll(&p, f->fd >= 0, 50);
    }
  }
  cleanup_fd(&f->fd);
  f->on = false;
}
