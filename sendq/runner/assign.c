/*
 * What goes where and when: per route the wait that its last failure earned,
 * the next due message, and the agents that carry it. Routes never look at
 * each other: a bad one hurts itself alone.
 */
#include <sendq/fault.h>
#include <sendq/io.h>
#include <sendq/link.h>
#include <sendq/log.h>

#include "inside.h"

enum {
	CLAIM_SPARE = 8,                 /* some of what is due may not be claimable */
	FOREIGN_CHECKPOINT_MS = 300000,
};

/* ---- the link row: how the route fares ---- */

static bool
link_row(struct runner *r, const char *route, struct sq_link_row *row)
{
	struct sq_error err = { 0 };

	if (sq_queue_link_get(r->q, route, "", row, &err) == SQ_OK)
		return true;
	sq_log(SQ_LOG_WARN, "cannot read the state of route=%s: %s", route, err.text);
	memset(row, 0, sizeof(*row));
	snprintf(row->route, sizeof(row->route), "%s", route);
	return false;
}

static void
link_save(struct runner *r, struct sq_link_row *row, const char *state)
{
	struct sq_error err = { 0 };

	if (state && strcmp(row->state, state) != 0) {
		snprintf(row->state, sizeof(row->state), "%s", state);
		row->since_ms = sq_wall_ms();
	}
	if (sq_queue_link_put(r->q, row, &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot note the state of route=%s: %s", row->route, err.text);
}

static void
set_reply(struct sq_link_row *row, const struct sq_reply *reply)
{
	size_t n = reply->text.n < SQ_REPLY_TEXT_MAX ? reply->text.n : SQ_REPLY_TEXT_MAX;

	row->reply_code = reply->code;
	memcpy(row->reply_enhanced, reply->enhanced, sizeof(row->reply_enhanced));
	if (n > 0)
		memcpy(row->reply_text, reply->text.p, n);
	row->reply_text[n] = '\0';
}

void
link_good(struct runner *r, const char *route, const struct sq_ready *ready, int64_t connect_ms)
{
	struct sq_link_row row;

	doubt_link(r, route, true);
	link_row(r, route, &row);
	row.last_ok_ms = sq_wall_ms();
	if (ready) {
		row.connects++;
		row.caps = ready->caps;
		row.size_limit = (int64_t)ready->size_limit;
		snprintf(row.address, sizeof(row.address), "%.*s", (int)(ready->address.n < 79 ? ready->address.n : 79), ready->address.p ? ready->address.p : "");
		if (row.rtt_us == 0)
			row.rtt_us = connect_ms * 1000;
		/* A login that works ends what a login that failed began; a link is good once mail went over it. */
		if (strcmp(row.cause, "login") == 0 || strcmp(row.cause, "certificate") == 0 || strcmp(row.cause, "secret") == 0) {
			row.failures = 0;
			row.cause[0] = '\0';
		}
		row.stopped = false;
		row.next_try_ms = 0;
		link_save(r, &row, row.state[0] == '\0' || strcmp(row.state, "down") == 0 ? "fair" : NULL);
		return;
	}
	row.failures = 0;
	row.cause[0] = '\0';
	row.next_try_ms = 0;
	row.stopped = false;
	set_reply(&row, &(struct sq_reply){ 0 });
	link_save(r, &row, "good");
}

static bool
link_lost(enum sq_outcome cause)
{
	return cause == SQ_OUTCOME_CUT || cause == SQ_OUTCOME_DOUBT || cause == SQ_OUTCOME_STALLED;
}

/* Does this cause continue the series that is being counted? */
static bool
same_series(const char *before, enum sq_outcome cause)
{
	bool link_before = strcmp(before, "cut") == 0 || strcmp(before, "doubt") == 0 || strcmp(before, "stalled") == 0 ||
		strcmp(before, "offline") == 0 || strcmp(before, "unreachable") == 0;
	bool link_now = cause == SQ_OUTCOME_CUT || cause == SQ_OUTCOME_DOUBT || cause == SQ_OUTCOME_STALLED ||
		cause == SQ_OUTCOME_OFFLINE || cause == SQ_OUTCOME_UNREACHABLE;

	return strcmp(before, sq_outcome_name(cause)) == 0 || (link_before && link_now);
}

void
link_note(struct runner *r, const char *route, enum sq_outcome cause, const struct sq_end *end, bool progressed)
{
	const struct sq_route *cfg = sq_config_route(r->cfg, route);
	struct sq_backoff_in in = { .cause = cause, .progressed = progressed, .hint_ms = (int64_t)end->wait_s * 1000,
		.retry_min_ms = cfg ? cfg->retry_min_ms : 1800000, .retry_max_ms = cfg ? cfg->retry_max_ms : 7200000 };
	bool down = cause == SQ_OUTCOME_OFFLINE || cause == SQ_OUTCOME_UNREACHABLE;
	struct sq_backoff_out out;
	struct sq_link_row row;

	/* A refusal comes over a link that works. */
	if (cause != SQ_OUTCOME_DEFERRED && cause != SQ_OUTCOME_QUOTA && cause != SQ_OUTCOME_REFUSED)
		doubt_link(r, route, false);
	link_row(r, route, &row);
	/* A server that keeps a partial transfer without our promises must first notice that the session is dead (RFC 1845 §3). */
	if ((row.caps & (SQ_CAP_CHECKPOINT | SQ_CAP_XSENDQ)) == SQ_CAP_CHECKPOINT && in.hint_ms < FOREIGN_CHECKPOINT_MS && link_lost(cause))
		in.hint_ms = FOREIGN_CHECKPOINT_MS;
	row.failures = same_series(row.cause, cause) && !progressed ? row.failures + 1 : 1;
	in.failures = row.failures;
	sq_random(&in.random, sizeof(in.random));
	out = sq_backoff(&in);
	row.last_fail_ms = sq_wall_ms();
	row.connect_failures += down;
	row.cuts += link_lost(cause);
	row.stopped = out.stop || cause == SQ_OUTCOME_CERTIFICATE;
	row.next_try_ms = out.stop ? 0 : row.last_fail_ms + out.wait_ms;
	snprintf(row.cause, sizeof(row.cause), "%s", sq_outcome_name(cause));
	set_reply(&row, &end->reply);
	link_save(r, &row, down ? "down" : link_lost(cause) ? "poor" : NULL);
	if (out.stop)
		sq_log(SQ_LOG_WARN, "route=%s is stopped: cause=%s failures=%lld", route, row.cause, (long long)row.failures);
	else
		sq_log(SQ_LOG_INFO, "route=%s waits cause=%s failures=%lld wait_ms=%lld", route, row.cause, (long long)row.failures, (long long)out.wait_ms);
	if (sq_log_enabled(SQ_LOG_DEBUG))
		sq_log(SQ_LOG_DEBUG, "route=%s words=\"%.*s\"", route, (int)end->reply.text.n, end->reply.text.p ? end->reply.text.p : "");
}

/* End waits: all of them (flush), or those that wait for a person (a new configuration). */
void
link_clear_waits(struct runner *r, bool stopped_only)
{
	for (size_t i = 0; i < r->cfg->n_routes; i++) {
		struct sq_link_row row;

		if (!link_row(r, r->cfg->routes[i].name, &row) || (row.next_try_ms == 0 && !row.stopped))
			continue;
		if (stopped_only && !row.stopped && strcmp(row.cause, "login") != 0 && strcmp(row.cause, "secret") != 0)
			continue;
		row.next_try_ms = 0;
		row.stopped = false;
		link_save(r, &row, NULL);
	}
}

/* Until when the route waits, in wall time: 0 ready, INT64_MAX stopped. */
static int64_t
route_waits_until(struct runner *r, const char *route, int64_t now)
{
	struct sq_link_row row;

	link_row(r, route, &row);
	if (row.stopped && row.next_try_ms == 0)
		return INT64_MAX;
	return row.next_try_ms > now ? row.next_try_ms : 0;
}

/* ---- messages ---- */

static int64_t
route_next_due(struct runner *r, const char *route)
{
	struct sq_error err = { 0 };
	int64_t due = INT64_MAX;

	if (sq_queue_next_due(r->q, route, &due, &err) != SQ_OK) {
		sq_log(SQ_LOG_WARN, "cannot look for due mail: %s", err.text);
		return INT64_MAX;
	}
	return due;
}

/* The next due messages, in order, as long as they keep within the limits together. How many; 0 also where the store failed. */
int
claim_some(struct runner *r, const struct sq_route *route, const struct claim_limits *l, struct sq_work **out)
{
	struct sq_candidate due[SQ_TXN_OPEN_MAX + CLAIM_SPARE];
	struct sq_error err = { 0 };
	int64_t now = sq_wall_ms();
	uint64_t octets = 0;
	uint32_t recipients = 0;
	size_t n = 0;
	int got = 0;
	enum sq_err e;

	if ((e = sq_queue_due(r->q, route->name, now, due, (size_t)l->messages + CLAIM_SPARE, &n, &err)) != SQ_OK) {
		runner_store_failed(r, &err);
		return 0;
	}
	for (size_t i = 0; i < n && got < l->messages && recipients < l->recipients; i++) {
		if (due[i].size > l->each || due[i].size > l->octets - octets)
			break;
		if (!runner_mark(r)) {
			runner_store_failed(r, NULL);
			break;
		}
		e = sq_queue_claim(r->q, due[i].id, false, "", now, &out[got], &err);
		if (e == SQ_OK) {
			SQ_FAULT(runner_claimed);
			octets += out[got]->size;
			recipients += out[got++]->n_recipients;
		} else if (e != SQ_ENOENT) {
			runner_store_failed(r, &err);
			break;
		}
	}
	return got;
}

bool
claim_next(struct runner *r, const struct sq_route *route, struct sq_work **out)
{
	struct claim_limits one = { 1, UINT64_MAX, UINT64_MAX, 1 };
	struct sq_error err = { 0 };
	enum sq_err e;

	/* What is in doubt and can be asked about comes first: it is nearly done, and others wait for the answer. */
	if (!runner_mark(r)) {
		runner_store_failed(r, NULL);
		return false;
	}
	if ((e = sq_queue_claim_doubt(r->q, route->name, "", sq_wall_ms(), out, &err)) == SQ_OK)
		return true;
	if (e != SQ_ENOENT) {
		runner_store_failed(r, &err);
		return false;
	}
	return claim_some(r, route, &one, out) == 1;
}

static int
agents_on(struct runner *r, const char *route)
{
	int n = 0;

	for (struct agent *a = r->agents; a; a = a->next)
		n += a->kind == SQ_JOB_DELIVER && a->state < AGENT_LEAVING && strcmp(a->route, route) == 0;
	return n;
}

/* The secret first, then the process; a password command runs beside everything else. */
void
route_open(struct runner *r, const struct sq_route *route, struct agent *a)
{
	SQ_CLEANUP(sq_buf_wipe) struct sq_buf secret = SQ_BUF_INIT(SQ_SECRET_MAX);
	struct sq_error err = { 0 };
	enum sq_err e = SQ_OK;

	switch (route->secret_kind) {
	case SQ_SECRET_COMMAND:
	case SQ_SECRET_TOKEN_COMMAND:
		if ((e = command_start(&a->secret, route->secret, NULL, r->o->interactive, &err)) == SQ_OK)
			return;
		break;
	case SQ_SECRET_FILE:
		e = secret_read_file(route->secret, &secret, &err);
		secret_trim(&secret);
		break;
	case SQ_SECRET_LITERAL:
		sq_buf_adds(&secret, route->secret);
		break;
	case SQ_SECRET_NONE:
		break;
	}
	if (e != SQ_OK) {
		struct sq_end end = { .outcome = SQ_OUTCOME_SECRET, .scope = SQ_SCOPE_ROUTE, .reply = { .text = sq_str(err.text) } };

		agent_failed(r, a, &end);
		return;
	}
	agent_start(r, a, route, (struct sq_str){ secret.p, secret.n });
}

static bool
new_agent(struct runner *r, const struct sq_route *route)
{
	struct agent *a = calloc(1, sizeof(*a));

	if (!a)
		return false;
	a->fd = a->secret.out = a->secret.err = -1;
	snprintf(a->route, sizeof(a->route), "%s", route->name);
	if (!claim_next(r, route, &a->work)) {
		free(a);
		return false;
	}
	a->next = r->agents;
	r->agents = a;
	a->state = AGENT_SECRET;
	route_open(r, route, a);
	return true;
}

static void
assign_route(struct runner *r, const struct sq_route *route)
{
	int64_t now = sq_wall_ms();

	for (struct agent *a = r->agents; a && !r->store_failed; a = a->next) {
		if (a->state != AGENT_IDLE || strcmp(a->route, route->name) != 0)
			continue;
		if ((!a->work && route_waits_until(r, route->name, now) > 0) || !agent_give(r, a))
			if (r->o->once || r->stopping || sq_boot_ms() >= a->deadline)
				agent_bye(r, a);
	}
	while (!r->stopping && !r->store_failed && agents_on(r, route->name) < route->connections &&
	       route_next_due(r, route->name) <= now && route_waits_until(r, route->name, now) == 0)
		if (!new_agent(r, route))
			return;
}

/* Whoever has just become idle may take a window in the same commit as the verdicts of its last one. */
void
assign_windows(struct runner *r)
{
	int64_t now = sq_wall_ms();

	for (struct agent *a = r->agents; a && r->batch && !r->store_failed; a = a->next)
		if (a->state == AGENT_IDLE && route_waits_until(r, a->route, now) == 0)
			(void)window_give(r, a);
}

void
assign(struct runner *r)
{
	for (size_t i = 0; i < r->cfg->n_routes && !r->store_failed; i++)
		assign_route(r, &r->cfg->routes[i]);
}

bool
quiet(struct runner *r)
{
	int64_t now = sq_wall_ms();

	if (r->doubts_open || r->logs)
		return false;
	for (struct agent *a = r->agents; a; a = a->next)
		if (a->state < AGENT_LEAVING && a->state != AGENT_IDLE)
			return false;
	for (size_t i = 0; i < r->cfg->n_routes; i++)
		if (route_next_due(r, r->cfg->routes[i].name) <= now && route_waits_until(r, r->cfg->routes[i].name, now) == 0)
			return false;
	return true;
}

int64_t
next_wake(struct runner *r)
{
	int64_t wall = sq_wall_ms(), boot = sq_boot_ms(), at = INT64_MAX, expiry = INT64_MAX, wake;

	for (size_t i = 0; i < r->cfg->n_routes && !r->stopping; i++) {
		const char *name = r->cfg->routes[i].name;
		int64_t due = route_next_due(r, name), waits;

		if (due == INT64_MAX || (due <= wall && agents_on(r, name) >= r->cfg->routes[i].connections))
			continue;
		waits = route_waits_until(r, name, wall);
		due = waits > due ? waits : due;
		at = due < at ? due : at;
	}
	if (sq_queue_next_expiry(r->q, &expiry, NULL) == SQ_OK && expiry < at)
		at = expiry;
	if (r->next_warning < at)
		at = r->next_warning;
	wake = at == INT64_MAX ? INT64_MAX : boot + (at > wall ? at - wall : 0);
	for (struct agent *a = r->agents; a; a = a->next) {
		int64_t by = a->state == AGENT_SECRET ? a->secret.deadline : a->deadline;

		if (by > 0 && by < wake)
			wake = by;
	}
	/* Due since doubts were looked at in this round: an agent that was freed makes room for the next question. */
	if (!r->stopping && (r->doubts_due ? boot : r->doubts_wake) < wake)
		wake = r->doubts_due ? boot : r->doubts_wake;
	if (mtalog_deadline(r) < wake)
		wake = mtalog_deadline(r);
	if (r->hook.pid > 0 && r->hook.deadline < wake)
		wake = r->hook.deadline;
	if (r->stopping && r->stop_by < wake)
		wake = r->stop_by;
	return wake;
}
