#include "json.h"

#include <math.h>
#include <stdio.h>

enum { BLOCK = 16384, DEPTH = 96 };

struct arena_block {
  struct arena_block *next;
  size_t used, size;
  char data[];
};

void *arena_alloc(struct arena *a, size_t n) {
  n = (n + 7) & ~(size_t)7;
  if (!a->head || a->head->size - a->head->used < n) {
    size_t size = n > BLOCK ? n : BLOCK;
    struct arena_block *b = xalloc(sizeof *b + size);
    b->size = size;
    b->next = a->head;
    a->head = b;
  }
  void *p = a->head->data + a->head->used;
  a->head->used += n;
  return p;
}

void arena_free(struct arena *a) {
  while (a->head) {
    struct arena_block *b = a->head;
    a->head = b->next;
    free(b);
  }
}

struct parser {
  struct arena *a;
  const char *start, *p, *end, *what;
};

static void space(struct parser *s) {
  while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')) s->p++;
}

static int hex4(const char *p, unsigned *out) {
  unsigned v = 0;
  for (int i = 0; i < 4; i++) {
    char c = p[i];
    unsigned d;
    if (c >= '0' && c <= '9') d = (unsigned)(c - '0');
    else if (c >= 'a' && c <= 'f') d = (unsigned)(c - 'a' + 10);
    else if (c >= 'A' && c <= 'F') d = (unsigned)(c - 'A' + 10);
    else return -1;
    v = v * 16 + d;
  }
  *out = v;
  return 0;
}

static char *put_utf8(char *o, unsigned c) {
  if (c < 0x80) {
    *o++ = (char)c;
  } else if (c < 0x800) {
    *o++ = (char)(0xc0 | c >> 6);
    *o++ = (char)(0x80 | (c & 63));
  } else if (c < 0x10000) {
    *o++ = (char)(0xe0 | c >> 12);
    *o++ = (char)(0x80 | (c >> 6 & 63));
    *o++ = (char)(0x80 | (c & 63));
  } else {
    *o++ = (char)(0xf0 | c >> 18);
    *o++ = (char)(0x80 | (c >> 12 & 63));
    *o++ = (char)(0x80 | (c >> 6 & 63));
    *o++ = (char)(0x80 | (c & 63));
  }
  return o;
}

static const char *string(struct parser *s, uint32_t *len) {
  const char *q = ++s->p;
  while (q < s->end && *q != '"') q += *q == '\\' ? 2 : 1;
  if (q >= s->end) {
    s->what = "string without an end";
    return NULL;
  }
  char *out = arena_alloc(s->a, (size_t)(q - s->p) + 1), *o = out;
  for (const char *p = s->p; p < q;) {
    unsigned char c = (unsigned char)*p++;
    if (c < 0x20) {
      s->p = p - 1;
      s->what = "control character in a string";
      return NULL;
    }
    if (c != '\\') {
      *o++ = (char)c;
      continue;
    }
    c = (unsigned char)*p++;
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *f = c ? strchr(from, c) : NULL;
    if (f) {
      *o++ = to[f - from];
      continue;
    }
    unsigned u, v;
    if (c != 'u' || q - p < 4 || hex4(p, &u) < 0) {
      s->p = p - 1;
      s->what = "unknown escape in a string";
      return NULL;
    }
    p += 4;
    if (u == 0) {
      s->p = p;
      s->what = "NUL in a string";
      return NULL;
    }
    if (u >= 0xd800 && u < 0xdc00 && q - p >= 6 && p[0] == '\\' && p[1] == 'u' && hex4(p + 2, &v) == 0 && v >= 0xdc00 &&
        v < 0xe000) {
      u = 0x10000 + ((u - 0xd800) << 10) + (v - 0xdc00);
      p += 6;
    } else if (u >= 0xd800 && u < 0xe000) {
      u = 0xfffd;
    }
    o = put_utf8(o, u);
  }
  *o = 0;
  *len = (uint32_t)(o - out);
  s->p = q + 1;
  return out;
}

