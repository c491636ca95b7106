/*
 * Addresses. Finds where each address of a list ends first, then reads that
 * one: so "a@b <c@d>" and "Last, First" style mistakes get a sentence of their
 * own instead of a wrong recipient. Never guesses an address.
 */
#include <sendq/message.h>

#include <arpa/inet.h>
#include <idn2.h>

enum { TEXT_MAX = 1024, QUOTE_MAX = 80 };

/* Where a sentence is about: the list's view and the one address in it. */
struct cursor {
	const char *p;       /* of the whole input */
	size_t n, i;
	size_t begin, end;   /* extent of the address under way */
	size_t number;       /* its number, from 1 */
	bool single;
};

void
sq_address_fini(struct sq_address *a)
{
	if (!a)
		return;
	free(a->text);
	*a = (struct sq_address){ 0 };
}

void
sq_address_list_fini(struct sq_address_list *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->n; i++)
		sq_address_fini(&l->v[i]);
	free(l->v);
	*l = (struct sq_address_list){ 0 };
}

static enum sq_err
fault(const struct cursor *c, enum sq_err code, size_t at, const char *why, struct sq_error *err)
{
	size_t begin = c->begin, n;

	while (begin < c->end && (c->p[begin] == ' ' || c->p[begin] == '\t'))
		begin++;
	n = c->end - begin;
	while (n > 0 && (c->p[begin + n - 1] == ' ' || c->p[begin + n - 1] == '\t'))
		n--;
	if (n > QUOTE_MAX)
		n = QUOTE_MAX;
	if (c->single)
		return sq_error_set(err, code, "address '%.*s': %s at octet %zu", (int)n, c->p + begin, why, at + 1 - (at >= begin ? begin : at));
	return sq_error_set(err, code, "address %zu ('%.*s'): %s at octet %zu of the list", c->number, (int)n, c->p + begin, why, at + 1);
}

/* Past a quoted string, comment or domain literal that begins at i; `end` when it never closes. */
static size_t
skip_enclosed(const char *p, size_t i, size_t end)
{
	char open = p[i], close = open == '(' ? ')' : open == '[' ? ']' : '"';
	size_t depth = 0;

	for (; i < end; i++) {
		if (p[i] == '\\') {
			i++;
		} else if (open == '(' && p[i] == '(') {
			depth++;
		} else if (p[i] == close) {
			if (open == '"' && depth == 0) {
				depth = 1;
				continue;
			}
			if (open == '[')
				return i + 1;
			if (--depth == 0)
				return i + 1;
		}
	}
	return end + 1;
}

/* Blanks and comments. */
static enum sq_err
skip_blanks(struct cursor *c, struct sq_error *err)
{
	while (c->i < c->end) {
		if (c->p[c->i] == ' ' || c->p[c->i] == '\t') {
			c->i++;
		} else if (c->p[c->i] == '(') {
			size_t past = skip_enclosed(c->p, c->i, c->end);

			if (past > c->end)
				return fault(c, SQ_EINVAL, c->i, "a comment that never closes", err);
			c->i = past;
		} else {
			break;
		}
	}
	return SQ_OK;
}

static bool
is_special(char ch)
{
	return ch != '\0' && strchr("()<>[]:;@\\,\"", ch) != NULL;
}

static bool
is_atext(char ch)
{
	return (unsigned char)ch > ' ' && ch != 0x7f && ch != '.' && !is_special(ch);
}

/* Length of the valid UTF-8 sequence at p, 0 for none (RFC 3629). */
static size_t
utf8_length(const unsigned char *p, size_t n)
{
	size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;

	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

static bool
utf8_valid(struct sq_str s)
{
	for (size_t i = 0, len; i < s.n; i += len)
		if (!(len = utf8_length((const unsigned char *)s.p + i, s.n - i)))
			return false;
	return true;
}

static bool
has_8bit(struct sq_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] > 127)
			return true;
	return false;
}

