/*
 * Windows: several small messages that an agent sends as one group. Where
 * that is allowed is learned by route, because some servers do not survive it
 * (DESIGN §5): nothing on the first session, two messages at a time on the
 * next ones, and after three of those without a fault as many as fit. A fault
 * ends it for a month. A refusal ends it for the session.
 *
 * While a window is open the agent's `work` is empty; each frame about one of
 * its transactions finds that one put there (window_focus).
 */
#include <sendq/fault.h>
#include <sendq/io.h>
#include <sendq/log.h>
#include <sendq/smtp.h>

#include "inside.h"

enum { PROVING = 2, FIRST = 8, SESSIONS = 3, EACH_OCTETS = 64 * 1024, RECIPIENTS = SQ_WINDOW_RECIPIENTS - SQ_GROUP_MAX };

#define KEY "window"
#define BROKEN_MS (INT64_C(30) * 24 * 3600 * 1000)

/* ---- what is known of the route ---- */

/*
 * "seen", "clean 1", "clean 2", "proved" or "broken <until>", and the server
 * that it was learned of: another one starts anew.
 */
struct known { int clean; bool seen, broken; };

static struct known
known(struct runner *r, const struct sq_route *route)
{
	SQ_CLEANUP(sq_freep) char *v = NULL;
	struct known k = { 0 };
	long long n = 0;
	int used = 0;

	if (sq_queue_learned(r->q, route->name, KEY, &v, NULL) != SQ_OK || !v)
		return k;
	if (sscanf(v, "clean %lld %n", &n, &used) == 1 && used > 0 && n > 0 && n <= SESSIONS)
		k.clean = (int)n;
	else if (sscanf(v, "broken %lld %n", &n, &used) == 1 && used > 0)
		k.broken = n > sq_wall_ms();
	else if (strncmp(v, "seen ", 5) == 0)
		used = 5;
	k.seen = used > 0 && strcmp(v + used, route->server) == 0;
	return k.seen ? k : (struct known){ 0 };
}

static void
learn(struct runner *r, const struct sq_route *route, const char *word, int64_t number)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(8192);
	struct sq_error err = { 0 };

	if (number)
		sq_buf_addf(&b, "%s %lld %s", word, (long long)number, route->server);
	else
		sq_buf_addf(&b, "%s %s", word, route->server);
	if (b.failed || sq_queue_learn(r->q, route->name, KEY, b.p, sq_wall_ms(), &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot keep what was learned of route=%s: %s", route->name, err.text);
}

bool
window_allowed(struct runner *r, const struct sq_route *route)
{
	struct known k = known(r, route);

	return k.seen && !k.broken;
}

void
window_ready(struct runner *r, struct agent *a, uint32_t caps)
{
	const struct sq_route *route = sq_config_route(r->cfg, a->route);
	/* BURL is offered by Dovecot's submission server, which bears windows until a MAIL or RCPT in one is refused, and then dies. */
	const uint32_t want = SQ_CAP_PIPELINING | SQ_CAP_CHUNKING, never = SQ_CAP_CHECKPOINT | SQ_CAP_BURL;

	a->window.able = route && (caps & (want | never)) == want;
	if (!a->window.able || !a->window.permitted || !window_allowed(r, route))
		return;
	a->window.proved = known(r, route).clean == SESSIONS;
	a->window.max = a->window.proved ? FIRST : PROVING;
}

void
window_broken(struct runner *r, struct agent *a, const char *why)
{
	const struct sq_route *route = sq_config_route(r->cfg, a->route);

	a->window.max = 0;
	a->window.able = false;
	if (!route)
		return;
	sq_log(SQ_LOG_WARN, "route=%s takes one message at a time from now on: %s", a->route, why);
	learn(r, route, "broken", sq_wall_ms() + BROKEN_MS);
}

void
window_ended(struct runner *r, struct agent *a, enum sq_outcome outcome)
{
	const struct sq_route *route = sq_config_route(r->cfg, a->route);
	struct known k;

	if (!route || !a->window.able)
		return;
	if (outcome != SQ_OUTCOME_ACCEPTED) {
		/* A server that died of it looks like a link that was cut: where nothing is proved it is taken for the former. */
		if (window_committing(a) && !a->window.proved)
			window_broken(r, a, "the session ended in the middle of a window, before the server was proved");
		return;
	}
	k = known(r, route);
	if (!k.seen)
		learn(r, route, "seen", 0);
	else if (a->window.used && !k.broken && k.clean < SESSIONS)
		learn(r, route, "clean", k.clean + 1);
}

/* ---- giving ---- */

bool
window_give(struct runner *r, struct agent *a)
{
	const struct sq_route *route = sq_config_route(r->cfg, a->route);
	struct window *w = &a->window;
	struct claim_limits l = { .messages = w->max, .each = EACH_OCTETS, .octets = SQ_WINDOW_OCTETS, .recipients = RECIPIENTS };
	struct sq_work *works[SQ_TXN_OPEN_MAX] = { a->work };
	int n = a->work != NULL;

	if (w->max < 2 || !route || r->stopping || r->bus.sleeping)
		return false;
	if (n > 0) {
		if (a->work->in_doubt || a->work->size > l.each || a->work->n_recipients > l.recipients)
			return false;
		l.messages--;
		l.octets -= a->work->size;
		l.recipients -= a->work->n_recipients;
	}
	n += claim_some(r, route, &l, works + n);
	a->work = n == 1 ? works[0] : NULL;
	if (n < 2)
		return false;
	for (int i = 0; i < n; i++)
		w->items[i] = (struct window_item){ .work = works[i] };
	w->n = n;
	w->due = w->used = w->clean = true;
	w->route_noted = false;
	a->state = AGENT_BUSY;
	a->mark = TXN_SENT;
	a->phase = SQ_PHASE_MAIL;
	a->progressed = false;
	a->deadline = 0;
	return true;
}

static bool
put_content(struct runner *r, struct agent *a)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf octets = SQ_BUF_INIT(SQ_CONTENT_MAX);
	struct sq_frame f = { .type = SQ_FRAME_CONTENT, .txn = a->txn };
	struct sq_error err = { 0 };

	if (sq_queue_read_content(r->q, a->work->id, 0, (size_t)a->work->size, &octets, &err) != SQ_OK) {
		agent_kill(r, a, err.text);
		return false;
	}
	f.u.content.octets = (struct sq_str){ octets.p, octets.n };
	agent_put(r, a, &f);
	return a->fd >= 0;
}

