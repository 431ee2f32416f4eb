#include "profile.h"

#include <seccomp.h>
#include <stdio.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/utsname.h>

struct request {
  const char *const *caps;
  size_t n_caps;
  const char *arch;  // Go's name
};

static const struct {
  const char *go, *kernel, *scmp;
  uint32_t token;
} arches[] = {{"amd64", "x86_64", "SCMP_ARCH_X86_64", SCMP_ARCH_X86_64}, {"386", "i686", "SCMP_ARCH_X86", SCMP_ARCH_X86},
              {"x32", "x32", "SCMP_ARCH_X32", SCMP_ARCH_X32}, {"arm64", "aarch64", "SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64},
              {"arm", "armv7l", "SCMP_ARCH_ARM", SCMP_ARCH_ARM}, {"ppc64le", "ppc64le", "SCMP_ARCH_PPC64LE", SCMP_ARCH_PPC64LE},
              {"ppc64", "ppc64", "SCMP_ARCH_PPC64", SCMP_ARCH_PPC64}, {"ppc", "ppc", "SCMP_ARCH_PPC", SCMP_ARCH_PPC},
              {"s390x", "s390x", "SCMP_ARCH_S390X", SCMP_ARCH_S390X}, {"s390", "s390", "SCMP_ARCH_S390", SCMP_ARCH_S390},
              {"riscv64", "riscv64", "SCMP_ARCH_RISCV64", SCMP_ARCH_RISCV64}, {"mips", "mips", "SCMP_ARCH_MIPS", SCMP_ARCH_MIPS},
              {"mips64", "mips64", "SCMP_ARCH_MIPS64", SCMP_ARCH_MIPS64}, {"mips64n32", "mips64n32", "SCMP_ARCH_MIPS64N32", SCMP_ARCH_MIPS64N32},
              {"mipsle", "mipsel", "SCMP_ARCH_MIPSEL", SCMP_ARCH_MIPSEL}, {"mips64le", "mipsel64", "SCMP_ARCH_MIPSEL64", SCMP_ARCH_MIPSEL64},
              {"mipsel64n32", "mipsel64n32", "SCMP_ARCH_MIPSEL64N32", SCMP_ARCH_MIPSEL64N32},
              {"parisc", "parisc", "SCMP_ARCH_PARISC", SCMP_ARCH_PARISC}, {"parisc64", "parisc64", "SCMP_ARCH_PARISC64", SCMP_ARCH_PARISC64}};
enum { N_ARCHES = sizeof arches / sizeof arches[0] };

static int arch_index(const char *name) {
  for (int i = 0; i < N_ARCHES; i++)
    if (!strcmp(name, arches[i].go) || !strcmp(name, arches[i].kernel) || !strcmp(name, arches[i].scmp)) return i;
  return -1;
}

// errno defaults: EPERM for SCMP_ACT_ERRNO and for TRACE, as runc has it.
static int action(const char *name, const struct json *ret, uint32_t *out, struct err *e) {
  uint32_t r = (uint32_t)j_uint(ret, EPERM);
  static const struct {
    const char *name;
    uint32_t value;
  } plain[] = {{"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD}, {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD},
               {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS}, {"SCMP_ACT_TRAP", SCMP_ACT_TRAP}, {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW},
               {"SCMP_ACT_LOG", SCMP_ACT_LOG}, {"SCMP_ACT_NOTIFY", SCMP_ACT_NOTIFY}};
  for (size_t i = 0; name && i < sizeof plain / sizeof plain[0]; i++)
    if (!strcmp(name, plain[i].name)) return *out = plain[i].value, 0;
  if (name && !strcmp(name, "SCMP_ACT_ERRNO")) return *out = SCMP_ACT_ERRNO(r), 0;
  if (name && !strcmp(name, "SCMP_ACT_TRACE")) return *out = SCMP_ACT_TRACE(r), 0;
  return fail(e, EINVAL, "parse", "linux.seccomp", "unknown seccomp action '%s'", name ? name : "");
}

static int comparison(const struct json *a, struct scmp_arg_cmp *out, struct err *e) {
  static const struct {
    const char *name;
    enum scmp_compare op;
  } ops[] = {{"SCMP_CMP_NE", SCMP_CMP_NE}, {"SCMP_CMP_LT", SCMP_CMP_LT}, {"SCMP_CMP_LE", SCMP_CMP_LE}, {"SCMP_CMP_EQ", SCMP_CMP_EQ},
             {"SCMP_CMP_GE", SCMP_CMP_GE}, {"SCMP_CMP_GT", SCMP_CMP_GT}, {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ}};
  const char *op = j_gets(a, "op");
  uint64_t index = j_uint(j_get(a, "index"), 99);
  for (size_t i = 0; op && i < sizeof ops / sizeof ops[0]; i++) {
    if (strcmp(op, ops[i].name)) continue;
    if (index > 5) return fail(e, EINVAL, "parse", "linux.seccomp", "a system call has arguments 0 to 5, not %llu", (unsigned long long)index);
    *out = (struct scmp_arg_cmp){(unsigned)index, ops[i].op, j_uint(j_get(a, "value"), 0), j_uint(j_get(a, "valueTwo"), 0)};
    return 0;
  }
  return fail(e, EINVAL, "parse", "linux.seccomp", "unknown comparison '%s'", op ? op : "");
}

static bool has_cap(const struct request *rq, const char *name) {
  for (size_t i = 0; i < rq->n_caps; i++)
    if (!strcasecmp(rq->caps[i], name)) return true;
  return false;
}

// "4.8" or "5.10" against the running kernel.
static bool kernel_at_least(const char *want) {
  struct utsname u;
  int wa = 0, wb = 0, a = 0, b = 0;
  if (uname(&u) < 0 || sscanf(u.release, "%d.%d", &a, &b) != 2 || sscanf(want, "%d.%d", &wa, &wb) < 1) return false;
  return a > wa || (a == wa && b >= wb);
}

// Docker's conditions: every kind in "includes" must hold (all its capabilities, one of its architectures), none in "excludes".
static bool wanted(const struct json *rule, const struct request *rq) {
  const struct json *in = j_get(rule, "includes"), *ex = j_get(rule, "excludes");
  J_EACH(c, j_get(in, "caps")) if (j_str(c) && !has_cap(rq, c->s)) return false;
  J_EACH(c, j_get(ex, "caps")) if (j_str(c) && has_cap(rq, c->s)) return false;
  bool arch_ok = !j_items(j_get(in, "arches"));
  J_EACH(a, j_get(in, "arches")) arch_ok |= j_str(a) && !strcmp(a->s, rq->arch);
  if (!arch_ok) return false;
  J_EACH(a, j_get(ex, "arches")) if (j_str(a) && !strcmp(a->s, rq->arch)) return false;
  if (j_gets(in, "minKernel") && !kernel_at_least(j_gets(in, "minKernel"))) return false;
  return !(j_gets(ex, "minKernel") && kernel_at_least(j_gets(ex, "minKernel")));
}

static int add_name(scmp_filter_ctx ctx, const char *name, uint32_t act, const struct scmp_arg_cmp *args, unsigned n, struct err *e) {
  int nr = seccomp_syscall_resolve_name(name);
  if (nr == __NR_SCMP_ERROR) return 0;  // not a call of this libseccomp's tables: the default action holds, as everywhere
  int rc = n == 0 ? seccomp_rule_add_array(ctx, act, nr, 0, NULL) : seccomp_rule_add_array(ctx, act, nr, n, args);
  if (rc == -EEXIST) return 0;
  // -EDOM: the call does not exist in one of the architectures, or (x86) shares a number with another (socketcall)
  if (rc < 0 && rc != -EDOM)
    return fail(e, -rc, "seccomp_rule_add", name, "libseccomp refuses the rule for %s: %s", name, strerror(-rc));
  return 0;
}

static int add_rule(scmp_filter_ctx ctx, const struct json *rule, uint32_t act, struct err *e) {
  struct scmp_arg_cmp args[6];
  unsigned n = 0, seen[6] = {0};
  bool twice = false;
  J_EACH(a, j_get(rule, "args")) {
    if (n == 6) return fail(e, EINVAL, "parse", "linux.seccomp", "a rule has more than 6 argument conditions");
    if (comparison(a, &args[n], e) < 0) return -1;
    twice |= seen[args[n].arg]++ > 0;
    n++;
  }
  const char *one = j_gets(rule, "name");
  if (!one && !j_items(j_get(rule, "names"))) return fail(e, EINVAL, "parse", "linux.seccomp.syscalls", "a rule has no names");
  for (const struct json *name = j_items(j_get(rule, "names")); one || name; name = one ? NULL : name->next) {
    const char *s = one ? one : j_str(name);
    if (!s) return fail(e, EINVAL, "parse", "linux.seccomp.syscalls", "the names of a rule must be strings");
    // Conditions on one argument twice are alternatives: a rule for each.
    for (unsigned i = 0; twice && i < n; i++)
      if (add_name(ctx, s, act, &args[i], 1, e) < 0) return -1;
    if (!twice && add_name(ctx, s, act, args, n, e) < 0) return -1;
    if (one) break;
  }
  return 0;
}

static int add_arches(scmp_filter_ctx ctx, const struct json *p, const struct request *rq, struct err *e) {
  int native = arch_index(rq->arch);
  if (arches[native].token != seccomp_arch_native()) {
    int rc = seccomp_arch_add(ctx, arches[native].token);
    if (rc == 0) rc = seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE);
    if (rc < 0) return fail(e, -rc, "seccomp_arch_add", rq->arch, "libseccomp cannot compile for %s: %s", rq->arch, strerror(-rc));
  }
  const struct json *list = j_get(p, "architectures");
  J_EACH(m, j_get(p, "archMap"))
    if (j_gets(m, "architecture") && !strcmp(j_gets(m, "architecture"), arches[native].scmp)) list = j_get(m, "subArchitectures");
  J_EACH(a, list) {
    int i = j_str(a) ? arch_index(a->s) : -1;
    if (i < 0) return fail(e, EINVAL, "parse", "linux.seccomp.architectures", "unknown architecture '%s'", j_str(a) ? a->s : "");
    int rc = seccomp_arch_add(ctx, arches[i].token);
    if (rc < 0 && rc != -EEXIST)
      return fail(e, -rc, "seccomp_arch_add", a->s, "libseccomp cannot add the architecture %s: %s", a->s, strerror(-rc));
  }
  return 0;
}

static int export(scmp_filter_ctx ctx, void **out, size_t *len, struct err *e) {
  autofd fd = memfd_create("shoal-seccomp", MFD_CLOEXEC);
  int rc = fd < 0 ? -errno : seccomp_export_bpf(ctx, fd);
  off_t size = rc < 0 ? -1 : lseek(fd, 0, SEEK_END);
  if (rc < 0 || size < 0) return fail(e, rc < 0 ? -rc : 0, "seccomp_export_bpf", "", "libseccomp cannot make the program: %s", strerror(rc < 0 ? -rc : errno));
  char *p = xalloc((size_t)size);
  if (pread(fd, p, (size_t)size, 0) != size) {
    free(p);
    return fail(e, EIO, "pread", "", "cannot read the compiled program back");
  }
  *out = p;
  *len = (size_t)size;
  return 0;
}

int profile_compile(const char *text, size_t n, const char *const *caps, size_t n_caps, const char *arch, int optimize, void **out,
                    size_t *out_len, struct err *e) {
  struct arena a = {0};
  struct utsname u;
  struct request rq = {caps, n_caps, arch};
  int r = -1;
  scmp_filter_ctx ctx = NULL;
  uint32_t dflt;
  STAGE("seccomp");
  if (!arch || !*arch) rq.arch = uname(&u) == 0 ? u.machine : "x86_64";
  int ai = arch_index(rq.arch);
  if (ai < 0) return fail(e, EINVAL, "parse", rq.arch, "unknown architecture '%s'", rq.arch);
  rq.arch = arches[ai].go;
  const struct json *p = json_parse(&a, text, n, "seccomp profile", e);
  if (!p || action(j_gets(p, "defaultAction"), j_get(p, "defaultErrnoRet"), &dflt, e) < 0) goto out;
  ctx = seccomp_init(dflt);
  if (!ctx) {
    fail(e, ENOMEM, "seccomp_init", "", "libseccomp cannot start");
    goto out;
  }
  int rc;
  // The container's own loader sets no_new_privs or has the right to go without.
  if ((rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0)) < 0 || (rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, (uint32_t)optimize)) < 0) {
    fail(e, -rc, "seccomp_attr_set", "", "libseccomp refuses an attribute: %s", strerror(-rc));
    goto out;
  }
  if (add_arches(ctx, p, &rq, e) < 0) goto out;
  J_EACH(rule, j_get(p, "syscalls")) {
    uint32_t act;
    if (!wanted(rule, &rq)) continue;
    if (action(j_gets(rule, "action"), j_get(rule, "errnoRet"), &act, e) < 0) goto out;
    if (act == dflt) continue;
    if (add_rule(ctx, rule, act, e) < 0) goto out;
  }
  r = export(ctx, out, out_len, e);
out:
  if (ctx) seccomp_release(ctx);
  arena_free(&a);
  return r;
}
