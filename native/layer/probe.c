/* probe: whether a file is a tar, compressed or not, with at least one entry. */
#include "layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define READ_BUFFER (64 * 1024)

int command_probe(const char *root, const char *path)
{
	int at = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = at < 0 ? -1 : open_in_root(at, path, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		report_fail(errno, path, "cannot open a file");
	struct archive *a = archive_read_new();
	if (!a)
		report_fail(ENOMEM, NULL, "cannot make an archive reader");
	/* Named one by one: "all" would also start external programs. */
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_format_tar(a);
	struct archive_entry *e;
	bool is_tar = archive_read_open_fd(a, fd, READ_BUFFER) >= ARCHIVE_WARN && archive_read_next_header(a, &e) >= ARCHIVE_WARN &&
	              archive_filter_count(a) <= 2;
	/* The end of an archive without entries is no failure to the library. */
	is_tar = is_tar && archive_file_count(a) > 0;
	archive_read_free(a);
	close(fd);
	fprintf(stderr, "{\"isTar\":%s}\n", is_tar ? "true" : "false");
	return 0;
}
