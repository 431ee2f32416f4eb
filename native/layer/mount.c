/* mount, umount: what a volume's type, o and device options ask for. */
#include "layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

static const struct {
	const char *name;
	unsigned long set, clear;
} FLAGS[] = {
	{ "defaults", 0, 0 }, { "ro", MS_RDONLY, 0 }, { "rw", 0, MS_RDONLY }, { "nosuid", MS_NOSUID, 0 }, { "suid", 0, MS_NOSUID },
	{ "nodev", MS_NODEV, 0 }, { "dev", 0, MS_NODEV }, { "noexec", MS_NOEXEC, 0 }, { "exec", 0, MS_NOEXEC },
	{ "sync", MS_SYNCHRONOUS, 0 }, { "async", 0, MS_SYNCHRONOUS }, { "dirsync", MS_DIRSYNC, 0 }, { "mand", MS_MANDLOCK, 0 },
	{ "nomand", 0, MS_MANDLOCK }, { "noatime", MS_NOATIME, 0 }, { "atime", 0, MS_NOATIME }, { "nodiratime", MS_NODIRATIME, 0 },
	{ "diratime", 0, MS_NODIRATIME }, { "relatime", MS_RELATIME, 0 }, { "norelatime", 0, MS_RELATIME },
	{ "strictatime", MS_STRICTATIME, 0 }, { "nostrictatime", 0, MS_STRICTATIME }, { "bind", MS_BIND, 0 },
	{ "rbind", MS_BIND | MS_REC, 0 },
};
static const struct {
	const char *name;
	unsigned long propagation;
} PROPAGATION[] = {
	{ "private", MS_PRIVATE }, { "rprivate", MS_PRIVATE | MS_REC }, { "shared", MS_SHARED }, { "rshared", MS_SHARED | MS_REC },
	{ "slave", MS_SLAVE }, { "rslave", MS_SLAVE | MS_REC }, { "unbindable", MS_UNBINDABLE }, { "runbindable", MS_UNBINDABLE | MS_REC },
};
#define COUNT(a) (sizeof(a) / sizeof *(a))

int command_mount(const char *source, const char *target, const char *type, const char *options)
{
	unsigned long flags = 0, propagation = 0;
	char *copy = xstrdup(options), *data = xmalloc(strlen(options) + 1), *save = NULL;
	*data = 0;
	for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		bool known = false;
		for (size_t i = 0; i < COUNT(FLAGS) && !known; i++)
			if ((known = strcmp(word, FLAGS[i].name) == 0))
				flags = (flags | FLAGS[i].set) & ~FLAGS[i].clear;
		for (size_t i = 0; i < COUNT(PROPAGATION) && !known; i++)
			if ((known = strcmp(word, PROPAGATION[i].name) == 0))
				propagation = PROPAGATION[i].propagation;
		/* What is no flag is the file system's own. */
		if (!known)
			strcat(strcat(data, *data ? "," : ""), word);
	}
	if (mount(source, target, type, flags, *data ? data : NULL) != 0)
		report_fail(errno, target, "failed to mount local volume: mount %s:%s, flags: 0x%lx, data: %s", source, target, flags, data);
	/* The first call of a bind mount takes no flags but rec. */
	unsigned long later = flags & ~(unsigned long)(MS_BIND | MS_REC);
	if ((flags & MS_BIND) && later && mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | later, NULL) != 0) {
		int saved = errno;
		umount2(target, MNT_DETACH);
		report_fail(saved, target, "cannot set the flags 0x%lx of a bind mount", later);
	}
	if (propagation && mount(NULL, target, NULL, propagation, NULL) != 0) {
		int saved = errno;
		umount2(target, MNT_DETACH);
		report_fail(saved, target, "cannot set the propagation of a mount");
	}
	fprintf(stderr, "{}\n");
	return 0;
}

/* All that is stacked there. Lazily: containers that still use it keep it. */
int command_umount(const char *target)
{
	while (umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		;
	if (errno != EINVAL && errno != ENOENT)
		report_fail(errno, target, "cannot unmount");
	fprintf(stderr, "{}\n");
	return 0;
}
