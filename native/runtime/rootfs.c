#include "rootfs.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "kernel.h"
#include "path.h"

static int propagation(const struct json *config, unsigned long *out, struct err *e) {
  static const struct {
    const char *name;
    unsigned long flags;
  } table[] = {{"shared", MS_SHARED},   {"rshared", MS_SHARED | MS_REC},   {"slave", MS_SLAVE},           {"rslave", MS_SLAVE | MS_REC},
               {"private", MS_PRIVATE}, {"rprivate", MS_PRIVATE | MS_REC}, {"unbindable", MS_UNBINDABLE}, {"runbindable", MS_UNBINDABLE | MS_REC}};
  const char *want = j_gets(j_get(config, "linux"), "rootfsPropagation");
  *out = MS_SLAVE | MS_REC;
  if (!want || !*want) return 0;
  for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
    if (!strcmp(want, table[i].name)) return *out = table[i].flags, 0;
  return fail(e, EINVAL, "parse", "linux.rootfsPropagation", "unknown propagation '%s'", want);
}

// pivot_root refuses a root whose parent mount is shared, and nothing that is mounted here may show on the host.
static int parent_private(const char *path, struct err *e) {
  char p[PATH_MAX];
  if (!realpath(path, p)) return fail(e, 0, "realpath", path, "cannot resolve %s: %s", path, strerror(errno));
  for (;;) {
    if (k_mount(NULL, p, NULL, MS_PRIVATE, NULL) == 0) return 0;
    if (errno != EINVAL) return fail(e, 0, "mount", p, "cannot make the mount above the root private: %s", strerror(errno));
    char *slash = strrchr(p, '/');
    if (slash == p && !p[1]) return 0;
    slash[slash == p] = 0;
  }
}

int rootfs_attach(struct mount_plan *m, int tree, const struct json *overlay, const char *path, struct err *e) {
  unsigned long flags;
  if (propagation(m->config, &flags, e) < 0) return -1;
  STAGE("rootfs");
  // Unbindable would forbid the very binds that follow; the wish is granted to the new root at the end.
  unsigned long first = (flags & MS_UNBINDABLE ? MS_PRIVATE : flags) | MS_REC;
  if (k_mount(NULL, "/", NULL, first, NULL) < 0) return fail(e, 0, "mount", "/", "cannot set the propagation of /: %s", strerror(errno));
  if ((flags & MS_SHARED) && parent_private(path, e) < 0) return -1;
  if (overlay && tree < 0) {
    if (overlay_mount_old(overlay, path, e) < 0) return -1;
    m->rootfd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return m->rootfd < 0 ? fail(e, 0, "open", path, "cannot open %s: %s", path, strerror(errno)) : 0;
  }
  if (tree < 0) {
    tree = k_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree < 0) return fail(e, 0, "open_tree", path, "cannot bind the root file system %s: %s", path, strerror(errno));
  }
  // In a user namespace the way to the bundle may be closed to this process; any directory serves as the place of the new root.
  static const char *const places[] = {NULL, "/mnt", "/tmp", "/var", "/usr"};
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    autofd at = open(i ? places[i] : path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0 && m->userns && (errno == EACCES || errno == ENOENT || errno == EOVERFLOW)) continue;
    if (at < 0) return fail(e, 0, "open", path, "cannot open the root file system %s: %s", path, strerror(errno));
    if (k_move_mount(tree, at) < 0) return fail(e, 0, "move_mount", path, "cannot mount the root file system on %s: %s", path, strerror(errno));
    m->rootfd = tree;
    return 0;
  }
  return fail(e, EACCES, "open", path, "no directory can be reached to put the root file system on");
}

