// The compiler: a plan to classic BPF.
//
//   arch == A ? ── nr ─ binary search over ranges of numbers with the same fate ──▶ RET action
//   arch == B ? ── nr ─ ...                                                    └──▶ conditions on arguments ─▶ RET
//   else RET KILL
//
// x86_64 and x32 are one architecture to the kernel: their numbers (x32's from 2^30 on) share a tree. Ranges make programs of some
// hundred instructions where one comparison a call makes thousands, and both the kernel's loading (it checks, converts and runs the
// program for every number once) and every call of the container pay by length.
//
// The program is written from its end to its beginning: every jump's targets are there before it, so distances are known, and what
// is too far for the 8 bits of a conditional jump gets a RET or JA of its own close by.
#include "filter.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include "syscall-tables.h"

enum { MAX_INSNS = 4096, NEAR = 250, X32_BIT = 0x40000000 };  // BPF_MAXINSNS

struct program {
  struct sock_filter insn[MAX_INSNS];  // [0] is the last one
  int n;
  bool full;
  struct {
    uint32_t action;
    int at;
  } rets[8];
  unsigned next_ret;
};

// Positions are counted from the end. An instruction at position n reaches t over n - t - 1 others.
static int emit(struct program *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf) {
  if (p->n == MAX_INSNS) {
    p->full = true;
    return 0;
  }
  p->insn[p->n] = (struct sock_filter){code, jt, jf, k};
  return p->n++;
}

static int ret(struct program *p, uint32_t action) {
  for (size_t i = 0; i < sizeof p->rets / sizeof p->rets[0]; i++)
    if (p->rets[i].at >= 0 && p->rets[i].action == action && p->n - p->rets[i].at < NEAR - 50) return p->rets[i].at;
  unsigned slot = p->next_ret++ % (sizeof p->rets / sizeof p->rets[0]);
  p->rets[slot].action = action;
  return p->rets[slot].at = emit(p, BPF_RET | BPF_K, action, 0, 0);
}

static int closer(struct program *p, int target) {
  if (p->n - target - 1 < NEAR) return target;
  if (p->insn[target].code == (BPF_RET | BPF_K)) return ret(p, p->insn[target].k);
  return emit(p, BPF_JMP | BPF_JA, (uint32_t)(p->n - target - 1), 0, 0);
}

static int jump(struct program *p, uint16_t op, uint32_t k, int yes, int no) {
  if (yes == no) return yes;
  yes = closer(p, yes);
  no = closer(p, no);
  return emit(p, BPF_JMP | op | BPF_K, k, (uint8_t)(p->n - yes - 1), (uint8_t)(p->n - no - 1));
}

