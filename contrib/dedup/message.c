/*
 * One message of a file: where its body begins, its Message-ID, and whether
 * it has the closing boundary that its Content-Type promises. Constant memory
 * whatever the lines' lengths.
 */
#include <errno.h>
#include <unistd.h>

#include "dedup.h"

enum { LINE_KEPT = 2 * EDGE_MAX };

void
scan_init(struct scan *s)
{
	*s = (struct scan){ .line = SQ_BUF_INIT(FIELD_MAX), .field = SQ_BUF_INIT(FIELD_MAX) };
}

void
scan_fini(struct scan *s)
{
	sq_buf_fini(&s->line);
	sq_buf_fini(&s->field);
	free(s->id);
	s->id = NULL;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The value behind "boundary=" at `at`: quoted with backslashes, or a word. */
static void
take_edge(struct sq_str v, size_t at, char edge[EDGE_MAX + 1])
{
	bool quoted = at < v.n && v.p[at] == '"';
	size_t n = 0;

	for (at += quoted; at < v.n; at++) {
		char c = v.p[at];

		if (quoted ? c == '"' : is_blank(c) || c == ';')
			break;
		if (quoted && c == '\\' && at + 1 < v.n)
			c = v.p[++at];
		if (n == EDGE_MAX || c == '\0') {
			n = 0;
			break;
		}
		edge[n++] = c;
	}
	/* RFC 2046 section 5.1.1: it does not end with a blank. */
	while (n > 0 && is_blank(edge[n - 1]))
		n--;
	edge[n] = '\0';
}

void
scan_edge(struct sq_str v, char edge[EDGE_MAX + 1])
{
	bool quoted = false;

	edge[0] = '\0';
	if (!sq_str_casestarts(v, SQ_STR("multipart/")))
		return;
	for (size_t k = 10; k < v.n; k++) {
		struct sq_str rest = { v.p + k, v.n - k };
		size_t at = k + 8;

		if (v.p[k] == '\\' && quoted) {
			k++;
			continue;
		}
		if (v.p[k] == '"')
			quoted = !quoted;
		if (quoted || (v.p[k - 1] != ';' && !is_blank(v.p[k - 1])) || !sq_str_casestarts(rest, SQ_STR("boundary")))
			continue;
		while (at < v.n && is_blank(v.p[at]))
			at++;
		if (at == v.n || v.p[at] != '=')
			continue;
		for (at++; at < v.n && is_blank(v.p[at]); )
			at++;
		take_edge(v, at, edge);
		return;
	}
}

static void
end_field(struct scan *s)
{
	struct sq_buf value = SQ_BUF_INIT(FIELD_MAX);
	struct sq_str rest = { s->field.p, s->field.n };
	struct sq_field f;

	/* A field beyond the limit says nothing. */
	if (!s->field.failed && sq_field_next(&rest, &f)) {
		if (!s->id && sq_str_caseeq(f.name, SQ_STR("Message-ID"))) {
			sq_field_unfold(f.body, &value);
			if (value.n > 0 && sq_buf_take(&value, &s->id, NULL) != SQ_OK)
				s->bad = true;
		} else if (!s->edge[0] && sq_str_caseeq(f.name, SQ_STR("Content-Type"))) {
			sq_field_unfold(f.body, &value);
			scan_edge((struct sq_str){ value.p, value.n }, s->edge);
		}
	}
	sq_buf_fini(&value);
	sq_buf_clear(&s->field);
}

/* s->line is a line without its end; `whole`: it had one. */
static void
end_line(struct scan *s, bool whole)
{
	size_t edge = strlen(s->edge);
	struct sq_str l;

	if (s->line.n > 0 && s->line.p[s->line.n - 1] == '\r')
		s->line.p[--s->line.n] = '\0';
	l = (struct sq_str){ s->line.p, s->line.n };
	if (s->in_body) {
		s->any_body |= l.n > 0;
		if (edge > 0 && l.n >= edge + 4 && memcmp(l.p, "--", 2) == 0 && memcmp(l.p + 2, s->edge, edge) == 0 &&
		    memcmp(l.p + 2 + edge, "--", 2) == 0)
			s->closed = true;
	} else if (l.n == 0 && whole) {
		end_field(s);
		s->in_body = true;
		s->body = s->octets;
	} else {
		if (l.n > 0 && !is_blank(l.p[0]))
			end_field(s);
		sq_buf_add_str(&s->field, l);
		sq_buf_adds(&s->field, "\r\n");
	}
	sq_buf_clear(&s->line);
	s->line_n = 0;
}

void
scan_feed(struct scan *s, const char *p, size_t n)
{
	while (n > 0) {
		const char *lf = memchr(p, '\n', n);
		size_t now = lf ? (size_t)(lf - p) : n, kept = s->in_body ? LINE_KEPT : FIELD_MAX - 2;

		if (s->line_n < kept)
			sq_buf_add(&s->line, p, now < kept - s->line_n ? now : kept - (size_t)s->line_n);
		s->line_n += now;
		s->octets += now + (lf != NULL);
		if (lf)
			end_line(s, true);
		p += now + (lf != NULL);
		n -= now + (lf != NULL);
	}
}

bool
scan_finish(struct scan *s, char **id, uint64_t *body)
{
	bool in_header = !s->in_body;

	if (s->line_n > 0)
		end_line(s, false);
	if (in_header) {
		end_field(s);
		s->body = s->octets;
	}
	*id = s->id;
	s->id = NULL;
	*body = s->body;
	return in_header || (s->edge[0] && !s->closed);
}

bool
mbox_begins(struct sq_str l)
{
	static const char *const days[] = { "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun" };
	size_t at = 5;

	if (l.n < 10 || memcmp(l.p, "From ", 5) != 0)
		return false;
	/* "From SENDER DAY ...": a line of a letter that begins with the word is none. */
	while (at < l.n && l.p[at] != ' ')
		at++;
	while (at < l.n && l.p[at] == ' ')
		at++;
	for (size_t k = 0; k < SQ_LEN(days); k++)
		if (l.n - at >= 4 && memcmp(l.p + at, days[k], 3) == 0 && l.p[at + 3] == ' ')
			return true;
	return false;
}

/* ---- two bodies ---- */

struct reader {
	int fd;
	uint64_t at, to;
	char p[65536];
	size_t n, taken;
	uint64_t line_ends;  /* held back: they count only when something follows */
	int next;            /* read, not handed out; -1: none */
	bool failed;
};

static int
octet(struct reader *r)
{
	if (r->taken == r->n) {
		size_t want = r->to - r->at < sizeof(r->p) ? (size_t)(r->to - r->at) : sizeof(r->p);
		ssize_t got = 0;

		do
			got = want > 0 ? pread(r->fd, r->p, want, (off_t)r->at) : 0;
		while (got < 0 && errno == EINTR);
		r->failed |= got < 0 || (got == 0 && want > 0);
		r->n = got > 0 ? (size_t)got : 0;
		r->taken = 0;
		r->at += r->n;
		if (r->n == 0)
			return -1;
	}
	return (unsigned char)r->p[r->taken++];
}

/* The next octet with every line end as LF, those at the end left out; -1: the end. */
static int
canonical(struct reader *r)
{
	int c;

	if (r->line_ends > 0 && r->next >= 0) {
		r->line_ends--;
		return '\n';
	}
	if (r->next >= 0) {
		c = r->next;
		r->next = -1;
		return c;
	}
	while ((c = octet(r)) == '\n' || c == '\r')
		r->line_ends += c == '\n';
	if (c < 0)
		return -1;
	r->next = c;
	return canonical(r);
}

enum sq_err
compare_regions(int fd_a, uint64_t from_a, uint64_t to_a, int fd_b, uint64_t from_b, uint64_t to_b, enum order *out, struct sq_error *err)
{
	static struct reader a, b; /* large; one thread */
	int x, y;

	a = (struct reader){ .fd = fd_a, .at = from_a, .to = to_a, .next = -1 };
	b = (struct reader){ .fd = fd_b, .at = from_b, .to = to_b, .next = -1 };
	do {
		x = canonical(&a);
		y = canonical(&b);
	} while (x == y && x >= 0);
	if (a.failed || b.failed)
		return sq_error_set(err, SQ_EIO, "a message changed or cannot be read while it is compared");
	*out = x == y ? ORDER_SAME : x < 0 ? ORDER_LESS : y < 0 ? ORDER_MORE : ORDER_OTHER;
	return SQ_OK;
}
