/*
 * Backends that are a real MTA. Passthrough: the client's AUTH is the
 * backend's, word for word. Trusted: the gateway has asked for a password of
 * its own and tells the backend by XCLIENT who the client is. Both accept MAIL and RCPT only
 * with the backend's 250 and give the backend's verdict; nothing is queued here.
 */
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <unistd.h>

#include <sendq/io.h>
#include <sendq/log.h>

enum { WORDS_MAX = 64 * 1024 };

struct gw_relay {
	const struct gw_settings *s;
	const char *client;
	struct wire_place place;
	bool trusted, local;           /* local: nobody logs in */
	struct wire wire;
	struct gw_auth passwords;      /* trusted: the password file */
	struct sq_buf words;           /* passthrough: what the client said in AUTH, each with its NUL, the mechanism first */
	char identity[GW_NAME_MAX + 1], ehlo[GW_NAME_MAX + 1];
	bool ready;                    /* the backend knows who it is */
	bool open;                     /* MAIL was accepted on this connection */
	size_t rcpts;                  /* accepted since */
};

/* ---- who it is */

/* Decode a response into `out`; the first `user` of it by the mechanism's own form. */
static bool
identity_of(struct gw_relay *r, char out[GW_NAME_MAX + 1])
{
	const char *mech = r->words.p, *first = mech + strlen(mech) + 1;
	char text[8192];
	const char *user = text, *end;
	int n = first < r->words.p + r->words.n ? gw_base64(first, text, sizeof(text)) : -1;
	size_t size;

	if (n <= 0)
		return false;
	end = text + n;
	if (strcasecmp(mech, "PLAIN") == 0) {
		/* Who acts for somebody else would be bound to the wrong state. */
		user = text + strlen(text) + 1;
		if (user >= end || (text[0] && strcmp(text, user) != 0))
			user = "";
	} else if (strcasecmp(mech, "XOAUTH2") == 0) {
		user = strncmp(text, "user=", 5) == 0 ? text + 5 : "";
	} else if (strcasecmp(mech, "OAUTHBEARER") == 0) {
		user = strstr(text, ",a=");
		user = user ? user + 3 : "";
	}
	size = strcspn(user, strcasecmp(mech, "OAUTHBEARER") == 0 ? ",\1" : "\1");
	if (size == 0 || size > GW_NAME_MAX) {
		sq_wipe(text, sizeof(text));
		return false;
	}
	memcpy(out, user, size);
	out[size] = 0;
	sq_wipe(text, sizeof(text));
	return true;
}

static void
keep(struct gw_relay *r, const char *word)
{
	sq_buf_add(&r->words, word, strlen(word) + 1);
}

static enum gw_step
answered(struct gw_relay *r, char identity[GW_NAME_MAX + 1], struct gw_reply *reply)
{
	if (r->wire.dead) {
		gw_reply_set(reply, "454 4.7.0 no answer from where mail goes");
		return GW_NO;
	}
	if (gw_reply_is(reply, '3'))
		return GW_MORE;
	if (!gw_reply_is(reply, '2'))
		return GW_NO;
	if (r->words.failed || !identity_of(r, identity)) {
		wire_close(&r->wire);
		gw_reply_set(reply, "535 5.7.8 it is not clear who that is");
		return GW_NO;
	}
	memcpy(r->identity, identity, sizeof(r->identity));
	r->ready = true;
	return GW_YES;
}

static bool
connect_backend(struct gw_relay *r)
{
	struct sq_error err = { 0 };

	r->ready = r->open = false;
	r->rcpts = 0;
	if (wire_open(&r->wire, r->s, &r->place, &err) == SQ_OK)
		return true;
	sq_log(SQ_LOG_ERROR, "backend error=%s text=\"%s\"", sq_err_name(err.code), err.text);
	r->wire.dead = true;
	return false;
}

static enum gw_step
pass_auth(void *ctx, const char *mech, const char *words, char identity[GW_NAME_MAX + 1], struct gw_reply *reply)
{
	struct gw_relay *r = ctx;

	if (mech) {
		sq_buf_wipe(&r->words);
		keep(r, mech);
		if ((r->wire.fd >= 0 && !r->wire.dead) || connect_backend(r)) {
			if (words)
				keep(r, words);
			(void)wire_command(&r->wire, reply, "AUTH %s%s%s", mech, words ? " " : "", words && !*words ? "=" : words ? words : "");
		}
	} else {
		keep(r, words);
		(void)wire_command(&r->wire, reply, "%s", words);
	}
	return answered(r, identity, reply);
}

