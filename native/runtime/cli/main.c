#include <getopt.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>

#include "cli.h"

struct globals globals = {.log_format = "text"};

static const char *default_root(void) {
  const char *own = getenv("XDG_RUNTIME_DIR");
  if (geteuid() == 0) return "/run/shoal-runtime";
  return own && *own == '/' ? xasprintf("%s/shoal-runtime", own) : xasprintf("/run/user/%u/shoal-runtime", geteuid());
}

// The journal's own protocol: a datagram of KEY=VALUE lines, see systemd's "Native Journal Protocol".
static void log_to_journal(const char *identifier, const char *msg) {
  static const struct sockaddr_un journal = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
  autofree char *lines = xasprintf("PRIORITY=3\nSYSLOG_IDENTIFIER=%s\nMESSAGE=%s\n", identifier, msg);
  autofd fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  // Without a journal the error still stands on standard error.
  if (fd >= 0) (void)!sendto(fd, lines, strlen(lines), MSG_NOSIGNAL, (const struct sockaddr *)&journal, sizeof journal);
}

enum log_kind { TO_FILE, TO_SYSLOG, TO_JOURNAL, TO_UNKNOWN };

// --log FILE, or as crun writes it: file:FILE, syslog:IDENTIFIER, journald:IDENTIFIER. Gives what follows the colon.
static enum log_kind log_kind(const char **rest) {
  static const char *const kinds[] = {"file:", "syslog:", "journald:"};
  *rest = globals.log;
  for (int k = TO_FILE; k < TO_UNKNOWN; k++)
    if (!strncmp(globals.log, kinds[k], strlen(kinds[k]))) return *rest += strlen(kinds[k]), (enum log_kind)k;
  return globals.log[strcspn(globals.log, ":/")] == ':' ? TO_UNKNOWN : TO_FILE;
}

int cli_fail(const struct err *e) {
  int fd = -1;
  const char *to = NULL;
  enum log_kind kind = globals.log ? log_kind(&to) : TO_UNKNOWN;
  if (kind == TO_SYSLOG) {
    openlog(*to ? to : "shoal-runtime", LOG_PID, LOG_DAEMON);
    syslog(LOG_ERR, "%s", e->msg);
  }
  if (kind == TO_JOURNAL) log_to_journal(*to ? to : "shoal-runtime", e->msg);
  if (kind == TO_FILE) fd = open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd >= 0) {
    autobuf b = {0};
    char when[40];
    time_t now = time(NULL);
    struct tm tm;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    if (!strcmp(globals.log_format, "json")) {
      buf_str(&b, "{\"level\":\"error\",\"msg\":");
      json_quote_str(&b, e->msg);
      buf_fmt(&b, ",\"time\":\"%s\",\"stage\":\"%s\",\"syscall\":\"%s\",\"errno\":%d}\n", when, e->stage, e->call, e->code);
    } else {
      buf_fmt(&b, "time=\"%s\" level=error msg=", when);
      json_quote_str(&b, e->msg);
      buf_str(&b, "\n");
    }
    (void)write_all(fd, b.p, b.len);
    close(fd);
  }
  fprintf(stderr, "shoal-runtime: %s: %s\n", e->stage, e->msg);
  return 1;
}

static int usage(FILE *to) {
  fputs(
      "usage: shoal-runtime [--root DIR] [--log FILE|syslog:ID|journald:ID] [--log-format text|json] [--systemd-cgroup] [--debug] COMMAND [OPTIONS] ...\n"
      "  create   [--bundle DIR] [--config FILE] [--pid-file F] [--console-socket S] [--preserve-fds N] [--no-pivot] [--no-new-keyring] ID\n"
      "  run      the options of create, --detach, --keep; ID\n"
      "  start    ID\n"
      "  state    ID\n"
      "  kill     [--all] [--regex] ID [SIGNAL]\n"
      "  delete   [--force] [--regex] ID\n"
      "  exec     [--process FILE] [--console-socket S] [--pid-file F] [--cwd D] [--env K=V] [--user UID[:GID]] [--cap CAP]\n"
      "           [--tty] [--detach] [--no-new-privs] [--preserve-fds N] [--cgroup [CONTROLLER,..:]PATH] [--additional-gids GID]\n"
      "           [--ignore-paused] [--apparmor PROFILE] [--process-label LABEL]\n"
      "           ID [COMMAND [ARGS]]\n"
      "  pause    ID\n"
      "  resume   ID\n"
      "  update   [--resources FILE|-] [--memory N] [--memory-swap N] [--memory-reservation N] [--cpu-share N] [--cpu-quota N]\n"
      "           [--cpu-period N] [--cpuset-cpus L] [--cpuset-mems L] [--pids-limit N] [--blkio-weight N] ID\n"
      "  ps       [--format table|json] ID\n"
      "  mounts   add|remove ID FILE\n"
      "  events   [--stats] [--interval DURATION] ID\n"
      "  list     [--quiet] [--format table|json]\n"
      "  spec     [--rootless] [--bundle DIR | --file FILE]\n"
      "  features\n",
      to);
  return to == stdout ? 0 : 1;
}

