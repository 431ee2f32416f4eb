// Thin names for system calls that musl 1.2.3 does not wrap. linux/mount.h and sys/mount.h do not agree with each other:
// only the kernel's is used, mount and umount2 included.
#pragma once
#include <linux/mount.h>
#include <stdint.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MNT_DETACH
#define MNT_FORCE 1
#define MNT_DETACH 2
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x200000
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif
#define PROC_MAGIC 0x9fa0
#define DEVPTS_MAGIC 0x1cd1
#define SYSFS_MAGIC 0x62656572

static inline int k_mount(const char *src, const char *dst, const char *type, unsigned long flags, const void *data) {
  return (int)syscall(SYS_mount, src, dst, type, flags, data);
}
static inline int k_umount(const char *dst, int flags) { return (int)syscall(SYS_umount2, dst, flags); }
static inline int k_open_tree(int dfd, const char *path, unsigned flags) {
  return (int)syscall(SYS_open_tree, dfd, path, flags);
}
static inline int k_move_mount(int fromfd, int tofd) {  // both by descriptor
  return (int)syscall(SYS_move_mount, fromfd, "", tofd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}
static inline int k_fsopen(const char *type) { return (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC); }
static inline int k_fsconfig(int fd, unsigned cmd, const char *key, const void *val, int aux) {
  return (int)syscall(SYS_fsconfig, fd, cmd, key, val, aux);
}
static inline int k_fsmount(int fd, unsigned attrs) { return (int)syscall(SYS_fsmount, fd, FSMOUNT_CLOEXEC, attrs); }
static inline int k_mount_setattr(int fd, unsigned flags, struct mount_attr *a) {
  return (int)syscall(SYS_mount_setattr, fd, "", flags | 0x1000 /* AT_EMPTY_PATH */, a, sizeof *a);
}
static inline int k_openat2(int dfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
  struct open_how how = {flags, mode, resolve};
  return (int)syscall(SYS_openat2, dfd, path, &how, sizeof how);
}
static inline int k_pivot_root(const char *a, const char *b) { return (int)syscall(SYS_pivot_root, a, b); }
static inline int k_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }
static inline int k_pidfd_send_signal(int fd, int sig) { return (int)syscall(SYS_pidfd_send_signal, fd, sig, 0, 0); }
static inline int k_close_range(unsigned first, unsigned last, unsigned flags) {
  return (int)syscall(SYS_close_range, first, last, flags);
}
