#pragma once
#include "base.h"

// A pseudo terminal of the devpts below rootfd (AT_FDCWD and the process's own root when rootfd is -1). Returns the master,
// gives the other end in *slave.
int tty_open(int rootfd, int cols, int rows, int *slave, struct err *e);
int tty_console(int rootfd, int slave, struct err *e);  // shows it as /dev/console
int tty_control(int slave, struct err *e);              // makes it the controlling terminal and descriptors 0-2
int tty_resize(int master, int cols, int rows);
int fd_send(int sock, int fd, const void *data, size_t n);                       // SCM_RIGHTS
ssize_t fd_recv(int sock, int *fd, void *data, size_t n);                        // *fd = -1 when none came
