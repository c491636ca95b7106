/* The machine behind session.h: lines, states and replies. Parameters are read by session_args.c. */
#include "session.h"

#include "session_args.h"

enum state { STATE_COMMAND, STATE_DATA, STATE_BDAT, STATE_OVER };
enum line_ends { ENDS_UNKNOWN, ENDS_CRLF, ENDS_LF };

struct smtp {
	struct smtp_options options;
	struct smtp_ops ops;
	enum state state;
	enum line_ends ends;
	struct sq_buf out;
	char line[SMTP_LINE_MAX];
	size_t line_n;
	bool line_long;            /* too long: swallow to its end */
	bool greeted, esmtp;
	bool open;                 /* ops.mail was accepted, neither commit nor reset called yet */
	bool bdat;                 /* the message comes in chunks */
	bool failed;               /* content was refused: the rest is swallowed */
	struct sq_error why;
	uint32_t n_rcpt;
	int errors;
	uint64_t chunk, left;      /* its size, and what is to come of it */
	bool last;
	uint64_t taken;            /* octets of content */
	bool pause;                /* something was promised or refused: say it before more is taken in */
	/* DATA: where in a line we are */
	bool at_start;             /* nothing of this line but perhaps its dot */
	bool own_start;            /* the line end before it was of the session's kind */
	bool dot, cr;
	bool smuggled;
	uint64_t data_line;
};

/* ---- replies ---- */

static void
say(struct smtp *s, const char *fmt, ...) SQ_PRINTF(2, 3);

static void
say(struct smtp *s, const char *fmt, ...)
{
	char text[600];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= 500) /* RFC 5321 §4.5.3.1.5: 512 with the line end */
		memcpy(text + 497, "...", 4);
	/* What is quoted may hold anything. */
	for (unsigned char *p = (unsigned char *)text; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	sq_buf_addf(&s->out, "%s\r\n", text);
	if (s->out.failed)
		s->state = STATE_OVER;
}

/* A refusal that counts: who keeps making mistakes is shown out. */
static void
refuse(struct smtp *s, const char *fmt, ...) SQ_PRINTF(2, 3);

static void
refuse(struct smtp *s, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	say(s, "%s", text);
	if (++s->errors >= SMTP_ERRORS_MAX)
		smtp_end(s, "too many mistakes");
}

enum step { STEP_MAIL, STEP_RCPT, STEP_CONTENT };

/* An error of ours as a reply: what failed here is 4yz, what is wrong with the message 5yz. */
static void
say_error(struct smtp *s, enum step step, const struct sq_error *err)
{
	static const char *const bad[] = { [STEP_MAIL] = "501 5.1.7", [STEP_RCPT] = "501 5.1.3", [STEP_CONTENT] = "554 5.6.0" };
	const char *code = "451 4.3.0";

	switch (err->code) {
	case SQ_ENOSPC: code = "452 4.3.1"; break;
	case SQ_ELIMIT: code = step == STEP_RCPT ? "452 4.5.3" : "552 5.3.4"; break;
	case SQ_EINVAL: code = bad[step]; break;
	case SQ_EPERM: code = "550 5.7.1"; break;
	case SQ_EBUSY: code = "451 4.3.2"; break;
	case SQ_OK: case SQ_ENOMEM: case SQ_EIO: case SQ_ENOENT: case SQ_EAMBIGUOUS: case SQ_EPROTO: case SQ_EEOF:
	case SQ_ETIMEOUT: case SQ_ECORRUPT: case SQ_ENEWER: case SQ_ECOMMIT:
		break;
	}
	say(s, "%s %s", code, err->text);
}

/* ---- the message under way ---- */

static void
reset(struct smtp *s)
{
	if (s->open)
		s->ops.reset(s->ops.arg);
	s->open = s->bdat = s->failed = s->last = false;
	s->n_rcpt = 0;
	s->taken = s->left = 0;
	s->why = (struct sq_error){ 0 };
}

static void
fail(struct smtp *s, const struct sq_error *err)
{
	if (!s->failed)
		s->why = *err;
	s->failed = true;
}

static void
content(struct smtp *s, const char *p, size_t n)
{
	struct sq_error err = { 0 };

	if (n == 0 || s->failed)
		return;
	s->taken += n;
	if (s->options.size_max > 0 && s->taken > s->options.size_max + s->options.size_max / 64 + 65536) {
		/* The caller counts exactly; this only ends what nobody should have to swallow further. */
		sq_error_set(&err, SQ_ELIMIT, "the message is too large");
		fail(s, &err);
	} else if (s->ops.content(s->ops.arg, p, n, &err) != SQ_OK) {
		fail(s, &err);
	}
}