void
window_send(struct runner *r, struct agent *a)
{
	struct window *w = &a->window;

	w->due = false;
	a->corked = true;
	for (int i = 0; i < w->n; i++) {
		struct sq_work *work = w->items[i].work;
		bool last = i + 1 == w->n;

		/* Put there for the frames, and taken back: a failure ends each of them once. */
		a->work = work;
		w->items[i].work = NULL;
		agent_send_txn(r, a, last ? 0 : SQ_TXN_MORE);
		a->corked = !last;
		if (a->fd < 0 || !put_content(r, a))
			break;
		w->items[i] = (struct window_item){ .work = work, .txn = a->txn, .mark = TXN_SENT };
		a->work = NULL;
	}
	a->corked = false;
}

/* ---- its frames ---- */

static enum txn_state
mark_of(const struct window *w)
{
	enum txn_state mark = TXN_NONE;

	for (int i = 0; i < w->n; i++)
		if (w->items[i].work && w->items[i].mark > mark)
			mark = w->items[i].mark;
	return mark;
}

static struct window_item *
item_of(struct agent *a, uint16_t txn)
{
	for (int i = 0; i < a->window.n; i++)
		if (a->window.items[i].work && a->window.items[i].txn == txn)
			return &a->window.items[i];
	return NULL;
}

static void
take(struct agent *a, struct window_item *item)
{
	a->work = item->work;
	a->txn = item->txn;
	a->mark = item->mark;
	item->work = NULL;
}

struct window_item *
window_focus(struct agent *a, uint16_t txn)
{
	struct window_item *item = a->work || a->window.due ? NULL : item_of(a, txn);

	if (item)
		take(a, item);
	return item;
}

void
window_unfocus(struct agent *a, struct window_item *item)
{
	if (!item)
		return;
	item->work = a->work;
	item->mark = a->mark;
	a->work = NULL;
	a->mark = mark_of(&a->window);
}

bool
window_next(struct agent *a)
{
	for (int i = 0; i < a->window.n && !a->work; i++)
		if (a->window.items[i].work)
			take(a, &a->window.items[i]);
	return a->work != NULL;
}

bool
window_committing(const struct agent *a)
{
	return mark_of(&a->window) == TXN_TERMINATOR;
}

const struct sq_work *
window_work(const struct agent *a, struct sq_message_id id)
{
	for (int i = 0; i < a->window.n; i++)
		if (a->window.items[i].work && a->window.items[i].work->id.v == id.v)
			return a->window.items[i].work;
	return NULL;
}

const char *
window_terminator(struct runner *r, struct agent *a, const struct sq_terminator *t)
{
	struct window_item *items[SQ_TXN_OPEN_MAX];
	struct sq_error err = { 0 };
	enum sq_err e;

	if (a->cancelled)
		return NULL; /* it has not read our CANCEL yet: no GO will come */
	for (uint32_t i = 0; i < t->n; i++) {
		items[i] = item_of(a, t->txns[i].txn);
		if (!items[i] || items[i]->mark != TXN_SENT || t->txns[i].octets != items[i]->work->size || a->go_due)
			return "its terminator does not fit the window";
		for (uint32_t k = 0; k < i; k++)
			if (items[k] == items[i])
				return "its terminator names a transaction twice";
	}
	SQ_FAULT(runner_before_intent);
	if (!runner_mark(r)) {
		runner_store_failed(r, NULL);
		return NULL;
	}
	for (uint32_t i = 0; i < t->n; i++) {
		e = sq_queue_committing_unasked(r->q, items[i]->work->attempt, t->txns[i].sha256, sq_wall_ms(), &err);
		if (e == SQ_ECORRUPT)
			return "it sent other octets than were frozen";
		if (e != SQ_OK) {
			runner_store_failed(r, &err);
			return NULL;
		}
		items[i]->mark = TXN_TERMINATOR;
	}
	a->mark = TXN_TERMINATOR;
	a->phase = SQ_PHASE_TERMINATOR;
	a->go_seq = t->seq;
	a->go_due = a->go_doubtful = true;
	return NULL;
}

void
window_verdict(struct agent *a, enum sq_outcome outcome)
{
	if (outcome != SQ_OUTCOME_ACCEPTED) {
		a->window.max = 0;
		a->window.clean = false;
	}
}

void
window_idle(struct agent *a)
{
	struct window *w = &a->window;

	if (w->n > 0 && w->clean && w->proved && w->max > 0)
		w->max = w->max * 2 < SQ_TXN_OPEN_MAX ? w->max * 2 : SQ_TXN_OPEN_MAX;
	w->n = 0;
}

void
window_free(struct agent *a)
{
	for (int i = 0; i < a->window.n; i++)
		sq_work_free(a->window.items[i].work);
	a->window.n = 0;
}
