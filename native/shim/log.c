// The container's log in json-file form: one object a line, rotated by size.
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "shim.h"

static int open_file(struct logger *l) {
  l->fd = (int)RETRY(open(l->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640));
  struct stat st;
  if (l->fd < 0 || fstat(l->fd, &st) < 0) return -1;
  l->size = st.st_size;
  return 0;
}

// What was left by a compressor that was cut short, or by a container that ran without one.
static bool any_rotated(const struct logger *l) {
  for (int n = 1; n < l->max_files; n++) {
    autofree char *name = xasprintf("%s.%d", l->path, n);
    if (access(name, F_OK) == 0) return true;
  }
  return false;
}

static int compress_open(struct logger *l, const char *program, struct err *e) {
  if (!program || l->max_files < 2) return 0;
  autofree char *dir = xstrdup(l->path);
  *strrchr(dir, '/') = 0;
  l->dir = open(dir[0] ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (l->dir < 0) return fail(e, 0, "open", dir, "cannot open the log's directory %s: %s", dir, strerror(errno));
  l->compressor = xstrdup(program);
  l->uncompressed = any_rotated(l);
  return 0;
}

int log_open(struct logger *l, const struct json *conf, struct err *e) {
  *l = (struct logger){.fd = -1, .dir = -1, .forward.fd = -1};
  if (!conf) return 0;
  if (forward_open(&l->forward, j_get(conf, "forward"), e) < 0) return -1;
  STAGE("log");
  const char *driver = j_gets(conf, "driver"), *path = j_gets(conf, "path"), *mode = j_gets(conf, "mode");
  if (!driver || strcmp(driver, "json-file"))
    return fail(e, EINVAL, "parse", "log.driver", "the shim writes json-file logs only, not '%s'", driver ? driver : "");
  if (!path && l->forward.on) return 0;
  if (!path || path[0] != '/') return fail(e, EINVAL, "parse", "log.path", "log.path must be absolute");
  l->path = xstrdup(path);
  l->max_size = j_int(j_get(conf, "maxSizeBytes"), 0);
  l->max_files = (int)j_int(j_get(conf, "maxFiles"), 1);
  l->blocking = !mode || strcmp(mode, "non-blocking");
  l->keep = (size_t)j_int(j_get(conf, "bufferBytes"), 1 << 20);
  if (j_items(j_get(conf, "extra"))) {
    autobuf b = {0};
    buf_str(&b, ",\"attrs\":");
    json_write(&b, j_get(conf, "extra"));
    l->attrs = xstrdup(b.p);
  }
  if (open_file(l) < 0) return fail(e, 0, "open", path, "cannot open the log file %s: %s", path, strerror(errno));
  return compress_open(l, j_gets(conf, "compressor"), e);
}

static int move_up(const struct logger *l, int to, const char *suffix) {
  autofree char *target = xasprintf("%s.%d%s", l->path, to, suffix);
  autofree char *from = to == 1 ? xstrdup(l->path) : xasprintf("%s.%d%s", l->path, to - 1, suffix);
  return rename(from, target) < 0 && errno != ENOENT ? -1 : 0;
}

// Where there are compressed files as well: both of a number move together, and the oldest goes whichever it is.
static int move_all(const struct logger *l) {
  if (l->compressor)
    for (int kind = 0; kind < 2; kind++) {
      autofree char *oldest = xasprintf("%s.%d%s", l->path, l->max_files - 1, kind ? ".gz" : "");
      (void)unlink(oldest);
    }
  for (int i = l->max_files - 1; i >= 1; i--) {
    if (move_up(l, i, "") < 0) return -1;
    if (l->compressor && i > 1 && move_up(l, i, ".gz") < 0) return -1;
  }
  return 0;
}

// The next file is made before anything moves: without room for it all stays as it is, the file goes on growing, and the
// next line tries again; so it does in the moment in which the compressor names a file. Files move to higher numbers only, the
// oldest first, and the last step puts the new file in the place of the old, so that a reader who looks from the current
// file upwards meets each (src/engine/logs). With one file the old is replaced, not cut short: who reads it reads it out.
static void rotate(struct logger *l) {
  if (l->compressor && flock(l->dir, LOCK_EX | LOCK_NB) < 0) return;
  autofree char *next = xasprintf("%s.next", l->path);
  autofd fd = (int)RETRY(open(next, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0640));
  if (fd >= 0) {
    if (move_all(l) == 0 && rename(next, l->path) == 0) {
      close(l->fd);
      l->fd = steal_fd(&fd);
      l->size = 0;
      l->uncompressed = true;
    } else (void)unlink(next);
  }
  if (l->compressor) (void)flock(l->dir, LOCK_UN);
}

void log_compress(struct logger *l, bool is_last) {
  if (!l->compressor || !l->uncompressed || (l->compressing && !is_last)) return;
  l->uncompressed = false;
  char files[16];
  snprintf(files, sizeof files, "%d", l->max_files);
  l->compressing = helper_start((char *[]){l->compressor, l->path, files, NULL}, -1);
  if (!l->compressing) fprintf(stderr, "shoal-shim: cannot start %s: %s; rotated files stay as they are\n", l->compressor, strerror(errno));
}

// Go's RFC3339Nano: nanoseconds without trailing zeros. The part down to the second is made once a second.
static char *stamp(struct logger *l, char *to) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  if (ts.tv_sec != l->second || !l->second_text[0]) {
    struct tm tm;
    gmtime_r(&ts.tv_sec, &tm);
    strftime(l->second_text, sizeof l->second_text, "%Y-%m-%dT%H:%M:%S", &tm);
    l->second = ts.tv_sec;
  }
  memcpy(to, l->second_text, SECOND_TEXT);
  to += SECOND_TEXT;
  unsigned ns = (unsigned)ts.tv_nsec, digits = 9;
  if (!ns) return to;
  for (; ns % 10 == 0; digits--) ns /= 10;
  *to = '.';
  for (unsigned i = digits; i > 0; i--, ns /= 10) to[i] = (char)('0' + ns % 10);
  return to + digits + 1;
}

