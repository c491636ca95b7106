/*
 * One agent, seen from the runner. It takes frames, checks every one against
 * what this side knows (the agent talks to the network and is not trusted),
 * and puts what they mean into the round's batch. GO and content leave only
 * after that batch is durable.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sendq/fault.h>
#include <sendq/io.h>
#include <sendq/link.h>
#include <sendq/log.h>

#include "inside.h"

enum { REPLY_TIMEOUT_MS = 300000, CONTENT_TIMEOUT_MS = 180000, TXN_NUMBERS = 60000 };

/* ---- starting ---- */

char *
program_path(const char *name)
{
	struct sq_buf b = SQ_BUF_INIT(4096);
	char self[3072], *slash, *out = NULL;
	ssize_t n;

#ifdef SENDQ_FAULTS
	/* Builds for tests find each other by the agent's place. */
	if (getenv("SENDQ_AGENT") && (slash = strrchr(getenv("SENDQ_AGENT"), '/'))) {
		sq_buf_addf(&b, "%.*s/%s", (int)(slash - getenv("SENDQ_AGENT")), getenv("SENDQ_AGENT"), name);
		if (sq_buf_take(&b, &out, NULL) == SQ_OK && access(out, X_OK) == 0)
			return out;
		free(out);
		out = NULL;
	}
#endif
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash)
			sq_buf_addf(&b, "%.*s/%s", (int)(slash - self), self, name);
	}
	if (b.n == 0 || access(b.p, X_OK) < 0) {
		sq_buf_clear(&b);
		sq_buf_addf(&b, SENDQ_LIBEXECDIR "/%s", name);
	}
	if (sq_buf_take(&b, &out, NULL) != SQ_OK)
		sq_buf_fini(&b);
	return out;
}

/* The agent's environment: what locale and time need; in test builds what tests need. */
static size_t
agent_environment(char **env, size_t max)
{
	static const char *const kept[] = {
		"PATH", "LANG", "LC_ALL", "TZ",
#ifdef SENDQ_FAULTS
		"SENDQ_FAULT", "SENDQ_FAULT_PROGRAM", "SENDQ_TEST_CLOCK", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS",
#endif
	};
	size_t n = 0;

	for (size_t i = 0; i < SQ_LEN(kept) && n + 1 < max; i++) {
		struct sq_buf b = SQ_BUF_INIT(65536);
		const char *v = getenv(kept[i]);

		if (!v)
			continue;
		sq_buf_addf(&b, "%s=%s", kept[i], v);
		if (sq_buf_take(&b, &env[n], NULL) == SQ_OK)
			n++;
		else
			sq_buf_fini(&b);
	}
	env[n] = NULL;
	return n;
}

static enum sq_err
spawn_agent(struct runner *r, struct agent *a, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) char *path = program_path("sendq-smtp");
	char *argv[] = { (char *)(uintptr_t)"sendq-smtp", NULL }, *env[16];
	SQ_CLEANUP(sq_closep) int ours = -1;
	SQ_CLEANUP(sq_closep) int theirs = -1;
	SQ_CLEANUP(sq_closep) int lock = -1;
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, def;
	int pair[2], rc;

	if (!path)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return sq_error_errno(err, SQ_EIO, "cannot make a socket pair");
	ours = pair[0];
	/* Above the numbers they will have, so that neither dup2 hits the other's source. */
	theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, 16);
	close(pair[1]);
	lock = fcntl(r->lock_fd, F_DUPFD_CLOEXEC, 16);
	if (theirs < 0 || lock < 0)
		return sq_error_errno(err, SQ_EIO, "cannot duplicate a descriptor");
	sigemptyset(&none);
	sigfillset(&def);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&files, theirs, SQ_AGENT_FD);
	posix_spawn_file_actions_adddup2(&files, lock, SQ_AGENT_LOCK_FD);
	posix_spawn_file_actions_addclosefrom_np(&files, SQ_AGENT_LOCK_FD + 1);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &def);
	agent_environment(env, SQ_LEN(env));
	rc = posix_spawn(&a->pid, path, &files, &attr, argv, env);
	for (size_t i = 0; env[i]; i++)
		free(env[i]);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	if (rc != 0) {
		a->pid = 0;
		errno = rc;
		return sq_error_errno(err, SQ_EIO, "cannot run '%s'", path);
	}
	a->fd = ours;
	ours = -1;
	sq_stream_init(&a->stream, a->fd);
	return SQ_OK;
}

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

	if (sq_stream_put(&a->stream, f, &err) != SQ_OK || (sq_stream_flush(&a->stream, &err) != SQ_OK && err.code != SQ_EEOF))
		agent_kill(r, a, err.text);
}

