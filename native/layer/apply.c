/* apply: a tar stream, compressed or not, becomes a directory. The stream is hashed on both sides of the decompressor
 * while it is unpacked, and may be kept as a blob at the same time: each byte passes once.
 *
 *   stdin (or the kept part of an earlier try, then stdin) -> digest, blob -> decompress -> digest -> tar -> tree
 */
#include "layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define READ_BUFFER (1024 * 1024)
#define TAR_BLOCK 512
/* Refuses to fill the file system to the last block: the daemon's own database lives there too. */
#define FREE_BYTES_MIN (64ULL * 1024 * 1024)
#define FREE_CHECK_EVERY (64ULL * 1024 * 1024)

struct source {
	int blob;          /* -1: not kept */
	bool replaying;    /* still reading what an earlier try left in the blob */
	bool as_is;        /* the blob is the stream itself */
	bool decided;
	struct digest digest;
	unsigned char *buffer;
};

struct directory_time {
	char *path;
	struct timespec mtime;
};

struct apply {
	const struct apply_options *o;
	struct tree tree;
	struct source source;
	struct archive *packed, *tar;
	bool is_empty; /* the stream had no byte */
	bool is_padded; /* the last block was filled up */
	uint64_t data_end, entries_end; /* of the last entry in the tar; with its padding */
	struct sink sink; /* hashes the plain tar; writes the blob when it is recompressed */
	uint64_t unpacked_bytes, entries, checked_bytes, skipped;
	struct directory_time *times;
	size_t time_count, time_room;
};

static ssize_t read_some(int fd, void *buffer, size_t size)
{
	for (;;) {
		ssize_t n = read(fd, buffer, size);
		if (n >= 0 || errno != EINTR)
			return n;
	}
}

/* Gzip and zstd are what registries take as they are (OCI image-spec, layer media types); anything else is packed anew. */
static bool keeps_as_is(const unsigned char *b, size_t n)
{
	return (n >= 2 && b[0] == 0x1f && b[1] == 0x8b) || (n >= 4 && memcmp(b, "\x28\xb5\x2f\xfd", 4) == 0);
}

static la_ssize_t source_read(struct archive *a, void *data, const void **out)
{
	struct apply *ap = data;
	struct source *s = &ap->source;
	*out = s->buffer;
	if (s->replaying) {
		ssize_t n = read_some(s->blob, s->buffer, READ_BUFFER);
		if (n < 0) {
			archive_set_error(a, errno, "cannot read the kept part of the blob");
			return -1;
		}
		if (n > 0) {
			digest_add(&s->digest, s->buffer, (size_t)n);
			return n;
		}
		s->replaying = false;
	}
	ssize_t n = read_some(0, s->buffer, READ_BUFFER);
	while (n > 0 && n < 4 && !s->decided) {
		ssize_t more = read_some(0, s->buffer + n, READ_BUFFER - (size_t)n);
		if (more <= 0)
			break;
		n += more;
	}
	if (n < 0) {
		archive_set_error(a, errno, "cannot read the stream");
		return -1;
	}
	if (!s->decided) {
		s->decided = true;
		s->as_is = !ap->o->recompress || keeps_as_is(s->buffer, (size_t)n);
		sink_start(&ap->sink, s->as_is ? -1 : s->blob, !s->as_is);
	}
	if (n > 0) {
		digest_add(&s->digest, s->buffer, (size_t)n);
		if (s->blob >= 0 && s->as_is)
			write_all(s->blob, s->buffer, (size_t)n, "the blob");
	}
	return n;
}

/* What a user sends may lack the padding of its last entry, and an end: the docker command sends contexts so. */
static la_ssize_t fill_block(struct apply *ap, const void **out)
{
	static const char zeros[TAR_BLOCK];
	uint64_t over = ap->sink.plain.bytes % TAR_BLOCK;
	if (!ap->o->plain || ap->is_padded || over == 0)
		return 0;
	ap->is_padded = true;
	*out = zeros;
	return (la_ssize_t)(TAR_BLOCK - over);
}

