/*
 * SMTP as the client sees it: commands in, replies out. Owns the session's
 * words and nothing else: no socket, no clock, no database. What must last is
 * asked of struct gw_ops, and a reply that promises something is written only
 * after the operation has returned.
 */
#include "gateway.h"

#include <ctype.h>
#include <inttypes.h>

enum { COMMAND, AUTH, DATA, BDAT };
enum { BOL, DOT, DOT_CR, TEXT, TEXT_CR };

static void
reply(struct gw_machine *m, const char *text)
{
	sq_buf_adds(&m->out, text);
	sq_buf_adds(&m->out, "\r\n");
}

static void
refuse(struct gw_machine *m, const char *text)
{
	if (++m->errors > GW_ERRORS_MAX) {
		reply(m, "421 4.7.0 too many errors");
		m->closing = true;
		return;
	}
	reply(m, text);
}

/* The store could not, or a newer session has the transaction: the client comes again, and the store decides. */
static void
give_up(struct gw_machine *m, enum sq_err e)
{
	reply(m, e == SQ_EPERM	  ? "421 4.3.2 taken over by a newer session" :
		 e == SQ_ENOSPC ? "452 4.3.1 no room for it at the moment" :
				  "421 4.3.0 cannot store mail at the moment");
	m->closing = true;
	m->txn.id = 0;
}

static void
transaction_clear(struct gw_machine *m)
{
	m->txn = (struct gw_txn){ 0 };
	m->resumed = m->rcpt_any = m->bdat_refused = m->bdat_done = false;
	sq_buf_clear(&m->pending);
	m->line_end = 0;
}

static void
transaction_drop(struct gw_machine *m)
{
	if (m->txn.id)
		m->ops->drop(m->ctx, &m->txn);
	transaction_clear(m);
}

void
gw_machine_start(struct gw_machine *m)
{
	m->out = (struct sq_buf)SQ_BUF_INIT(1 << 20);
	m->line = (struct sq_buf)SQ_BUF_INIT(GW_LINE_MAX);
	m->pending = (struct sq_buf)SQ_BUF_INIT(GW_TEXT_LINE_MAX + 2 * GW_FLUSH_BYTES);
	sq_buf_addf(&m->out, "220 %s ESMTP sendq-gateway\r\n", m->hostname);
}

void
gw_machine_secured(struct gw_machine *m)
{
	transaction_drop(m);
	m->tls = true;
	m->starttls = m->greeted = false;
	m->ehlo[0] = m->auth[0] = 0;
}

void
gw_machine_fini(struct gw_machine *m)
{
	sq_buf_fini(&m->out);
	sq_buf_wipe(&m->line);
	sq_buf_fini(&m->pending);
}

/* Store pending octets: of DATA whole lines only, so that every stored offset is a line's start. */
static bool
store_pending(struct gw_machine *m, size_t least)
{
	size_t n = m->txn.verb == GW_VERB_DATA ? m->line_end : m->pending.n;
	enum sq_err e;

	if (n == 0 || n < least)
		return true;
	if ((e = m->ops->append(m->ctx, &m->txn, m->pending.p, n, NULL)) != SQ_OK) {
		give_up(m, e);
		return false;
	}
	sq_buf_consume(&m->pending, n);
	m->line_end = 0;
	return true;
}

void
gw_machine_flush(struct gw_machine *m)
{
	if (m->txn.id && (m->mode == DATA || m->mode == BDAT) && !m->bdat_refused)
		(void)store_pending(m, 0);
}

static void
finish(struct gw_machine *m)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf trace = SQ_BUF_INIT(2048);
	struct gw_verdict verdict;
	enum sq_err e;

	sq_buf_addf(&trace, "Received: from %s (%s)\r\n\tby %s (sendq-gateway) with ESMTP%sA", m->ehlo, m->client,
	    m->hostname, m->tls ? "S" : "");
	if (!store_pending(m, 0))
		return;
	if ((e = m->ops->finish(m->ctx, &m->txn, trace.p, &verdict, NULL)) != SQ_OK) {
		give_up(m, e);
		return;
	}
	/* The transaction stays this session's until RSET, MAIL or QUIT: that is when the client knows. */
	reply(m, verdict.text);
	m->bdat_done = true;
}

