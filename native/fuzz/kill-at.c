// kill-at WHICH WHOM N REPORT PROGRAM ARGUMENT...: becomes PROGRAM, and a tracer beside it sends SIGKILL at the N-th system call.
//
//   WHICH   whose calls are counted: 0 the program itself, 1 its first child, 2 the second one, and so on down the family
//   WHOM    "self": the process that makes the call, before it is done; or a process id; or "sh:COMMAND": nobody is killed, the shell's command is
//           run while the process stands before the call, as a neighbour would that wins every race
//   N       1 is the first call after the program's own execve (for children: their first call); 0 never kills
//   REPORT  gets "killed CALL\n" (the number of the system call), or "COUNT\n" when the process ended before
//
// The program keeps this process's id, parent and descriptors. The tracer is nobody's child here and ends with its report.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct tracee {
  pid_t pid;
  int gone;
} family[4096];
static int members;

static _Noreturn void die(const char *what) {
  fprintf(stderr, "kill-at: %s: %s\n", what, strerror(errno));
  _exit(125);
}

static int index_of(pid_t pid) {
  for (int i = members; i-- > 0;)
    if (family[i].pid == pid && !family[i].gone) return i;
  if (members == sizeof family / sizeof family[0]) die("too many processes");
  family[members].pid = pid;
  return members++;
}

static _Noreturn void report(const char *file, const char *text) {
  char part[4096];
  snprintf(part, sizeof part, "%s.part", file);
  int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0 || write(fd, text, strlen(text)) < 0 || rename(part, file) < 0) _exit(125);
  _exit(0);  // everybody that is still traced goes on alone
}

static void strike(const char *whom, pid_t self) {
  if (!strncmp(whom, "sh:", 3)) (void)!system(whom + 3);
  else if (kill(strcmp(whom, "self") ? (pid_t)atoi(whom) : self, SIGKILL) < 0) die("kill");
}

static _Noreturn void trace(int which, const char *whom, long n, const char *file) {
  long count = 0;
  int counting = which > 0;
  char text[64];
  for (;;) {
    int st;
    pid_t pid = waitpid(-1, &st, __WALL);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) break;
    int who = index_of(pid);
    if (!WIFSTOPPED(st)) {
      family[who].gone = 1;
      if (who == which) break;
      continue;
    }
    int sig = WSTOPSIG(st), event = st >> 16;
    int go = who == which && counting ? PTRACE_SYSCALL : PTRACE_CONT;
    if (sig == (SIGTRAP | 0x80)) {
      struct __ptrace_syscall_info info = {0};
      (void)ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
      if (info.op == PTRACE_SYSCALL_INFO_ENTRY && ++count == n) {
        strike(whom, pid);
        snprintf(text, sizeof text, "killed %lld\n", (long long)info.entry.nr);
        report(file, text);
      }
      sig = 0;
    } else if (event == PTRACE_EVENT_STOP && sig != SIGTRAP) {
      go = PTRACE_LISTEN;  // stopped as a group
      sig = 0;
    } else if (event) {
      unsigned long child;
      if (event != PTRACE_EVENT_STOP && event != PTRACE_EVENT_EXEC && ptrace(PTRACE_GETEVENTMSG, pid, 0, &child) == 0) (void)index_of((pid_t)child);
      if (event == PTRACE_EVENT_EXEC && who == which && !counting) {
        counting = 1;
        go = PTRACE_SYSCALL;
      }
      sig = 0;
    }
    (void)ptrace(go, pid, 0, sig);
  }
  snprintf(text, sizeof text, "%ld\n", count);
  report(file, text);
}

int main(int argc, char **argv) {
  if (argc < 6) {
    fprintf(stderr, "usage: kill-at WHICH self|PID|sh:COMMAND N REPORT PROGRAM [ARGUMENT...]\n");
    return 2;
  }
  int up[2];
  if (pipe2(up, O_CLOEXEC) < 0) die("pipe2");
  pid_t self = getpid(), between = fork();
  if (between < 0) die("fork");
  if (between == 0) {
    pid_t tracer = fork();
    if (tracer != 0) _exit(tracer < 0);
    char go = 'g';
    setsid();
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC;
    if (ptrace(PTRACE_SEIZE, self, 0, options) < 0) die("PTRACE_SEIZE");
    (void)index_of(self);
    if (write(up[1], &go, 1) != 1) die("write");
    // Nothing of the program's is held open: an end of file must be seen by whoever waits for it.
    syscall(SYS_close_range, 0, ~0u, 0);
    trace(atoi(argv[1]), argv[2], atol(argv[3]), argv[4]);
  }
  int st;
  char go;
  close(up[1]);
  if (waitpid(between, &st, 0) < 0 || st || read(up[0], &go, 1) != 1) die("no tracer");
  execvp(argv[5], argv + 5);
  die(argv[5]);
}
