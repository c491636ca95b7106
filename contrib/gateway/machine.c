/*
 * SMTP as the client sees it: commands in, replies out. Owns the session's
 * words and nothing else: no socket, no clock, no database. What must last is
 * asked of struct gw_ops, and a reply that promises something is written only
 * after the operation has returned. Here: lines, greeting, AUTH, dispatch. The envelope
 * stands in envelope.c, what follows it in content.c.
 */
#include "gateway.h"

#include <ctype.h>
#include <inttypes.h>

void
gw_say(struct gw_machine *m, const char *text)
{
	sq_buf_adds(&m->out, text);
	sq_buf_adds(&m->out, "\r\n");
}

void
gw_refuse(struct gw_machine *m, const char *text)
{
	if (++m->errors > GW_ERRORS_MAX) {
		gw_say(m, "421 4.7.0 too many errors");
		m->closing = true;
		return;
	}
	gw_say(m, text);
}

void
gw_reply_set(struct gw_reply *r, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(r->text, sizeof(r->text), fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(r->text)) {
		char *last = strrchr(r->text, '\r'), *line = r->text;

		if (last) {
			*last = 0;
			if ((last = strrchr(r->text, '\n')))
				line = last + 1;
			if (line[3] == '-')
				line[3] = ' ';
		}
	}
}

/* The store could not, or a newer session has the transaction: the client comes again, and the store decides. */
void
gw_give_up(struct gw_machine *m, enum sq_err e)
{
	gw_say(m, e == SQ_EPERM	  ? "421 4.3.2 this message is in the hands of another session" :
		  e == SQ_EINVAL  ? "554 5.5.0 this message was complete" :
		  e == SQ_ENOSPC  ? "452 4.3.1 no room for it at the moment" :
				    "421 4.3.0 cannot store mail at the moment");
	m->closing = true;
	m->open = m->writing = false;
}

static void
transaction_clear(struct gw_machine *m)
{
	m->open = m->resumed = m->rcpt_any = m->settled = m->bdat_refused = m->writing = false;
	m->unsynced = 0;
	sq_buf_clear(&m->text);
}

void
gw_transaction_drop(struct gw_machine *m)
{
	if (m->open)
		m->ops->drop(m->ctx);
	transaction_clear(m);
}

void
gw_machine_start(struct gw_machine *m)
{
	m->out = (struct sq_buf)SQ_BUF_INIT(1 << 20);
	m->line = (struct sq_buf)SQ_BUF_INIT(GW_AUTH_LINE_MAX);
	m->text = (struct sq_buf)SQ_BUF_INIT(4 * GW_BLOCK_BYTES);
	sq_buf_addf(&m->out, "220 %s ESMTP sendq-gateway\r\n", m->hostname);
}

void
gw_machine_secured(struct gw_machine *m)
{
	gw_transaction_drop(m);
	m->ops->reset(m->ctx);
	m->tls = true;
	m->starttls = m->greeted = m->authenticated = false;
	m->env = (struct gw_envelope){ 0 };
}

void
gw_machine_fini(struct gw_machine *m)
{
	sq_buf_fini(&m->out);
	sq_buf_wipe(&m->line);
	sq_buf_fini(&m->text);
}

bool
gw_parse_number(const char *s, char **end, int64_t *out)
{
	if (!isdigit((unsigned char)*s) || strspn(s, "0123456789") > 15)
		return false;
	*out = strtoll(s, end, 10);
	return true;
}

/* ---- EHLO and AUTH */

static void
do_ehlo(struct gw_machine *m, char *arg, bool extended)
{
	static const struct { unsigned feature; const char *line; } offers[] = {
		{ GW_HAS_8BITMIME, "250-8BITMIME\r\n" }, { GW_HAS_SMTPUTF8, "250-SMTPUTF8\r\n" }, { GW_HAS_DSN, "250-DSN\r\n" },
	};
	size_t n = strlen(arg);

	if (n == 0 || n > GW_NAME_MAX || strpbrk(arg, " \t()<>\"\\")) {
		gw_refuse(m, "501 5.5.4 a name, please");
		return;
	}
	gw_transaction_drop(m);
	for (size_t i = 0; i <= n; i++)
		m->env.ehlo[i] = (char)tolower((unsigned char)arg[i]);
	m->greeted = true;
	if (!extended) {
		sq_buf_addf(&m->out, "250 %s\r\n", m->hostname);
		return;
	}
	sq_buf_addf(&m->out, "250-%s\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES\r\n", m->hostname);
	for (size_t i = 0; i < SQ_LEN(offers); i++)
		if (m->features & offers[i].feature)
			sq_buf_adds(&m->out, offers[i].line);
	if (m->tls_possible && !m->tls)
		sq_buf_adds(&m->out, "250-STARTTLS\r\n");
	if (m->tls || m->clear_auth)
		sq_buf_addf(&m->out, "250-AUTH %s\r\n", m->mechanisms);
	sq_buf_addf(&m->out, "250-SIZE %" PRId64 "\r\n250-XSENDQ RETAIN=%" PRId64 " STORE=%s\r\n250 CHECKPOINT\r\n",
	    m->max_size_bytes, m->retain_s, m->store_id);
}

