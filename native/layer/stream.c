/* Digests, and the way of tar bytes to a blob. */
#include "layer.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define SINK_BUFFER (256 * 1024)
/* A commit and every step of a build wait for it; the tenth that a higher level saves is not worth three times the time. */
#define GZIP_LEVEL 1

void digest_start(struct digest *d)
{
	d->bytes = 0;
	/* Nothing of the machine's openssl.cnf concerns a digest, and reading it takes longer than a small layer. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
	d->ctx = EVP_MD_CTX_new();
	if (!d->ctx || EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1)
		report_fail(ENOMEM, NULL, "cannot start a sha256 digest");
}

void digest_add(struct digest *d, const void *data, size_t size)
{
	d->bytes += size;
	if (EVP_DigestUpdate(d->ctx, data, size) != 1)
		report_fail(EIO, NULL, "cannot go on with a sha256 digest");
}

void digest_end(struct digest *d, char text[DIGEST_TEXT])
{
	unsigned char raw[EVP_MAX_MD_SIZE];
	unsigned int n = 0;
	if (EVP_DigestFinal_ex(d->ctx, raw, &n) != 1 || n != 32)
		report_fail(EIO, NULL, "cannot finish a sha256 digest");
	EVP_MD_CTX_free(d->ctx);
	d->ctx = NULL;
	strcpy(text, "sha256:");
	for (unsigned int i = 0; i < n; i++)
		sprintf(text + 7 + 2 * i, "%02x", raw[i]);
}

void sink_start(struct sink *s, int fd, bool gzip)
{
	*s = (struct sink){ .fd = fd, .gzip = gzip };
	digest_start(&s->plain);
	digest_start(&s->packed);
	if (!gzip)
		return;
	z_stream *z = xmalloc(sizeof *z);
	memset(z, 0, sizeof *z);
	/* 16 asks for a gzip header: no name, time 0, so that the same tar gives the same blob. */
	if (deflateInit2(z, GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		report_fail(ENOMEM, NULL, "cannot start gzip");
	s->z = z;
	s->buffer = xmalloc(SINK_BUFFER);
}

static void sink_write(struct sink *s, const void *data, size_t size)
{
	digest_add(&s->packed, data, size);
	if (s->fd >= 0)
		write_all(s->fd, data, size, "the blob");
}

static void sink_deflate(struct sink *s, const void *data, size_t size, int flush)
{
	z_stream *z = s->z;
	z->next_in = (unsigned char *)data;
	z->avail_in = (unsigned int)size;
	int r;
	do {
		z->next_out = s->buffer;
		z->avail_out = SINK_BUFFER;
		r = deflate(z, flush);
		if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
			report_fail(EIO, NULL, "gzip failed with code %d", r);
		if (z->avail_out < SINK_BUFFER)
			sink_write(s, s->buffer, SINK_BUFFER - z->avail_out);
	} while (z->avail_out == 0 || (flush == Z_FINISH && r != Z_STREAM_END));
}

void sink_add(struct sink *s, const void *data, size_t size)
{
	digest_add(&s->plain, data, size);
	if (s->gzip)
		sink_deflate(s, data, size, Z_NO_FLUSH);
	else
		sink_write(s, data, size);
}

void sink_end(struct sink *s, char plain[DIGEST_TEXT], char packed[DIGEST_TEXT])
{
	if (s->gzip) {
		sink_deflate(s, NULL, 0, Z_FINISH);
		deflateEnd(s->z);
		free(s->z);
		free(s->buffer);
	}
	digest_end(&s->plain, plain);
	digest_end(&s->packed, packed);
}
