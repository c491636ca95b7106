/*
 * The growable buffer. Doubles up to its limit; after the first failure all
 * appends are no-ops and every way out says so.
 */
#include <sendq/buf.h>

#include <errno.h>
#include <unistd.h>

void
sq_buf_fini(struct sq_buf *b)
{
	if (!b)
		return;
	free(b->p);
	*b = (struct sq_buf){ .max = b->max };
}

void
sq_buf_wipe(struct sq_buf *b)
{
	if (b && b->p)
		sq_wipe(b->p, b->cap);
	sq_buf_fini(b);
}

void
sq_buf_clear(struct sq_buf *b)
{
	b->n = 0;
	b->failed = false;
	if (b->p)
		b->p[0] = '\0';
}

char *
sq_buf_reserve(struct sq_buf *b, size_t n)
{
	size_t cap;
	char *p;

	if (b->failed)
		return NULL;
	if (n > b->max - b->n || b->n > b->max) {
		b->failed = true;
		return NULL;
	}
	if (b->p && b->n + n < b->cap)
		return b->p + b->n;
	cap = b->cap ? b->cap : 64;
	while (cap < b->n + n + 1)
		cap *= 2;
	if (cap > b->max + 1)
		cap = b->max + 1;
	/* Not realloc: the old octets may be a secret and must not stay behind. */
	p = malloc(cap);
	if (!p) {
		b->failed = true;
		return NULL;
	}
	if (b->p) {
		memcpy(p, b->p, b->n);
		sq_wipe(b->p, b->n);
		free(b->p);
	}
	p[b->n] = '\0';
	b->p = p;
	b->cap = cap;
	return p + b->n;
}

void
sq_buf_add(struct sq_buf *b, const void *p, size_t n)
{
	char *to;

	if (n == 0 || !(to = sq_buf_reserve(b, n)))
		return;
	memcpy(to, p, n);
	b->n += n;
	b->p[b->n] = '\0';
}

void
sq_buf_add_str(struct sq_buf *b, struct sq_str s)
{
	sq_buf_add(b, s.p, s.n);
}

void
sq_buf_adds(struct sq_buf *b, const char *s)
{
	sq_buf_add(b, s, strlen(s));
}

void
sq_buf_addc(struct sq_buf *b, char c)
{
	sq_buf_add(b, &c, 1);
}

void
sq_buf_addf(struct sq_buf *b, const char *fmt, ...)
{
	va_list ap, again;
	char *to;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		b->failed = true;
	else if (n > 0 && (to = sq_buf_reserve(b, (size_t)n))) {
		vsnprintf(to, (size_t)n + 1, fmt, again);
		b->n += (size_t)n;
	}
	va_end(again);
}

void
sq_buf_consume(struct sq_buf *b, size_t n)
{
	if (n > b->n)
		sq_bug("%zu octets consumed of %zu", n, b->n);
	if (n == 0)
		return;
	memmove(b->p, b->p + n, b->n - n);
	b->n -= n;
	b->p[b->n] = '\0';
}

enum sq_err
sq_buf_view(const struct sq_buf *b, struct sq_str *out, struct sq_error *err)
{
	if (b->failed)
		return b->n >= b->max / 2
			? sq_error_set(err, SQ_ELIMIT, "longer than %zu octets", b->max)
			: sq_error_set(err, SQ_ENOMEM, "out of memory, or longer than %zu octets", b->max);
	*out = (struct sq_str){ b->p, b->n };
	return SQ_OK;
}

enum sq_err
sq_buf_take(struct sq_buf *b, char **out, struct sq_error *err)
{
	struct sq_str s;
	enum sq_err e = sq_buf_view(b, &s, err);

	if (e != SQ_OK)
		return e;
	if (!b->p && !(b->p = calloc(1, 1)))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	*out = b->p;
	*b = (struct sq_buf){ .max = b->max };
	return SQ_OK;
}

enum sq_err
sq_buf_read_fd(struct sq_buf *b, int fd, struct sq_error *err)
{
	char chunk[16384];
	struct sq_str view;
	ssize_t n;

	for (;;) {
		n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		sq_buf_add(b, chunk, (size_t)n);
		if (b->failed)
			break;
	}
	sq_wipe(chunk, sizeof(chunk));
	if (n < 0)
		return sq_error_errno(err, SQ_EIO, "cannot read");
	return sq_buf_view(b, &view, err);
}