static int number(struct parser *s, struct json *v) {
  const char *p = s->p;
  bool neg = *p == '-', real = false;
  if (neg) p++;
  const char *digits = p;
  while (p < s->end && *p >= '0' && *p <= '9') p++;
  if (p == digits || (*digits == '0' && p - digits > 1)) goto bad;
  if (p < s->end && *p == '.') {
    real = true;
    const char *q = ++p;
    while (p < s->end && *p >= '0' && *p <= '9') p++;
    if (p == q) goto bad;
  }
  if (p < s->end && (*p == 'e' || *p == 'E')) {
    real = true;
    p++;
    if (p < s->end && (*p == '+' || *p == '-')) p++;
    const char *q = p;
    while (p < s->end && *p >= '0' && *p <= '9') p++;
    if (p == q) goto bad;
  }
  char text[64];
  size_t n = (size_t)(p - s->p);
  if (n >= sizeof text) goto bad;
  memcpy(text, s->p, n);
  text[n] = 0;
  s->p = p;
  if (!real) {
    errno = 0;
    if (neg) {
      v->type = J_INT;
      v->i = strtoll(text, NULL, 10);
      if (errno == 0) return 0;
    } else {
      uint64_t u = strtoull(text, NULL, 10);
      if (errno == 0) {
        v->type = u > INT64_MAX ? J_UINT : J_INT;
        v->u = u;
        return 0;
      }
    }
  }
  v->type = J_REAL;
  v->d = strtod(text, NULL);
  if (isfinite(v->d)) {
    // Go writes some whole numbers with an exponent: keep them usable as integers.
    if (fabs(v->d) < 9007199254740992.0 && v->d == (double)(int64_t)v->d) {
      v->type = J_INT;
      v->i = (int64_t)v->d;
    }
    return 0;
  }
bad:
  s->what = "malformed number";
  return -1;
}

static struct json *value(struct parser *s, int depth) {
  space(s);
  if (s->p >= s->end) {
    s->what = "unexpected end";
    return NULL;
  }
  struct json *v = arena_alloc(s->a, sizeof *v);
  char c = *s->p;
  size_t left = (size_t)(s->end - s->p);
  if (c == '"') {
    v->type = J_STR;
    v->s = string(s, &v->n);
    return v->s ? v : NULL;
  }
  if (c == '-' || (c >= '0' && c <= '9')) return number(s, v) < 0 ? NULL : v;
  if (left >= 4 && !memcmp(s->p, "null", 4)) {
    s->p += 4;
    return v;
  }
  if (left >= 4 && !memcmp(s->p, "true", 4)) {
    s->p += 4;
    v->type = J_BOOL;
    v->b = true;
    return v;
  }
  if (left >= 5 && !memcmp(s->p, "false", 5)) {
    s->p += 5;
    v->type = J_BOOL;
    return v;
  }
  if (c != '{' && c != '[') {
    s->what = "unexpected character";
    return NULL;
  }
  if (depth >= DEPTH) {
    s->what = "nested too deep";
    return NULL;
  }
  char close = c == '{' ? '}' : ']';
  v->type = c == '{' ? J_OBJ : J_ARR;
  struct json **tail = &v->child;
  s->p++;
  space(s);
  if (s->p < s->end && *s->p == close) {
    s->p++;
    return v;
  }
  for (;;) {
    const char *key = NULL;
    if (c == '{') {
      space(s);
      uint32_t n;
      if (s->p >= s->end || *s->p != '"') {
        s->what = "a key expected";
        return NULL;
      }
      if (!(key = string(s, &n))) return NULL;
      space(s);
      if (s->p >= s->end || *s->p != ':') {
        s->what = "':' expected";
        return NULL;
      }
      s->p++;
    }
    struct json *item = value(s, depth + 1);
    if (!item) return NULL;
    item->key = key;
    *tail = item;
    tail = &item->next;
    v->n++;
    space(s);
    if (s->p >= s->end || (*s->p != ',' && *s->p != close)) {
      s->what = c == '{' ? "',' or '}' expected" : "',' or ']' expected";
      return NULL;
    }
    if (*s->p++ == close) return v;
  }
}