/* local-part: words parted by dots, each an atom or a quoted string (obs-local-part with its blanks too). */
static enum sq_err
read_local(struct cursor *c, struct sq_buf *out, struct sq_error *err)
{
	bool word = false;
	enum sq_err e;

	for (;;) {
		char ch;

		if ((e = skip_blanks(c, err)) != SQ_OK)
			return e;
		if (c->i == c->end)
			return SQ_OK;
		ch = c->p[c->i];
		if (ch == '.') {
			sq_buf_addc(out, '.');
			c->i++;
			word = false;
		} else if (word) {
			return SQ_OK;
		} else if (ch == '"') {
			size_t past = skip_enclosed(c->p, c->i, c->end);

			if (past > c->end)
				return fault(c, SQ_EINVAL, c->i, "a quotation mark that never closes", err);
			for (size_t i = c->i + 1; i < past - 1; i++) {
				if (c->p[i] == '\\')
					i++;
				sq_buf_addc(out, c->p[i]);
			}
			c->i = past;
			word = true;
		} else if (is_atext(ch)) {
			while (c->i < c->end && is_atext(c->p[c->i]))
				sq_buf_addc(out, c->p[c->i++]);
			word = true;
		} else {
			return SQ_OK;
		}
	}
}

static bool
is_dot_atom(struct sq_str s)
{
	if (s.n == 0 || s.p[0] == '.' || s.p[s.n - 1] == '.')
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (!is_atext(s.p[i]) && !(s.p[i] == '.' && s.p[i - 1] != '.'))
			return false;
	return true;
}

static void
write_local(struct sq_str s, struct sq_buf *out)
{
	if (is_dot_atom(s)) {
		sq_buf_add_str(out, s);
		return;
	}
	sq_buf_addc(out, '"');
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '"' || s.p[i] == '\\')
			sq_buf_addc(out, '\\');
		sq_buf_addc(out, s.p[i]);
	}
	sq_buf_addc(out, '"');
}

static bool
is_literal(const char *text)
{
	char inner[64];
	unsigned char bin[16];
	size_t n = strlen(text);

	if (n < 3 || n - 2 >= sizeof(inner))
		return false;
	memcpy(inner, text + 1, n - 2);
	inner[n - 2] = '\0';
	if (sq_str_casestarts(sq_str(inner), SQ_STR("IPv6:")))
		return inet_pton(AF_INET6, inner + 5, bin) == 1;
	return inet_pton(AF_INET, inner, bin) == 1;
}

/* Labels of letters, digits, '-' and '_' (which the DNS has, whatever host names say), 1 to 63 octets. */
static const char *
domain_fault(const char *d)
{
	size_t label = 0;

	for (; *d; d++) {
		bool alnum = (*d >= '0' && *d <= '9') || (*d >= 'a' && *d <= 'z') || (*d >= 'A' && *d <= 'Z');

		if (*d == '.') {
			if (label == 0)
				return "an empty label in the domain";
			label = 0;
			continue;
		}
		if (!alnum && *d != '-' && *d != '_')
			return "a domain with a character that no domain has";
		if (++label > 63)
			return "a label of the domain above 63 octets";
	}
	return label == 0 ? "a domain that is missing or ends in a dot" : NULL;
}

