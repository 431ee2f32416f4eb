// Control groups. Every controller is looked up in mountinfo: it may sit in a v1 hierarchy of its own, share one, or be in the v2 tree,
// and one host may mix all three.
#pragma once
#include "json.h"

enum { CGROUP_TREES = 24 };
struct cgroup_tree {
  char *mount;        // where the hierarchy is mounted
  char *controllers;  // v1: ",cpu,cpuacct,"; v2: those of cgroup.controllers, likewise
  char *dir;          // mount + the container's path
  bool v2;
};
struct cgroup {
  char *path;
  struct cgroup_tree tree[CGROUP_TREES];
  int n;
};

// Finds the hierarchies; path is absolute ("/shoal/ID") or empty for none.
int cgroup_find(struct cgroup *cg, const char *path, struct err *e);
void cgroup_free(struct cgroup *cg);
const struct cgroup_tree *cgroup_tree_of(const struct cgroup *cg, const char *controller);  // NULL: not available
const struct cgroup_tree *cgroup_v2(const struct cgroup *cg);

int cgroup_make(const struct cgroup *cg, struct err *e);

// The way of a new process into its groups, opened by its parent. v2: it is born there (`into`, for clone_process). v1: it writes itself into
// `tasks` of each hierarchy. Moving another process, or a whole process by cgroup.procs, makes the kernel wait for an RCU grace period (10 ms and
// more on an idle machine): what moves itself, and has one thread, need not wait (since Linux 5.19).
struct cgroup_door {
  int into, tasks[CGROUP_TREES], n;
};
// below: NULL, or PATH and CONTROLLER,...:PATH below the container's groups, NULL at the end.
int cgroup_open_door(const struct cgroup *cg, const char *const *below, struct cgroup_door *d, struct err *e);
int cgroup_follow(const struct cgroup *cg, pid_t pid, struct cgroup_door *d);  // v2: into the group below the container's that a process has gone to
int cgroup_enter(const struct cgroup_door *d, const struct cgroup *cg, struct err *e);                  // in the new process
void cgroup_close_door(struct cgroup_door *d);
int cgroup_apply(const struct cgroup *cg, const struct json *resources, struct err *e);
int cgroup_devices(const struct cgroup *cg, const struct json *rules, struct err *e);
int cgroup_freeze(const struct cgroup *cg, bool frozen, struct err *e);
// v1: thaws the group that a process really is in, where somebody has moved it: in a frozen one it does not even die.
void cgroup_thaw_process(const struct cgroup *cg, pid_t pid);
bool cgroup_frozen(const struct cgroup *cg);
void cgroup_signal(const struct cgroup *cg, int sig);                // SIGKILL also thaws
int cgroup_pids(const struct cgroup *cg, pid_t **out);              // all, also of groups below; number
int64_t cgroup_oom_kills(const struct cgroup *cg);                  // -1: unknown
bool cgroup_oom_waits(const struct cgroup *cg);                     // v1 without the killer: processes stand still for want of memory
int cgroup_oom_watch(const struct cgroup *cg);                      // eventfd (v1) or inotify (v2) that becomes readable; -1
int cgroup_remove(const struct cgroup *cg, struct err *e);          // kills what is left in it

// For the files of the controllers (cgroup-v1.c, cgroup-v2.c).
int cgroup_write(const struct cgroup_tree *t, const char *file, const char *value, struct err *e);
bool cgroup_has(const struct cgroup_tree *t, const char *file);
int cgroup_v1_apply(const struct cgroup *cg, const struct json *resources, struct err *e);
int cgroup_v2_apply(const struct cgroup *cg, const struct json *resources, struct err *e);
int devices_bpf_attach(const char *dir, const struct json *rules, struct err *e);
