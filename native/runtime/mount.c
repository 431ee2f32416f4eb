#include "mount.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>

#include "kernel.h"
#include "namespaces.h"
#include "path.h"

enum { PROPAGATION = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE };
enum option_kind { SET, CLEAR, SET_REC, CLEAR_REC, BIND, PROP, SB, NOTHING };

static const struct option {
  const char *name;
  enum option_kind kind;
  unsigned long value;
  bool rec;
} options[] = {
    {"ro", SET, MOUNT_ATTR_RDONLY},
    {"rw", CLEAR, MOUNT_ATTR_RDONLY},
    {"nosuid", SET, MOUNT_ATTR_NOSUID},
    {"suid", CLEAR, MOUNT_ATTR_NOSUID},
    {"nodev", SET, MOUNT_ATTR_NODEV},
    {"dev", CLEAR, MOUNT_ATTR_NODEV},
    {"noexec", SET, MOUNT_ATTR_NOEXEC},
    {"exec", CLEAR, MOUNT_ATTR_NOEXEC},
    {"noatime", SET, MOUNT_ATTR_NOATIME},
    {"atime", CLEAR, MOUNT_ATTR_NOATIME},
    {"relatime", SET, MOUNT_ATTR_RELATIME},
    {"norelatime", CLEAR, MOUNT_ATTR_RELATIME},
    {"strictatime", SET, MOUNT_ATTR_STRICTATIME},
    {"nostrictatime", CLEAR, MOUNT_ATTR_STRICTATIME},
    {"nodiratime", SET, MOUNT_ATTR_NODIRATIME},
    {"diratime", CLEAR, MOUNT_ATTR_NODIRATIME},
    {"nosymfollow", SET, MOUNT_ATTR_NOSYMFOLLOW},
    {"symfollow", CLEAR, MOUNT_ATTR_NOSYMFOLLOW},
    {"rro", SET_REC, MOUNT_ATTR_RDONLY},
    {"rrw", CLEAR_REC, MOUNT_ATTR_RDONLY},
    {"rnosuid", SET_REC, MOUNT_ATTR_NOSUID},
    {"rsuid", CLEAR_REC, MOUNT_ATTR_NOSUID},
    {"rnodev", SET_REC, MOUNT_ATTR_NODEV},
    {"rdev", CLEAR_REC, MOUNT_ATTR_NODEV},
    {"rnoexec", SET_REC, MOUNT_ATTR_NOEXEC},
    {"rexec", CLEAR_REC, MOUNT_ATTR_NOEXEC},
    {"rnoatime", SET_REC, MOUNT_ATTR_NOATIME},
    {"ratime", CLEAR_REC, MOUNT_ATTR_NOATIME},
    {"rrelatime", SET_REC, MOUNT_ATTR_RELATIME},
    {"rnorelatime", CLEAR_REC, MOUNT_ATTR_RELATIME},
    {"rstrictatime", SET_REC, MOUNT_ATTR_STRICTATIME},
    {"rnostrictatime", CLEAR_REC, MOUNT_ATTR_STRICTATIME},
    {"rnodiratime", SET_REC, MOUNT_ATTR_NODIRATIME},
    {"rdiratime", CLEAR_REC, MOUNT_ATTR_NODIRATIME},
    {"rnosymfollow", SET_REC, MOUNT_ATTR_NOSYMFOLLOW},
    {"rsymfollow", CLEAR_REC, MOUNT_ATTR_NOSYMFOLLOW},
    {"bind", BIND, 0, false},
    {"rbind", BIND, 0, true},
    {"private", PROP, MS_PRIVATE, false},
    {"rprivate", PROP, MS_PRIVATE, true},
    {"shared", PROP, MS_SHARED, false},
    {"rshared", PROP, MS_SHARED, true},
    {"slave", PROP, MS_SLAVE, false},
    {"rslave", PROP, MS_SLAVE, true},
    {"unbindable", PROP, MS_UNBINDABLE, false},
    {"runbindable", PROP, MS_UNBINDABLE, true},
    // Of the file system, not of the mount; handed on by the name the kernel knows.
    {"sync", SB, 0},
    {"dirsync", SB, 0},
    {"lazytime", SB, 0},
    {"mand", SB, 0},
    {"async", NOTHING, 0},
    {"nolazytime", NOTHING, 0},
    {"nomand", NOTHING, 0},
    {"defaults", NOTHING, 0},
    {"silent", NOTHING, 0},
    {"loud", NOTHING, 0},
    {"iversion", NOTHING, 0},
    {"noiversion", NOTHING, 0},
};

