// OCI linux.seccomp, or a profile in Docker's form, from its text to a BPF program.
#pragma once
#include "../runtime/filter.h"

// PROFILE_LIBSECCOMP is the reference. PROFILE_FASTEST is our own compiler wherever that covers the profile, and for the rest libseccomp
// with a program that takes twice as long to make and makes each system call of the container cheaper (binary tree).
enum profile_compiler { PROFILE_LIBSECCOMP, PROFILE_FASTEST };
// caps and arch: as for filter_read. The program is malloc'ed.
int profile_compile(const char *json, size_t len, const char *const *caps, size_t n_caps, const char *arch, enum profile_compiler by, void **out,
                    size_t *out_len, struct err *e);
