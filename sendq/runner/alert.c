/*
 * The early alert: at the first cut of a message its sender is told that it is
 * under way, how far it came and when it goes on; never more than once an hour
 * a message. On this machine only: a word that had to go over the link that
 * broke would come too late. That it is due is committed with the end of the
 * attempt, so that a crash between the two loses nothing.
 */
#include <inttypes.h>

#include <sendq/io.h>
#include <sendq/log.h>

#include "inside.h"

enum { ALERTS_A_ROUND = 50, QUIET_MIN_MS = 3600000 };

void
alert_cut(struct runner *r, const struct agent *a, enum sq_outcome outcome)
{
	const struct sq_route *route = sq_config_route(r->cfg, a->route);
	struct sq_error err = { 0 };
	bool due = false;

	/* Before its content nothing of it had come through. */
	if ((outcome != SQ_OUTCOME_CUT && outcome != SQ_OUTCOME_STALLED) || a->mark < TXN_ENVELOPE || a->go_due)
		return;
	if (!route || route->alert_ms == 0)
		return;
	if (sq_queue_cut(r->q, a->work->id, route->alert_ms > QUIET_MIN_MS ? route->alert_ms : QUIET_MIN_MS, sq_wall_ms(), &due, &err) != SQ_OK)
		runner_store_failed(r, &err);
	r->cuts_due |= due;
}

/* ---- in words ---- */

static void
size(int64_t octets, struct sq_buf *out)
{
	if (octets < 1000000)
		sq_buf_addf(out, "%" PRId64 " KB", (octets + 500) / 1000);
	else
		sq_buf_addf(out, "%.1f MB", (double)octets / 1e6);
}

static void
span(int64_t ms, struct sq_buf *out)
{
	int64_t s = (ms + 999) / 1000;

	if (s < 120)
		sq_buf_addf(out, "%" PRId64 " s", s);
	else if (s < 7200)
		sq_buf_addf(out, "%" PRId64 " min", s / 60);
	else
		sq_buf_addf(out, "%" PRId64 " h", s / 3600);
}

/* Its latest attempt that broke off. */
static const struct sq_attempt *
broken_attempt(const struct sq_message *m)
{
	for (size_t i = m->n_attempts; i > 0; i--)
		if (m->attempts[i - 1].outcome == SQ_OUTCOME_CUT || m->attempts[i - 1].outcome == SQ_OUTCOME_STALLED)
			return &m->attempts[i - 1];
	return NULL;
}

static void
how_far(const struct sq_message *m, const struct sq_attempt *a, struct sq_buf *out)
{
	size(a ? a->octets_acked : 0, out);
	sq_buf_adds(out, " of ");
	size((int64_t)m->size, out);
	if (m->size > 0)
		sq_buf_addf(out, " (%d %%)", (int)(100 * (double)(a ? a->octets_acked : 0) / (double)m->size));
	sq_buf_adds(out, " had come through.");
}

static void
what_is_kept(const struct sq_recipient *p, const struct sq_link_row *l, const struct sq_route *route, struct sq_buf *out)
{
	if (p->durable_octets > 0) {
		sq_buf_adds(out, " The server keeps ");
		size(p->durable_octets, out);
		sq_buf_adds(out, " of it: they are not sent again.");
	} else if (l->caps & SQ_CAP_CHECKPOINT) {
		sq_buf_adds(out, " What the server keeps of it is not sent again.");
	} else {
		sq_buf_adds(out, " This server cannot resume: the next try begins at the first octet.");
	}
	if (route && route->keeps_partial == SQ_YES)
		sq_buf_adds(out, " It delivers what came before a cut, so that the receiver may see a part of the message.");
}

static void
what_is_next(const struct sq_recipient *p, int64_t now_ms, struct sq_buf *out)
{
	if (p->state == SQ_STATE_SENDING || p->next_try_ms <= now_ms) {
		sq_buf_adds(out, " It is tried again now.");
		return;
	}
	sq_buf_adds(out, p->waits == SQ_WAITS_BETTER_LINK || p->waits == SQ_WAITS_PARTIAL
		? " It waits for a better link, and goes on in " : " It goes on in ");
	span(p->next_try_ms - now_ms, out);
	sq_buf_adds(out, p->waits == SQ_WAITS_BETTER_LINK || p->waits == SQ_WAITS_PARTIAL ? " at the latest." : ".");
}

/* ---- telling ---- */

static enum sq_err
tell(struct runner *r, const struct sq_message *m, int64_t cut_ms, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) struct sq_report_recipient *told = calloc(m->n_recipients, sizeof(*told));
	SQ_CLEANUP(sq_buf_fini) struct sq_buf words = SQ_BUF_INIT(4096);
	SQ_CLEANUP(notice_fini) struct notice n = { .rep = { .kind = SQ_REPORT_CUT, .now_ms = sq_wall_ms(), .recipients = told } };
	const struct sq_recipient *first = NULL;

	if (!told)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	for (size_t i = 0; i < m->n_recipients; i++)
		if (wants_warning(&m->recipients[i])) {
			first = first ? first : &m->recipients[i];
			told[n.rep.n_recipients++] = (struct sq_report_recipient){ .address = m->recipients[i].address, .orcpt = m->recipients[i].orcpt };
		}
	/* It left the queue meanwhile, or nobody wants to hear of it. */
	if (!first)
		return SQ_OK;
	how_far(m, broken_attempt(m), &words);
	what_is_kept(first, &route_link(r, m->route)->row, sq_config_route(r->cfg, m->route), &words);
	what_is_next(first, n.rep.now_ms, &words);
	if (words.failed)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	n.rep.words = words.p;
	/* Named by the cut, so that a crash before the mark does not double it. */
	return notice_deliver(r, m, &n, "", cut_ms, err);
}

static enum sq_err
alert_one(struct runner *r, struct sq_message_id id, int64_t cut_ms, struct sq_error *err)
{
	struct sq_message *m = NULL;
	enum sq_err e = sq_queue_show(r->q, id, &m, err);

	if (e == SQ_OK)
		e = tell(r, m, cut_ms, err);
	sq_message_free(m);
	return e == SQ_OK ? sq_queue_cut_told(r->q, id, err) : e;
}

void
alerts(struct runner *r)
{
	for (int i = 0; r->cuts_due && i < ALERTS_A_ROUND; i++) {
		struct sq_message_id id;
		struct sq_error err = { 0 };
		int64_t cut_ms;
		enum sq_err e = sq_queue_next_cut(r->q, &id, &cut_ms, &err);

		if (e == SQ_ENOENT)
			r->cuts_due = false;
		else if (e != SQ_OK || alert_one(r, id, cut_ms, &err) != SQ_OK) {
			/* It stays due: the next wake tries again. */
			sq_log(SQ_LOG_ERROR, "a notice cannot be delivered: %s", err.text);
			return;
		}
	}
}
