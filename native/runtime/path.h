// Paths of a bundle, resolved so that nothing inside the root file system can lead outside of it.
#pragma once
#include "base.h"

// O_PATH-like open below rootfd: links and ".." stay inside, magic links are refused. -1 with errno.
int open_in_root(int rootfd, const char *path, int flags);
enum make_kind { MAKE_DIR, MAKE_FILE };
// As open_in_root(O_PATH), but what is missing is made: directories (mode 0755) and, for MAKE_FILE, an empty file at the end.
int make_in_root(int rootfd, const char *path, enum make_kind kind, struct err *e);
// Opens the directory that will hold the last component (made when missing) and gives that component.
int parent_in_root(int rootfd, const char *path, char name[256], struct err *e);
// True when fd lies on a file system of that magic number.
bool fd_is_fs(int fd, long magic);
