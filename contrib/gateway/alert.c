/*
 * Writes the early alert. Takes from the content the header block, if it is
 * whole, and the beginning of the first text part; never an attachment, never a
 * line that was cut, never the original Message-ID as its own.
 */
#include "alert.h"

#include <ctype.h>
#include <inttypes.h>
#include <openssl/evp.h>

#include <sendq/io.h>
#include <sendq/message.h>

enum { TEXT_MAX = 2000, SUBJECT_MAX = 150, DEPTH_MAX = 4 };

/* ---- the first text part */

/* Cut a block at its first empty line: the header goes to *head, *rest keeps what stands behind. False: not whole. */
static bool
split_header(struct sq_str *rest, struct sq_str *head)
{
	const char *end = rest->n ? memmem(rest->p, rest->n, "\r\n\r\n", 4) : NULL;

	if (rest->n >= 2 && rest->p[0] == '\r') {
		*head = (struct sq_str){ rest->p, 0 };
		*rest = (struct sq_str){ rest->p + 2, rest->n - 2 };
		return true;
	}
	if (!end)
		return false;
	*head = (struct sq_str){ rest->p, (size_t)(end - rest->p) + 2 };
	*rest = (struct sq_str){ end + 4, rest->n - head->n - 2 };
	return true;
}

/* A field's value on one line, "" when it is not there. */
static void
field(struct sq_str head, const char *name, struct sq_buf *out)
{
	struct sq_field f;

	sq_buf_clear(out);
	while (sq_field_next(&head, &f)) {
		if (sq_str_caseeq(f.name, sq_str(name))) {
			sq_field_unfold(f.body, out);
			return;
		}
	}
}

/* The boundary of a multipart Content-Type, behind "--". */
static bool
boundary(const char *type, char out[80])
{
	const char *p = strcasestr(type, "boundary=");
	size_t n;

	if (!p)
		return false;
	p += 9;
	n = *p == '"' ? strcspn(++p, "\"") : strcspn(p, "; \t");
	if (n == 0 || n > 70)
		return false;
	snprintf(out, 80, "--%.*s", (int)n, p);
	return true;
}

/* The next part of a multipart, between two lines with its boundary (the second may not have come). */
static bool
next_part(struct sq_str *rest, const char *mark, struct sq_str *part)
{
	size_t n = strlen(mark);
	const char *p = rest->p, *end = rest->p + rest->n, *start = NULL;

	for (const char *line = p; line < end;) {
		const char *lf = memchr(line, '\n', (size_t)(end - line));

		if ((size_t)(end - line) >= n && memcmp(line, mark, n) == 0) {
			if (start) {
				*part = (struct sq_str){ start, (size_t)(line - start) };
				*rest = (struct sq_str){ line, (size_t)(end - line) };
				return true;
			}
			if ((size_t)(end - line) >= n + 2 && memcmp(line + n, "--", 2) == 0)
				return false;
			start = lf ? lf + 1 : end;
		}
		if (!lf)
			break;
		line = lf + 1;
	}
	if (!start)
		return false;
	*part = (struct sq_str){ start, (size_t)(end - start) };
	*rest = (struct sq_str){ end, 0 };
	return true;
}

static int
hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void
decode_quoted(struct sq_str in, struct sq_buf *out)
{
	for (size_t i = 0; i < in.n && out->n < TEXT_MAX; i++) {
		if (in.p[i] != '=') {
			sq_buf_addc(out, in.p[i]);
		} else if (i + 2 < in.n && hex_digit(in.p[i + 1]) >= 0 && hex_digit(in.p[i + 2]) >= 0) {
			sq_buf_addc(out, (char)(hex_digit(in.p[i + 1]) * 16 + hex_digit(in.p[i + 2])));
			i += 2;
		} else if (i + 2 < in.n && in.p[i + 1] == '\r') {
			i += 2;
		}
	}
}

