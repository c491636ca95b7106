/*
 * A route: the secret, each part of the way to its server, what the server
 * can do, and the folder of sent mail. The agent connects and parses; here its
 * stages are judged and put into words.
 */
#include <inttypes.h>
#include <sys/types.h>

#include <sendq/io.h>
#include <sendq/probe.h>

#include "doctor.h"

#define DAY INT64_C(86400)

enum { EXPIRES_SOON_D = 14, CLOCK_OFF_MS = 300000, SLOW_MS = 10000 };

struct visit {
	struct doctor *d;
	bool imap;
	bool seen[SQ_STAGE_COUNT];
	bool certificate_bad;
	char pin[80];            /* of what the server showed */
};

static const char *
check_of(const struct visit *v, enum sq_stage_kind kind)
{
	static const char *const smtp[] = { "name", "connect", "tls", "greeting", "ehlo", "login" };
	static const char *const imap[] = { "imap name", "imap connect", "imap tls", "imap greeting", "imap ehlo", "imap login" };

	return v->imap ? imap[kind] : smtp[kind];
}

/* ---- as it goes ---- */

static void
compare_clocks(struct doctor *d, uint64_t server_ms)
{
	int64_t off = sq_wall_ms() - (int64_t)server_ms;
	char span[32];

	text_ago(off < 0 ? -off : off, span);
	if (off > CLOCK_OFF_MS || off < -CLOCK_OFF_MS)
		doctor_sayf(d, "server clock", VERDICT_WARNING, -1, "set this machine's clock, if it is the one that is wrong: certificates and tokens depend on it",
			"this machine is %s %s", span, off > 0 ? "ahead of the server" : "behind the server");
	else
		doctor_sayf(d, "server clock", VERDICT_OK, -1, NULL, "agrees with this machine's to %s", span);
}

static void
on_stage(void *arg, const struct sq_stage *s)
{
	struct visit *v = arg;
	SQ_CLEANUP(sq_freep) char *words = sq_str_dup(s->words);
	struct finding f = { check_of(v, s->kind), s->ms > SLOW_MS ? VERDICT_WARNING : VERDICT_OK, s->ms, words, NULL, NULL };
	bool again = v->seen[s->kind];

	v->seen[s->kind] = true;
	if (s->kind == SQ_STAGE_EHLO)
		return; /* "capabilities" has it */
	if (s->kind == SQ_STAGE_LOGIN && s->words.n == 0)
		f.what = "accepted";
	if (!again)
		doctor_say(v->d, &f);
	if (s->kind == SQ_STAGE_GREETING && s->server_ms > 0)
		compare_clocks(v->d, s->server_ms);
}

static void
date_of(uint64_t s, char out[16])
{
	time_t t = (time_t)s;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || strftime(out, 16, "%Y-%m-%d", &tm) == 0)
		snprintf(out, 16, "?");
}

static int
width(struct sq_str s, int max)
{
	return s.n < (size_t)max ? (int)s.n : max;
}

static void
on_certificate(void *arg, const struct sq_certificate *c)
{
	struct visit *v = arg;
	int64_t left = (int64_t)c->not_after_s - sq_wall_ms() / 1000;
	SQ_CLEANUP(sq_freep) char *problem = sq_str_dup(c->problem);
	struct finding f = { v->imap ? "imap certificate" : "certificate", VERDICT_OK, -1, NULL, problem, NULL };
	struct sq_str whom = c->names.n > 0 ? c->names : c->subject.n > 0 ? c->subject : SQ_STR("nobody");
	char what[2048], until[16], hex[65], mend[256];

	date_of(c->not_after_s, until);
	sq_hex(c->sha256, sizeof(c->sha256), hex);
	snprintf(v->pin, sizeof(v->pin), "sha256:%s", hex);
	snprintf(what, sizeof(what), "for %.*s, by %.*s, until %s%s", width(whom, 800), whom.p, width(c->issuer, 600), c->issuer.p ? c->issuer.p : "?", until,
		v->d->route->fingerprint ? ", pinned by its fingerprint" : "");
	f.what = what;
	if (c->problem.n > 0) {
		v->certificate_bad = true;
		f.verdict = VERDICT_FAILED;
		if (left < 0)
			snprintf(mend, sizeof(mend), "the provider must renew it; or this machine's clock is wrong");
		else if ((int64_t)c->not_before_s > sq_wall_ms() / 1000)
			snprintf(mend, sizeof(mend), "it is not valid yet: this machine's clock is behind");
		else
			snprintf(mend, sizeof(mend), "no trusted authority signed it. A captive portal? If it is your own server: ca_file = \"…\", or fingerprint = \"%s\"", v->pin);
		f.mend = mend;
	} else if (left < EXPIRES_SOON_D * DAY) {
		f.verdict = VERDICT_WARNING;
		snprintf(mend, sizeof(mend), "it ends in %" PRId64 " d: whoever runs the server must renew it", left / DAY);
		f.mend = mend;
	}
	doctor_say(v->d, &f);
}