/* ---- content */

static bool
too_large(struct gw_machine *m)
{
	return m->txn.octets + (int64_t)m->pending.n > m->max_size_bytes;
}

/* Content that will never be taken: say so and hang up, for nobody can say where such content ends. */
static void
refuse_content(struct gw_machine *m, const char *text)
{
	transaction_drop(m);
	reply(m, text);
	m->closing = true;
}

/* One octet of DATA. True at the end of the message. */
static bool
data_octet(struct gw_machine *m, char c)
{
	int state = m->data_state;

	if (state == BOL && c == '.') {
		m->data_state = DOT;
	} else if (c == '\r' && state != DOT_CR && state != TEXT_CR) {
		m->data_state = state == DOT ? DOT_CR : TEXT_CR;
	} else if (c == '\n' && state == TEXT_CR) {
		sq_buf_add(&m->pending, "\r\n", 2);
		m->line_end = m->pending.n;
		m->data_state = BOL;
	} else if (c == '\n' && state == DOT_CR) {
		return true;
	} else if (c == '\n' || state == DOT_CR || state == TEXT_CR) {
		/* Mending it would shift offsets, passing it on is how mail is smuggled. */
		refuse_content(m, "554 5.6.0 a bare CR or LF stands in the message");
	} else {
		sq_buf_addc(&m->pending, c);
		m->data_state = TEXT;
	}
	return false;
}

static size_t
take_data(struct gw_machine *m, const char *p, size_t n)
{
	size_t i = 0;

	while (i < n && !m->closing) {
		if (data_octet(m, p[i++])) {
			m->mode = COMMAND;
			finish(m);
			return i;
		}
		if (m->pending.n - m->line_end > GW_TEXT_LINE_MAX)
			refuse_content(m, "554 5.6.0 a line is too long");
		else if (too_large(m))
			refuse_content(m, "552 5.3.4 message too large");
		else if (m->line_end >= GW_FLUSH_BYTES)
			(void)store_pending(m, 0);
	}
	return i;
}

static void
bdat_end(struct gw_machine *m)
{
	m->mode = COMMAND;
	if (m->bdat_refused) {
		refuse(m, "503 5.5.1 no transaction for this chunk: RSET first");
	} else if (m->bdat_last) {
		finish(m);
	} else if (store_pending(m, 0)) {
		sq_buf_addf(&m->out, "250 2.0.0 %" PRId64 " octets stored\r\n", m->txn.octets);
	}
}

static size_t
take_bdat(struct gw_machine *m, const char *p, size_t n)
{
	size_t take = (int64_t)n < m->bdat_left ? n : (size_t)m->bdat_left;

	if (take > GW_FLUSH_BYTES)
		take = GW_FLUSH_BYTES;
	if (!m->bdat_refused) {
		sq_buf_add(&m->pending, p, take);
		if (!store_pending(m, GW_FLUSH_BYTES))
			return take;
	}
	m->bdat_left -= (int64_t)take;
	if (m->bdat_left == 0)
		bdat_end(m);
	return take;
}

static bool
may_send(struct gw_machine *m, enum gw_verb verb)
{
	return m->txn.id && !m->bdat_done && (m->resumed || m->rcpt_any) &&
	       (m->txn.verb == GW_VERB_NONE || m->txn.verb == verb);
}

/* Durable before the client may send: from here a new session gets 355. */
static bool
begin_content(struct gw_machine *m, enum gw_verb verb)
{
	enum sq_err e;

	if (m->txn.verb == verb)
		return true;
	m->txn.verb = verb;
	if ((e = m->ops->append(m->ctx, &m->txn, "", 0, NULL)) == SQ_OK)
		return true;
	give_up(m, e);
	return false;
}

static void
do_data(struct gw_machine *m, char *arg)
{
	if (*arg) {
		refuse(m, "501 5.5.4 DATA takes no argument");
	} else if (!may_send(m, GW_VERB_DATA)) {
		refuse(m, "503 5.5.1 MAIL and RCPT first, and the verb that this message began with");
	} else if (begin_content(m, GW_VERB_DATA)) {
		m->mode = DATA;
		m->data_state = BOL;
		reply(m, "354 go on");
	}
}

