/*
 * One agent, seen from the runner. It takes frames, checks every one against
 * what this side knows (the agent talks to the network and is not trusted),
 * and puts what they mean into the round's batch. GO and content leave only
 * after that batch is durable.
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sendq/fault.h>
#include <sendq/io.h>
#include <sendq/link.h>
#include <sendq/log.h>

#include "inside.h"

enum { REPLY_TIMEOUT_MS = 300000, CONTENT_TIMEOUT_MS = 180000, TXN_NUMBERS = 60000 };

/* ---- starting ---- */

static enum sq_fact
fact(struct runner *r, const char *route, const char *key)
{
	SQ_CLEANUP(sq_freep) char *v = NULL;

	if (sq_queue_learned(r->q, route, key, &v, NULL) != SQ_OK || !v)
		return SQ_FACT_UNKNOWN;
	return strcmp(v, "yes") == 0 ? SQ_FACT_YES : strcmp(v, "no") == 0 ? SQ_FACT_NO : SQ_FACT_UNKNOWN;
}

void
agent_put(struct runner *r, struct agent *a, const struct sq_frame *f)
{
	struct sq_error err = { 0 };

	if (sq_stream_put(&a->stream, f, &err) != SQ_OK || (!a->corked && sq_stream_flush(&a->stream, &err) != SQ_OK && err.code != SQ_EEOF))
		agent_kill(r, a, err.text);
}