/* ---- what failed ---- */

static enum sq_stage_kind
stage_of(const struct visit *v, const struct sq_probe_answer *a)
{
	switch (a->phase) {
	case SQ_PHASE_NONE:
	case SQ_PHASE_CONNECT:
		return v->seen[SQ_STAGE_NAME] ? SQ_STAGE_CONNECT : SQ_STAGE_NAME;
	case SQ_PHASE_TLS:
		return SQ_STAGE_TLS;
	case SQ_PHASE_GREETING:
		return SQ_STAGE_GREETING;
	case SQ_PHASE_AUTH:
		return SQ_STAGE_LOGIN;
	case SQ_PHASE_EHLO:
	case SQ_PHASE_MAIL:
	case SQ_PHASE_RCPT:
	case SQ_PHASE_DATA:
	case SQ_PHASE_CONTENT:
	case SQ_PHASE_TERMINATOR:
	case SQ_PHASE_VERDICT:
	case SQ_PHASE_COUNT:
		break;
	}
	return v->seen[SQ_STAGE_GREETING] ? SQ_STAGE_EHLO : SQ_STAGE_GREETING;
}

static const char *
mend_of(const struct visit *v, const struct sq_probe_answer *a)
{
	switch (a->outcome) {
	case SQ_OUTCOME_OFFLINE:
		return "connect this machine to a network; else look at the name in `server` and at the name service (resolvectl status)";
	case SQ_OUTCOME_UNREACHABLE:
		return "is the port right (465 smtps, 587 smtp)? Many networks block 25 and 587: try the other one, or another network";
	case SQ_OUTCOME_TLS:
		return "smtps:// is TLS from the start (port 465), smtp:// is STARTTLS (port 587): try the other one";
	case SQ_OUTCOME_CERTIFICATE:
		return v->certificate_bad ? NULL : "the certificate is for other names than the one in `server`, or not the one in `fingerprint`: set the server's real name";
	case SQ_OUTCOME_LOGIN:
		return "user and secret as the provider wants them? With two-factor login most want an app password or OAuth, and some want SMTP switched on in the account";
	case SQ_OUTCOME_LOGIN_LATER:
		return "the server says: later. Nothing to mend here";
	case SQ_OUTCOME_PROTOCOL:
		return "what answers is no mail server, or something between changes what it says";
	case SQ_OUTCOME_CUT:
	case SQ_OUTCOME_STALLED:
		return "the connection breaks while it is set up: a bad link, or a firewall that dislikes it";
	case SQ_OUTCOME_QUOTA:
		return "the provider's limit is reached; sendq waits and goes on by itself";
	case SQ_OUTCOME_RUNNING:
	case SQ_OUTCOME_ACCEPTED:
	case SQ_OUTCOME_MIXED:
	case SQ_OUTCOME_DEFERRED:
	case SQ_OUTCOME_REFUSED:
	case SQ_OUTCOME_DOUBT:
	case SQ_OUTCOME_SECRET:
	case SQ_OUTCOME_LOCAL:
	case SQ_OUTCOME_CANCELLED:
	case SQ_OUTCOME_COUNT:
		break;
	}
	return NULL;
}

static void
not_ready(struct visit *v, const struct sq_probe_answer *a, int64_t ms)
{
	char words[SQ_REPLY_TEXT_MAX + 32];
	struct finding f = { check_of(v, stage_of(v, a)), VERDICT_FAILED, ms, sq_outcome_name(a->outcome), words, mend_of(v, a) };

	if (a->code > 0)
		snprintf(words, sizeof(words), "%d %s", a->code, a->words);
	else
		snprintf(words, sizeof(words), "%s", a->words);
	doctor_say(v->d, &f);
}

