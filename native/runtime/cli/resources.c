// update and events: limits of a running container, and what its cgroup counts.
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>

#include "cli.h"

static int open_both(struct saved *s, struct cgroup *cg, const char *id, struct err *e) {
  *cg = (struct cgroup){0};
  return state_open(s, id, e) < 0 || cgroup_find(cg, s->cgroup, e) < 0 ? -1 : 0;
}

static int read_stdin(struct buf *b) {
  char chunk[4096];
  ssize_t n;
  while ((n = RETRY(read(0, chunk, sizeof chunk))) > 0 && b->len < (1 << 20)) buf_add(b, chunk, (size_t)n);
  return n < 0 ? -1 : 0;
}

// Of memory there may be so many K, M, G or T, with or without a B.
static int whole_number(const char *text, bool memory, long long *out) {
  static const char units[] = "kmgt";
  char *end;
  errno = 0;
  *out = strtoll(text, &end, 10);
  if (errno || end == text) return -1;
  const char *unit = memory && *end ? strchr(units, *end | 0x20) : NULL;
  if (unit && __builtin_mul_overflow(*out, 1LL << (10 * (unit - units + 1)), out)) return -1;
  if (unit) end++;
  if (memory && (*end | 0x20) == 'b') end++;
  return *end ? -1 : 0;
}

int cmd_update(int argc, char **argv) {
  static const struct option opts[] = {{"resources", 1, 0, 'r'}, {"memory", 1, 0, 1}, {"memory-swap", 1, 0, 2}, {"memory-reservation", 1, 0, 3},
                                       {"cpu-share", 1, 0, 4}, {"cpu-quota", 1, 0, 5}, {"cpu-period", 1, 0, 6}, {"cpuset-cpus", 1, 0, 7},
                                       {"cpuset-mems", 1, 0, 8}, {"pids-limit", 1, 0, 9}, {"blkio-weight", 1, 0, 10}, {"cpu-rt-runtime", 1, 0, 11},
                                       {"cpu-rt-period", 1, 0, 12}, {"kernel-memory", 1, 0, 13}, {"kernel-memory-tcp", 1, 0, 14}, {0}};
  static const char *const keys[15][2] = {{0},           {"memory", "limit"}, {"memory", "swap"}, {"memory", "reservation"}, {"cpu", "shares"},
                                          {"cpu", "quota"}, {"cpu", "period"},   {"cpu", "cpus"},    {"cpu", "mems"},           {"pids", "limit"},
                                          {"blockIO", "weight"}, {"cpu", "realtimeRuntime"}, {"cpu", "realtimePeriod"}, {0}, {"memory", "kernelTCP"}};
  const char *values[15] = {0}, *file = NULL;
  int c;
  while ((c = getopt_long(argc, argv, "r:", opts, NULL)) != -1) {
    if (c == 'r') file = optarg;
    else if (c >= 1 && c < 15) values[c] = optarg;
    else return 1;
  }
  if (optind >= argc) return fprintf(stderr, "shoal-runtime update: which container?\n"), 1;
  struct saved s;
  struct cgroup cg;
  struct err e = {0};
  if (open_both(&s, &cg, argv[optind], &e) < 0) return cli_fail(&e);
  autobuf b = {0};
  if (file && !strcmp(file, "-")) {
    if (read_stdin(&b) < 0) return fail(&e, 0, "read", "-", "cannot read the resources: %s", strerror(errno)), cli_fail(&e);
  } else if (file) {
    if (read_file_at(AT_FDCWD, file, &b, 1 << 20) < 0) return fail(&e, 0, "open", file, "cannot read %s: %s", file, strerror(errno)), cli_fail(&e);
  } else {
    static const char *const groups[] = {"memory", "cpu", "pids", "blockIO"};
    buf_str(&b, "{");
    for (int g = 0; g < 4; g++) {
      buf_fmt(&b, "%s\"%s\":{", g ? "," : "", groups[g]);
      bool first = true;
      for (int i = 1; i < 15; i++) {
        if (!values[i] || !keys[i][0] || strcmp(keys[i][0], groups[g])) continue;
        buf_fmt(&b, "%s\"%s\":", first ? "" : ",", keys[i][1]);
        first = false;
        if (i == 7 || i == 8) json_quote_str(&b, values[i]);
        else {
          long long n;
          if (whole_number(values[i], g == 0, &n) < 0)
            return fail(&e, EINVAL, "parse", opts[i].name, "--%s is '%s': it must be a whole number%s", opts[i].name, values[i], g ? "" : ", of bytes or with K, M, G or T behind it"), cli_fail(&e);
          buf_fmt(&b, "%lld", n);
        }
      }
      buf_str(&b, "}");
    }
    buf_str(&b, "}");
  }
  const struct json *r = json_parse(&s.arena, b.p ? b.p : "", b.len, "resources", &e);
  // An empty group would say "pids without a limit": leave out what was not asked for.
  if (r && !file && !values[9])
    for (struct json *m = r->child; m; m = m->next)
      if (!strcmp(m->key, "pids")) m->type = J_NULL;
  return !r || cgroup_apply(&cg, r, &e) < 0 ? cli_fail(&e) : 0;
}

static int64_t read_number(const struct cgroup_tree *t, const char *file) {
  autofree char *p = xasprintf("%s/%s", t->dir, file);
  autobuf b = {0};
  if (read_file_at(AT_FDCWD, p, &b, 4096) < 0) return -1;
  return !strncmp(b.p, "max", 3) ? -1 : strtoll(b.p, NULL, 10);
}