struct parsed {
  uint64_t set, clr, rset, rclr;
  unsigned long prop;
  bool prop_rec, bind, rec, copyup, idmap, ridmap, remount, src_nofollow, dest_nofollow, copy_symlink;
  char *data[64];
  int n_data;
};

static void apply(uint64_t *set, uint64_t *clr, const struct option *o, bool setting) {
  bool atime = o->value == MOUNT_ATTR_NOATIME || o->value == MOUNT_ATTR_STRICTATIME || o->value == MOUNT_ATTR_RELATIME;
  if (atime) {
    // One field of two bits. mount(2) has flags instead, and where several are given strictatime beats noatime, and that beats relatime,
    // in whatever order they come: so it is here. The values are in that order.
    uint64_t now = *set & MOUNT_ATTR__ATIME;
    *clr |= MOUNT_ATTR__ATIME;
    if (setting ? o->value > now : o->value == now) *set = (*set & ~(uint64_t)MOUNT_ATTR__ATIME) | (setting ? o->value : 0);
  } else if (setting) {
    *set |= o->value;
    *clr &= ~o->value;
  } else {
    *clr |= o->value;
    *set &= ~o->value;
  }
}

static int parse_options(struct parsed *p, const struct json *mnt, struct err *e) {
  *p = (struct parsed){0};
  const char *type = j_gets(mnt, "type");
  if (type && !strcmp(type, "bind")) p->bind = true;
  J_EACH(item, j_get(mnt, "options")) {
    const char *s = j_str(item);
    if (!s || !*s) continue;
    const struct option *o = NULL;
    for (size_t i = 0; i < sizeof options / sizeof options[0] && !o; i++)
      if (!strcmp(options[i].name, s)) o = &options[i];
    if (!o) {
      if (!strcmp(s, "tmpcopyup")) p->copyup = true;
      else if (!strcmp(s, "idmap")) p->idmap = true;
      else if (!strcmp(s, "ridmap")) p->idmap = p->ridmap = true;
      else if (!strcmp(s, "remount")) p->remount = true;
      else if (!strcmp(s, "src-nofollow")) p->src_nofollow = true;
      else if (!strcmp(s, "dest-nofollow")) p->dest_nofollow = true;
      else if (!strcmp(s, "copy-symlink")) p->copy_symlink = true;
      else if (p->n_data == 63) return fail(e, E2BIG, "parse", s, "more than 63 file system options on one mount");
      else p->data[p->n_data++] = (char *)s;
      continue;
    }
    switch (o->kind) {
      case SET: apply(&p->set, &p->clr, o, true); break;
      case CLEAR: apply(&p->set, &p->clr, o, false); break;
      case SET_REC: apply(&p->rset, &p->rclr, o, true); break;
      case CLEAR_REC: apply(&p->rset, &p->rclr, o, false); break;
      case BIND: p->bind = true, p->rec = o->rec; break;
      case PROP: p->prop = o->value, p->prop_rec = o->rec; break;
      case SB:
        if (p->n_data < 63) p->data[p->n_data++] = (char *)s;
        break;
      case NOTHING: break;
    }
  }
  if (j_items(j_get(mnt, "uidMappings"))) p->idmap = true;
  return 0;
}

int remount_attr(int fd, uint64_t set, uint64_t clr, unsigned long propagation, bool recursive) {
  struct mount_attr a = {.attr_set = set, .attr_clr = clr, .propagation = propagation};
  return k_mount_setattr(fd, recursive ? AT_RECURSIVE : 0, &a);
}

// The kernel's own words about a refused file system parameter, when it has some.
static void fs_message(int fsfd, char *out, size_t size) {
  ssize_t n = RETRY(read(fsfd, out, size - 1));
  if (n < 0) n = 0;
  while (n && out[n - 1] == '\n') n--;
  out[n] = 0;
}