static uint32_t
timeout_of(int64_t ms)
{
	return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

static void
put_job(struct runner *r, struct agent *a, const struct sq_route *route)
{
	struct sq_frame f = { .type = SQ_FRAME_JOB };

	f.u.job = (struct sq_job){
		.kind = a->kind,
		.url = sq_str(a->kind == SQ_JOB_EVIDENCE ? route->imap : route->server),
		.user = sq_str(route->user),
		.auth = sq_str(route->auth ? route->auth : route->secret_kind == SQ_SECRET_TOKEN_COMMAND ? "XOAUTH2" : NULL),
		.tls = route->tls,
		.ehlo_name = sq_str(route->ehlo_name ? route->ehlo_name : r->ehlo_name),
		.proxy = sq_str(route->proxy),
		.ca_file = sq_str(route->ca_file),
		.fingerprint = sq_str(route->fingerprint),
		.client_cert = sq_str(route->client_cert),
		.client_key = sq_str(route->client_key),
		.connect_timeout_ms = timeout_of(r->cfg->connect_timeout_ms),
		.reply_timeout_ms = REPLY_TIMEOUT_MS,
		.content_timeout_ms = CONTENT_TIMEOUT_MS,
		.verdict_timeout_ms = timeout_of(r->cfg->verdict_timeout_ms),
		.eightbit_send = route->eightbit_send,
		.ehlo_after_auth = fact(r, route->name, "ehlo_after_auth"),
		.bdat = fact(r, route->name, "bdat"),
		.pipelining = fact(r, route->name, "pipelining"),
	};
	agent_put(r, a, &f);
}

void
agent_start(struct runner *r, struct agent *a, const struct sq_route *route, struct sq_str secret)
{
	struct sq_frame f = { .type = SQ_FRAME_HELLO };
	struct sq_error err = { 0 };

	if (spawn_agent(r, a, &err) != SQ_OK) {
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
	ae.next_try_ms = end->outcome == SQ_OUTCOME_CANCELLED ? now
		: now + wait_of(r, a->route, ae.outcome, 1, a->progressed, (int64_t)end->wait_s * 1000);
	sq_id_format(a->work->id, id);
	if (!runner_mark(r) || sq_queue_attempt_end(r->q, a->work->attempt, &ae, now, &doubt, &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return;
	}
	r->doubts_due |= doubt > 0;
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
		enum sq_outcome cause = a->mark == TXN_TERMINATOR && a->work ? SQ_OUTCOME_DOUBT : end->outcome;

		link_note(r, a->route, cause, end, a->progressed);
	}
	if (a->work)
		end_attempt(r, a, end);
	sq_closep(&a->fd);
	sq_stream_wipe(&a->stream);
	command_fini(&a->secret);
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
	if (a->cancelled || a->mark == TXN_TERMINATOR || a->state >= AGENT_LEAVING)
		return;
	a->cancelled = true;
	a->deadline = sq_boot_ms() + SQ_CANCEL_MS;
	agent_put(r, a, &f);
}

struct agent *
agent_of_message(struct runner *r, struct sq_message_id id)
{
	for (struct agent *a = r->agents; a; a = a->next)
		if (a->work && a->work->id.v == id.v)
			return a;
	return NULL;
}

/* ---- transactions ---- */

void
agent_send_txn(struct runner *r, struct agent *a)
{
	const struct sq_work *w = a->work;
	struct sq_frame *f = calloc(1, sizeof(*f));

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
		.flags = w->flags,
		.epoch = (uint32_t)w->epoch,
		.n_recipients = w->n_recipients,
	};
	memcpy(f->u.transaction.sha256, w->sha256, sizeof(w->sha256));
	for (uint32_t i = 0; i < w->n_recipients; i++) {
		f->u.transaction.recipients[i] = (struct sq_txn_recipient){
			.id = w->recipients[i].id.v,
			.address = sq_str(w->recipients[i].address),
			.orcpt = sq_str(w->recipients[i].orcpt),
			.notify = w->recipients[i].notify,
		};
		if (w->recipients[i].epoch > 0)
			f->u.transaction.flags |= SQ_TXN_RESEND;
	}
	a->state = AGENT_BUSY;
	a->mark = TXN_SENT;
	a->phase = SQ_PHASE_MAIL;
	a->progressed = false;
	a->deadline = 0;
	agent_put(r, a, f);
	free(f);
}

bool
agent_give(struct runner *r, struct agent *a)
{
	const struct sq_route *route = sq_config_route(r->cfg, a->route);

	if (r->stopping || !route || !claim_next(r, route, &a->work))
		return false;
	agent_send_txn(r, a);
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
	if (!a->work || f->txn != a->txn || a->mark == TXN_TERMINATOR)
		return "it reads content of no open transaction";
	if (a->n_reads == SQ_READ_OPEN_MAX || f->u.read.offset + f->u.read.length > a->work->size)
		return "it reads more than there is";
	a->reads[a->n_reads++] = f->u.read;
	return NULL;
}

static const char *
on_envelope(struct runner *r, struct agent *a, const struct sq_frame *f)
{
	struct sq_error err = { 0 };

	if (!a->work || f->txn != a->txn || a->mark != TXN_SENT || !results_fit(a->work, f->u.envelope.results, f->u.envelope.n_results))
		return "its envelope does not fit the transaction";
	SQ_FAULT(runner_before_envelope);
	if (!runner_mark(r) || sq_queue_envelope(r->q, a->work->attempt, &f->u.envelope, sq_wall_ms(), &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return NULL;
	}
	a->mark = TXN_ENVELOPE;
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

		if (x->cls == SQ_CLASS_DEFERRED && x->scope == SQ_SCOPE_ROUTE) {
			struct sq_end end = { .scope = SQ_SCOPE_ROUTE, .wait_s = x->wait_s, .reply = x->reply };

			link_note(r, a->route, x->cause == SQ_OUTCOME_ACCEPTED ? SQ_OUTCOME_DEFERRED : x->cause, &end, false);
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
		if ((x->cls == SQ_CLASS_ACCEPTED || x->cls == SQ_CLASS_DOUBT) && a->mark != TXN_TERMINATOR)
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
	sq_id_format(a->work->id, id);
	sq_log(SQ_LOG_INFO, "verdict msg=%s route=%s outcome=%s code=%d", id, a->route, sq_outcome_name(outcome_of(v)), v->results[0].reply.code);
	if (accepted) {
		link_good(r, a->route, NULL, 0);
		doubt_learn_reply(r, a->route, a->work->message_id, v->provider_id);
	}
	note_route_deferral(r, a, v);
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
	agent_send_txn(r, a);
	return NULL;
}

static const char *
on_idle(struct agent *a)
{
	if (a->state != AGENT_BUSY || a->work)
		return "it is idle with a transaction open";
	a->state = AGENT_IDLE;
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
	if (sq_queue_progress(r->q, a->work->attempt, a->phase, &f->u.progress, sq_wall_ms(), &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot note progress: %s", err.text);
}

/* What is wrong with the frame, or NULL. */
static const char *
on_frame(struct runner *r, struct agent *a, const struct sq_frame *f)
{
	struct sq_error err = { 0 };

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
		a->rtt_us = f->u.link.rtt_us ? f->u.link.rtt_us : a->rtt_us;
		a->goodput_bps = f->u.link.goodput_bps ? f->u.link.goodput_bps : a->goodput_bps;
		return NULL;
	case SQ_FRAME_LEARNED: {
		SQ_CLEANUP(sq_freep) char *key = sq_str_dup(f->u.learned.key);
		SQ_CLEANUP(sq_freep) char *value = sq_str_dup(f->u.learned.value);

		if (key && value && sq_queue_learn(r->q, a->route, key, value, sq_wall_ms(), &err) != SQ_OK)
			sq_log(SQ_LOG_WARN, "cannot keep what was learned of route=%s: %s", a->route, err.text);
		return NULL;
	}
	case SQ_FRAME_END:
		a->had_end = true;
		agent_failed(r, a, &f->u.end);
		return NULL;
	case SQ_FRAME_EVIDENCE:
		return evidence_answer(r, a, f->txn, &f->u.evidence);
	case SQ_FRAME_ASK:
	case SQ_FRAME_JOB:
	case SQ_FRAME_SECRET:
	case SQ_FRAME_TXN:
	case SQ_FRAME_CONTENT:
	case SQ_FRAME_GO:
	case SQ_FRAME_CANCEL:
	case SQ_FRAME_BYE:
		break;
	}
	return "it sent a frame that is the runner's to send";
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

	if (a->go_due && a->fd >= 0) {
		bool doubtful = a->go_doubtful;

		a->go_due = a->go_doubtful = false;
		if (doubtful)
			SQ_FAULT(runner_after_intent);
		else
			SQ_FAULT(runner_after_envelope);
		go.u.go.seq = a->go_seq;
		agent_put(r, a, &go);
		if (doubtful)
			SQ_FAULT(runner_after_go);
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
