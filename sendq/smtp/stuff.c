/*
 * Dot-stuffing for DATA. The content is canonical (every line ends in CRLF,
 * no bare CR or LF), so a line starts behind LF and nowhere else.
 */
#include <sendq/smtp.h>

void
sq_stuff_add(struct sq_stuff *st, struct sq_str c, struct sq_buf *out)
{
	size_t at = 0;

	while (at < c.n) {
		const char *lf = memchr(c.p + at, '\n', c.n - at);
		size_t end = lf ? (size_t)(lf - c.p) + 1 : c.n;

		if (!st->inside && c.p[at] == '.')
			sq_buf_addc(out, '.');
		sq_buf_add(out, c.p + at, end - at);
		st->inside = lf == NULL;
		at = end;
	}
}
