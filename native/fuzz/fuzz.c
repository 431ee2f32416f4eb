// Feeds mutated documents to what reads foreign bytes: the JSON reader and, on what it accepts, the readers of config.json.
// fuzz ROUNDS SEED FILE...; built with AddressSanitizer and UndefinedBehaviorSanitizer by `make -C native fuzz`. No engine of its own
// kind is needed: it mutates by seed, so that a failing seed shows the same failure again.
#include <stdio.h>

#include "../runtime/caps.h"
#include "../runtime/filter.h"
#include "../runtime/json.h"
#include "../runtime/namespaces.h"
#include "../runtime/process.h"

static uint64_t state;
static uint64_t next(void) {  // xorshift64*
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return state * 2685821657736338717ull;
}

static void mutate(struct buf *b) {
  static const char *const words[] = {"\"", "\\u0000", "\\ud800", "[[[[", "]", "{", "}", "1e999", "-", "18446744073709551616", "null", "\x80", ":", ",", "-1", "\"a\":"};
  for (uint64_t n = next() % 6 + 1; n; n--) {
    size_t at = b->len ? next() % b->len : 0;
    switch (next() % 4) {
      case 0:
        if (b->len) b->p[at] = (char)next();
        break;
      case 1: {
        size_t cut = next() % 40;
        if (at + cut > b->len) cut = b->len - at;
        memmove(b->p + at, b->p + at + cut, b->len - at - cut);
        b->len -= cut;
        break;
      }
      case 2: {
        const char *w = words[next() % (sizeof words / sizeof words[0])];
        size_t len = strlen(w);
        buf_add(b, w, len);
        memmove(b->p + at + len, b->p + at, b->len - len - at);
        memcpy(b->p + at, w, len);
        break;
      }
      default: b->len = at;
    }
  }
}

int main(int argc, char **argv) {
  if (argc < 4) return fprintf(stderr, "usage: fuzz ROUNDS SEED FILE...\n"), 2;
  long rounds = atol(argv[1]), accepted = 0;
  state = strtoull(argv[2], NULL, 10) | 1;
  for (long i = 0; i < rounds; i++) {
    struct buf b = {0}, again = {0}, third = {0};
    struct err e = {0};
    struct arena a = {0};
    if (read_file_at(AT_FDCWD, argv[3 + i % (argc - 3)], &b, 16 << 20) < 0) return perror("read"), 2;
    mutate(&b);
    char *exact = malloc(b.len ? b.len : 1);  // no NUL behind it: reading past the end is seen
    memcpy(exact, b.p ? b.p : "", b.len);
    const struct json *v = json_parse(&a, exact, b.len, "fuzz", &e);
    if (v) {
      accepted++;
      json_write(&again, v);
      const struct json *w = json_parse(&a, again.p, again.len, "again", &e);
      if (w) json_write(&third, w);
      if (!w || third.len != again.len || memcmp(third.p, again.p, again.len)) return fprintf(stderr, "round %ld: what was written reads differently\n", i), 1;
      struct process p = {0};
      struct namespaces ns;
      if (process_parse(&p, j_get(v, "process"), v, i & 1 ? "/init" : NULL, &e) == 0 && !p.args[0]) return 1;
      process_free(&p);
      if (namespaces_parse(&ns, j_get(v, "linux"), &e) == 0 && (ns.fresh & ns.join)) return 1;
      namespaces_close(&ns);
      struct filter_plan plan;
      struct buf plain = {0};
      const struct json *profile = j_path(v, "linux.seccomp");
      void *program;
      size_t len;
      if (profile && filter_read(&a, profile, NULL, 0, NULL, &plan, &e) == 0 && filter_compile(&plan, &program, &len) == 0) {
        free(program);
        if (len == 0 || len % 8) return 1;
      }
      if (profile && filter_resolve(&plain, profile, NULL, 0, &e) == 0 && !json_parse(&a, plain.p, plain.len, "resolved", &e))
        return fprintf(stderr, "round %ld: the resolved profile cannot be read\n", i), 1;
      buf_free(&plain);
    }
    free(exact);
    buf_free(&b);
    buf_free(&again);
    buf_free(&third);
    arena_free(&a);
  }
  printf("%ld documents, %ld accepted, none failed\n", rounds, accepted);
  return 0;
}
