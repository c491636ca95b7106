/*
 * Header fields of a block with CRLF line ends: taking them off one by one,
 * their values for people, names for the From that is added. Changes nothing
 * in the block.
 */
#include <sendq/message.h>

#include <sendq/io.h>

static bool
is_blank(char ch)
{
	return ch == ' ' || ch == '\t';
}

bool
sq_line_begins_field(struct sq_str line)
{
	size_t i = 0;

	while (i < line.n && line.p[i] > ' ' && line.p[i] < 0x7f && line.p[i] != ':')
		i++;
	if (i == 0)
		return false;
	while (i < line.n && is_blank(line.p[i]))
		i++;
	return i < line.n && line.p[i] == ':';
}

bool
sq_field_next(struct sq_str *rest, struct sq_field *out)
{
	struct sq_str r = *rest;
	size_t end = 0, colon = 0, name;
	const char *lf;

	if (r.n == 0)
		return false;
	/* To the LF that no blank follows. */
	do {
		lf = memchr(r.p + end, '\n', r.n - end);
		end = lf ? (size_t)(lf - r.p) + 1 : r.n;
	} while (end < r.n && is_blank(r.p[end]));
	if (!sq_line_begins_field((struct sq_str){ r.p, end }))
		return false;
	while (r.p[colon] != ':')
		colon++;
	for (name = colon; is_blank(r.p[name - 1]);)
		name--;
	out->name = (struct sq_str){ r.p, name };
	out->whole = (struct sq_str){ r.p, end };
	out->body = (struct sq_str){ r.p + colon + 1, end - colon - 1 };
	if (out->body.n >= 2 && memcmp(out->body.p + out->body.n - 2, "\r\n", 2) == 0)
		out->body.n -= 2;
	*rest = (struct sq_str){ r.p + end, r.n - end };
	return true;
}

void
sq_field_unfold(struct sq_str body, struct sq_buf *out)
{
	size_t i = 0, begin = out->n;

	while (i < body.n && (is_blank(body.p[i]) || body.p[i] == '\r' || body.p[i] == '\n'))
		i++;
	for (; i < body.n; i++)
		if (body.p[i] != '\r' && body.p[i] != '\n')
			sq_buf_addc(out, body.p[i]);
	while (out->n > begin && is_blank(out->p[out->n - 1]))
		out->p[--out->n] = '\0';
}

static int
hex_digit(char ch)
{
	return ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10 : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

static void
decode_q(struct sq_str s, struct sq_buf *out)
{
	for (size_t i = 0; i < s.n; i++) {
		int hi, lo;

		if (s.p[i] == '=' && i + 2 < s.n && (hi = hex_digit(s.p[i + 1])) >= 0 && (lo = hex_digit(s.p[i + 2])) >= 0) {
			sq_buf_addc(out, (char)(hi << 4 | lo));
			i += 2;
		} else {
			sq_buf_addc(out, s.p[i] == '_' ? ' ' : s.p[i]);
		}
	}
}

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void
decode_b(struct sq_str s, struct sq_buf *out)
{
	unsigned bits = 0, have = 0;

	for (size_t i = 0; i < s.n; i++) {
		const char *at = s.p[i] ? strchr(base64, s.p[i]) : NULL;

		if (!at)
			continue;
		bits = bits << 6 | (unsigned)(at - base64);
		have += 6;
		if (have >= 8) {
			have -= 8;
			sq_buf_addc(out, (char)(bits >> have & 0xff));
		}
	}
}

static void
add_latin1(struct sq_str s, struct sq_buf *out)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char ch = (unsigned char)s.p[i];

		if (ch < 0x80) {
			sq_buf_addc(out, (char)ch);
		} else {
			sq_buf_addc(out, (char)(0xc0 | ch >> 6));
			sq_buf_addc(out, (char)(0x80 | (ch & 0x3f)));
		}
	}
}

