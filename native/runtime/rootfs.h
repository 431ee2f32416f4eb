#pragma once
#include "mount.h"

// The steps from "a new mount namespace" to "inside the container's root", in the order of docs/native.md.
int rootfs_attach(struct mount_plan *m, int tree, const struct json *overlay, const char *path, struct err *e);
int rootfs_pivot(const struct mount_plan *m, bool no_pivot, struct err *e);
int rootfs_seal(struct mount_plan *m, struct err *e);  // sysctl, masked and read-only paths, read-only root
// A file below /proc for writing, through a proc mount that nothing can have been laid over. -1 with errno.
int proc_open(const struct mount_plan *m, const char *below, int flags);
