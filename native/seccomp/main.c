// shoal-seccomp: linux.seccomp as JSON on standard input, the BPF program on standard output. Exit status 1: the reason is on
// standard output in its place. SHOAL_SECCOMP_ARCH: for another machine than this one.
#include <stdio.h>

#include "profile.h"

int main(void) {
  autobuf in = {0};
  char b[16384];
  for (;;) {
    ssize_t n = RETRY(read(0, b, sizeof b));
    if (n < 0) return 2;
    if (n == 0) break;
    if (in.len + (size_t)n > (16 << 20)) return 2;
    buf_add(&in, b, (size_t)n);
  }
  struct err e = {0};
  void *out = NULL;
  size_t len = 0;
  if (profile_compile(in.p ? in.p : "", in.len, NULL, 0, getenv("SHOAL_SECCOMP_ARCH"), PROFILE_LIBSECCOMP, &out, &len, &e) < 0) {
    if (write_all(1, e.msg, strlen(e.msg)) < 0) return 2;
    return 1;
  }
  int r = write_all(1, out, len) < 0 ? 2 : 0;
  free(out);
  return r;
}