static void
capabilities(struct visit *v, const struct sq_probe_answer *a)
{
	static const struct { uint32_t cap; const char *name; } known[] = {
		{ SQ_CAP_PIPELINING, "PIPELINING" }, { SQ_CAP_CHUNKING, "CHUNKING" }, { SQ_CAP_8BITMIME, "8BITMIME" }, { SQ_CAP_SMTPUTF8, "SMTPUTF8" },
		{ SQ_CAP_DSN, "DSN" }, { SQ_CAP_ENHANCED, "ENHANCEDSTATUSCODES" }, { SQ_CAP_BURL, "BURL" }, { SQ_CAP_CHECKPOINT, "CHECKPOINT" },
		{ SQ_CAP_XSENDQ, "XSENDQ" },
	};
	struct sq_buf b = SQ_BUF_INIT(2048);
	struct finding f = { "capabilities", VERDICT_OK, -1, NULL, a->ehlo, NULL };
	char size[16];

	for (size_t i = 0; i < SQ_LEN(known); i++)
		if (a->caps & known[i].cap)
			sq_buf_addf(&b, "%s%s", b.n > 0 ? " " : "", known[i].name);
	if (b.n == 0)
		sq_buf_adds(&b, "plain SMTP");
	text_size(a->size_limit, size);
	if (a->size_limit > 0)
		sq_buf_addf(&b, "; up to %s a message", size);
	if (!(a->caps & SQ_CAP_CHECKPOINT))
		sq_buf_adds(&b, "; no CHECKPOINT, so a broken upload starts again");
	if (!(a->caps & SQ_CAP_8BITMIME) && !v->d->route->eightbit_send) {
		f.verdict = VERDICT_WARNING;
		f.mend = "mail with 8-bit content would fail: eightbit = \"send\" sends it as it is";
	}
	f.what = b.p ? b.p : "";
	doctor_say(v->d, &f);
	sq_buf_fini(&b);
}

static void
sent_folder(struct visit *v, const struct sq_probe_answer *a)
{
	if (!a->asked)
		doctor_sayf(v->d, "sent folder", VERDICT_FAILED, -1, NULL, "the session ended: %s", a->words);
	else if (a->kind == SQ_EVIDENCE_POSITIVE)
		doctor_sayf(v->d, "sent folder", VERDICT_OK, -1, NULL, "'%s' can be asked about messages in doubt", a->quote);
	else
		doctor_sayf(v->d, "sent folder", VERDICT_WARNING, -1, "a folder marked \\Sent is needed; else leave out `imap`", "%s", a->quote);
}

static bool
visit(struct doctor *d, bool imap, bool login, struct sq_str secret)
{
	struct visit v = { .d = d, .imap = imap };
	SQ_CLEANUP(sq_freep) char *ehlo = NULL;
	struct sq_probe p = { .route = d->route, .imap = imap, .login = login, .secret = secret, .timeout_ms = d->c->cfg->connect_timeout_ms,
		.stage = on_stage, .certificate = on_certificate, .arg = &v };
	static struct sq_probe_answer a; /* large; one thread */
	struct sq_error err = { 0 };
	int64_t began = sq_boot_ms();
	char patience[32], waits[80];
	enum sq_err e;

	text_ago(p.timeout_ms, patience);
	snprintf(waits, sizeof(waits), "(waiting for the server, up to %s)", patience);
	if (d->c->q)
		(void)!sq_queue_ehlo_name(d->c->q, &ehlo, &err);
	p.ehlo_name = ehlo ? ehlo : "doctor.invalid";
	doctor_waits(d, d->visiting = waits);
	e = sq_probe(&p, &a, &err);
	doctor_waits(d, d->visiting = NULL);
	if (e != SQ_OK) {
		doctor_sayf(d, "agent", VERDICT_FAILED, sq_boot_ms() - began, "is sendq installed whole, with its folder of helpers?", "%s", err.text);
		return false;
	}
	if (!a.ready) {
		not_ready(&v, &a, sq_boot_ms() - began);
		return false;
	}
	if (imap && login)
		sent_folder(&v, &a);
	else if (!imap)
		capabilities(&v, &a);
	return true;
}