/* "=?charset?X?text?=" at s: its length, decoded to out; 0 where it is none or in another character set. */
static size_t
decode_word(struct sq_str s, struct sq_buf *out)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf raw = SQ_BUF_INIT(s.n);
	struct sq_str charset, text;
	size_t i = 2, end;
	char encoding;

	if (s.n < 8 || s.p[0] != '=' || s.p[1] != '?')
		return 0;
	while (i < s.n && s.p[i] != '?')
		i++;
	charset = (struct sq_str){ s.p + 2, i - 2 };
	if (i + 3 >= s.n || s.p[i + 2] != '?')
		return 0;
	encoding = s.p[i + 1];
	text.p = s.p + i + 3;
	for (end = i + 3; end + 1 < s.n && !(s.p[end] == '?' && s.p[end + 1] == '='); end++)
		if (s.p[end] == ' ')
			return 0;
	if (end + 1 >= s.n)
		return 0;
	text.n = end - i - 3;
	for (size_t k = 0; k < charset.n; k++)
		if (charset.p[k] == '*') /* RFC 2231 language */
			charset.n = k;
	if (encoding == 'q' || encoding == 'Q')
		decode_q(text, &raw);
	else if (encoding == 'b' || encoding == 'B')
		decode_b(text, &raw);
	else
		return 0;
	if (sq_str_caseeq(charset, SQ_STR("utf-8")) || sq_str_caseeq(charset, SQ_STR("us-ascii")))
		sq_buf_add(out, raw.p, raw.n);
	else if (sq_str_caseeq(charset, SQ_STR("iso-8859-1")))
		add_latin1((struct sq_str){ raw.p, raw.n }, out);
	else
		return 0;
	return end + 2;
}

static void
decode_words(struct sq_str s, struct sq_buf *out)
{
	bool after_word = false;

	for (size_t i = 0; i < s.n;) {
		size_t blank = i, used;

		while (blank < s.n && is_blank(s.p[blank]))
			blank++;
		/* Blanks between two encoded words do not count (RFC 2047 §6.2). */
		if (after_word && blank > i && (used = decode_word((struct sq_str){ s.p + blank, s.n - blank }, out)) > 0) {
			i = blank + used;
			continue;
		}
		used = decode_word((struct sq_str){ s.p + i, s.n - i }, out);
		after_word = used > 0;
		if (used == 0)
			sq_buf_addc(out, s.p[i]);
		i += used ? used : 1;
	}
}

static size_t
sequence_length(const unsigned char *p, size_t n)
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

void
sq_header_text(struct sq_str value, size_t max, struct sq_buf *out)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf text = SQ_BUF_INIT(2 * value.n + 16);
	size_t begin = out->n;

	decode_words(value, &text);
	for (size_t i = 0; i < text.n;) {
		const unsigned char *p = (const unsigned char *)text.p + i;
		size_t len = sequence_length(p, text.n - i);
		/* C1 controls move terminals too. */
		bool control = (len == 1 && (*p < ' ' || *p == 0x7f)) || (len == 2 && p[0] == 0xc2 && p[1] < 0xa0);

		if (out->n - begin + (len ? len : 1) > max)
			return;
		if (control)
			sq_buf_addc(out, ' ');
		else if (len == 0)
			sq_buf_addc(out, '?');
		else
			sq_buf_add(out, p, len);
		i += len ? len : 1;
	}
}

