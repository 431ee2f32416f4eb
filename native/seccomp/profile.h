// OCI linux.seccomp, or a profile in Docker's form, to a BPF program (libseccomp).
#pragma once
#include "../runtime/json.h"
#ifdef __cplusplus
extern "C" {
#endif
// caps: the capabilities ("CAP_SYS_ADMIN") that conditions of Docker's form are asked about; may be NULL. arch: "x86_64" in
// Go's ("amd64") or the kernel's spelling, NULL for this machine's. optimize: 2 takes
// twice as long to compile and makes each system call of the container cheaper (binary tree), 1 is for a filter that is used once.
// The program is malloc'ed.
int profile_compile(const char *json, size_t len, const char *const *caps, size_t n_caps, const char *arch, int optimize, void **out,
                    size_t *out_len, struct err *e);
#ifdef __cplusplus
}
#endif
