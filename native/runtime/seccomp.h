#pragma once
#include "json.h"

struct seccomp_filter {
  void *bytes;  // struct sock_filter[]; NULL: none
  size_t len;
  unsigned flags;    // SECCOMP_FILTER_FLAG_*
  int listener;      // connected socket that gets the notify descriptor; -1
  char *metadata;    // JSON sent along with it
};
int seccomp_flags(struct seccomp_filter *f, const struct json *seccomp, struct err *e);
int seccomp_connect(struct seccomp_filter *f, const struct json *seccomp, struct err *e);  // to listenerPath, where there is one
int seccomp_read(struct seccomp_filter *f, int dirfd, const char *file, struct err *e);
int seccomp_compile(struct seccomp_filter *f, const char *helper, const struct json *seccomp, struct err *e);  // helper: path of shoal-seccomp
int seccomp_load(const struct seccomp_filter *f, struct err *e);
void seccomp_free(struct seccomp_filter *f);