// Pieces of known length are copied by the compiler's own code: for so few bytes a call of memcpy costs more than the rest.
#define PUT(to, text) __builtin_memcpy(to, text, sizeof(text) - 1), (to) += sizeof(text) - 1

static void format(struct logger *l, struct buf *out, int stream, const char *text, size_t n) {
  char *to = buf_room(out, 16);
  PUT(to, "{\"log\":");
  out->len = (size_t)(to - out->p);
  json_quote(out, text, n);
  size_t attrs = l->attrs ? strlen(l->attrs) : 0;
  to = buf_room(out, attrs + 100);
  if (stream) PUT(to, ",\"stream\":\"stderr\"");
  else PUT(to, ",\"stream\":\"stdout\"");
  if (attrs) to = mempcpy(to, l->attrs, attrs);
  PUT(to, ",\"time\":\"");
  to = stamp(l, to);
  PUT(to, "Z\"}\n");
  out->len = (size_t)(to - out->p);
}

// Whole lines to the disk. What it does not take waits (blocking) or is lost and counted.
static bool to_disk(struct logger *l, struct buf *lines) {
  if (l->waiting.len) {
    buf_add(&l->waiting, lines->p, lines->len);
    return log_retry(l);
  }
  if (l->lost) {
    struct buf note = {0};
    autofree char *text = xasprintf("shoal-shim: %llu bytes of log were lost: the disk took no more\n", (unsigned long long)l->lost);
    format(l, &note, 1, text, strlen(text));
    if (RETRY(write(l->fd, note.p, note.len)) == (ssize_t)note.len) {
      l->size += (int64_t)note.len;
      l->lost = 0;
    }
    buf_free(&note);
  }
  ssize_t w = RETRY(write(l->fd, lines->p, lines->len));
  if (w > 0) l->size += w;
  if (w == (ssize_t)lines->len) return true;
  size_t done = w > 0 ? (size_t)w : 0;
  if (!l->blocking || lines->len - done > l->keep) {
    l->lost += lines->len - done;
    return true;
  }
  buf_add(&l->waiting, lines->p + done, lines->len - done);
  return false;
}

bool log_retry(struct logger *l) {
  if (!l->waiting.len) return true;
  ssize_t w = RETRY(write(l->fd, l->waiting.p, l->waiting.len));
  if (w <= 0) return false;
  l->size += w;
  memmove(l->waiting.p, l->waiting.p + w, l->waiting.len - (size_t)w);
  l->waiting.len -= (size_t)w;
  if (l->waiting.len) return false;
  buf_free(&l->waiting);
  return true;
}

static bool emit(struct logger *l, int stream, const char *text, size_t n) {
  forward_line(&l->forward, stream, text, n);
  if (l->fd < 0) return true;
  bool ok = true, full = l->max_size > 0 && l->size + (int64_t)l->batch.len >= l->max_size;
  if (l->batch.len && (full || l->batch.len >= LOG_BATCH)) {
    ok = to_disk(l, &l->batch);
    l->batch.len = 0;
  }
  if (full && !l->waiting.len) rotate(l);
  format(l, &l->batch, stream, text, n);
  return ok;
}

static bool flush(struct logger *l) {
  bool ok = !l->batch.len || to_disk(l, &l->batch);
  l->batch.len = 0;
  return ok;
}

bool log_write(struct logger *l, int stream, const char *data, size_t n) {
  if (l->fd < 0 && !l->forward.on) return true;
  struct buf *part = &l->partial[stream];
  bool ok = true;
  while (n) {
    size_t room = LOG_LINE - part->len, take = n < room ? n : room;
    const char *nl = memchr(data, '\n', take);
    if (nl) take = (size_t)(nl - data) + 1;
    if (part->len == 0 && (nl || take == LOG_LINE)) {
      ok &= emit(l, stream, data, take);
    } else {
      buf_add(part, data, take);
      if (nl || part->len == LOG_LINE) {
        ok &= emit(l, stream, part->p, part->len);
        part->len = 0;
      }
    }
    data += take;
    n -= take;
  }
  if (part->len == 0 && part->cap) buf_free(part);
  ok &= flush(l);
  return ok;
}

void log_finish(struct logger *l) {
  if (l->fd < 0 && !l->forward.on) return;
  for (int s = 0; s < 2; s++) {
    if (!l->partial[s].len) continue;
    (void)emit(l, s, l->partial[s].p, l->partial[s].len);
    (void)flush(l);  // what is refused now is lost: the process has ended
    buf_free(&l->partial[s]);
  }
  forward_finish(&l->forward);
}

int log_reopen(struct logger *l, struct err *e) {
  if (l->fd < 0) return 0;
  STAGE("log");
  int old = l->fd;
  if (open_file(l) < 0) {
    int keep = errno;
    if (l->fd >= 0) close(l->fd);
    l->fd = old;
    return fail(e, keep, "open", l->path, "cannot open the log file %s again: %s", l->path, strerror(keep));
  }
  close(old);
  return 0;
}
