#pragma once
#include "json.h"

// Runs hooks of one kind in order, each with the state on its standard input. The first failure ends it.
int hooks_run(const struct json *config, const char *kind, const char *state, struct err *e);
bool hooks_any(const struct json *config, const char *kind);
void oci_state(struct buf *b, const struct json *config, const char *id, const char *status, pid_t pid, const char *bundle);
