// Device nodes and the customary links in /dev.
#include "devices.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "kernel.h"
#include "mount.h"
#include "path.h"

static const struct device {
  const char *path;
  unsigned major, minor;
} standard[] = {{"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7},
                {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};

struct node {
  const char *path;
  mode_t type, mode;
  dev_t dev;
  uid_t uid;
  gid_t gid;
};

static int show_node(int rootfd, const struct node *d, int src, struct err *e) {
  autofd tree = k_open_tree(src, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | 0x1000 /* AT_EMPTY_PATH */);
  autofd at = make_in_root(rootfd, d->path, MAKE_FILE, e);
  if (at < 0) return -1;
  // Private: what linux.rootfsPropagation asks for is said of the root.
  if (tree < 0 || remount_attr(tree, 0, 0, MS_PRIVATE, false) < 0 || k_move_mount(tree, at) < 0)
    return fail(e, 0, "move_mount", d->path, "cannot bind %s: %s", d->path, strerror(errno));
  return 0;
}

// Where nodes cannot be made (user namespace), the host's own node is shown in that place, after a look at what it is.
static int bind_node(int rootfd, const struct node *d, struct err *e) {
  autofd src = open(d->path, O_PATH | O_CLOEXEC);
  struct stat st;
  if (src < 0 || fstat(src, &st) < 0) return fail(e, 0, "open", d->path, "cannot bind the host's %s: %s", d->path, strerror(errno));
  if ((st.st_mode & S_IFMT) != d->type || st.st_rdev != d->dev)
    return fail(e, EINVAL, "fstat", d->path, "the host's %s is not the device that is asked for", d->path);
  return show_node(rootfd, d, src, e);
}

static int make_node(int rootfd, const struct node *d, bool userns, struct err *e) {
  if (userns && d->type != S_IFIFO) return bind_node(rootfd, d, e);
  char name[256];
  autofd dir = parent_in_root(rootfd, d->path, name, e);
  if (dir < 0) return -1;
  if (mknodat(dir, name, d->type | d->mode, d->dev) < 0) {
    if (errno == EPERM) return bind_node(rootfd, d, e);
    // It may be there already: good when it is the same device, an error when it is something else.
    if (errno != EEXIST) return fail(e, 0, "mknodat", d->path, "cannot make the device %s: %s", d->path, strerror(errno));
  }
  // By descriptor: the directory may be a volume's, and a neighbour may put a link to a file of the host in the node's place.
  autofd node = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  struct stat st;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", node);
  if (node < 0 || fstat(node, &st) < 0 || (st.st_mode & S_IFMT) != d->type || st.st_rdev != d->dev)
    return fail(e, EEXIST, "mknodat", d->path, "%s exists in the image and is not the device that is asked for", d->path);
  if (fchownat(node, "", d->uid, d->gid, AT_EMPTY_PATH) < 0 || chmod(link, d->mode) < 0)
    return fail(e, 0, "chmod", d->path, "cannot set owner and mode of %s: %s", d->path, strerror(errno));
  return 0;
}

static int parse_node(struct node *d, const struct json *o, struct err *e) {
  const char *type = j_gets(o, "type");
  d->path = j_gets(o, "path");
  if (!d->path || d->path[0] != '/') return fail(e, EINVAL, "parse", "linux.devices", "a device needs an absolute path");
  if (!type) type = "";
  if (*type == 'b') d->type = S_IFBLK;
  else if (*type == 'p') d->type = S_IFIFO;
  else if (*type == 'c' || *type == 'u') d->type = S_IFCHR;
  else return fail(e, EINVAL, "parse", d->path, "unknown device type '%s' of %s: use c, b, u or p", type, d->path);
  d->dev = d->type == S_IFIFO ? 0 : makedev((unsigned)j_uint(j_get(o, "major"), 0), (unsigned)j_uint(j_get(o, "minor"), 0));
  d->mode = (mode_t)(j_int(j_get(o, "fileMode"), 0666) & 07777);
  d->uid = (uid_t)j_uint(j_get(o, "uid"), 0);
  d->gid = (gid_t)j_uint(j_get(o, "gid"), 0);
  return 0;
}

// The host's id behind one of the container's. Without a map root is who runs this (namespaces.c).
static bool host_id(const struct json *maps, uint32_t id, uint32_t own, uint32_t *out) {
  *out = own;
  if (!j_items(maps)) return id == 0;
  J_EACH(m, maps) {
    uint64_t from = j_uint(j_get(m, "containerID"), 0), n = j_uint(j_get(m, "size"), 0);
    *out = (uint32_t)(j_uint(j_get(m, "hostID"), 0) + (id - from));
    if (id >= from && id - from < n) return true;
  }
  return false;
}

int devices_prepare(const struct json *config, struct err *e) {
  STAGE("device");
  const struct json *list = j_path(config, "linux.devices");
  *e = (struct err){0};
  if (!j_items(list)) return -1;
  char *const mode[] = {"mode=755", NULL};
  struct err ignored;
  autofd fs = fs_open_mount("tmpfs", "tmpfs", mode, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, &ignored);
  if (fs < 0) return -1;
  int i = 0;
  J_EACH(o, list) {
    struct node d;
    char name[16];
    snprintf(name, sizeof name, "%d", i++);
    if (parse_node(&d, o, e) < 0) return -1;
    if (d.type == S_IFIFO) continue;
    uint32_t uid, gid;
    if (!host_id(j_path(config, "linux.uidMappings"), d.uid, geteuid(), &uid) ||
        !host_id(j_path(config, "linux.gidMappings"), d.gid, getegid(), &gid))
      return -1;  // an owner that the container does not know
    if (mknodat(fs, name, d.type | d.mode, d.dev) < 0 || fchownat(fs, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 || fchmodat(fs, name, d.mode, 0) < 0)
      return -1;  // no right to: see above
  }
  return steal_fd(&fs);
}

// Clones can only be made of what is attached in this mount namespace: the tmpfs lies over the root for that while.
static int show_made(int rootfd, const struct json *list, int made, struct err *e) {
  if (k_move_mount(made, rootfd) < 0) return fail(e, 0, "move_mount", "/", "cannot attach the device nodes: %s", strerror(errno));
  int i = 0, r = 0;
  J_EACH(o, list) {
    struct node d;
    char name[16];
    snprintf(name, sizeof name, "%d", i++);
    if ((r = parse_node(&d, o, e)) < 0) break;
    if (d.type == S_IFIFO) {
      if ((r = make_node(rootfd, &d, true, e)) < 0) break;
      continue;
    }
    autofd src = openat(made, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    r = src < 0 ? fail(e, 0, "openat", d.path, "cannot open the node of %s: %s", d.path, strerror(errno)) : show_node(rootfd, &d, src, e);
    if (r < 0) break;
  }
  if (r == 0 && (fchdir(made) < 0 || k_umount(".", MNT_DETACH) < 0 || chdir("/") < 0))
    r = fail(e, 0, "umount2", "/", "cannot detach the device nodes: %s", strerror(errno));
  return r;
}

int devices_make(int rootfd, const struct json *config, bool userns, int made, struct err *e) {
  STAGE("device");
  const struct json *list = j_path(config, "linux.devices");
  for (size_t i = 0; i < sizeof standard / sizeof standard[0]; i++) {
    bool own = false;  // the bundle's own description of a standard device wins
    J_EACH(o, list) own |= j_gets(o, "path") && !strcmp(j_gets(o, "path"), standard[i].path);
    struct node d = {standard[i].path, S_IFCHR, 0666, makedev(standard[i].major, standard[i].minor), 0, 0};
    if (!own && make_node(rootfd, &d, userns, e) < 0) return -1;
  }
  if (made >= 0) return show_made(rootfd, list, made, e);
  J_EACH(o, list) {
    struct node d;
    if (parse_node(&d, o, e) < 0 || make_node(rootfd, &d, userns, e) < 0) return -1;
  }
  return 0;
}

int devices_links(int rootfd, struct err *e) {
  STAGE("device");
  static const char *const links[][2] = {{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
                                         {"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"}};
  autofd dev = make_in_root(rootfd, "/dev", MAKE_DIR, e);
  if (dev < 0) return -1;
  for (size_t i = 0; i < 5; i++) {
    if (i == 4 && access("/proc/kcore", F_OK) < 0) continue;
    if (symlinkat(links[i][0], dev, links[i][1]) < 0 && errno != EEXIST)
      return fail(e, 0, "symlinkat", links[i][1], "cannot link /dev/%s: %s", links[i][1], strerror(errno));
  }
  // /dev/ptmx of the image would open the host's terminals: it has to be the one of the container's own devpts.
  if (faccessat(dev, "pts/ptmx", F_OK, AT_SYMLINK_NOFOLLOW) < 0) return 0;
  if (symlinkat("pts/ptmx", dev, "ptmx") < 0) {
    if (errno != EEXIST) return fail(e, 0, "symlinkat", "/dev/ptmx", "cannot link /dev/ptmx: %s", strerror(errno));
    char now[16] = "";
    if (readlinkat(dev, "ptmx", now, sizeof now - 1) > 0 && !strcmp(now, "pts/ptmx")) return 0;
    if (unlinkat(dev, "ptmx", 0) < 0 || symlinkat("pts/ptmx", dev, "ptmx") < 0)
      return fail(e, 0, "symlinkat", "/dev/ptmx", "cannot replace /dev/ptmx: %s", strerror(errno));
  }
  return 0;
}
