/* Paths and parameters of MAIL, RCPT and BDAT (RFC 5321 §4.1.2, 1870, 3030, 3461, 6152, 6531). No state. */
#include "session_args.h"

enum { ENVID_MAX = 100, ORCPT_MAX = 500, NAME_MAX_ = 200, DUPLICATES_MAX = 3 };

struct sq_str
smtp_trim(struct sq_str s)
{
	while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
		s.p++, s.n--;
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

/* "<path>", or, as many write it, a bare address up to the blank. False: neither. */
static bool
take_path(struct sq_str *rest, struct sq_str *path)
{
	bool quoted = false;
	size_t i;

	*rest = smtp_trim(*rest);
	if (rest->n == 0)
		return false;
	if (rest->p[0] != '<') {
		for (i = 0; i < rest->n && rest->p[i] != ' '; i++)
			if (rest->p[i] == '>' || rest->p[i] == '<')
				return false;
		*path = (struct sq_str){ rest->p, i };
	} else {
		for (i = 1; i < rest->n && (quoted || rest->p[i] != '>'); i++) {
			if (rest->p[i] == '\\')
				i++;
			else if (rest->p[i] == '"')
				quoted = !quoted;
		}
		if (i >= rest->n)
			return false;
		*path = (struct sq_str){ rest->p + 1, i - 1 };
		i++;
		if (i < rest->n && rest->p[i] != ' ' && rest->p[i] != '\t')
			return false;
	}
	*rest = (struct sq_str){ rest->p + i, rest->n - i };
	return true;
}

static bool
take_parameter(struct sq_str *rest, struct sq_str *key, struct sq_str *value)
{
	size_t n = 0, k = 0;

	*rest = smtp_trim(*rest);
	if (rest->n == 0)
		return false;
	while (n < rest->n && rest->p[n] != ' ' && rest->p[n] != '\t')
		n++;
	while (k < n && rest->p[k] != '=')
		k++;
	*key = (struct sq_str){ rest->p, k };
	*value = k < n ? (struct sq_str){ rest->p + k + 1, n - k - 1 } : (struct sq_str){ 0 };
	*rest = (struct sq_str){ rest->p + n, rest->n - n };
	return true;
}

static bool
number(struct sq_str s, uint64_t *out)
{
	uint64_t v = 0;

	if (s.n == 0 || s.n > 18)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	*out = v;
	return true;
}

static int
hex(char ch)
{
	return ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10 : -1;
}

/* RFC 3461 §4: printable ASCII, '+' begins two hexadecimal digits. */
static bool
is_xtext(struct sq_str s)
{
	for (size_t i = 0; i < s.n; i++) {
		if ((unsigned char)s.p[i] < '!' || (unsigned char)s.p[i] > '~' || s.p[i] == '=')
			return false;
		if (s.p[i] == '+' && (i + 2 >= s.n || hex(s.p[i + 1]) < 0 || hex(s.p[i + 2]) < 0))
			return false;
	}
	return s.n > 0;
}

/* Decoded into room; no control characters come out. */
static bool
decode_xtext(struct sq_str s, bool ascii, char *room, size_t size, struct sq_str *out)
{
	size_t n = 0;

	if (!is_xtext(s) || s.n > size)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned char ch = (unsigned char)s.p[i];

		if (ch == '+') {
			ch = (unsigned char)(hex(s.p[i + 1]) << 4 | hex(s.p[i + 2]));
			i += 2;
		}
		if (ch < ' ' || ch == 0x7f || (ascii && (ch > '~' || ch == ' ')))
			return false;
		room[n++] = (char)ch;
	}
	*out = (struct sq_str){ room, n };
	return true;
}

static const char *
private_parameter(struct sq_str key, struct sq_str value, char *room, size_t size, struct smtp_mail *out)
{
	uint64_t v = 0;

	if (sq_str_caseeq(key, SQ_STR("XNONE"))) {
		out->none = true;
		return NULL;
	}
	if (sq_str_caseeq(key, SQ_STR("XNAME")))
		return decode_xtext(value, false, room + size / 2, size / 2, &out->full_name) && out->full_name.n <= NAME_MAX_ ? NULL : "501 5.5.4 XNAME takes a name in xtext";
	if (!number(value, &v) || v > INT64_MAX)
		return "501 5.5.4 a time in milliseconds is wanted";
	if (sq_str_caseeq(key, SQ_STR("XDUPLICATES"))) {
		if (v > DUPLICATES_MAX)
			return "501 5.5.4 XDUPLICATES takes a small number";
		out->duplicates = (int)v;
	} else if (sq_str_caseeq(key, SQ_STR("XNOTBEFORE")))
		out->not_before_ms = (int64_t)v;
	else
		out->deadline_ms = (int64_t)v;
	return NULL;
}

static bool
is_private(struct sq_str key)
{
	return sq_str_caseeq(key, SQ_STR("XNONE")) || sq_str_caseeq(key, SQ_STR("XNAME")) || sq_str_caseeq(key, SQ_STR("XNOTBEFORE")) ||
		sq_str_caseeq(key, SQ_STR("XDEADLINE")) || sq_str_caseeq(key, SQ_STR("XDUPLICATES"));
}