// "key value" lines as a JSON object.
static void flat(struct buf *out, const struct cgroup_tree *t, const char *file) {
  autofree char *p = xasprintf("%s/%s", t->dir, file);
  autobuf b = {0};
  buf_str(out, "{");
  if (read_file_at(AT_FDCWD, p, &b, 1 << 20) == 0) {
    char *save = NULL;
    bool first = true;
    for (char *line = strtok_r(b.p, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
      char *space = strchr(line, ' ');
      if (!space) continue;
      *space = 0;
      buf_fmt(out, "%s\"%s\":%llu", first ? "" : ",", line, strtoull(space + 1, NULL, 10));
      first = false;
    }
  }
  buf_str(out, "}");
}

static void stats(struct buf *b, const struct cgroup *cg) {
  const struct cgroup_tree *t;
  buf_str(b, "{");
  if ((t = cgroup_tree_of(cg, "pids")))
    buf_fmt(b, "\"pids\":{\"current\":%lld,\"limit\":%lld},", (long long)read_number(t, "pids.current"), (long long)read_number(t, "pids.max"));
  if ((t = cgroup_tree_of(cg, "cpuacct")) || (t = cgroup_tree_of(cg, "cpu"))) {
    if (t->v2) {
      buf_str(b, "\"cpu\":");
      flat(b, t, "cpu.stat");
    } else {
      buf_fmt(b, "\"cpu\":{\"usage\":{\"total\":%lld}", (long long)read_number(t, "cpuacct.usage"));
      if ((t = cgroup_tree_of(cg, "cpu"))) {
        buf_str(b, ",\"throttling\":");
        flat(b, t, "cpu.stat");
      }
      buf_str(b, "}");
    }
    buf_str(b, ",");
  }
  if ((t = cgroup_tree_of(cg, "memory"))) {
    buf_fmt(b, "\"memory\":{\"usage\":{\"usage\":%lld,\"max\":%lld,\"limit\":%lld},\"raw\":", (long long)read_number(t, t->v2 ? "memory.current" : "memory.usage_in_bytes"),
            (long long)read_number(t, t->v2 ? "memory.peak" : "memory.max_usage_in_bytes"), (long long)read_number(t, t->v2 ? "memory.max" : "memory.limit_in_bytes"));
    flat(b, t, "memory.stat");
    buf_str(b, "},");
  }
  buf_fmt(b, "\"oomKills\":%lld}", (long long)cgroup_oom_kills(cg));
}

// "100ms", "5s", "1m", "1h"; a number alone counts seconds. -1: none of these.
static int64_t duration_ms(const char *text) {
  static const struct {
    const char *name;
    int ms;
  } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
  char *end;
  long n = strtol(text, &end, 10);
  for (size_t i = 0; end != text && n < 1000000 && i < sizeof units / sizeof units[0]; i++)
    if (!strcmp(end, units[i].name)) return (int64_t)n * units[i].ms;
  return -1;
}

int cmd_events(int argc, char **argv) {
  static const struct option opts[] = {{"stats", 0, 0, 's'}, {"interval", 1, 0, 'i'}, {0}};
  bool once = false;
  int64_t interval = 5000;
  int c;
  while ((c = getopt_long(argc, argv, "si:", opts, NULL)) != -1) {
    if (c == 's') once = true;
    else if (c == 'i') interval = duration_ms(optarg);
    else return 1;
  }
  if (optind >= argc) return fprintf(stderr, "shoal-runtime events: which container?\n"), 1;
  struct saved s;
  struct cgroup cg;
  struct err e = {0};
  STAGE("request");
  if (interval <= 0) return fail(&e, EINVAL, "parse", "--interval", "--interval must be a duration above zero such as 500ms, 5s, 1m or 5 (seconds)"), cli_fail(&e);
  if (open_both(&s, &cg, argv[optind], &e) < 0) return cli_fail(&e);
  if (!once && !strcmp(state_status(&s, &cg), "stopped")) return fail(&e, ESRCH, "events", s.id, "container '%s' is not running", s.id), cli_fail(&e);
  autofd oom = once ? -1 : cgroup_oom_watch(&cg);
  int64_t next = mono_ms();
  for (;;) {
    autobuf b = {0};
    int64_t wait = next - mono_ms();
    if (wait > 0) {
      struct pollfd p = {oom, POLLIN, 0};
      if (RETRY(poll(&p, 1, (int)wait)) > 0) {
        char drop[4096];
        (void)!read(oom, drop, sizeof drop);
        buf_str(&b, "{\"type\":\"oom\",\"id\":");
        json_quote_str(&b, s.id);
        buf_str(&b, "}\n");
        if (fputs(b.p, stdout) < 0 || fflush(stdout)) return 1;
      }
      if (!strcmp(state_status(&s, &cg), "stopped")) return 0;
      continue;
    }
    buf_str(&b, "{\"type\":\"stats\",\"id\":");
    json_quote_str(&b, s.id);
    buf_str(&b, ",\"data\":");
    stats(&b, &cg);
    buf_str(&b, "}\n");
    if (fputs(b.p, stdout) < 0 || fflush(stdout)) return 1;
    if (once) return 0;
    next = mono_ms() + interval;
  }
}