struct json *json_parse(struct arena *a, const char *text, size_t len, const char *name, struct err *e) {
  struct parser s = {a, text, text, text + len, NULL};
  struct json *v = value(&s, 0);
  if (v) {
    space(&s);
    if (s.p != s.end) {
      s.what = "more text after the value";
      v = NULL;
    }
  }
  if (!v) {
    int line = 1;
    for (const char *p = text; p < s.p && p < s.end; p++) line += *p == '\n';
    fail(e, EINVAL, "parse", name, "%s is not valid JSON: %s at byte %zu, line %d", name, s.what, (size_t)(s.p - text), line);
  }
  return v;
}

struct json *json_load(struct arena *a, int dirfd, const char *path, size_t max, struct err *e) {
  autobuf b = {0};
  if (read_file_at(dirfd, path, &b, max) < 0) {
    fail(e, 0, "open", path, "cannot read %s: %s", path, strerror(errno));
    return NULL;
  }
  return json_parse(a, b.p, b.len, path, e);
}

struct json *j_get(const struct json *o, const char *key) {
  struct json *found = NULL;
  if (!o || o->type != J_OBJ) return NULL;
  for (struct json *m = o->child; m; m = m->next)
    if (!strcmp(m->key, key)) found = m;
  return found && found->type != J_NULL ? found : NULL;
}

struct json *j_path(const struct json *o, const char *dotted) {
  char key[64];
  struct json *v = (struct json *)o;
  while (v && *dotted) {
    size_t n = strcspn(dotted, ".");
    if (n >= sizeof key) return NULL;
    memcpy(key, dotted, n);
    key[n] = 0;
    v = j_get(v, key);
    dotted += n + (dotted[n] == '.');
  }
  return v;
}

const char *j_str(const struct json *v) { return v && v->type == J_STR ? v->s : NULL; }
const char *j_gets(const struct json *o, const char *key) { return j_str(j_get(o, key)); }
bool j_bool(const struct json *v, bool fallback) { return v && v->type == J_BOOL ? v->b : fallback; }
bool j_isnum(const struct json *v) { return v && (v->type == J_INT || v->type == J_UINT); }
int64_t j_int(const struct json *v, int64_t fallback) {
  return v && v->type == J_INT ? v->i : v && v->type == J_UINT ? INT64_MAX : fallback;
}
// A negative number keeps its bits: -1 is the largest value, which is how limits say "none".
uint64_t j_uint(const struct json *v, uint64_t fallback) { return j_isnum(v) ? v->u : fallback; }
struct json *j_items(const struct json *v) { return v && (v->type == J_ARR || v->type == J_OBJ) ? v->child : NULL; }

void json_append(struct json *list, struct json *item) {
  struct json **end = &list->child;
  while (*end) end = &(*end)->next;
  *end = item;
  list->n++;
}

struct json *json_list(struct arena *a, struct json *o, const char *key) {
  struct json *list = j_get(o, key);
  if (list) return list->type == J_ARR ? list : NULL;
  if (!o || o->type != J_OBJ) return NULL;
  list = arena_alloc(a, sizeof *list);
  *list = (struct json){.type = J_ARR, .key = key};
  json_append(o, list);
  return list;
}

char **j_strv(const struct json *v) {
  char **out = xalloc(((v && v->type == J_ARR ? v->n : 0) + 1) * sizeof *out);
  size_t n = 0;
  if (v && v->type == J_ARR) J_EACH(i, v) if (i->type == J_STR) out[n++] = (char *)i->s;
  return out;
}

// Length of the UTF-8 sequence at p, 0 when it is not one.
static size_t utf8_len(const unsigned char *p, size_t left) {
  if (p[0] < 0x80) return 1;
  if (p[0] >= 0xc2 && p[0] <= 0xdf) return left >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
  if ((p[0] & 0xf0) == 0xe0) {
    if (left < 3 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0)) return 0;
    return 3;
  }
  if (p[0] >= 0xf0 && p[0] <= 0xf4) {
    if (left < 4 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80 || (p[3] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90)) return 0;
    return 4;
  }
  return 0;
}

