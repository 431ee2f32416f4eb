#pragma once
#include "json.h"

struct namespaces {
  unsigned long fresh;  // CLONE_NEW* to make
  unsigned long join;   // CLONE_NEW* to enter by path
  int join_fd[8];       // by index of namespace_table; -1
  const struct json *time_offsets, *uid_map, *gid_map;
};
struct namespace_kind {
  const char *name, *proc;  // name in config.json, file in /proc/PID/ns
  unsigned long flag;
};
extern const struct namespace_kind namespace_table[8];

int namespaces_parse(struct namespaces *ns, const struct json *linux_obj, struct err *e);
void namespaces_close(struct namespaces *ns);
// In the parent, before and after clone: enters what the child shall inherit (pid, net, ipc, uts, time), then goes back.
struct namespaces_saved {
  int fd[8];
};
int namespaces_enter(const struct namespaces *ns, struct namespaces_saved *saved, struct err *e);
int namespaces_return(struct namespaces_saved *saved, struct err *e);
// In the child: joins user, mount and cgroup namespaces given by path.
int namespaces_join_late(const struct namespaces *ns, unsigned long which, struct err *e);
// In the parent: /proc/PID/{uid,gid}_map.
int idmap_write(pid_t pid, const struct json *uids, const struct json *gids, struct err *e);
// A user namespace with the given maps that belongs to no process, for idmapped mounts.
int userns_fd_for_maps(const struct json *uids, const struct json *gids, struct err *e);
// What the first process makes by itself, after the id maps: the root of a cgroup namespace is the group that its maker is in, and the message
// queues of an ipc namespace belong to its maker, who has to be the root of the user namespace by then. Time is the parent's (namespaces_enter).
unsigned long namespaces_late(const struct namespaces *ns);
pid_t clone_process(unsigned long flags, int cgroup_fd, int *pidfd);
// The same from within namespaces that this process itself cannot enter or must not stay in: a helper joins them and has the child as its
// sibling. Returns 0 in the child.
pid_t clone_from(int (*join)(void *arg, struct err *e), void *arg, unsigned long flags, int cgroup_fd, int *pidfd, struct err *e);