/* The whole message is in. */
static void
finish(struct smtp *s)
{
	struct sq_error err = { 0 };
	char words[200] = "";

	s->state = STATE_COMMAND;
	s->pause = true;
	if (s->failed) {
		say_error(s, STEP_CONTENT, &s->why);
	} else if (s->ops.commit(s->ops.arg, words, &err) == SQ_OK) {
		s->open = false;
		say(s, "250 2.0.0 %s", words);
	} else {
		say_error(s, STEP_CONTENT, &err);
	}
	reset(s);
}

/* ---- commands ---- */

static void
on_hello(struct smtp *s, struct sq_str args, bool esmtp)
{
	if (args.n == 0) {
		refuse(s, "501 5.5.4 say who you are: %s name", esmtp ? "EHLO" : "HELO");
		return;
	}
	reset(s);
	s->greeted = true;
	s->esmtp = esmtp;
	if (!esmtp) {
		say(s, "250 localhost");
		return;
	}
	say(s, "250-localhost");
	say(s, "250-PIPELINING");
	say(s, "250-SIZE %llu", (unsigned long long)s->options.size_max); /* 0 is "no limit" (RFC 1870 §4) */
	say(s, "250-8BITMIME");
	say(s, "250-SMTPUTF8");
	say(s, "250-DSN");
	say(s, "250-CHUNKING");
	if (s->options.private)
		say(s, "250-XSENDQ");
	say(s, "250 ENHANCEDSTATUSCODES");
}

static void
on_mail(struct smtp *s, struct sq_str args)
{
	char room[3 * SMTP_LINE_MAX];
	struct smtp_mail m = { 0 };
	struct sq_error err = { 0 };
	const char *bad;

	if (s->open) {
		refuse(s, "503 5.5.1 a message is under way: RSET ends it");
		return;
	}
	if ((bad = smtp_parse_mail(args, s->options.private, room, sizeof(room), &m)) != NULL) {
		refuse(s, "%s", bad);
		return;
	}
	if (s->options.size_max > 0 && m.size > s->options.size_max) {
		refuse(s, "552 5.3.4 the message is larger than the limit of %llu octets", (unsigned long long)s->options.size_max);
		return;
	}
	if (s->ops.mail(s->ops.arg, &m, &err) != SQ_OK) {
		say_error(s, STEP_MAIL, &err);
		s->errors++;
		return;
	}
	s->open = true;
	say(s, "250 2.1.0 ok");
}

static void
on_rcpt(struct smtp *s, struct sq_str args)
{
	char room[3 * SMTP_LINE_MAX];
	struct smtp_rcpt r = { 0 };
	struct sq_error err = { 0 };
	const char *bad;

	if (!s->open || s->bdat) {
		refuse(s, s->open ? "503 5.5.1 the message has begun" : "503 5.5.1 MAIL comes first");
		return;
	}
	if ((bad = smtp_parse_rcpt(args, room, sizeof(room), &r)) != NULL) {
		refuse(s, "%s", bad);
		return;
	}
	if (s->ops.rcpt(s->ops.arg, &r, &err) != SQ_OK) {
		say_error(s, STEP_RCPT, &err);
		s->errors++;
		return;
	}
	s->n_rcpt++;
	say(s, "250 2.1.5 ok");
}

static void
on_data(struct smtp *s, struct sq_str args)
{
	if (args.n > 0) {
		refuse(s, "501 5.5.4 DATA takes nothing behind it");
	} else if (s->bdat) {
		refuse(s, "503 5.5.1 DATA and BDAT cannot be mixed");
	} else if (s->n_rcpt == 0) {
		refuse(s, s->open ? "554 5.5.1 no valid recipients" : "503 5.5.1 MAIL and RCPT come first");
	} else {
		s->state = STATE_DATA;
		s->at_start = s->own_start = true;
		s->dot = s->cr = s->smuggled = false;
		s->data_line = 1;
		say(s, "354 the message, then a line with a single dot");
	}
}

static void
on_bdat(struct smtp *s, struct sq_str args)
{
	if (!smtp_parse_bdat(args, &s->chunk, &s->last)) {
		/* Its octets cannot be told from commands: there is no way on. */
		say(s, "501 5.5.4 BDAT takes a size and perhaps LAST");
		smtp_end(s, "cannot tell commands from content");
		return;
	}
	/* Refused or not, the octets come (RFC 3030 §2): they are swallowed, then answered. */
	if (s->n_rcpt == 0 && !s->failed) {
		struct sq_error err = { 0 };

		sq_error_set(&err, SQ_EPROTO, "%s", s->open ? "no valid recipients" : "MAIL and RCPT come first");
		fail(s, &err);
	}
	s->bdat = true;
	s->left = s->chunk;
	s->state = STATE_BDAT;
}

