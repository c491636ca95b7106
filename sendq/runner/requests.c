/*
 * What people ask for, in the order they asked. A message that an agent is
 * sending is taken from it first; one whose terminator is out is answered
 * with a sentence. A flush is done when nothing of it is being tried any more.
 */
#include <inttypes.h>

#include <sendq/io.h>
#include <sendq/log.h>

#include "inside.h"

static const char *
verb_of(enum sq_request_kind kind)
{
	switch (kind) {
	case SQ_REQUEST_FLUSH: return "tried";
	case SQ_REQUEST_HOLD: return "held";
	case SQ_REQUEST_RELEASE: return "released";
	case SQ_REQUEST_REMOVE: return "removed";
	case SQ_REQUEST_RESEND: return "queued again";
	case SQ_REQUEST_SETTLE_SENT: return "settled as sent";
	case SQ_REQUEST_SETTLE_UNSENT: return "settled as not sent, queued again";
	}
	return "done";
}

static enum sq_err
act(struct sq_queue *q, const struct sq_request *req, int64_t now_ms, int *n, struct sq_error *err)
{
	switch (req->kind) {
	case SQ_REQUEST_HOLD:
		return sq_queue_hold(q, req->message, req->address, now_ms, n, err);
	case SQ_REQUEST_RELEASE:
		return sq_queue_release(q, req->message, req->address, now_ms, n, err);
	case SQ_REQUEST_REMOVE:
		return sq_queue_remove(q, req->message, req->address, now_ms, n, err);
	case SQ_REQUEST_RESEND:
		return sq_queue_resend(q, req->message, req->address, now_ms, n, err);
	case SQ_REQUEST_SETTLE_SENT:
		return sq_queue_settle(q, req->message, req->address, true, "by hand", now_ms, n, err);
	case SQ_REQUEST_SETTLE_UNSENT:
		return sq_queue_settle(q, req->message, req->address, false, "by hand", now_ms, n, err);
	case SQ_REQUEST_FLUSH:
		return sq_queue_retry(q, req->message, now_ms, n, err);
	}
	return sq_error_set(err, SQ_EINVAL, "this daemon does not know request %d", (int)req->kind);
}

/* Do it and write the answer. An error of the store is returned; a refusal is an answer. */
static enum sq_err
carry_out(struct sq_queue *q, const struct sq_request *req, int64_t now_ms, struct sq_error *err)
{
	struct sq_error why = { 0 };
	char answer[512];
	int n = 0;
	enum sq_err e = act(q, req, now_ms, &n, &why);
	bool ok = e == SQ_OK && n > 0;

	if (e != SQ_OK && e != SQ_EPERM && e != SQ_ENOENT && e != SQ_EINVAL) {
		if (err)
			*err = why;
		return e;
	}
	if (ok)
		snprintf(answer, sizeof(answer), "%d recipient%s %s", n, n == 1 ? "" : "s", verb_of(req->kind));
	else if (e == SQ_OK)
		snprintf(answer, sizeof(answer), "no recipient is in a state in which it can be %s", verb_of(req->kind));
	else
		snprintf(answer, sizeof(answer), "%s", why.text);
	return sq_queue_request_done(q, req->id, ok, answer, now_ms, err);
}

enum sq_err
sq_runner_carry_out(struct sq_queue *q, int64_t now_ms, int *n, struct sq_error *err)
{
	struct sq_recovered was;
	struct sq_request req;
	int64_t after = 0;
	enum sq_err e;

	*n = 0;
	/* A daemon that died left what it was doing: first that is put right. */
	if ((e = sq_queue_recover(q, now_ms, &was, err)) != SQ_OK)
		return e;
	while ((e = sq_queue_request_next(q, after, &req, err)) == SQ_OK) {
		after = req.id;
		if (req.kind == SQ_REQUEST_FLUSH)
			continue;
		if ((e = carry_out(q, &req, now_ms, err)) != SQ_OK)
			return e;
		++*n;
	}
	return e == SQ_ENOENT ? SQ_OK : e;
}