static la_ssize_t tar_read(struct archive *a, void *data, const void **out)
{
	struct apply *ap = data;
	size_t size = 0;
	la_int64_t offset;
	if (ap->is_empty)
		return 0;
	for (;;) {
		int r = archive_read_data_block(ap->packed, out, &size, &offset);
		if (r == ARCHIVE_EOF)
			return fill_block(ap, out);
		if (r == ARCHIVE_RETRY || (r == ARCHIVE_WARN && size == 0))
			continue;
		if (r < ARCHIVE_WARN) {
			const char *why = archive_error_string(ap->packed);
			archive_set_error(a, EINVAL, "%s", why ? why : "the compressed stream is damaged");
			return -1;
		}
		if (size == 0)
			continue;
		sink_add(&ap->sink, *out, size);
		return (la_ssize_t)size;
	}
}

static void count_bytes(struct apply *ap, uint64_t bytes, const char *path)
{
	ap->unpacked_bytes += bytes;
	if (ap->unpacked_bytes > ap->o->bytes_max)
		report_fail(EFBIG, path, "the layer unpacks to more than %llu bytes", (unsigned long long)ap->o->bytes_max);
	if (ap->unpacked_bytes - ap->checked_bytes < FREE_CHECK_EVERY)
		return;
	ap->checked_bytes = ap->unpacked_bytes;
	struct statvfs v;
	if (statvfs(".", &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize < FREE_BYTES_MIN)
		report_fail(ENOSPC, path, "less than %llu bytes would be left on the disk", FREE_BYTES_MIN);
}

static void write_file(struct apply *ap, struct archive_entry *e, const char *name, const char *path)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		report_fail(errno, path, "cannot create a file");
	const void *block;
	size_t size;
	la_int64_t offset, end = 0;
	int r;
	while ((r = archive_read_data_block(ap->tar, &block, &size, &offset)) != ARCHIVE_EOF) {
		if (r < ARCHIVE_WARN)
			report_fail(EINVAL, path, "cannot read a file's data: %s", archive_error_string(ap->tar));
		count_bytes(ap, size, path);
		for (size_t done = 0; done < size;) {
			ssize_t n = pwrite(fd, (const char *)block + done, size - done, offset + (la_int64_t)done);
			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				report_fail(errno, path, "cannot write a file");
			done += (size_t)n;
		}
		if (offset + (la_int64_t)size > end)
			end = offset + (la_int64_t)size;
	}
	la_int64_t want = archive_entry_size(e);
	/* The hole at the end of a sparse file has no block. */
	if (want > end && ftruncate(fd, want) != 0)
		report_fail(errno, path, "cannot extend a sparse file");
	if (close(fd) != 0)
		report_fail(errno, path, "cannot close a file");
}

static void set_xattrs(struct apply *ap, struct archive_entry *e, const char *name, const char *path)
{
	const char *key;
	const void *value;
	size_t size;
	archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &key, &value, &size) == ARCHIVE_OK) {
		/* Would redirect the overlay into other directories: only the overlay itself writes these. */
		if (is_overlay_xattr(key)) {
			ap->skipped++;
			continue;
		}
		if (lsetxattr(name, key, value, size, 0) == 0)
			continue;
		/* A name space that this file system or kernel does not have (user.* on a link, security.selinux without it). */
		if (errno == ENOTSUP || (errno == EPERM && strncmp(key, "user.", 5) == 0)) {
			ap->skipped++;
			continue;
		}
		report_fail(errno, path, "cannot set the extended attribute %s", key);
	}
}

static void set_owner(const char *name, uid_t uid, gid_t gid, const char *path)
{
	if (lchown(name, uid, gid) != 0)
		report_fail(errno, path, "cannot give a file to %u:%u", uid, gid);
}