static void
decode_base64(struct sq_str in, struct sq_buf *out)
{
	char group[5] = "", octets[4];
	size_t n = 0;

	for (size_t i = 0; i < in.n && out->n < TEXT_MAX; i++) {
		if (isspace((unsigned char)in.p[i]))
			continue;
		group[n++] = in.p[i];
		if (n == 4) {
			int got = gw_base64(group, octets, sizeof(octets));

			if (got <= 0)
				return;
			sq_buf_add(out, octets, (size_t)got);
			n = 0;
		}
	}
}

/* Whole lines only: what was cut is not shown. */
static struct sq_str
whole_lines(struct sq_str s)
{
	while (s.n > 0 && s.p[s.n - 1] != '\n')
		s.n--;
	return s;
}

/* The beginning of the first text/plain part, decoded. False: there is none (yet). */
static bool
first_text(struct sq_str entity, int depth, struct sq_buf *out)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf type = SQ_BUF_INIT(SQ_HEADER_MAX), coding = SQ_BUF_INIT(SQ_HEADER_MAX);
	struct sq_str head, part;
	char mark[80];
	const char *t, *c;

	if (depth > DEPTH_MAX || !split_header(&entity, &head))
		return false;
	field(head, "Content-Type", &type);
	field(head, "Content-Transfer-Encoding", &coding);
	t = type.p ? type.p : "";
	c = coding.p ? coding.p : "";
	if (strncasecmp(t, "multipart/", 10) == 0) {
		if (!boundary(t, mark))
			return false;
		while (next_part(&entity, mark, &part))
			if (first_text(part, depth + 1, out))
				return true;
		return false;
	}
	if (*t && strncasecmp(t, "text/plain", 10) != 0)
		return false;
	entity = whole_lines(entity);
	if (strncasecmp(c, "base64", 6) == 0)
		decode_base64(entity, out);
	else if (strncasecmp(c, "quoted-printable", 16) == 0)
		decode_quoted(entity, out);
	else
		sq_buf_add(out, entity.p, entity.n < TEXT_MAX ? entity.n : TEXT_MAX);
	return out->n > 0;
}

/* ---- writing */

/* Octets as UTF-8 without control characters, every line behind `indent`. Ends with a line end. */
static void
quote(struct sq_buf *out, struct sq_str text, const char *indent)
{
	bool bol = true;

	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];
		size_t tail = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 9;

		if (c == '\r')
			continue;
		if (bol)
			sq_buf_adds(out, indent);
		bol = c == '\n';
		if (bol) {
			sq_buf_adds(out, "\n");
		} else if (c < 0x80) {
			sq_buf_addc(out, c >= ' ' || c == '\t' ? (char)c : '?');
		} else {
			size_t k = 1;

			while (k <= tail && tail < 9 && i + k < text.n && ((unsigned char)text.p[i + k] & 0xc0) == 0x80)
				k++;
			if (tail < 9 && k == tail + 1) {
				sq_buf_add(out, text.p + i, k);
				i += tail;
			} else {
				sq_buf_addc(out, '?');
			}
		}
	}
	if (!bol)
		sq_buf_adds(out, "\n");
}

static void
add_base64(struct sq_buf *out, const char *p, size_t n)
{
	while (n > 0) {
		unsigned char line[80];
		size_t take = n < 57 ? n : 57;

		EVP_EncodeBlock(line, (const unsigned char *)p, (int)take);
		sq_buf_addf(out, "%s\r\n", (const char *)line);
		p += take;
		n -= take;
	}
}

