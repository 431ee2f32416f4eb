// Limits of controllers in the v2 tree, and the device filter program that stands in for the v1 devices controller.
#include <linux/bpf.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "cgroup.h"

static const struct cgroup_tree *v2(const struct cgroup *cg, const char *controller) {
  const struct cgroup_tree *t = cgroup_tree_of(cg, controller);
  return t && t->v2 ? t : NULL;
}

static int limit(const struct cgroup_tree *t, const char *file, int64_t v, struct err *e) {
  char s[32];
  if (v < 0) return cgroup_write(t, file, "max", e);
  snprintf(s, sizeof s, "%lld", (long long)v);
  return cgroup_write(t, file, s, e);
}

static int memory(const struct cgroup_tree *t, const struct json *m, struct err *e) {
  int64_t max = j_int(j_get(m, "limit"), 0), swap = j_int(j_get(m, "swap"), 0), low = j_int(j_get(m, "reservation"), 0);
  if (max == -1 && !swap) swap = -1;
  if (swap && cgroup_has(t, "memory.swap.max")) {
    // The specification counts memory and swap together, v2 counts swap alone.
    if (swap > 0 && max <= 0) return fail(e, EINVAL, "cgroup", "memory.swap.max", "memory.swap needs memory.limit on cgroup v2");
    if (swap > 0 && swap < max) return fail(e, EINVAL, "cgroup", "memory.swap.max", "memory.swap is smaller than memory.limit");
    if (limit(t, "memory.swap.max", swap < 0 ? -1 : swap - max, e) < 0) return -1;
  }
  if (max && limit(t, "memory.max", max, e) < 0) return -1;
  return low ? limit(t, "memory.low", low, e) : 0;
}

static int cpu(const struct cgroup_tree *t, const struct json *c, struct err *e) {
  uint64_t shares = j_uint(j_get(c, "shares"), 0);
  int64_t quota = j_int(j_get(c, "quota"), 0), period = j_int(j_get(c, "period"), 0), idle = j_int(j_get(c, "idle"), 0);
  if (idle && limit(t, "cpu.idle", idle, e) < 0) return -1;
  if (shares && !idle) {
    // v1 shares 2..262144 onto v2 weight 1..10000
    uint64_t s = shares < 2 ? 2 : shares > 262144 ? 262144 : shares;
    if (limit(t, "cpu.weight", (int64_t)(1 + (s - 2) * 9999 / 262142), e) < 0) return -1;
  }
  if (quota || period) {
    char s[64];
    if (quota > 0) snprintf(s, sizeof s, "%lld %lld", (long long)quota, (long long)(period ? period : 100000));
    else snprintf(s, sizeof s, "max %lld", (long long)(period ? period : 100000));
    if (cgroup_write(t, "cpu.max", s, e) < 0) return -1;
  }
  int64_t burst = j_int(j_get(c, "burst"), 0);
  return burst ? limit(t, "cpu.max.burst", burst, e) : 0;
}

static int io(const struct cgroup_tree *t, const struct json *b, struct err *e) {
  static const struct {
    const char *key, *name;
  } throttle[] = {{"throttleReadBpsDevice", "rbps"}, {"throttleWriteBpsDevice", "wbps"},
                  {"throttleReadIOPSDevice", "riops"}, {"throttleWriteIOPSDevice", "wiops"}};
  char s[96];
  int64_t w = j_int(j_get(b, "weight"), 0);
  if (w) {
    // BFQ takes 1..1000 as given, io.weight wants 1..10000
    if (cgroup_has(t, "io.bfq.weight")) snprintf(s, sizeof s, "%lld", (long long)w);
    else snprintf(s, sizeof s, "default %lld", (long long)(1 + (w < 10 ? 0 : w - 10) * 9999 / 990));
    if (cgroup_write(t, cgroup_has(t, "io.bfq.weight") ? "io.bfq.weight" : "io.weight", s, e) < 0) return -1;
  }
  J_EACH(d, j_get(b, "weightDevice")) {
    snprintf(s, sizeof s, "%lld:%lld %lld", (long long)j_int(j_get(d, "major"), 0), (long long)j_int(j_get(d, "minor"), 0),
             (long long)j_int(j_get(d, "weight"), 0));
    if (cgroup_write(t, "io.bfq.weight", s, e) < 0) return -1;
  }
  for (int i = 0; i < 4; i++)
    J_EACH(d, j_get(b, throttle[i].key)) {
      uint64_t rate = j_uint(j_get(d, "rate"), 0);
      int n = snprintf(s, sizeof s, "%lld:%lld %s=", (long long)j_int(j_get(d, "major"), 0),
                       (long long)j_int(j_get(d, "minor"), 0), throttle[i].name);
      if (rate) snprintf(s + n, sizeof s - (size_t)n, "%llu", (unsigned long long)rate);
      else snprintf(s + n, sizeof s - (size_t)n, "max");
      if (cgroup_write(t, "io.max", s, e) < 0) return -1;
    }
  return 0;
}