static enum gw_step
trusted_auth(void *ctx, const char *mech, const char *words, char identity[GW_NAME_MAX + 1], struct gw_reply *reply)
{
	struct gw_relay *r = ctx;
	enum gw_step step = gw_auth_local(&r->passwords, mech, words, identity, reply);

	if (step == GW_YES)
		memcpy(r->identity, identity, sizeof(r->identity));
	return step;
}

/* The same login on a new connection. */
static bool
replay(struct gw_relay *r)
{
	const char *p = r->words.p, *end = p ? p + r->words.n : NULL;
	struct gw_reply reply;
	bool first = true;

	if (!p || r->words.failed)
		return false;
	for (p += strlen(p) + 1; p < end; p += strlen(p) + 1) {
		bool said;

		/* The client may have sent its first word behind a 334; with the mechanism it is the same. */
		if (first)
			said = wire_command(&r->wire, &reply, "AUTH %s %s", r->words.p, *p ? p : "=");
		else
			said = wire_command(&r->wire, &reply, "%s", p);
		first = false;
		if (!said || !(gw_reply_is(&reply, '3') || gw_reply_is(&reply, '2')))
			return false;
	}
	return !first && gw_reply_is(&reply, '2');
}

/* RFC 3461's xtext, which XCLIENT uses too. */
static void
xtext(struct sq_buf *b, const char *s)
{
	for (; *s; s++) {
		if (*s > ' ' && *s < 0x7f && *s != '+' && *s != '=')
			sq_buf_addc(b, *s);
		else
			sq_buf_addf(b, "+%02X", (unsigned)(unsigned char)*s);
	}
}

static bool
say_xclient(struct gw_relay *r, const char *client, const char *ehlo, const char *login)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf line = SQ_BUF_INIT(2048);
	struct gw_reply reply;
	struct in_addr v4;

	if (!(r->wire.offers & WIRE_XCLIENT))
		return false;
	sq_buf_addf(&line, "XCLIENT NAME=[UNAVAILABLE] ADDR=%s%s PROTO=ESMTP", inet_pton(AF_INET, client, &v4) == 1 ? "" : "IPV6:", client);
	if (*ehlo) {
		sq_buf_adds(&line, " HELO=");
		xtext(&line, ehlo);
	}
	if (*login) {
		sq_buf_adds(&line, " LOGIN=");
		xtext(&line, login);
	}
	return !line.failed && wire_command(&r->wire, &reply, "%s", line.p) && gw_reply_is(&reply, '2') &&
	       wire_ehlo(&r->wire, r->s, NULL) == SQ_OK;
}

/* A connection on which MAIL may be said. */
static bool
make_ready(struct gw_relay *r)
{
	if (r->wire.fd >= 0 && !r->wire.dead && r->ready)
		return true;
	if (!connect_backend(r))
		return false;
	r->ready = r->local || (r->trusted ? say_xclient(r, r->client, r->ehlo, r->identity) : replay(r));
	if (!r->ready)
		sq_log(SQ_LOG_ERROR, "backend error=%s", r->trusted ? "xclient" : "login");
	return r->ready;
}

/* ---- envelope */

static void
unreachable(struct gw_reply *reply)
{
	gw_reply_set(reply, "451 4.3.0 where mail goes cannot be reached at the moment");
}

static bool
say_mail(struct gw_relay *r, const struct gw_envelope *env, int64_t size, struct gw_reply *reply)
{
	char size_param[32] = "";

	if (r->open) {
		(void)wire_command(&r->wire, reply, "RSET");
		r->open = false;
	}
	if (size > 0 && (r->wire.offers & WIRE_SIZE))
		snprintf(size_param, sizeof(size_param), " SIZE=%lld", (long long)size);
	r->rcpts = 0;
	r->open = wire_command(&r->wire, reply, "MAIL FROM:<%s>%s%s", env->sender, size_param, env->params) && gw_reply_is(reply, '2');
	/* Hung up since the last message: one more try, on a connection that is new. */
	if (r->wire.dead || strncmp(reply->text, "421", 3) == 0) {
		r->wire.dead = true;
		if (!make_ready(r)) {
			unreachable(reply);
			return false;
		}
		r->open = wire_command(&r->wire, reply, "MAIL FROM:<%s>%s%s", env->sender, size_param, env->params) &&
			  gw_reply_is(reply, '2');
	}
	if (r->wire.dead || gw_reply_is(reply, '3'))
		unreachable(reply);
	return r->open;
}

