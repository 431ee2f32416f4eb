/* pack: a directory becomes a tar, in the order of names, so that the same tree gives the same bytes. */
#include "layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define COPY_BUFFER (1024 * 1024)
#define LINK_BUCKETS 4096

/* Files with several names, by inode: the later ones become hard links to the first. */
struct linked {
	dev_t dev;
	ino_t ino;
	char *path;
	struct linked *next;
};

struct pack {
	const struct pack_options *o;
	struct archive *tar;
	struct sink sink;
	struct linked *links[LINK_BUCKETS];
	char *buffer;
	uint64_t size_bytes, entries;
};

static la_ssize_t pack_write(struct archive *a, void *data, const void *bytes, size_t size)
{
	(void)a;
	sink_add(data, bytes, size);
	return (la_ssize_t)size;
}

static void read_xattrs(struct archive_entry *e, int fd_link, const char *path)
{
	/* O_PATH descriptors have no f*xattr; the /proc name reaches the very file, links too. */
	char proc[64];
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd_link);
	ssize_t size = listxattr(proc, NULL, 0);
	if (size <= 0)
		return;
	char *names = xmalloc((size_t)size);
	size = listxattr(proc, names, (size_t)size);
	if (size < 0)
		report_fail(errno, path, "cannot list extended attributes");
	for (char *n = names; n < names + size; n += strlen(n) + 1) {
		if (is_overlay_xattr(n))
			continue;
		ssize_t length = getxattr(proc, n, NULL, 0);
		char *value = length < 0 ? NULL : xmalloc((size_t)length + 1);
		length = value ? getxattr(proc, n, value, (size_t)length) : -1;
		if (length < 0)
			report_fail(errno, path, "cannot read the extended attribute %s", n);
		archive_entry_xattr_add_entry(e, n, value, (size_t)length);
		free(value);
	}
	free(names);
}

static bool is_opaque(int fd_path)
{
	char proc[64], value[2] = "";
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd_path);
	return getxattr(proc, OPAQUE_XATTR, value, sizeof value) == 1 && value[0] == 'y';
}

static const char *first_name(struct pack *p, const struct stat *st, const char *path)
{
	struct linked **bucket = &p->links[(st->st_ino ^ st->st_dev) % LINK_BUCKETS];
	for (struct linked *l = *bucket; l; l = l->next)
		if (l->ino == st->st_ino && l->dev == st->st_dev)
			return l->path;
	struct linked *l = xmalloc(sizeof *l);
	*l = (struct linked){ st->st_dev, st->st_ino, xstrdup(path), *bucket };
	*bucket = l;
	return NULL;
}

/* Describes the holes of a file that has any, so that they stay holes on the other side. */
static void describe_holes(struct archive_entry *e, int fd, const struct stat *st)
{
	if ((uint64_t)st->st_blocks * 512 >= (uint64_t)st->st_size)
		return;
	off_t at = 0;
	while (at < st->st_size) {
		off_t data = lseek(fd, at, SEEK_DATA);
		if (data < 0) {
			/* ENXIO: nothing but a hole up to the end. */
			if (errno == ENXIO && at == 0)
				archive_entry_sparse_add_entry(e, 0, 0);
			break;
		}
		off_t hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			break;
		if (data == 0 && hole >= st->st_size)
			return;
		archive_entry_sparse_add_entry(e, data, hole - data);
		at = hole;
	}
	lseek(fd, 0, SEEK_SET);
}

static void write_header(struct pack *p, struct archive_entry *e, const char *path)
{
	p->entries++;
	if (archive_write_header(p->tar, e) < ARCHIVE_WARN)
		report_fail(EINVAL, path, "cannot write a tar header: %s", archive_error_string(p->tar));
}

