/*
 * A window of several messages on one session: which octets it is made of,
 * and what the replies to them mean. Replies are counted, never guessed: the
 * machine knows at each of them which command of which message it answers.
 */
#include "command.h"

enum { OUT_MAX = SQ_WINDOW_OCTETS + SQ_TXN_OPEN_MAX * 4096 + SQ_WINDOW_RECIPIENTS * 4096 };

bool
sq_group_may(const struct sq_session *s)
{
	return s->state == SQ_SESSION_IDLE && s->out.n == 0 && s->pipelining && s->chunking && !(s->ehlo.caps & SQ_CAP_CHECKPOINT);
}

void
sq_group_fini(struct sq_group *g)
{
	sq_buf_fini(&g->out);
	free(g->results);
	free(g->texts);
	memset(g, 0, sizeof(*g));
}

/* ---- results ---- */

static void
set_result(struct sq_group_message *m, uint32_t i, const struct sq_reply *r, struct sq_policy p)
{
	struct sq_recipient_result *out = &m->results[i];
	char *text = m->texts + (size_t)i * SQ_REPLY_TEXT_MAX;
	size_t n = r->text.n < SQ_REPLY_TEXT_MAX ? r->text.n : SQ_REPLY_TEXT_MAX;

	*out = (struct sq_recipient_result){
		.id = m->txn->recipients[i].id,
		.cls = p.cls, .scope = p.scope, .cause = p.outcome, .wait_s = p.wait_s, .reply = *r,
	};
	if (n > 0)
		memcpy(text, r->text.p, n);
	out->reply.text = (struct sq_str){ text, n };
}

static void
decide(struct sq_group *g, struct sq_group_message *m)
{
	m->decided = true;
	for (uint32_t i = 0; i < m->txn->n_recipients; i++)
		g->doubt |= m->results[i].cls == SQ_CLASS_DOUBT;
}

/* The same answer to every recipient whose RCPT was not refused by itself. */
static void
decide_open(struct sq_group *g, struct sq_group_message *m, const struct sq_reply *r, struct sq_policy p)
{
	for (uint32_t i = 0; i < m->asked; i++)
		if (!m->mail_refused && (i >= m->answered || m->results[i].cls == SQ_CLASS_ACCEPTED))
			set_result(m, i, r, p);
	decide(g, m);
}

static void
decide_all(struct sq_group *g, struct sq_group_message *m, const struct sq_reply *r, struct sq_policy p)
{
	for (uint32_t i = 0; i < m->txn->n_recipients; i++)
		set_result(m, i, r, p);
	decide(g, m);
}

/* What the session decided without the server. */
static void
take_results(struct sq_group_message *m, const struct sq_session *s, uint32_t from)
{
	for (uint32_t i = from; i < m->txn->n_recipients; i++) {
		const struct sq_recipient_result *x = &s->results[i];

		set_result(m, i, &x->reply, (struct sq_policy){ x->cls, x->scope, x->wait_s, x->cause });
	}
}

/* ---- the octets ---- */

static enum sq_err
make_room(struct sq_group *g, const struct sq_txn *const *txns, const struct sq_str *contents, uint32_t n, struct sq_error *err)
{
	size_t octets = 0, recipients = 0, at = 0;

	for (uint32_t i = 0; i < n && i < SQ_TXN_OPEN_MAX; i++) {
		octets += contents[i].n;
		recipients += txns[i]->n_recipients;
		if (contents[i].n != txns[i]->size)
			return sq_error_set(err, SQ_ELIMIT, "a message of a window without its whole content");
	}
	if (n == 0 || n > SQ_TXN_OPEN_MAX || octets > SQ_WINDOW_OCTETS || recipients > SQ_WINDOW_RECIPIENTS)
		return sq_error_set(err, SQ_ELIMIT, "a window of %u messages, %zu octets and %zu recipients", (unsigned)n, octets, recipients);
	g->results = calloc(recipients + 1, sizeof(*g->results));
	g->texts = calloc(recipients + 1, SQ_REPLY_TEXT_MAX);
	if (!g->results || !g->texts)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	for (uint32_t i = 0; i < n; i++) {
		g->messages[i] = (struct sq_group_message){ .txn = txns[i], .results = g->results + at, .texts = g->texts + at * SQ_REPLY_TEXT_MAX };
		at += txns[i]->n_recipients;
	}
	g->n = n;
	return SQ_OK;
}

static void
add_message(struct sq_group *g, struct sq_group_message *m, struct sq_str content)
{
	if (sq_session_prepare(g->s, m->txn, &m->asked)) {
		take_results(m, g->s, 0);
		decide(g, m);
		return;
	}
	take_results(m, g->s, m->asked);
	if (g->out.n > 0)
		sq_buf_adds(&g->out, "RSET\r\n");
	sq_command_mail(m->txn, g->s->ehlo.caps, false, &g->out);
	for (uint32_t i = 0; i < m->asked; i++)
		sq_command_rcpt(&m->txn->recipients[i], g->s->ehlo.caps, &g->out);
	sq_buf_addf(&g->out, "BDAT %zu LAST\r\n", content.n);
	sq_buf_add_str(&g->out, content);
	m->end = g->out.n;
}

