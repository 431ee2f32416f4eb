#pragma once
#include "json.h"
int devices_make(int rootfd, const struct json *config, bool userns, struct err *e);
int devices_links(int rootfd, struct err *e);