static bool
do_mail(void *ctx, const struct gw_envelope *env, struct gw_reply *reply)
{
	struct gw_relay *r = ctx;

	memcpy(r->ehlo, env->ehlo, sizeof(r->ehlo));
	if (!make_ready(r)) {
		unreachable(reply);
		return false;
	}
	return say_mail(r, env, env->declared, reply);
}

static bool
do_rcpt(void *ctx, const char *address, const char *params, struct gw_reply *reply)
{
	struct gw_relay *r = ctx;
	bool good = r->open && wire_command(&r->wire, reply, "RCPT TO:<%s>%s", address, params) && gw_reply_is(reply, '2');

	if (!r->open || r->wire.dead || gw_reply_is(reply, '3'))
		unreachable(reply);
	r->rcpts += good;
	return good;
}

/* The whole envelope, where what was said at MAIL and RCPT is not what is to be said now. */
static bool
say_envelope(struct gw_relay *r, const struct gw_message *m, struct gw_reply *reply)
{
	memcpy(r->ehlo, m->env->ehlo, sizeof(r->ehlo));
	if (!make_ready(r)) {
		unreachable(reply);
		return false;
	}
	if (!say_mail(r, m->env, m->octets, reply))
		return false;
	for (size_t i = 0; i < m->rcpts; i++)
		if (!m->rcpt[i].skip && !do_rcpt(r, m->rcpt[i].address, m->rcpt[i].params, reply))
			return false;
	return true;
}

/* ---- content */

enum { SENDING_BYTES = 32 * 1024 };

/* The content on its way: as it is for BDAT, with dots doubled at the start of lines for DATA. */
struct sending {
	struct gw_relay *r;
	const struct gw_message *m;
	bool stuff, bol;
	bool ended;            /* what the backend accepts it by is on its way */
	struct sq_buf text;    /* not sent yet: small pieces go together */
};

static enum sq_err
flush(struct sending *s, size_t n, struct sq_error *err)
{
	if (s->text.failed)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (!wire_send(&s->r->wire, s->text.p, n))
		return sq_error_set(err, SQ_EIO, "the backend hung up");
	sq_buf_consume(&s->text, n);
	return SQ_OK;
}

/* The last octet stays here until the end, for by it BDAT LAST is accepted. */
static enum sq_err
send_piece(void *ctx, const char *p, size_t n, struct sq_error *err)
{
	struct sending *s = ctx;
	const char *end = p + n;

	if (!s->stuff)
		sq_buf_add(&s->text, p, n);
	while (s->stuff && p < end) {
		const char *lf = memchr(p, '\n', (size_t)(end - p)), *to = lf ? lf + 1 : end;

		if (s->bol && *p == '.')
			sq_buf_addc(&s->text, '.');
		sq_buf_add(&s->text, p, (size_t)(to - p));
		s->bol = lf != NULL;
		p = to;
	}
	return s->text.n > SENDING_BYTES || s->text.failed ? flush(s, s->text.n - 1, err) : SQ_OK;
}

/* All but the last octet, the store's word, and that octet. SQ_EPERM: the store did not want it. */
static enum sq_err
send_end(struct sending *s, struct gw_reply *reply)
{
	enum sq_err e;

	if (s->stuff)
		sq_buf_adds(&s->text, s->bol ? ".\r\n" : "\r\n.\r\n");
	/* Where nothing is to be said to the store, a small message goes in one piece: to wake the backend twice is dear. */
	if (s->m->commit && (s->text.n == 0 || flush(s, s->text.n - 1, NULL) != SQ_OK))
		return SQ_EIO;
	if (s->m->commit && s->m->commit(s->m->source, NULL) != SQ_OK)
		return SQ_EPERM;
	/* One octet goes whole or not at all; of more, a part may be with the backend. */
	s->ended = s->text.n > 1;
	if ((e = flush(s, s->text.n, NULL)) != SQ_OK)
		return e;
	s->ended = true;
	return wire_reply(&s->r->wire, reply) ? SQ_OK : SQ_EIO;
}