/* The next message that was sent, or the end of the group. */
static void
next_message(struct sq_group *g)
{
	bool first = true;

	for (uint32_t i = 0; i < g->at; i++)
		first = first && g->messages[i].end == 0;
	while (g->at < g->n && g->messages[g->at].end == 0)
		g->at++;
	g->step = first ? SQ_GROUP_MAIL : SQ_GROUP_RSET;
	if (g->at < g->n)
		return;
	g->state = SQ_GROUP_OVER;
	if (g->anomaly)
		sq_session_lost(g->s, SQ_OUTCOME_PROTOCOL, g->anomaly);
	else if (g->refused)
		sq_session_reset(g->s); /* what was refused may have left an envelope behind */
}

enum sq_err
sq_group_begin(struct sq_group *g, struct sq_session *s, const struct sq_txn *const *txns, const struct sq_str *contents, uint32_t n, struct sq_error *err)
{
	enum sq_err e;

	if (!sq_group_may(s))
		sq_bug("a window on a session that is %s", sq_session_fact(s->state)->name);
	sq_group_fini(g);
	g->s = s;
	g->out = (struct sq_buf)SQ_BUF_INIT(OUT_MAX);
	if ((e = make_room(g, txns, contents, n, err)) != SQ_OK)
		return e;
	for (uint32_t i = 0; i < n; i++)
		add_message(g, &g->messages[i], contents[i]);
	if (g->out.failed)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	g->state = SQ_GROUP_ASK;
	next_message(g);
	return SQ_OK;
}

/* ---- replies ---- */

/*
 * The session ends here. What was offered and has no answer is in doubt; the
 * rest was certainly not accepted, and is due as soon as the route is.
 */
static void
give_up(struct sq_group *g, enum sq_outcome outcome, const struct sq_reply *r)
{
	struct sq_policy p = { SQ_CLASS_DEFERRED, SQ_SCOPE_MESSAGE, 1, outcome };

	for (uint32_t i = g->at; i < g->n; i++) {
		struct sq_group_message *m = &g->messages[i];

		if (m->decided)
			continue;
		if (g->state == SQ_GROUP_ASK || m->end > g->offered)
			decide_all(g, m, r, p);
		else
			g->doubt = true;
	}
	g->at = g->n;
	g->state = SQ_GROUP_OVER;
	sq_buf_clear(&g->out);
}

static void
broken(struct sq_group *g, const char *why)
{
	struct sq_reply r = { .text = sq_str(why) };

	g->anomaly = why;
	give_up(g, SQ_OUTCOME_PROTOCOL, &r);
	sq_session_lost(g->s, g->doubt ? SQ_OUTCOME_DOUBT : SQ_OUTCOME_PROTOCOL, why);
}

/* 421: what it answers was not done, nor was anything behind it. */
static void
shut_down(struct sq_group *g, const struct sq_reply *r)
{
	static const enum sq_phase phases[] = { SQ_PHASE_MAIL, SQ_PHASE_MAIL, SQ_PHASE_RCPT, SQ_PHASE_TERMINATOR };
	struct sq_policy behind = { SQ_CLASS_DEFERRED, SQ_SCOPE_MESSAGE, 1, SQ_OUTCOME_DEFERRED };

	for (uint32_t i = g->at; i < g->n; i++)
		if (!g->messages[i].decided)
			decide_open(g, &g->messages[i], r, i == g->at ? sq_policy_decide(r, phases[g->step]) : behind);
	g->at = g->n;
	g->state = SQ_GROUP_OVER;
	sq_buf_clear(&g->out);
	sq_session_over(g->s, r);
}

static void
on_mail(struct sq_group_message *m, const struct sq_reply *r)
{
	struct sq_policy p = sq_policy_decide(r, SQ_PHASE_MAIL);

	if (p.cls == SQ_CLASS_ACCEPTED)
		return;
	for (uint32_t i = 0; i < m->txn->n_recipients; i++)
		set_result(m, i, r, p);
	m->mail_refused = true;
}

static void
on_rcpt(struct sq_group_message *m, const struct sq_reply *r)
{
	struct sq_policy p = sq_policy_decide(r, SQ_PHASE_RCPT);

	if (!m->mail_refused) {
		set_result(m, m->answered, r, p);
		m->accepted += p.cls == SQ_CLASS_ACCEPTED;
	}
	m->answered++;
}

