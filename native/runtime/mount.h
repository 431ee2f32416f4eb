// The mounts of a container, made by descriptor: source and target are opened first, checked, and only then joined.
#pragma once
#include "cgroup.h"
#include "json.h"

struct mount_plan {
  const struct json *config;
  const char *bundle;  // relative bind sources start here
  const struct cgroup *cg;
  bool cgroupns, userns;
  bool early;    // the parent has rights that the child has not: it opens what is to be bound
  int rootfd;    // the container's root, a mount point; O_PATH
  int procfd;    // root of the container's /proc as it was mounted, nothing over it; -1
  int *tree_fd;  // by mount index: detached source opened by the parent (user namespace, idmap); -1
  int n;
  int *late_ro;  // mounts that become read-only when everything below them is in place
  int n_late;
};

// In the parent, before clone: what the child could not open once it is in its user namespace.
int mounts_prepare(struct mount_plan *m, struct err *e);
int mounts_do(struct mount_plan *m, struct err *e);  // in the child, in order
int mounts_finish(struct mount_plan *m, struct err *e);
void mounts_free(struct mount_plan *m);

// Overlay of shim.json as a detached mount. -2: this kernel wants overlay_mount_old instead.
int overlay_open(const struct json *rootfs, struct err *e);
int overlay_mount_old(const struct json *rootfs, const char *target, struct err *e);
// A new file system of that type as a detached mount; options "key=value" or "flag". -1 with e filled.
int fs_open_mount(const char *type, const char *source, char *const *options, unsigned attrs, struct err *e);
int remount_attr(int fd, uint64_t set, uint64_t clr, unsigned long propagation, bool recursive);  // -1 with errno
// Copies what stands in a directory into another one (tmpcopyup): files, links, devices; owners, modes and times kept.
int copy_up(int from, int to, struct err *e);