static enum sq_err
send_data(struct sending *s, struct gw_reply *reply)
{
	enum sq_err e;

	s->stuff = s->bol = true;
	if (!wire_command(&s->r->wire, reply, "DATA") || !gw_reply_is(reply, '3'))
		return s->r->wire.dead ? SQ_EIO : SQ_OK;
	if ((e = send_piece(s, s->m->trace, strlen(s->m->trace), NULL)) != SQ_OK ||
	    (e = s->m->read(s->m->source, send_piece, s, NULL)) != SQ_OK)
		return e;
	return send_end(s, reply);
}

static enum sq_err
send_bdat(struct sending *s, struct gw_reply *reply)
{
	enum sq_err e;

	sq_buf_addf(&s->text, "BDAT %lld LAST\r\n%s", (long long)strlen(s->m->trace) + (long long)s->m->octets, s->m->trace);
	if ((e = s->m->read(s->m->source, send_piece, s, NULL)) != SQ_OK)
		return e;
	return send_end(s, reply);
}

static enum sq_err
send_content(struct gw_relay *r, const struct gw_message *m, struct gw_reply *reply, bool *ended)
{
	struct sending s = { .r = r, .m = m, .text = SQ_BUF_INIT(1 << 20) };
	enum sq_err e;

	reply->text[0] = 0;
	e = r->wire.offers & WIRE_CHUNKING ? send_bdat(&s, reply) : send_data(&s, reply);
	*ended = s.ended;
	sq_buf_fini(&s.text);
	if (e != SQ_OK && !r->wire.dead) {
		/* Our own disk failed in the middle, or the store did not want it sent: the backend must not take it for the whole. */
		r->wire.dead = true;
	}
	r->open = false;
	return e;
}

static bool
as_it_stands(const struct gw_relay *r, const struct gw_message *m)
{
	if (!r->open || r->wire.dead || r->rcpts != m->rcpts)
		return false;
	for (size_t i = 0; i < m->rcpts; i++)
		if (m->rcpt[i].skip)
			return false;
	return true;
}

/*
 * A connection that was idle while a slow client sent may have been closed: what
 * fails before the end of the content was accepted by nobody, and is tried
 * once more from the start.
 */
static bool
do_deliver(void *ctx, const struct gw_message *m, struct gw_reply *reply)
{
	struct gw_relay *r = ctx;
	bool stands, ended = false;
	enum sq_err e;

	/* Who speaks unasked says 421 or has hung up. */
	r->wire.dead = r->wire.dead || (r->open && !wire_quiet(&r->wire));
	stands = as_it_stands(r, m);
	if (!stands && !say_envelope(r, m, reply))
		return true;
	e = send_content(r, m, reply, &ended);
	if (stands && !ended && e != SQ_EPERM && (e != SQ_OK || strncmp(reply->text, "421", 3) == 0)) {
		r->wire.dead = true;
		if (!say_envelope(r, m, reply))
			return true;
		e = send_content(r, m, reply, &ended);
	}
	if (ended && (e != SQ_OK || gw_reply_is(reply, '3'))) {
		r->wire.dead = true;
		gw_reply_set(reply, "451 4.4.2 where mail goes gave no verdict");
		return false;
	}
	/* What is accepted before all of it was sent is not this message. */
	if (e != SQ_OK || (!ended && gw_reply_is(reply, '2'))) {
		r->wire.dead = true;
		unreachable(reply);
	}
	return true;
}

static void
do_reset(void *ctx)
{
	struct gw_relay *r = ctx;
	struct gw_reply reply;

	if (r->open && !r->wire.dead)
		(void)wire_command(&r->wire, &reply, "RSET");
	r->open = false;
	r->rcpts = 0;
}

static void
do_close(void *ctx)
{
	struct gw_relay *r = ctx;

	/* Not waiting for the 221: it tells nothing. */
	if (r->wire.fd >= 0 && !r->wire.dead)
		(void)wire_send(&r->wire, "QUIT\r\n", 6);
	wire_close(&r->wire);
	sq_buf_wipe(&r->words);
	free(r);
}

static struct gw_relay
made(const struct gw_settings *s, const char *client, bool local)
{
	struct gw_relay r = { .s = s, .client = client, .wire = WIRE_INIT, .trusted = s->trusted && !local, .local = local,
		.passwords = { .passwords = s->passwords }, .words = SQ_BUF_INIT(WORDS_MAX) };

	r.place = local ? (struct wire_place){ s->local_host, s->local_port, s->local_tls } :
			  (struct wire_place){ s->backend_host, s->backend_port, s->backend_tls };
	return r;
}

