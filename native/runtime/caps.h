#pragma once
#include "json.h"

struct caps {
  uint64_t bounding, effective, permitted, inheritable, ambient;
};
void caps_parse(struct caps *c, const struct json *capabilities);  // without a document there are none, as with crun and runc
uint64_t caps_own_bounding(void);  // what this process may hand on
const char *cap_name(int cap);     // NULL beyond the known ones
int caps_last(void);
int caps_drop_bounding(const struct caps *c, struct err *e);  // before the change of user
int caps_keep(struct err *e);                                 // SECBIT keep over setresuid
int caps_apply(const struct caps *c, struct err *e);          // after it
