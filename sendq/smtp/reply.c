/*
 * The reply parser: octets in, one reply at a time out, whatever the split.
 * Bounded in memory (2 KiB of text are kept) and in patience (64 KiB a reply).
 * It judges form only; what a reply means stands in policy.c.
 */
#include <sendq/smtp.h>

#define ELLIPSIS "\xe2\x80\xa6"

bool
sq_reply_partial(const struct sq_reply_parser *p)
{
	return !p->done && p->octets > 0;
}

static void
keep(struct sq_reply_parser *p, char c)
{
	if (p->n < sizeof(p->text) && !p->cut)
		p->text[p->n++] = c;
	else
		p->cut = true;
}

/* Length of "d.ddd.ddd" at the start of a line whose class is the code's, or 0. */
static size_t
enhanced_length(const char *s, size_t n, int code)
{
	size_t i = 1;

	if (n < 5 || s[0] != '0' + code / 100)
		return 0;
	for (int part = 0; part < 2; part++) {
		size_t digits = 0;

		if (i >= n || s[i++] != '.')
			return 0;
		while (i < n && s[i] >= '0' && s[i] <= '9' && digits < 3)
			i++, digits++;
		if (digits == 0)
			return 0;
	}
	return i == n || s[i] == ' ' ? i : 0;
}

/* The enhanced code is stored by itself: take it off every line that repeats it. */
static void
line_over(struct sq_reply_parser *p)
{
	char *line = p->text + p->line_start;
	size_t n = p->n - p->line_start, len, drop;

	if (n > 0 && line[n - 1] == '\r') {
		p->n--;
		n--;
	}
	len = enhanced_length(line, n, p->code);
	if (len > 0 && !p->first) {
		memcpy(p->reply.enhanced, line, len);
		p->reply.enhanced[len] = '\0';
	}
	if (len > 0 && strlen(p->reply.enhanced) == len && memcmp(p->reply.enhanced, line, len) == 0) {
		drop = len < n ? len + 1 : len;
		memmove(line, line + drop, n - drop);
		p->n -= drop;
	}
	p->first = true;
}

/* Octets of the UTF-8 character at s, or 0 where there is none. */
static size_t
utf8_length(const unsigned char *s, size_t n)
{
	size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
		   : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;

	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f) ||
	    (s[0] == 0xc2 && s[1] < 0xa0)) /* C1 controls */
		return 0;
	return len;
}

static void
make_printable(char *text, size_t n)
{
	for (size_t i = 0; i < n;) {
		unsigned char c = (unsigned char)text[i];
		size_t len = utf8_length((unsigned char *)text + i, n - i);

		if (c == '\t')
			text[i] = ' ';
		else if (len == 0 || (c < 32 && c != '\n') || c == 127)
			text[i] = '?';
		i += len ? len : 1;
	}
}

static void
reply_over(struct sq_reply_parser *p)
{
	const size_t mark = sizeof(ELLIPSIS) - 1;

	if (p->cut) {
		size_t n = p->n > sizeof(p->text) - mark ? sizeof(p->text) - mark : p->n;

		while (n > 0 && n < p->n && ((unsigned char)p->text[n] & 0xc0) == 0x80)
			n--; /* not through a character */
		make_printable(p->text, n);
		memcpy(p->text + n, ELLIPSIS, mark);
		p->n = n + mark;
	} else {
		make_printable(p->text, p->n);
	}
	p->reply.code = p->code;
	p->reply.text = (struct sq_str){ p->text, p->n };
	p->done = true;
}

/* One octet of a line's first four. False: this is no reply. */
static bool
take_prefix(struct sq_reply_parser *p, char c)
{
	if (p->column < 3) {
		if (c < '0' || c > '9')
			return false;
		p->line_code = p->line_code * 10 + (c - '0');
		if (p->column == 2) {
			if (p->line_code < 200 || p->line_code > 599 || (p->code && p->line_code != p->code))
				return false;
			p->code = p->line_code;
		}
		return true;
	}
	if (c != ' ' && c != '-' && c != '\r' && c != '\n')
		return false;
	p->last = c != '-';
	return true;
}

enum sq_reply_step
sq_reply_feed(struct sq_reply_parser *p, const char *octets, size_t n, size_t *used)
{
	if (p->done)
		memset(p, 0, offsetof(struct sq_reply_parser, text));
	for (size_t i = 0; i < n; i++) {
		char c = octets[i];

		if (++p->octets > SQ_REPLY_OCTETS_MAX || (p->column < 4 && !take_prefix(p, c))) {
			*used = i;
			return SQ_REPLY_BAD;
		}
		if (c != '\n') {
			if (p->column >= 4)
				keep(p, c);
			p->column++;
			continue;
		}
		line_over(p);
		if (p->last) {
			reply_over(p);
			*used = i + 1;
			return SQ_REPLY_DONE;
		}
		keep(p, '\n');
		p->line_start = p->n;
		p->column = 0;
		p->line_code = 0;
	}
	*used = n;
	return SQ_REPLY_MORE;
}
