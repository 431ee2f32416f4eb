// shoal-relay { tcp|udp FD ADDRESS PORT }...: carries what comes to a socket, which it inherits, to an address: published ports
// where rules of the kernel cannot lead the way (from IPv6 to a container that has only IPv4, and from ::1). A TCP socket must be
// listening, a UDP socket bound. It ends when its stdin does, which is held by the daemon.
//
// One thread, level-triggered epoll. Bytes stay in the kernel as far as it allows (splice through a pipe each way).
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "relay.h"

int poller;

_Noreturn void die(const char *what) {
  fprintf(stderr, "shoal-relay: %s: %s\n", what, strerror(errno));
  exit(1);
}

void watch(int fd, uint32_t events, struct source *s) {
  struct epoll_event e = {.events = events, .data.ptr = s};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e) < 0) die("epoll_ctl");
}

void rewatch(int fd, uint32_t events, struct source *s) {
  struct epoll_event e = {.events = events, .data.ptr = s};
  if (epoll_ctl(poller, EPOLL_CTL_MOD, fd, &e) < 0) die("epoll_ctl");
}

int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool parse_target(const char *address, const char *port, struct target *t) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)&t->name;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&t->name;
  char *end;
  unsigned long n = strtoul(port, &end, 10);
  if (*end || n == 0 || n > 65535) return false;
  if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(n);
    t->size = sizeof *v4;
    return true;
  }
  if (inet_pton(AF_INET6, address, &v6->sin6_addr) != 1) return false;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(n);
  t->size = sizeof *v6;
  return true;
}

// It needs nothing but its descriptors.
static void drop_rights(void) {
  if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)) die("cannot give up root");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) die("prctl");
}

static void until_daemon_ends(struct source *s, uint32_t events) {
  (void)s, (void)events;
  char bytes[64];
  ssize_t n = read(0, bytes, sizeof bytes);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) exit(0);
}

int main(int argc, char **argv) {
  if (argc < 5 || (argc - 1) % 4) {
    fputs("usage: shoal-relay { tcp|udp FD ADDRESS PORT }...\n", stderr);
    return 2;
  }
  signal_setup();
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);  // best effort: fewer connections at a time otherwise
  }
  poller = epoll_create1(EPOLL_CLOEXEC);
  if (poller < 0) die("epoll_create1");
  static struct source daemon_end = {until_daemon_ends};
  watch(0, EPOLLIN, &daemon_end);
  for (int i = 1; i < argc; i += 4) {
    struct target t = {0};
    int fd = atoi(argv[i + 1]);
    if (fd < 3 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || !parse_target(argv[i + 2], argv[i + 3], &t)) {
      fprintf(stderr, "shoal-relay: bad port: %s %s %s %s\n", argv[i], argv[i + 1], argv[i + 2], argv[i + 3]);
      return 2;
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (!strcmp(argv[i], "tcp")) tcp_serve(fd, &t);
    else udp_serve(fd, &t);
  }
  drop_rights();
  for (;;) {
    struct epoll_event events[64];
    int n = epoll_wait(poller, events, 64, udp_patience_ms());
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
      struct source *s = events[i].data.ptr;
      if (!s->gone) s->ready(s, events[i].events);
    }
    tcp_bury();
    udp_expire();
  }
}