static bool
parse_number(const char *s, char **end, int64_t *out)
{
	if (!isdigit((unsigned char)*s) || strspn(s, "0123456789") > 15)
		return false;
	*out = strtoll(s, end, 10);
	return true;
}

static void
do_bdat(struct gw_machine *m, char *arg)
{
	char *end;

	if (!parse_number(arg, &end, &m->bdat_left) ||
	    (*end && strcasecmp(end, " LAST") != 0)) {
		/* How many octets follow cannot be known. */
		reply(m, "501 5.5.4 BDAT needs a number of octets");
		m->closing = true;
		return;
	}
	m->bdat_last = *end != 0;
	if (m->bdat_left > m->max_size_bytes - m->txn.octets) {
		refuse_content(m, "552 5.3.4 message too large");
		return;
	}
	m->bdat_refused = !may_send(m, GW_VERB_BDAT);
	if (!m->bdat_refused && !begin_content(m, GW_VERB_BDAT))
		return;
	m->mode = BDAT;
	if (m->bdat_left == 0)
		bdat_end(m);
}

/* ---- envelope */

/* `<address>` at *s; copies it without brackets and moves on behind them. */
static bool
parse_path(char **s, char *out)
{
	char *p = *s, *end;

	while (*p == ' ')
		p++;
	if (*p++ != '<' || !(end = strchr(p, '>')) || end - p > GW_ADDRESS_MAX || (end[1] && end[1] != ' '))
		return false;
	for (char *c = p; c < end; c++)
		if ((unsigned char)*c <= ' ' || *c == 0x7f || strchr("<\\\"/", *c))
			return false;
	memcpy(out, p, (size_t)(end - p));
	out[end - p] = 0;
	*s = end + 1;
	return true;
}

/* Octets beyond ASCII need SMTPUTF8 on MAIL. */
static bool
ascii_or_utf8(const struct gw_machine *m, const char *address)
{
	for (; *address; address++)
		if ((unsigned char)*address >= 0x80 && !m->utf8)
			return false;
	return true;
}

/* RFC 1845 section 2: atoms joined by dots, one @ between. */
static bool
transid_good(const char *s)
{
	size_t n = strlen(s), ats = 0;

	if (n < 5 || n > GW_TRANSID_MAX || s[0] != '<' || s[n - 1] != '>')
		return false;
	for (size_t i = 1; i + 1 < n; i++) {
		bool mark = s[i] == '.' || s[i] == '@', before = i == 1 || s[i - 1] == '.' || s[i - 1] == '@';

		ats += s[i] == '@';
		if (s[i] <= ' ' || s[i] >= 0x7f || (mark && (before || i + 2 == n)) || strchr("()<>,;:\\\"/[]?=", s[i]))
			return false;
	}
	return ats == 1;
}

/* One MAIL parameter. NULL when it is fine, else the reply. */
static const char *
mail_param(struct gw_machine *m, char *word, struct sq_buf *params)
{
	char *value = strchr(word, '='), *end;

	if (value)
		*value++ = 0;
	if (strcasecmp(word, "SIZE") == 0 && value) {
		if (!parse_number(value, &end, &m->declared) || *end)
			return "501 5.5.4 SIZE needs a number";
		if (m->declared > m->max_size_bytes)
			return "552 5.3.4 message too large";
		sq_buf_addf(params, " SIZE=%" PRId64, m->declared);
	} else if (strcasecmp(word, "BODY") == 0 && value &&
	    (strcasecmp(value, "7BIT") == 0 || strcasecmp(value, "8BITMIME") == 0)) {
		sq_buf_addf(params, " BODY=%c", value[0]);
	} else if (strcasecmp(word, "TRANSID") == 0 && value) {
		if (m->transid[0] || !transid_good(value))
			return "501 5.5.4 TRANSID is not as RFC 1845 has it";
		memcpy(m->transid, value, strlen(value) + 1);
	} else if (strcasecmp(word, "XRESEND") == 0 && !value) {
		m->resend = true;
	} else if (strcasecmp(word, "SMTPUTF8") == 0 && !value) {
		m->utf8 = true;
		sq_buf_adds(params, " SMTPUTF8");
	} else if (strcasecmp(word, "AUTH") != 0) {
		return "555 5.5.4 no such parameter";
	}
	return NULL;
}

