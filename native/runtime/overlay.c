// The container's root from the layers in shim.json.
#include <limits.h>
#include <stdio.h>

#include "kernel.h"
#include "mount.h"

int overlay_open(const struct json *r, struct err *e) {
  STAGE("rootfs");
  autofd fs = k_fsopen("overlay");
  if (fs < 0) return fail(e, 0, "fsopen", "overlay", "cannot open an overlay file system (is the module there?): %s", strerror(errno));
  const char *upper = j_gets(r, "upper"), *work = j_gets(r, "work");
  J_EACH(l, j_get(r, "lower")) {
    if (!j_str(l)) return fail(e, EINVAL, "parse", "rootfs.lower", "rootfs.lower must be a list of paths");
    if (k_fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir+", l->s, 0) < 0) {
      // Kernels before 6.7 do not know lowerdir+, and a path may be longer than the 255 bytes of a parameter.
      if (errno == EINVAL || l->n > 255) return -2;
      return fail(e, 0, "fsconfig", l->s, "overlay refuses the layer %s: %s", l->s, strerror(errno));
    }
  }
  if ((upper && strlen(upper) > 255) || (work && strlen(work) > 255)) return -2;
  if (upper && *upper && k_fsconfig(fs, FSCONFIG_SET_STRING, "upperdir", upper, 0) < 0)
    return fail(e, 0, "fsconfig", upper, "overlay refuses the upper directory %s: %s", upper, strerror(errno));
  if (work && *work && k_fsconfig(fs, FSCONFIG_SET_STRING, "workdir", work, 0) < 0)
    return fail(e, 0, "fsconfig", work, "overlay refuses the work directory %s: %s", work, strerror(errno));
  J_EACH(o, j_get(r, "options")) {
    const char *s = j_str(o), *eq = s ? strchr(s, '=') : NULL;
    if (!s) continue;
    autofree char *key = eq ? xasprintf("%.*s", (int)(eq - s), s) : NULL;
    if ((eq ? k_fsconfig(fs, FSCONFIG_SET_STRING, key, eq + 1, 0) : k_fsconfig(fs, FSCONFIG_SET_FLAG, s, NULL, 0)) < 0)
      return fail(e, 0, "fsconfig", s, "overlay refuses the option '%s': %s", s, strerror(errno));
  }
  if (k_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
    int keep = errno;
    char msg[256];
    ssize_t n = RETRY(read(fs, msg, sizeof msg - 1));
    msg[n > 0 ? n : 0] = 0;
    return fail(e, keep, "fsconfig", upper, "cannot mount the overlay: %s%s%s", strerror(keep), *msg ? ": " : "", msg);
  }
  int fd = k_fsmount(fs, 0);
  return fd < 0 ? fail(e, 0, "fsmount", upper, "cannot mount the overlay: %s", strerror(errno)) : fd;
}

// mount(2) takes one page of options: the longest common directory of all paths becomes the working directory and the rest is written short.
int overlay_mount_old(const struct json *r, const char *target, struct err *e) {
  STAGE("rootfs");
  const char *paths[512];
  int n = 0;
  J_EACH(l, j_get(r, "lower")) if (j_str(l) && n < 509) paths[n++] = l->s;
  int lower = n;
  const char *upper = j_gets(r, "upper"), *work = j_gets(r, "work");
  if (upper && *upper) paths[n++] = upper;
  if (work && *work) paths[n++] = work;
  if (!lower) return fail(e, EINVAL, "parse", "rootfs.lower", "rootfs.lower is empty");
  size_t common = strlen(paths[0]);
  for (int i = 1; i < n; i++) {
    size_t k = 0;
    while (k < common && paths[i][k] == paths[0][k]) k++;
    common = k;
  }
  while (common > 1 && paths[0][common - 1] != '/') common--;
  autofree char *dir = xasprintf("%.*s", (int)common, paths[0]);
  autofd back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  autobuf b = {0};
  buf_str(&b, "lowerdir=");
  for (int i = 0; i < lower; i++) buf_fmt(&b, "%s%s", i ? ":" : "", paths[i] + common);
  if (upper && *upper) buf_fmt(&b, ",upperdir=%s", upper + common);
  if (work && *work) buf_fmt(&b, ",workdir=%s", work + common);
  J_EACH(o, j_get(r, "options")) if (j_str(o)) buf_fmt(&b, ",%s", o->s);
  if (b.len >= 4096) return fail(e, E2BIG, "mount", target, "%d layers make too long an option string for this kernel's mount(2)", lower);
  if (back < 0 || chdir(dir) < 0) return fail(e, 0, "chdir", dir, "cannot enter %s: %s", dir, strerror(errno));
  int rc = k_mount("overlay", target, "overlay", 0, b.p);
  int keep = errno;
  if (fchdir(back) < 0) return fail(e, 0, "fchdir", dir, "cannot go back from %s: %s", dir, strerror(errno));
  return rc < 0 ? fail(e, keep, "mount", target, "cannot mount the overlay: %s", strerror(keep)) : 0;
}
