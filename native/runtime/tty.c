#include "tty.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>

#include "kernel.h"
#include "path.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

int tty_resize(int master, int cols, int rows) {
  struct winsize w = {.ws_col = (unsigned short)cols, .ws_row = (unsigned short)rows};
  return ioctl(master, TIOCSWINSZ, &w);
}

int tty_open(int rootfd, int cols, int rows, int *slave, struct err *e) {
  STAGE("console");
  // The path is in the image's hands: it is opened without links, and it must be devpts.
  autofd root = rootfd >= 0 ? fcntl(rootfd, F_DUPFD_CLOEXEC, 3) : open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return fail(e, 0, "open", "/", "cannot open the root directory: %s", strerror(errno));
  autofd master = k_openat2(root, "dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
  if (master < 0) return fail(e, 0, "openat2", "/dev/pts/ptmx", "cannot open a terminal (is devpts mounted on /dev/pts?): %s", strerror(errno));
  if (!fd_is_fs(master, DEVPTS_MAGIC)) return fail(e, EINVAL, "fstatfs", "/dev/pts/ptmx", "/dev/pts/ptmx is not a devpts terminal");
  int unlock = 0;
  if (ioctl(master, TIOCSPTLCK, &unlock) < 0) return fail(e, 0, "ioctl", "/dev/pts/ptmx", "cannot unlock the terminal: %s", strerror(errno));
  *slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (*slave < 0) return fail(e, 0, "ioctl", "/dev/pts/ptmx", "cannot open the terminal's other end: %s", strerror(errno));
  if (cols > 0 && rows > 0 && tty_resize(master, cols, rows) < 0)
    return fail(e, 0, "ioctl", "/dev/pts/ptmx", "cannot set the terminal's size: %s", strerror(errno));
  return steal_fd(&master);
}

int tty_console(int rootfd, int slave, struct err *e) {
  STAGE("console");
  char name[256];
  autofd dev = parent_in_root(rootfd, "/dev/console", name, e);
  if (dev < 0) return -1;
  autofd made = openat(dev, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (made < 0 && errno != EEXIST) return fail(e, 0, "openat", "/dev/console", "cannot make /dev/console: %s", strerror(errno));
  autofd at = openat(dev, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  struct stat st;
  if (at < 0 || fstat(at, &st) < 0) return fail(e, 0, "openat", "/dev/console", "cannot open /dev/console: %s", strerror(errno));
  if (S_ISLNK(st.st_mode) || S_ISDIR(st.st_mode))
    return fail(e, ELOOP, "openat", "/dev/console", "/dev/console of the image is a link or a directory");
  autofd tree = k_open_tree(slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | 0x1000 /* AT_EMPTY_PATH */);
  if (tree < 0 || k_move_mount(tree, at) < 0)
    return fail(e, 0, "move_mount", "/dev/console", "cannot show the terminal as /dev/console: %s", strerror(errno));
  return 0;
}

int tty_control(int slave, struct err *e) {
  STAGE("console");
  if (ioctl(slave, TIOCSCTTY, 0) < 0) return fail(e, 0, "ioctl", "TIOCSCTTY", "cannot take the controlling terminal: %s", strerror(errno));
  for (int fd = 0; fd < 3; fd++)
    if (RETRY(dup2(slave, fd)) < 0) return fail(e, 0, "dup2", "", "cannot put the terminal on descriptor %d: %s", fd, strerror(errno));
  return 0;
}

int fd_send(int sock, int fd, const void *data, size_t n) {
  union {
    char buf[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } u = {0};
  struct iovec iov = {(void *)data, n};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  return RETRY(sendmsg(sock, &m, MSG_NOSIGNAL)) < 0 ? -1 : 0;
}

ssize_t fd_recv(int sock, int *fd, void *data, size_t n) {
  union {
    char buf[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } u = {0};
  struct iovec iov = {data, n};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
  *fd = -1;
  ssize_t r = RETRY(recvmsg(sock, &m, MSG_CMSG_CLOEXEC));
  if (r < 0) return -1;
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
    memcpy(fd, CMSG_DATA(c), sizeof *fd);
  return r;
}
