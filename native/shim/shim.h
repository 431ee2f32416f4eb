// The shim: parent of one container. One thread, one epoll; everything it waits for is a source.
#pragma once
#include <sys/socket.h>
#include <time.h>

#include "../runtime/container.h"

enum {
  SHIM_VERSION = 1,
  FRAME_MAX = 1 << 20,      // bytes of payload
  CLIENT_HOLD = 1 << 19,    // with more than this unread by a client the process's output is not read any more
  CLIENT_PATIENCE_MS = 3000,  // the container's own process, and with it its log, waits so long for a client that takes nothing
  CLIENT_QUEUE = 1 << 20,   // bytes kept for a client; what a process leaves in its pipes at its end fits above CLIENT_HOLD
  LOG_LINE = 16384,         // bytes of one log line
  LOG_BATCH = 1 << 16,      // formatted lines are written when they are this many bytes, or when there is nothing more to read
  SECOND_TEXT = 19,         // 2006-01-02T15:04:05
  DRAIN_MS = 2000,          // how long a stray process may hold the output pipes
  LINGER_MS = 5000,         // how long the last bytes wait for their reader
};

struct source {
  int fd;
  uint32_t events;
  void (*ready)(struct source *s, uint32_t events);
  void *owner;
};
int source_add(struct source *s, uint32_t events);
void source_set(struct source *s, uint32_t events);
void source_close(struct source *s);

// helper.c
pid_t helper_start(char *const argv[], int fd0);

enum forward_format { FORMAT_UNIX, FORMAT_3164, FORMAT_5424, FORMAT_5424_MICRO };

// Lines that go to syslog or the journal as well.
struct forward {
  bool on, journal, stream, udp, connecting;
  int fd;  // -1 while the other side is away
  struct sockaddr_storage address;
  socklen_t address_len;
  int facility;
  enum forward_format format;
  char *tag, *host;
  struct buf fields;   // of the journal, encoded
  size_t keep;         // bytes that may wait
  struct buf waiting;  // messages, each with its length in front
  size_t sent;         // of the first one
  uint64_t lost;       // messages
  int64_t since, retry_at;
  char *tls[12];       // shoal-tls and its arguments; [0] NULL: without TLS
  char refusal[200];   // what it said last
};
int forward_open(struct forward *f, const struct json *conf, struct err *e);
void forward_line(struct forward *f, int stream, const char *text, size_t n);
void forward_retry(struct forward *f);
void forward_finish(struct forward *f);

struct logger {
  struct forward forward;
  int fd;  // -1: no file
  char *path, *attrs;
  int64_t size, max_size;
  int max_files;
  bool blocking;
  size_t keep;          // bytes that may wait for the disk
  struct buf waiting;   // complete lines that the disk refused
  uint64_t lost;
  struct buf partial[2];  // stdout, stderr: the line so far
  struct buf batch;       // formatted lines of one log_write; empty between calls, its memory is kept
  char *compressor;       // program; NULL: rotated files stay as they are
  int dir;                // of the log: who gives names to rotated files holds a lock on it
  bool uncompressed;      // there are rotated files that no compressor was started for
  pid_t compressing;      // 0: none is at work
  time_t second;          // of second_text
  char second_text[SECOND_TEXT + 1];
};
int log_open(struct logger *l, const struct json *conf, struct err *e);
bool log_write(struct logger *l, int stream, const char *data, size_t n);  // false: stop reading for now
bool log_retry(struct logger *l);
void log_finish(struct logger *l);
void log_compress(struct logger *l, bool is_last);  // is_last: does not wait for the end of the one that is at work
int log_reopen(struct logger *l, struct err *e);

// A request that is answered later.
struct asker {
  struct client *client;  // NULL: nobody waits, or has gone meanwhile
  char *id;               // of the request, JSON
};

struct proc {
  struct proc *next;
  char *exec;  // NULL for the container's own process
  pid_t pid;
  bool tty, running, exited, finished, close_stdin_with_client;
  bool held;    // not read from until its clients have read
  bool killed;  // sent a SIGKILL
  int code, signal;
  int64_t finished_at, drain_until;
  struct source in, out, err;  // tty: out is the master, in is unused
  int peer;                    // tty: its other end, held open
  struct buf to_stdin;
  bool stdin_eof;
  struct exec x;  // exec processes, before they start
  struct source sync;  // x.sync
  bool made, failed;   // it has said that it is ready; it never will
  struct asker asker;  // who waits for that, or for its start
  int child[3];   // with another runtime: the process's ends of its pipes, and its document, until it starts
  char *file;
  struct arena arena;
};

struct client {
  struct client *next;
  struct source s;
  struct buf in, out;
  size_t sent;
  bool hello, subscribed, dead, want_out, want_err, want_in, eof_sent;
  struct proc *attached;
  uint64_t dropped;
  int64_t taken_at;  // when it last took something off a queue that was not empty
};

struct shim {
  int epoll, dir;  // run directory
  char *id, *bundle, *cgroup_path, *seccomp_file, *runtime;  // runtime NULL: the library
  bool created, started, deleting, ending, has_agent, has_poststop, oom_killed, stdin_once;
  int status_fd;
  struct container c;
  struct logger log;
  struct proc *procs;  // the container's own first
  struct client *clients;
  struct source listener, signals, oom;
  struct arena arena;
  int64_t oom_before;
};
extern struct shim shim;

// main.c
int shim_start(struct err *e);
void shim_state(const char *status);
void shim_undo(void);
// proc.c
struct proc *proc_find(const char *exec);
struct proc *proc_new(const char *exec);
int proc_pipes(struct proc *p, bool tty, bool want_stdin, int stdio[3], struct err *e);
void proc_watch(struct proc *p, int master);
void proc_stdin(struct proc *p, const char *data, size_t n, bool eof);
void proc_reap(void);
void proc_release(void);  // reads again from those whose clients have room
void proc_settle(void);  // finishes what has ended and is drained
int64_t proc_deadline(void);
void proc_free(struct proc *p);
// The answer comes when the process is ready; with another runtime at once.
struct proc *exec_make(const char *id, const struct json *request, struct json *process, struct err *e);
int exec_begin(struct proc *p, struct err *e);  // 1: it runs; 0: the answer comes later
// oci.c: another runtime in the library's place
int oci_create(struct container *c, struct json *config, const struct json *shim_json, bool tty, struct err *e);
int oci_start(struct err *e);
int oci_signal(int sig, struct err *e);  // to the container's own process
int oci_freeze(bool on, struct err *e);
int oci_update(const struct json *resources, struct err *e);
void oci_delete(void);
int oci_exec_make(struct proc *p, const struct json *process, const int stdio[3], struct err *e);
int oci_exec_start(struct proc *p, struct err *e);
// client.c
void clients_output(struct proc *p, int stream, const char *data, size_t n);
void clients_event(const char *json, struct proc *attached_to);  // NULL: to subscribers
void clients_eof(struct proc *p);
void clients_detach(struct proc *p);
bool clients_full(const struct proc *p);
bool clients_pending(void);
void client_accept(struct source *s, uint32_t events);
void client_answer(struct asker *a, const char *extra, const struct err *e);  // e NULL: it has gone well, extra are more members
void clients_sweep(void);
bool clients_stdin_paused(const struct client *c);
