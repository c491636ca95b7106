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
	case SQ_REQUEST_REPORTED:
	case SQ_REQUEST_REPORTED_FAILED: return "settled by a delivery report";
	case SQ_REQUEST_FORGET: return "forgotten";
	case SQ_REQUEST_UNDO: return "taken back";
	case SQ_REQUEST_EDIT: return "changed";
	case SQ_REQUEST_RETRY: return "due now";
	}
	return "done";
}

/* What became of a request. */
struct done { int n; bool ok; struct sq_proved proved; };

/* A report that quotes the Message-ID shows that the server kept it; one that quotes the ENVID, that it knows of reports. */
static enum sq_err
learn_from_report(struct sq_queue *q, const struct sq_request *req, int64_t now_ms, struct sq_error *err)
{
	const char *key = req->number >= 0 ? "dsn" : "message_id", *value = req->number >= 0 ? "yes" : "kept";
	SQ_CLEANUP(sq_freep) char *before = NULL;
	struct sq_message *m = NULL;
	enum sq_err e = sq_queue_show(q, req->message, &m, err);

	if (e == SQ_OK && (e = sq_queue_learned(q, m->route, key, &before, err)) == SQ_OK && !before)
		e = sq_queue_learn(q, m->route, key, value, now_ms, err);
	sq_message_free(m);
	return e;
}

static enum sq_err
prove(struct sq_queue *q, const struct sq_request *req, int64_t now_ms, struct done *d, struct sq_error *err)
{
	struct sq_proof p = { .id = req->message, .epoch = (int)req->number, .address = req->address,
		.failed = req->kind == SQ_REQUEST_REPORTED_FAILED, .source = req->words,
		.reply = { .code = req->code, .text = sq_str(req->words) } };
	enum sq_err e;

	memcpy(p.reply.enhanced, req->enhanced, sizeof(p.reply.enhanced));
	if ((e = sq_queue_prove(q, &p, now_ms, &d->proved, err)) != SQ_OK)
		return e;
	d->n = d->proved.sent + d->proved.failed + d->proved.earlier;
	return d->n > 0 ? learn_from_report(q, req, now_ms, err) : SQ_OK;
}

static enum sq_err
forget(struct sq_queue *q, const struct sq_request *req, int64_t now_ms, int *n, struct sq_error *err)
{
	struct sq_forget f = { .message = req->message, .recipient = req->address[0] ? req->address : NULL,
		.message_id = req->words[0] ? req->words : NULL, .until_ms = req->number > 0 ? now_ms - req->number : 0 };

	return sq_queue_forget(q, &f, n, err);
}

static enum sq_err
act(struct sq_queue *q, const struct sq_request *req, int64_t now_ms, struct done *d, struct sq_error *err)
{
	int *n = &d->n;

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
	case SQ_REQUEST_REPORTED:
	case SQ_REQUEST_REPORTED_FAILED:
		return prove(q, req, now_ms, d, err);
	case SQ_REQUEST_FORGET:
		return forget(q, req, now_ms, n, err);
	case SQ_REQUEST_UNDO:
		return sq_queue_undo(q, req->message, now_ms, n, err);
	case SQ_REQUEST_EDIT:
		return sq_queue_edit(q, req->message, &req->edit, n, err);
	case SQ_REQUEST_RETRY:
	case SQ_REQUEST_FLUSH:
		return sq_queue_retry(q, req->message, now_ms, n, err);
	}
	return sq_error_set(err, SQ_EINVAL, "this daemon does not know request %d", (int)req->kind);
}

static void
add_part(char *out, size_t size, int n, const char *what)
{
	size_t at = strlen(out);

	if (n > 0)
		snprintf(out + at, size - at, "%s%d recipient%s %s", at ? ", " : "", n, n == 1 ? "" : "s", what);
}

