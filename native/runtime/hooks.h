#pragma once
#include "json.h"

// Runs hooks of one kind in order, each with the state on its standard input. The first failure ends it,
// except for poststop hooks: all of them run, and the first failure is told.
int hooks_run(const struct json *config, const char *kind, const char *state, struct err *e);
bool hooks_any(const struct json *config, const char *kind);
void oci_state(struct buf *b, const struct json *config, const char *id, const char *status, pid_t pid, const char *bundle);
