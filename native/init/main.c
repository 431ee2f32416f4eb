// shoal-init -- PROGRAM [ARGUMENT ...]: process 1 of a container started with --init. Runs the program, hands on to it every signal it
// gets, reaps whatever is orphaned in the container, and ends as the program ended: its exit status, or 128 + signal.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// Only the kernel sends these to us for what we did ourselves: they must not be blocked.
static const int OWN_FAULTS[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS};

static pid_t run(char **argv, const sigset_t *before) {
  pid_t pid = fork();
  if (pid) return pid;
  // A group of its own in the foreground, so that what is typed at the terminal reaches the program once, not by us as well.
  setpgid(0, 0);
  signal(SIGTTOU, SIG_IGN);
  if (isatty(0)) (void)tcsetpgrp(0, getpid());
  signal(SIGTTOU, SIG_DFL);
  signal(SIGTTIN, SIG_DFL);
  sigprocmask(SIG_SETMASK, before, NULL);
  execvp(argv[0], argv);
  int code = errno == ENOENT ? 127 : 126;
  fprintf(stderr, "exec %s: %s\n", argv[0], strerror(errno));
  _exit(code);
}

int main(int argc, char **argv) {
  int first = argc > 1 && !strcmp(argv[1], "--") ? 2 : 1;
  if (argc <= first) return fprintf(stderr, "usage: shoal-init -- PROGRAM [ARGUMENT ...]\n"), 2;
  sigset_t waited, before;
  sigfillset(&waited);
  for (size_t i = 0; i < sizeof OWN_FAULTS / sizeof OWN_FAULTS[0]; i++) sigdelset(&waited, OWN_FAULTS[i]);
  sigprocmask(SIG_SETMASK, &waited, &before);
  // Ignored, not only blocked: a process in the background that writes to its terminal would stop.
  signal(SIGTTOU, SIG_IGN);
  signal(SIGTTIN, SIG_IGN);
  pid_t child = run(argv + first, &before);
  if (child < 0) return fprintf(stderr, "shoal-init: fork: %s\n", strerror(errno)), 126;
  for (;;) {
    int got = sigwaitinfo(&waited, NULL);
    if (got < 0) continue;  // EINTR: stopped and continued
    if (got != SIGCHLD) {
      kill(child, got);
      continue;
    }
    int status;
    pid_t gone;
    while ((gone = waitpid(-1, &status, WNOHANG)) > 0)
      if (gone == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
}