// Without pivot_root the host's mounts stay in the namespace, out of reach. A whole proc or sysfs among them would allow a user namespace in
// the container to mount another one, with nothing masked: they go.
static int hide_whole(const struct mount_plan *m, struct err *e) {
  char link[64], root[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", m->rootfd);
  ssize_t len = readlink(link, root, sizeof root - 1);
  autobuf table = {0};
  if (len < 0 || read_file_at(AT_FDCWD, "/proc/self/mountinfo", &table, 16 << 20) < 0)
    return fail(e, 0, "open", "/proc/self/mountinfo", "cannot read the mount table: %s", strerror(errno));
  char *save = NULL;
  for (char *line = strtok_r(table.p, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    char of[PATH_MAX], at[PATH_MAX];
    const char *dash = strstr(line, " - ");
    if (!dash || (strncmp(dash, " - proc ", 8) && strncmp(dash, " - sysfs ", 9))) continue;
    if (sscanf(line, "%*s %*s %*s %4095s %4095s", of, at) != 2 || strcmp(of, "/")) continue;
    mountinfo_unescape(at);
    if (!strncmp(at, root, (size_t)len) && (at[len] == '/' || !at[len])) continue;
    // One that lies below another is gone with it.
    if (k_mount(NULL, at, NULL, MS_PRIVATE | MS_REC, NULL) < 0 && errno != ENOENT && errno != EINVAL)
      return fail(e, 0, "mount", at, "cannot make %s private: %s", at, strerror(errno));
    if (k_umount(at, MNT_DETACH) == 0 || errno == ENOENT) continue;
    if ((errno != EINVAL && errno != EPERM) || k_mount("tmpfs", at, "tmpfs", 0, NULL) < 0)
      return fail(e, 0, "umount2", at, "cannot hide the host's %s: %s", at, strerror(errno));
  }
  return 0;
}

int rootfs_pivot(const struct mount_plan *m, bool no_pivot, struct err *e) {
  STAGE("pivot");
  autofd old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (old < 0 || fchdir(m->rootfd) < 0) return fail(e, 0, "fchdir", "/", "cannot enter the new root: %s", strerror(errno));
  if (no_pivot) {
    if (hide_whole(m, e) < 0) return -1;
    if (k_mount(".", "/", NULL, MS_MOVE, NULL) < 0) return fail(e, 0, "mount", "/", "cannot move the new root to /: %s", strerror(errno));
    if (chroot(".") < 0) return fail(e, 0, "chroot", ".", "cannot change the root: %s", strerror(errno));
  } else {
    // Old root and new root on the same directory: no place for the old one has to be found in the image.
    if (k_pivot_root(".", ".") < 0) return fail(e, 0, "pivot_root", ".", "cannot change the root: %s", strerror(errno));
    if (fchdir(old) < 0 || k_mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) < 0 || k_umount(".", MNT_DETACH) < 0)
      return fail(e, 0, "umount2", "/", "cannot leave the old root: %s", strerror(errno));
  }
  if (chdir("/") < 0) return fail(e, 0, "chdir", "/", "cannot enter the new root: %s", strerror(errno));
  return 0;
}

int proc_open(const struct mount_plan *m, const char *below, int flags) {
  autofd own = -1;
  if (!m || m->procfd < 0) {
    struct err ignored;
    own = fs_open_mount("proc", "proc", NULL, 0, &ignored);
    if (own < 0) return -1;
  }
  return k_openat2(own >= 0 ? own : m->procfd, below, (uint64_t)(unsigned)(flags | O_CLOEXEC), 0,
                   RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
}

// Only what belongs to a namespace of the container may be set; anything else would change the host.
static bool sysctl_allowed(const char *key, unsigned long own) {
  static const char *const ipc[] = {"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
                                    "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.msg_next_id", "kernel.sem_next_id",
                                    "kernel.shm_next_id"};
  for (size_t i = 0; i < sizeof ipc / sizeof ipc[0]; i++)
    if (!strcmp(key, ipc[i])) return own & CLONE_NEWIPC;
  if (!strncmp(key, "fs.mqueue.", 10)) return own & CLONE_NEWIPC;
  if (!strncmp(key, "net.", 4)) return own & CLONE_NEWNET;
  if (!strcmp(key, "kernel.domainname")) return own & CLONE_NEWUTS;
  return !strncmp(key, "user.", 5) && (own & CLONE_NEWUSER);
}

static bool has_odd_part(const char *path) {
  for (const char *p = path;; p++) {
    size_t n = strcspn(p, "/");
    if (n == 0 || (n <= 2 && strspn(p, ".") >= n)) return true;
    p += n;
    if (!*p) return false;
  }
}

static int sysctls(const struct mount_plan *m, struct err *e) {
  STAGE("sysctl");
  unsigned long own = 0;
  J_EACH(n, j_path(m->config, "linux.namespaces")) {
    const char *t = j_gets(n, "type");
    if (!t) continue;
    own |= !strcmp(t, "network") ? CLONE_NEWNET : !strcmp(t, "ipc") ? CLONE_NEWIPC : !strcmp(t, "uts") ? CLONE_NEWUTS
           : !strcmp(t, "user") ? CLONE_NEWUSER : 0;
  }
  J_EACH(s, j_path(m->config, "linux.sysctl")) {
    if (!j_str(s)) return fail(e, EINVAL, "parse", s->key, "the sysctl %s must be a string", s->key);
    autofree char *dots = xstrdup(s->key), *path = xasprintf("sys/%s", s->key);
    // Either form names one file: dots separate, or slashes do and dots are part of a name (net/ipv4/conf/eth0.1/forwarding).
    bool slashes = strchr(s->key, '/');
    for (char *p = dots; *p; p++)
      if (*p == '/') *p = '.';
    for (char *p = path + 4; !slashes && *p; p++)
      if (*p == '.') *p = '/';
    if (has_odd_part(path)) return fail(e, EINVAL, "sysctl", s->key, "the sysctl %s contains an invalid path", s->key);
    if (!strcmp(dots, "kernel.hostname"))
      return fail(e, EINVAL, "sysctl", s->key, "the sysctl %s is not taken: name the container by the field hostname", s->key);
    const char *domain = !strcmp(dots, "kernel.domainname") ? j_gets(m->config, "domainname") : NULL;
    if (domain && strcmp(domain, s->s))
      return fail(e, EINVAL, "sysctl", s->key, "the sysctl %s and the field domainname both name the container: leave one out", s->key);
    if (!sysctl_allowed(dots, own))
      return fail(e, EPERM, "sysctl", s->key, "the sysctl %s does not belong to a namespace of the container: it would change the host", s->key);
    autofd fd = proc_open(m, path, O_WRONLY);
    if (fd < 0 || write_all(fd, s->s, strlen(s->s)) < 0)
      return fail(e, 0, "write", s->key, "cannot set the sysctl %s to '%s': %s", s->key, s->s, strerror(errno));
  }
  return 0;
}

static int cover(int at, int tree, const char *path, struct err *e) {
  if (tree < 0 || k_move_mount(tree, at) < 0) return fail(e, 0, "move_mount", path, "cannot mask %s: %s", path, strerror(errno));
  return 0;
}

// One empty read-only tmpfs stands for all masked directories; the container's /dev/null, checked to be that, for all masked files.
static int masked(const struct mount_plan *m, struct err *e) {
  STAGE("mount");
  autofd empty = -1, null = -1;
  J_EACH(p, j_path(m->config, "linux.maskedPaths")) {
    if (!j_str(p)) return fail(e, EINVAL, "parse", "linux.maskedPaths", "linux.maskedPaths must hold strings");
    autofd at = open_in_root(m->rootfd, p->s, O_PATH);
    struct stat st;
    if (at < 0 && (errno == ENOENT || errno == ENOTDIR || errno == EACCES)) continue;
    if (at < 0 || fstat(at, &st) < 0) return fail(e, 0, "openat2", p->s, "cannot open %s to mask it: %s", p->s, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
      autofd tree = -1;
      if (empty < 0) {
        char *const opts[] = {"nr_blocks=1", "nr_inodes=1", NULL};
        empty = fs_open_mount("tmpfs", "tmpfs", opts, MOUNT_ATTR_RDONLY, e);
        if (empty < 0) return -1;
        if (cover(at, empty, p->s, e) < 0) return -1;
        continue;
      }
      tree = k_open_tree(empty, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | 0x1000);
      if (cover(at, tree, p->s, e) < 0) return -1;
      continue;
    }
    if (null < 0) {
      null = k_openat2(m->rootfd, "dev/null", O_PATH | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
      struct stat dev;
      if (null < 0 || fstat(null, &dev) < 0) return fail(e, 0, "openat2", "/dev/null", "cannot open /dev/null to mask files: %s", strerror(errno));
      if (!S_ISCHR(dev.st_mode) || dev.st_rdev != makedev(1, 3))
        return fail(e, EINVAL, "fstat", "/dev/null", "/dev/null of the container is not the null device: refusing to mask %s with it", p->s);
    }
    autofd tree = k_open_tree(null, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | 0x1000);
    if (cover(at, tree, p->s, e) < 0) return -1;
  }
  return 0;
}

static int readonly(const struct mount_plan *m, struct err *e) {
  J_EACH(p, j_path(m->config, "linux.readonlyPaths")) {
    if (!j_str(p)) return fail(e, EINVAL, "parse", "linux.readonlyPaths", "linux.readonlyPaths must hold strings");
    autofd at = open_in_root(m->rootfd, p->s, O_PATH);
    if (at < 0 && (errno == ENOENT || errno == ENOTDIR)) continue;
    if (at < 0) return fail(e, 0, "openat2", p->s, "cannot open %s to make it read-only: %s", p->s, strerror(errno));
    autofd tree = k_open_tree(at, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | 0x1000);
    if (tree < 0 || remount_attr(tree, MOUNT_ATTR_RDONLY, 0, 0, true) < 0 || k_move_mount(tree, at) < 0)
      return fail(e, 0, "mount_setattr", p->s, "cannot make %s read-only: %s", p->s, strerror(errno));
  }
  return 0;
}

int rootfs_seal(struct mount_plan *m, struct err *e) {
  if (sysctls(m, e) < 0 || readonly(m, e) < 0 || masked(m, e) < 0 || mounts_finish(m, e) < 0) return -1;
  STAGE("rootfs");
  if (j_bool(j_path(m->config, "root.readonly"), false) && remount_attr(m->rootfd, MOUNT_ATTR_RDONLY, 0, 0, false) < 0)
    return fail(e, 0, "mount_setattr", "/", "cannot make the root file system read-only: %s", strerror(errno));
  unsigned long flags;
  if (propagation(m->config, &flags, e) < 0) return -1;
  if (j_path(m->config, "linux.rootfsPropagation") && remount_attr(m->rootfd, 0, 0, flags & ~(unsigned long)MS_REC, flags & MS_REC) < 0)
    return fail(e, 0, "mount_setattr", "/", "cannot set the propagation of the root: %s", strerror(errno));
  return 0;
}