static void
chunk_done(struct smtp *s)
{
	s->state = STATE_COMMAND;
	if (s->failed && s->why.code == SQ_EPROTO) {
		refuse(s, "503 5.5.1 %s", s->why.text);
		reset(s);
	} else if (s->failed) {
		say_error(s, STEP_CONTENT, &s->why);
		if (s->last)
			reset(s);
	} else if (s->last) {
		finish(s);
	} else {
		say(s, "250 2.0.0 %llu octets", (unsigned long long)s->chunk);
	}
}

static void
on_rset(struct smtp *s, struct sq_str args)
{
	if (args.n > 0) {
		refuse(s, "501 5.5.4 RSET takes nothing behind it");
		return;
	}
	reset(s);
	say(s, "250 2.0.0 ok");
}

static void
on_quit(struct smtp *s)
{
	reset(s);
	say(s, "221 2.0.0 bye");
	s->state = STATE_OVER;
}

static void
command(struct smtp *s, struct sq_str line)
{
	static const struct { const char *name; bool before_hello; } known[] = {
		{ "EHLO", true }, { "HELO", true }, { "MAIL", false }, { "RCPT", false }, { "DATA", false }, { "BDAT", false }, { "RSET", true },
		{ "NOOP", true }, { "QUIT", true }, { "VRFY", true }, { "EXPN", true }, { "HELP", true },
		{ "AUTH", true }, { "STARTTLS", true }, { "ETRN", true }, { "TURN", true }, { "SEND", true }, { "SOML", true }, { "SAML", true }, { "LHLO", true },
	};
	size_t n = 0, i = 0;
	struct sq_str verb, args;

	while (n < line.n && line.p[n] != ' ' && line.p[n] != '\t')
		n++;
	verb = (struct sq_str){ line.p, n };
	args = smtp_trim((struct sq_str){ line.p + n, line.n - n });
	while (i < SQ_LEN(known) && !sq_str_caseeq(verb, sq_str(known[i].name)))
		i++;
	if (i == SQ_LEN(known)) {
		refuse(s, "500 5.5.1 unknown command");
		return;
	}
	if (!known[i].before_hello && !s->greeted) {
		/* A refused BDAT is followed by its octets all the same. */
		if (i == 5)
			on_bdat(s, args);
		else
			refuse(s, "503 5.5.1 EHLO or HELO comes first");
		return;
	}
	switch (i) {
	case 0: on_hello(s, args, true); return;
	case 1: on_hello(s, args, false); return;
	case 2: on_mail(s, args); return;
	case 3: on_rcpt(s, args); return;
	case 4: on_data(s, args); return;
	case 5: on_bdat(s, args); return;
	case 6: on_rset(s, args); return;
	case 7: say(s, "250 2.0.0 ok"); return;
	case 8: on_quit(s); return;
	case 9:
		if (args.n == 0)
			refuse(s, "501 5.5.4 VRFY takes an address");
		else
			say(s, "252 2.1.5 the server that takes the message knows");
		return;
	case 10: refuse(s, "502 5.5.1 there are no lists here"); return;
	case 11: say(s, "214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT; see sendq-sendmail(8)"); return;
	case 12: refuse(s, "503 5.5.1 AUTH is not offered: who you are is known"); return;
	case 13: refuse(s, "502 5.5.1 STARTTLS is not offered: nothing leaves this machine here"); return;
	case 14: refuse(s, "458 4.5.0 use sendq flush"); return;
	default: refuse(s, "502 5.5.1 not offered"); return;
	}
}

/* ---- lines ---- */

/* The other kind of line end: see session.h. */
static void
mixed_ends(struct smtp *s)
{
	reset(s);
	say(s, "554 5.5.2 line ends are mixed: this session began with %s", s->ends == ENDS_CRLF ? "CR LF" : "LF");
	smtp_end(s, "line ends are mixed");
}

static void
line_done(struct smtp *s)
{
	bool crlf = s->line_n > 0 && s->line[s->line_n - 1] == '\r';
	size_t n = s->line_n - (crlf ? 1 : 0);

	if (s->ends == ENDS_UNKNOWN)
		s->ends = crlf ? ENDS_CRLF : ENDS_LF;
	s->line_n = 0;
	if ((s->ends == ENDS_CRLF) != crlf && !s->line_long) {
		mixed_ends(s);
		return;
	}
	if (s->line_long) {
		s->line_long = false;
		refuse(s, "500 5.5.6 the line is longer than %d octets", SMTP_LINE_MAX);
		return;
	}
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)s->line[i] < ' ' && s->line[i] != '\t') || s->line[i] == 0x7f) {
			refuse(s, "501 5.5.2 a control character in a command");
			return;
		}
	command(s, (struct sq_str){ s->line, n });
}

