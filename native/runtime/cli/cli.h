// shoal-runtime: one function a verb over the library. State lies in ROOT/ID: status, config.json (as it was at create), start.sock.
#pragma once
#include "../container.h"

struct globals {
  const char *root, *log, *log_format;
  bool systemd, debug;
};
extern struct globals globals;

struct saved {
  struct arena arena;
  int dir;  // ROOT/ID
  const char *id, *bundle, *cgroup;
  const struct json *json, *config;
  pid_t pid;
  uint64_t ticks;
  int64_t created_ms;
};

int cli_fail(const struct err *e);  // prints and gives the exit status
int state_open(struct saved *s, const char *id, struct err *e);
void state_close(struct saved *s);
int state_write(int dir, const char *id, const char *bundle, const char *cgroup, pid_t pid, const struct json *config, struct err *e);
const char *state_status(const struct saved *s, const struct cgroup *cg);  // created running paused stopped
int state_remove(const struct saved *s, struct err *e);
int remove_container(struct saved *s, struct cgroup *cg, bool force, struct err *e);  // with its poststop hooks
int state_root(struct err *e);  // descriptor of ROOT, made when missing
int valid_id(const char *id, struct err *e);
int signal_number(const char *name);
int write_pid_file(const char *path, pid_t pid, struct err *e);
int send_console(const char *socket_path, int master, struct err *e);
void pass_on(struct arena *a, struct json *config, const char *key, const char *value);  // in the container's environment
int notify_prepare(struct arena *a, struct json *config, int dir, struct err *e);
int notify_listen(int dir, int *out, struct err *e);
bool notify_forward(int fd, pid_t leave);
void notify_wait(int fd, pid_t pid, int pidfd);
int cmd_create(int argc, char **argv, bool run);
int cmd_start(int argc, char **argv);
int cmd_state(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_kill(int argc, char **argv);
int cmd_delete(int argc, char **argv);
int cmd_exec(int argc, char **argv);
int cmd_pause(int argc, char **argv, bool freeze);
int cmd_update(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_mounts(int argc, char **argv);
int cmd_events(int argc, char **argv);
int cmd_spec(int argc, char **argv);
int cmd_features(int argc, char **argv);