static void
auth_step(struct gw_machine *m, const char *mech, const char *words)
{
	struct gw_reply reply = { "" };

	switch (m->ops->auth(m->ctx, mech, words, m->env.auth, &reply)) {
	case GW_MORE:
		m->mode = GW_AUTH;
		gw_say(m, reply.text);
		break;
	case GW_YES:
		m->mode = GW_COMMAND;
		m->authenticated = true;
		gw_say(m, reply.text);
		break;
	case GW_NO:
		m->mode = GW_COMMAND;
		m->env.auth[0] = 0;
		gw_refuse(m, reply.text);
		break;
	}
}

/* Is `mech` (n octets) one of the words that EHLO offers? */
static bool
offered(const char *mechanisms, const char *mech, size_t n)
{
	for (const char *p = mechanisms; n > 0 && *p; p += strspn(p, " ")) {
		size_t word = strcspn(p, " ");

		if (word == n && strncasecmp(p, mech, n) == 0)
			return true;
		p += word;
	}
	return false;
}

static void
do_auth(struct gw_machine *m, char *arg)
{
	size_t n = strcspn(arg, " ");
	const char *first = arg[n] ? arg + n + 1 : NULL;

	if (!m->greeted || m->authenticated || m->open) {
		gw_refuse(m, "503 5.5.1 not here");
	} else if (!m->tls && !m->clear_auth) {
		gw_refuse(m, "538 5.7.11 STARTTLS first");
	} else if (!offered(m->mechanisms, arg, n)) {
		gw_refuse(m, "504 5.5.4 no such mechanism");
	} else {
		arg[n] = 0;
		auth_step(m, arg, first && strcmp(first, "=") == 0 ? "" : first);
	}
}

/* ---- commands */

static void
do_starttls(struct gw_machine *m, char *arg)
{
	if (*arg) {
		gw_refuse(m, "501 5.5.4 STARTTLS takes no argument");
	} else if (!m->tls_possible || m->tls) {
		gw_refuse(m, "503 5.5.1 no TLS to start here");
	} else {
		gw_say(m, "220 2.0.0 go on");
		m->starttls = true;
	}
}

static void
do_rset(struct gw_machine *m, char *arg)
{
	(void)arg;
	gw_transaction_drop(m);
	gw_say(m, "250 2.0.0 ok");
}

static void
do_quit(struct gw_machine *m, char *arg)
{
	(void)arg;
	gw_transaction_drop(m);
	gw_say(m, "221 2.0.0 good bye");
	m->closing = true;
}

static void
do_noop(struct gw_machine *m, char *arg)
{
	(void)arg;
	gw_say(m, "250 2.0.0 ok");
}

static void
do_vrfy(struct gw_machine *m, char *arg)
{
	(void)arg;
	gw_say(m, "252 2.1.5 try it");
}

static void
do_ehlo_extended(struct gw_machine *m, char *arg)
{
	do_ehlo(m, arg, true);
}

static void
do_helo(struct gw_machine *m, char *arg)
{
	do_ehlo(m, arg, false);
}

static void
command(struct gw_machine *m, char *line)
{
	static const struct { const char *word; void (*act)(struct gw_machine *, char *); } commands[] = {
		{ "EHLO", do_ehlo_extended }, { "HELO", do_helo }, { "QUIT", do_quit }, { "NOOP", do_noop }, { "RSET", do_rset },
		{ "VRFY", do_vrfy }, { "STARTTLS", do_starttls }, { "AUTH", do_auth }, { "BDAT", gw_do_bdat }, { "MAIL", gw_do_mail },
		{ "RCPT", gw_do_rcpt }, { "DATA", gw_do_data },
	};
	size_t n = strcspn(line, " ");
	char *arg = line[n] ? line + n + 1 : line + n;

	line[n] = 0;
	for (size_t i = 0; i < SQ_LEN(commands); i++) {
		if (strcasecmp(line, commands[i].word) == 0) {
			commands[i].act(m, arg);
			return;
		}
	}
	gw_refuse(m, "500 5.5.2 no such command");
}

static void
line_done(struct gw_machine *m)
{
	size_t n = m->line.n;
	bool whole = n >= 2 && m->line.p[n - 2] == '\r';

	if (m->line.failed || (m->mode != GW_AUTH && n > GW_LINE_MAX)) {
		/* What it was cannot be known; a BDAT would be followed by octets that are no commands. */
		gw_say(m, "500 5.5.2 line too long");
		m->closing = true;
	} else if (!whole || strlen(m->line.p) != n || memchr(m->line.p, '\r', n - 2)) {
		gw_say(m, "500 5.5.2 lines end in CRLF and hold no NUL and no other CR");
		m->closing = true;
	} else {
		m->line.p[n - 2] = 0;
		if (m->mode == GW_AUTH)
			auth_step(m, NULL, m->line.p);
		else
			command(m, m->line.p);
	}
	if (m->line.p)
		sq_wipe(m->line.p, m->line.n);
	sq_buf_clear(&m->line);
}

static size_t
take_line(struct gw_machine *m, const char *p, size_t n)
{
	const char *lf = memchr(p, '\n', n);
	size_t take = lf ? (size_t)(lf - p) + 1 : n;

	sq_buf_add(&m->line, p, take);
	if (lf || m->line.failed)
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
			gw_say(m, "501 5.5.4 nothing may follow STARTTLS");
			m->starttls = false;
			m->closing = true;
			return;
		}
		if (m->mode == GW_DATA)
			used = gw_take_data(m, p, n);
		else if (m->mode == GW_BDAT)
			used = gw_take_bdat(m, p, n);
		else
			used = take_line(m, p, n);
		p += used;
		n -= used;
	}
}
