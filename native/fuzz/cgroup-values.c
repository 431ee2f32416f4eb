// cgroup-values v1|v2 CONTROLLERS DIR RESOURCES: writes the limits of a linux.resources document, a file, into the files of DIR, as if that were a group of
// a hierarchy with these controllers ("memory,cpu"). So that tests see the values for controllers that the machine at hand does not have.
#include <stdio.h>

#include "../runtime/cgroup.h"

int main(int argc, char **argv) {
  if (argc != 5) return fprintf(stderr, "usage: cgroup-values v1|v2 CONTROLLERS DIR RESOURCES\n"), 2;
  autofree char *controllers = xasprintf(",%s,", argv[2]);
  struct cgroup cg = {.path = "/", .n = 1, .tree = {{.mount = argv[3], .controllers = controllers, .dir = argv[3], .v2 = !strcmp(argv[1], "v2")}}};
  struct arena a = {0};
  struct err e = {0};
  const struct json *r = json_load(&a, AT_FDCWD, argv[4], 1 << 20, &e);
  if (!r || cgroup_v1_apply(&cg, r, &e) < 0 || cgroup_v2_apply(&cg, r, &e) < 0) return fprintf(stderr, "%s\n", e.msg), 1;
  return 0;
}