/* Owner first: chown clears set-id bits and file capabilities. Times last: everything else changes them. */
static void set_metadata(struct apply *ap, struct archive_entry *e, const char *name, const char *path)
{
	if (ap->o->gives_owner)
		set_owner(name, ap->o->uid, ap->o->gid, path);
	else if (ap->o->keep_owner)
		set_owner(name, (uid_t)archive_entry_uid(e), (gid_t)archive_entry_gid(e), path);
	if (archive_entry_filetype(e) != AE_IFLNK && chmod_here(name, archive_entry_perm(e) & 07777) != 0)
		report_fail(errno, path, "cannot set a mode");
	set_xattrs(ap, e, name, path);
	struct timespec times[2];
	times[1] = archive_entry_mtime_is_set(e)
	               ? (struct timespec){ archive_entry_mtime(e), archive_entry_mtime_nsec(e) }
	               : (struct timespec){ 0, 0 };
	times[0] = times[1];
	if (archive_entry_filetype(e) == AE_IFDIR) {
		/* What comes later into the directory would change it again. */
		if (ap->time_count == ap->time_room)
			ap->times = xrealloc(ap->times, (ap->time_room = ap->time_room * 2 + 64) * sizeof *ap->times);
		ap->times[ap->time_count++] = (struct directory_time){ xstrdup(path), times[1] };
	} else if (utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW) != 0)
		report_fail(errno, path, "cannot set times");
}

static void set_directory_times(struct apply *ap)
{
	for (size_t i = ap->time_count; i-- > 0;) {
		struct directory_time *d = &ap->times[i];
		char *dir;
		const char *name;
		struct stat st;
		path_split(d->path, &dir, &name);
		if (tree_enter_existing(&ap->tree, dir) && lstat(name, &st) == 0 && S_ISDIR(st.st_mode)) {
			struct timespec times[2] = { d->mtime, d->mtime };
			if (utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW) != 0)
				report_fail(errno, d->path, "cannot set a directory's time");
		}
		free(dir);
	}
}

/* Returns true when the directory is there already and only its metadata changes. */
static bool make_room(struct apply *ap, struct archive_entry *e, const char *name, const char *path, bool *opaque)
{
	struct stat st;
	bool is_directory = archive_entry_filetype(e) == AE_IFDIR && !archive_entry_hardlink(e);
	if (lstat(name, &st) != 0) {
		if (errno != ENOENT)
			report_fail(errno, path, "cannot look at what is there");
		return false;
	}
	if (S_ISDIR(st.st_mode) && is_directory)
		return true;
	if (strcmp(name, ".") == 0)
		report_fail(EINVAL, path, "the root of the tree must be a directory");
	if (ap->o->no_overwrite_dir && S_ISDIR(st.st_mode) != is_directory)
		report_fail(S_ISDIR(st.st_mode) ? EISDIR : ENOTDIR, path,
		            S_ISDIR(st.st_mode) ? "cannot overwrite a directory with a non-directory"
		                                : "cannot overwrite a non-directory with a directory");
	*opaque = !ap->o->plain && is_whiteout(&st) && is_directory;
	if (remove_tree(AT_FDCWD, name) != 0)
		report_fail(errno, path, "cannot remove what is there");
	if (S_ISDIR(st.st_mode))
		tree_forget(&ap->tree);
	return false;
}

static void set_opaque(const char *name, const char *path)
{
	if (lsetxattr(name, OPAQUE_XATTR, "y", 1, 0) != 0)
		report_fail(errno, path, "cannot mark a directory opaque");
}

/* An opaque directory before anything was put into it, as pack writes them. */
static void remove_children(struct apply *ap, const char *path)
{
	DIR *d = opendir(".");
	if (!d)
		report_fail(errno, path, "cannot read a directory");
	for (struct dirent *e; (errno = 0, e = readdir(d)) != NULL;)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && remove_tree(AT_FDCWD, e->d_name) != 0)
			report_fail(errno, path, "cannot remove what is hidden");
	if (errno)
		report_fail(errno, path, "cannot read a directory");
	closedir(d);
	tree_forget(&ap->tree);
}

