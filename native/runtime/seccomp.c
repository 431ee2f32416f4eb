// Makes and loads a filter. What our own compiler leaves out is another program's work (shoal-seccomp): libseccomp does not belong into
// the runtime's memory.
#include "seccomp.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "filter.h"
#include "tty.h"

enum { MAX_FILTER = 4096 * 8 };  // BPF_MAXINSNS of 8 bytes

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV 32
#endif

int seccomp_flags(struct seccomp_filter *f, const struct json *s, struct err *e) {
  J_EACH(flag, j_get(s, "flags")) {
    const char *n = j_str(flag) ? flag->s : "";
    if (!strcmp(n, "SECCOMP_FILTER_FLAG_LOG")) f->flags |= SECCOMP_FILTER_FLAG_LOG;
    else if (!strcmp(n, "SECCOMP_FILTER_FLAG_SPEC_ALLOW")) f->flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    else if (!strcmp(n, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")) f->flags |= SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // One thread is all there is when the filter is loaded: nothing to synchronise.
    else if (strcmp(n, "SECCOMP_FILTER_FLAG_TSYNC"))
      return fail(e, EINVAL, "parse", "linux.seccomp.flags", "unknown seccomp flag '%s'", n);
  }
  return 0;
}

static bool notifies(const struct seccomp_filter *f) {
  const struct sock_filter *insn = f->bytes;
  for (size_t i = 0; i < f->len / sizeof *insn; i++)
    if (insn[i].code == (BPF_RET | BPF_K) && insn[i].k == SECCOMP_RET_USER_NOTIF) return true;
  return false;
}

int seccomp_connect(struct seccomp_filter *f, const struct json *s, struct err *e) {
  const char *path = j_gets(s, "listenerPath");
  STAGE("seccomp");
  if ((!path || !*path) && notifies(f))
    return fail(e, EINVAL, "parse", "linux.seccomp", "linux.seccomp uses SCMP_ACT_NOTIFY: name the agent's socket in listenerPath");
  if (!path || !*path) return 0;
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof a.sun_path) return fail(e, ENAMETOOLONG, "connect", path, "the seccomp listener path %s is too long", path);
  strcpy(a.sun_path, path);
  f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (f->listener < 0 || RETRY(connect(f->listener, (struct sockaddr *)&a, sizeof a)) < 0)
    return fail(e, 0, "connect", path, "failed to connect with seccomp agent %s: %s", path, strerror(errno));
  return 0;
}

static int check(struct seccomp_filter *f, const char *name, struct err *e) {
  if (f->len == 0 || f->len > MAX_FILTER || f->len % sizeof(struct sock_filter))
    return fail(e, EINVAL, "read", name, "%s does not hold a BPF program: %zu bytes", name, f->len);
  return 0;
}

int seccomp_read(struct seccomp_filter *f, int dirfd, const char *file, struct err *e) {
  STAGE("seccomp");
  struct buf b = {0};
  if (read_file_at(dirfd, file, &b, MAX_FILTER + 1) < 0) {
    buf_free(&b);
    return fail(e, 0, "open", file, "cannot read the seccomp filter %s: %s", file, strerror(errno));
  }
  f->bytes = b.p;
  f->len = b.len;
  return check(f, file, e);
}

static int compile_elsewhere(struct seccomp_filter *f, const char *helper, const struct json *s, struct err *e) {
  int in[2], out[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) < 0 || pipe2(out, O_CLOEXEC) < 0)
    return fail(e, 0, "pipe2", helper, "cannot start %s: %s", helper, strerror(errno));
  pid_t pid = fork();
  if (pid < 0) return fail(e, 0, "fork", helper, "cannot start %s: %s", helper, strerror(errno));
  if (pid == 0) {
    char *argv[] = {(char *)helper, NULL}, *envp[] = {NULL};
    if (dup2(in[1], 0) < 0 || dup2(out[1], 1) < 0) _exit(126);
    execve(helper, argv, envp);
    _exit(127);
  }
  close(in[1]);
  close(out[1]);
  autobuf text = {0};
  json_write(&text, s);
  size_t done = 0;
  while (done < text.len) {
    ssize_t n = RETRY(send(in[0], text.p + done, text.len - done, MSG_NOSIGNAL));
    if (n < 0) break;  // the helper's exit status says why
    done += (size_t)n;
  }
  close(in[0]);
  struct buf b = {0};
  for (;;) {
    char chunk[8192];
    ssize_t n = RETRY(read(out[0], chunk, sizeof chunk));
    if (n <= 0 || b.len > MAX_FILTER) break;
    buf_add(&b, chunk, (size_t)n);
  }
  close(out[0]);
  int status = 0;
  if (RETRY(waitpid(pid, &status, 0)) < 0) return fail(e, 0, "waitpid", helper, "cannot wait for %s: %s", helper, strerror(errno));
  f->bytes = b.p;
  f->len = b.len;
  if (!WIFEXITED(status) || WEXITSTATUS(status) == 127)
    return fail(e, ENOENT, "execve", helper, "cannot run the filter compiler %s, which belongs beside this program", helper);
  if (WEXITSTATUS(status) != 0) {
    char why[300];
    snprintf(why, sizeof why, "%.*s", b.p ? (int)(b.len < 299 ? b.len : 299) : 0, b.p ? b.p : "");
    return fail(e, EINVAL, "seccomp", "linux.seccomp", "cannot compile linux.seccomp: %s", why);
  }
  return check(f, helper, e);
}

int seccomp_compile(struct seccomp_filter *f, const char *helper, const struct json *s, struct err *e) {
  STAGE("seccomp");
  struct arena a = {0};
  struct filter_plan plan;
  int r = filter_read(&a, s, NULL, 0, NULL, &plan, e);
  if (r == 0) r = filter_compile(&plan, &f->bytes, &f->len);
  if (r == 0) filter_younger(&plan, &f->bytes, &f->len);
  arena_free(&a);
  return r > 0 ? compile_elsewhere(f, helper, s, e) : r;
}

int seccomp_load(const struct seccomp_filter *f, struct err *e) {
  if (!f->bytes) return 0;
  STAGE("seccomp");
  struct sock_fprog prog = {(unsigned short)(f->len / sizeof(struct sock_filter)), f->bytes};
  unsigned flags = f->flags | (f->listener >= 0 ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0);
  long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
  if (r < 0) return fail(e, 0, "seccomp", "SECCOMP_SET_MODE_FILTER", "the kernel refuses the seccomp filter: %s", strerror(errno));
  if (f->listener >= 0) {
    const char *meta = f->metadata ? f->metadata : "{}";
    int sent = fd_send(f->listener, (int)r, meta, strlen(meta));
    close((int)r);
    if (sent < 0) return fail(e, 0, "sendmsg", "linux.seccomp.listenerPath", "cannot hand over the seccomp notify descriptor: %s", strerror(errno));
  }
  return 0;
}

void seccomp_free(struct seccomp_filter *f) {
  free(f->bytes);
  free(f->metadata);
  if (f->listener > 0) close(f->listener);
  *f = (struct seccomp_filter){.listener = -1};
}