static void
say_resumed(struct gw_machine *m)
{
	sq_buf_addf(&m->out, "355 %" PRId64 " sha256=%s octets are here\r\n", m->txn.octets, m->txn.sha256);
	m->resumed = true;
}

static void
mail_begin(struct gw_machine *m)
{
	struct gw_mail mail = { m->auth, m->ehlo, m->transid[0] ? m->transid : NULL, m->sender, m->params, m->declared,
		m->resend };
	enum gw_found found;
	enum sq_err e;

	if ((e = m->ops->begin(m->ctx, &mail, &found, &m->txn, NULL)) != SQ_OK) {
		m->txn.id = 0;
		reply(m, e == SQ_ENOSPC ? "452 4.3.1 no room for it at the moment" : "451 4.3.0 the store is not to be had");
		return;
	}
	switch (found) {
	case GW_FRESH:
		reply(m, "250 2.1.0 sender ok");
		break;
	case GW_RESUMED:
		say_resumed(m);
		break;
	case GW_DIFFERS:
		m->txn.id = 0;
		refuse(m, "501 5.5.4 this TRANSID came with another sender or other parameters");
		break;
	}
}

static void
do_mail(struct gw_machine *m, char *arg)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf params = SQ_BUF_INIT(GW_PARAMS_MAX - 1);
	char *save = NULL;

	if (!m->auth[0]) {
		refuse(m, "530 5.7.0 log in first");
		return;
	}
	/* After a verdict a new MAIL says that the client knows it (RFC 1845 section 3). */
	if (m->txn.id && !m->bdat_done) {
		refuse(m, "503 5.5.1 a transaction is under way: RSET first");
		return;
	}
	transaction_drop(m);
	m->transid[0] = 0;
	m->declared = 0;
	m->resend = m->utf8 = false;
	if (strncasecmp(arg, "FROM:", 5) != 0 || (arg += 5, !parse_path(&arg, m->sender))) {
		refuse(m, "501 5.1.7 MAIL FROM:<address>");
		return;
	}
	for (char *word = strtok_r(arg, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		const char *bad = mail_param(m, word, &params);

		if (bad) {
			refuse(m, bad);
			return;
		}
	}
	if (params.failed || !ascii_or_utf8(m, m->sender)) {
		refuse(m, "553 5.6.7 such an address needs SMTPUTF8");
		return;
	}
	memcpy(m->params, params.n ? params.p : "", params.n + 1);
	mail_begin(m);
}

static void
rcpt_add(struct gw_machine *m, const char *address)
{
	enum sq_err e = m->ops->rcpt(m->ctx, &m->txn, address, NULL);

	if (e == SQ_ELIMIT) {
		reply(m, "452 4.5.3 too many recipients");
	} else if (e == SQ_EPERM) {
		give_up(m, e);
	} else if (e != SQ_OK) {
		reply(m, "451 4.3.0 the store is not to be had");
	} else {
		m->rcpt_any = true;
		reply(m, "250 2.1.5 recipient ok");
	}
}

static void
do_rcpt(struct gw_machine *m, char *arg)
{
	char address[GW_ADDRESS_MAX + 1];

	if (!m->txn.id || m->bdat_done) {
		refuse(m, "503 5.5.1 MAIL first");
	} else if (strncasecmp(arg, "TO:", 3) != 0 || (arg += 3, !parse_path(&arg, address))) {
		refuse(m, "501 5.1.3 RCPT TO:<address>");
	} else if (*arg) {
		refuse(m, "555 5.5.4 no such parameter");
	} else if (m->resumed || m->txn.verb != GW_VERB_NONE) {
		/* The set was settled in the session that was cut. */
		if (m->ops->has_rcpt(m->ctx, &m->txn, address))
			reply(m, "250 2.1.5 recipient known");
		else
			refuse(m, "503 5.5.1 the recipients of this message are settled");
	} else if (!ascii_or_utf8(m, address)) {
		refuse(m, "553 5.6.7 such an address needs SMTPUTF8");
	} else if (!m->ops->local(m->ctx, address)) {
		refuse(m, "550 5.1.1 no such mailbox here");
	} else {
		rcpt_add(m, address);
	}
}

