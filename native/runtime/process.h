// The container's own process: who it is, what it may, and the last step into its program.
#pragma once
#include "caps.h"
#include "seccomp.h"

struct rlimits {
  int n;
  struct {
    int id;
    const char *name;
    uint64_t soft, hard;
  } of[16];
};

struct process {
  char **args, **env;
  const char *cwd;
  uid_t uid;
  gid_t gid;
  gid_t *groups;
  int n_groups;
  bool keep_groups;  // the runtime's own additional groups (annotation run.oci.keep_original_groups)
  int umask;  // -1: leave
  struct caps caps;
  struct rlimits rlimits;
  bool no_new_privs, terminal;
  int cols, rows;
  const char *apparmor, *selinux;
  const struct json *json, *personality, *memory_policy;
};
int process_parse(struct process *p, const struct json *process, const struct json *config, const char *init_path, struct err *e);
void process_free(struct process *p);
// By the parent, with its rights. Before the child begins: oom_score_adj, scheduler, I/O priority.
int process_limits(const struct process *p, pid_t pid, struct err *e);
// When the child is ready: it needs more descriptors than the process may be allowed.
int process_rlimits(const struct rlimits *l, pid_t pid, struct err *e);
// In an exec process, for itself; `when` is "initial" (before it enters the container's cgroup) or "final" (after that).
int process_affinity(const struct process *p, const char *when, struct err *e);
// In the child, inside the container, once everything is set up: directory, rights, filter. Then execve, which returns only with an error.
int process_become(struct process *p, const struct seccomp_filter *f, const char *id, bool keyring, int preserve_fds, struct err *e);
int process_exec(struct process *p, struct err *e);
