/*
 * Files of content, and what is seen of them while they pass. Knows no SQL.
 * Octets go straight to the kernel, so that a killed session loses none; they
 * count once they have been fsynced.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sendq/io.h>

enum { HEAD_MAX = 256 * 1024, BLOCK = 64 * 1024 };

enum sq_err
gw_seen_init(struct gw_seen *s, struct sq_error *err)
{
	*s = (struct gw_seen){ .md = EVP_MD_CTX_new(), .head = SQ_BUF_INIT(HEAD_MAX + BLOCK * 4) };
	if (!s->md || EVP_DigestInit_ex(s->md, EVP_sha256(), NULL) != 1)
		return sq_error_set(err, SQ_ENOMEM, "cannot hash");
	return SQ_OK;
}

void
gw_seen_fini(struct gw_seen *s)
{
	EVP_MD_CTX_free(s->md);
	sq_buf_fini(&s->head);
	*s = (struct gw_seen){ 0 };
}

/* Keep the header block and nothing behind it. */
static void
see_head(struct gw_seen *s, const char *p, size_t n)
{
	size_t from = s->head.n > 3 ? s->head.n - 3 : 0;
	const char *end;

	sq_buf_add(&s->head, p, n);
	if (s->head.failed || s->head.n == 0) {
		s->head_done = s->head.failed;
		return;
	}
	end = memmem(s->head.p + from, s->head.n - from, "\r\n\r\n", 4);
	if (end || s->head.n >= HEAD_MAX) {
		s->head_done = true;
		if (end)
			s->head.n = (size_t)(end - s->head.p) + 4;
		s->head.p[s->head.n] = 0;
	}
}

static void
see_line_ends(struct gw_seen *s, const char *p, size_t n)
{
	if (s->last == '\r' && p[0] != '\n')
		s->bare = true;
	for (const char *at = p, *end = p + n; !s->bare && (at = memchr(at, '\n', (size_t)(end - at))); at++)
		s->bare = (at == p ? s->last : at[-1]) != '\r';
	for (const char *at = p, *end = p + n; !s->bare && (at = memchr(at, '\r', (size_t)(end - at))); at++)
		s->bare = at + 1 < end && at[1] != '\n';
	s->last = p[n - 1];
}

enum sq_err
gw_seen_take(void *seen, const char *p, size_t n, struct sq_error *err)
{
	struct gw_seen *s = seen;

	if (n == 0)
		return SQ_OK;
	if (EVP_DigestUpdate(s->md, p, n) != 1)
		return sq_error_set(err, SQ_ENOMEM, "cannot hash");
	if (!s->head_done)
		see_head(s, p, n);
	see_line_ends(s, p, n);
	return SQ_OK;
}

enum sq_err
gw_seen_hash(const struct gw_seen *s, char out[65], struct sq_error *err)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned char raw[EVP_MAX_MD_SIZE];
	bool good = md && EVP_MD_CTX_copy_ex(md, s->md) == 1 && EVP_DigestFinal_ex(md, raw, NULL) == 1;

	EVP_MD_CTX_free(md);
	if (!good)
		return sq_error_set(err, SQ_ENOMEM, "cannot hash");
	sq_hex(raw, 32, out);
	return SQ_OK;
}

void
gw_seen_field(const struct gw_seen *s, const char *name, char *out, size_t room)
{
	size_t n = strlen(name), used = 0;
	const char *line = s->head.failed ? NULL : s->head.p;

	out[0] = 0;
	while (line && *line && (strncasecmp(line, name, n) != 0 || line[n + strspn(line + n, " \t")] != ':'))
		line = (line = strstr(line, "\r\n")) ? line + 2 : NULL;
	if (!line || !*line)
		return;
	line = strchr(line, ':') + 1;
	line += strspn(line, " \t");
	for (; *line && used + 1 < room; line++) {
		if (line[0] == '\r' && line[1] == '\n' && line[2] != ' ' && line[2] != '\t')
			break;
		if ((unsigned char)*line >= ' ' && *line != 0x7f)
			out[used++] = *line;
	}
	while (used > 0 && out[used - 1] == ' ')
		used--;
	out[used] = 0;
}

/* ---- files */

enum sq_err
gw_spool_create(struct gw_store *s, const char *name, int *out, struct sq_error *err)
{
	int fd = openat(s->spool, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot make '%s' in the spool", name);
	(void)!flock(fd, LOCK_EX | LOCK_NB); /* for gw_txn_take(): goes with the session */
	*out = fd;
	return SQ_OK;
}

enum sq_err
gw_spool_anonymous(struct gw_store *s, int *out, struct sq_error *err)
{
	char name[GW_FILE_NAME];
	uint64_t r;
	int fd = openat(s->spool, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
		/* A file system without O_TMPFILE. */
		sq_random(&r, sizeof(r));
		snprintf(name, sizeof(name), "t%016jx", (uintmax_t)r);
		if ((fd = openat(s->spool, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) >= 0)
			unlinkat(s->spool, name, 0);
	}
	if (fd < 0)
		return sq_error_errno(err, SQ_EIO, "cannot make a file in the spool");
	*out = fd;
	return SQ_OK;
}

/* Where the last line that is whole ends: 0 when there is none. */
static enum sq_err
last_line_end(int fd, int64_t size, int64_t *out, struct sq_error *err)
{
	char block[BLOCK + 1];

	for (int64_t end = size; end > 0;) {
		int64_t start = end > BLOCK ? end - BLOCK : 0;
		/* One octet more, for a CRLF that stands across two blocks. */
		size_t want = (size_t)(end - start) + (end < size);
		ssize_t n = pread(fd, block, want, start);

		if (n != (ssize_t)want)
			return sq_error_errno(err, SQ_EIO, "cannot read the spool");
		for (size_t i = want; i >= 2; i--) {
			if (block[i - 1] == '\n' && block[i - 2] == '\r') {
				*out = start + (int64_t)i;
				return SQ_OK;
			}
		}
		end = start;
	}
	*out = 0;
	return SQ_OK;
}

enum sq_err
gw_spool_settle(struct gw_store *s, const char *name, bool lines, int64_t *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_closep) int fd = openat(s->spool, name, O_RDONLY | O_CLOEXEC);
	struct stat st;

	*out = 0;
	if (fd < 0)
		return errno == ENOENT ? SQ_OK : sq_error_errno(err, SQ_EIO, "cannot open '%s' in the spool", name);
	gw_point();
	if (fstat(fd, &st) != 0 || fsync(fd) != 0 || fsync(s->spool) != 0)
		return sq_error_errno(err, SQ_EIO, "cannot sync '%s' in the spool", name);
	gw_point();
	*out = st.st_size;
	return lines ? last_line_end(fd, st.st_size, out, err) : SQ_OK;
}

enum sq_err
gw_spool_read(int fd, int64_t octets, gw_reader *take, void *ctx, struct sq_error *err)
{
	char block[BLOCK];
	int64_t at = 0;

	while (at < octets) {
		int64_t left = octets - at;
		ssize_t n = pread(fd, block, left < BLOCK ? (size_t)left : BLOCK, at);
		enum sq_err e;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return sq_error_errno(err, SQ_EIO, "cannot read the spool");
		if (n == 0)
			return sq_error_set(err, SQ_ECORRUPT, "a file of the spool is shorter than what was counted");
		if ((e = take(ctx, block, (size_t)n, err)) != SQ_OK)
			return e;
		at += n;
	}
	return SQ_OK;
}

void
gw_spool_remove(struct gw_store *s, const char *name)
{
	unlinkat(s->spool, name, 0);
}