static enum sq_err
domain_to_ascii(const struct cursor *c, size_t at, char **domain, struct sq_error *err)
{
	char *ascii = NULL;
	int rc;

	if (!has_8bit(sq_str(*domain)))
		return SQ_OK;
	if (!utf8_valid(sq_str(*domain)))
		return fault(c, SQ_EINVAL, at, "a domain that is not UTF-8", err);
	rc = idn2_to_ascii_8z(*domain, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
	if (rc == IDN2_MALLOC)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (rc != IDN2_OK)
		return fault(c, SQ_EINVAL, at, "an internationalised domain that IDNA does not allow", err);
	free(*domain);
	*domain = sq_str_dup(sq_str(ascii));
	idn2_free(ascii);
	return *domain ? SQ_OK : sq_error_set(err, SQ_ENOMEM, "out of memory");
}

/* Behind the '@': a domain or a literal, in ASCII, heap. */
static enum sq_err
read_domain(struct cursor *c, char **out, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf d = SQ_BUF_INIT(TEXT_MAX);
	SQ_CLEANUP(sq_freep) char *domain = NULL;
	size_t at;
	const char *why;
	enum sq_err e;

	if ((e = skip_blanks(c, err)) != SQ_OK)
		return e;
	at = c->i;
	if (c->i < c->end && c->p[c->i] == '[') {
		size_t past = skip_enclosed(c->p, c->i, c->end);

		if (past > c->end)
			return fault(c, SQ_EINVAL, at, "a bracket that never closes", err);
		sq_buf_add(&d, c->p + at, past - at);
		c->i = past;
	} else {
		bool dot = true;

		/* Blanks are allowed around dots only (obs-domain): "a@b c" has two domains. */
		while (c->i < c->end) {
			if ((e = skip_blanks(c, err)) != SQ_OK)
				return e;
			if (c->i == c->end || (!dot && c->p[c->i] != '.') || (!is_atext(c->p[c->i]) && c->p[c->i] != '.'))
				break;
			dot = c->p[c->i] == '.';
			if (dot)
				sq_buf_addc(&d, c->p[c->i++]);
			while (!dot && c->i < c->end && is_atext(c->p[c->i]))
				sq_buf_addc(&d, c->p[c->i++]);
		}
	}
	if (d.failed)
		return fault(c, SQ_ELIMIT, at, "a domain above 255 octets", err);
	if ((e = sq_buf_take(&d, &domain, err)) != SQ_OK || (e = domain_to_ascii(c, at, &domain, err)) != SQ_OK)
		return e;
	if (strlen(domain) > SQ_DOMAIN_MAX)
		return fault(c, SQ_ELIMIT, at, "a domain above 255 octets", err);
	if (domain[0] == '[' && !is_literal(domain))
		return fault(c, SQ_EINVAL, at, "an address literal that is no IP address", err);
	if (domain[0] != '[' && (why = domain_fault(domain)))
		return fault(c, SQ_EINVAL, at, why, err);
	*out = domain;
	domain = NULL;
	return SQ_OK;
}

/* obs-route, "@x,@y:" before the address in brackets: skipped. */
static enum sq_err
skip_route(struct cursor *c, struct sq_error *err)
{
	size_t i = c->i;

	if (c->i == c->end || c->p[c->i] != '@')
		return SQ_OK;
	while (i < c->end && c->p[i] != ':')
		i = c->p[i] == '[' ? skip_enclosed(c->p, i, c->end) : i + 1;
	if (i >= c->end)
		return fault(c, SQ_EINVAL, c->i, "no local part before '@'", err);
	c->i = i + 1;
	return SQ_OK;
}

static enum sq_err
read_addr_spec(struct cursor *c, struct sq_address *out, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf local = SQ_BUF_INIT(TEXT_MAX), text = SQ_BUF_INIT(TEXT_MAX);
	SQ_CLEANUP(sq_freep) char *domain = NULL;
	struct sq_address a = { 0 };
	size_t at;
	enum sq_err e;

	if ((e = skip_blanks(c, err)) != SQ_OK)
		return e;
	at = c->i;
	if ((e = read_local(c, &local, err)) != SQ_OK)
		return e;
	if (local.failed || local.n > SQ_LOCAL_PART_MAX)
		return fault(c, SQ_ELIMIT, at, "a local part above 64 octets", err);
	if (c->i == at)
		return fault(c, SQ_EINVAL, at, c->i < c->end && c->p[c->i] == '@' ? "no local part before '@'" : "no address", err);
	if (!utf8_valid((struct sq_str){ local.p, local.n }))
		return fault(c, SQ_EINVAL, at, "a local part that is not UTF-8", err);
	write_local((struct sq_str){ local.p, local.n }, &text);
	a.at = text.n;
	a.utf8 = has_8bit((struct sq_str){ local.p, local.n });
	if (c->i < c->end && c->p[c->i] == '@') {
		c->i++;
		if ((e = read_domain(c, &domain, err)) != SQ_OK)
			return e;
		sq_buf_addc(&text, '@');
		sq_buf_adds(&text, domain);
	}
	if ((e = sq_buf_take(&text, &a.text, err)) != SQ_OK)
		return e;
	*out = a;
	return SQ_OK;
}

/* Where the address that begins at c->i ends, and where its '<' is (or n). Also finds control characters. */
static enum sq_err
find_extent(struct cursor *c, size_t *angle, char *stop, struct sq_error *err)
{
	size_t i = c->i, open = c->n;
	bool in_angle = false, at_sign = false;

	c->begin = c->i;
	c->end = c->n;
	*stop = '\0';
	while (i < c->n) {
		char ch = c->p[i];

		if (ch == '"' || ch == '(' || (ch == '[' && (in_angle || at_sign))) {
			size_t past = skip_enclosed(c->p, i, c->n);

			if (past > c->n)
				return fault(c, SQ_EINVAL, i, ch == '(' ? "a comment that never closes" :
					ch == '[' ? "a bracket that never closes" : "a quotation mark that never closes", err);
			i = past;
			continue;
		}
		if (ch == '<' && open != c->n) {
			return fault(c, SQ_EINVAL, i, "a second '<'", err);
		} else if (ch == '<') {
			open = i;
			in_angle = true;
		} else if (ch == '>' && in_angle) {
			in_angle = false;
		} else if (!in_angle && (ch == ',' || ch == ';' || (ch == ':' && open == c->n && !at_sign))) {
			*stop = ch;
			break;
		} else if (ch == '@') {
			at_sign = true;
		}
		i++;
	}
	c->end = i;
	if (in_angle)
		return fault(c, SQ_EINVAL, open, "a '<' that never closes", err);
	*angle = open;
	return SQ_OK;
}

static enum sq_err
no_controls(struct cursor *c, struct sq_error *err)
{
	for (size_t i = 0; i < c->n; i++) {
		if (((unsigned char)c->p[i] >= ' ' && c->p[i] != 0x7f) || c->p[i] == '\t')
			continue;
		c->begin = 0;
		c->end = i;
		return fault(c, SQ_EINVAL, i, "a control character", err);
	}
	return SQ_OK;
}

/* The address of the extent found; *have false where there is none (blanks and comments only). */
static enum sq_err
read_mailbox(struct cursor *c, size_t angle, struct sq_address *out, bool *have, struct sq_error *err)
{
	struct sq_address a = { 0 };
	enum sq_err e;

	*have = false;
	c->i = angle < c->end ? angle + 1 : c->begin;
	if ((e = skip_blanks(c, err)) != SQ_OK)
		return e;
	if (angle >= c->end && c->i == c->end)
		return SQ_OK;
	if (angle < c->end && (e = skip_route(c, err)) != SQ_OK)
		return e;
	if ((e = read_addr_spec(c, &a, err)) != SQ_OK)
		return e;
	if ((e = skip_blanks(c, err)) != SQ_OK)
		goto out;
	if (angle < c->end) {
		if (c->i == c->end || c->p[c->i] != '>') {
			e = fault(c, SQ_EINVAL, c->i, "something that is no address before '>'", err);
			goto out;
		}
		c->i++;
		if ((e = skip_blanks(c, err)) != SQ_OK)
			goto out;
	}
	if (c->i < c->end) {
		e = fault(c, SQ_EINVAL, c->i, angle < c->end ? "something behind '>'" : "a blank or character that no address has", err);
		goto out;
	}
	*out = a;
	*have = true;
	return SQ_OK;
out:
	sq_address_fini(&a);
	return e;
}

static enum sq_err
list_add(struct sq_address_list *l, struct sq_address a, struct sq_error *err)
{
	if (l->n == SQ_ADDRESSES_MAX)
		return sq_error_set(err, SQ_ELIMIT, "more than %d addresses", SQ_ADDRESSES_MAX);
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 8;
		struct sq_address *v = realloc(l->v, cap * sizeof(*v));

		if (!v)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n++] = a;
	return SQ_OK;
}