const char *
smtp_parse_mail(struct sq_str args, bool private, char *room, size_t size, struct smtp_mail *out)
{
	struct sq_str key, value;
	const char *bad;

	if (!sq_str_casestarts(args, SQ_STR("FROM:")))
		return "501 5.5.4 the syntax is MAIL FROM:<address>";
	args = (struct sq_str){ args.p + 5, args.n - 5 };
	if (!take_path(&args, &out->sender))
		return "501 5.1.7 the syntax is MAIL FROM:<address>";
	while (take_parameter(&args, &key, &value)) {
		if (sq_str_caseeq(key, SQ_STR("SIZE"))) {
			if (!number(value, &out->size))
				return "501 5.5.4 SIZE takes a number";
		} else if (sq_str_caseeq(key, SQ_STR("BODY"))) {
			if (!sq_str_caseeq(value, SQ_STR("7BIT")) && !sq_str_caseeq(value, SQ_STR("8BITMIME")))
				return "501 5.5.4 BODY is 7BIT or 8BITMIME";
		} else if (sq_str_caseeq(key, SQ_STR("SMTPUTF8"))) {
			if (value.p)
				return "501 5.5.4 SMTPUTF8 takes no value";
			out->utf8 = true;
		} else if (sq_str_caseeq(key, SQ_STR("RET"))) {
			if (!sq_str_caseeq(value, SQ_STR("FULL")) && !sq_str_caseeq(value, SQ_STR("HDRS")))
				return "501 5.5.4 RET is FULL or HDRS";
			out->ret = sq_str_caseeq(value, SQ_STR("FULL")) ? SQ_RET_FULL : SQ_RET_HDRS;
		} else if (sq_str_caseeq(key, SQ_STR("ENVID"))) {
			if (value.n > 3 * ENVID_MAX || !decode_xtext(value, true, room, size / 2, &out->envid) || out->envid.n > ENVID_MAX)
				return "501 5.5.4 ENVID takes up to 100 characters of xtext";
		} else if (private && is_private(key)) {
			if ((bad = private_parameter(key, value, room, size, out)) != NULL)
				return bad;
		} else {
			return "555 5.5.4 a parameter of MAIL that is not offered";
		}
	}
	return NULL;
}

static const char *
parse_notify(struct sq_str list, uint8_t *out)
{
	static const struct { struct sq_str word; uint8_t bit; } words[] = {
		{ { "NEVER", 5 }, SQ_NOTIFY_NEVER }, { { "SUCCESS", 7 }, SQ_NOTIFY_SUCCESS }, { { "FAILURE", 7 }, SQ_NOTIFY_FAILURE }, { { "DELAY", 5 }, SQ_NOTIFY_DELAY },
	};
	uint8_t all = 0;

	for (size_t at = 0; at <= list.n; ) {
		size_t end = at, i = 0;

		while (end < list.n && list.p[end] != ',')
			end++;
		while (i < SQ_LEN(words) && !sq_str_caseeq(words[i].word, (struct sq_str){ list.p + at, end - at }))
			i++;
		if (i == SQ_LEN(words))
			return "501 5.5.4 NOTIFY is NEVER, or a list of SUCCESS, FAILURE, DELAY";
		all |= words[i].bit;
		at = end + 1;
	}
	if ((all & SQ_NOTIFY_NEVER) && all != SQ_NOTIFY_NEVER)
		return "501 5.5.4 NOTIFY=NEVER stands alone";
	*out = all;
	return NULL;
}

/* "rfc822;ann+40example.org": a type, then xtext. */
static bool
orcpt_ok(struct sq_str s)
{
	size_t n = 0;

	while (n < s.n && s.p[n] != ';')
		n++;
	for (size_t i = 0; i < n; i++)
		if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= 'A' && s.p[i] <= 'Z') || (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '-'))
			return false;
	return n > 0 && n < s.n && s.n <= ORCPT_MAX && is_xtext((struct sq_str){ s.p + n + 1, s.n - n - 1 });
}

const char *
smtp_parse_rcpt(struct sq_str args, char *room, size_t size, struct smtp_rcpt *out)
{
	struct sq_str key, value;
	const char *bad;

	(void)room, (void)size;
	if (!sq_str_casestarts(args, SQ_STR("TO:")))
		return "501 5.5.4 the syntax is RCPT TO:<address>";
	args = (struct sq_str){ args.p + 3, args.n - 3 };
	if (!take_path(&args, &out->address) || out->address.n == 0)
		return "501 5.1.3 the syntax is RCPT TO:<address>";
	while (take_parameter(&args, &key, &value)) {
		if (sq_str_caseeq(key, SQ_STR("NOTIFY"))) {
			if ((bad = parse_notify(value, &out->notify)) != NULL)
				return bad;
		} else if (sq_str_caseeq(key, SQ_STR("ORCPT"))) {
			if (!orcpt_ok(value))
				return "501 5.5.4 ORCPT takes type;address in xtext";
			out->orcpt = value;
		} else {
			return "555 5.5.4 a parameter of RCPT that is not offered";
		}
	}
	return NULL;
}

bool
smtp_parse_bdat(struct sq_str args, uint64_t *size, bool *last)
{
	size_t n = 0;
	struct sq_str word;

	while (n < args.n && args.p[n] != ' ')
		n++;
	if (!number((struct sq_str){ args.p, n }, size))
		return false;
	word = smtp_trim((struct sq_str){ args.p + n, args.n - n });
	*last = sq_str_caseeq(word, SQ_STR("LAST"));
	return word.n == 0 || *last;
}
