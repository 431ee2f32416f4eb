/*
 * LD_PRELOAD for the chaos soak: the wall clock of a daemon is off by the nanoseconds in the file `clock` beside its pid
 * file (--pidfile PATH on the command line), an int64 in host order that may change at any time. Monotonic clocks stay.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000LL

static const volatile int64_t *offset;

__attribute__((constructor)) static void find_offset(void)
{
	char line[8192];
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
	if (fd >= 0)
		close(fd);
	if (length <= 0)
		return;
	line[length] = 0;
	for (char *arg = line; arg < line + length; arg += strlen(arg) + 1) {
		if (strcmp(arg, "--pidfile") != 0)
			continue;
		char *path = arg + strlen(arg) + 1;
		char *slash = path < line + length ? strrchr(path, '/') : NULL;
		if (!slash || (size_t)(slash - path) + sizeof "/clock" > 4096)
			return;
		char file[4096 + sizeof "/clock"];
		memcpy(file, path, slash - path);
		strcpy(file + (slash - path), "/clock");
		fd = open(file, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return;
		void *p = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (p != MAP_FAILED)
			offset = p;
		return;
	}
}

int clock_gettime(clockid_t id, struct timespec *t)
{
	int r = syscall(SYS_clock_gettime, id, t);
	if (r == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
		int64_t ns = t->tv_sec * BILLION + t->tv_nsec + *offset;
		t->tv_sec = ns / BILLION;
		t->tv_nsec = ns % BILLION;
	}
	return r;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	(void)zone;
	struct timespec t;
	if (clock_gettime(CLOCK_REALTIME, &t) != 0)
		return -1;
	tv->tv_sec = t.tv_sec;
	tv->tv_usec = t.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	if (out)
		*out = t.tv_sec;
	return t.tv_sec;
}