/* A file that grows or shrinks while it is read keeps the size of its header: cut, or filled up with zeros. */
static void write_data(struct pack *p, int fd, const struct stat *st, const char *path)
{
	off_t left = st->st_size;
	while (left > 0) {
		size_t want = left < COPY_BUFFER ? (size_t)left : COPY_BUFFER;
		ssize_t n = read(fd, p->buffer, want);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			report_fail(errno, path, "cannot read a file");
		if (n == 0) {
			memset(p->buffer, 0, want);
			n = (ssize_t)want;
		}
		if (archive_write_data(p->tar, p->buffer, (size_t)n) < 0)
			report_fail(EIO, path, "cannot write a tar: %s", archive_error_string(p->tar));
		left -= n;
	}
	p->size_bytes += (uint64_t)st->st_size;
}

/* Whole seconds, as dockerd: an extended header for each file would be a kilobyte of tar. Nanoseconds, set here, would be written
 * for those entries only that need an extended header for something else. */
static void set_time(const struct pack *p, struct archive_entry *e, const struct stat *st)
{
	archive_entry_set_mtime(e, p->o->no_times ? 0 : st->st_mtim.tv_sec, 0);
}

static void write_whiteout(struct pack *p, const char *dir, const char *hidden, const struct stat *st)
{
	char *path = xasprintf("%s%s.wh.%s", dir, *dir ? "/" : "", hidden);
	struct archive_entry *e = archive_entry_new();
	archive_entry_copy_pathname(e, path);
	archive_entry_set_filetype(e, AE_IFREG);
	archive_entry_set_perm(e, 0);
	archive_entry_set_size(e, 0);
	set_time(p, e, st);
	write_header(p, e, path);
	archive_entry_free(e);
	free(path);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void pack_entry(struct pack *p, int parent, const char *name, const char *path, bool is_root);

static void pack_children(struct pack *p, int dir_path, const char *path)
{
	int fd = openat(dir_path, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		report_fail(errno, path, "cannot read a directory");
	char **names = NULL;
	size_t count = 0, room = 0;
	for (struct dirent *e; (errno = 0, e = readdir(d)) != NULL;) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (count == room)
			names = xrealloc(names, (room = room * 2 + 32) * sizeof(char *));
		names[count++] = xstrdup(e->d_name);
	}
	if (errno)
		report_fail(errno, path, "cannot read a directory");
	if (count > 0)
		qsort(names, count, sizeof(char *), by_name);
	for (size_t i = 0; i < count; i++) {
		char *child = xasprintf("%s%s%s", path, *path && path[strlen(path) - 1] != '/' ? "/" : "", names[i]);
		pack_entry(p, fd, names[i], child, false);
		free(child);
		free(names[i]);
	}
	free(names);
	closedir(d);
}

static void fill_entry(const struct pack *p, struct archive_entry *e, const char *path, const struct stat *st)
{
	char *with_slash = S_ISDIR(st->st_mode) ? xasprintf("%s/", path) : NULL;
	archive_entry_copy_pathname(e, with_slash ? with_slash : path);
	free(with_slash);
	archive_entry_set_filetype(e, st->st_mode & S_IFMT);
	archive_entry_set_perm(e, st->st_mode & 07777);
	archive_entry_set_uid(e, st->st_uid);
	archive_entry_set_gid(e, st->st_gid);
	set_time(p, e, st);
	archive_entry_set_size(e, S_ISREG(st->st_mode) ? st->st_size : 0);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		archive_entry_set_rdev(e, st->st_rdev);
}

static void set_link_target(struct archive_entry *e, int fd_path, const char *path)
{
	char target[4097];
	ssize_t n = readlinkat(fd_path, "", target, sizeof target - 1);
	if (n < 0)
		report_fail(errno, path, "cannot read a symbolic link");
	target[n] = 0;
	archive_entry_copy_symlink(e, target);
}

static void pack_entry(struct pack *p, int parent, const char *name, const char *path, bool is_root)
{
	int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) != 0) {
		/* Gone since the directory was read: the tree of a running container lives. */
		if (errno == ENOENT && !is_root) {
			if (fd >= 0)
				close(fd);
			return;
		}
		report_fail(errno, path, "cannot open");
	}
	if (p->o->overlay && is_whiteout(&st)) {
		char *dir;
		const char *hidden;
		path_split(path, &dir, &hidden);
		write_whiteout(p, dir, hidden, &st);
		free(dir);
		close(fd);
		return;
	}
	/* Tar has no sockets; docker leaves them out too. The root has an entry only when it was given a name. */
	bool listed = !S_ISSOCK(st.st_mode) && *path;
	if (listed) {
		struct archive_entry *e = archive_entry_new();
		int data = -1;
		fill_entry(p, e, path, &st);
		const char *first = !S_ISDIR(st.st_mode) && st.st_nlink > 1 ? first_name(p, &st, path) : NULL;
		if (first) {
			archive_entry_set_size(e, 0);
			archive_entry_copy_hardlink(e, first);
		} else {
			if (S_ISLNK(st.st_mode))
				set_link_target(e, fd, path);
			else
				read_xattrs(e, fd, path);
			if (S_ISREG(st.st_mode)) {
				/* The very file that was looked at: under its name there may be a fifo or a device by now. */
				char proc[64];
				snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
				data = open(proc, O_RDONLY | O_CLOEXEC);
				if (data < 0)
					report_fail(errno, path, "cannot open a file");
				describe_holes(e, data, &st);
			}
		}
		write_header(p, e, path);
		if (data >= 0) {
			write_data(p, data, &st, path);
			close(data);
		}
		archive_entry_free(e);
	}
	if (S_ISDIR(st.st_mode)) {
		if (p->o->overlay && is_opaque(fd))
			write_whiteout(p, path, ".wh..opq", &st);
		pack_children(p, fd, path);
	}
	close(fd);
}