static void
add_subject(const struct gw_alert *a, struct sq_str head, const char *part, struct sq_buf *out)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf raw = SQ_BUF_INIT(SQ_HEADER_MAX), text = SQ_BUF_INIT(SQ_HEADER_MAX);
	bool ascii = true;

	sq_buf_addf(&text, "[Incomplete, %s] ", part);
	field(head, "Subject", &raw);
	if (raw.p && !raw.failed)
		sq_header_text((struct sq_str){ raw.p, raw.n }, SUBJECT_MAX, &text);
	else
		sq_buf_addf(&text, "a message from %s", a->sender);
	for (size_t i = 0; i < text.n; i++)
		ascii &= (unsigned char)text.p[i] < 0x80;
	sq_buf_adds(out, "Subject: ");
	if (ascii || text.failed) {
		sq_buf_addf(out, "%s\r\n", text.failed ? "[Incomplete]" : text.p);
		return;
	}
	/* RFC 2047: words of at most 75 characters, cut between characters. */
	for (size_t at = 0; at < text.n;) {
		unsigned char word[80];
		size_t n = text.n - at < 42 ? text.n - at : 42;

		while (at + n < text.n && n > 1 && ((unsigned char)text.p[at + n] & 0xc0) == 0x80)
			n--;
		EVP_EncodeBlock(word, (const unsigned char *)text.p + at, (int)n);
		sq_buf_addf(out, "%s=?utf-8?B?%s?=\r\n", at ? " " : "", (const char *)word);
		at += n;
	}
}

static void
add_body(const struct gw_alert *a, struct sq_str head, bool head_whole, const char *part, struct sq_buf *out)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(TEXT_MAX + 1024);
	int64_t minutes = (a->now_ms - a->begun_ms) / 60000;
	char since[40];

	sq_format_date(a->begun_ms, since);
	sq_buf_addf(out, "A message from %s to you is on its way over a link that breaks.\n\n", a->sender);
	if (a->declared > 0)
		sq_buf_addf(out, "  has come      %" PRId64 " of %" PRId64 " octets (%s)\n  missing       %" PRId64 " octets\n", a->octets,
		    a->declared, part, a->declared > a->octets ? a->declared - a->octets : 0);
	else
		sq_buf_addf(out, "  has come      %" PRId64 " octets, of how many is not known\n", a->octets);
	sq_buf_addf(out, "  since         %s (%" PRId64 " min)\n\nThe sender is still sending. The whole message follows by itself, unaltered;\n"
			 "nothing needs to be done, and there will be no second notice about it.\n", since, minutes);
	if (head_whole) {
		sq_buf_adds(out, "\nIts header:\n\n");
		quote(out, head, "  ");
	}
	if (first_text(a->head, 0, &text)) {
		sq_buf_adds(out, "\nIt begins:\n\n");
		quote(out, (struct sq_str){ text.p, text.n }, "> ");
	} else {
		sq_buf_adds(out, "\nNothing of its text has come yet.\n");
	}
}

void
gw_alert_write(const struct gw_alert *a, struct sq_buf *out)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf body = SQ_BUF_INIT(GW_ALERT_MAX);
	struct sq_str rest = a->head, head = { NULL, 0 };
	bool whole = split_header(&rest, &head);
	char part[32] = "part of it", date[40];

	if (a->declared > 0)
		snprintf(part, sizeof(part), "%d %%", (int)(a->octets >= a->declared ? 100 : a->octets * 100 / a->declared));
	sq_format_date(a->now_ms, date);
	sq_buf_addf(out, "From: \"Incomplete mail\" <postmaster@%s>\r\nTo: undisclosed-recipients:;\r\n", a->hostname);
	add_subject(a, head, part, out);
	sq_buf_addf(out, "Date: %s\r\nMessage-ID: <%s.alert@%s>\r\n", date, a->name, a->hostname);
	if (a->message_id[0] == '<' && strlen(a->message_id) < 900)
		sq_buf_addf(out, "References: %s\r\n", a->message_id);
	sq_buf_adds(out, "Auto-Submitted: auto-generated\r\nPrecedence: bulk\r\nMIME-Version: 1.0\r\n"
			 "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n");
	add_body(a, head, whole, part, &body);
	if (!body.failed)
		add_base64(out, body.p, body.n);
	else
		out->failed = true;
}
