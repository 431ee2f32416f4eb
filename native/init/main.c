// shoal-init [--] PROGRAM [ARGS]: the first process of a container started with --init. It runs the program as its child, hands it
// every signal that it gets, buries whatever is left to it, and ends as the program ends (128 + signal when that was killed).
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

// Faults of this program itself are not the child's business; with them blocked, the kernel would kill it without a word anyway.
static const int own[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS};

// A process group of its own in the foreground of the terminal, if there is one: Ctrl-C then reaches the program and its children
// once, from the terminal, and a shell finds its job control in order.
static void isolate(void) {
  if (setpgid(0, 0) < 0) return;  // a session leader already: nothing to do
  if (tcsetpgrp(0, getpgrp()) < 0 && errno != ENOTTY && errno != ENXIO && errno != EBADF)
    fprintf(stderr, "shoal-init: cannot bring the program to the foreground: %s\n", strerror(errno));
}

static _Noreturn void become(char **argv, const sigset_t *mask) {
  isolate();
  signal(SIGTTIN, SIG_DFL);
  signal(SIGTTOU, SIG_DFL);
  sigprocmask(SIG_SETMASK, mask, NULL);
  execvp(argv[0], argv);
  int why = errno;
  fprintf(stderr, "shoal-init: cannot run %s: %s\n", argv[0], strerror(why));
  _exit(why == ENOENT ? 127 : 126);
}

// True when the program itself has ended; its status is in *status then.
static bool bury(pid_t program, int *status) {
  bool ended = false;
  for (;;) {
    int s;
    pid_t pid = waitpid(-1, &s, WNOHANG);
    if (pid < 0 && errno == EINTR) continue;
    if (pid <= 0) return ended;
    if (pid == program) {
      ended = true;
      *status = s;
    }
  }
}

int main(int argc, char **argv) {
  int first = argc > 1 && !strcmp(argv[1], "--") ? 2 : 1;
  if (first >= argc) {
    fputs("usage: shoal-init [--] PROGRAM [ARGUMENTS]\n", stderr);
    return 2;
  }
  sigset_t all, before;
  sigfillset(&all);
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&all, own[i]);
  if (sigprocmask(SIG_SETMASK, &all, &before) < 0) {
    perror("shoal-init: sigprocmask");
    return 1;
  }
  // The program owns the terminal: this process, in the background now, must be able to write all the same.
  signal(SIGTTIN, SIG_IGN);
  signal(SIGTTOU, SIG_IGN);
  // In a shared pid namespace orphans would go to the host's init.
  if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) perror("shoal-init: PR_SET_CHILD_SUBREAPER");
  pid_t program = fork();
  if (program < 0) {
    perror("shoal-init: fork");
    return 1;
  }
  if (program == 0) become(argv + first, &before);
  for (;;) {
    siginfo_t info;
    int sig = sigwaitinfo(&all, &info), status;
    if (sig < 0) continue;  // EINTR: stopped and continued
    if (sig == SIGCHLD) {
      if (bury(program, &status)) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    } else if (kill(program, sig) < 0 && errno != ESRCH) {
      fprintf(stderr, "shoal-init: cannot pass signal %d on: %s\n", sig, strerror(errno));
    }
  }
}
