/*
 * What FETCH tells of a message: nested lists of strings, numbers and NIL, the
 * literals inline. Everything is bounded by the response; nesting by
 * SQ_IMAP_DEPTH_MAX. Nothing is kept but numbers, hashes and the Message-ID.
 */
#include <sendq/imap.h>

struct cursor { const char *p; size_t n, at; };

static bool
is_next(const struct cursor *c, char ch)
{
	return c->at < c->n && c->p[c->at] == ch;
}

static void
blanks(struct cursor *c)
{
	while (is_next(c, ' '))
		c->at++;
}

static bool
digits(struct cursor *c, uint64_t *out)
{
	size_t began = c->at;
	uint64_t v = 0;

	for (; c->at < c->n && c->p[c->at] >= '0' && c->p[c->at] <= '9'; c->at++) {
		if (v > (UINT64_MAX >> 8))
			return false;
		v = v * 10 + (uint64_t)(c->p[c->at] - '0');
	}
	*out = v;
	return c->at > began;
}

/* A number, a quoted string (its octets without the quotes, escapes as they stand), a literal or an atom. */
static bool
word(struct cursor *c, struct sq_str *out, bool *quoted)
{
	size_t began;
	uint64_t n;

	blanks(c);
	began = c->at;
	*quoted = is_next(c, '"');
	if (*quoted) {
		for (c->at++; c->at < c->n && c->p[c->at] != '"'; c->at++)
			c->at += c->p[c->at] == '\\';
		if (c->at >= c->n)
			return false;
		*out = (struct sq_str){ c->p + began + 1, c->at - began - 1 };
		c->at++;
		return true;
	}
	if (is_next(c, '{')) {
		c->at++;
		if (!digits(c, &n) || !is_next(c, '}'))
			return false;
		c->at++;
		if (is_next(c, '\r'))
			c->at++;
		if (!is_next(c, '\n') || n > c->n - c->at - 1)
			return false;
		*out = (struct sq_str){ c->p + c->at + 1, (size_t)n };
		c->at += 1 + (size_t)n;
		*quoted = true;
		return true;
	}
	while (c->at < c->n && (unsigned char)c->p[c->at] > ' ' && c->p[c->at] != '(' && c->p[c->at] != ')' && c->p[c->at] != '"')
		c->at++;
	*out = (struct sq_str){ c->p + began, c->at - began };
	return c->at > began;
}

static uint64_t
hash(uint64_t h, struct sq_str s)
{
	/* FNV-1a */
	for (size_t k = 0; k < s.n; k++)
		h = (h ^ (unsigned char)s.p[k]) * 1099511628211u;
	return (h ^ 256) * 1099511628211u;
}

static const uint64_t HASH_BASIS = 14695981039346656037u;

/* Any value; its words into *h. */
static bool
value(struct cursor *c, int depth, uint64_t *h)
{
	struct sq_str s;
	bool quoted;

	blanks(c);
	if (!is_next(c, '(')) {
		if (!word(c, &s, &quoted))
			return false;
		*h = hash(*h, s);
		return true;
	}
	if (depth >= SQ_IMAP_DEPTH_MAX)
		return false;
	c->at++;
	*h = hash(*h, SQ_STR("("));
	for (blanks(c); !is_next(c, ')'); blanks(c))
		if (c->at >= c->n || !value(c, depth + 1, h))
			return false;
	c->at++;
	*h = hash(*h, SQ_STR(")"));
	return true;
}

/* What is left of the list whose "(" was taken. */
static bool
rest_of_list(struct cursor *c, int depth)
{
	uint64_t h = 0;

	for (blanks(c); !is_next(c, ')'); blanks(c))
		if (c->at >= c->n || !value(c, depth, &h))
			return false;
	c->at++;
	return true;
}