// Goes on at `next`: falls through to it when that was written last.
static int load(struct program *p, size_t offset, int next) {
  if (next != p->n - 1) emit(p, BPF_JMP | BPF_JA, (uint32_t)(p->n - next - 1), 0, 0);
  return emit(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

// One half of an argument: load, mask, compare.
static int half(struct program *p, const struct filter_arg *c, bool high, uint16_t op, uint32_t k, int yes, int no) {
  size_t offset = offsetof(struct seccomp_data, args) + c->arg * sizeof(uint64_t) + (high ? 4 : 0);
  uint32_t mask = c->op == FILTER_MASKED_EQ ? (uint32_t)(high ? c->a >> 32 : c->a) : ~0u;
  if (mask == 0 && op == BPF_JEQ) return k == 0 ? yes : no;
  int at = jump(p, op, k, yes, no);
  if (at == yes) return at;
  if (mask != ~0u) at = emit(p, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
  return load(p, offset, at);
}

static int compare(struct program *p, const struct filter_arg *c, int bits, int yes, int no) {
  uint64_t v = c->op == FILTER_MASKED_EQ ? c->b : c->a;
  uint32_t lo = (uint32_t)v, hi = (uint32_t)(v >> 32);
  if (yes == no) return yes;
  if (c->op == FILTER_NE || c->op == FILTER_LT || c->op == FILTER_LE) {
    int swap = yes;
    yes = no;
    no = swap;
  }
  bool equal = c->op == FILTER_EQ || c->op == FILTER_NE || c->op == FILTER_MASKED_EQ;
  bool or_equal = c->op == FILTER_GE || c->op == FILTER_LT;  // LT is not GE
  int low = half(p, c, false, equal ? BPF_JEQ : or_equal ? BPF_JGE : BPF_JGT, lo, yes, no);
  if (bits == 32) return low;
  if (equal) return half(p, c, true, BPF_JEQ, hi, low, no);
  int same = jump(p, BPF_JEQ, hi, low, no);
  return load(p, offsetof(struct seccomp_data, args) + c->arg * sizeof(uint64_t) + 4, jump(p, BPF_JGT, hi, yes, same));
}

// A rule as it applies to one number of one architecture.
struct item {
  uint32_t nr;
  int bits;
  const struct filter_rule *rule;
  int alternative;  // of the rule's conditions only this one; -1: all
  int through;      // number within socketcall or ipc, as the first argument says; 0: not by that way
};

static bool conditional(const struct item *i) { return i->rule->n || i->through; }

static int conditions(struct program *p, const struct item *i, int yes, int no) {
  int at = yes;
  for (unsigned k = i->rule->n; k-- > 0;) {
    const struct filter_arg *c = &i->rule->args[k];
    if (i->alternative >= 0 && (unsigned)i->alternative != k) continue;
    if (i->through && c->arg == 0) continue;  // the first argument is which of the family's calls it is
    at = compare(p, c, i->bits, at, no);
  }
  if (i->through) at = compare(p, &(struct filter_arg){0, FILTER_EQ, (uint64_t)i->through, 0}, i->bits, at, no);
  return at;
}

// From `from` on, up to the next range: one action, or the conditions items[0..n-1] of a single number.
struct range {
  uint32_t from, action;
  const struct item *items;
  int n;
};

static int fate(struct program *p, const struct range *r, uint32_t fallback) {
  if (!r->n) return ret(p, r->action);
  int at = ret(p, fallback);
  for (int i = r->n; i-- > 0;) at = conditions(p, &r->items[i], ret(p, r->items[i].rule->action), at);
  return at;
}

static int search(struct program *p, const struct range *r, int n, uint32_t fallback) {
  if (n == 1) return fate(p, r, fallback);
  int right = search(p, r + n / 2, n - n / 2, fallback);
  int left = search(p, r, n / 2, fallback);
  return jump(p, BPF_JGE, r[n / 2].from, right, left);
}

static void range_add(struct range *r, int *n, struct range next) {
  if (*n && r[*n - 1].from == next.from) --*n;
  if (*n && !next.n && !r[*n - 1].n && r[*n - 1].action == next.action) return;
  r[(*n)++] = next;
}

// Rules on one number, as libseccomp takes them: the first one without conditions holds for every call, whatever comes before or after.
// Which of several conditions with different actions wins is libseccomp's own affair: 1.
static int settle(const struct item *it, int n, struct range *out) {
  for (int i = 0; i < n; i++)
    if (!conditional(&it[i])) {
      *out = (struct range){it->nr, it[i].rule->action, NULL, 0};
      return 0;
    }
  for (int i = 1; i < n; i++)
    if (it[i].rule->action != it->rule->action) return 1;
  *out = (struct range){it->nr, 0, it, n};
  return 0;
}

static int name_index(const char *name) {
  int lo = 0, hi = syscall_names;
  while (lo < hi) {
    int mid = (lo + hi) / 2, c = strcmp(name, syscall_name[mid]);
    if (c == 0) return mid;
    if (c < 0) hi = mid;
    else lo = mid + 1;
  }
  return -1;  // not a call that anybody knows: the default action holds
}

struct items {
  struct item *list;
  int n, cap;
  bool strange;  // a number where none is expected
};

static void item_add(struct items *l, struct item i) {
  if (l->n == l->cap) l->list = xrealloc(l->list, (size_t)(l->cap = l->cap ? 2 * l->cap : 512) * sizeof i);
  l->list[l->n++] = i;
}

// All numbers that there are, in a row: common ones, arm's private ones, x32's. -1: none of these.
enum { COMMON = 1000, PRIVATE = 24, SLOTS = COMMON + PRIVATE + COMMON, ARM_PRIVATE = 0xf0000 };
static int slot(uint32_t nr) {
  if (nr < COMMON) return (int)nr;
  if (nr - ARM_PRIVATE < PRIVATE) return (int)(nr - ARM_PRIVATE) + COMMON;
  return nr - X32_BIT < COMMON ? (int)(nr - X32_BIT) + COMMON + PRIVATE : -1;
}

// By number, and those of one number in the order of the rules: counted, as comparing would take half of the whole time.
static void sort(struct items *l) {
  uint16_t start[SLOTS + 1] = {0};
  l->strange = l->n >= UINT16_MAX;
  for (int i = 0; i < l->n && !l->strange; i++) {
    int s = slot(l->list[i].nr);
    if (s < 0) l->strange = true;
    else start[s + 1]++;
  }
  if (l->strange) return;
  for (int s = 0; s < SLOTS; s++) start[s + 1] = (uint16_t)(start[s + 1] + start[s]);
  struct item *sorted = xalloc((size_t)(l->n + 1) * sizeof *sorted);
  for (int i = 0; i < l->n; i++) sorted[start[slot(l->list[i].nr)]++] = l->list[i];
  free(l->list);
  l->list = sorted;
}

static void name_add(struct items *l, const struct syscall_table *t, const char *name, const struct filter_rule *r) {
  int index = name_index(name);
  if (index < 0) return;
  int family = syscall_family[index], mux = family > 100 ? t->ipc : family ? t->socketcall : -1;
  for (int alt = r->alternatives ? 0 : -1; alt < (r->alternatives ? (int)r->n : 0); alt++) {
    struct item i = {.bits = t->bits, .rule = r, .alternative = alt};
    if (mux >= 0) {
      i.nr = (uint32_t)mux;
      i.through = family % 100;
      item_add(l, i);
    }
    i.through = 0;
    i.nr = (uint32_t)t->nr[index];
    if (t->nr[index] >= 0) item_add(l, i);
  }
}

static void table_add(struct items *l, const struct syscall_table *t, const struct filter_plan *plan) {
  for (const struct filter_rule *r = plan->rules; r; r = r->next) {
    if (r->one) {
      name_add(l, t, r->one, r);
      continue;
    }
    J_EACH(name, r->names) name_add(l, t, name->s, r);
  }
}

// The part of the program for one token; leaves A unloaded with the number before it. -1: not covered.
static int token(struct program *p, const struct filter_plan *plan, int table, bool x32) {
  struct items l = {0};
  int n = 0, at = -1;
  table_add(&l, &syscall_tables[table], plan);
  if (x32) table_add(&l, &syscall_tables[TABLE_X32], plan);
  sort(&l);
  struct range *r = xalloc((2 * (size_t)l.n + 4) * sizeof *r);
  if (l.strange) goto out;
  range_add(r, &n, (struct range){0, plan->fallback, NULL, 0});
  for (int i = 0, end; i < l.n; i = end) {
    for (end = i + 1; end < l.n && l.list[end].nr == l.list[i].nr;) end++;
    struct range one;
    if (settle(&l.list[i], end - i, &one)) goto out;
    range_add(r, &n, one);
    range_add(r, &n, (struct range){one.from + 1, plan->fallback, NULL, 0});
  }
  if (table == TABLE_X86_64 && !x32) {
    range_add(r, &n, (struct range){X32_BIT, SECCOMP_RET_KILL_THREAD, NULL, 0});
    // -1 is what a tracer puts in the place of a call that it has dealt with.
    range_add(r, &n, (struct range){~0u, plan->fallback, NULL, 0});
  }
  at = search(p, r, n, plan->fallback);
  at = load(p, offsetof(struct seccomp_data, nr), at);
out:
  free(r);
  free(l.list);
  return at;
}

int filter_compile(const struct filter_plan *plan, void **out, size_t *len) {
  bool has[N_TABLES] = {0};
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
  return 1;
#endif
  for (int i = 0; i < plan->n_arches; i++) {
    int t = filter_arches[plan->arches[i]].table;
    if (t < 0) return 1;
    has[t] = true;
  }
  if (has[TABLE_X32] && !has[TABLE_X86_64]) return 1;
  struct program *p = xalloc(sizeof *p);
  for (size_t i = 0; i < sizeof p->rets / sizeof p->rets[0]; i++) p->rets[i].at = -1;
  int next = ret(p, SECCOMP_RET_KILL_THREAD), r = 1;
  for (int t = N_TABLES; t-- > 0;) {
    if (!has[t] || t == TABLE_X32) continue;
    int at = token(p, plan, t, has[TABLE_X32] && t == TABLE_X86_64);
    if (at < 0) goto out;
    next = jump(p, BPF_JEQ, syscall_tables[t].token, at, next);
  }
  load(p, offsetof(struct seccomp_data, arch), next);
  if (p->full) goto out;
  *len = (size_t)p->n * sizeof *p->insn;
  *out = xalloc(*len);
  for (int i = 0; i < p->n; i++) ((struct sock_filter *)*out)[i] = p->insn[p->n - 1 - i];
  r = 0;
out:
  free(p);
  return r;
}

static uint32_t largest_of(const struct syscall_table *t, const char *name, uint32_t most) {
  int index = name_index(name);
  return index >= 0 && t->nr[index] >= 0 && (uint32_t)t->nr[index] > most ? (uint32_t)t->nr[index] : most;
}

// The largest number that a rule names; 0: none.
static uint32_t largest(const struct filter_plan *plan, int table) {
  const struct syscall_table *t = &syscall_tables[table];
  const struct filter_rule *const lists[] = {plan->rules, plan->known};
  uint32_t most = 0;
  for (int i = 0; i < 2; i++)
    for (const struct filter_rule *r = lists[i]; r; r = r->next) {
      if (r->one) most = largest_of(t, r->one, most);
      J_EACH(name, r->one ? NULL : r->names) most = largest_of(t, name->s, most);
    }
  return most;
}

void filter_younger(const struct filter_plan *plan, void **out, size_t *len) {
  uint32_t action = plan->fallback & SECCOMP_RET_ACTION_FULL, enosys = SECCOMP_RET_ERRNO | ENOSYS;
  if (action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG || action == SECCOMP_RET_TRACE || plan->fallback == enosys) return;
  if (*len > MAX_INSNS * sizeof(struct sock_filter)) return;
  bool has[N_TABLES] = {0};
  for (int i = 0; i < plan->n_arches; i++)
    if (filter_arches[plan->arches[i]].table >= 0) has[filter_arches[plan->arches[i]].table] = true;
  struct program *p = xalloc(sizeof *p);
  for (size_t i = 0; i < sizeof p->rets / sizeof p->rets[0]; i++) p->rets[i].at = -1;
  p->n = (int)(*len / sizeof *p->insn);
  for (int i = 0; i < p->n; i++) p->insn[i] = ((struct sock_filter *)*out)[p->n - 1 - i];
  int filter = p->n - 1, next = filter;
  // -1 is what a tracer puts in the place of a call that it has dealt with.
  int young = jump(p, BPF_JEQ, ~0u, filter, ret(p, enosys));
  for (int t = N_TABLES; t-- > 0;) {
    uint32_t last = has[t] && t != TABLE_X32 ? largest(plan, t) : 0, last_x32 = has[TABLE_X32] && t == TABLE_X86_64 ? largest(plan, TABLE_X32) : 0;
    if (!last) continue;
    int at = jump(p, BPF_JGT, last, young, filter);
    if (t == TABLE_X86_64) at = jump(p, BPF_JGE, X32_BIT, last_x32 ? jump(p, BPF_JGT, last_x32, young, filter) : filter, at);
    next = jump(p, BPF_JEQ, syscall_tables[t].token, load(p, offsetof(struct seccomp_data, nr), at), next);
  }
  load(p, offsetof(struct seccomp_data, arch), next);
  if (next != filter && !p->full) {  // a longer program than that the kernel would not take
    *len = (size_t)p->n * sizeof *p->insn;
    *out = xrealloc(*out, *len);
    for (int i = 0; i < p->n; i++) ((struct sock_filter *)*out)[i] = p->insn[p->n - 1 - i];
  }
  free(p);
}
