// The profile's document: what it may hold, which of its rules apply, and what they mean.
#include <linux/audit.h>
#include <linux/elf-em.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <strings.h>
#include <sys/utsname.h>

#include "filter.h"
#include "syscall-tables.h"

#define N32 0x20000000  // libseccomp's mark for the 32-bit convention on 64-bit MIPS
const struct filter_arch filter_arches[] = {
    {"amd64", "x86_64", "SCMP_ARCH_X86_64", AUDIT_ARCH_X86_64, TABLE_X86_64},
    {"386", "i686", "SCMP_ARCH_X86", AUDIT_ARCH_I386, TABLE_X86},
    {"x32", "x32", "SCMP_ARCH_X32", EM_X86_64 | __AUDIT_ARCH_LE, TABLE_X32},
    {"arm64", "aarch64", "SCMP_ARCH_AARCH64", AUDIT_ARCH_AARCH64, TABLE_AARCH64},
    {"arm", "armv7l", "SCMP_ARCH_ARM", AUDIT_ARCH_ARM, TABLE_ARM},
    {"ppc64le", "ppc64le", "SCMP_ARCH_PPC64LE", AUDIT_ARCH_PPC64LE, TABLE_PPC64LE},
    {"ppc64", "ppc64", "SCMP_ARCH_PPC64", AUDIT_ARCH_PPC64, -1},
    {"ppc", "ppc", "SCMP_ARCH_PPC", AUDIT_ARCH_PPC, -1},
    {"s390x", "s390x", "SCMP_ARCH_S390X", AUDIT_ARCH_S390X, -1},
    {"s390", "s390", "SCMP_ARCH_S390", AUDIT_ARCH_S390, -1},
    {"riscv64", "riscv64", "SCMP_ARCH_RISCV64", AUDIT_ARCH_RISCV64, TABLE_RISCV64},
    {"mips", "mips", "SCMP_ARCH_MIPS", AUDIT_ARCH_MIPS, -1},
    {"mips64", "mips64", "SCMP_ARCH_MIPS64", AUDIT_ARCH_MIPS64, -1},
    {"mips64n32", "mips64n32", "SCMP_ARCH_MIPS64N32", AUDIT_ARCH_MIPS64 | N32, -1},
    {"mipsle", "mipsel", "SCMP_ARCH_MIPSEL", AUDIT_ARCH_MIPSEL, -1},
    {"mips64le", "mipsel64", "SCMP_ARCH_MIPSEL64", AUDIT_ARCH_MIPSEL64, -1},
    {"mipsel64n32", "mipsel64n32", "SCMP_ARCH_MIPSEL64N32", AUDIT_ARCH_MIPSEL64 | N32, -1},
    {"parisc", "parisc", "SCMP_ARCH_PARISC", AUDIT_ARCH_PARISC, -1},
    {"parisc64", "parisc64", "SCMP_ARCH_PARISC64", AUDIT_ARCH_PARISC64, -1}};
enum { N_ARCHES = sizeof filter_arches / sizeof filter_arches[0] };

struct request {
  const char *const *caps;
  size_t n_caps;
  const char *arch;  // Go's name
};

static int arch_index(const char *name) {
  for (int i = 0; i < N_ARCHES; i++)
    if (!strcmp(name, filter_arches[i].go) || !strcmp(name, filter_arches[i].kernel) || !strcmp(name, filter_arches[i].scmp)) return i;
  return -1;
}

// errno defaults: EPERM for SCMP_ACT_ERRNO and for TRACE, as runc has it.
static int action(const char *name, const struct json *ret, uint32_t *out, struct err *e) {
  uint32_t data = (uint32_t)j_uint(ret, EPERM) & SECCOMP_RET_DATA;
  static const struct {
    const char *name;
    uint32_t value;
    bool data;
  } all[] = {{"SCMP_ACT_ALLOW", SECCOMP_RET_ALLOW, false}, {"SCMP_ACT_ERRNO", SECCOMP_RET_ERRNO, true},
             {"SCMP_ACT_KILL", SECCOMP_RET_KILL_THREAD, false}, {"SCMP_ACT_KILL_THREAD", SECCOMP_RET_KILL_THREAD, false},
             {"SCMP_ACT_KILL_PROCESS", SECCOMP_RET_KILL_PROCESS, false}, {"SCMP_ACT_TRAP", SECCOMP_RET_TRAP, false},
             {"SCMP_ACT_TRACE", SECCOMP_RET_TRACE, true}, {"SCMP_ACT_LOG", SECCOMP_RET_LOG, false},
             {"SCMP_ACT_NOTIFY", SECCOMP_RET_USER_NOTIF, false}};
  for (size_t i = 0; name && i < sizeof all / sizeof all[0]; i++)
    if (!strcmp(name, all[i].name)) return *out = all[i].value | (all[i].data ? data : 0), 0;
  return fail(e, EINVAL, "parse", "linux.seccomp", "unknown seccomp action '%s'", name ? name : "");
}