int fs_open_mount(const char *type, const char *source, char *const *opts, unsigned attrs, struct err *e) {
  autofd fs = k_fsopen(type);
  if (fs < 0) return fail(e, 0, "fsopen", type, "cannot open a file system of type '%s': %s", type, strerror(errno));
  char msg[200];
  if (source && *source && k_fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) < 0)
    return fail(e, 0, "fsconfig", source, "cannot set the source of the %s mount: %s", type, strerror(errno));
  for (; opts && *opts; opts++) {
    const char *eq = strchr(*opts, '=');
    autofree char *key = eq ? xasprintf("%.*s", (int)(eq - *opts), *opts) : NULL;
    int r = eq ? k_fsconfig(fs, FSCONFIG_SET_STRING, key, eq + 1, 0) : k_fsconfig(fs, FSCONFIG_SET_FLAG, *opts, NULL, 0);
    if (r < 0) {
      int keep = errno;
      fs_message(fs, msg, sizeof msg);
      return fail(e, keep, "fsconfig", *opts, "the %s file system refuses option '%s': %s%s%s", type, *opts, strerror(keep),
                  *msg ? ": " : "", msg);
    }
  }
  if (k_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
    int keep = errno;
    fs_message(fs, msg, sizeof msg);
    return fail(e, keep, "fsconfig", type, "cannot make the %s file system: %s%s%s", type, strerror(keep), *msg ? ": " : "", msg);
  }
  int fd = k_fsmount(fs, attrs);
  if (fd < 0) return fail(e, 0, "fsmount", type, "cannot mount the %s file system: %s", type, strerror(errno));
  return fd;
}

static char *source_path(const struct mount_plan *m, const struct json *mnt) {
  const char *source = j_gets(mnt, "source");
  if (!source || !*source) return NULL;
  return source[0] == '/' ? xstrdup(source) : xasprintf("%s/%s", m->bundle, source);
}

// What a "copy-symlink" mount's source says, when it is a link: then there is nothing to mount. NULL otherwise.
static char *link_to_copy(const struct mount_plan *m, const struct json *mnt, const struct parsed *p) {
  autofree char *abs = p->copy_symlink ? source_path(m, mnt) : NULL;
  char text[PATH_MAX];
  ssize_t n = abs ? readlink(abs, text, sizeof text - 1) : -1;
  if (n < 0) return NULL;
  text[n] = 0;
  return xstrdup(text);
}

static int copy_link(struct mount_plan *m, const char *text, const char *dest, struct err *e) {
  char name[256], now[PATH_MAX];
  autofd dir = parent_in_root(m->rootfd, dest, name, e);
  if (dir < 0) return -1;
  if (symlinkat(text, dir, name) == 0) return 0;
  ssize_t n = errno == EEXIST ? readlinkat(dir, name, now, sizeof now - 1) : -1;
  if (n >= 0 && (size_t)n == strlen(text) && !memcmp(now, text, (size_t)n)) return 0;
  return fail(e, n < 0 ? 0 : EEXIST, "symlinkat", dest, "cannot make the link %s to %s: %s", dest, text, strerror(n < 0 ? errno : EEXIST));
}

static int bind_tree(struct mount_plan *m, const struct json *mnt, const struct parsed *p, struct err *e) {
  autofree char *abs = source_path(m, mnt);
  if (!abs) return fail(e, EINVAL, "parse", j_gets(mnt, "destination"), "a bind mount needs a source");
  autofd fd = k_open_tree(AT_FDCWD, abs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (p->rec ? AT_RECURSIVE : 0) | (p->src_nofollow ? AT_SYMLINK_NOFOLLOW : 0));
  if (fd < 0) return fail(e, 0, "open_tree", abs, "cannot bind %s: %s", abs, strerror(errno));
  if (p->idmap) {
    const struct json *u = j_get(mnt, "uidMappings"), *g = j_get(mnt, "gidMappings");
    if (!u) u = j_path(m->config, "linux.uidMappings");
    if (!g) g = j_path(m->config, "linux.gidMappings");
    if (!j_items(u) || !j_items(g)) return fail(e, EINVAL, "parse", abs, "an idmapped mount needs uidMappings and gidMappings");
    autofd ns = userns_fd_for_maps(u, g, e);
    if (ns < 0) return -1;
    STAGE("mount");
    struct mount_attr a = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)ns};
    if (k_mount_setattr(fd, p->ridmap ? AT_RECURSIVE : 0, &a) < 0)
      return fail(e, 0, "mount_setattr", abs, "cannot map the ids of the mount of %s (its file system may not support it): %s", abs,
                  strerror(errno));
  }
  return steal_fd(&fd);
}

