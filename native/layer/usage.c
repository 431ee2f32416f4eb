/* usage: what trees take on the disk. They live meanwhile, and a container can make one deeper than descriptors, stack or paths reach: one
 * descriptor goes down and up again by "..", which must be where it came from. */
#include "layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INODE_BUCKETS 65536
struct inode {
	dev_t dev;
	ino_t ino;
	struct inode *next;
};
struct level {
	dev_t dev;
	ino_t ino;
	char **names; /* directories that are still to be looked into */
	size_t count, room;
};
struct usage {
	uint64_t bytes;
	bool any_seen;
	struct inode *seen[INODE_BUCKETS];
	struct level *levels;
	size_t depth, room;
};

/* Sizes as users see them, each inode once; holes count as docker counts them. */
static void count(struct usage *u, const struct stat *st)
{
	if (st->st_nlink > 1) {
		struct inode **bucket = &u->seen[(st->st_ino ^ st->st_dev) % INODE_BUCKETS];
		for (struct inode *i = *bucket; i; i = i->next)
			if (i->ino == st->st_ino && i->dev == st->st_dev)
				return;
		struct inode *i = xmalloc(sizeof *i);
		*i = (struct inode){ st->st_dev, st->st_ino, *bucket };
		*bucket = i;
		u->any_seen = true;
	}
	if (S_ISREG(st->st_mode))
		u->bytes += (uint64_t)st->st_size;
}

/* Counts what is in the directory, and notes its directories as a level of their own. */
static void look_into(struct usage *u, int fd, const char *root)
{
	if (u->depth == u->room)
		u->levels = xrealloc(u->levels, (u->room = u->room * 2 + 64) * sizeof *u->levels);
	struct level *l = &u->levels[u->depth++];
	struct stat st;
	int listed = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = listed < 0 ? NULL : fdopendir(listed);
	if (!d || fstat(fd, &st) != 0)
		report_fail(errno, root, "cannot read a directory");
	*l = (struct level){ .dev = st.st_dev, .ino = st.st_ino };
	for (struct dirent *e; (errno = 0, e = readdir(d)) != NULL;) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
			if (errno == ENOENT)
				continue;
			report_fail(errno, root, "cannot look at %s", e->d_name);
		}
		if (!S_ISDIR(st.st_mode)) {
			count(u, &st);
			continue;
		}
		if (l->count == l->room)
			l->names = xrealloc(l->names, (l->room = l->room * 2 + 8) * sizeof(char *));
		l->names[l->count++] = xstrdup(e->d_name);
	}
	closedir(d);
}

/* The directory above; -1 when this one was moved meanwhile. */
static int climb(struct usage *u, int fd)
{
	const struct level *l = &u->levels[u->depth - 1];
	int up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	if (up >= 0 && (fstat(up, &st) != 0 || st.st_dev != l->dev || st.st_ino != l->ino)) {
		close(up);
		return -1;
	}
	return up;
}

/* A tree whose directories are moved about while it is counted is counted as far as it was seen. */
static void tree_usage(struct usage *u, const char *root)
{
	int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		report_fail(errno, root, "cannot open a directory");
	look_into(u, fd, root);
	while (u->depth > 0) {
		struct level *l = &u->levels[u->depth - 1];
		int next = -1;
		if (l->count > 0) {
			char *name = l->names[--l->count];
			next = fd < 0 ? -1 : openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			free(name);
			if (next < 0)
				continue;
			close(fd);
			look_into(u, fd = next, root);
		} else {
			free(l->names);
			u->depth--;
			next = fd >= 0 && u->depth > 0 ? climb(u, fd) : -1;
			if (fd >= 0)
				close(fd);
			fd = next;
		}
	}
}

/* One number a tree, null for one that is not there (any more). */
int command_usage(char **roots, int roots_count)
{
	struct usage *u = xmalloc(sizeof *u);
	memset(u, 0, sizeof *u);
	fprintf(stderr, "{\"bytes\":[");
	for (int i = 0; i < roots_count; i++) {
		if (access(roots[i], F_OK) != 0 && errno == ENOENT) {
			fprintf(stderr, "%snull", i ? "," : "");
			continue;
		}
		tree_usage(u, roots[i]);
		fprintf(stderr, "%s%llu", i ? "," : "", (unsigned long long)u->bytes);
		if (u->any_seen)
			memset(u->seen, 0, sizeof u->seen);
		u->bytes = 0;
		u->any_seen = false;
	}
	fprintf(stderr, "]}\n");
	return 0;
}
