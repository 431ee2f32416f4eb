// Programs that the shim starts beside the container: the compressor of its log, and the way to a log server by TLS.
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>

#include "shim.h"

// `fd0`: its descriptor 0; -1: the shim's. What else the shim holds is closed in it. 0 with errno when it cannot be started.
pid_t helper_start(char *const argv[], int fd0) {
  posix_spawnattr_t attr;
  posix_spawn_file_actions_t files;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  // The shim's own signals are blocked or ignored: a helper takes them.
  (void)posix_spawnattr_init(&attr);
  (void)posix_spawnattr_setsigmask(&attr, &none);
  (void)posix_spawnattr_setsigdefault(&attr, &all);
  (void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  (void)posix_spawn_file_actions_init(&files);
  if (fd0 >= 0) (void)posix_spawn_file_actions_adddup2(&files, fd0, 0);
  char *envp[] = {NULL};
  pid_t pid = 0;
  int r = posix_spawn(&pid, argv[0], &files, &attr, argv, envp);
  (void)posix_spawn_file_actions_destroy(&files);
  (void)posix_spawnattr_destroy(&attr);
  return r == 0 ? pid : (errno = r, 0);
}