// The filter compiler stands beside this program. Where that is must be found out before the program runs from a nameless mount.
static void find_compiler(void) {
  char p[4096];
  ssize_t n = readlink("/proc/self/exe", p, sizeof p - 16);
  if (getenv("SHOAL_SECCOMP") || n <= 0) return;
  p[n] = 0;
  char *slash = strrchr(p, '/');
  if (!slash) return;
  strcpy(slash, "/shoal-seccomp");
  if (access(p, X_OK) == 0) (void)setenv("SHOAL_SECCOMP", p, 1);
}

int main(int argc, char **argv) {
  static const struct option opts[] = {{"root", 1, 0, 'r'}, {"log", 1, 0, 'l'}, {"log-format", 1, 0, 'f'}, {"systemd-cgroup", 0, 0, 's'},
                                       {"debug", 0, 0, 'd'}, {"cgroup-manager", 1, 0, 'm'}, {"rootless", 1, 0, 'R'}, {"help", 0, 0, 'h'},
                                       {"version", 0, 0, 'V'}, {0}};
  int c;
  while ((c = getopt_long(argc, argv, "+hvV", opts, NULL)) != -1) {
    if (c == 'r') globals.root = optarg;
    else if (c == 'l') globals.log = optarg;
    else if (c == 'f') globals.log_format = optarg;
    else if (c == 's') globals.systemd = true;
    else if (c == 'm') globals.systemd = !strcmp(optarg, "systemd");
    else if (c == 'd') globals.debug = true;
    else if (c == 'R') continue;
    else if (c == 'h') return usage(stdout);
    else if (c == 'V' || c == 'v') return puts("shoal-runtime version 0.1.0\nspec: 1.2.0"), 0;
    else return usage(stderr);
  }
  if (!globals.root) globals.root = default_root();
  if (optind >= argc) return usage(stderr);
  const char *cmd = argv[optind];
  argc -= optind;
  char **all = argv;
  argv += optind;
  optind = 0;  // musl: start over
  if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) return usage(stdout);
  struct err e = {0};
  STAGE("config");
  if (strcmp(globals.log_format, "text") && strcmp(globals.log_format, "json")) {
    fail(&e, EINVAL, "parse", "--log-format", "--log-format '%s' is neither text nor json", globals.log_format);
    globals.log_format = "text";
    return cli_fail(&e);
  }
  if (globals.log && log_kind(&(const char *){NULL}) == TO_UNKNOWN) {
    fail(&e, EINVAL, "parse", "--log", "--log '%s': use a file's path, file:PATH, syslog:IDENTIFIER or journald:IDENTIFIER", globals.log);
    globals.log = NULL;
    return cli_fail(&e);
  }
  if (globals.systemd && access("/run/systemd/system", F_OK) < 0) {
    fail(&e, ENOTSUP, "systemd", "/run/systemd/system", "--systemd-cgroup is asked for, but systemd does not run this host: leave the flag out");
    return cli_fail(&e);
  }
  if (globals.systemd) {
    fail(&e, ENOTSUP, "systemd", "--systemd-cgroup", "this runtime manages cgroups itself: leave --systemd-cgroup out (cgroupfs driver)");
    return cli_fail(&e);
  }
  bool enters = !strcmp(cmd, "create") || !strcmp(cmd, "run") || !strcmp(cmd, "exec") || !strcmp(cmd, "mounts");
  if (enters) find_compiler();
  if (enters && self_protect(all, &e) < 0) return cli_fail(&e);
  if (enters) prctl(PR_SET_NAME, "shoal-runtime");
  if (!strcmp(cmd, "create")) return cmd_create(argc, argv, false);
  if (!strcmp(cmd, "run")) return cmd_create(argc, argv, true);
  if (!strcmp(cmd, "start")) return cmd_start(argc, argv);
  if (!strcmp(cmd, "state")) return cmd_state(argc, argv);
  if (!strcmp(cmd, "kill")) return cmd_kill(argc, argv);
  if (!strcmp(cmd, "delete")) return cmd_delete(argc, argv);
  if (!strcmp(cmd, "exec")) return cmd_exec(argc, argv);
  if (!strcmp(cmd, "pause")) return cmd_pause(argc, argv, true);
  if (!strcmp(cmd, "resume")) return cmd_pause(argc, argv, false);
  if (!strcmp(cmd, "update")) return cmd_update(argc, argv);
  if (!strcmp(cmd, "mounts")) return cmd_mounts(argc, argv);
  if (!strcmp(cmd, "ps")) return cmd_ps(argc, argv);
  if (!strcmp(cmd, "events")) return cmd_events(argc, argv);
  if (!strcmp(cmd, "list")) return cmd_list(argc, argv);
  if (!strcmp(cmd, "spec")) return cmd_spec(argc, argv);
  if (!strcmp(cmd, "features")) return cmd_features(argc, argv);
  fprintf(stderr, "shoal-runtime: unknown command '%s'\n", cmd);
  return usage(stderr);
}