enum sq_err
sq_address_parse_list(struct sq_str in, struct sq_address_list *out, struct sq_error *err)
{
	struct cursor c = { .p = in.p, .n = in.n, .number = 1 };
	bool group = false;
	enum sq_err e;

	if ((e = no_controls(&c, err)) != SQ_OK)
		return e;
	while (c.i < c.n) {
		struct sq_address a;
		size_t angle;
		char stop;
		bool have;

		if ((e = find_extent(&c, &angle, &stop, err)) != SQ_OK)
			return e;
		if (stop == ':') {
			if (group)
				return fault(&c, SQ_EINVAL, c.end, "a group inside a group", err);
			group = true;
			c.i = c.end + 1;
			continue;
		}
		if ((e = read_mailbox(&c, angle, &a, &have, err)) != SQ_OK)
			return e;
		if (have && (e = list_add(out, a, err)) != SQ_OK) {
			sq_address_fini(&a);
			return e;
		}
		c.number += have;
		if (stop == ';')
			group = false;
		c.i = c.end + 1;
	}
	return SQ_OK;
}

enum sq_err
sq_address_parse(struct sq_str in, struct sq_address *out, struct sq_error *err)
{
	struct cursor c = { .p = in.p, .n = in.n, .number = 1, .single = true };
	struct sq_address a;
	size_t angle;
	char stop;
	bool have;
	enum sq_err e;

	if ((e = no_controls(&c, err)) != SQ_OK || (e = find_extent(&c, &angle, &stop, err)) != SQ_OK)
		return e;
	if (stop != '\0') {
		size_t at = c.end;

		c.end = c.n;
		return fault(&c, SQ_EINVAL, at, stop == ':' ? "a group where one address is wanted" : "a second address where one is wanted", err);
	}
	if ((e = read_mailbox(&c, angle, &a, &have, err)) != SQ_OK)
		return e;
	if (!have)
		return sq_error_set(err, SQ_EINVAL, "the address is empty");
	*out = a;
	return SQ_OK;
}

