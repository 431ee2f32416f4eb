#include "hooks.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "kernel.h"
#include "namespaces.h"

void oci_state(struct buf *b, const struct json *config, const char *id, const char *status, pid_t pid, const char *bundle) {
  const char *version = j_gets(config, "ociVersion");
  buf_str(b, "{\"ociVersion\":");
  json_quote_str(b, version ? version : "1.0.2");
  buf_str(b, ",\"id\":");
  json_quote_str(b, id);
  buf_str(b, ",\"status\":");
  json_quote_str(b, status);
  if (pid > 0) buf_fmt(b, ",\"pid\":%d", (int)pid);
  buf_str(b, ",\"bundle\":");
  json_quote_str(b, bundle);
  if (j_items(j_get(config, "annotations"))) {
    buf_str(b, ",\"annotations\":");
    json_write(b, j_get(config, "annotations"));
  }
  buf_str(b, "}");
}

bool hooks_any(const struct json *config, const char *kind) { return j_items(j_get(j_get(config, "hooks"), kind)); }

static int run(const struct json *h, const char *kind, const char *state, struct err *e) {
  const char *path = j_gets(h, "path");
  if (!path || path[0] != '/') return fail(e, EINVAL, "parse", kind, "a %s hook needs an absolute path", kind);
  autofree char **args = j_strv(j_get(h, "args")), **env = j_strv(j_get(h, "env"));
  char *just_path[] = {(char *)path, NULL};
  int in[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) < 0) return fail(e, 0, "socketpair", path, "cannot start the %s hook %s", kind, path);
  int pidfd = -1;
  pid_t pid = clone_process(0, -1, &pidfd);
  if (pid < 0) {
    int keep = errno;
    close(in[0]);
    close(in[1]);
    return fail(e, keep, "clone3", path, "cannot start the %s hook %s: %s", kind, path, strerror(keep));
  }
  if (pid == 0) {
    signal(SIGPIPE, SIG_DFL);
    if (dup2(in[1], 0) < 0) _exit(126);
    execve(path, args[0] ? args : just_path, env);
    _exit(errno == ENOENT ? 127 : 126);
  }
  autofd pfd = pidfd;
  close(in[1]);
  // A hook may close its end early, or never read: neither may stop or kill the runtime.
  size_t left = strlen(state);
  const char *p = state;
  int64_t timeout = j_int(j_get(h, "timeout"), 0), deadline = timeout > 0 ? now_ms() + timeout * 1000 : 0;
  bool killed = false;
  for (;;) {
    if (left) {
      ssize_t n = send(in[0], p, left, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n > 0) {
        p += n;
        left -= (size_t)n;
      } else if (errno != EAGAIN && errno != EINTR) {
        left = 0;
      }
      if (left == 0) shutdown(in[0], SHUT_WR);
    }
    struct pollfd fds[2] = {{pfd, POLLIN, 0}, {in[0], POLLOUT, 0}};
    int64_t wait = deadline ? deadline - now_ms() : -1;
    if (deadline && wait <= 0) {
      killed = true;
      (void)kill(pid, SIGKILL);
      wait = -1;
      deadline = 0;
    }
    int r = poll(fds, left ? 2 : 1, (int)wait);
    if (r < 0 && errno != EINTR) break;
    if (r > 0 && fds[0].revents) break;
  }
  close(in[0]);
  int status = 0;
  if (RETRY(waitpid(pid, &status, 0)) < 0) return fail(e, 0, "waitpid", path, "cannot wait for the %s hook %s", kind, path);
  if (killed) return fail(e, ETIMEDOUT, "hook", path, "the %s hook %s did not end within its %lld s", kind, path, (long long)timeout);
  if (WIFSIGNALED(status)) return fail(e, EIO, "hook", path, "the %s hook %s was ended by signal %d", kind, path, WTERMSIG(status));
  if (WEXITSTATUS(status)) return fail(e, EIO, "hook", path, "the %s hook %s failed with exit status %d", kind, path, WEXITSTATUS(status));
  return 0;
}

int hooks_run(const struct json *config, const char *kind, const char *state, struct err *e) {
  STAGE("hook");
  J_EACH(h, j_get(j_get(config, "hooks"), kind)) if (run(h, kind, state, e) < 0) return -1;
  return 0;
}
