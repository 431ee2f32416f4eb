// OCI linux.seccomp, or a profile in Docker's form, to a BPF program (libseccomp).
#pragma once
#include "../runtime/json.h"
#ifdef __cplusplus
extern "C" {
#endif
// caps: the capabilities ("CAP_SYS_ADMIN") that conditions of Docker's form are asked about; may be NULL. arch: "x86_64" in
// Go's ("amd64") or the kernel's spelling, NULL for this machine's. The program is malloc'ed.
int profile_compile(const char *json, size_t len, const char *const *caps, size_t n_caps, const char *arch, void **out, size_t *out_len,
                    struct err *e);
#ifdef __cplusplus
}
#endif
