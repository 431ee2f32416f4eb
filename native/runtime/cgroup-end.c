// The processes of a group and of those below it, and the end of them all.
#include <dirent.h>
#include <signal.h>
#include <stdio.h>

#include "cgroup.h"

static bool is_group(const struct dirent *de) {
  return de->d_type == DT_DIR && strcmp(de->d_name, ".") && strcmp(de->d_name, "..");
}

static int for_each_group(const char *dir, int (*fn)(const char *dir, void *arg), void *arg) {
  int total = fn(dir, arg);
  DIR *d = opendir(dir);
  if (!d) return total;
  struct dirent *de;
  while ((de = readdir(d))) {
    if (!is_group(de)) continue;
    autofree char *sub = xasprintf("%s/%s", dir, de->d_name);
    total += for_each_group(sub, fn, arg);
  }
  closedir(d);
  return total;
}

struct pid_list {
  pid_t *p;
  int n;
};

static int collect(const char *dir, void *arg) {
  struct pid_list *l = arg;
  autofree char *file = xasprintf("%s/cgroup.procs", dir);
  autobuf b = {0};
  if (read_file_at(AT_FDCWD, file, &b, 4 << 20) < 0) return 0;
  int n = 0;
  for (char *p = b.p; *p;) {
    l->p = xrealloc(l->p, (size_t)(l->n + 1) * sizeof *l->p);
    l->p[l->n++] = (pid_t)strtol(p, &p, 10);
    n++;
    while (*p == '\n') p++;
  }
  return n;
}

// Any hierarchy has all the processes; pids and freezer are the ones that nobody else moves them out of.
static const struct cgroup_tree *list_tree(const struct cgroup *cg) {
  const struct cgroup_tree *t = cgroup_tree_of(cg, "pids");
  if (!t) t = cgroup_tree_of(cg, "freezer");
  return t ? t : cg->n ? &cg->tree[0] : NULL;
}

int cgroup_pids(const struct cgroup *cg, pid_t **out) {
  struct pid_list l = {0};
  const struct cgroup_tree *t = list_tree(cg);
  if (t) for_each_group(t->dir, collect, &l);
  *out = l.p;
  return l.n;
}


static int send_all(const char *dir, int sig) {
  struct pid_list l = {0};
  int n = for_each_group(dir, collect, &l);
  for (int i = 0; i < l.n; i++)
    if (l.p[i] > 0) (void)kill(l.p[i], sig);
  free(l.p);
  return n;
}

static int thaw(const char *dir, void *arg) {
  (void)arg;
  autofree char *file = xasprintf("%s/freezer.state", dir);
  return write_file_at(AT_FDCWD, file, "THAWED");
}

// v2 kills a group and those below it at once, whoever forks meanwhile. What a container has frozen itself, in v1 groups that it made, would not die.
static void kill_all(const struct cgroup *cg, const char *dir) {
  const struct cgroup_tree *v2 = cgroup_v2(cg), *freezer = cgroup_tree_of(cg, "freezer");
  struct err ignored;
  if (v2) (void)cgroup_write(v2, "cgroup.kill", "1", &ignored);  // Linux 5.14
  if (send_all(dir, SIGKILL) > 0 && freezer && !freezer->v2) for_each_group(freezer->dir, thaw, NULL);
}

void cgroup_signal(const struct cgroup *cg, int sig) {
  const struct cgroup_tree *t = list_tree(cg);
  if (t && sig == SIGKILL) kill_all(cg, t->dir);
  else if (t) (void)send_all(t->dir, sig);
}

static int remove_tree(const char *dir) {
  if (rmdir(dir) == 0 || errno == ENOENT) return 0;
  DIR *d = opendir(dir);
  if (!d) return errno == ENOENT ? 0 : -1;
  struct dirent *de;
  while ((de = readdir(d))) {
    if (!is_group(de)) continue;
    autofree char *sub = xasprintf("%s/%s", dir, de->d_name);
    (void)remove_tree(sub);  // what fails below makes the rmdir of this one fail too
  }
  closedir(d);
  return rmdir(dir) == 0 || errno == ENOENT ? 0 : -1;
}

int cgroup_remove(const struct cgroup *cg, struct err *e) {
  STAGE("cgroup");
  int r = 0;
  for (int i = 0; i < cg->n; i++) {
    const char *dir = cg->tree[i].dir;
    // EBUSY: processes that were just killed have not left yet, or there are some still. A frozen v1 group ignores SIGKILL until thawed.
    for (int tries = 0; remove_tree(dir) < 0; tries++) {
      if (errno != EBUSY || tries == 200) {
        r = fail(e, 0, "rmdir", dir, "cannot remove the cgroup %s: %s", dir, strerror(errno));
        break;
      }
      if (tries % 20 == 0) {
        struct err ignored;
        if (cgroup_frozen(cg)) (void)cgroup_freeze(cg, false, &ignored);
        kill_all(cg, dir);
      }
      pause_ms(tries < 10 ? 1 : 10);
    }
  }
  return r;
}