// ASCII that stands for itself in a JSON string.
static const bool PLAIN[256] = {[0x20 ... 0x21] = true, [0x23 ... 0x5b] = true, [0x5d ... 0x7e] = true};

// Not 0 when one of eight bytes may not stand for itself in a JSON string: below 0x20, '"', '\\', 0x7f and above.
static inline uint64_t eight_odd(uint64_t w) {
  const uint64_t ones = ~0ULL / 255, high = ones << 7;
#define ANY_ZERO(v) (((v) - ones) & ~(v))
  return (w | ((w - ones * 0x20) & ~w) | ANY_ZERO(w ^ ones * '"') | ANY_ZERO(w ^ ones * '\\') | ANY_ZERO(w ^ ones * 0x7f)) & high;
#undef ANY_ZERO
}

static const char SHORT_ESCAPE[256] = {['"'] = '"', ['\\'] = '\\', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};

// Every log line goes through here: plain runs are looked at and copied in one pass, eight bytes at a time, and musl's memcpy,
// slow to start, is not called.
void json_quote(struct buf *b, const char *s, size_t n) {
  const unsigned char *p = (const unsigned char *)s, *end = p + n;
  char *to = buf_room(b, 2);
  *to++ = '"';
  while (p < end) {
    b->len = (size_t)(to - b->p);
    to = buf_room(b, (size_t)(end - p) + 8);
    for (uint64_t w; end - p >= 8; p += 8, to += 8) {
      memcpy(&w, p, 8);
      if (eight_odd(w)) break;
      memcpy(to, &w, 8);
    }
    const unsigned char *stop = end - p < 8 ? end : p + 8;
    for (size_t len; p < stop; p += len) {
      len = PLAIN[*p] ? 1 : *p < 0x80 ? 0 : utf8_len(p, (size_t)(end - p));
      if (len == 0) break;
      for (size_t i = 0; i < len; i++) *to++ = (char)p[i];
    }
    if (p < stop) {
      if (SHORT_ESCAPE[*p]) {
        *to++ = '\\';
        *to++ = SHORT_ESCAPE[*p];
      } else {
        to += *p < 0x80 ? sprintf(to, "\\u%04x", *p) : sprintf(to, "\xef\xbf\xbd");
      }
      p++;
    }
  }
  *to++ = '"';
  *to = 0;
  b->len = (size_t)(to - b->p);
}

void json_quote_str(struct buf *b, const char *s) { json_quote(b, s, strlen(s)); }

void json_write(struct buf *b, const struct json *v) {
  if (!v || v->type == J_NULL) buf_str(b, "null");
  else if (v->type == J_BOOL) buf_str(b, v->b ? "true" : "false");
  else if (v->type == J_INT) buf_fmt(b, "%lld", (long long)v->i);
  else if (v->type == J_UINT) buf_fmt(b, "%llu", (unsigned long long)v->u);
  else if (v->type == J_REAL) buf_fmt(b, "%.17g", v->d);
  else if (v->type == J_STR) json_quote(b, v->s, v->n);
  else {
    buf_str(b, v->type == J_ARR ? "[" : "{");
    for (struct json *i = v->child; i; i = i->next) {
      if (i != v->child) buf_str(b, ",");
      if (v->type == J_OBJ) {
        json_quote_str(b, i->key);
        buf_str(b, ":");
      }
      json_write(b, i);
    }
    buf_str(b, v->type == J_ARR ? "]" : "}");
  }
}

void json_err(struct buf *b, const struct err *e) {
  buf_str(b, "{\"stage\":");
  json_quote_str(b, e->stage);
  buf_str(b, ",\"syscall\":");
  json_quote_str(b, e->call);
  buf_fmt(b, ",\"errno\":%d,\"code\":\"%s\",\"path\":", e->code, errno_name(e->code));
  json_quote_str(b, e->path);
  buf_str(b, ",\"message\":");
  json_quote_str(b, e->msg);
  buf_str(b, "}");
}