/* True when the entry was a whiteout of the OCI format (image-spec layer.md) and is dealt with. */
static bool apply_whiteout(struct apply *ap, const char *name, const char *path)
{
	if (strncmp(name, ".wh.", 4) != 0)
		return false;
	if (strcmp(name, ".wh..wh..opq") == 0) {
		if (ap->o->flatten)
			remove_children(ap, path);
		else
			set_opaque(".", path);
		return true;
	}
	/* AUFS's own bookkeeping, as old images carry it. */
	if (strncmp(name, ".wh..wh.", 8) == 0)
		return true;
	const char *hidden = name + 4;
	if (!*hidden || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
		report_fail(EINVAL, path, "a whiteout names nothing");
	struct stat st;
	if (ap->o->flatten) {
		if (lstat(hidden, &st) == 0 && remove_tree(AT_FDCWD, hidden) != 0)
			report_fail(errno, path, "cannot remove what is hidden");
		tree_forget(&ap->tree);
		return true;
	}
	if (lstat(hidden, &st) == 0) {
		/* The layer replaces it: a whiteout hides only what lies below. */
		if (S_ISDIR(st.st_mode))
			set_opaque(hidden, path);
		return true;
	}
	if (errno != ENOENT || mknod(hidden, S_IFCHR, makedev(0, 0)) != 0)
		report_fail(errno, path, "cannot make a whiteout");
	return true;
}

static void make_link(struct apply *ap, const char *target, const char *name, const char *dir, const char *path)
{
	char *clean = path_clean(target), *target_dir;
	const char *target_name;
	if (!clean || !*clean)
		report_fail(EINVAL, path, "the hard link's target %s is outside of the tree", target);
	char *full = *ap->o->path ? xasprintf("%s/%s", ap->o->path, clean) : xstrdup(clean);
	path_split(full, &target_dir, &target_name);
	int from = open_in_root(ap->tree.root, target_dir, O_PATH | O_DIRECTORY);
	if (from < 0)
		report_fail(errno, path, "cannot find the hard link's target %s", target);
	struct stat st;
	if (fstatat(from, target_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		report_fail(EINVAL, path, "the hard link's target %s is a directory", target);
	tree_enter(&ap->tree, dir);
	if (linkat(from, target_name, AT_FDCWD, name, 0) != 0)
		report_fail(errno, path, "cannot link to %s", target);
	close(from);
	free(target_dir);
	free(full);
	free(clean);
}

static void apply_entry(struct apply *ap, struct archive_entry *e)
{
	const char *raw = archive_entry_pathname(e);
	if (!raw)
		report_fail(EINVAL, NULL, "an entry has no readable name");
	if (++ap->entries > ap->o->entries_max)
		report_fail(EFBIG, raw, "the archive has more than %llu entries", (unsigned long long)ap->o->entries_max);
	char *absolute = ap->o->contain ? xasprintf("/%s", raw) : NULL, *clean = path_clean(absolute ? absolute : raw), *dir;
	free(absolute);
	const char *name;
	if (!clean)
		report_fail(EINVAL, raw, "the entry's name leads out of the tree");
	if (*ap->o->path) {
		char *inner = *clean ? xasprintf("%s/%s", ap->o->path, clean) : xstrdup(ap->o->path);
		free(clean);
		clean = inner;
	}
	path_split(clean, &dir, &name);
	tree_enter(&ap->tree, dir);
	if (!ap->o->plain && apply_whiteout(ap, name, clean))
		goto done;
	bool opaque = false;
	bool exists = make_room(ap, e, name, clean, &opaque);
	const char *target = archive_entry_hardlink(e);
	if (target) {
		make_link(ap, target, name, dir, clean);
		tree_mark_listed(&ap->tree, clean);
		goto done;
	}
	switch (archive_entry_filetype(e)) {
	case AE_IFREG:
		write_file(ap, e, name, clean);
		break;
	case AE_IFDIR:
		if (!exists && mkdir(name, 0700) != 0)
			report_fail(errno, clean, "cannot make a directory");
		if (opaque)
			set_opaque(name, clean);
		break;
	case AE_IFLNK: {
		const char *to = archive_entry_symlink(e);
		if (!to || !*to)
			report_fail(EINVAL, clean, "a symbolic link has no target");
		/* Kept as it is, wherever it points: it is only ever resolved inside the container's root. */
		if (symlink(to, name) != 0)
			report_fail(errno, clean, "cannot make a symbolic link");
		break;
	}
	case AE_IFCHR:
	case AE_IFBLK:
	case AE_IFIFO:
		if (!ap->o->plain && archive_entry_filetype(e) == AE_IFCHR && archive_entry_rdev(e) == makedev(0, 0))
			report_fail(EINVAL, clean, "a character device 0:0 would be a whiteout");
		if (mknod(name, archive_entry_filetype(e) | 0600, archive_entry_rdev(e)) != 0)
			report_fail(errno, clean, "cannot make a device or fifo");
		break;
	default:
		report_fail(EINVAL, clean, "the entry is of a type that a layer cannot hold");
	}
	set_metadata(ap, e, name, clean);
	tree_mark_listed(&ap->tree, clean);
done:
	free(dir);
	free(clean);
}

static void open_blob(struct apply *ap)
{
	const struct apply_options *o = ap->o;
	ap->source.blob = -1;
	if (!o->blob)
		return;
	ap->source.blob = open(o->blob, O_RDWR | O_CREAT | O_CLOEXEC | (o->resume ? 0 : O_TRUNC), 0600);
	if (ap->source.blob < 0)
		report_fail(errno, o->blob, "cannot open the blob");
	ap->source.replaying = o->resume;
}

static void open_streams(struct apply *ap)
{
	ap->source.buffer = xmalloc(READ_BUFFER);
	digest_start(&ap->source.digest);
	/* A replayed blob was kept as it came, so nothing is left to decide. */
	if (ap->o->resume) {
		ap->source.decided = ap->source.as_is = true;
		sink_start(&ap->sink, -1, false);
	}
	struct archive *p = ap->packed = archive_read_new(), *t = ap->tar = archive_read_new();
	if (!p || !t)
		report_fail(ENOMEM, NULL, "cannot make an archive reader");
	/* Named one by one: "all" would also start external programs. */
	archive_read_support_filter_gzip(p);
	archive_read_support_filter_bzip2(p);
	archive_read_support_filter_xz(p);
	archive_read_support_filter_zstd(p);
	archive_read_support_format_raw(p);
	archive_read_support_format_empty(p);
	archive_read_support_format_tar(t);
	archive_read_support_format_empty(t);
	struct archive_entry *e;
	if (archive_read_open(p, ap, NULL, source_read, NULL) < ARCHIVE_WARN)
		report_fail(EINVAL, NULL, "cannot read the stream: %s", archive_error_string(p));
	int r = archive_read_next_header(p, &e);
	if (r < ARCHIVE_WARN)
		report_fail(EINVAL, NULL, "cannot read the stream: %s", archive_error_string(p));
	/* The last one is the stream itself. */
	if (archive_filter_count(p) > 2)
		report_fail(EINVAL, NULL, "cannot read the stream: it is compressed twice");
	ap->is_empty = r == ARCHIVE_EOF;
	if (archive_read_open(t, ap, NULL, tar_read, NULL) < ARCHIVE_WARN)
		report_fail(EINVAL, NULL, "cannot read the tar: %s", archive_error_string(t));
}

/* What follows the end mark belongs to the digests too; and a stream that goes on for ever must not. */
static void drain(struct apply *ap)
{
	const void *block;
	la_ssize_t n;
	while ((n = tar_read(ap->tar, ap, &block)) > 0)
		count_bytes(ap, (uint64_t)n, NULL);
	if (n < 0)
		report_fail(EINVAL, NULL, "cannot read the stream: %s", archive_error_string(ap->tar));
	while ((n = source_read(ap->packed, ap, &block)) > 0)
		;
	if (n < 0)
		report_fail(EIO, NULL, "cannot read the stream: %s", archive_error_string(ap->packed));
}

static void write_implied(struct apply *ap)
{
	if (!ap->o->implied)
		return;
	FILE *f = fopen(ap->o->implied, "we");
	if (!f)
		report_fail(errno, ap->o->implied, "cannot write the list of implied directories");
	for (size_t i = 0; i < ap->tree.implied_count; i++)
		if (ap->tree.implied[i].path)
			fprintf(f, "%s%c", ap->tree.implied[i].path, 0);
	if (!ap->tree.root_listed)
		fputc(0, f);
	if (fclose(f) != 0)
		report_fail(errno, ap->o->implied, "cannot write the list of implied directories");
}

int command_apply(const struct apply_options *o)
{
	struct apply ap = { .o = o };
	tree_open(&ap.tree, o->root);
	ap.tree.record = o->implied != NULL;
	open_blob(&ap);
	open_streams(&ap);
	for (;;) {
		struct archive_entry *e;
		int r = archive_read_next_header(ap.tar, &e);
		if (r == ARCHIVE_EOF)
			break;
		if (r == ARCHIVE_RETRY)
			continue;
		/* WARN: a name that is no UTF-8 was kept byte for byte. */
		if (r < ARCHIVE_WARN)
			report_fail(EINVAL, NULL, "cannot read the tar: %s", archive_error_string(ap.tar));
		apply_entry(&ap, e);
		ap.entries_end = ap.data_end = (uint64_t)archive_filter_bytes(ap.tar, 0);
		/* A sparse file's bytes in the tar are not its size: it has to have its padding. */
		if (archive_entry_sparse_count(e) == 0 && archive_entry_size(e) % TAR_BLOCK > 0)
			ap.data_end -= TAR_BLOCK - (uint64_t)archive_entry_size(e) % TAR_BLOCK;
	}
	uint64_t files_bytes = ap.unpacked_bytes;
	/* Padding may lack, but no byte of an entry; and an end mark that was cut tells that something else was too. */
	if (ap.is_padded && (ap.sink.plain.bytes < ap.data_end || ap.sink.plain.bytes > ap.entries_end))
		report_fail(EINVAL, NULL, "cannot read the tar: unexpected end in the middle of a block");
	drain(&ap);
	set_directory_times(&ap);
	write_implied(&ap);
	int compression = archive_filter_code(ap.packed, 0);
	bool as_is = ap.source.as_is;
	char diff_id[DIGEST_TEXT], packed[DIGEST_TEXT], stream[DIGEST_TEXT];
	uint64_t stream_bytes = ap.source.digest.bytes;
	digest_end(&ap.source.digest, stream);
	uint64_t tar_bytes = ap.sink.plain.bytes;
	sink_end(&ap.sink, diff_id, packed);
	uint64_t packed_bytes = ap.sink.packed.bytes;
	/* Not synced: the caller flushes the file system once, when all layers of an image are there. */
	if (ap.source.blob >= 0 && close(ap.source.blob) != 0)
		report_fail(errno, o->blob, "cannot close the blob");
	fprintf(stderr,
	        "{\"diffId\":\"%s\",\"tarBytes\":%llu,\"sizeBytes\":%llu,\"compressedDigest\":\"%s\",\"compressedBytes\":%llu,"
	        "\"compression\":\"%s\",\"entries\":%llu,\"skippedAttributes\":%llu}\n",
	        diff_id, (unsigned long long)tar_bytes, (unsigned long long)files_bytes, as_is ? stream : packed,
	        (unsigned long long)(as_is ? stream_bytes : packed_bytes),
	        !as_is || compression == ARCHIVE_FILTER_GZIP ? "gzip" : compression == ARCHIVE_FILTER_ZSTD ? "zstd" : compression == ARCHIVE_FILTER_NONE ? "none" : "other",
	        (unsigned long long)ap.entries, (unsigned long long)ap.skipped);
	return 0;
}