int mounts_prepare(struct mount_plan *m, struct err *e) {
  STAGE("mount");
  const struct json *list = j_get(m->config, "mounts");
  m->n = list && list->type == J_ARR ? (int)list->n : 0;
  m->tree_fd = xalloc(((size_t)m->n + 1) * sizeof(int));
  m->late_ro = xalloc(((size_t)m->n + 1) * sizeof(int));
  for (int i = 0; i < m->n; i++) m->tree_fd[i] = -1;
  int i = 0;
  for (struct json *mnt = j_items(list); mnt; mnt = mnt->next, i++) {
    struct parsed p;
    if (parse_options(&p, mnt, e) < 0) return -1;
    if (!p.bind || !(m->early || p.idmap)) continue;
    autofree char *link = link_to_copy(m, mnt, &p);
    if (link) continue;
    if ((m->tree_fd[i] = bind_tree(m, mnt, &p, e)) < 0) return -1;
    // A clone made in the host's mount namespace must not keep telling the host about itself.
    if (remount_attr(m->tree_fd[i], 0, 0, MS_SLAVE, true) < 0)
      return fail(e, 0, "mount_setattr", j_gets(mnt, "source"), "cannot make a bind mount a slave: %s", strerror(errno));
  }
  return 0;
}

// A process must not be shown a /proc that is something else: only files that are known to be harmless may be covered.
static int check_over_proc(int target, const char *dest, struct err *e) {
  static const char *const fine[] = {"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
                                     "/proc/loadavg", "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid",
                                     "/proc/sys/crypto/fips_enabled"};
  if (!fd_is_fs(target, PROC_MAGIC)) return 0;
  for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++)
    if (!strcmp(dest, fine[i])) return 0;
  return fail(e, EPERM, "move_mount", dest, "%s lies inside /proc, where only files like /proc/cpuinfo may be covered", dest);
}

// The place itself where it is a link ("dest-nofollow"); the way to it stays inside the root as always.
static int link_in_root(struct mount_plan *m, const char *dest, enum make_kind kind, struct err *e) {
  char name[256];
  autofd dir = parent_in_root(m->rootfd, dest, name, e);
  if (dir < 0) return -1;
  int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return make_in_root(m->rootfd, dest, kind, e);
  return fd < 0 ? fail(e, 0, "openat", dest, "cannot open %s in the root file system: %s", dest, strerror(errno)) : fd;
}

enum place { PLACE_FOLLOWED, PLACE_PLAIN, PLACE_LINK };

