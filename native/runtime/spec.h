#pragma once
#include "json.h"

// Refuses fields of another form than the specification's. part: NULL for the whole of config.json, "process" for a process document.
int spec_check(const struct json *document, const char *part, struct err *e);
