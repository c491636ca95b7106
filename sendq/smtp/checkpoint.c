/*
 * The words of CHECKPOINT (RFC 1845): a TRANSID that may be said, and the
 * answer to one that is known. What follows from the answer is the session
 * machine's business.
 */
#include <sendq/smtp.h>

/* Any ASCII but space, controls, RFC 1521 tspecials and the dot (RFC 1845 §2). */
static bool
is_atom_char(char c)
{
	return c > 32 && c < 127 && !strchr("()<>@,;:\\\"/[]?=.", c);
}

/* The length of atoms joined by single dots at the front of s; 0: none. */
static size_t
token_length(const char *p, size_t n)
{
	size_t i = 0;

	while (i < n && is_atom_char(p[i])) {
		while (i < n && is_atom_char(p[i]))
			i++;
		if (i + 1 >= n || p[i] != '.' || !is_atom_char(p[i + 1]))
			break;
		i++;
	}
	return i;
}

bool
sq_transid_valid(struct sq_str s)
{
	size_t local, domain;

	if (s.n < 5 || s.n > SQ_TRANSID_MAX || s.p[0] != '<' || s.p[s.n - 1] != '>')
		return false;
	local = token_length(s.p + 1, s.n - 2);
	if (local == 0 || s.p[1 + local] != '@')
		return false;
	domain = token_length(s.p + 2 + local, s.n - 3 - local);
	return domain > 0 && domain == s.n - 3 - local;
}

static int
hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool
parse_hash(struct sq_str s, uint8_t out[32])
{
	if (s.n != 64)
		return false;
	for (size_t i = 0; i < 32; i++) {
		int high = hex(s.p[2 * i]), low = hex(s.p[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* The next word of the line *s, which is passed. */
static struct sq_str
next_word(struct sq_str *s)
{
	struct sq_str word;

	while (s->n > 0 && (s->p[0] == ' ' || s->p[0] == '\t'))
		s->p++, s->n--;
	word = (struct sq_str){ s->p, 0 };
	while (s->n > 0 && s->p[0] != ' ' && s->p[0] != '\t')
		s->p++, s->n--, word.n++;
	return word;
}

bool
sq_checkpoint_parse(const struct sq_reply *r, struct sq_checkpoint *out)
{
	const char *lf = r->text.n > 0 ? memchr(r->text.p, '\n', r->text.n) : NULL;
	struct sq_str line = { r->text.p, lf ? (size_t)(lf - r->text.p) : r->text.n }, word;
	struct sq_checkpoint c = { 0 };

	if (r->code != 355)
		return false;
	word = next_word(&line);
	if (word.n == 0 || word.n > 18)
		return false;
	for (size_t i = 0; i < word.n; i++) {
		if (word.p[i] < '0' || word.p[i] > '9')
			return false;
		c.offset = c.offset * 10 + (uint64_t)(word.p[i] - '0');
	}
	while ((word = next_word(&line)).n > 0)
		if (!c.hashed && sq_str_casestarts(word, SQ_STR("sha256=")))
			c.hashed = parse_hash((struct sq_str){ word.p + 7, word.n - 7 }, c.sha256);
	*out = c;
	return true;
}
