#include "hooks.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "container.h"
#include "kernel.h"

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

// run.oci.hooks.stdout and .stderr of config.json, as crun has them: a file of the host that the output is appended to. A startContainer
// hook sees the container's files only: it keeps the container's streams.
static int redirect(const struct json *config, const char *kind, int fd) {
  const char *to = j_gets(j_get(config, "annotations"), fd == 1 ? "run.oci.hooks.stdout" : "run.oci.hooks.stderr");
  if (!to || !strcmp(kind, "startContainer")) return 0;
  autofd file = open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  return file < 0 || dup2(file, fd) < 0 ? -1 : 0;
}

extern char **environ;

static int run(const struct json *config, const struct json *h, const char *kind, const char *state, struct err *e) {
  const char *path = j_gets(h, "path");
  if (!path || path[0] != '/') return fail(e, EINVAL, "parse", kind, "a %s hook needs an absolute path", kind);
  autofree char **args = j_strv(j_get(h, "args")), **own_env = j_strv(j_get(h, "env"));
  char **env = j_get(h, "env") ? own_env : environ;
  char *just_path[] = {(char *)path, NULL};
  // A pipe: a hook may open /dev/stdin, which a socket does not allow.
  int in[2];
  if (pipe2(in, O_CLOEXEC) < 0) return fail(e, 0, "pipe2", path, "cannot start the %s hook %s", kind, path);
  int pidfd = -1;
  pid_t pid = clone_process(0, -1, &pidfd);
  if (pid < 0) {
    int keep = errno;
    close(in[0]);
    close(in[1]);
    return fail(e, keep, "clone3", path, "cannot start the %s hook %s: %s", kind, path, strerror(keep));
  }
  if (pid == 0) {
    child_signals();
    if (dup2(in[0], 0) < 0 || redirect(config, kind, 1) < 0 || redirect(config, kind, 2) < 0) _exit(126);
    execve(path, args[0] ? args : just_path, env);
    _exit(errno == ENOENT ? 127 : 126);
  }
  autofd pfd = pidfd;
  close(in[0]);
  autofd to = in[1];
  // A hook may close its end early, or never read: neither may stop or kill the runtime.
  struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
  sigaction(SIGPIPE, &ignore, &before);
  (void)fcntl(to, F_SETFL, O_NONBLOCK);
  size_t left = strlen(state);
  const char *p = state;
  int64_t timeout = j_int(j_get(h, "timeout"), 0), deadline = timeout > 0 ? mono_ms() + timeout * 1000 : 0;
  bool killed = false;
  for (;;) {
    if (left) {
      ssize_t n = write(to, p, left);
      if (n > 0) {
        p += n;
        left -= (size_t)n;
      } else if (errno != EAGAIN && errno != EINTR) {
        left = 0;
      }
      if (left == 0) cleanup_fd(&to);
    }
    struct pollfd fds[2] = {{pfd, POLLIN, 0}, {to, POLLOUT, 0}};
    int64_t wait = deadline ? deadline - mono_ms() : -1;
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
  sigaction(SIGPIPE, &before, NULL);
  int status = 0;
  if (RETRY(waitpid(pid, &status, 0)) < 0) return fail(e, 0, "waitpid", path, "cannot wait for the %s hook %s", kind, path);
  if (killed) return fail(e, ETIMEDOUT, "hook", path, "the %s hook %s did not end within its %lld s", kind, path, (long long)timeout);
  if (WIFSIGNALED(status)) return fail(e, EIO, "hook", path, "the %s hook %s was ended by signal %d", kind, path, WTERMSIG(status));
  if (WEXITSTATUS(status)) return fail(e, EIO, "hook", path, "the %s hook failed with exit code %d: %s", kind, WEXITSTATUS(status), path);
  return 0;
}

int hooks_run(const struct json *config, const char *kind, const char *state, struct err *e) {
  STAGE("hook");
  bool all = !strcmp(kind, "poststop");
  int r = 0;
  struct err later;
  J_EACH(h, j_get(j_get(config, "hooks"), kind)) {
    if (run(config, h, kind, state, r < 0 ? &later : e) == 0) continue;
    r = -1;
    if (!all) break;
  }
  return r;
}