/* ---- the route as a whole ---- */

static bool
secret_of(struct doctor *d, struct sq_buf *secret)
{
	static const char *const kinds[] = { [SQ_SECRET_NONE] = "none", [SQ_SECRET_LITERAL] = "`password`", [SQ_SECRET_FILE] = "`password_file`",
		[SQ_SECRET_COMMAND] = "`password_command`", [SQ_SECRET_TOKEN_COMMAND] = "`token_command`", [SQ_SECRET_OAUTH] = "oauth", [SQ_SECRET_CREDENTIAL] = "`password_credential`" };
	const struct sq_route *r = d->route;
	struct sq_error err = { 0 };
	int64_t began = sq_boot_ms();
	struct finding f = { "secret", VERDICT_FAILED, 0, NULL, err.text, NULL };
	char what[128], mend[128];

	if (r->secret_kind == SQ_SECRET_NONE)
		return true;
	if (sq_probe_secret(r, d->c->terminal, secret, &err) == SQ_OK) {
		doctor_sayf(d, "secret", VERDICT_OK, sq_boot_ms() - began, NULL, "%s gives one", kinds[r->secret_kind]);
		return true;
	}
	if (r->secret_kind == SQ_SECRET_CREDENTIAL) {
		/* Not to this program: the daemon's own word is in the route's history. */
		doctor_sayf(d, "secret", VERDICT_SKIPPED, -1, NULL, "systemd gives the credential '%s' to the service sendqd alone", r->secret);
		return false;
	}
	snprintf(what, sizeof(what), "%s gives none", kinds[r->secret_kind]);
	f.what = what;
	f.ms = sq_boot_ms() - began;
	if (r->secret_kind == SQ_SECRET_OAUTH)
		snprintf(mend, sizeof(mend), "consent (again): sendq oauth %s", r->name);
	f.mend = r->secret_kind == SQ_SECRET_OAUTH ? mend : r->secret_kind == SQ_SECRET_FILE ? "write the password into the file, mode 0600" : "run the command by hand: it must print the secret and exit 0. Is the keyring unlocked?";
	doctor_say(d, &f);
	return false;
}

static void
history(struct doctor *d)
{
	struct sq_link_row row;
	char words[SQ_REPLY_TEXT_MAX + 32];
	struct finding f = { "history", VERDICT_WARNING, -1, "the runner has stopped trying this route", words, "when the cause is mended: sendq flush" };

	if (!d->c->q)
		return;
	link_of(d->c, d->route->name, &row);
	if (link_portal(&row))
		doctor_sayf(d, "network", VERDICT_WARNING, -1, "sign in with a browser; or sendq flush, which tries regardless",
			"NetworkManager says that this network asks for a sign-in (captive portal): the daemon waits");
	if (!row.stopped)
		return;
	if (row.reply_code > 0)
		snprintf(words, sizeof(words), "%d %s", row.reply_code, row.reply_text);
	else
		snprintf(words, sizeof(words), "%s", row.reply_text);
	doctor_say(d, &f);
}

void
doctor_route(struct doctor *d, const struct sq_route *route)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf secret = SQ_BUF_INIT(SQ_SECRET_MAX);
	char heading[512];
	bool login;

	d->route = NULL; /* the heading is the machine's own words */
	snprintf(heading, sizeof(heading), "Route %s, %s%s%s", route->name, route->server, route->proxy ? " by proxy " : "", route->proxy ? route->proxy : "");
	d->route = route;
	doctor_heading(d, heading);
	history(d);
	login = secret_of(d, &secret) && route->user;
	if (visit(d, false, login, (struct sq_str){ secret.p, secret.n }) && !login)
		doctor_sayf(d, "login", VERDICT_SKIPPED, -1, NULL, route->user ? "there is no secret to log in with" : "the route has no `user`");
	if (!route->imap)
		doctor_sayf(d, "sent folder", VERDICT_SKIPPED, -1, "imap = \"imaps://…\" lets sendq look there for messages in doubt", "the route has no `imap`");
	else if (login)
		visit(d, true, true, (struct sq_str){ secret.p, secret.n });
	else
		doctor_sayf(d, "sent folder", VERDICT_SKIPPED, -1, NULL, "not without a login");
}
