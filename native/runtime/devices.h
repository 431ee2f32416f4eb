#pragma once
#include "json.h"
// In the parent, for a container in a new user namespace, where nodes cannot be made: a detached tmpfs with the nodes of linux.devices, named by
// their place in the list, with owner and mode as the container shall see them. -1 without e: not possible here, the host's nodes are bound.
int devices_prepare(const struct json *config, struct err *e);
// In the child. `made` is that tmpfs, or -1.
int devices_make(int rootfd, const struct json *config, bool userns, int made, struct err *e);
int devices_links(int rootfd, struct err *e);
