// Capability sets: the names of capabilities(7), and the order in which the five sets can be put in place.
#include "caps.h"

#include <linux/capability.h>
#include <stdio.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static const char *const names[] = {
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE"};
enum { KNOWN = sizeof names / sizeof names[0] };

const char *cap_name(int cap) { return cap >= 0 && cap < KNOWN ? names[cap] : NULL; }

int caps_last(void) {
  int last = 0;
  while (last < 63 && prctl(PR_CAPBSET_READ, last + 1, 0, 0, 0) >= 0) last++;
  return last;
}

uint64_t caps_own_bounding(void) {
  uint64_t set = 0;
  for (int c = 0; c < 64; c++) {
    int r = prctl(PR_CAPBSET_READ, c, 0, 0, 0);
    if (r < 0) break;
    if (r > 0) set |= 1ull << c;
  }
  return set;
}

// The specification (1.1 and newer): what cannot be mapped to the kernel is reported and left out, it does not stop the container.
static void parse_set(uint64_t *out, const struct json *list) {
  *out = 0;
  J_EACH(i, list) {
    const char *s = j_str(i);
    int c = 0;
    if (s && !strncasecmp(s, "CAP_", 4)) s += 4;
    while (s && c < KNOWN && strcasecmp(s, names[c])) c++;
    if (s && c < KNOWN) *out |= 1ull << c;
    else fprintf(stderr, "warning: the unknown capability '%s' is left out: use the names of capabilities(7)\n", s ? s : "?");
  }
}

void caps_parse(struct caps *c, const struct json *o) {
  *c = (struct caps){0};
  parse_set(&c->bounding, j_get(o, "bounding"));
  parse_set(&c->effective, j_get(o, "effective"));
  parse_set(&c->permitted, j_get(o, "permitted"));
  parse_set(&c->inheritable, j_get(o, "inheritable"));
  parse_set(&c->ambient, j_get(o, "ambient"));
  // A host may itself lack capabilities: what cannot be handed on is left out, so that "all capabilities" works everywhere.
  uint64_t own = caps_own_bounding();
  c->bounding &= own;
  c->permitted &= own;
  c->effective &= c->permitted;
  c->inheritable &= own;
  c->ambient &= c->permitted & c->inheritable;
}

int caps_drop_bounding(const struct caps *c, struct err *e) {
  for (int cap = 0; cap < 64; cap++) {
    if (c->bounding & (1ull << cap)) continue;
    int has = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
    if (has < 0) break;
    if (has && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
      return fail(e, 0, "prctl", "PR_CAPBSET_DROP", "cannot drop capability %d from the bounding set: %s", cap, strerror(errno));
  }
  return 0;
}

int caps_keep(struct err *e) {
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
    return fail(e, 0, "prctl", "PR_SET_KEEPCAPS", "cannot keep capabilities over the change of user: %s", strerror(errno));
  return 0;
}

int caps_apply(const struct caps *c, struct err *e) {
  struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct d[2] = {
      {(uint32_t)c->effective, (uint32_t)c->permitted, (uint32_t)c->inheritable},
      {(uint32_t)(c->effective >> 32), (uint32_t)(c->permitted >> 32), (uint32_t)(c->inheritable >> 32)}};
  if (syscall(SYS_capset, &h, d) < 0)
    return fail(e, 0, "capset", "process.capabilities", "cannot set the capability sets: %s", strerror(errno));
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
    return fail(e, 0, "prctl", "PR_CAP_AMBIENT", "cannot clear the ambient set: %s", strerror(errno));
  for (int cap = 0; cap < 64; cap++)
    if (c->ambient & (1ull << cap) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
      return fail(e, 0, "prctl", "PR_CAP_AMBIENT", "cannot raise ambient capability CAP_%s: %s",
                  cap_name(cap) ? cap_name(cap) : "?", strerror(errno));
  return 0;
}
