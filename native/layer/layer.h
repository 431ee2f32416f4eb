/* shoal-layer: image layers and file trees as tar streams, and looks into overlay trees. docs/images.md has the commands. */
#ifndef SHOAL_LAYER_H
#define SHOAL_LAYER_H
#include <archive.h>
#include <archive_entry.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

/* ------------------------------------------------------------------ report.c */

/* The last line on stderr is the result or the error, one JSON object. `path` may be null and may hold any bytes. */
_Noreturn void report_fail(int errnum, const char *path, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Writes `s` as the inside of a JSON string; bytes that are no UTF-8 become \u00XX. */
void report_string(FILE *out, const char *s);
void *xmalloc(size_t size);
void *xrealloc(void *p, size_t size);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Writes all of it or fails naming `what`. */
void write_all(int fd, const void *data, size_t size, const char *what);

/* ------------------------------------------------------------------ stream.c */

struct digest {
	EVP_MD_CTX *ctx;
	uint64_t bytes;
};
#define DIGEST_TEXT 72 /* "sha256:" + 64 + NUL */
void digest_start(struct digest *d);
void digest_add(struct digest *d, const void *data, size_t size);
void digest_end(struct digest *d, char text[DIGEST_TEXT]);

/* Where tar bytes go: hashed as they are (diffId), then compressed or not, hashed again, written to fd. fd -1: nowhere. */
struct sink {
	int fd;
	bool gzip;
	struct digest plain, packed;
	void *z;
	unsigned char *buffer;
};
void sink_start(struct sink *s, int fd, bool gzip);
void sink_add(struct sink *s, const void *data, size_t size);
void sink_end(struct sink *s, char plain[DIGEST_TEXT], char packed[DIGEST_TEXT]);

/* ------------------------------------------------------------------ tree.c */

/* A directory tree that no path, link or name handed in can lead out of. The working directory is the open parent. */
struct tree {
	int root;
	char *cached; /* path of the parent that is the working directory, or null */
	bool record;  /* note directories that were made because an entry needed them */
	struct implied {
		char *path; /* null: an entry has described it since */
		size_t next; /* of the same bucket, index + 1; 0: none */
	} *implied;
	size_t implied_count, implied_room; /* as many buckets as room */
	size_t *buckets;
	bool root_listed;
};
void tree_open(struct tree *t, const char *root);
/* Relative, without "." and empty components, ".." resolved; "" is the root; null when it leads out of the root. */
char *path_clean(const char *path);
/* Splits a clean path at its last slash. `*name` is "." for the root. Free `*dir` only. */
void path_split(const char *clean, char **dir, const char **name);
/* Makes the parent directory (missing ones are made, 0755) the working directory. */
void tree_enter(struct tree *t, const char *dir);
/* The same, but fails when it is absent: returns false with errno set. */
bool tree_enter_existing(struct tree *t, const char *dir);
/* Forgets the cached parent, after directories were removed. */
void tree_forget(struct tree *t);
void tree_mark_listed(struct tree *t, const char *clean);
int open_in_root(int root, const char *path, int flags);
int remove_tree(int dirfd, const char *name);
/* chmod of a name in the working directory that a container may have swapped for a link meanwhile. -1 with errno. */
int chmod_here(const char *name, mode_t mode);
bool is_whiteout(const struct stat *st);
bool is_overlay_xattr(const char *name);
extern const char OPAQUE_XATTR[];

/* ------------------------------------------------------------------ overlay.c */

#define OVERLAY_LAYERS_MAX 512
struct overlay_spec {
	const char *lower[OVERLAY_LAYERS_MAX]; /* top first */
	int lower_count;
	const char *upper, *work; /* both or none */
};
/* A descriptor of the merged tree's root, mounted nowhere: it goes away with the descriptor. Read-only without upper. */
int overlay_open(const struct overlay_spec *spec);
/* Owner, mode, xattrs and mtime of the open source (O_PATH) onto `name` in the working directory. */
void copy_metadata(int source, const char *name);

/* ------------------------------------------------------------------ commands */

struct apply_options {
	const char *root, *path, *blob, *implied;
	bool resume, recompress, plain, keep_owner, no_overwrite_dir;
	bool contain;     /* a name that leads out begins at the root, as an absolute one does */
	bool flatten;     /* whiteouts remove what is there: the tree is a merged one */
	bool gives_owner; /* everything to uid and gid, whatever the tar says */
	uid_t uid;
	gid_t gid;
	uint64_t bytes_max, entries_max;
};
int command_apply(const struct apply_options *o);

struct pack_options {
	const char *root, *path, *name, *blob;
	bool overlay, gzip;
	bool no_times; /* all 0: for a digest that tells contents only */
};
int command_pack(const struct pack_options *o);

int command_probe(const char *root, const char *path);
int command_hold(const struct overlay_spec *spec);
int command_cat(const struct overlay_spec *spec, const char *path, uint64_t bytes_max);
int command_changes(const struct overlay_spec *spec);
int command_usage(char **roots, int count);
int command_inherit(const struct overlay_spec *spec, const char *root, const char *list);
int command_mountpoints(const struct overlay_spec *spec, const char *root, char **wanted, int count);
int command_mount(const char *source, const char *target, const char *type, const char *options);
int command_umount(const char *target);
int command_sync(const char *root);
int command_remove(const char *root);
#endif