/* The answer in words, to a request that was carried out. */
static void
words_of(const struct sq_request *req, struct done *d, char *out, size_t size)
{
	bool report = req->kind == SQ_REQUEST_REPORTED || req->kind == SQ_REQUEST_REPORTED_FAILED;

	out[0] = '\0';
	d->ok = d->n > 0 || req->kind == SQ_REQUEST_FORGET; /* nothing to forget is nothing wrong */
	if (req->kind == SQ_REQUEST_FORGET)
		snprintf(out, size, "%d %s forgotten", d->n, d->n == 1 ? "entry" : "entries");
	else if (report && d->n > 0) {
		add_part(out, size, d->proved.failed, "settled as failed");
		add_part(out, size, d->proved.sent, "settled as sent");
		add_part(out, size, d->proved.earlier, "got an earlier copy too");
	} else if (report)
		snprintf(out, size, "no recipient that the report is about is in doubt");
	else if (d->n > 0)
		add_part(out, size, d->n, verb_of(req->kind));
	else
		snprintf(out, size, "no recipient is in a state in which it can be %s", verb_of(req->kind));
}

/* Do it and write the answer. An error of the store is returned; a refusal is an answer. */
static enum sq_err
carry_out(struct sq_queue *q, const struct sq_request *req, int64_t now_ms, struct done *d, struct sq_error *err)
{
	struct sq_error why = { 0 };
	char answer[512];
	enum sq_err e;

	*d = (struct done){ 0 };
	e = act(q, req, now_ms, d, &why);
	if (e != SQ_OK && e != SQ_EPERM && e != SQ_ENOENT && e != SQ_EINVAL) {
		if (err)
			*err = why;
		return e;
	}
	if (e == SQ_OK)
		words_of(req, d, answer, sizeof(answer));
	else
		snprintf(answer, sizeof(answer), "%s", why.text);
	return sq_queue_request_done(q, req->id, d->ok, answer, now_ms, err);
}

enum sq_err
sq_runner_carry_out(struct sq_queue *q, int64_t now_ms, int *n, struct sq_error *err)
{
	struct sq_recovered was;
	struct sq_request req;
	int64_t after = 0;
	struct done done;
	enum sq_err e;

	*n = 0;
	/* A daemon that died left what it was doing: first that is put right. */
	if ((e = sq_queue_recover(q, now_ms, &was, err)) != SQ_OK)
		return e;
	while ((e = sq_queue_request_next(q, after, &req, err)) == SQ_OK) {
		after = req.id;
		if (req.kind == SQ_REQUEST_FLUSH)
			continue;
		if ((e = carry_out(q, &req, now_ms, &done, err)) != SQ_OK)
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
	const struct sq_work *w;

	if (!a)
		return true;
	w = agent_work(a, req->message);
	/* The server is being asked about a doubt: what it says must find the recipients where they were. */
	if (w->in_doubt) {
		agent_cancel(r, a);
		return false;
	}
	if (a->mark == TXN_TERMINATOR)
		return true; /* the queue refuses what may not move any more */
	/* That an earlier copy was accepted makes the one under way needless. */
	if (req->kind != SQ_REQUEST_HOLD && req->kind != SQ_REQUEST_REMOVE && req->kind != SQ_REQUEST_UNDO && req->kind != SQ_REQUEST_EDIT &&
	    !(req->kind == SQ_REQUEST_REPORTED && req->number >= 0 && w->epoch > req->number))
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

	if (r->doubts_open || r->logs)
		return false;
	for (struct agent *a = r->agents; a; a = a->next)
		if (a->kind != SQ_JOB_DELIVER && a->about.v == id.v && a->state < AGENT_LEAVING)
			return false;
	if (agent_of_message(r, id) || sq_queue_show(r->q, id, &m, NULL) != SQ_OK)
		return !agent_of_message(r, id);
	for (size_t i = 0; i < m->n_recipients; i++)
		if ((m->recipients[i].state == SQ_STATE_QUEUED || (m->recipients[i].state == SQ_STATE_DOUBT && m->recipients[i].resumable)) &&
		    m->recipients[i].next_try_ms <= sq_wall_ms() && !quiet(r))
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
	int64_t after = 0, now = sq_wall_ms();
	struct done done;
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
		picks_forget(r, NULL);
		if (carry_out(r->q, &req, now, &done, &err) != SQ_OK)
			runner_store_failed(r, &err);
		else if (done.proved.sent > 0)
			report_resolved(r, req.message, SQ_REPORT_SETTLED, now, req.kind == SQ_REQUEST_REPORTED ? req.words : "a delivery report quotes it");
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
