// A small strict JSON reader and writer. Numbers keep all 64 bits; a NUL inside a string is refused (it would cut C strings short);
// of equal keys the last one wins, as in Go and JavaScript. Values live in an arena and go away together.
#pragma once
#include "base.h"

enum json_type { J_NULL, J_BOOL, J_INT, J_UINT, J_REAL, J_STR, J_ARR, J_OBJ };  // J_UINT only above INT64_MAX

struct json {
  enum json_type type;
  uint32_t n;  // string length, or number of children
  union {
    bool b;
    int64_t i;
    uint64_t u;
    double d;
    const char *s;
    struct json *child;  // first element or member
  };
  const char *key;  // when a member of an object
  struct json *next;
};

struct arena {
  struct arena_block *head;
};
void *arena_alloc(struct arena *a, size_t n);
void arena_free(struct arena *a);

struct json *json_parse(struct arena *a, const char *text, size_t len, const char *name, struct err *e);
struct json *json_load(struct arena *a, int dirfd, const char *path, size_t max, struct err *e);

// Readers: NULL or the fallback when absent or of another type (spec.c refuses those where that matters).
struct json *j_get(const struct json *o, const char *key);
struct json *j_path(const struct json *o, const char *dotted);  // "linux.resources.memory"
const char *j_str(const struct json *v);
const char *j_gets(const struct json *o, const char *key);
int64_t j_int(const struct json *v, int64_t fallback);
uint64_t j_uint(const struct json *v, uint64_t fallback);
bool j_bool(const struct json *v, bool fallback);
bool j_isnum(const struct json *v);
struct json *j_items(const struct json *v);  // first child of an array or object, or NULL
char **j_strv(const struct json *v);         // NULL-terminated, the strings still belong to the arena
struct json *json_list(struct arena *a, struct json *o, const char *key);  // the array of that name, made when missing; NULL: it is something else
void json_append(struct json *list, struct json *item);
#define J_EACH(var, list) for (struct json *var = j_items(list); var; var = var->next)

void json_quote(struct buf *b, const char *s, size_t n);  // with the quotes; bad UTF-8 becomes U+FFFD
void json_quote_str(struct buf *b, const char *s);
void json_write(struct buf *b, const struct json *v);
void json_err(struct buf *b, const struct err *e);  // {"stage","syscall","errno","code","path","message"}
