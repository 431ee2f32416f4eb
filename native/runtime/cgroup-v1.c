// Limits of controllers that are mounted as v1 hierarchies.
#include <stdio.h>

#include "cgroup.h"

// Plain values: where they stand in linux.resources, and the file that takes them.
static const struct plain {
  const char *path, *controller, *file;
  bool zero_is_unset;  // 0 means "not given" for these, as the file would refuse it
} plain[] = {
    {"memory.reservation", "memory", "memory.soft_limit_in_bytes", true},
    {"memory.swappiness", "memory", "memory.swappiness", false},
    {"memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", true},
    {"cpu.shares", "cpu", "cpu.shares", true},
    {"cpu.idle", "cpu", "cpu.idle", true},
    {"cpu.burst", "cpu", "cpu.cfs_burst_us", true},
    {"cpu.cpus", "cpuset", "cpuset.cpus", true},
    {"cpu.mems", "cpuset", "cpuset.mems", true},
    {"network.classID", "net_cls", "net_cls.classid", true},
};

static const struct cgroup_tree *v1(const struct cgroup *cg, const char *controller) {
  const struct cgroup_tree *t = cgroup_tree_of(cg, controller);
  return t && !t->v2 ? t : NULL;
}

static int missing(const char *controller, const char *what, struct err *e) {
  return fail(e, ENODEV, "cgroup", controller, "linux.resources.%s is asked for, but the kernel offers no '%s' controller here",
              what, controller);
}

static int write_num(const struct cgroup_tree *t, const char *file, int64_t v, struct err *e) {
  char s[32];
  snprintf(s, sizeof s, "%lld", (long long)v);
  return cgroup_write(t, file, s, e);
}

static int memory(const struct cgroup_tree *t, const struct json *m, struct err *e) {
  int64_t limit = j_int(j_get(m, "limit"), 0), swap = j_int(j_get(m, "swap"), 0);
  if (limit == -1 && !swap) swap = -1;  // as with crun and runc: without a limit of memory there is none of memory and swap
  // The kernel wants limit <= memsw at every moment: which of the two goes first depends on the direction.
  bool has_swap = swap != 0 && (swap != -1 || cgroup_has(t, "memory.memsw.limit_in_bytes"));
  if (limit && write_num(t, "memory.limit_in_bytes", limit, e) < 0) {
    if (e->code != EINVAL || !has_swap) return -1;
    if (write_num(t, "memory.memsw.limit_in_bytes", swap, e) < 0 || write_num(t, "memory.limit_in_bytes", limit, e) < 0) return -1;
    has_swap = false;
  }
  if (has_swap && write_num(t, "memory.memsw.limit_in_bytes", swap, e) < 0) return -1;
  if (j_bool(j_get(m, "disableOOMKiller"), false) && cgroup_write(t, "memory.oom_control", "1", e) < 0) return -1;
  return 0;
}

// runtime before period or the other way round: again the relation must hold at every moment.
static int pair(const struct cgroup_tree *t, const char *file_a, int64_t a, const char *file_b, int64_t b, struct err *e) {
  if (a && write_num(t, file_a, a, e) < 0) {
    if (e->code != EINVAL || !b) return -1;
    return write_num(t, file_b, b, e) < 0 || write_num(t, file_a, a, e) < 0 ? -1 : 0;
  }
  return b ? write_num(t, file_b, b, e) : 0;
}

static int cpu(const struct cgroup_tree *t, const struct json *c, struct err *e) {
  if (pair(t, "cpu.cfs_period_us", j_int(j_get(c, "period"), 0), "cpu.cfs_quota_us", j_int(j_get(c, "quota"), 0), e) < 0) return -1;
  return pair(t, "cpu.rt_period_us", j_int(j_get(c, "realtimePeriod"), 0), "cpu.rt_runtime_us",
              j_int(j_get(c, "realtimeRuntime"), 0), e);
}

static int blkio(const struct cgroup_tree *t, const struct json *b, struct err *e) {
  static const struct {
    const char *key, *file;
  } throttle[] = {{"throttleReadBpsDevice", "blkio.throttle.read_bps_device"},
                  {"throttleWriteBpsDevice", "blkio.throttle.write_bps_device"},
                  {"throttleReadIOPSDevice", "blkio.throttle.read_iops_device"},
                  {"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"}};
  bool bfq = cgroup_has(t, "blkio.bfq.weight");
  const struct json *weight = j_get(b, "weight");
  if (j_int(weight, 0) && write_num(t, bfq ? "blkio.bfq.weight" : "blkio.weight", j_int(weight, 0), e) < 0) return -1;
  if (j_int(j_get(b, "leafWeight"), 0) && write_num(t, "blkio.leaf_weight", j_int(j_get(b, "leafWeight"), 0), e) < 0) return -1;
  char s[96];
  J_EACH(d, j_get(b, "weightDevice")) {
    snprintf(s, sizeof s, "%lld:%lld %lld", (long long)j_int(j_get(d, "major"), 0), (long long)j_int(j_get(d, "minor"), 0),
             (long long)j_int(j_get(d, "weight"), 0));
    if (cgroup_write(t, bfq ? "blkio.bfq.weight_device" : "blkio.weight_device", s, e) < 0) return -1;
  }
  for (int i = 0; i < 4; i++)
    J_EACH(d, j_get(b, throttle[i].key)) {
      snprintf(s, sizeof s, "%lld:%lld %llu", (long long)j_int(j_get(d, "major"), 0), (long long)j_int(j_get(d, "minor"), 0),
               (unsigned long long)j_uint(j_get(d, "rate"), 0));
      if (cgroup_write(t, throttle[i].file, s, e) < 0) return -1;
    }
  return 0;
}