/* May be acted upon now; else an agent has to let go first. */
static bool
free_of_agents(struct runner *r, const struct sq_request *req)
{
	struct agent *a = agent_of_message(r, req->message);

	if (!a || a->mark == TXN_TERMINATOR)
		return true; /* the queue refuses what may not move any more */
	if (req->kind != SQ_REQUEST_HOLD && req->kind != SQ_REQUEST_REMOVE)
		return true;
	agent_cancel(r, a);
	return false;
}

static bool
flush_known(struct runner *r, int64_t id)
{
	for (size_t i = 0; i < r->n_flushes; i++)
		if (r->flushes[i] == id)
			return true;
	return false;
}

/* The first sight of a flush: its messages are due now, and no route waits. */
static void
begin_flush(struct runner *r, const struct sq_request *req)
{
	struct sq_error err = { 0 };
	int64_t *more = realloc(r->flushes, (r->n_flushes + 1) * sizeof(*more));
	int n = 0;

	if (!more)
		return;
	r->flushes = more;
	r->flushes[r->n_flushes++] = req->id;
	if (sq_queue_retry(r->q, req->message, sq_wall_ms(), &n, &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return;
	}
	link_clear_waits(r, false);
	doubts_ask_now(r, req->message);
	sq_log(SQ_LOG_INFO, "flush recipients=%d", n);
}

/* Nothing of the message is being tried, nor could it be now. */
static bool
message_quiet(struct runner *r, struct sq_message_id id)
{
	struct sq_message *m = NULL;
	bool result = true;

	if (r->doubts_open)
		return false;
	for (struct agent *a = r->agents; a; a = a->next)
		if (a->kind != SQ_JOB_DELIVER && a->about.v == id.v && a->state < AGENT_LEAVING)
			return false;
	if (agent_of_message(r, id) || sq_queue_show(r->q, id, &m, NULL) != SQ_OK)
		return !agent_of_message(r, id);
	for (size_t i = 0; i < m->n_recipients; i++)
		if (m->recipients[i].state == SQ_STATE_QUEUED && m->recipients[i].next_try_ms <= sq_wall_ms() && !quiet(r))
			result = false;
	sq_message_free(m);
	return result;
}

static void
end_flush(struct runner *r, const struct sq_request *req)
{
	struct sq_error err = { 0 };

	if (!(req->message.v ? message_quiet(r, req->message) : quiet(r)))
		return;
	if (sq_queue_request_done(r->q, req->id, true, "nothing is being tried any more", sq_wall_ms(), &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return;
	}
	for (size_t i = 0; i < r->n_flushes; i++)
		if (r->flushes[i] == req->id)
			r->flushes[i--] = r->flushes[--r->n_flushes];
}

void
requests(struct runner *r)
{
	struct sq_error err = { 0 };
	struct sq_request req;
	int64_t after = 0;
	enum sq_err e;

	while (!r->store_failed && (e = sq_queue_request_next(r->q, after, &req, &err)) != SQ_ENOENT) {
		if (e != SQ_OK) {
			runner_store_failed(r, &err);
			return;
		}
		after = req.id;
		if (req.kind == SQ_REQUEST_FLUSH) {
			if (!flush_known(r, req.id))
				begin_flush(r, &req);
			continue;
		}
		if (!free_of_agents(r, &req))
			continue;
		r->doubts_due = true;
		if (carry_out(r->q, &req, sq_wall_ms(), &err) != SQ_OK)
			runner_store_failed(r, &err);
	}
}

/* Flushes whose work is over are answered; called when the round's assignments are made. */
void
requests_over(struct runner *r)
{
	struct sq_error err = { 0 };
	struct sq_request req;
	int64_t after = 0;

	while (r->n_flushes > 0 && !r->store_failed && sq_queue_request_next(r->q, after, &req, &err) == SQ_OK) {
		after = req.id;
		if (req.kind == SQ_REQUEST_FLUSH && flush_known(r, req.id))
			end_flush(r, &req);
	}
}
