// What the relay's files share.
#pragma once
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>

// Something that the poller watches. `gone`: closed, and freed once the round of events that it may still stand in is over.
struct source {
  void (*ready)(struct source *, uint32_t events);
  bool gone;
};

struct target {
  struct sockaddr_storage name;
  socklen_t size;
};

extern int poller;
_Noreturn void die(const char *what);
void watch(int fd, uint32_t events, struct source *s);
void rewatch(int fd, uint32_t events, struct source *s);
int64_t now_ms(void);

void tcp_serve(int fd, const struct target *t);
void tcp_bury(void);
void udp_serve(int fd, const struct target *t);
int udp_patience_ms(void);  // until the next session may have expired; -1: none
void udp_expire(void);

static inline void signal_setup(void) { signal(SIGPIPE, SIG_IGN); }
