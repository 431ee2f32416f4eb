// sd_notify(3): a program in a container tells the runtime's service manager that it is ready, over a socket of the runtime's own,
// which lies in ROOT/ID/notify. The manager's socket itself is not shown: of what a container says, only that it is ready is passed on.
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "../kernel.h"
#include "cli.h"

// The service manager's socket: a path, or a name that begins with @. NULL: nobody wants to hear.
static const char *manager(void) {
  const char *name = getenv("NOTIFY_SOCKET");
  return name && (*name == '/' || *name == '@') && name[1] ? name : NULL;
}

// Shows the directory of the socket in the container where the manager's socket is outside.
int notify_prepare(struct arena *a, struct json *config, int dir, struct err *e) {
  struct json *mounts = json_list(a, config, "mounts");
  if (!manager() || !mounts) return 0;
  STAGE("socket");
  char link[64], state[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
  ssize_t n = readlink(link, state, sizeof state - 1);
  if (n < 0) return fail(e, 0, "readlink", link, "cannot find the state directory: %s", strerror(errno));
  state[n] = 0;
  if (mkdirat(dir, "notify", 0755) < 0 || fchmodat(dir, "notify", 0755, 0) < 0)
    return fail(e, 0, "mkdirat", "notify", "cannot make the notify socket's directory: %s", strerror(errno));
  const char *at = *manager() == '/' ? manager() : "/run/notify";
  autofree char *source = xasprintf("%s/notify", state), *socket = xasprintf("%s/notify", at);
  autobuf b = {0};
  buf_str(&b, "{\"destination\":");
  json_quote_str(&b, at);
  buf_str(&b, ",\"type\":\"bind\",\"source\":");
  json_quote_str(&b, source);
  buf_str(&b, ",\"options\":[\"bind\",\"nosuid\",\"noexec\",\"nodev\",\"ro\"]}");
  struct json *mount = json_parse(a, b.p, b.len, "mount", e);
  if (!mount) return -1;
  json_append(mounts, mount);
  pass_on(a, config, "NOTIFY_SOCKET", socket);
  return 0;
}

// *out stays -1 where there is nobody to tell, or the container was created without.
int notify_listen(int dir, int *out, struct err *e) {
  if (!manager() || faccessat(dir, "notify", F_OK, 0) < 0) return 0;
  STAGE("socket");
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/notify/notify", dir);
  autofd fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || chmod(a.sun_path, 0777) < 0)
    return fail(e, 0, "bind", "notify", "cannot make the notify socket: %s", strerror(errno));
  *out = steal_fd(&fd);
  return 0;
}

static void tell(const char *text) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  size_t n = strlen(manager());
  autofd fd = n < sizeof a.sun_path ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
  if (fd < 0) return;
  memcpy(a.sun_path, manager(), n);
  if (*a.sun_path == '@') *a.sun_path = 0;
  if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
    fprintf(stderr, "warning: the service manager at %s does not hear that the container is ready: %s\n", manager(), strerror(errno));
}

// Reads what has come, not for ever; true when the container is ready, which the manager then knows. `leave`: from now on the manager watches that process.
bool notify_forward(int fd, pid_t leave) {
  char said[4097];
  ssize_t n;
  for (int i = 0; i < 64 && (n = RETRY(recv(fd, said, sizeof said - 1, 0))) >= 0; i++) {
    said[n] = 0;
    char *save = NULL;
    for (char *line = strtok_r(said, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
      if (strcmp(line, "READY=1")) continue;
      tell(line);
      if (leave) {
        autofree char *pid = xasprintf("MAINPID=%d", (int)leave);
        tell(pid);
      }
      return true;
    }
  }
  return false;
}

// Until the container is ready, or its process has ended.
void notify_wait(int fd, pid_t pid, int pidfd) {
  struct pollfd p[2] = {{fd, POLLIN, 0}, {pidfd, POLLIN, 0}};
  while (RETRY(poll(p, 2, -1)) > 0)
    if (notify_forward(fd, pid) || p[1].revents) return;
}
