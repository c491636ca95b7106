/*
 * Views, cleanup handlers and the bug exit. Owns nothing.
 */
#include <sendq/base.h>

#include <errno.h>
#include <unistd.h>

static unsigned char
lower(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char)(c + ('a' - 'A')) : c;
}

bool
sq_str_casestarts(struct sq_str a, struct sq_str b)
{
	if (a.n < b.n)
		return false;
	for (size_t i = 0; i < b.n; i++)
		if (lower((unsigned char)a.p[i]) != lower((unsigned char)b.p[i]))
			return false;
	return true;
}

bool
sq_str_caseeq(struct sq_str a, struct sq_str b)
{
	return a.n == b.n && sq_str_casestarts(a, b);
}

char *
sq_str_dup(struct sq_str s)
{
	char *p = malloc(s.n + 1);

	if (!p)
		return NULL;
	if (s.n > 0)
		memcpy(p, s.p, s.n);
	p[s.n] = '\0';
	return p;
}

void
sq_bug(const char *fmt, ...)
{
	va_list ap;

	fputs("sendq: this is a bug: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

void
sq_closep(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

void
sq_freep(void *ptr)
{
	int saved = errno;
	void *p;

	memcpy(&p, ptr, sizeof(p));
	free(p);
	p = NULL;
	memcpy(ptr, &p, sizeof(p));
	errno = saved;
}

void
sq_fclosep(FILE **f)
{
	int saved = errno;

	if (*f)
		fclose(*f);
	*f = NULL;
	errno = saved;
}