int command_pack(const struct pack_options *o)
{
	struct pack p = { .o = o };
	int root = open(o->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		report_fail(errno, o->root, "cannot open the root directory");
	char *clean = path_clean(o->path), *dir;
	const char *name;
	if (!clean)
		report_fail(EINVAL, o->path, "the path leads out of the tree");
	path_split(clean, &dir, &name);
	int parent = open_in_root(root, dir, O_PATH | O_DIRECTORY);
	if (parent < 0)
		report_fail(errno, o->path, "cannot open the path");
	int out = 1;
	if (o->blob && (out = open(o->blob, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0)
		report_fail(errno, o->blob, "cannot create the blob");
	sink_start(&p.sink, out, o->gzip);
	p.buffer = xmalloc(COPY_BUFFER);
	p.tar = archive_write_new();
	archive_write_set_format_pax_restricted(p.tar);
	if (archive_write_set_options(p.tar, "xattrheader=SCHILY") < ARCHIVE_WARN ||
	    archive_write_set_bytes_per_block(p.tar, 65536) != ARCHIVE_OK ||
	    archive_write_set_bytes_in_last_block(p.tar, 1) != ARCHIVE_OK ||
	    archive_write_open(p.tar, &p.sink, NULL, pack_write, NULL) != ARCHIVE_OK)
		report_fail(EINVAL, NULL, "cannot start a tar: %s", archive_error_string(p.tar));
	pack_entry(&p, parent, name, o->name ? o->name : clean, true);
	if (archive_write_close(p.tar) != ARCHIVE_OK)
		report_fail(EIO, NULL, "cannot finish a tar: %s", archive_error_string(p.tar));
	char plain[DIGEST_TEXT], packed[DIGEST_TEXT];
	uint64_t tar_bytes = p.sink.plain.bytes;
	sink_end(&p.sink, plain, packed);
	uint64_t packed_bytes = p.sink.packed.bytes;
	if (o->blob && close(out) != 0)
		report_fail(errno, o->blob, "cannot close the blob");
	fprintf(stderr,
	        "{\"diffId\":\"%s\",\"tarBytes\":%llu,\"sizeBytes\":%llu,\"compressedDigest\":\"%s\",\"compressedBytes\":%llu,\"entries\":%llu}\n",
	        plain, (unsigned long long)tar_bytes, (unsigned long long)p.size_bytes, packed, (unsigned long long)packed_bytes,
	        (unsigned long long)p.entries);
	return 0;
}