static enum sq_err
relay_new(struct gw_relay init, struct gw_backend *out, struct sq_error *err)
{
	struct gw_relay *r = malloc(sizeof(*r));

	if (!r)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	*r = init;
	*out = (struct gw_backend){ .ctx = r, .mechanisms = r->trusted ? "PLAIN LOGIN" : r->s->backend_mechanisms,
		.features = r->s->backend_features, .auth = r->trusted ? trusted_auth : pass_auth, .mail = do_mail, .rcpt = do_rcpt,
		.deliver = do_deliver, .reset = do_reset, .close = do_close };
	return SQ_OK;
}

enum sq_err
gw_relay_backend(const struct gw_settings *s, const char *client, struct gw_backend *out, struct sq_error *err)
{
	return relay_new(made(s, client, false), out, err);
}

enum sq_err
gw_relay_local(const struct gw_settings *s, struct gw_backend *out, struct sq_error *err)
{
	return relay_new(made(s, "127.0.0.1", true), out, err);
}

/* ---- the probe */

static enum sq_err
probe(struct gw_relay *r, bool as_stranger, struct sq_error *err)
{
	const char *to = r->s->probe_recipient;
	struct gw_reply reply;
	enum sq_err e = wire_open(&r->wire, r->s, &r->place, err);

	if (e != SQ_OK)
		return e;
	if (as_stranger && !say_xclient(r, "198.51.100.1", "stranger.invalid", ""))
		return sq_error_set(err, SQ_EINVAL, "the backend does not let us say XCLIENT with ADDR and LOGIN");
	if (wire_command(&r->wire, &reply, "MAIL FROM:<>") && gw_reply_is(&reply, '2') &&
	    wire_command(&r->wire, &reply, "RCPT TO:<%s>", to) && gw_reply_is(&reply, '2'))
		return sq_error_set(err, SQ_EPERM, "the backend relays to '%s' for %s: not in front of an open relay", to,
		    as_stranger ? "a stranger named by XCLIENT" : "whoever did not log in");
	if (reply.text[0] == 0)
		return sq_error_set(err, SQ_EIO, "the backend hung up at the probe");
	return SQ_OK;
}

/* What of this the gateway can pass on. */
static void
learn_mechanisms(struct gw_settings *s, const char *offered)
{
	static const char *const known[] = { "PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER" };
	size_t used = 0;

	for (size_t i = 0; i < SQ_LEN(known); i++) {
		size_t n = strlen(known[i]);

		for (const char *p = offered; *p; p += strspn(p, " ")) {
			size_t word = strcspn(p, " ");

			if (word == n && strncasecmp(p, known[i], n) == 0 && used + n + 2 < sizeof(s->backend_mechanisms))
				used += (size_t)snprintf(s->backend_mechanisms + used, sizeof(s->backend_mechanisms) - used, "%s%s",
				    used ? " " : "", known[i]);
			p += word;
		}
	}
}

enum sq_err
gw_relay_probe(struct gw_settings *s, struct sq_error *err)
{
	struct gw_relay r = made(s, "", false);
	unsigned offers;
	enum sq_err e = probe(&r, false, err);

	offers = r.wire.offers;
	s->backend_features = (offers & WIRE_8BITMIME ? GW_HAS_8BITMIME : 0) | (offers & WIRE_SMTPUTF8 ? GW_HAS_SMTPUTF8 : 0) |
			      (offers & WIRE_DSN ? GW_HAS_DSN : 0);
	if (e == SQ_OK && !s->trusted) {
		learn_mechanisms(s, r.wire.mechanisms);
		if (!s->backend_mechanisms[0])
			e = sq_error_set(err, SQ_EINVAL, "the backend offers no AUTH that could be passed on");
	}
	if (e == SQ_OK && s->trusted)
		e = probe(&r, true, err);
	wire_close(&r.wire);
	return e;
}

enum sq_err
gw_relay_local_probe(const struct gw_settings *s, struct sq_error *err)
{
	struct gw_relay r = made(s, "", true);
	enum sq_err e = probe(&r, false, err);

	wire_close(&r.wire);
	return e == SQ_OK ? e : sq_error_wrap(err, e, "local_server");
}