/* RFC 2047 words of at most 75 octets, parted between characters. */
static void
encode_phrase(struct sq_str name, struct sq_buf *out)
{
	size_t i = 0;

	while (i < name.n) {
		unsigned char piece[45];
		size_t n = 0;

		while (i < name.n) {
			size_t len = sequence_length((const unsigned char *)name.p + i, name.n - i);

			/* Where it can be without padding: some readers join words and stop at the first '='. */
			if (n + (len ? len : 1) > sizeof(piece) || (n >= 36 && n % 3 == 0))
				break;
			memcpy(piece + n, len ? name.p + i : "?", len ? len : 1);
			n += len ? len : 1;
			i += len ? len : 1;
		}
		sq_buf_adds(out, "=?utf-8?B?");
		for (size_t k = 0; k < n; k += 3) {
			unsigned v = (unsigned)piece[k] << 16 | (k + 1 < n ? (unsigned)piece[k + 1] << 8 : 0) | (k + 2 < n ? piece[k + 2] : 0);

			sq_buf_addc(out, base64[v >> 18]);
			sq_buf_addc(out, base64[v >> 12 & 63]);
			sq_buf_addc(out, k + 1 < n ? base64[v >> 6 & 63] : '=');
			sq_buf_addc(out, k + 2 < n ? base64[v & 63] : '=');
		}
		sq_buf_adds(out, i < name.n ? "?=\r\n " : "?=");
	}
}

void
sq_header_phrase(struct sq_str name, struct sq_buf *out)
{
	bool quote = false;

	for (size_t i = 0; i < name.n; i++) {
		unsigned char ch = (unsigned char)name.p[i];

		if (ch > 126 || ch < ' ') {
			encode_phrase(name, out);
			return;
		}
		quote |= ch != ' ' && strchr("()<>[]:;@\\,.\"", ch) != NULL;
	}
	if (quote)
		sq_buf_addc(out, '"');
	for (size_t i = 0; i < name.n; i++) {
		if (name.p[i] == '"' || name.p[i] == '\\')
			sq_buf_addc(out, '\\');
		sq_buf_addc(out, name.p[i]);
	}
	if (quote)
		sq_buf_addc(out, '"');
}

static struct sq_str
trimmed(const char *p, size_t n)
{
	while (n > 0 && is_blank(*p))
		p++, n--;
	while (n > 0 && is_blank(p[n - 1]))
		n--;
	return (struct sq_str){ p, n };
}

void
sq_header_name(struct sq_str value, struct sq_buf *out)
{
	struct sq_str comment = { 0 };
	size_t depth = 0, open = 0;
	bool quoted = false;

	for (size_t i = 0; i < value.n; i++) {
		char ch = value.p[i];

		if (ch == '\\') {
			i++;
		} else if (quoted || (ch == '"' && depth == 0)) {
			quoted = ch == '"' ? !quoted : quoted;
		} else if (ch == '(') {
			if (depth++ == 0)
				open = i + 1;
		} else if (ch == ')' && depth > 0) {
			if (--depth == 0)
				comment = trimmed(value.p + open, i - open);
		} else if (ch == '<' && depth == 0) {
			struct sq_str name = trimmed(value.p, i);

			if (name.n > 0 && !comment.n)
				sq_buf_add_str(out, name);
			return;
		} else if (ch == ',' && depth == 0) {
			break;
		}
	}
	if (comment.n > 0 && !memchr(comment.p, '\\', comment.n) && !memchr(comment.p, '(', comment.n))
		sq_header_phrase(comment, out);
}

void
sq_message_id_make(int64_t now_ms, const char *domain, struct sq_buf *out)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	unsigned char r[16];
	char time_text[16], *t = time_text + sizeof(time_text);
	unsigned bits = 0, have = 0;

	*--t = '\0';
	for (int64_t s = now_ms / 1000; s > 0; s /= 36)
		*--t = digits[s % 36];
	sq_buf_addf(out, "<%s.", *t ? t : "0");
	sq_random(r, sizeof(r));
	for (size_t i = 0; i < sizeof(r); i++) {
		bits = bits << 8 | r[i];
		for (have += 8; have >= 5; have -= 5)
			sq_buf_addc(out, digits[bits >> (have - 5) & 31]);
	}
	sq_buf_addc(out, digits[bits << (5 - have) & 31]);
	sq_buf_addf(out, "@%s>", domain);
}