int cgroup_v2_apply(const struct cgroup *cg, const struct json *r, struct err *e) {
  const struct cgroup_tree *t;
  const struct json *m = j_get(r, "memory"), *c = j_get(r, "cpu"), *p = j_path(r, "pids.limit"), *b = j_get(r, "blockIO");
  if (m && (t = v2(cg, "memory")) && memory(t, m, e) < 0) return -1;
  if (c && (t = v2(cg, "cpu")) && cpu(t, c, e) < 0) return -1;
  if (c && (t = v2(cg, "cpuset"))) {
    const char *cpus = j_gets(c, "cpus"), *mems = j_gets(c, "mems");
    if (cpus && *cpus && cgroup_write(t, "cpuset.cpus", cpus, e) < 0) return -1;
    if (mems && *mems && cgroup_write(t, "cpuset.mems", mems, e) < 0) return -1;
  }
  if (p && (t = v2(cg, "pids")) && limit(t, "pids.max", j_int(p, 0) > 0 ? j_int(p, 0) : -1, e) < 0) return -1;
  if (b && (t = v2(cg, "io")) && io(t, b, e) < 0) return -1;
  if ((t = v2(cg, "hugetlb"))) J_EACH(h, j_get(r, "hugepageLimits")) {
      char file[96];
      snprintf(file, sizeof file, "hugetlb.%s.max", j_gets(h, "pageSize") ? j_gets(h, "pageSize") : "");
      if (limit(t, file, j_int(j_get(h, "limit"), 0), e) < 0) return -1;
    }
  if (j_items(j_get(r, "hugepageLimits")) && !cgroup_tree_of(cg, "hugetlb"))
    return fail(e, ENODEV, "cgroup", "hugetlb", "linux.resources.hugepageLimits is asked for, but there is no 'hugetlb' controller");
  J_EACH(d, j_get(r, "rdma")) {
    if (!(t = cgroup_tree_of(cg, "rdma")))
      return fail(e, ENODEV, "cgroup", "rdma", "linux.resources.rdma is asked for, but there is no 'rdma' controller");
    autobuf s = {0};
    buf_str(&s, d->key);
    if (j_get(d, "hcaHandles")) buf_fmt(&s, " hca_handle=%llu", (unsigned long long)j_uint(j_get(d, "hcaHandles"), 0));
    if (j_get(d, "hcaObjects")) buf_fmt(&s, " hca_object=%llu", (unsigned long long)j_uint(j_get(d, "hcaObjects"), 0));
    if (cgroup_write(t, "rdma.max", s.p, e) < 0) return -1;
  }
  if (j_items(j_get(r, "unified"))) {
    if (!(t = cgroup_v2(cg))) return fail(e, ENODEV, "cgroup", "unified", "linux.resources.unified needs cgroup v2, which is not mounted");
    J_EACH(u, j_get(r, "unified")) {
      if (strchr(u->key, '/')) return fail(e, EINVAL, "cgroup", u->key, "'%s' in linux.resources.unified is not a file name", u->key);
      size_t n = strcspn(u->key, ".");
      if (!u->key[n])
        return fail(e, EINVAL, "cgroup", u->key, "invalid configuration of linux.resources.unified: the specified key has not the form CONTROLLER.VALUE `%s`", u->key);
      if (!j_str(u) || cgroup_write(t, u->key, j_str(u), e) == 0) continue;
      autofree char *controller = xasprintf("%.*s", (int)n, u->key);
      if (e->code != ENOENT || cgroup_tree_of(cg, controller) == t) return -1;
      return fail(e, ENOENT, "cgroup", u->key, "invalid configuration of linux.resources.unified: the requested cgroup controller `%s` is not available on cgroup v2 here", controller);
    }
  }
  return 0;
}

#define INSN(c, d, s, o, i) ((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (short)(o), .imm = (i)})

