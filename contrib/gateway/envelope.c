/*
 * MAIL and RCPT: addresses, parameters, transaction ids. Everything is
 * bounded, and what is not understood is refused: a parameter that this
 * program would drop silently could be one that the sender relies on.
 */
#include "gateway.h"

#include <ctype.h>
#include <inttypes.h>

/*
 * `<address>` at *s; copies it without brackets and moves on behind them. A
 * quoted local part may hold what else would end the path.
 */
static bool
parse_path(char **s, char *out)
{
	char *p = *s, *c;
	bool quoted = false;

	while (*p == ' ')
		p++;
	if (*p++ != '<')
		return false;
	for (c = p; *c && (quoted || *c != '>'); c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f || (!quoted && (*c == ' ' || *c == '<')))
			return false;
		if (quoted && *c == '\\' && c[1])
			c++;
		else if (*c == '"')
			quoted = !quoted;
	}
	if (*c != '>' || c - p > GW_ADDRESS_MAX || (c[1] && c[1] != ' '))
		return false;
	memcpy(out, p, (size_t)(c - p));
	out[c - p] = 0;
	*s = c + 1;
	return true;
}

/* Octets beyond ASCII need SMTPUTF8 on MAIL. */
static bool
ascii_or_utf8(const struct gw_machine *m, const char *address)
{
	for (; *address; address++)
		if ((unsigned char)*address >= 0x80 && !m->env.utf8)
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

/* xtext (RFC 3461 section 4) and the like: visible ASCII. */
static bool
visible(const char *s)
{
	for (; *s; s++)
		if (*s <= ' ' || *s >= 0x7f)
			return false;
	return true;
}

struct param {
	struct gw_machine *m;
	const char *value;
	struct sq_buf *params;   /* what goes on to the backend */
};

static const char *
param_size(struct param *p)
{
	char *end;

	if (!p->value || !gw_parse_number(p->value, &end, &p->m->env.declared) || *end)
		return "501 5.5.4 SIZE needs a number";
	return p->m->env.declared > p->m->max_size_bytes ? "552 5.3.4 message too large" : NULL;
}

static const char *
param_body(struct param *p)
{
	if (!p->value || (strcasecmp(p->value, "7BIT") != 0 && strcasecmp(p->value, "8BITMIME") != 0) ||
	    !(p->m->features & GW_HAS_8BITMIME))
		return "501 5.5.4 BODY is not to be had so";
	sq_buf_addf(p->params, " BODY=%s", p->value[0] == '7' ? "7BIT" : "8BITMIME");
	return NULL;
}

static const char *
param_transid(struct param *p)
{
	if (!p->value || p->m->env.transid[0] || !transid_good(p->value))
		return "501 5.5.4 TRANSID is not as RFC 1845 has it";
	memcpy(p->m->env.transid, p->value, strlen(p->value) + 1);
	return NULL;
}

static const char *
param_xresend(struct param *p)
{
	p->m->env.resend = true;
	return p->value ? "501 5.5.4 XRESEND takes no value" : NULL;
}

static const char *
param_smtputf8(struct param *p)
{
	if (p->value || !(p->m->features & GW_HAS_SMTPUTF8))
		return "555 5.5.4 no such parameter";
	p->m->env.utf8 = true;
	sq_buf_adds(p->params, " SMTPUTF8");
	return NULL;
}

static const char *
param_ret(struct param *p)
{
	if (!(p->m->features & GW_HAS_DSN) || !p->value || (strcasecmp(p->value, "FULL") != 0 && strcasecmp(p->value, "HDRS") != 0))
		return "501 5.5.4 RET is not to be had so";
	sq_buf_addf(p->params, " RET=%s", p->value);
	return NULL;
}

static const char *
param_envid(struct param *p)
{
	if (!(p->m->features & GW_HAS_DSN) || !p->value || strlen(p->value) > 100 || !visible(p->value))
		return "501 5.5.4 ENVID is not to be had so";
	sq_buf_addf(p->params, " ENVID=%s", p->value);
	return NULL;
}

/* RFC 4954 section 5: who is said to have sent it counts for nothing here; the login does. */
static const char *
param_auth(struct param *p)
{
	(void)p;
	return NULL;
}

static const char *
param_notify(struct param *p)
{
	if (!(p->m->features & GW_HAS_DSN) || !p->value || strlen(p->value) > 40 ||
	    strspn(p->value, "NEVRSUCFAILDYneversucfaildy,") != strlen(p->value))
		return "501 5.5.4 NOTIFY is not to be had so";
	sq_buf_addf(p->params, " NOTIFY=%s", p->value);
	return NULL;
}

static const char *
param_orcpt(struct param *p)
{
	if (!(p->m->features & GW_HAS_DSN) || !p->value || strlen(p->value) > 500 || !visible(p->value))
		return "501 5.5.4 ORCPT is not to be had so";
	sq_buf_addf(p->params, " ORCPT=%s", p->value);
	return NULL;
}

struct known {
	const char *word;
	const char *(*take)(struct param *p);   /* NULL when it is fine, else the reply */
};

static const struct known mail_params[] = {
	{ "SIZE", param_size }, { "BODY", param_body }, { "TRANSID", param_transid }, { "XRESEND", param_xresend },
	{ "SMTPUTF8", param_smtputf8 }, { "RET", param_ret }, { "ENVID", param_envid }, { "AUTH", param_auth }, { NULL, NULL },
};
static const struct known rcpt_params[] = { { "NOTIFY", param_notify }, { "ORCPT", param_orcpt }, { NULL, NULL } };

/* All parameters of a command. NULL when they are fine, else the reply. */
static const char *
parse_params(struct gw_machine *m, const struct known *known, char *arg, char out[GW_PARAMS_MAX])
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf params = SQ_BUF_INIT(GW_PARAMS_MAX - 1);
	char *save = NULL;

	for (char *word = strtok_r(arg, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		const struct known *k = known;
		struct param p = { m, strchr(word, '='), &params };
		size_t n = p.value ? (size_t)(p.value++ - word) : strlen(word);
		const char *bad;

		while (k->word && (strlen(k->word) != n || strncasecmp(k->word, word, n) != 0))
			k++;
		bad = k->word ? k->take(&p) : "555 5.5.4 no such parameter";
		if (bad)
			return bad;
	}
	if (params.failed)
		return "501 5.5.4 too many parameters";
	memcpy(out, params.n ? params.p : "", params.n + 1);
	return NULL;
}

void
gw_do_mail(struct gw_machine *m, char *arg)
{
	struct gw_envelope *env = &m->env;
	struct gw_reply reply = { "" };
	const char *bad;

	if (!m->greeted || !m->authenticated) {
		gw_refuse(m, m->greeted ? "530 5.7.0 log in first" : "503 5.5.1 EHLO first");
		return;
	}
	/* After a verdict a new MAIL says that the client knows it (RFC 1845 section 3). */
	if (m->open && !m->settled) {
		gw_refuse(m, "503 5.5.1 a transaction is under way: RSET first");
		return;
	}
	gw_transaction_drop(m);
	env->transid[0] = 0;
	env->declared = 0;
	env->resend = env->utf8 = false;
	if (strncasecmp(arg, "FROM:", 5) != 0 || (arg += 5, !parse_path(&arg, env->sender))) {
		gw_refuse(m, "501 5.1.7 MAIL FROM:<address>");
		return;
	}
	if ((bad = parse_params(m, mail_params, arg, env->params))) {
		gw_refuse(m, bad);
		return;
	}
	if (!ascii_or_utf8(m, env->sender)) {
		gw_refuse(m, "553 5.6.7 such an address needs SMTPUTF8");
		return;
	}
	switch (m->ops->mail(m->ctx, env, &reply)) {
	case GW_RESUMED:
		m->resumed = true;
		m->open = true;
		gw_say(m, reply.text);
		break;
	case GW_FRESH:
		m->open = true;
		gw_say(m, reply.text);
		break;
	case GW_REFUSED:
		gw_refuse(m, reply.text);
		break;
	}
}

void
gw_do_rcpt(struct gw_machine *m, char *arg)
{
	char address[GW_ADDRESS_MAX + 1], params[GW_PARAMS_MAX];
	struct gw_reply reply = { "" };
	const char *bad;

	if (!m->open || m->settled) {
		gw_refuse(m, "503 5.5.1 MAIL first");
	} else if (strncasecmp(arg, "TO:", 3) != 0 || (arg += 3, !parse_path(&arg, address)) || !*address) {
		gw_refuse(m, "501 5.1.3 RCPT TO:<address>");
	} else if ((bad = parse_params(m, rcpt_params, arg, params))) {
		gw_refuse(m, bad);
	} else if (m->resumed || m->writing) {
		/* The set was settled in the session that was cut. */
		if (m->ops->has_rcpt(m->ctx, address))
			gw_say(m, "250 2.1.5 recipient known");
		else
			gw_refuse(m, "503 5.5.1 the recipients of this message are settled");
	} else if (!ascii_or_utf8(m, address)) {
		gw_refuse(m, "553 5.6.7 such an address needs SMTPUTF8");
	} else if (m->ops->rcpt(m->ctx, address, params, &reply)) {
		m->rcpt_any = true;
		gw_say(m, reply.text);
	} else {
		gw_refuse(m, reply.text);
	}
}