static bool
envelope(struct cursor *c, struct sq_imap_message *m)
{
	struct sq_str id;
	bool quoted;

	blanks(c);
	if (!is_next(c, '('))
		return false;
	c->at++;
	m->envelope = HASH_BASIS;
	/* date, subject, from, sender, reply-to, to, cc, bcc, in-reply-to: then the Message-ID. */
	for (int k = 0; k < 9; k++)
		if (!value(c, 1, &m->envelope))
			return false;
	if (!word(c, &id, &quoted))
		return false;
	if ((quoted || !sq_str_caseeq(id, SQ_STR("NIL"))) && id.n <= SQ_IMAP_ID_MAX) {
		size_t n = 0;

		for (size_t k = 0; k < id.n; k++)
			if (id.p[k] != '\\' && id.p[k] != '\0')
				m->message_id[n++] = id.p[k];
		m->message_id[n] = '\0';
	}
	return rest_of_list(c, 1);
}

/* Behind a multipart's subtype: its parameters, of which the boundary is wanted. */
static bool
multipart_edge(struct cursor *c, int depth, struct sq_imap_message *m)
{
	struct sq_str name, v;
	uint64_t h = 0;
	bool quoted;

	blanks(c);
	if (!is_next(c, '('))
		return is_next(c, ')') || value(c, depth, &h);
	c->at++;
	for (blanks(c); !is_next(c, ')'); blanks(c)) {
		if (!word(c, &name, &quoted) || !word(c, &v, &quoted))
			return false;
		if (sq_str_caseeq(name, SQ_STR("boundary")) && v.n > m->edge)
			m->edge = v.n;
	}
	c->at++;
	return true;
}

static void
add_part(struct sq_imap_message *m, uint64_t kind, uint64_t octets, bool *whole)
{
	if (m->n_parts == SQ_IMAP_PARTS_MAX)
		*whole = false;
	else
		m->parts[m->n_parts++] = (struct sq_imap_part){ kind, octets };
}

/* One body: parts in parentheses and a subtype, or type, subtype, parameters, id, description, encoding, octets. */
static bool
structure(struct cursor *c, int depth, struct sq_imap_message *m, bool *whole)
{
	uint64_t kind = HASH_BASIS, octets;
	struct sq_str s;
	bool quoted;

	blanks(c);
	if (!is_next(c, '(') || depth >= SQ_IMAP_DEPTH_MAX)
		return false;
	c->at++;
	blanks(c);
	if (is_next(c, '(')) {
		for (; is_next(c, '('); blanks(c))
			if (!structure(c, depth + 1, m, whole))
				return false;
		return word(c, &s, &quoted) && multipart_edge(c, depth, m) && rest_of_list(c, depth + 1);
	}
	for (int k = 0; k < 6; k++)
		if (!value(c, depth + 1, &kind))
			return false;
	blanks(c);
	if (!digits(c, &octets))
		return false;
	add_part(m, kind, octets, whole);
	return rest_of_list(c, depth + 1);
}

bool
sq_imap_parse_fetch(struct sq_str r, struct sq_imap_message *m)
{
	struct cursor c = { r.p, r.n, 2 };
	bool quoted, whole = true, good = true;
	uint64_t v = 0, h = 0;
	struct sq_str name;

	m->uid = 0;
	m->size = m->envelope = m->edge = 0;
	m->n_parts = 0;
	m->message_id[0] = '\0';
	if (!sq_str_casestarts(r, SQ_STR("* ")) || !digits(&c, &v) || !sq_str_casestarts((struct sq_str){ c.p + c.at, c.n - c.at }, SQ_STR(" FETCH (")))
		return false;
	c.at += 8;
	for (blanks(&c); good && !is_next(&c, ')'); blanks(&c)) {
		if (!word(&c, &name, &quoted))
			return false;
		blanks(&c);
		if (sq_str_caseeq(name, SQ_STR("UID")))
			good = digits(&c, &v) && v <= UINT32_MAX && (m->uid = (uint32_t)v, true);
		else if (sq_str_caseeq(name, SQ_STR("RFC822.SIZE")))
			good = digits(&c, &m->size);
		else if (sq_str_caseeq(name, SQ_STR("ENVELOPE")))
			good = envelope(&c, m);
		else if (sq_str_caseeq(name, SQ_STR("BODYSTRUCTURE")))
			good = structure(&c, 0, m, &whole);
		else
			good = value(&c, 0, &h);
	}
	/* Parts that do not fit: nothing is said of the structure. */
	if (!whole)
		m->n_parts = 0;
	return good;
}