static uint32_t
timeout_of(int64_t ms)
{
	return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

/* The name that began the transfer which this session is to go on with, else the route's. */
static void
choose_ehlo_name(struct runner *r, struct agent *a, const struct sq_route *route)
{
	const char *name = route->ehlo_name ? route->ehlo_name : r->ehlo_name;

	if (a->work && a->work->transid && a->work->ehlo_name[0])
		name = a->work->ehlo_name;
	snprintf(a->ehlo_name, sizeof(a->ehlo_name), "%s", name);
	snprintf(a->login, sizeof(a->login), "%s", route->user ? route->user : "");
}

static void
put_job(struct runner *r, struct agent *a, const struct sq_route *route)
{
	struct sq_frame f = { .type = SQ_FRAME_JOB };

	choose_ehlo_name(r, a, route);
	a->window.permitted = a->kind == SQ_JOB_DELIVER && window_allowed(r, route);
	f.u.job = (struct sq_job){
		.kind = a->kind,
		.url = sq_str(a->kind == SQ_JOB_EVIDENCE ? route->imap : route->server),
		.user = sq_str(route->user),
		.auth = sq_str(route->auth ? route->auth : route->secret_kind == SQ_SECRET_TOKEN_COMMAND ? "XOAUTH2" : NULL),
		.tls = route->tls,
		.ehlo_name = sq_str(a->ehlo_name),
		.proxy = sq_str(route->proxy),
		.ca_file = sq_str(route->ca_file),
		.fingerprint = sq_str(route->fingerprint),
		.client_cert = sq_str(route->client_cert),
		.client_key = sq_str(route->client_key),
		.connect_timeout_ms = timeout_of(r->cfg->connect_timeout_ms),
		.reply_timeout_ms = REPLY_TIMEOUT_MS,
		.content_timeout_ms = CONTENT_TIMEOUT_MS,
		.verdict_timeout_ms = timeout_of(r->cfg->verdict_timeout_ms), .verdict_past_ms = link_verdict_ms(r, route->name),
		.patient = link_went_silent(r, route->name),
		.eightbit_send = route->eightbit_send,
		.ehlo_after_auth = fact(r, route->name, "ehlo_after_auth"),
		.bdat = fact(r, route->name, "bdat"),
		.pipelining = fact(r, route->name, "pipelining"),
		.pipeline_messages = a->window.permitted,
		.checkpoint = fact(r, route->name, "checkpoint"),
	};
	if (a->work && a->work->transid) {
		f.u.job.prefer = sq_str(a->work->address);
		/* Another server of this name knows nothing of a doubt; but an address may be gone for good. */
		f.u.job.prefer_only = a->work->in_doubt && sq_wall_ms() - a->work->submitted_ms < SQ_PREFER_ONLY_MS;
	}
	agent_put(r, a, &f);
}

void
agent_start(struct runner *r, struct agent *a, const struct sq_route *route, struct sq_str secret)
{
	struct sq_frame f = { .type = SQ_FRAME_HELLO };
	struct sq_error err = { 0 };

	if (agent_spawn(r, a, &err) != SQ_OK) {
		struct sq_end end = { .outcome = SQ_OUTCOME_LOCAL, .scope = SQ_SCOPE_ROUTE, .reply = { .text = sq_str(err.text) } };

		sq_log(SQ_LOG_ERROR, "cannot start an agent: %s", err.text);
		agent_failed(r, a, &end);
		return;
	}
	a->state = AGENT_CONNECTING;
	a->began = sq_boot_ms();
	/* The agent bounds its own set-up; this is for one that does not. */
	a->deadline = a->began + r->cfg->connect_timeout_ms + 30000;
	f.u.hello.version = SQ_AGENT_VERSION;
	agent_put(r, a, &f);
	put_job(r, a, route);
	if (secret.n > 0) {
		f = (struct sq_frame){ .type = SQ_FRAME_SECRET };
		f.u.secret = secret;
		agent_put(r, a, &f);
	}
}

/* ---- ending ---- */

static int64_t
wait_of(struct runner *r, const char *route_name, enum sq_outcome cause, int64_t failures, bool progressed, int64_t hint_ms)
{
	const struct sq_route *route = sq_config_route(r->cfg, route_name);
	struct sq_backoff_in in = { .cause = cause, .failures = failures, .progressed = progressed, .hint_ms = hint_ms,
		.retry_min_ms = route ? route->retry_min_ms : 1800000, .retry_max_ms = route ? route->retry_max_ms : 7200000 };
	struct sq_backoff_out out;

	sq_random(&in.random, sizeof(in.random));
	out = sq_backoff(&in);
	return out.stop ? 0 : out.wait_ms;
}

static void
drop_work(struct agent *a)
{
	sq_work_free(a->work);
	a->work = NULL;
	a->mark = TXN_NONE;
	a->n_reads = 0;
	a->go_due = false;
}

/* The open attempt ended without a verdict: doubt where GO was given, back to the queue else. */
static void
end_attempt(struct runner *r, struct agent *a, const struct sq_end *end)
{
	struct sq_attempt_end ae = {
		.outcome = end->outcome == SQ_OUTCOME_ACCEPTED ? SQ_OUTCOME_LOCAL : end->outcome,
		.phase = end->phase,
		.reply = end->reply,
		.counts = end->outcome != SQ_OUTCOME_OFFLINE && end->outcome != SQ_OUTCOME_SECRET && end->outcome != SQ_OUTCOME_CANCELLED,
	};
	struct sq_error err = { 0 };
	char id[SQ_ID_TEXT];
	int64_t now = sq_wall_ms();
	int doubt = 0;

	/* Behind those that have not failed; the route's own wait is in its link row. */
	ae.waits = end->outcome == SQ_OUTCOME_CANCELLED ? SQ_WAITS_OWN : SQ_WAITS_LINK;
	ae.next_try_ms = end->outcome == SQ_OUTCOME_CANCELLED ? now
		: now + wait_of(r, a->route, ae.outcome, 1, a->progressed, (int64_t)end->wait_s * 1000);
	sq_id_format(a->work->id, id);
	if (!runner_mark(r) || sq_queue_attempt_end(r->q, a->work->attempt, &ae, now, &doubt, &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return;
	}
	picks_forget(r, a->route);
	r->doubts_due |= doubt > 0 || a->work->in_doubt;
	if (doubt == 0)
		alert_cut(r, a, ae.outcome);
	if (doubt > 0)
		sq_log(SQ_LOG_WARN, "in doubt msg=%s route=%s recipients=%d: sendq why %s", id, a->route, doubt, id);
	else
		sq_log(SQ_LOG_INFO, "attempt ended msg=%s route=%s outcome=%s phase=%s", id, a->route, sq_outcome_name(ae.outcome), sq_phase_name(ae.phase));
	drop_work(a);
}

void
agent_failed(struct runner *r, struct agent *a, const struct sq_end *end)
{
	if (a->kind != SQ_JOB_DELIVER)
		evidence_failed(r, a, end);
	/* An IMAP server that fails says nothing about the route, nor does a probe that had its answer. */
	if (a->kind != SQ_JOB_EVIDENCE && !(a->kind == SQ_JOB_PROBE && a->state == AGENT_LEAVING) &&
	    end->outcome != SQ_OUTCOME_ACCEPTED && end->outcome != SQ_OUTCOME_CANCELLED) {
		enum sq_outcome cause = (a->mark == TXN_TERMINATOR && a->work) || window_committing(a) ? SQ_OUTCOME_DOUBT : end->outcome;

		link_ended(r, a, cause, end);
	}
	if (end->outcome == SQ_OUTCOME_LOGIN)
		token_refused(r, a->route);
	window_ended(r, a, end->outcome);
	if (a->work)
		end_attempt(r, a, end);
	while (!r->store_failed && window_next(a))
		end_attempt(r, a, end);
	sq_closep(&a->fd);
	sq_stream_wipe(&a->stream);
	command_fini(&a->secret);
	token_way_fini(&a->token);
	a->state = a->pid > 0 ? AGENT_LEAVING : AGENT_GONE;
	a->deadline = sq_boot_ms() + SQ_BYE_MS;
}

void
agent_kill(struct runner *r, struct agent *a, const char *why)
{
	struct sq_end end = { .outcome = SQ_OUTCOME_LOCAL, .phase = a->phase, .scope = SQ_SCOPE_ROUTE, .reply = { .text = sq_str(why) } };

	if (a->fd < 0 && a->state >= AGENT_LEAVING)
		return;
	sq_log(SQ_LOG_WARN, "agent pid=%d route=%s is ended: %s", (int)a->pid, a->route, why);
	if (a->pid > 0)
		kill(a->pid, SIGKILL);
	agent_failed(r, a, &end);
}

void
agent_bye(struct runner *r, struct agent *a)
{
	struct sq_frame f = { .type = SQ_FRAME_BYE };

	a->state = AGENT_LEAVING;
	a->deadline = sq_boot_ms() + SQ_BYE_MS;
	agent_put(r, a, &f);
}

/* Ask it to let go of what it is sending. Only before its terminator. */
void
agent_cancel(struct runner *r, struct agent *a)
{
	struct sq_frame f = { .type = SQ_FRAME_CANCEL };
	struct sq_end end = { .outcome = SQ_OUTCOME_CANCELLED, .reply = { .text = SQ_STR("cancelled") } };

	if (a->state == AGENT_SECRET) {
		agent_failed(r, a, &end);
		return;
	}
	if (a->cancelled || a->mark == TXN_TERMINATOR || window_committing(a) || a->state >= AGENT_LEAVING)
		return;
	a->cancelled = true;
	a->deadline = sq_boot_ms() + SQ_CANCEL_MS;
	agent_put(r, a, &f);
}

const struct sq_work *
agent_work(const struct agent *a, struct sq_message_id id)
{
	return a->work && a->work->id.v == id.v ? a->work : window_work(a, id);
}

struct agent *
agent_of_message(struct runner *r, struct sq_message_id id)
{
	for (struct agent *a = r->agents; a; a = a->next)
		if (agent_work(a, id))
			return a;
	return NULL;
}

/* ---- transactions ---- */

/* "<128 random bits.e<epoch>@<the queue's own name>": unguessable, and tells nobody's name (notes on RFC 1845 §1.8). */
static void
make_transid(struct runner *r, const struct sq_work *w, char out[SQ_TRANSID_MAX + 1])
{
	uint8_t random[16];
	char hex[33];

	sq_random(random, sizeof(random));
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(hex + 2 * i, 3, "%02x", random[i]);
	snprintf(out, SQ_TRANSID_MAX + 1, "<%s.e%d@%.30s>", hex, w->epoch, r->ehlo_name);
}

void
agent_send_txn(struct runner *r, struct agent *a, uint32_t flags)
{
	const struct sq_work *w = a->work;
	struct sq_frame *f = calloc(1, sizeof(*f));
	/* A session under another name cannot go on with it. */
	bool resume = w->transid && strcmp(w->ehlo_name, a->ehlo_name) == 0;
	char transid[SQ_TRANSID_MAX + 1];

	if (!f)
		sq_bug("out of memory for a frame");
	a->txn = (uint16_t)(a->txn % TXN_NUMBERS + 1);
	f->type = SQ_FRAME_TXN;
	f->txn = a->txn;
	f->u.transaction = (struct sq_txn){
		.size = w->size,
		.hash_known = w->hash_known,
		.sender = sq_str(w->sender),
		.envid = sq_str(w->envid),
		.ret = w->ret,
		.flags = w->flags | flags | (w->in_doubt ? SQ_TXN_DOUBT : 0),
		.n_recipients = w->n_recipients,
	};
	if (resume) {
		f->u.transaction.transid = sq_str(w->transid);
		f->u.transaction.resume = true;
		f->u.transaction.verb = w->verb;
		f->u.transaction.store = sq_str(w->store);
		/* A server keeps transfers by login: it promised nothing to another one. */
		f->u.transaction.retained = w->retained && strcmp(w->login, a->login) == 0;
	} else {
		make_transid(r, w, transid);
		f->u.transaction.transid = sq_str(transid);
	}
	memcpy(f->u.transaction.sha256, w->sha256, sizeof(w->sha256));
	for (uint32_t i = 0; i < w->n_recipients; i++) {
		f->u.transaction.recipients[i] = (struct sq_txn_recipient){
			.id = w->recipients[i].id.v,
			.address = sq_str(w->recipients[i].address),
			.orcpt = sq_str(w->recipients[i].orcpt),
			.notify = w->recipients[i].notify,
		};
	}
	a->state = AGENT_BUSY;
	a->mark = TXN_SENT;
	a->phase = SQ_PHASE_MAIL;
	a->progressed = a->cleared = false;
	a->deadline = 0;
	meter_begin(a);
	agent_put(r, a, f);
	free(f);
}

bool
agent_give(struct runner *r, struct agent *a)
{
	const struct sq_route *route = sq_config_route(r->cfg, a->route);
	struct sq_end end = { .outcome = SQ_OUTCOME_CANCELLED, .reply = { .text = SQ_STR("it is asked about in a session of its own") } };

	if (r->stopping || r->bus.sleeping || !route)
		return false;
	if (window_give(r, a))
		return true;
	/* What a window would have taken alone is in hand. */
	if (!a->work && !claim_next(r, route, &a->work))
		return false;
	if (a->work->in_doubt && strcmp(a->work->ehlo_name, a->ehlo_name) != 0) {
		end_attempt(r, a, &end);
		return false;
	}
	agent_send_txn(r, a, 0);
	return true;
}

/* Exactly the recipients of the transaction, each once, in any order. */
static bool
results_fit(const struct sq_work *w, const struct sq_recipient_result *results, uint32_t n)
{
	if (n != w->n_recipients)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t found = 0;

		for (uint32_t k = 0; k < n; k++)
			found += results[k].id == w->recipients[i].id.v;
		if (found != 1)
			return false;
	}
	return true;
}

static const char *
on_read(struct agent *a, const struct sq_frame *f)
{
	if (!a->work || a->window.n > 0 || f->txn != a->txn || a->mark == TXN_TERMINATOR)
		return "it reads content of no open transaction";
	if (a->n_reads == SQ_READ_OPEN_MAX || f->u.read.offset + f->u.read.length > a->work->size)
		return "it reads more than there is";
	a->reads[a->n_reads++] = f->u.read;
	return NULL;
}

static const char *
on_envelope(struct runner *r, struct agent *a, const struct sq_frame *f)
{
	struct sq_said said = { a->ehlo_name, a->login };
	struct sq_error err = { 0 };

	if (!a->work || a->window.n > 0 || f->txn != a->txn || a->mark != TXN_SENT || !results_fit(a->work, f->u.envelope.results, f->u.envelope.n_results))
		return "its envelope does not fit the transaction";
	if (f->u.envelope.offset > a->work->size || (f->u.envelope.offset > 0 && !a->work->transid))
		return "its envelope resumes what was not begun";
	SQ_FAULT(runner_before_envelope);
	if (!runner_mark(r) || sq_queue_envelope(r->q, a->work->attempt, &f->u.envelope, &said, sq_wall_ms(), &err) != SQ_OK) {
		/* Nothing was changed: the agent is at fault, or its recipients have moved on. */
		if (err.code == SQ_EINVAL)
			return "its envelope fits no recipients that wait for it";
		runner_store_failed(r, &err);
		return NULL;
	}
	meter_envelope(r, a);
	a->mark = TXN_ENVELOPE;
	a->cleared = f->u.envelope.offset < a->work->size;
	a->progressed |= f->u.envelope.offset > a->work->durable;
	a->phase = SQ_PHASE_CONTENT;
	a->go_seq = f->u.envelope.seq;
	a->go_due = true;
	return NULL;
}

static const char *
on_terminator(struct runner *r, struct agent *a, const struct sq_frame *f)
{
	const struct sq_terminator *t = &f->u.terminator;
	struct sq_error err = { 0 };
	enum sq_err e;

	if (a->window.n > 0)
		return window_terminator(r, a, t);
	if (t->n != 1 || !a->work || t->txns[0].txn != a->txn || a->mark != TXN_ENVELOPE || a->go_due)
		return "its terminator fits no open transaction";
	if (t->txns[0].octets != a->work->size)
		return "it did not send all of the content";
	if (a->cancelled)
		return NULL; /* it has not read our CANCEL yet: no GO will come */
	SQ_FAULT(runner_before_intent);
	if (!runner_mark(r)) {
		runner_store_failed(r, NULL);
		return NULL;
	}
	e = sq_queue_committing(r->q, a->work->attempt, t->txns[0].sha256, sq_wall_ms(), &err);
	if (e == SQ_ECORRUPT)
		return "it sent other octets than were frozen";
	if (e != SQ_OK) {
		runner_store_failed(r, &err);
		return NULL;
	}
	a->mark = TXN_TERMINATOR;
	a->phase = SQ_PHASE_TERMINATOR;
	a->go_seq = t->seq;
	a->go_due = true;
	a->go_doubtful = true;
	return NULL;
}

/* How often a wait has doubled already, by the age of the message: 1, 2, 4 … times the first. */
static int64_t
refusals_by_age(const struct sq_work *w, int64_t now, int64_t first_ms)
{
	int64_t n = 1;

	for (int64_t age = now - w->submitted_ms; age > first_ms && n < 30; age /= 2)
		n++;
	return n;
}

static enum sq_outcome
outcome_of(const struct sq_verdict *v)
{
	uint32_t n[4] = { 0 };

	for (uint32_t i = 0; i < v->n_results; i++)
		n[v->results[i].cls]++;
	if (n[SQ_CLASS_ACCEPTED] == v->n_results)
		return SQ_OUTCOME_ACCEPTED;
	if (n[SQ_CLASS_REFUSED] == v->n_results)
		return SQ_OUTCOME_REFUSED;
	if (n[SQ_CLASS_DEFERRED] == v->n_results && v->results[0].cause == SQ_OUTCOME_QUOTA)
		return SQ_OUTCOME_QUOTA;
	return n[SQ_CLASS_DEFERRED] == v->n_results ? SQ_OUTCOME_DEFERRED : n[SQ_CLASS_DOUBT] > 0 ? SQ_OUTCOME_DOUBT : SQ_OUTCOME_MIXED;
}

static void
note_route_deferral(struct runner *r, struct agent *a, const struct sq_verdict *v)
{
	for (uint32_t i = 0; i < v->n_results; i++) {
		const struct sq_recipient_result *x = &v->results[i];

		if (x->cls == SQ_CLASS_DEFERRED && x->scope == SQ_SCOPE_ROUTE && !a->window.route_noted) {
			struct sq_end end = { .scope = SQ_SCOPE_ROUTE, .wait_s = x->wait_s, .reply = x->reply };

			link_note(r, a->route, x->cause == SQ_OUTCOME_ACCEPTED ? SQ_OUTCOME_DEFERRED : x->cause, &end, false);
			a->window.route_noted = a->window.n > 0;
			return;
		}
	}
}

static const char *
on_verdict(struct runner *r, struct agent *a, const struct sq_frame *f)
{
	const struct sq_verdict *v = &f->u.verdict;
	const struct sq_route *route = sq_config_route(r->cfg, a->route);
	int64_t next[SQ_GROUP_MAX], now = sq_wall_ms();
	struct sq_error err = { 0 };
	char id[SQ_ID_TEXT];
	bool accepted = false;

	if (!a->work || f->txn != a->txn || a->go_due || !results_fit(a->work, v->results, v->n_results))
		return "its verdict does not fit the transaction";
	for (uint32_t i = 0; i < v->n_results; i++) {
		const struct sq_recipient_result *x = &v->results[i];

		accepted |= x->cls == SQ_CLASS_ACCEPTED;
		/* Until its server has shown something, a message in doubt stays in doubt, whatever else is refused. */
		if (a->work->in_doubt && !a->cleared && a->mark != TXN_TERMINATOR && x->cls != SQ_CLASS_DOUBT)
			return "it claims to know what it did not ask";
		if ((x->cls == SQ_CLASS_ACCEPTED || (x->cls == SQ_CLASS_DOUBT && !a->work->in_doubt)) && a->mark != TXN_TERMINATOR)
			return "it claims acceptance without a terminator";
		/* In the order of the results; one second: a group that the server cut short goes on at once. */
		next[i] = now + (x->wait_s == 1 ? 0 : wait_of(r, a->route, SQ_OUTCOME_DEFERRED,
			refusals_by_age(a->work, now, route ? route->retry_min_ms : 1800000), false, (int64_t)x->wait_s * 1000));
	}
	SQ_FAULT(runner_before_verdict);
	if (!runner_mark(r) || sq_queue_verdict(r->q, a->work->attempt, v, next, outcome_of(v), now, &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return NULL;
	}
	r->verdict_due = true;
	r->doubts_due |= a->work->in_doubt;
	meter_verdict(r, a, accepted ? a->work->size : 0);
	if (outcome_of(v) != SQ_OUTCOME_ACCEPTED)
		picks_forget(r, a->route);
	sq_id_format(a->work->id, id);
	sq_log(SQ_LOG_INFO, "verdict msg=%s route=%s outcome=%s code=%d", id, a->route, sq_outcome_name(outcome_of(v)), v->results[0].reply.code);
	if (accepted) {
		link_good(r, a->route, NULL, 0);
		doubt_learn_reply(r, a->route, a->work->message_id, v->provider_id);
	}
	if (accepted && a->work->in_doubt)
		report_resolved(r, a->work->id, SQ_REPORT_SETTLED, now, a->cleared ? "the server (CHECKPOINT) had not accepted it, took the rest, and accepted it now"
			: "the server (CHECKPOINT) says that it accepted it");
	note_route_deferral(r, a, v);
	window_verdict(a, outcome_of(v));
	r->doubts_due |= outcome_of(v) == SQ_OUTCOME_DOUBT;
	drop_work(a);
	r->next_sweep = 0;
	return NULL;
}

static const char *
on_ready(struct runner *r, struct agent *a, const struct sq_frame *f)
{
	if (a->state != AGENT_CONNECTING || (!a->work && a->kind == SQ_JOB_DELIVER))
		return "it is ready out of turn";
	a->was_ready = true;
	if (a->kind != SQ_JOB_DELIVER) {
		evidence_ready(r, a, &f->u.ready);
		return NULL;
	}
	link_good(r, a->route, &f->u.ready, f->u.ready.connect_ms);
	window_ready(r, a, f->u.ready.caps);
	if (!window_give(r, a) && a->work)
		agent_send_txn(r, a, 0);
	return NULL;
}

static const char *
on_idle(struct agent *a)
{
	if (a->state != AGENT_BUSY || a->work || window_next(a))
		return "it is idle with a transaction open";
	window_idle(a);
	a->state = AGENT_IDLE;
	meter_idle(a);
	a->deadline = sq_boot_ms() + SQ_KEEP_SESSION_MS;
	return NULL;
}

static void
on_progress(struct runner *r, struct agent *a, const struct sq_frame *f)
{
	struct sq_error err = { 0 };

	if (!a->work || f->txn != a->txn)
		return;
	a->progressed |= f->u.progress.acked > 0;
	meter_progress(a, f->u.progress.acked);
	if (sq_queue_progress(r->q, a->work->attempt, a->phase, &f->u.progress, sq_wall_ms(), &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot note progress: %s", err.text);
}

static const char *
on_learned(struct runner *r, struct agent *a, const struct sq_learned *l)
{
	SQ_CLEANUP(sq_freep) char *key = sq_str_dup(l->key);
	SQ_CLEANUP(sq_freep) char *value = sq_str_dup(l->value);
	struct sq_error err = { 0 };

	if (!key || !value)
		return NULL;
	if (strcmp(key, "window") == 0)
		window_broken(r, a, value);
	else if (sq_queue_learn(r->q, a->route, key, value, sq_wall_ms(), &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot keep what was learned of route=%s: %s", a->route, err.text);
	return NULL;
}

/* What is wrong with the frame, or NULL. */
static const char *
on_frame_of(struct runner *r, struct agent *a, const struct sq_frame *f)
{
	switch (f->type) {
	case SQ_FRAME_HELLO:
		return f->u.hello.version == SQ_AGENT_VERSION ? NULL : "it is of another version than this daemon";
	case SQ_FRAME_READY:
		return on_ready(r, a, f);
	case SQ_FRAME_READ:
		return on_read(a, f);
	case SQ_FRAME_ENVELOPE:
		return on_envelope(r, a, f);
	case SQ_FRAME_TERMINATOR:
		return on_terminator(r, a, f);
	case SQ_FRAME_VERDICT:
		return on_verdict(r, a, f);
	case SQ_FRAME_IDLE:
		return a->state == AGENT_LEAVING ? NULL : on_idle(a);
	case SQ_FRAME_PROGRESS:
		on_progress(r, a, f);
		return NULL;
	case SQ_FRAME_LINK:
		meter_sample(r, a, &f->u.link);
		return NULL;
	case SQ_FRAME_LEARNED:
		return on_learned(r, a, &f->u.learned);
	case SQ_FRAME_END:
		a->had_end = true;
		agent_failed(r, a, &f->u.end);
		return NULL;
	case SQ_FRAME_EVIDENCE:
		return evidence_answer(r, a, f->txn, &f->u.evidence);
	case SQ_FRAME_ASK:
	case SQ_FRAME_STAGE: /* not wanted, so not to be told */
	case SQ_FRAME_CERTIFICATE:
	case SQ_FRAME_TOKEN_JOB:
	case SQ_FRAME_TOKEN_PROMPT:
	case SQ_FRAME_TOKEN:
	case SQ_FRAME_LOOKUP_JOB:
	case SQ_FRAME_LOOKUP:
	case SQ_FRAME_JOB:
	case SQ_FRAME_SECRET:
	case SQ_FRAME_TXN:
	case SQ_FRAME_CONTENT:
	case SQ_FRAME_GO:
	case SQ_FRAME_CANCEL:
	case SQ_FRAME_BYE:
		break;
	}
	return "it sent a frame that is not its to send";
}

static const char *
on_frame(struct runner *r, struct agent *a, const struct sq_frame *f)
{
	struct window_item *item = window_focus(a, f->txn);
	const char *wrong = on_frame_of(r, a, f);

	window_unfocus(a, item);
	return wrong;
}

void
agent_events(struct runner *r, struct agent *a)
{
	static struct sq_frame frame; /* large; one thread */
	struct sq_error err = { 0 };
	enum sq_err filled = sq_stream_fill(&a->stream, &err);
	const char *wrong;
	bool have;

	while (a->fd >= 0) {
		if (sq_stream_next(&a->stream, &frame, &have, &err) != SQ_OK) {
			agent_kill(r, a, err.text);
			return;
		}
		if (!have)
			break;
		if ((wrong = on_frame(r, a, &frame)) != NULL) {
			agent_kill(r, a, wrong);
			return;
		}
		if (r->store_failed)
			return;
	}
	if (a->fd < 0)
		return;
	if (filled == SQ_EEOF) {
		struct sq_end end = { .outcome = SQ_OUTCOME_LOCAL, .phase = a->phase, .scope = SQ_SCOPE_ROUTE,
			.reply = { .text = SQ_STR("the delivery agent died") } };

		agent_failed(r, a, &end);
	} else if (filled != SQ_OK || (sq_stream_pending(&a->stream) && sq_stream_flush(&a->stream, &err) == SQ_EIO)) {
		agent_kill(r, a, err.text);
	}
}

/* One content frame. */
static bool
serve_read(struct runner *r, struct agent *a, const struct sq_read *rd)
{
	SQ_CLEANUP(sq_buf_fini) struct sq_buf octets = SQ_BUF_INIT(SQ_CONTENT_MAX);
	struct sq_frame f = { .type = SQ_FRAME_CONTENT, .txn = a->txn };
	struct sq_error err = { 0 };

	if (sq_queue_read_content(r->q, a->work->id, rd->offset, rd->length, &octets, &err) != SQ_OK) {
		agent_kill(r, a, err.text);
		return false;
	}
	f.u.content.offset = rd->offset;
	f.u.content.octets = (struct sq_str){ octets.p, octets.n };
	agent_put(r, a, &f);
	return a->fd >= 0;
}

void
agent_after_commit(struct runner *r, struct agent *a)
{
	struct sq_frame go = { .type = SQ_FRAME_GO };
	int served = 0;

	if (a->window.due && a->fd >= 0)
		window_send(r, a);

	if (a->go_due && a->fd >= 0) {
		bool doubtful = a->go_doubtful;

		a->go_due = a->go_doubtful = false;
		if (doubtful)
			SQ_FAULT(runner_after_intent);
		else
			SQ_FAULT(runner_after_envelope);
		go.u.go.seq = a->go_seq;
		agent_put(r, a, &go);
		if (doubtful) {
			meter_go(a);
			SQ_FAULT(runner_after_go);
		}
	}
	/* As long as the stream's buffer has room; the rest when it has drained. */
	while (a->fd >= 0 && a->work && served < a->n_reads && a->stream.out.n < 2 * SQ_CONTENT_MAX)
		if (!serve_read(r, a, &a->reads[served++]))
			return;
	if (a->n_reads > 0) {
		a->n_reads -= served;
		memmove(a->reads, a->reads + served, (size_t)a->n_reads * sizeof(a->reads[0]));
	}
}
