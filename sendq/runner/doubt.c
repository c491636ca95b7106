/*
 * Messages in doubt: when evidence is asked for and of whom, what an answer
 * means, and what is done when the policy says so. Whether a copy exists is
 * told by an agent; the policy itself is sq_doubt_decide().
 *
 * Time counts towards a decision only while the link of the route is usable:
 * from a contact that succeeded to the next that failed, and only while this
 * machine is awake.
 */
#include <stdlib.h>

#include <sendq/doubt.h>
#include <sendq/fault.h>
#include <sendq/io.h>
#include <sendq/link.h>
#include <sendq/log.h>

#include "inside.h"

enum {
	CALIBRATION = 3,             /* the last accepted messages that must all have been filed */
	EVIDENCE_RETRY_MS = 600000,  /* after evidence that could not be had */
	EVIDENCE_SESSION_MS = 300000,
	DAY_MS = 86400000,
	HEADER_MAX = 65536,
};

/* One question of an evidence session: a message in doubt, or one that was accepted and shows what the provider does. */
struct question {
	char *message_id;
	uint32_t traces;
	struct sq_message_id doubt;  /* v 0: calibration */
	bool answered;
	enum sq_evidence_kind answer;
	char source[64], quote[512], provider_id[256];
};

struct evidence {
	struct question *v;
	size_t n, next;
};

void
evidence_free(struct evidence *ev)
{
	for (size_t i = 0; ev && i < ev->n; i++)
		free(ev->v[i].message_id);
	if (ev)
		free(ev->v);
	free(ev);
}

/* ---- how long the link was usable ---- */

static struct link_use *
use_of(struct runner *r, const char *route)
{
	struct link_use *u;

	for (u = r->uses; u; u = u->next)
		if (strcmp(u->route, route) == 0)
			return u;
	if (!(u = calloc(1, sizeof(*u))))
		sq_bug("out of memory for a route");
	snprintf(u->route, sizeof(u->route), "%s", route);
	u->next = r->uses;
	r->uses = u;
	return u;
}

struct tick { struct runner *r; int64_t add_ms; };

