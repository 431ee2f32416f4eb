#include "profile.h"

#include <seccomp.h>
#include <sys/mman.h>

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

static int add_rule(scmp_filter_ctx ctx, const struct filter_rule *rule, struct err *e) {
  struct scmp_arg_cmp args[6];
  for (unsigned i = 0; i < rule->n; i++)
    args[i] = (struct scmp_arg_cmp){rule->args[i].arg, (enum scmp_compare)rule->args[i].op, rule->args[i].a, rule->args[i].b};
  for (const struct json *name = j_items(rule->names); rule->one || name; name = name->next) {
    const char *s = rule->one ? rule->one : name->s;
    // Conditions on one argument twice are alternatives: a rule for each.
    for (unsigned i = 0; rule->alternatives && i < rule->n; i++)
      if (add_name(ctx, s, rule->action, &args[i], 1, e) < 0) return -1;
    if (!rule->alternatives && add_name(ctx, s, rule->action, args, rule->n, e) < 0) return -1;
    if (rule->one) break;
  }
  return 0;
}

static int add_arches(scmp_filter_ctx ctx, const struct filter_plan *plan, struct err *e) {
  for (int i = 0; i < plan->n_arches; i++) {
    const struct filter_arch *a = &filter_arches[plan->arches[i]];
    int rc;
    // First away with this machine's: architectures of different byte order do not go together.
    if (i == 0 && a->token != seccomp_arch_native() && (rc = seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE)) < 0)
      return fail(e, -rc, "seccomp_arch_remove", a->scmp, "libseccomp cannot leave out this machine's architecture: %s", strerror(-rc));
    rc = seccomp_arch_add(ctx, a->token);
    if (rc < 0 && rc != -EEXIST)
      return fail(e, -rc, "seccomp_arch_add", a->scmp, "libseccomp cannot compile for %s: %s", a->go, strerror(-rc));
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

static int with_libseccomp(const struct filter_plan *plan, int optimize, void **out, size_t *len, struct err *e) {
  scmp_filter_ctx ctx = seccomp_init(plan->fallback);
  if (!ctx) return fail(e, ENOMEM, "seccomp_init", "", "libseccomp cannot start");
  int rc, r = -1;
  // The container's own loader sets no_new_privs or has the right to go without.
  if ((rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0)) < 0 || (rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, (uint32_t)optimize)) < 0) {
    fail(e, -rc, "seccomp_attr_set", "", "libseccomp refuses an attribute: %s", strerror(-rc));
    goto out;
  }
  if (add_arches(ctx, plan, e) < 0) goto out;
  for (const struct filter_rule *rule = plan->rules; rule; rule = rule->next)
    if (add_rule(ctx, rule, e) < 0) goto out;
  r = export(ctx, out, len, e);
out:
  seccomp_release(ctx);
  return r;
}

int profile_compile(const char *text, size_t n, const char *const *caps, size_t n_caps, const char *arch, enum profile_compiler by, void **out,
                    size_t *out_len, struct err *e) {
  struct arena a = {0};
  struct filter_plan plan;
  STAGE("seccomp");
  const struct json *p = json_parse(&a, text, n, "seccomp profile", e);
  int r = !p || filter_read(&a, p, caps, n_caps, arch, &plan, e) < 0 ? -1 : 1;
  if (r > 0 && by == PROFILE_FASTEST) r = filter_compile(&plan, out, out_len);
  if (r > 0) r = with_libseccomp(&plan, by == PROFILE_FASTEST ? 2 : 1, out, out_len, e);
  if (r == 0) filter_younger(&plan, out, out_len);
  arena_free(&a);
  return r;
}
