#include "cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>

static bool listed(const char *list, const char *name) {
  char key[64];
  snprintf(key, sizeof key, ",%s,", name);
  return list && strstr(list, key);
}

// ",a,b," of the controllers in v1 mount options; other options of the hierarchy are left out.
static char *v1_controllers(char *opts) {
  static const char *const other[] = {"rw", "ro", "xattr", "noprefix", "clone_children", "none", "favordynmods", "nofavordynmods"};
  autobuf b = {0};
  buf_str(&b, ",");
  char *save = NULL;
  for (char *t = strtok_r(opts, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
    bool skip = !strncmp(t, "release_agent=", 14);
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) skip |= !strcmp(t, other[i]);
    if (!skip) buf_fmt(&b, "%s,", t);
  }
  return xstrdup(b.p);
}

static char *v2_controllers(const char *mount) {
  autofree char *file = xasprintf("%s/cgroup.controllers", mount);
  autobuf in = {0}, out = {0};
  if (read_file_at(AT_FDCWD, file, &in, 65536) < 0) return xstrdup(",");
  buf_str(&out, ",");
  for (char *p = in.p; *p; p++) buf_add(&out, *p == ' ' || *p == '\n' ? "," : p, 1);
  return xstrdup(out.p);
}

static bool known(const struct cgroup *cg, const char *controllers, bool v2) {
  for (int i = 0; i < cg->n; i++)
    if (v2 ? cg->tree[i].v2 : !cg->tree[i].v2 && !strcmp(cg->tree[i].controllers, controllers)) return true;
  return false;
}

// A group below the root, however it is written: everything in a container's group ends with the container.
static bool is_below_root(const char *path) {
  bool below = false;
  for (const char *p = path; *p == '/';) {
    size_t n = strcspn(++p, "/");
    if (n == 2 && !strncmp(p, "..", 2)) return false;
    below |= n > 1 || (n == 1 && *p != '.');
    p += n;
  }
  return below && strlen(path) <= 3000;
}

