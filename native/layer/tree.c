/* Paths inside one directory tree. Every look-up goes through openat2 with RESOLVE_IN_ROOT: the kernel contains "..",
 * absolute links and races alike, so no check of ours has to be right about them. */
#include "layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

const char OPAQUE_XATTR[] = "trusted.overlay.opaque";

int open_in_root(int root, const char *path, int flags)
{
	struct open_how how = { .flags = (uint64_t)(unsigned int)flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	for (;;) {
		int fd = (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof how);
		/* EAGAIN: the kernel could not rule out a race with a rename; asking again is the documented answer. */
		if (fd >= 0 || (errno != EINTR && errno != EAGAIN))
			return fd;
	}
}

void tree_open(struct tree *t, const char *root)
{
	*t = (struct tree){ 0 };
	t->root = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (t->root < 0)
		report_fail(errno, root, "cannot open the root directory");
	int probe = open_in_root(t->root, ".", O_PATH | O_DIRECTORY);
	if (probe < 0)
		report_fail(errno, root, "openat2 does not work on this kernel (Linux 5.6 or newer is needed)");
	close(probe);
}

char *path_clean(const char *path)
{
	char *out = xmalloc(strlen(path) + 1);
	size_t n = 0;
	for (const char *p = path; *p;) {
		const char *end = strchrnul(p, '/');
		size_t len = (size_t)(end - p);
		if (len == 2 && p[0] == '.' && p[1] == '.') {
			/* At the root of an absolute path ".." stays there; a relative one leads out. */
			if (n == 0 && path[0] != '/') {
				free(out);
				return NULL;
			}
			while (n > 0 && out[n - 1] != '/')
				n--;
			if (n > 0)
				n--;
		} else if (len > 0 && !(len == 1 && p[0] == '.')) {
			if (n > 0)
				out[n++] = '/';
			memcpy(out + n, p, len);
			n += len;
		}
		p = *end ? end + 1 : end;
	}
	out[n] = 0;
	return out;
}

void path_split(const char *clean, char **dir, const char **name)
{
	const char *slash = strrchr(clean, '/');
	*dir = slash ? strndup(clean, (size_t)(slash - clean)) : strdup("");
	if (!*dir)
		report_fail(ENOMEM, clean, "cannot copy a path");
	*name = slash ? slash + 1 : *clean ? clean : ".";
}

bool is_whiteout(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

bool is_overlay_xattr(const char *name)
{
	return strncmp(name, "trusted.overlay.", 16) == 0;
}

void tree_forget(struct tree *t)
{
	free(t->cached);
	t->cached = NULL;
}

static size_t *bucket_of(struct tree *t, const char *path)
{
	uint64_t hash = 14695981039346656037ULL; /* FNV-1a */
	for (; *path; path++)
		hash = (hash ^ (unsigned char)*path) * 1099511628211ULL;
	return &t->buckets[hash % t->implied_room];
}

static void into_bucket(struct tree *t, size_t index)
{
	size_t *bucket = bucket_of(t, t->implied[index].path);
	t->implied[index].next = *bucket;
	*bucket = index + 1;
}

/* A table, as each entry of the layer is looked up: an image may have a million directories that nobody describes. */
static void imply(struct tree *t, const char *path)
{
	if (!t->record)
		return;
	if (t->implied_count == t->implied_room) {
		t->implied_room = t->implied_room * 2 + 64;
		t->implied = xrealloc(t->implied, t->implied_room * sizeof *t->implied);
		t->buckets = xrealloc(t->buckets, t->implied_room * sizeof *t->buckets);
		memset(t->buckets, 0, t->implied_room * sizeof *t->buckets);
		for (size_t i = 0; i < t->implied_count; i++)
			if (t->implied[i].path)
				into_bucket(t, i);
	}
	t->implied[t->implied_count].path = xstrdup(path);
	into_bucket(t, t->implied_count++);
}

void tree_mark_listed(struct tree *t, const char *clean)
{
	if (!*clean)
		t->root_listed = true;
	if (!t->implied_count)
		return;
	for (size_t *i = bucket_of(t, clean); *i;) {
		struct implied *one = &t->implied[*i - 1];
		if (strcmp(one->path, clean) == 0) {
			*i = one->next;
			free(one->path);
			one->path = NULL;
		} else
			i = &one->next;
	}
}

static int open_or_make(struct tree *t, const char *dir)
{
	int fd = open_in_root(t->root, dir, O_PATH | O_DIRECTORY);
	if (fd >= 0 || (errno != ENOENT && errno != ENOTDIR) || !*dir)
		return fd;
	char *parent_path;
	const char *name;
	path_split(dir, &parent_path, &name);
	int parent = open_or_make(t, parent_path);
	free(parent_path);
	if (parent < 0)
		return -1;
	bool covers_whiteout = false;
	struct stat st;
	if (mkdirat(parent, name, 0755) != 0) {
		if (errno != EEXIST || fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !is_whiteout(&st)) {
			close(parent);
			errno = ENOTDIR;
			return -1;
		}
		/* The layer deletes the lower directory and makes a new one: that is an opaque directory. */
		covers_whiteout = true;
		if (unlinkat(parent, name, 0) != 0 || mkdirat(parent, name, 0755) != 0)
			report_fail(errno, dir, "cannot replace a whiteout by a directory");
	}
	imply(t, dir);
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	close(parent);
	if (fd < 0)
		return -1;
	/* mkdir obeys the umask; directories that nobody described are 0755 whatever it is. */
	if (fchmod(fd, 0755) != 0 || (covers_whiteout && fsetxattr(fd, OPAQUE_XATTR, "y", 1, 0) != 0))
		report_fail(errno, dir, "cannot set up a directory");
	return fd;
}

static bool enter(struct tree *t, const char *dir, bool make)
{
	if (t->cached && strcmp(t->cached, dir) == 0)
		return true;
	int fd = make ? open_or_make(t, dir) : open_in_root(t->root, dir, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return false;
	tree_forget(t);
	if (fchdir(fd) != 0)
		report_fail(errno, dir, "cannot enter a directory");
	close(fd);
	t->cached = xstrdup(dir);
	return true;
}

void tree_enter(struct tree *t, const char *dir)
{
	if (!enter(t, dir, true))
		report_fail(errno, dir, "cannot enter a parent directory");
}

bool tree_enter_existing(struct tree *t, const char *dir)
{
	return enter(t, dir, false);
}

int chmod_here(const char *name, mode_t mode)
{
	if (syscall(452 /* fchmodat2, Linux 6.6 */, AT_FDCWD, name, mode, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (errno != ENOSYS)
		return -1;
	char proc[64];
	struct stat st;
	int fd = open(name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -1;
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
	int r = fstat(fd, &st);
	if (r == 0 && S_ISLNK(st.st_mode)) {
		errno = EOPNOTSUPP;
		r = -1;
	} else if (r == 0)
		r = chmod(proc, mode);
	int saved = errno;
	close(fd);
	errno = saved;
	return r;
}

/* The tree is nobody else's meanwhile. Depth is bounded by PATH_MAX: that is how the tree was made. */
int remove_tree(int dirfd, const char *name)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -1;
	if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return -1;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	int result = 0;
	for (struct dirent *e; result == 0 && (errno = 0, e = readdir(d)) != NULL;)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			result = remove_tree(fd, e->d_name);
	int saved = errno;
	closedir(d);
	if (result != 0) {
		errno = saved;
		return result;
	}
	return unlinkat(dirfd, name, AT_REMOVEDIR);
}