// Asks the rules from the last to the first; the first that matches decides. r2 type, r3 access, r4 major, r5 minor.
static int device_program(const struct json *rules, struct bpf_insn **out) {
  static const char standard_text[] =
      "[{\"allow\":true,\"type\":\"c\",\"access\":\"m\"},{\"allow\":true,\"type\":\"b\",\"access\":\"m\"},"
      "{\"allow\":true,\"type\":\"c\",\"major\":1,\"minor\":3},{\"allow\":true,\"type\":\"c\",\"major\":1,\"minor\":5},"
      "{\"allow\":true,\"type\":\"c\",\"major\":1,\"minor\":7},{\"allow\":true,\"type\":\"c\",\"major\":1,\"minor\":8},"
      "{\"allow\":true,\"type\":\"c\",\"major\":1,\"minor\":9},{\"allow\":true,\"type\":\"c\",\"major\":5,\"minor\":0},"
      "{\"allow\":true,\"type\":\"c\",\"major\":5,\"minor\":2},{\"allow\":true,\"type\":\"c\",\"major\":136}]";
  struct arena a = {0};
  struct err e;
  const struct json *standard = json_parse(&a, standard_text, sizeof standard_text - 1, "standard devices", &e);
  size_t total = rules->n + (standard ? standard->n : 0), k = 0;
  const struct json **all = xalloc(total * sizeof *all);
  J_EACH(r, rules) all[k++] = r;
  J_EACH(r, standard) all[k++] = r;
  struct bpf_insn *p = xalloc((8 + total * 12) * sizeof *p);
  int n = 0;
  p[n++] = INSN(BPF_LDX | BPF_W | BPF_MEM, 2, 1, 0, 0);
  p[n++] = INSN(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff);
  p[n++] = INSN(BPF_LDX | BPF_W | BPF_MEM, 3, 1, 0, 0);
  p[n++] = INSN(BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16);
  p[n++] = INSN(BPF_LDX | BPF_W | BPF_MEM, 4, 1, 4, 0);
  p[n++] = INSN(BPF_LDX | BPF_W | BPF_MEM, 5, 1, 8, 0);
  for (size_t i = total; i-- > 0;) {
    const char *type = j_gets(all[i], "type"), *access = j_gets(all[i], "access");
    bool allow = j_bool(j_get(all[i], "allow"), false);
    int64_t ma = j_int(j_get(all[i], "major"), -1), mi = j_int(j_get(all[i], "minor"), -1);
    int want = 0, jumps[6], nj = 0;
    if (!access || !*access) access = "rwm";
    if (strchr(access, 'm')) want |= BPF_DEVCG_ACC_MKNOD;
    if (strchr(access, 'r')) want |= BPF_DEVCG_ACC_READ;
    if (strchr(access, 'w')) want |= BPF_DEVCG_ACC_WRITE;
    if (type && *type && *type != 'a') {
      jumps[nj++] = n;
      p[n++] = INSN(BPF_JMP | BPF_JNE | BPF_K, 2, 0, 0, *type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
    }
    if (want != 7) {
      p[n++] = INSN(BPF_ALU | BPF_MOV | BPF_X, 1, 3, 0, 0);
      p[n++] = INSN(BPF_ALU | BPF_AND | BPF_K, 1, 0, 0, want);
      jumps[nj++] = n;
      // Allowed when all that is asked for is granted; denied when any of it is refused.
      if (allow) p[n++] = INSN(BPF_JMP | BPF_JNE | BPF_X, 1, 3, 0, 0);
      else p[n++] = INSN(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0, 0);
    }
    if (ma >= 0) {
      jumps[nj++] = n;
      p[n++] = INSN(BPF_JMP | BPF_JNE | BPF_K, 4, 0, 0, (int)ma);
    }
    if (mi >= 0) {
      jumps[nj++] = n;
      p[n++] = INSN(BPF_JMP | BPF_JNE | BPF_K, 5, 0, 0, (int)mi);
    }
    p[n++] = INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, allow ? 1 : 0);
    p[n++] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    for (int j = 0; j < nj; j++) p[jumps[j]].off = (short)(n - jumps[j] - 1);
    // A rule for everything ends the list: the verifier refuses instructions that can never be reached.
    if (nj == 0) goto done;
  }
  p[n++] = INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1);
  p[n++] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
done:
  free(all);
  arena_free(&a);
  *out = p;
  return n;
}

// Replaces the filter of an earlier call: the newest program goes in first, then the older ones go, so that no moment is without.
int devices_bpf_attach(const char *dir, const struct json *rules, struct err *e) {
  autofree struct bpf_insn *insns = NULL;
  int n = device_program(rules, &insns);
  autofd cg = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (cg < 0) return fail(e, 0, "open", dir, "cannot open %s: %s", dir, strerror(errno));
  uint32_t old[64] = {0};
  union bpf_attr q = {.query = {.target_fd = (uint32_t)cg, .attach_type = BPF_CGROUP_DEVICE, .prog_ids = (uintptr_t)old, .prog_cnt = 64}};
  uint32_t olds = syscall(SYS_bpf, BPF_PROG_QUERY, &q, sizeof q) == 0 ? q.query.prog_cnt : 0;
  union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = (uint32_t)n, .insns = (uintptr_t)insns,
                         .license = (uintptr_t) "GPL"};
  autofd prog = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
  if (prog < 0) return fail(e, 0, "bpf", dir, "cannot load the device filter (BPF_PROG_LOAD): %s", strerror(errno));
  union bpf_attr at = {.target_fd = (uint32_t)cg, .attach_bpf_fd = (uint32_t)prog, .attach_type = BPF_CGROUP_DEVICE,
                       .attach_flags = BPF_F_ALLOW_MULTI};
  if (syscall(SYS_bpf, BPF_PROG_ATTACH, &at, sizeof at) < 0)
    return fail(e, 0, "bpf", dir, "cannot attach the device filter (BPF_PROG_ATTACH): %s", strerror(errno));
  for (uint32_t i = 0; i < olds; i++) {
    union bpf_attr by = {.prog_id = old[i]};
    autofd fd = (int)syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, &by, sizeof by);
    union bpf_attr off = {.target_fd = (uint32_t)cg, .attach_bpf_fd = (uint32_t)fd, .attach_type = BPF_CGROUP_DEVICE};
    if (fd < 0 || syscall(SYS_bpf, BPF_PROG_DETACH, &off, sizeof off) < 0)
      return fail(e, 0, "bpf", dir, "cannot take the earlier device filter away: %s", strerror(errno));
  }
  return 0;
}