int cgroup_find(struct cgroup *cg, const char *path, struct err *e) {
  STAGE("cgroup");
  *cg = (struct cgroup){0};
  if (!path || !*path) return 0;
  if (!is_below_root(path))
    return fail(e, EINVAL, "parse", path, "cgroup path '%s' must be absolute, not the root, and without '..'", path);
  autobuf b = {0};
  if (read_file_at(AT_FDCWD, "/proc/self/mountinfo", &b, 16 << 20) < 0)
    return fail(e, 0, "open", "/proc/self/mountinfo", "cannot read the mount table: %s", strerror(errno));
  cg->path = xstrdup(path);
  char *save = NULL;
  for (char *line = strtok_r(b.p, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    char *dash = strstr(line, " - ");
    if (!dash || strncmp(dash + 3, "cgroup", 6)) continue;
    bool v2 = dash[9] == '2';
    if (!v2 && dash[9] != ' ') continue;
    char *opts = strrchr(dash, ' ');
    *dash = 0;
    char *s2 = NULL, *field = strtok_r(line, " ", &s2);
    for (int i = 0; i < 4 && field; i++) field = strtok_r(NULL, " ", &s2);
    if (!field || !opts || cg->n == CGROUP_TREES) continue;
    mountinfo_unescape(field);
    char *controllers = v2 ? v2_controllers(field) : v1_controllers(opts + 1);
    if (known(cg, controllers, v2)) {
      free(controllers);
      continue;
    }
    cg->tree[cg->n++] =
        (struct cgroup_tree){.mount = xstrdup(field), .controllers = controllers, .dir = xasprintf("%s%s", field, path), .v2 = v2};
  }
  if (cg->n == 0) return fail(e, ENODEV, "open", "/proc/self/mountinfo", "no cgroup hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup");
  return 0;
}

void cgroup_free(struct cgroup *cg) {
  for (int i = 0; i < cg->n; i++) {
    free(cg->tree[i].mount);
    free(cg->tree[i].controllers);
    free(cg->tree[i].dir);
  }
  free(cg->path);
  *cg = (struct cgroup){0};
}

const struct cgroup_tree *cgroup_v2(const struct cgroup *cg) {
  for (int i = 0; i < cg->n; i++)
    if (cg->tree[i].v2) return &cg->tree[i];
  return NULL;
}

// The v1 hierarchy wins: a controller mounted there is not in the v2 tree. "freezer" and "devices" are part of v2 without being listed.
const struct cgroup_tree *cgroup_tree_of(const struct cgroup *cg, const char *name) {
  for (int i = 0; i < cg->n; i++)
    if (!cg->tree[i].v2 && listed(cg->tree[i].controllers, name)) return &cg->tree[i];
  const struct cgroup_tree *v2 = cgroup_v2(cg);
  if (v2 && (listed(v2->controllers, name) || !strcmp(name, "freezer") || !strcmp(name, "devices"))) return v2;
  return NULL;
}

int cgroup_write(const struct cgroup_tree *t, const char *file, const char *value, struct err *e) {
  autofree char *p = xasprintf("%s/%s", t->dir, file);
  if (write_file_at(AT_FDCWD, p, value) < 0)
    return fail(e, 0, "write", p, "cannot write '%s' to %s: %s", value, p, strerror(errno));
  return 0;
}

bool cgroup_has(const struct cgroup_tree *t, const char *file) {
  autofree char *p = xasprintf("%s/%s", t->dir, file);
  return access(p, F_OK) == 0;
}

// A new v1 cpuset is empty and takes no process until both files are filled from its parent.
static int seed_cpuset(const char *parent, const char *dir, struct err *e) {
  static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
  for (int i = 0; i < 2; i++) {
    autofree char *to = xasprintf("%s/%s", dir, files[i]), *from = xasprintf("%s/%s", parent, files[i]);
    autobuf have = {0}, want = {0};
    if (read_file_at(AT_FDCWD, to, &have, 65536) < 0 || read_file_at(AT_FDCWD, from, &want, 65536) < 0)
      return fail(e, 0, "open", to, "cannot read %s: %s", to, strerror(errno));
    if (have.len > 1) continue;
    if (write_file_at(AT_FDCWD, to, want.p) < 0) return fail(e, 0, "write", to, "cannot seed %s: %s", to, strerror(errno));
  }
  return 0;
}

// On v2 a controller reaches a group only when every group above it hands it down.
static int hand_down(const struct cgroup_tree *t, const char *parent, struct err *e) {
  autofree char *have_file = xasprintf("%s/cgroup.controllers", parent), *sub = xasprintf("%s/cgroup.subtree_control", parent);
  autobuf have = {0}, on = {0};
  if (read_file_at(AT_FDCWD, have_file, &have, 65536) < 0 || read_file_at(AT_FDCWD, sub, &on, 65536) < 0)
    return fail(e, 0, "open", sub, "cannot read %s: %s", sub, strerror(errno));
  (void)t;
  char *save = NULL;
  autofree char *flat = xasprintf(" %s", on.p);
  for (char *p = flat; *p; p++)
    if (*p == '\n') *p = ' ';
  for (char *c = strtok_r(have.p, " \n", &save); c; c = strtok_r(NULL, " \n", &save)) {
    autofree char *key = xasprintf(" %s ", c), *plus = xasprintf("+%s", c);
    if (strstr(flat, key)) continue;
    // A group with processes of its own refuses (EBUSY), and some controllers cannot be delegated there (EOPNOTSUPP, ENOENT):
    // limits that need them then fail with their own message.
    if (write_file_at(AT_FDCWD, sub, plus) < 0 && errno != EBUSY && errno != EOPNOTSUPP && errno != ENOENT && errno != EINVAL)
      return fail(e, 0, "write", sub, "cannot write '%s' to %s: %s", plus, sub, strerror(errno));
  }
  return 0;
}

int cgroup_make(const struct cgroup *cg, struct err *e) {
  STAGE("cgroup");
  for (int i = 0; i < cg->n; i++) {
    const struct cgroup_tree *t = &cg->tree[i];
    char p[PATH_MAX], parent[PATH_MAX];
    bool cpuset = !t->v2 && listed(t->controllers, "cpuset");
    size_t base = strlen(t->mount);
    snprintf(p, sizeof p, "%s", t->dir);
    // The usual case first: everything above is there already.
    for (size_t k = base + 1;; k++) {
      if (p[k] && p[k] != '/') continue;
      char keep = p[k];
      p[k] = 0;
      snprintf(parent, sizeof parent, "%s", p);
      *strrchr(parent, '/') = 0;
      if (t->v2 && hand_down(t, parent, e) < 0) return -1;
      bool made = mkdir(p, 0755) == 0;
      if (!made && errno != EEXIST) return fail(e, 0, "mkdir", p, "cannot make the cgroup %s: %s", p, strerror(errno));
      if (cpuset && seed_cpuset(parent, p, e) < 0) return -1;
      p[k] = keep;
      if (!keep) break;
    }
  }
  return 0;
}

void cgroup_close_door(struct cgroup_door *d) {
  cleanup_fd(&d->into);
  while (d->n > 0) cleanup_fd(&d->tasks[--d->n]);
}

// PATH is for every hierarchy, CONTROLLER,...:PATH for those of the controllers. Gives the path where it is for `t`, otherwise `before`; NULL: error.
static const char *path_below(const struct cgroup *cg, const struct cgroup_tree *t, const char *entry, const char *before, struct err *e) {
  const char *colon = strchr(entry, ':'), *path = colon ? colon + 1 : entry;
  autofree char *names = colon ? xasprintf("%.*s", (int)(colon - entry), entry) : xstrdup("");
  bool meant = !colon;
  char *save = NULL;
  for (char *name = strtok_r(names, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
    const struct cgroup_tree *its = cgroup_tree_of(cg, name);
    if (!its) return fail(e, EINVAL, "parse", entry, "cannot join the cgroup '%s': unknown controller %s", entry, name), NULL;
    meant |= its == t;
  }
  autofree char *steps = xasprintf("/%s/", path);
  if (strstr(steps, "/../")) return fail(e, EINVAL, "parse", entry, "cannot join: %s is not a sub cgroup path of the container", path), NULL;
  return meant ? path : before;
}

int cgroup_open_door(const struct cgroup *cg, const char *const *below, struct cgroup_door *d, struct err *e) {
  STAGE("cgroup");
  *d = (struct cgroup_door){.into = -1};
  for (int i = 0; i < cg->n; i++) {
    const struct cgroup_tree *t = &cg->tree[i];
    const char *path = "";
    for (const char *const *b = below; b && *b && path; b++) path = path_below(cg, t, *b, path, e);
    if (!path) {
      cgroup_close_door(d);
      return -1;
    }
    autofree char *p = xasprintf("%s/%s%s", t->dir, path, t->v2 ? "" : "/tasks");
    int fd = open(p, t->v2 ? O_RDONLY | O_DIRECTORY | O_CLOEXEC : O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
      fail(e, 0, "open", p, "cannot open the cgroup %s: %s", p, strerror(errno));
      cgroup_close_door(d);
      return -1;
    }
    if (t->v2) d->into = fd;
    else d->tasks[d->n++] = fd;
  }
  return 0;
}

int cgroup_follow(const struct cgroup *cg, pid_t pid, struct cgroup_door *d) {
  const struct cgroup_tree *v2 = cgroup_v2(cg);
  autofree char *file = xasprintf("/proc/%d/cgroup", (int)pid);
  autobuf groups = {0};
  if (!v2 || read_file_at(AT_FDCWD, file, &groups, 65536) < 0) return -1;
  autofree char *own = xasprintf("0::%s/", cg->path);
  char *save = NULL, *line = strtok_r(groups.p, "\n", &save);
  while (line && strncmp(line, own, strlen(own))) line = strtok_r(NULL, "\n", &save);
  if (!line) return -1;
  autofree char *dir = xasprintf("%s%s", v2->mount, line + strlen("0::"));
  int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  cleanup_fd(&d->into);
  d->into = fd;
  return 0;
}

int cgroup_enter(const struct cgroup_door *d, const struct cgroup *cg, struct err *e) {
  STAGE("cgroup");
  for (int i = 0, k = 0; k < d->n; i++) {
    if (cg->tree[i].v2) continue;
    if (RETRY(write(d->tasks[k++], "0", 1)) != 1)
      return fail(e, 0, "write", cg->tree[i].dir, "cannot put the new process into %s: %s", cg->tree[i].dir, strerror(errno));
  }
  return 0;
}

int cgroup_apply(const struct cgroup *cg, const struct json *r, struct err *e) {
  STAGE("cgroup");
  if (!r || cg->n == 0) return 0;
  if (cgroup_v1_apply(cg, r, e) < 0 || cgroup_v2_apply(cg, r, e) < 0) return -1;
  return cgroup_devices(cg, j_get(r, "devices"), e);
}

bool cgroup_frozen(const struct cgroup *cg) {
  const struct cgroup_tree *t = cgroup_tree_of(cg, "freezer");
  if (!t) return false;
  autofree char *file = xasprintf("%s/%s", t->dir, t->v2 ? "cgroup.freeze" : "freezer.state");
  autobuf b = {0};
  if (read_file_at(AT_FDCWD, file, &b, 4096) < 0) return false;
  return t->v2 ? b.p[0] == '1' : b.p[0] == 'F';
}

void cgroup_thaw_process(const struct cgroup *cg, pid_t pid) {
  const struct cgroup_tree *t = cgroup_tree_of(cg, "freezer");
  autofree char *list = xasprintf("/proc/%d/cgroup", (int)pid);
  autobuf b = {0};
  if (!t || t->v2 || read_file_at(AT_FDCWD, list, &b, 65536) < 0) return;
  char *path = strstr(b.p, ":freezer:");
  if (!path) return;
  path += strlen(":freezer:");
  path[strcspn(path, "\n")] = 0;
  autofree char *file = xasprintf("%s%s/freezer.state", t->mount, path);
  (void)write_file_at(AT_FDCWD, file, "THAWED");  // where that fails, the process does not end: the caller sees it
}

int cgroup_freeze(const struct cgroup *cg, bool frozen, struct err *e) {
  STAGE("cgroup");
  const struct cgroup_tree *t = cgroup_tree_of(cg, "freezer");
  if (!t) return fail(e, ENODEV, "freeze", "", "cannot %s: neither a v1 freezer nor cgroup v2 is mounted", frozen ? "pause" : "resume");
  if (t->v2) {
    if (cgroup_write(t, "cgroup.freeze", frozen ? "1" : "0", e) < 0) return -1;
    for (int i = 0; i < 2000; i++) {
      autofree char *file = xasprintf("%s/cgroup.events", t->dir);
      autobuf b = {0};
      if (read_file_at(AT_FDCWD, file, &b, 4096) < 0) break;
      if (strstr(b.p, frozen ? "frozen 1" : "frozen 0")) return 0;
      pause_ms(1);
    }
    return fail(e, ETIMEDOUT, "freeze", t->dir, "%s did not change its frozen state within 2 s", t->dir);
  }
  // FREEZING can hang while a process forks faster than it is caught: thaw for a moment and try again.
  autofree char *file = xasprintf("%s/freezer.state", t->dir);
  for (int i = 0; i < 2000; i++) {
    if (i % 200 == 0) {
      if (i && frozen && cgroup_write(t, "freezer.state", "THAWED", e) < 0) return -1;
      if (cgroup_write(t, "freezer.state", frozen ? "FROZEN" : "THAWED", e) < 0) return -1;
    }
    autobuf b = {0};
    if (read_file_at(AT_FDCWD, file, &b, 4096) < 0) return fail(e, 0, "open", file, "cannot read %s: %s", file, strerror(errno));
    if (!strncmp(b.p, frozen ? "FROZEN" : "THAWED", 6)) return 0;
    pause_ms(1);
  }
  struct err ignored;
  (void)cgroup_write(t, "freezer.state", "THAWED", &ignored);
  return fail(e, ETIMEDOUT, "freeze", t->dir, "%s did not change its freezer state within 2 s", t->dir);
}

int64_t cgroup_oom_kills(const struct cgroup *cg) {
  const struct cgroup_tree *t = cgroup_tree_of(cg, "memory");
  if (!t) return -1;
  autofree char *file = xasprintf("%s/%s", t->dir, t->v2 ? "memory.events" : "memory.oom_control");
  autobuf b = {0};
  if (read_file_at(AT_FDCWD, file, &b, 65536) < 0) return -1;
  char *p = strstr(b.p, "oom_kill ");
  return p ? strtoll(p + 9, NULL, 10) : -1;
}

bool cgroup_oom_waits(const struct cgroup *cg) {
  const struct cgroup_tree *t = cgroup_tree_of(cg, "memory");
  if (!t || t->v2) return false;
  autofree char *file = xasprintf("%s/memory.oom_control", t->dir);
  autobuf b = {0};
  if (read_file_at(AT_FDCWD, file, &b, 4096) < 0) return false;
  return strstr(b.p, "oom_kill_disable 1") && strstr(b.p, "under_oom 1");
}

int cgroup_oom_watch(const struct cgroup *cg) {
  const struct cgroup_tree *t = cgroup_tree_of(cg, "memory");
  if (!t) return -1;
  if (t->v2) {
    autofree char *file = xasprintf("%s/memory.events", t->dir);
    autofd in = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (in < 0 || inotify_add_watch(in, file, IN_MODIFY) < 0) return -1;
    return steal_fd(&in);
  }
  autofree char *file = xasprintf("%s/memory.oom_control", t->dir), *control = xasprintf("%s/cgroup.event_control", t->dir);
  autofd oom = open(file, O_RDONLY | O_CLOEXEC), ev = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (oom < 0 || ev < 0) return -1;
  autofree char *line = xasprintf("%d %d", ev, oom);
  return write_file_at(AT_FDCWD, control, line) < 0 ? -1 : steal_fd(&ev);
}
