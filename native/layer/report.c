#include "layer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_SHOWN_MAX 4096

/* Length of the UTF-8 sequence at s, 0 when it is none (RFC 3629: no surrogates, no overlong forms). */
static int utf8_length(const unsigned char *s)
{
	int n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
	for (int i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

void report_string(FILE *out, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	while (*s) {
		int n = utf8_length(s);
		if (n > 1)
			fwrite(s, 1, (size_t)n, out);
		else if (n == 0 || *s < 0x20 || *s == '"' || *s == '\\' || *s == 0x7f) {
			fprintf(out, "\\u%04x", *s);
			n = 1;
		} else
			fputc(*s, out);
		s += n;
	}
}

_Noreturn void report_fail(int errnum, const char *path, const char *fmt, ...)
{
	char *message = NULL;
	va_list ap;
	va_start(ap, fmt);
	if (vasprintf(&message, fmt, ap) < 0)
		message = NULL;
	va_end(ap);
	fputs("{\"message\":\"", stderr);
	report_string(stderr, message ? message : fmt);
	if (errnum) {
		fputs(": ", stderr);
		report_string(stderr, strerror(errnum));
	}
	fputs("\",\"path\":\"", stderr);
	/* A tar may name a file with a megabyte, and whoever reads this line bounds it. */
	char shown[PATH_SHOWN_MAX + 1];
	snprintf(shown, sizeof shown, "%s", path ? path : "");
	report_string(stderr, shown);
	const char *name = errnum ? strerrorname_np(errnum) : NULL;
	fprintf(stderr, "\",\"errno\":\"%s\"}\n", name ? name : "");
	exit(1);
}

void *xrealloc(void *p, size_t size)
{
	void *q = realloc(p, size);
	if (!q && size)
		report_fail(ENOMEM, NULL, "cannot allocate %zu bytes", size);
	return q;
}

void *xmalloc(size_t size)
{
	return xrealloc(NULL, size);
}

char *xstrdup(const char *s)
{
	return strcpy(xmalloc(strlen(s) + 1), s);
}

char *xasprintf(const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		report_fail(ENOMEM, NULL, "cannot format a string");
	return s;
}

void write_all(int fd, const void *data, size_t size, const char *what)
{
	const char *p = data;
	while (size > 0) {
		ssize_t n = write(fd, p, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			report_fail(errno, NULL, "cannot write %s", what);
		p += n;
		size -= (size_t)n;
	}
}