/* ---- EHLO and AUTH */

static void
do_ehlo(struct gw_machine *m, char *arg, bool extended)
{
	size_t n = strlen(arg);

	if (n == 0 || n > GW_NAME_MAX || strpbrk(arg, " \t()<>\"\\")) {
		refuse(m, "501 5.5.4 a name, please");
		return;
	}
	transaction_drop(m);
	for (size_t i = 0; i <= n; i++)
		m->ehlo[i] = (char)tolower((unsigned char)arg[i]);
	m->greeted = true;
	if (!extended) {
		sq_buf_addf(&m->out, "250 %s\r\n", m->hostname);
		return;
	}
	sq_buf_addf(&m->out, "250-%s\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n",
	    m->hostname);
	if (m->tls_possible && !m->tls)
		sq_buf_adds(&m->out, "250-STARTTLS\r\n");
	if (m->tls || m->clear_auth)
		sq_buf_adds(&m->out, "250-AUTH PLAIN LOGIN\r\n");
	sq_buf_addf(&m->out, "250-SIZE %" PRId64 "\r\n250-XSENDQ RETAIN=%" PRId64 " STORE=%s\r\n250 CHECKPOINT\r\n",
	    m->max_size_bytes, m->retain_s, m->store_id);
}

/* Base64 into out (NUL behind it); the length, or -1. */
static int
base64(const char *s, char *out, size_t room)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned bits = 0, have = 0;
	size_t n = 0;

	for (; *s && *s != '='; s++) {
		const char *d = strchr(digits, *s);

		if (!d || n + 1 >= room)
			return -1;
		bits = (bits << 6 | (unsigned)(d - digits)) & 0xffffff;
		if ((have += 6) >= 8)
			out[n++] = (char)(bits >> (have -= 8) & 0xff);
	}
	out[n] = 0;
	return strspn(s, "=") == strlen(s) ? (int)n : -1;
}

static void
login(struct gw_machine *m, const char *user, const char *password)
{
	m->mode = COMMAND;
	if (!*user || strlen(user) > GW_NAME_MAX || !m->ops->login(m->ctx, user, password)) {
		refuse(m, "535 5.7.8 user or password is wrong");
		return;
	}
	memcpy(m->auth, user, strlen(user) + 1);
	reply(m, "235 2.7.0 welcome");
}

/* auth_step 0: PLAIN's words; 1: LOGIN's user; 2: LOGIN's password. */
static void
auth_words(struct gw_machine *m, const char *line)
{
	char words[1024];
	int n = base64(line, words, sizeof(words));

	if (n < 0 || strcmp(line, "*") == 0) {
		m->mode = COMMAND;
		refuse(m, "501 5.5.2 not base64, or given up");
	} else if (m->auth_step == 0) {
		const char *end = words + n, *user = memchr(words, 0, (size_t)n);
		const char *password = user ? memchr(user + 1, 0, (size_t)(end - user - 1)) : NULL;

		if (password && (words[0] == 0 || strcmp(words, user + 1) == 0))
			login(m, user + 1, password + 1);
		else
			login(m, "", "");
	} else if (m->auth_step == 1) {
		m->auth_step = 2;
		memcpy(m->user, n <= GW_NAME_MAX ? words : "", n <= GW_NAME_MAX ? (size_t)n + 1 : 1);
		reply(m, "334 UGFzc3dvcmQ6");
	} else {
		login(m, m->user, words);
	}
	sq_wipe(words, sizeof(words));
}

