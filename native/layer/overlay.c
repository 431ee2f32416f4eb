/* Looks into merged trees. The kernel does the merging: an overlay made with fsmount belongs to a descriptor only, so
 * nothing is ever left mounted, whoever dies. */
#include "layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static int set_string(int fs, const char *key, const char *value)
{
	return (int)syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0);
}

/* Kernels before 6.7 do not know "lowerdir+": one option of all paths, at most a page, in a mount namespace of our own. */
static int open_by_mount(const struct overlay_spec *spec)
{
	size_t size = 64 + (spec->upper ? strlen(spec->upper) + strlen(spec->work) : 0);
	for (int i = 0; i < spec->lower_count; i++)
		size += strlen(spec->lower[i]) + 1;
	char *options = xmalloc(size), *p = stpcpy(options, "lowerdir=");
	for (int i = 0; i < spec->lower_count; i++)
		p += sprintf(p, "%s%s", i ? ":" : "", spec->lower[i]);
	if (spec->upper)
		sprintf(p, ",upperdir=%s,workdir=%s", spec->upper, spec->work);
	if (strlen(options) >= 4096)
		report_fail(E2BIG, NULL, "this kernel takes overlay options up to a page; Linux 6.7 or newer takes %d layers", spec->lower_count);
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		report_fail(errno, NULL, "cannot make a mount namespace");
	const char *at = "/tmp";
	if (mount("overlay", at, "overlay", spec->upper ? 0 : MS_RDONLY, options) != 0)
		report_fail(errno, spec->lower[0], "cannot mount an overlay of %d layers", spec->lower_count);
	free(options);
	return open(at, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int overlay_open(const struct overlay_spec *spec)
{
	if (spec->lower_count == 0)
		report_fail(EINVAL, NULL, "an overlay needs a lower directory");
	if (!spec->upper && spec->lower_count == 1) {
		/* One directory is no overlay for the kernel; it is its own merged view. */
		int fd = open(spec->lower[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			report_fail(errno, spec->lower[0], "cannot open a layer");
		return fd;
	}
	int fs = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
	if (fs < 0) {
		if (errno == ENOSYS)
			return open_by_mount(spec);
		report_fail(errno, NULL, "cannot open the overlay file system");
	}
	for (int i = 0; i < spec->lower_count; i++)
		if (set_string(fs, "lowerdir+", spec->lower[i]) != 0) {
			if (errno == EINVAL && i == 0) {
				close(fs);
				return open_by_mount(spec);
			}
			report_fail(errno, spec->lower[i], "cannot use a directory as overlay layer %d", i);
		}
	/* A view of what somebody else writes into is no mistake here; older kernels are not asked. */
	if (!spec->upper)
		(void)set_string(fs, "index", "off");
	if (spec->upper && (set_string(fs, "upperdir", spec->upper) != 0 || set_string(fs, "workdir", spec->work) != 0))
		report_fail(errno, spec->upper, "cannot use a directory as the upper layer");
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) != 0)
		report_fail(errno, spec->lower[0], "cannot make an overlay of %d layers", spec->lower_count);
	int fd = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, spec->upper ? 0 : MOUNT_ATTR_RDONLY);
	if (fd < 0)
		report_fail(errno, spec->lower[0], "cannot mount an overlay of %d layers", spec->lower_count);
	close(fs);
	return fd;
}

/* Read-only view of everything, the upper directory on top. */
static int overlay_view(const struct overlay_spec *spec)
{
	if (!spec->upper)
		return overlay_open(spec);
	struct overlay_spec all = { .lower_count = spec->lower_count + 1 };
	if (all.lower_count > OVERLAY_LAYERS_MAX)
		report_fail(E2BIG, NULL, "more than %d layers", OVERLAY_LAYERS_MAX);
	all.lower[0] = spec->upper;
	memcpy(all.lower + 1, spec->lower, (size_t)spec->lower_count * sizeof spec->lower[0]);
	return overlay_open(&all);
}

/*
 * hold: keeps a merged tree open for the caller, who reaches it as /proc/<pid>/fd/<root>, until stdin ends. Without a work
 * directory it is read-only, and may be held beside somebody who writes: a second mount with the same work directory would take
 * the first one's away, and with it the first one's copies from below.
 */
int command_hold(const struct overlay_spec *spec)
{
	int fd = spec->work ? overlay_open(spec) : overlay_view(spec);
	fprintf(stdout, "{\"root\":%d}\n", fd);
	if (fflush(stdout) != 0)
		report_fail(errno, NULL, "cannot answer");
	char c;
	for (;;) {
		ssize_t n = read(0, &c, 1);
		if (n == 0 || (n < 0 && errno != EINTR))
			break;
	}
	fprintf(stderr, "{}\n");
	return 0;
}

static bool is_absent(int errnum)
{
	return errnum == ENOENT || errnum == ENOTDIR || errnum == ELOOP;
}

int command_cat(const struct overlay_spec *spec, const char *path, uint64_t bytes_max)
{
	int root = overlay_view(spec);
	char *clean = path_clean(path);
	if (!clean)
		report_fail(EINVAL, path, "the path leads out of the tree");
	/* O_NONBLOCK: a fifo in the image must not hold us. */
	int fd = open_in_root(root, clean, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	if (fd < 0) {
		if (!is_absent(errno) && errno != ENXIO)
			report_fail(errno, path, "cannot open a file");
		fprintf(stderr, "{\"found\":false}\n");
		return 0;
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		report_fail(EINVAL, path, "not a regular file");
	if ((uint64_t)st.st_size > bytes_max)
		report_fail(EFBIG, path, "the file has %llu bytes, more than the %llu allowed", (unsigned long long)st.st_size,
		            (unsigned long long)bytes_max);
	char buffer[65536];
	ssize_t n;
	uint64_t total = 0;
	while ((n = read(fd, buffer, sizeof buffer)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			report_fail(errno, path, "cannot read a file");
		if ((total += (uint64_t)n) > bytes_max)
			report_fail(EFBIG, path, "the file has more than the %llu bytes allowed", (unsigned long long)bytes_max);
		write_all(1, buffer, (size_t)n, "the file's content");
	}
	fprintf(stderr, "{\"found\":true}\n");
	return 0;
}

/* ------------------------------------------------------------------ walking a real directory */

typedef void visit_fn(void *data, int parent, const char *name, const char *path, const struct stat *st);

static void walk(int dirfd, const char *path, visit_fn *visit, void *data)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		report_fail(errno, path, "cannot read a directory");
	for (struct dirent *e; (errno = 0, e = readdir(d)) != NULL;) {
		struct stat st;
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
			if (errno == ENOENT)
				continue;
			report_fail(errno, path, "cannot look at %s", e->d_name);
		}
		char *child = xasprintf("%s/%s", path, e->d_name);
		visit(data, fd, e->d_name, child, &st);
		if (S_ISDIR(st.st_mode)) {
			int sub = openat(fd, e->d_name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (sub >= 0) {
				walk(sub, child, visit, data);
				close(sub);
			} else if (errno != ENOENT)
				report_fail(errno, child, "cannot open a directory");
		}
		free(child);
	}
	closedir(d);
}

static int open_directory(const char *path)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		report_fail(errno, path, "cannot open a directory");
	return fd;
}

/* Numbers of the Engine API: 0 modified, 1 added, 2 deleted. */
struct changes {
	int lower;
};

static void print_change(int kind, const char *path)
{
	printf("%d%s%c", kind, path, 0);
}

/* A directory that only carries changed children is no change itself. */
static bool same_directory(const struct stat *a, const struct stat *b)
{
	return a->st_mode == b->st_mode && a->st_uid == b->st_uid && a->st_gid == b->st_gid &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static bool lower_stat(int lower, const char *path, struct stat *st)
{
	char *dir;
	const char *name;
	path_split(path + 1, &dir, &name);
	int fd = open_in_root(lower, dir, O_PATH | O_DIRECTORY);
	bool found = fd >= 0 && fstatat(fd, name, st, AT_SYMLINK_NOFOLLOW) == 0;
	if (fd >= 0)
		close(fd);
	free(dir);
	return found;
}

struct hidden {
	int upper;
	const char *top;
};

/* What an opaque directory hides and does not have itself was deleted. */
static void visit_hidden(void *data, int parent, const char *name, const char *path, const struct stat *st)
{
	(void)parent, (void)name, (void)st;
	struct hidden *h = data;
	struct stat there;
	if (fstatat(h->upper, path + strlen(h->top) + 1, &there, AT_SYMLINK_NOFOLLOW) != 0)
		print_change(2, path);
}

static void visit_change(void *data, int parent, const char *name, const char *path, const struct stat *st)
{
	struct changes *c = data;
	struct stat below;
	bool existed = lower_stat(c->lower, path, &below);
	if (is_whiteout(st)) {
		if (existed)
			print_change(2, path);
		return;
	}
	if (!existed) {
		print_change(1, path);
		return;
	}
	if (!S_ISDIR(st->st_mode) || !S_ISDIR(below.st_mode) || !same_directory(st, &below))
		print_change(0, path);
	if (!S_ISDIR(st->st_mode) || !S_ISDIR(below.st_mode))
		return;
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char value[2];
	if (fd >= 0 && fgetxattr(fd, OPAQUE_XATTR, value, sizeof value) == 1 && value[0] == 'y') {
		struct hidden h = { fd, path };
		int hidden = open_in_root(c->lower, path + 1, O_PATH | O_DIRECTORY);
		if (hidden >= 0) {
			walk(hidden, path, visit_hidden, &h);
			close(hidden);
		}
	}
	if (fd >= 0)
		close(fd);
}

int command_changes(const struct overlay_spec *spec)
{
	struct overlay_spec below = *spec;
	below.upper = below.work = NULL;
	struct changes c = { overlay_open(&below) };
	walk(open_directory(spec->upper), "", visit_change, &c);
	if (fflush(stdout) != 0)
		report_fail(errno, NULL, "cannot answer");
	fprintf(stderr, "{}\n");
	return 0;
}

/* ------------------------------------------------------------------ metadata of directories that nobody described */

void copy_metadata(int source, const char *name)
{
	struct stat st;
	if (fstat(source, &st) != 0 || lchown(name, st.st_uid, st.st_gid) != 0 || chmod_here(name, st.st_mode & 07777) != 0)
		report_fail(errno, name, "cannot copy a directory's owner and mode");
	char proc[64];
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", source);
	ssize_t size = listxattr(proc, NULL, 0);
	char *names = size > 0 ? xmalloc((size_t)size) : NULL;
	size = names ? listxattr(proc, names, (size_t)size) : 0;
	for (char *n = names; n < names + size; n += strlen(n) + 1) {
		if (is_overlay_xattr(n))
			continue;
		ssize_t length = getxattr(proc, n, NULL, 0);
		char *value = length < 0 ? NULL : xmalloc((size_t)length + 1);
		length = value ? getxattr(proc, n, value, (size_t)length) : -1;
		if (length < 0 || (lsetxattr(name, n, value, (size_t)length, 0) != 0 && errno != ENOTSUP))
			report_fail(errno, name, "cannot copy the extended attribute %s", n);
		free(value);
	}
	free(names);
	struct timespec times[2] = { st.st_atim, st.st_mtim };
	if (utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW) != 0)
		report_fail(errno, name, "cannot copy a directory's time");
}

static void inherit(struct tree *t, int lower, const char *path)
{
	int source = open_in_root(lower, path, O_PATH | O_DIRECTORY);
	if (source < 0) {
		if (is_absent(errno))
			return;
		report_fail(errno, path, "cannot open a lower directory");
	}
	char *dir;
	const char *name;
	path_split(path, &dir, &name);
	struct stat st;
	if (tree_enter_existing(t, dir) && lstat(name, &st) == 0 && S_ISDIR(st.st_mode))
		copy_metadata(source, name);
	close(source);
	free(dir);
}

/* A layer may hold a/b/c without saying what a and b are; merged, they would hide the lower ones' owner and mode. */
int command_inherit(const struct overlay_spec *spec, const char *root, const char *list)
{
	struct tree t;
	tree_open(&t, root);
	int lower = overlay_open(spec);
	FILE *f = fopen(list, "re");
	if (!f)
		report_fail(errno, list, "cannot open the list of directories");
	char *line = NULL;
	size_t room = 0;
	while (getdelim(&line, &room, 0, f) >= 0)
		inherit(&t, lower, line);
	fclose(f);
	fprintf(stderr, "{}\n");
	return 0;
}

/* ------------------------------------------------------------------ places to mount on */

/* Makes the parent of `path` in the tree like the merged one; false when the image has something else than directories there. */
static bool make_parents(struct tree *t, int lower, const char *dir)
{
	if (!*dir)
		return true;
	int source = open_in_root(lower, dir, O_PATH | O_DIRECTORY | O_NOFOLLOW);
	if (source < 0 && errno != ENOENT)
		return false;
	char *up;
	const char *name;
	path_split(dir, &up, &name);
	bool ok = make_parents(t, lower, up);
	if (ok) {
		tree_enter(t, up);
		if (mkdir(name, 0755) == 0) {
			if (source >= 0)
				copy_metadata(source, name);
			else if (chmod(name, 0755) != 0)
				report_fail(errno, dir, "cannot set a mode");
		} else if (errno != EEXIST)
			report_fail(errno, dir, "cannot make a directory");
	}
	if (source >= 0)
		close(source);
	free(up);
	return ok;
}

/* wanted: "d:/proc" directory, "f:/etc/hosts" empty file, "l:/etc/mtab=/proc/mounts" link. What the image has is left alone. */
int command_mountpoints(const struct overlay_spec *spec, const char *root, char **wanted, int count)
{
	struct tree t;
	tree_open(&t, root);
	int lower = overlay_open(spec);
	for (int i = 0; i < count; i++) {
		char kind = wanted[i][0], *path = wanted[i] + 2, *target = NULL;
		if (!kind || wanted[i][1] != ':')
			report_fail(EINVAL, wanted[i], "expected d:, f: or l: and a path");
		if (kind == 'l' && (target = strchr(path, '=')) != NULL)
			*target++ = 0;
		char *clean = path_clean(path), *dir;
		const char *name;
		if (!clean || !*clean)
			report_fail(EINVAL, path, "not a path inside the tree");
		path_split(clean, &dir, &name);
		struct stat st;
		char *full = xasprintf("/%s", clean);
		if (!lower_stat(lower, full, &st) && make_parents(&t, lower, dir)) {
			tree_enter(&t, dir);
			int r = kind == 'd' ? mkdir(name, 0755) : kind == 'l' ? symlink(target ? target : "", name) : mknod(name, S_IFREG | 0644, 0);
			if ((r != 0 && errno != EEXIST) || (r == 0 && kind != 'l' && chmod(name, kind == 'd' ? 0755 : 0644) != 0))
				report_fail(errno, clean, "cannot make a mount point");
			/* Making it changed the parent's time, which is the image's. */
			int source = *dir ? open_in_root(lower, dir, O_PATH | O_DIRECTORY) : -1;
			if (source >= 0) {
				copy_metadata(source, ".");
				close(source);
			}
		}
		free(full);
		free(dir);
		free(clean);
	}
	int source = open_in_root(lower, ".", O_PATH | O_DIRECTORY);
	tree_enter(&t, "");
	copy_metadata(source, ".");
	fprintf(stderr, "{}\n");
	return 0;
}

/* ------------------------------------------------------------------ disk */

int command_sync(const char *root)
{
	int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || syncfs(fd) != 0)
		report_fail(errno, root, "cannot sync the file system");
	fprintf(stderr, "{}\n");
	return 0;
}

/* Flattens while it goes: a container can make trees deeper than any path or stack is long. */
int command_remove(const char *root)
{
	int top = open(root, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (top < 0) {
		if (errno != ENOENT)
			report_fail(errno, root, "cannot open a directory");
		fprintf(stderr, "{}\n");
		return 0;
	}
	unsigned long moved = 0;
	for (bool again = true; again;) {
		again = false;
		DIR *d = fdopendir(openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
		if (!d)
			report_fail(errno, root, "cannot read a directory");
		for (struct dirent *e; (e = readdir(d)) != NULL;) {
			if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
				continue;
			again = true;
			if (unlinkat(top, e->d_name, 0) == 0 || errno == ENOENT)
				continue;
			if (errno != EISDIR)
				report_fail(errno, e->d_name, "cannot remove a file");
			if (unlinkat(top, e->d_name, AT_REMOVEDIR) == 0)
				continue;
			int fd = openat(top, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			DIR *sub = fd < 0 ? NULL : fdopendir(fd);
			if (!sub)
				report_fail(errno, e->d_name, "cannot read a directory");
			for (struct dirent *c; (c = readdir(sub)) != NULL;) {
				if (strcmp(c->d_name, ".") == 0 || strcmp(c->d_name, "..") == 0 || unlinkat(fd, c->d_name, 0) == 0 ||
				    unlinkat(fd, c->d_name, AT_REMOVEDIR) == 0)
					continue;
				char name[48];
				do
					snprintf(name, sizeof name, ".shoal-removing-%lu", moved++);
				while (renameat2(fd, c->d_name, top, name, RENAME_NOREPLACE) != 0 && errno == EEXIST);
			}
			closedir(sub);
			if (unlinkat(top, e->d_name, AT_REMOVEDIR) != 0 && errno != ENOTEMPTY)
				report_fail(errno, e->d_name, "cannot remove a directory");
		}
		closedir(d);
	}
	if (rmdir(root) != 0 && errno != ENOENT)
		report_fail(errno, root, "cannot remove a directory");
	fprintf(stderr, "{}\n");
	return 0;
}