int cgroup_v1_apply(const struct cgroup *cg, const struct json *r, struct err *e) {
  const struct cgroup_tree *t;
  const struct json *m = j_get(r, "memory"), *c = j_get(r, "cpu"), *p = j_path(r, "pids.limit"), *b = j_get(r, "blockIO");
  if ((j_get(m, "limit") || j_get(m, "swap") || j_get(m, "reservation")) && !cgroup_tree_of(cg, "memory"))
    return missing("memory", "memory", e);
  static const char *const bandwidth[] = {"quota", "period", "realtimeRuntime", "realtimePeriod"};
  for (int i = 0; i < 4; i++)
    if (j_int(j_get(c, bandwidth[i]), 0) && !cgroup_tree_of(cg, "cpu")) return missing("cpu", bandwidth[i], e);
  if (j_items(b) && !cgroup_tree_of(cg, "blkio") && !cgroup_tree_of(cg, "io")) return missing("io", "blockIO", e);
  if (m && (t = v1(cg, "memory")) && memory(t, m, e) < 0) return -1;
  if (c && (t = v1(cg, "cpu")) && cpu(t, c, e) < 0) return -1;
  for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
    const struct json *v = j_path(r, plain[i].path);
    if (!v || (plain[i].zero_is_unset && (j_str(v) ? !*j_str(v) : j_int(v, 0) == 0))) continue;
    if (!cgroup_tree_of(cg, plain[i].controller)) return missing(plain[i].controller, plain[i].path, e);
    if (!(t = v1(cg, plain[i].controller))) continue;
    if (j_str(v) ? cgroup_write(t, plain[i].file, j_str(v), e) < 0 : write_num(t, plain[i].file, j_int(v, 0), e) < 0) return -1;
  }
  if (j_int(p, 0) > 0 && !cgroup_tree_of(cg, "pids")) return missing("pids", "pids", e);
  if (p && (t = v1(cg, "pids"))) {
    int64_t n = j_int(p, 0);
    if (n > 0 ? write_num(t, "pids.max", n, e) < 0 : cgroup_write(t, "pids.max", "max", e) < 0) return -1;
  }
  if (b && (t = v1(cg, "blkio")) && blkio(t, b, e) < 0) return -1;
  if ((t = v1(cg, "hugetlb"))) J_EACH(h, j_get(r, "hugepageLimits")) {
      char file[96];
      snprintf(file, sizeof file, "hugetlb.%s.limit_in_bytes", j_gets(h, "pageSize") ? j_gets(h, "pageSize") : "");
      if (write_num(t, file, j_int(j_get(h, "limit"), 0), e) < 0) return -1;
    }
  J_EACH(n, j_path(r, "network.priorities")) {
    if (!(t = v1(cg, "net_prio"))) return missing("net_prio", "network.priorities", e);
    autofree char *s = xasprintf("%s %lld", j_gets(n, "name") ? j_gets(n, "name") : "", (long long)j_int(j_get(n, "priority"), 0));
    if (cgroup_write(t, "net_prio.ifpriomap", s, e) < 0) return -1;
  }
  return 0;
}

static int device_rule(char *s, size_t size, const struct json *r) {
  const char *type = j_gets(r, "type"), *access = j_gets(r, "access");
  char major[24] = "*", minor[24] = "*";
  int64_t ma = j_int(j_get(r, "major"), -1), mi = j_int(j_get(r, "minor"), -1);
  if (ma >= 0) snprintf(major, sizeof major, "%lld", (long long)ma);
  if (mi >= 0) snprintf(minor, sizeof minor, "%lld", (long long)mi);
  if (!type || !*type) type = "a";
  return snprintf(s, size, "%c %s:%s %s", *type, major, minor, access && *access ? access : "rwm");
}

int cgroup_devices(const struct cgroup *cg, const struct json *rules, struct err *e) {
  STAGE("cgroup");
  if (!j_items(rules)) return 0;
  const struct cgroup_tree *t = cgroup_tree_of(cg, "devices");
  if (!t) return missing("devices", "devices", e);
  J_EACH(r, rules) {
    const char *type = j_gets(r, "type");
    if (type && *type && strcmp(type, "a") && strcmp(type, "b") && strcmp(type, "c"))
      return fail(e, EINVAL, "parse", "linux.resources.devices", "unknown device type '%s' in a rule: use a, b or c", type);
  }
  if (t->v2) return devices_bpf_attach(t->dir, rules, e);
  autofree char *allow = xasprintf("%s/devices.allow", t->dir), *deny = xasprintf("%s/devices.deny", t->dir);
  autofd fa = open(allow, O_WRONLY | O_CLOEXEC), fd = open(deny, O_WRONLY | O_CLOEXEC);
  if (fa < 0 || fd < 0) return fail(e, 0, "open", allow, "cannot open %s: %s", allow, strerror(errno));
  char s[128];
  J_EACH(r, rules) {
    int n = device_rule(s, sizeof s, r);
    bool yes = j_bool(j_get(r, "allow"), false);
    if (RETRY(write(yes ? fa : fd, s, (size_t)n)) != n)
      return fail(e, 0, "write", yes ? allow : deny, "cannot write the device rule '%s': %s", s, strerror(errno));
  }
  // What every container has, whatever the rules say: making nodes, the standard devices, terminals.
  bool denies = false;
  J_EACH(r, rules) denies |= !j_bool(j_get(r, "allow"), false);
  static const char *const standard[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
                                         "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"};
  for (size_t i = 0; denies && i < sizeof standard / sizeof standard[0]; i++) {
    ssize_t n = (ssize_t)strlen(standard[i]);
    if (RETRY(write(fa, standard[i], (size_t)n)) != n)
      return fail(e, 0, "write", allow, "cannot write the device rule '%s': %s", standard[i], strerror(errno));
  }
  return 0;
}