static int attach(struct mount_plan *m, int mfd, const char *dest, enum make_kind kind, enum place place, struct err *e) {
  autofd target = -1;
  if (place == PLACE_LINK) {
    target = link_in_root(m, dest, kind, e);
    if (target < 0) return -1;
  } else if (place == PLACE_PLAIN) {
    // proc and sysfs: never through a link, or an image could put them where it wants them.
    const char *rel = dest;
    while (*rel == '/') rel++;
    autofd made = make_in_root(m->rootfd, dest, kind, e);
    if (made < 0) return -1;
    target = k_openat2(m->rootfd, *rel ? rel : ".", O_PATH | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
    if (target < 0) return fail(e, 0, "openat2", dest, "%s must be mounted on ordinary directory, not a link: %s", dest, strerror(errno));
  } else {
    target = make_in_root(m->rootfd, dest, kind, e);
    if (target < 0) return -1;
  }
  if (check_over_proc(target, dest, e) < 0) return -1;
  if (k_move_mount(mfd, target) < 0) return fail(e, 0, "move_mount", dest, "cannot mount on %s: %s", dest, strerror(errno));
  return 0;
}

static int finish(struct mount_plan *m, int mfd, const struct parsed *p, const char *dest, bool late, struct err *e) {
  uint64_t set = p->set;
  if (late && (set & MOUNT_ATTR_RDONLY)) {
    set &= ~(uint64_t)MOUNT_ATTR_RDONLY;
    m->late_ro[m->n_late++] = fcntl(mfd, F_DUPFD_CLOEXEC, 3);
    if (m->late_ro[m->n_late - 1] < 0) return fail(e, 0, "fcntl", dest, "cannot keep the mount on %s: %s", dest, strerror(errno));
  }
  if ((set || p->clr) && remount_attr(mfd, set, p->clr, 0, false) < 0)
    return fail(e, 0, "mount_setattr", dest, "cannot set the options of the mount on %s: %s", dest, strerror(errno));
  if ((p->rset || p->rclr) && remount_attr(mfd, p->rset, p->rclr, 0, true) < 0)
    return fail(e, 0, "mount_setattr", dest, "cannot set the recursive options of the mount on %s: %s", dest, strerror(errno));
  if (p->prop && remount_attr(mfd, 0, 0, p->prop, p->prop_rec) < 0)
    return fail(e, 0, "mount_setattr", dest, "cannot set the propagation of the mount on %s: %s", dest, strerror(errno));
  return 0;
}

static int one_cgroup(struct mount_plan *m, const struct cgroup_tree *t, struct err *e) {
  if (!m->cgroupns) {
    int fd = k_open_tree(AT_FDCWD, t->dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    return fd < 0 ? fail(e, 0, "open_tree", t->dir, "cannot bind %s: %s", t->dir, strerror(errno)) : fd;
  }
  if (t->v2) return fs_open_mount("cgroup2", "cgroup", NULL, 0, e);
  char *opts[34];
  int n = 0;
  autofree char *list = xstrdup(t->controllers);
  char *save = NULL;
  if (strstr(list, ",name=")) opts[n++] = "none";
  for (char *c = strtok_r(list, ",", &save); c && n < 32; c = strtok_r(NULL, ",", &save)) opts[n++] = c;
  opts[n] = NULL;
  return fs_open_mount("cgroup", "cgroup", opts, 0, e);
}

// What the host has in that place, with all that is mounted below, as read-only and so on as was asked for.
static int host_tree(struct mount_plan *m, const char *path, const char *dest, struct parsed *p, struct err *e) {
  autofd fd = k_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  if (fd < 0) return fail(e, 0, "open_tree", path, "cannot bind %s: %s", path, strerror(errno));
  p->rset |= p->set & (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
  return attach(m, fd, dest, MAKE_DIR, PLACE_FOLLOWED, e) < 0 ? -1 : finish(m, fd, p, dest, false, e);
}

static int cgroup_mount(struct mount_plan *m, const char *dest, struct parsed *p, struct err *e) {
  const struct cgroup_tree *two = cgroup_v2(m->cg);
  if (m->cg->n == 0) return host_tree(m, "/sys/fs/cgroup", dest, p, e);
  if (two && m->cg->n == 1) {
    autofd fd = one_cgroup(m, two, e);
    return fd < 0 || attach(m, fd, dest, MAKE_DIR, PLACE_FOLLOWED, e) < 0 ? -1 : finish(m, fd, p, dest, false, e);
  }
  char *const mode[] = {"mode=755", NULL};
  autofd top = fs_open_mount("tmpfs", "tmpfs", mode, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, e);
  if (top < 0 || attach(m, top, dest, MAKE_DIR, PLACE_FOLLOWED, e) < 0) return -1;
  for (int i = 0; i < m->cg->n; i++) {
    const struct cgroup_tree *t = &m->cg->tree[i];
    const char *name = strrchr(t->mount, '/') + 1;
    if (!*name || (mkdirat(top, name, 0755) < 0 && errno != EEXIST))
      return fail(e, 0, "mkdirat", dest, "cannot make %s/%s: %s", dest, name, strerror(errno));
    autofd fd = one_cgroup(m, t, e), at = openat(top, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return -1;
    if (at < 0 || k_move_mount(fd, at) < 0) return fail(e, 0, "move_mount", dest, "cannot mount on %s/%s: %s", dest, name, strerror(errno));
    if (finish(m, fd, p, dest, false, e) < 0) return -1;
    // Programs look for each controller by its own name where several share a hierarchy.
    if (strchr(name, ',')) {
      autofree char *list = xstrdup(name);
      char *save = NULL;
      for (char *c = strtok_r(list, ",", &save); c; c = strtok_r(NULL, ",", &save))
        if (symlinkat(name, top, c) < 0 && errno != EEXIST)
          return fail(e, 0, "symlinkat", dest, "cannot link %s/%s: %s", dest, c, strerror(errno));
    }
  }
  if ((p->set & MOUNT_ATTR_RDONLY) && remount_attr(top, MOUNT_ATTR_RDONLY, 0, 0, false) < 0)
    return fail(e, 0, "mount_setattr", dest, "cannot make %s read-only: %s", dest, strerror(errno));
  return 0;
}

static int do_mount(struct mount_plan *m, int index, const struct json *mnt, struct err *e) {
  const char *dest = j_gets(mnt, "destination"), *type = j_gets(mnt, "type"), *source = j_gets(mnt, "source");
  struct parsed p;
  if (!dest || !*dest) return fail(e, EINVAL, "parse", "mounts", "mount %d has no destination", index);
  if (parse_options(&p, mnt, e) < 0) return -1;
  autofree char *link = p.bind ? link_to_copy(m, mnt, &p) : NULL;
  if (link) return copy_link(m, link, dest, e);
  if (p.bind) {
    autofd fd = m->tree_fd[index] >= 0 ? steal_fd(&m->tree_fd[index]) : bind_tree(m, mnt, &p, e);
    struct stat st;
    if (fd < 0) return -1;
    if (fstat(fd, &st) < 0) return fail(e, 0, "fstat", source, "cannot look at %s: %s", source, strerror(errno));
    if (attach(m, fd, dest, S_ISDIR(st.st_mode) ? MAKE_DIR : MAKE_FILE, p.dest_nofollow ? PLACE_LINK : PLACE_FOLLOWED, e) < 0) return -1;
    return finish(m, fd, &p, dest, false, e);
  }
  if (p.remount) {
    autofd fd = open_in_root(m->rootfd, dest, O_PATH);
    if (fd < 0) return fail(e, 0, "openat2", dest, "cannot open %s to remount it: %s", dest, strerror(errno));
    return finish(m, fd, &p, dest, false, e);
  }
  if (!type || !*type) {
    if (!p.prop) return fail(e, EINVAL, "parse", dest, "the mount on %s has neither a type nor bind", dest);
    autofd fd = open_in_root(m->rootfd, dest, O_PATH);  // only a change of propagation
    return fd < 0 ? fail(e, 0, "openat2", dest, "cannot open %s: %s", dest, strerror(errno)) : finish(m, fd, &p, dest, false, e);
  }
  if (!strcmp(type, "cgroup") || !strcmp(type, "cgroup2")) return cgroup_mount(m, dest, &p, e);
  bool proc = !strcmp(type, "proc"), sys = !strcmp(type, "sysfs"), tmp = !strcmp(type, "tmpfs");
  bool has_mode = false;
  for (int i = 0; i < p.n_data; i++) has_mode |= !strncmp(p.data[i], "mode=", 5);
  struct stat before = {0};
  autofd old = tmp ? open_in_root(m->rootfd, dest, O_PATH | O_DIRECTORY) : -1;
  if (old >= 0 && fstat(old, &before) < 0) return fail(e, 0, "fstat", dest, "cannot look at %s: %s", dest, strerror(errno));
  char mode[16];
  if (old >= 0 && !has_mode) {  // as the image has it
    snprintf(mode, sizeof mode, "mode=%o", before.st_mode & 07777);
    p.data[p.n_data++] = mode;
  }
  autofd fd = fs_open_mount(type, source, p.data, 0, e);
  if (fd < 0 && sys && (e->code == EPERM || e->code == EBUSY)) {
    // A user namespace may mount sysfs only together with a network namespace of its own: show the host's, as other runtimes do.
    *e = (struct err){0};
    return host_tree(m, "/sys", dest, &p, e);
  }
  if (fd < 0) return -1;
  if (tmp && p.copyup && old >= 0 && copy_up(old, fd, e) < 0) return -1;
  if (attach(m, fd, dest, MAKE_DIR, proc || sys ? PLACE_PLAIN : PLACE_FOLLOWED, e) < 0) return -1;
  if (proc && !strcmp(dest, "/proc")) {
    cleanup_fd(&m->procfd);
    m->procfd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  }
  return finish(m, fd, &p, dest, tmp, e);
}

int mounts_do(struct mount_plan *m, struct err *e) {
  int i = 0;
  for (struct json *mnt = j_items(j_get(m->config, "mounts")); mnt; mnt = mnt->next, i++) {
    STAGE("mount");
    if (do_mount(m, i, mnt, e) < 0) return -1;
  }
  return 0;
}

int mounts_finish(struct mount_plan *m, struct err *e) {
  STAGE("mount");
  for (int i = 0; i < m->n_late; i++)
    if (remount_attr(m->late_ro[i], MOUNT_ATTR_RDONLY, 0, 0, false) < 0)
      return fail(e, 0, "mount_setattr", "", "cannot make a mount read-only: %s", strerror(errno));
  return 0;
}

void mounts_free(struct mount_plan *m) {
  for (int i = 0; i < m->n; i++) cleanup_fd(&m->tree_fd[i]);
  for (int i = 0; i < m->n_late; i++) cleanup_fd(&m->late_ro[i]);
  free(m->tree_fd);
  free(m->late_ro);
  cleanup_fd(&m->rootfd);
  cleanup_fd(&m->procfd);
}