static void
add_usable(void *arg, const struct sq_doubt *d)
{
	struct tick *t = arg;
	struct sq_doubt more = *d;
	struct sq_error err = { 0 };

	more.usable_ms += t->add_ms;
	if (sq_queue_doubt_put(t->r->q, &more, &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot note the time of a doubt: %s", err.text);
}

/* Add what has passed since the last look to every doubt of the route. */
static void
tick_route(struct runner *r, const char *route)
{
	struct link_use *u = use_of(r, route);
	int64_t now = sq_awake_ms();
	struct tick t = { r, now - u->counted_ms };
	struct sq_message_id any = { 0 };

	u->counted_ms = now;
	if (u->usable && t.add_ms > 0)
		(void)!sq_queue_doubts(r->q, route, any, add_usable, &t, NULL);
}

void
doubt_link(struct runner *r, const char *route, bool usable)
{
	struct link_use *u = use_of(r, route);

	if (u->usable == usable)
		return;
	tick_route(r, route);
	u->usable = usable;
	r->doubts_due = true;
}

void
doubt_free_uses(struct runner *r)
{
	while (r->uses) {
		struct link_use *u = r->uses;

		r->uses = u->next;
		free(u);
	}
}

/* ---- what is known of a provider ---- */

static enum sq_doubt_id
id_of(struct runner *r, const struct sq_route *route)
{
	SQ_CLEANUP(sq_freep) char *learned = NULL;

	(void)!sq_queue_learned(r->q, route->name, "message_id", &learned, NULL);
	return sq_doubt_id_of(route->message_id, learned, route->host);
}

static void
learn(struct runner *r, const char *route, const char *key, const char *value)
{
	SQ_CLEANUP(sq_freep) char *before = NULL;
	struct sq_error err = { 0 };

	if (sq_queue_learned(r->q, route, key, &before, NULL) == SQ_OK && before && strcmp(before, value) == 0)
		return;
	if (sq_queue_learn(r->q, route, key, value, sq_wall_ms(), &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot keep what was learned of route=%s: %s", route, err.text);
}

void
doubt_learn_reply(struct runner *r, const char *route, const char *message_id, struct sq_str provider_id)
{
	/* Office 365 names the Message-ID it gave, in angle brackets; a queue id is none. */
	if (provider_id.n > 4 && provider_id.p[0] == '<' && memchr(provider_id.p, '@', provider_id.n))
		learn(r, route, "message_id", sq_str_eq(provider_id, sq_str(message_id)) ? "kept" : "rewritten");
}

/* ---- asking ---- */

static uint32_t
count_traces(struct runner *r, struct sq_message_id id, uint64_t size)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf h = SQ_BUF_INIT(HEADER_MAX);
	uint32_t n = 0;

	if (sq_queue_read_content(r->q, id, 0, size < HEADER_MAX ? (size_t)size : HEADER_MAX, &h, NULL) != SQ_OK || !h.p)
		return 0;
	for (size_t at = 0; at < h.n && h.p[at] != '\r'; ) {
		const char *lf = memchr(h.p + at, '\n', h.n - at);

		n += sq_str_casestarts((struct sq_str){ h.p + at, h.n - at }, SQ_STR("Received:"));
		at = lf ? (size_t)(lf - h.p) + 1 : h.n;
	}
	return n;
}

static struct question *
add_question(struct evidence *ev, const char *message_id)
{
	struct question *more = reallocarray(ev->v, ev->n + 1, sizeof(*more));

	if (!more)
		return NULL;
	ev->v = more;
	ev->v[ev->n] = (struct question){ .message_id = sq_str_dup(sq_str(message_id)) };
	return ev->v[ev->n].message_id ? &ev->v[ev->n++] : NULL;
}

struct calibrate { struct evidence *ev; const char *route; int64_t since_ms; const char *last[CALIBRATION]; char ids[CALIBRATION][1000]; size_t n; };

/* The ledger is read oldest first: keep the last ones of this route that a server accepted. */
static bool
last_accepted(void *arg, const struct sq_ledger_row *row)
{
	struct calibrate *c = arg;

	if (strcmp(row->route, c->route) == 0 && row->reply.code >= 200 && row->reply.code < 300 && strlen(row->message_id) < sizeof(c->ids[0]) &&
	    (c->n == 0 || strcmp(c->ids[(c->n - 1) % CALIBRATION], row->message_id) != 0))
		snprintf(c->ids[c->n++ % CALIBRATION], sizeof(c->ids[0]), "%s", row->message_id);
	return true;
}

static struct evidence *
questions_for(struct runner *r, const struct sq_route *route, const struct sq_doubt *d)
{
	struct evidence *ev = calloc(1, sizeof(*ev));
	struct calibrate c = { .route = route->name };
	struct sq_ledger_filter since = { .since_ms = d->since_ms - INT64_C(30) * DAY_MS };
	struct question *q = ev && route->imap ? add_question(ev, d->message_id) : NULL;

	if (!q)
		return ev; /* a probe asks nothing */
	q->doubt = d->id;
	q->traces = count_traces(r, d->id, d->size);
	(void)!sq_queue_sent(r->q, &since, last_accepted, &c, NULL);
	for (size_t i = 0; i < c.n && i < CALIBRATION; i++)
		(void)!add_question(ev, c.ids[i]);
	return ev;
}

/* One evidence session a route at a time. */
static bool
being_asked(struct runner *r, const char *route)
{
	if (mtalog_busy(r, route))
		return true;
	for (struct agent *a = r->agents; a; a = a->next)
		if (a->kind != SQ_JOB_DELIVER && strcmp(a->route, route) == 0)
			return true;
	return false;
}

static void
keep(struct runner *r, const struct sq_doubt *d)
{
	struct sq_error err = { 0 };

	if (sq_queue_doubt_put(r->q, d, &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot note what is known of a doubt: %s", err.text);
}

/*
 * The sources in their order, one after the other:
 *   the server itself, where it can tell (CHECKPOINT): it settles on contact
 *   the Sent folder; without one a probe, where a decision waits for a usable link
 *   reports: they come by themselves (sendq settle --from-mail)
 *   the log of an own MTA
 * Each says what it has found; next_source() goes on where that is not positive.
 */
static void
ask(struct runner *r, const struct sq_route *route, const struct sq_doubt *d, enum sq_doubt_id id)
{
	struct finding nothing = { .kind = SQ_EVIDENCE_UNKNOWN };
	struct agent *a;

	if (!route->imap && id != SQ_DOUBT_ID_KEPT && mtalog_ask(r, route, d, &nothing))
		return;
	if (!(a = calloc(1, sizeof(*a))))
		return;
	if (!(a->evidence = questions_for(r, route, d))) {
		free(a);
		return;
	}
	a->fd = a->secret.out = a->secret.err = -1;
	snprintf(a->route, sizeof(a->route), "%s", route->name);
	a->kind = a->evidence->n > 0 ? SQ_JOB_EVIDENCE : SQ_JOB_PROBE;
	a->about = d->id;
	a->next = r->agents;
	r->agents = a;
	a->state = AGENT_SECRET;
	sq_log(SQ_LOG_INFO, "evidence route=%s kind=%s", route->name, a->kind == SQ_JOB_PROBE ? "probe" : "sent-folder");
	route_open(r, route, a);
}

static bool
put_question(struct runner *r, struct agent *a)
{
	struct evidence *ev = a->evidence;
	struct sq_frame f = { .type = SQ_FRAME_ASK };

	if (ev->next == ev->n)
		return false;
	f.txn = (uint16_t)(ev->next + 1);
	f.u.ask = (struct sq_ask){ .message_id = sq_str(ev->v[ev->next].message_id), .traces = ev->v[ev->next].traces };
	agent_put(r, a, &f);
	return true;
}

/* ---- answers ---- */

struct found { struct sq_doubt d; bool there; };

static void
find_doubt(void *arg, const struct sq_doubt *d)
{
	struct found *f = arg;

	f->d = *d;
	f->there = true;
}

static void
tell_later(struct sq_doubt *d, int64_t now)
{
	d->asked++;
	d->next_ask_ms = now + sq_doubt_ask_gap_ms(d->asked);
}

/* The provider files what it accepts: all of the last accepted messages were seen with a server's trace. */
static bool
provider_files(const struct evidence *ev)
{
	size_t traced = 0;

	for (size_t i = 0; i < ev->n; i++)
		traced += ev->v[i].doubt.v == 0 && ev->v[i].answered && ev->v[i].answer == SQ_EVIDENCE_POSITIVE;
	return traced == CALIBRATION;
}

static void
settle(struct runner *r, const struct sq_doubt *d, const struct finding *q)
{
	struct sq_error err = { 0 };
	char source[640], id[SQ_ID_TEXT];
	int64_t now = sq_wall_ms();
	int n = 0;

	sq_id_format(d->id, id);
	snprintf(source, sizeof(source), "%s: %s", q->source, q->quote);
	SQ_FAULT(runner_before_settle);
	if (!runner_mark(r) || sq_queue_settle(r->q, d->id, "", true, source, now, &n, &err) != SQ_OK) {
		if (err.code != SQ_EPERM)
			runner_store_failed(r, &err);
		return;
	}
	sq_log(SQ_LOG_INFO, "settled msg=%s recipients=%d by=%s", id, n, q->source);
	report_resolved(r, d->id, SQ_REPORT_SETTLED, now, source);
}

/* What a round of questions has come to. */
static void
conclude(struct runner *r, struct sq_doubt *d, const struct finding *f)
{
	int64_t now = sq_wall_ms();

	if (f->kind == SQ_EVIDENCE_POSITIVE) {
		settle(r, d, f);
		return;
	}
	snprintf(d->source, sizeof(d->source), "%s", f->source);
	snprintf(d->quote, sizeof(d->quote), "%s", f->quote);
	d->answer = f->kind;
	if (f->kind != SQ_EVIDENCE_NEGATIVE)
		d->negatives = 0;
	else if (f->certain)
		d->negatives = SQ_DOUBT_NEGATIVES;
	else if (now >= d->since_ms + SQ_DOUBT_NEGATIVE_AFTER_MS)
		d->negatives++;
	tell_later(d, now);
	keep(r, d);
}

/* One source has spoken, and not for acceptance: the next one, or the conclusion. */
static void
next_source(struct runner *r, const char *name, struct sq_doubt *d, const struct finding *f)
{
	const struct sq_route *route = sq_config_route(r->cfg, name);

	if (!route || !mtalog_ask(r, route, d, f))
		conclude(r, d, f);
}

void
doubt_finding(struct runner *r, const char *name, struct sq_message_id id, const struct finding *found)
{
	const struct sq_route *route = sq_config_route(r->cfg, name);
	struct found f = { .there = false };
	struct finding last = *found;

	r->doubts_due = true;
	if (sq_queue_doubts(r->q, name, id, find_doubt, &f, NULL) != SQ_OK || !f.there)
		return; /* settled by hand meanwhile */
	/* With several connections at once a session that ended may have been another one. */
	last.certain &= route && route->connections == 1;
	conclude(r, &f.d, &last);
}

static void
apply_answer(struct runner *r, const char *route, const struct question *q, bool files)
{
	struct found f = { .there = false };
	struct finding said = { .kind = q->answer };

	if (sq_queue_doubts(r->q, route, q->doubt, find_doubt, &f, NULL) != SQ_OK || !f.there)
		return; /* settled by hand meanwhile */
	snprintf(said.source, sizeof(said.source), "%s", q->source);
	snprintf(said.quote, sizeof(said.quote), "%s", q->quote);
	if (q->answer == SQ_EVIDENCE_POSITIVE) {
		settle(r, &f.d, &said);
		return;
	}
	if (q->answer == SQ_EVIDENCE_NEGATIVE && !files)
		said.kind = SQ_EVIDENCE_UNKNOWN; /* a provider that does not file sent mail says nothing by not having it */
	next_source(r, route, &f.d, &said);
}

/* All questions are answered: judge, and end the session. */
static void
judge(struct runner *r, struct agent *a)
{
	struct evidence *ev = a->evidence;
	bool files = provider_files(ev);

	if (ev->n > CALIBRATION)
		learn(r, a->route, "autosave", files ? "yes" : "no");
	for (size_t i = 0; i < ev->n && !r->store_failed; i++)
		if (ev->v[i].doubt.v != 0)
			apply_answer(r, a->route, &ev->v[i], files);
	for (size_t i = 0; i < ev->n && !r->store_failed; i++)
		if (ev->v[i].provider_id[0] && (!runner_mark(r) || sq_queue_provider_id(r->q, ev->v[i].message_id, ev->v[i].provider_id, NULL) != SQ_OK))
			runner_store_failed(r, NULL);
	r->doubts_due = true;
	agent_bye(r, a);
}

/* A probe that stands is an answer too: the link is usable. */
static void
probe_stands(struct runner *r, struct agent *a)
{
	struct found f = { .there = false };

	if (a->about.v != 0 && sq_queue_doubts(r->q, a->route, a->about, find_doubt, &f, NULL) == SQ_OK && f.there) {
		struct finding nothing = { .kind = SQ_EVIDENCE_UNKNOWN };
		const struct sq_route *route = sq_config_route(r->cfg, a->route);

		if (!route || !mtalog_ask(r, route, &f.d, &nothing)) {
			tell_later(&f.d, sq_wall_ms());
			keep(r, &f.d);
		}
	}
	agent_bye(r, a);
}

void
evidence_ready(struct runner *r, struct agent *a, const struct sq_ready *ready)
{
	if (a->kind == SQ_JOB_PROBE) {
		link_good(r, a->route, ready, ready->connect_ms);
		probe_stands(r, a);
	} else {
		a->state = AGENT_BUSY;
		a->deadline = sq_boot_ms() + EVIDENCE_SESSION_MS;
		doubt_link(r, a->route, true);
		(void)put_question(r, a);
	}
	r->doubts_due = true;
}

const char *
evidence_answer(struct runner *r, struct agent *a, uint16_t number, const struct sq_evidence *e)
{
	struct evidence *ev = a->evidence;
	struct question *q;

	if (a->kind != SQ_JOB_EVIDENCE || a->state != AGENT_BUSY || ev->next == ev->n || number != ev->next + 1)
		return "it answers what was not asked";
	q = &ev->v[ev->next++];
	q->answered = true;
	q->answer = e->kind;
	snprintf(q->source, sizeof(q->source), "%.*s", (int)e->source.n, e->source.p ? e->source.p : "");
	snprintf(q->quote, sizeof(q->quote), "%.*s", (int)(e->quote.n < 500 ? e->quote.n : 500), e->quote.p ? e->quote.p : "");
	snprintf(q->provider_id, sizeof(q->provider_id), "%.*s", (int)(e->provider_id.n < 256 ? e->provider_id.n : 0), e->provider_id.p ? e->provider_id.p : "");
	/* A positive answer needs no calibration. */
	if ((q->doubt.v != 0 && q->answer == SQ_EVIDENCE_POSITIVE) || !put_question(r, a))
		judge(r, a);
	return NULL;
}

void
evidence_failed(struct runner *r, struct agent *a, const struct sq_end *end)
{
	struct found f = { .there = false };
	int64_t now = sq_wall_ms(), wait = (int64_t)end->wait_s * 1000;

	r->doubts_due = true;
	if (a->about.v == 0 || end->outcome == SQ_OUTCOME_ACCEPTED || end->outcome == SQ_OUTCOME_CANCELLED || a->state == AGENT_LEAVING)
		return;
	sq_log(SQ_LOG_INFO, "no evidence route=%s outcome=%s", a->route, sq_outcome_name(end->outcome));
	if (sq_queue_doubts(r->q, a->route, a->about, find_doubt, &f, NULL) != SQ_OK || !f.there)
		return;
	{
		const struct sq_route *route = sq_config_route(r->cfg, a->route);
		struct finding none = { .kind = SQ_EVIDENCE_UNKNOWN };

		if (route && mtalog_ask(r, route, &f.d, &none))
			return;
	}
	/* Not an answer: the count and the schedule stay where they are. */
	f.d.next_ask_ms = now + (wait > EVIDENCE_RETRY_MS ? wait : EVIDENCE_RETRY_MS);
	snprintf(f.d.source, sizeof(f.d.source), "%s", a->kind == SQ_JOB_PROBE ? "connection" : "sent folder");
	snprintf(f.d.quote, sizeof(f.d.quote), "%.*s", (int)(end->reply.text.n < 500 ? end->reply.text.n : 500), end->reply.text.p ? end->reply.text.p : "");
	keep(r, &f.d);
}

/* ---- deciding ---- */

struct round { struct runner *r; const struct sq_route *route; enum sq_doubt_id id; int64_t now; };

static const char *
why_again(enum sq_doubt_why why, const struct sq_doubt *d)
{
	switch (why) {
	case SQ_DOUBT_WHY_ALLOWED:
		return d->duplicates == SQ_OWN_ALLOW ? "the message itself allows a second copy" : "the route's duplicates = \"allow\" lets a second copy through";
	case SQ_DOUBT_WHY_SERVICE:
		return "it is a program's mail (Auto-Submitted): a second copy is better than none";
	case SQ_DOUBT_WHY_NEGATIVE:
		return strcmp(d->source, "server's log") == 0 ? "the server's own log shows that it was not accepted"
			: "the provider files what it accepts, and twice it had not filed this one";
	case SQ_DOUBT_WHY_KEPT:
		return "there was no evidence to be had for two hours of usable link; the Message-ID is the same, so a second copy can be recognised";
	case SQ_DOUBT_WHY_PERSON:
	case SQ_DOUBT_WHY_EVIDENCE:
	case SQ_DOUBT_WHY_EXPIRED:
		break;
	}
	return "";
}

static void
again(struct round *t, const struct sq_doubt *d, enum sq_doubt_why why)
{
	struct runner *r = t->r;
	struct sq_error err = { 0 };
	char id[SQ_ID_TEXT];
	int n = 0;

	sq_id_format(d->id, id);
	picks_forget(r, NULL);
	if (!runner_mark(r) || sq_queue_resend_doubt(r->q, d->id, t->now, &n, &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return;
	}
	sq_log(SQ_LOG_WARN, "sent again from doubt msg=%s recipients=%d: %s", id, n, why_again(why, d));
	report_resolved(r, d->id, SQ_REPORT_RESENT, 0, why_again(why, d));
}

static void
give_up(struct round *t, const struct sq_doubt *d)
{
	struct sq_error err = { 0 };
	int n = 0;

	if (!runner_mark(t->r) || sq_queue_doubt_expire(t->r->q, d->id, t->now, &n, &err) != SQ_OK)
		runner_store_failed(t->r, &err);
	else
		sq_log(SQ_LOG_WARN, "given up in doubt recipients=%d", n);
}

static void
wake_by(struct runner *r, int64_t boot_ms)
{
	if (boot_ms < r->doubts_wake)
		r->doubts_wake = boot_ms;
}

static void
decide_one(void *arg, const struct sq_doubt *d)
{
	struct round *t = arg;
	struct runner *r = t->r;
	struct sq_doubt_in in = {
		.policy = sq_doubt_policy_of((int)d->duplicates, (int)t->route->duplicates),
		.id = t->id, .service = d->auto_submitted && d->duplicates == SQ_OWN_ROUTES, .source = t->route->imap || t->route->mta_log,
		.now_ms = t->now, .since_ms = d->since_ms, .expires_ms = d->expires_ms, .next_ask_ms = d->next_ask_ms,
		.usable_ms = d->usable_ms, .asked = d->asked, .negatives = d->negatives,
	};
	struct sq_doubt_out out = sq_doubt_decide(&in);
	int64_t boot = sq_boot_ms(), held;

	if (r->store_failed)
		return;
	/* A reminder a day, until it is settled. */
	if (d->told_ms > 0 && t->now >= d->told_ms + DAY_MS) {
		struct sq_doubt told = *d;

		report_resolved(r, d->id, SQ_REPORT_DOUBT, 0, "");
		told.told_ms = t->now;
		keep(r, &told);
	}
	wake_by(r, boot + (d->told_ms > 0 && d->told_ms + DAY_MS > t->now ? d->told_ms + DAY_MS - t->now : DAY_MS));
	/* The server itself is asked as soon as it is reached (CHECKPOINT); nothing else is done before it has answered. */
	if (d->resumable && out.action != SQ_DOUBT_GIVE_UP)
		return;
	/* Whoever is asking the server right now hears first; that ends by itself, and is looked at then. */
	if (out.action == SQ_DOUBT_GIVE_UP && agent_of_message(r, d->id))
		return;
	switch (out.action) {
	case SQ_DOUBT_RESEND:
		again(t, d, out.why);
		break;
	case SQ_DOUBT_GIVE_UP:
		give_up(t, d);
		break;
	case SQ_DOUBT_ASK_NOW:
		if ((held = bus_holds_until(r, t->route->name)) > t->now) {
			if (held != INT64_MAX)
				wake_by(r, boot + held - t->now);
			break;
		}
		r->doubts_open = true;
		if (!r->stopping && !being_asked(r, t->route->name))
			ask(r, t->route, d, t->id);
		break;
	case SQ_DOUBT_WAIT:
		if (out.when_ms != INT64_MAX)
			wake_by(r, boot + (out.when_ms > t->now ? out.when_ms - t->now : 1));
		if (out.usable_ms != INT64_MAX && use_of(r, t->route->name)->usable)
			wake_by(r, boot + out.usable_ms);
		break;
	}
}

static void
doubts_on(struct runner *r, const struct sq_route *route)
{
	struct round t = { r, route, id_of(r, route), sq_wall_ms() };
	struct sq_message_id any = { 0 };
	struct sq_error err = { 0 };

	tick_route(r, route->name);
	if (sq_queue_doubts(r->q, route->name, any, decide_one, &t, &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot look at doubts: %s", err.text);
}

/* A route that the configuration lost can ask nobody; people are still told daily, and at the end. */
static void
doubts_stranded(void *arg, const char *route, int64_t n)
{
	struct runner *r = arg;
	struct sq_route lost = { .duplicates = SQ_DUPLICATES_ASK, .message_id = SQ_MSGID_AUTO };

	(void)n;
	if (r->store_failed || sq_config_route(r->cfg, route))
		return;
	if (!(lost.name = sq_str_dup(sq_str(route))))
		return;
	doubts_on(r, &lost);
	free(lost.name);
}

void
doubts(struct runner *r)
{
	if (!r->doubts_due && sq_boot_ms() < r->doubts_wake)
		return;
	r->doubts_due = r->doubts_open = false;
	r->doubts_wake = INT64_MAX;
	for (size_t i = 0; i < r->cfg->n_routes && !r->store_failed; i++)
		doubts_on(r, &r->cfg->routes[i]);
	if (!r->store_failed)
		(void)!sq_queue_busy_routes(r->q, doubts_stranded, r, NULL);
}

static void
due_now(void *arg, const struct sq_doubt *d)
{
	struct round *t = arg;
	struct sq_doubt now = *d;

	now.next_ask_ms = t->now;
	keep(t->r, &now);
}

void
doubts_ask_now(struct runner *r, struct sq_message_id id)
{
	for (size_t i = 0; i < r->cfg->n_routes; i++) {
		struct round t = { r, &r->cfg->routes[i], SQ_DOUBT_ID_UNKNOWN, sq_wall_ms() };

		if (t.route->imap || t.route->mta_log)
			(void)!sq_queue_doubts(r->q, t.route->name, id, due_now, &t, NULL);
	}
	r->doubts_due = true;
}
