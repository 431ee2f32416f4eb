// A container from a bundle to a running process. The parent's half is container.c, the child's is init.c.
//
//   parent                                   child (first process of the container)
//   cgroup, sources that need its rights
//   clone with the new namespaces       ->
//   id maps, priorities                      goes into its cgroup, waits
//   GO                                  ->   root, mounts, devices
//   prestart, createRuntime hooks       <-   HOOKS
//   HOOKS                               ->   createContainer hooks, pivot_root, sysctl, masks, names, terminal
//                                       <-   CONSOLE (with the terminal's descriptor)
//   rlimits                             <-   READY                                     "created"
//   START                               ->   startContainer hooks, rights, filter, execve
//                                       <-   end of file: execve worked; ERROR: it did not "running"
#pragma once
#include "cgroup.h"
#include "namespaces.h"
#include "process.h"

enum sync_kind { SYNC_GO = 'G', SYNC_HOOKS = 'H', SYNC_CONSOLE = 'C', SYNC_READY = 'R', SYNC_START = 'S', SYNC_ERROR = 'E' };
struct sync_msg {
  char kind;
  struct err err;
};

struct container {
  // what is wanted
  const char *id, *bundle;
  const struct json *config, *overlay;
  const char *init_path;
  struct cgroup cg;
  struct seccomp_filter filter;
  int stdio[3];  // -1: the caller's own
  int cols, rows;
  bool terminal, no_pivot, no_new_keyring;
  bool shared;  // others are in its cgroup already: they do not end where the creation fails
  int preserve_fds;
  int listen_fd;  // the child waits for START on connections to this listening socket instead; -1
  // what came out
  pid_t pid;
  int pidfd, sync, master;
};

void container_init(struct container *c);
int container_create(struct container *c, struct err *e);  // undoes everything itself when it fails
int container_start(struct container *c, struct err *e);
int start_send(int sync, struct err *e);
int start_result(int sync, struct err *e);  // as exec_went
void container_kill(struct container *c);  // SIGKILL to the first process, reaped
int sync_send(int fd, char kind, const struct err *e);
int sync_recv(int fd, struct sync_msg *m, int *passed);  // 1 message, 0 end of file, -1 error
void close_all_except(int *keep, int n);

// init.c
struct mount_plan;
struct birth {  // what the child gets beside the container
  struct process *p;
  struct namespaces *ns;
  struct mount_plan *m;
  struct cgroup_door door;
  int tree;     // the root, where it was opened with the host's rights; -1
  int devices;  // nodes that were made with the host's rights; -1
  int sync;
};
_Noreturn void container_child(struct container *c, struct birth *b);
// The last stretch, shared with exec: waits for START, reports errors, becomes the program.
_Noreturn void child_start(struct process *p, const struct seccomp_filter *f, const struct json *config, const char *id, const char *bundle,
                           bool keyring, int preserve_fds, int sync, int listen_fd);
_Noreturn void child_fail(int sync, const struct err *e);
void child_signals(void);
void listener_metadata(struct seccomp_filter *f, const struct json *config, const char *id, const char *bundle, const char *status, pid_t first);

// exec.c: another process in a running container
struct exec {
  pid_t target;  // any process of the container
  uint64_t ticks;  // its start; 0: it is a child of this process, whose number nobody else can have
  const char *id, *bundle;
  const struct json *config, *process;
  const struct cgroup *cg;
  const char *const *below;  // see cgroup_open_door
  struct seccomp_filter filter;
  int stdio[3];
  int cols, rows;
  bool terminal;
  int preserve_fds;
  struct rlimits rlimits;  // until it is ready
  pid_t pid;
  int pidfd, sync, master;
};
// Its process is on the territory of the container's programs as soon as it is made: these can stop it for as long as they like. Who may not
// wait takes the steps one by one, with x->sync made non-blocking: exec_spawn; exec_follow whenever x->sync is readable, until it says 1; exec_go;
// exec_went whenever it is readable, until it says 1.
int exec_spawn(struct exec *x, struct err *e);
int exec_follow(struct exec *x, struct err *e);  // 1: ready; 0: no more to read now, -1: it ends, or has ended
int exec_go(struct exec *x, struct err *e);
int exec_went(struct exec *x, struct err *e);  // 1: the program runs; 0: not known yet; -1: it does not
int exec_create(struct exec *x, struct err *e);  // spawn and follow
int foreign_namespaces(pid_t target, unsigned long *flags, struct err *e);  // CLONE_NEW* that differ from this process's own
int exec_start(struct exec *x, struct err *e);  // go and went

// selfexec.c: see there. Call first thing in main.
int self_protect(char *const argv[], struct err *e);