static size_t
feed_command(struct smtp *s, const char *p, size_t n)
{
	const char *lf = memchr(p, '\n', n);
	size_t k = lf ? (size_t)(lf - p) : n, room = sizeof(s->line) - s->line_n;

	if (k > room) {
		s->line_long = true;
		/* The last octet is kept: it tells how the line ends. */
		if (lf)
			s->line[sizeof(s->line) - 1] = p[k - 1];
		s->line_n = sizeof(s->line);
	} else if (k > 0) {
		memcpy(s->line + s->line_n, p, k);
		s->line_n += k;
	}
	if (lf)
		line_done(s);
	return k + (lf ? 1 : 0);
}

/* ---- DATA ---- */

static bool
lone_dot(const struct smtp *s)
{
	return s->at_start && s->dot;
}

static void
smuggled(struct smtp *s)
{
	struct sq_error err = { 0 };

	sq_error_set(&err, SQ_EINVAL, "line %llu is a dot between mixed line ends (this session's are %s): refused, for others might see the end there",
		(unsigned long long)s->data_line, s->ends == ENDS_CRLF ? "CR LF" : "LF");
	fail(s, &err);
	s->smuggled = true;
}

static void
data_line_end(struct smtp *s, enum line_ends kind)
{
	bool own = kind == s->ends;

	if (lone_dot(s) && own && s->own_start) {
		bool bad = s->smuggled;

		finish(s);
		if (bad)
			smtp_end(s, "line ends are mixed");
		return;
	}
	if (lone_dot(s))
		smuggled(s);
	content(s, "\r\n", 2);
	s->at_start = true;
	s->own_start = own || s->ends == ENDS_LF; /* whoever writes LF sees a CR before it as the line's */
	s->dot = false;
	s->data_line++;
}

/* The dot of a stuffed line is dropped: something follows it. */
static void
data_octets(struct smtp *s, const char *p, size_t n)
{
	s->at_start = s->dot = false;
	content(s, p, n);
}

static size_t
plain_octets(const char *p, size_t n)
{
	const char *lf = memchr(p, '\n', n), *cr;
	size_t k = lf ? (size_t)(lf - p) : n;

	cr = memchr(p, '\r', k);
	return cr ? (size_t)(cr - p) : k;
}

static size_t
feed_data(struct smtp *s, const char *p, size_t n)
{
	size_t k;

	if (s->cr) {
		s->cr = false;
		if (*p == '\n') {
			data_line_end(s, ENDS_CRLF);
			return 1;
		}
		if (lone_dot(s))
			smuggled(s);
		data_octets(s, "\r", 1); /* a bare one: the intake's to mend or refuse */
		return 0;
	}
	if (*p == '\r') {
		s->cr = true;
		return 1;
	}
	if (*p == '\n') {
		data_line_end(s, ENDS_LF);
		return 1;
	}
	if (*p == '.' && s->at_start && !s->dot) {
		s->dot = true;
		return 1;
	}
	k = plain_octets(p, n);
	data_octets(s, p, k);
	return k;
}

/* ---- outside ---- */

enum sq_err
smtp_new(struct smtp_options options, struct smtp_ops ops, struct smtp **out, struct sq_error *err)
{
	struct smtp *s = calloc(1, sizeof(*s));

	if (!s)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	s->options = options;
	s->ops = ops;
	s->out = (struct sq_buf)SQ_BUF_INIT(4 * SMTP_OUT_HIGH);
	say(s, "220 localhost ESMTP sendq");
	*out = s;
	return SQ_OK;
}

void
smtp_free(struct smtp *s)
{
	if (!s)
		return;
	reset(s);
	sq_buf_fini(&s->out);
	free(s);
}

struct sq_buf *
smtp_out(struct smtp *s)
{
	return &s->out;
}

bool
smtp_over(const struct smtp *s)
{
	return s->state == STATE_OVER;
}

bool
smtp_busy(const struct smtp *s)
{
	return s->open;
}

void
smtp_end(struct smtp *s, const char *words)
{
	if (s->state == STATE_OVER)
		return;
	reset(s);
	say(s, "421 4.7.0 %s, closing", words);
	s->state = STATE_OVER;
}

size_t
smtp_feed(struct smtp *s, const void *octets, size_t n)
{
	const char *p = octets;
	size_t used = 0;

	s->pause = false;
	while (used < n && s->out.n < SMTP_OUT_HIGH && s->state != STATE_OVER && !s->pause) {
		switch (s->state) {
		case STATE_COMMAND:
			used += feed_command(s, p + used, n - used);
			break;
		case STATE_DATA:
			used += feed_data(s, p + used, n - used);
			break;
		case STATE_BDAT: {
			size_t k = n - used < s->left ? n - used : (size_t)s->left;

			content(s, p + used, k);
			s->left -= k;
			used += k;
			break;
		}
		case STATE_OVER:
			break;
		}
		/* An empty chunk is complete as it comes. */
		if (s->state == STATE_BDAT && s->left == 0)
			chunk_done(s);
	}
	return used;
}