static int comparison(const struct json *a, struct filter_arg *out, struct err *e) {
  static const char *const ops[] = {"NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"};
  const char *op = j_gets(a, "op");
  uint64_t index = j_uint(j_get(a, "index"), 99);
  for (unsigned i = 0; op && !strncmp(op, "SCMP_CMP_", 9) && i < sizeof ops / sizeof ops[0]; i++) {
    if (strcmp(op + 9, ops[i])) continue;
    if (index > 5) return fail(e, EINVAL, "parse", "linux.seccomp", "a system call has arguments 0 to 5, not %llu", (unsigned long long)index);
    *out = (struct filter_arg){(unsigned)index, (enum filter_op)(FILTER_NE + i), j_uint(j_get(a, "value"), 0), j_uint(j_get(a, "valueTwo"), 0)};
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

static int rule_read(const struct json *rule, struct filter_rule *r, struct err *e) {
  unsigned seen = 0;
  if (action(j_gets(rule, "action"), j_get(rule, "errnoRet"), &r->action, e) < 0) return -1;
  J_EACH(a, j_get(rule, "args")) {
    if (r->n == 6) return fail(e, EINVAL, "parse", "linux.seccomp", "a rule has more than 6 argument conditions");
    if (comparison(a, &r->args[r->n], e) < 0) return -1;
    r->alternatives |= seen >> r->args[r->n].arg & 1;
    seen |= 1u << r->args[r->n++].arg;
  }
  r->one = j_gets(rule, "name");
  r->names = j_get(rule, "names");
  if (!r->one && !j_items(r->names)) return fail(e, EINVAL, "parse", "linux.seccomp.syscalls", "a rule has no names");
  J_EACH(name, r->names) if (!j_str(name)) return fail(e, EINVAL, "parse", "linux.seccomp.syscalls", "the names of a rule must be strings");
  return 0;
}

static int arches_read(const struct json *p, int own, struct filter_plan *plan, struct err *e) {
  plan->arches[plan->n_arches++] = own;
  const struct json *list = j_get(p, "architectures");
  J_EACH(m, j_get(p, "archMap"))
    if (j_gets(m, "architecture") && !strcmp(j_gets(m, "architecture"), filter_arches[own].scmp)) list = j_get(m, "subArchitectures");
  J_EACH(a, list) {
    int i = j_str(a) ? arch_index(a->s) : -1;
    if (i < 0) return fail(e, EINVAL, "parse", "linux.seccomp.architectures", "unknown architecture '%s'", j_str(a) ? a->s : "");
    bool twice = false;
    for (int k = 0; k < plan->n_arches; k++) twice |= plan->arches[k] == i;
    if (!twice) plan->arches[plan->n_arches++] = i;  // fits: no more than all of the table
  }
  return 0;
}

int filter_read(struct arena *arena, const struct json *p, const char *const *caps, size_t n_caps, const char *arch,
                struct filter_plan *plan, struct err *e) {
  _Static_assert((int)N_ARCHES <= (int)FILTER_MAX_ARCHES, "every architecture fits into a plan");
  struct utsname u;
  struct request rq = {caps, n_caps, NULL};
  *plan = (struct filter_plan){0};
  if (!arch || !*arch) arch = uname(&u) == 0 ? u.machine : "x86_64";
  int own = arch_index(arch);
  if (own < 0) return fail(e, EINVAL, "parse", arch, "unknown architecture '%s'", arch);
  rq.arch = filter_arches[own].go;
  if (action(j_gets(p, "defaultAction"), j_get(p, "defaultErrnoRet"), &plan->fallback, e) < 0) return -1;
  if (arches_read(p, own, plan, e) < 0) return -1;
  struct filter_rule **tail = &plan->rules, **known = &plan->known;
  J_EACH(rule, j_get(p, "syscalls")) {
    if (!wanted(rule, &rq)) continue;
    struct filter_rule *r = arena_alloc(arena, sizeof *r);
    *r = (struct filter_rule){0};
    if (rule_read(rule, r, e) < 0) return -1;
    struct filter_rule ***end = r->action == plan->fallback ? &known : &tail;
    **end = r;
    *end = &r->next;
  }
  return 0;
}

static void write_member(struct buf *out, const struct json *o, const char *key) {
  if (!j_get(o, key)) return;
  if (out->p[out->len - 1] != '{') buf_str(out, ",");
  json_quote_str(out, key);
  buf_str(out, ":");
  json_write(out, j_get(o, key));
}

int filter_resolve(struct buf *out, const struct json *p, const char *const *caps, size_t n_caps, struct err *e) {
  static const char *const whole[] = {"defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"};
  static const char *const parts[] = {"names", "action", "errnoRet", "args"};
  struct arena a = {0};
  struct filter_plan plan;
  if (filter_read(&a, p, caps, n_caps, NULL, &plan, e) < 0) return arena_free(&a), -1;
  struct request rq = {caps, n_caps, filter_arches[plan.arches[0]].go};
  buf_str(out, "{");
  for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) write_member(out, p, whole[i]);
  buf_str(out, ",\"architectures\":[");
  for (int i = 0; i < plan.n_arches; i++) buf_fmt(out, "%s\"%s\"", i ? "," : "", filter_arches[plan.arches[i]].scmp);
  buf_str(out, "],\"syscalls\":[");
  bool first = true;
  J_EACH(rule, j_get(p, "syscalls")) {
    if (!wanted(rule, &rq)) continue;
    buf_str(out, first ? "{" : ",{");
    first = false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) write_member(out, rule, parts[i]);
    if (!j_get(rule, "names")) {
      buf_str(out, ",\"names\":[");
      json_quote_str(out, j_gets(rule, "name"));
      buf_str(out, "]");
    }
    buf_str(out, "}");
  }
  buf_str(out, "]}");
  arena_free(&a);
  return 0;
}