static void
on_bdat(struct sq_group *g, struct sq_group_message *m, const struct sq_reply *r)
{
	struct sq_policy p = sq_policy_decide(r, SQ_PHASE_TERMINATOR);

	if (p.cls == SQ_CLASS_ACCEPTED && g->offered < m->end) {
		broken(g, "the server accepted a message before it had all of it");
		return;
	}
	if (p.cls == SQ_CLASS_ACCEPTED && m->mail_refused) {
		/* Whose message it took this for is anybody's guess. */
		decide_all(g, m, r, (struct sq_policy){ SQ_CLASS_DOUBT, SQ_SCOPE_MESSAGE, 0, SQ_OUTCOME_DOUBT });
		g->at++;
		broken(g, "the server accepted content behind a refused MAIL");
		return;
	}
	if (p.cls == SQ_CLASS_ACCEPTED && m->accepted == 0)
		g->anomaly = "the server accepted content for nobody";
	decide_open(g, m, r, p);
	g->at++;
	next_message(g);
}

static void
on_reply(struct sq_group *g, const struct sq_reply *r)
{
	struct sq_group_message *m = &g->messages[g->at];

	if (r->code == 421) {
		shut_down(g, r);
		return;
	}
	if (g->state == SQ_GROUP_ASK) { /* nothing was said, and it answers */
		give_up(g, SQ_OUTCOME_PROTOCOL, r);
		sq_session_over(g->s, r);
		return;
	}
	if (r->code < 200 || (r->code >= 300 && r->code < 400) || r->code >= 600) {
		broken(g, "the server answered what it was not asked");
		return;
	}
	g->refused |= r->code >= 300;
	switch (g->step) {
	case SQ_GROUP_RSET:
		if (r->code >= 300)
			g->anomaly = "the server refused RSET";
		g->step = SQ_GROUP_MAIL;
		return;
	case SQ_GROUP_MAIL:
		on_mail(m, r);
		g->step = SQ_GROUP_RCPT;
		return;
	case SQ_GROUP_RCPT:
		on_rcpt(m, r);
		if (m->answered == m->asked)
			g->step = SQ_GROUP_BDAT;
		return;
	case SQ_GROUP_BDAT:
		on_bdat(g, m, r);
		return;
	}
}

/* All are answered, and here is another: one of them may have been somebody else's. */
static void
one_too_many(struct sq_group *g, const struct sq_reply *r)
{
	if (r->code != 421)
		g->anomaly = "the server answers more than it was asked";
	sq_session_over(g->s, r);
}

void
sq_group_receive(struct sq_group *g, const char *p, size_t n)
{
	while (n > 0 && g->s->state != SQ_SESSION_ENDED) {
		size_t used;
		enum sq_reply_step step = sq_reply_feed(&g->s->parser, p, n, &used);

		if (step == SQ_REPLY_MORE)
			return;
		if (step == SQ_REPLY_BAD)
			broken(g, "the server does not speak SMTP");
		else if (g->state == SQ_GROUP_ASK || g->state == SQ_GROUP_SENT)
			on_reply(g, &g->s->parser.reply);
		else
			one_too_many(g, &g->s->parser.reply);
		p += used;
		n -= used;
	}
}

/* ---- what is wanted, and its coming ---- */

uint32_t
sq_group_verdict(const struct sq_group *g)
{
	for (uint32_t i = 0; i < g->n; i++)
		if (g->messages[i].decided && !g->messages[i].reported)
			return i;
	return g->n;
}

enum sq_want
sq_group_want(const struct sq_group *g)
{
	if (sq_group_verdict(g) < g->n)
		return SQ_WANT_VERDICT;
	switch (g->state) {
	case SQ_GROUP_ASK:
		return SQ_WANT_TERMINATOR_GO;
	case SQ_GROUP_SENT:
		return g->out.n > 0 ? SQ_WANT_SEND : SQ_WANT_REPLY;
	case SQ_GROUP_NONE:
	case SQ_GROUP_OVER:
		break;
	}
	return SQ_WANT_NOTHING;
}

void
sq_group_reported(struct sq_group *g)
{
	uint32_t i = sq_group_verdict(g);

	if (i == g->n)
		sq_bug("a verdict of a window that has none");
	g->messages[i].reported = true;
}

void
sq_group_go(struct sq_group *g)
{
	if (g->state == SQ_GROUP_ASK)
		g->state = SQ_GROUP_SENT;
}

void
sq_group_offer(struct sq_group *g, size_t n)
{
	/* A write that failed or fell short may have handed over more than it tells (TLS). */
	if (g->sent + n > g->offered)
		g->offered = g->sent + n;
}

void
sq_group_sent(struct sq_group *g, size_t n)
{
	sq_group_offer(g, n);
	g->sent += n;
	sq_buf_consume(&g->out, n);
}

void
sq_group_lost(struct sq_group *g, enum sq_outcome outcome, const char *why, bool by_server)
{
	struct sq_reply r = { .text = sq_str(why) };

	if (g->state != SQ_GROUP_ASK && g->state != SQ_GROUP_SENT) {
		sq_session_lost(g->s, outcome, why);
		return;
	}
	if (by_server && g->state == SQ_GROUP_SENT)
		g->anomaly = "the server closed the connection in the middle of a window";
	give_up(g, outcome, &r);
	sq_session_lost(g->s, g->doubt ? SQ_OUTCOME_DOUBT : outcome, why);
}
