// OCI linux.seccomp, or a profile in Docker's form, to a BPF program.
//
// filter_read turns the document into a plan: the rules that apply here, in order, with actions as the kernel has them. Two compilers
// take a plan: filter_compile, ours, in every program of the core, and libseccomp behind native/seccomp/profile.c, which is the
// reference in tests and does what ours leaves out.
#pragma once
#include "json.h"

enum filter_op { FILTER_NE = 1, FILTER_LT, FILTER_LE, FILTER_EQ, FILTER_GE, FILTER_GT, FILTER_MASKED_EQ };  // numbers of libseccomp

struct filter_arg {
  unsigned arg;  // 0 to 5
  enum filter_op op;
  uint64_t a, b;  // MASKED_EQ: (argument & a) == b
};

struct filter_rule {
  struct filter_rule *next;
  const struct json *names;  // list of strings; NULL: one
  const char *one;
  uint32_t action;   // SECCOMP_RET_*
  bool alternatives;  // one argument is named twice: any condition is enough, as runc has it
  unsigned n;
  struct filter_arg args[6];
};

struct filter_arch {
  const char *go, *kernel, *scmp;
  uint32_t token;  // AUDIT_ARCH_*; x32 has a number of libseccomp's own
  int table;       // column of the system call tables, -1: only libseccomp knows it
};
extern const struct filter_arch filter_arches[];

enum { FILTER_MAX_ARCHES = 24 };
struct filter_plan {
  uint32_t fallback;  // action of every call without a rule
  int arches[FILTER_MAX_ARCHES];  // indexes into filter_arches, the machine's own first
  int n_arches;
  struct filter_rule *rules;
  struct filter_rule *known;  // rules that name the fallback: no part of the program, but their calls are not younger than the profile
};

// caps: the capabilities ("CAP_SYS_ADMIN") that conditions of Docker's form are asked about; may be NULL. arch: in Go's ("amd64") or the
// kernel's spelling, NULL for this machine's. The plan lives in the arena and points into the document.
int filter_read(struct arena *a, const struct json *profile, const char *const *caps, size_t n_caps, const char *arch,
                struct filter_plan *plan, struct err *e);
// The profile in the plain form of the OCI specification: Docker's conditions answered, rules that do not apply left out.
int filter_resolve(struct buf *out, const struct json *profile, const char *const *caps, size_t n_caps, struct err *e);
// 0: *out is a malloc'ed program of *len bytes. 1: this profile needs libseccomp (docs/native.md says which do).
int filter_compile(const struct filter_plan *plan, void **out, size_t *len);
// What runc puts before a program: calls with a number above all those that the profile names fail with ENOSYS, so that a C library that is
// younger than the profile falls back to what the profile knows. Nothing where the fallback lets calls through, or is ENOSYS itself.
void filter_younger(const struct filter_plan *plan, void **out, size_t *len);