static void
do_auth(struct gw_machine *m, char *arg)
{
	size_t n = strcspn(arg, " ");
	const char *first = arg[n] ? arg + n + 1 : NULL;

	if (!m->greeted || m->auth[0] || m->txn.id) {
		refuse(m, "503 5.5.1 not here");
		return;
	}
	if (!m->tls && !m->clear_auth) {
		refuse(m, "538 5.7.11 STARTTLS first");
		return;
	}
	if (n != 5 || (strncasecmp(arg, "PLAIN", n) != 0 && strncasecmp(arg, "LOGIN", n) != 0)) {
		refuse(m, "504 5.5.4 PLAIN or LOGIN");
		return;
	}
	m->auth_step = (arg[0] | 0x20) == 'l';
	m->mode = AUTH;
	if (first)
		auth_words(m, strcmp(first, "=") == 0 ? "" : first);
	else
		reply(m, m->auth_step ? "334 VXNlcm5hbWU6" : "334 ");
}

/* ---- commands */

static void
command(struct gw_machine *m, char *line)
{
	size_t n = strcspn(line, " ");
	char *arg = line[n] ? line + n + 1 : line + n;

	line[n] = 0;
	if (strcasecmp(line, "EHLO") == 0 || strcasecmp(line, "HELO") == 0) {
		do_ehlo(m, arg, (line[0] | 0x20) == 'e');
	} else if (strcasecmp(line, "QUIT") == 0) {
		transaction_drop(m);
		reply(m, "221 2.0.0 good bye");
		m->closing = true;
	} else if (strcasecmp(line, "NOOP") == 0) {
		reply(m, "250 2.0.0 ok");
	} else if (strcasecmp(line, "RSET") == 0) {
		transaction_drop(m);
		reply(m, "250 2.0.0 ok");
	} else if (strcasecmp(line, "VRFY") == 0) {
		reply(m, "252 2.1.5 try it");
	} else if (strcasecmp(line, "STARTTLS") == 0 && m->tls_possible && !m->tls && !*arg) {
		reply(m, "220 2.0.0 go on");
		m->starttls = true;
	} else if (strcasecmp(line, "AUTH") == 0) {
		do_auth(m, arg);
	} else if (strcasecmp(line, "BDAT") == 0) {
		do_bdat(m, arg);
	} else if (strcasecmp(line, "MAIL") == 0) {
		do_mail(m, arg);
	} else if (strcasecmp(line, "RCPT") == 0) {
		do_rcpt(m, arg);
	} else if (strcasecmp(line, "DATA") == 0) {
		do_data(m, arg);
	} else {
		refuse(m, "500 5.5.2 no such command");
	}
}

static void
line_done(struct gw_machine *m)
{
	bool whole = m->line.n >= 2 && m->line.p[m->line.n - 2] == '\r' && !m->line.failed;

	if (m->line.failed) {
		refuse(m, "500 5.5.2 line too long");
	} else if (!whole || strlen(m->line.p) != m->line.n) {
		reply(m, "500 5.5.2 lines end in CRLF and hold no NUL");
		m->closing = true;
	} else {
		m->line.p[m->line.n - 2] = 0;
		if (m->mode == AUTH)
			auth_words(m, m->line.p);
		else
			command(m, m->line.p);
	}
	sq_buf_clear(&m->line);
}

static size_t
take_line(struct gw_machine *m, const char *p, size_t n)
{
	const char *lf = memchr(p, '\n', n);
	size_t take = lf ? (size_t)(lf - p) + 1 : n;

	sq_buf_add(&m->line, p, take);
	if (lf)
		line_done(m);
	return take;
}

void
gw_machine_feed(struct gw_machine *m, const char *p, size_t n)
{
	while (n > 0 && !m->closing) {
		size_t used;

		if (m->starttls) {
			/* Words sent before TLS must not be taken for words said inside it. */
			sq_buf_clear(&m->out);
			reply(m, "501 5.5.4 nothing may follow STARTTLS");
			m->starttls = false;
			m->closing = true;
			return;
		}
		if (m->mode == DATA)
			used = take_data(m, p, n);
		else if (m->mode == BDAT)
			used = take_bdat(m, p, n);
		else
			used = take_line(m, p, n);
		p += used;
		n -= used;
	}
}