enum sq_err
sq_address_qualify(struct sq_address *a, const char *domain, struct sq_error *err)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(TEXT_MAX);
	char *text;
	enum sq_err e;

	if (sq_address_is_qualified(a))
		return SQ_OK;
	sq_buf_addf(&b, "%s@%s", a->text, domain);
	if ((e = sq_buf_take(&b, &text, err)) != SQ_OK)
		return e;
	free(a->text);
	a->text = text;
	return SQ_OK;
}

bool
sq_address_same(const struct sq_address *a, const struct sq_address *b)
{
	return a->at == b->at && memcmp(a->text, b->text, a->at) == 0 &&
		sq_str_caseeq(sq_str(a->text + a->at), sq_str(b->text + b->at));
}

static uint64_t
hash_address(const struct sq_address *a)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; a->text[i]; i++) {
		unsigned char ch = (unsigned char)a->text[i];

		if (i > a->at && ch >= 'A' && ch <= 'Z')
			ch = (unsigned char)(ch | 0x20);
		h = (h ^ ch) * 0x100000001b3u;
	}
	return h;
}

enum sq_err
sq_address_list_unique(struct sq_address_list *l, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) size_t *slots = NULL; /* 1 + index, 0: free */
	size_t size = 16, kept = 0;

	if (l->n < 2)
		return SQ_OK;
	while (size < 2 * l->n)
		size *= 2;
	if (!(slots = calloc(size, sizeof(*slots))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	for (size_t i = 0; i < l->n; i++) {
		size_t s = (size_t)hash_address(&l->v[i]) & (size - 1);

		while (slots[s] && !sq_address_same(&l->v[slots[s] - 1], &l->v[i]))
			s = (s + 1) & (size - 1);
		if (slots[s]) {
			sq_address_fini(&l->v[i]);
			continue;
		}
		if (kept != i)
			l->v[kept] = l->v[i];
		slots[s] = ++kept;
	}
	l->n = kept;
	return SQ_OK;
}
