/*
 * Agents and when: per route the wait that its last failure earned, what is
 * due, and how many connections carry it. Routes never look at each other: a
 * bad one hurts itself alone.
 */
#include <sendq/io.h>
#include <sendq/log.h>

#include "inside.h"

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
		if ((e = command_start(&a->secret, route->secret, NULL, (struct sq_str){ 0 }, r->o->interactive, &err)) == SQ_OK)
			return;
		break;
	case SQ_SECRET_OAUTH:
		token_open(r, a, route);
		return;
	case SQ_SECRET_FILE:
		e = secret_read_file(route->secret, &secret, &err);
		secret_trim(&secret);
		break;
	case SQ_SECRET_CREDENTIAL:
		e = secret_read_credential(route->secret, &secret, &err);
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
new_agent(struct runner *r, const struct sq_route *route, bool express)
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
	a->express = express;
	a->state = AGENT_SECRET;
	route_open(r, route, a);
	return true;
}

bool
agent_checking(const struct agent *a)
{
	return a->mark == TXN_TERMINATOR && a->meter.go > 0 && sq_boot_ms() - a->meter.go >= SQ_CHECKING_MS;
}

/*
 * One connection more than the route has: while the server takes its time over
 * a verdict, and for small mail beside a large one.
 */
static bool
may_express(struct runner *r, const struct sq_route *route)
{
	return agents_on(r, route->name) <= route->connections && picks_express(r, route);
}

static void
assign_route(struct runner *r, const struct sq_route *route)
{
	int64_t now = sq_wall_ms();
	int busy;

	for (struct agent *a = r->agents; a && !r->store_failed; a = a->next) {
		bool may;

		if (a->state != AGENT_IDLE || a->kind != SQ_JOB_DELIVER || strcmp(a->route, route->name) != 0)
			continue;
		busy = agents_on(r, route->name) - 1;
		a->express = a->express && busy >= route->connections;
		may = a->work || link_waits_until(r, route->name, now) == 0;
		if (!a->work && may && a->express) {
			a->state = AGENT_LEAVING; /* it is not among those that it would go beside */
			may = picks_express(r, route);
			a->state = AGENT_IDLE;
		}
		if (!may || !agent_give(r, a))
			if (r->o->once || r->stopping || r->bus.sleeping || sq_boot_ms() >= a->deadline)
				agent_bye(r, a);
	}
	while (!r->stopping && !r->store_failed && link_waits_until(r, route->name, now) == 0 &&
	       (busy = agents_on(r, route->name)) <= route->connections) {
		bool express = busy == route->connections;

		if (!(express ? may_express(r, route) : picks_any(r, route)) || !new_agent(r, route, express))
			return;
	}
}

/* Whoever has just become idle may take a window in the same commit as the verdicts of its last one. */
void
assign_windows(struct runner *r)
{
	int64_t now = sq_wall_ms();

	for (struct agent *a = r->agents; a && r->batch && !r->store_failed; a = a->next)
		if (a->state == AGENT_IDLE && !a->express && link_waits_until(r, a->route, now) == 0)
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

	if (r->doubts_open || r->logs || r->fallback_due || r->fallback_at <= now)
		return false;
	for (struct agent *a = r->agents; a; a = a->next)
		if (a->state < AGENT_LEAVING && a->state != AGENT_IDLE)
			return false;
	for (size_t i = 0; i < r->cfg->n_routes; i++)
		if (link_waits_until(r, r->cfg->routes[i].name, now) == 0 && !picks_nothing(r, &r->cfg->routes[i]))
			return false;
	return true;
}

/* When the next verdict of the route becomes slow, in wall time. */
static int64_t
next_checking(struct runner *r, const char *route)
{
	int64_t at = INT64_MAX, now = sq_boot_ms();

	for (struct agent *a = r->agents; a; a = a->next)
		if (a->mark == TXN_TERMINATOR && a->meter.go > 0 && strcmp(a->route, route) == 0 && a->meter.go + SQ_CHECKING_MS > now &&
		    a->meter.go + SQ_CHECKING_MS < at)
			at = a->meter.go + SQ_CHECKING_MS;
	return at == INT64_MAX ? at : sq_wall_ms() + at - now;
}

int64_t
next_wake(struct runner *r)
{
	int64_t wall = sq_wall_ms(), boot = sq_boot_ms(), at = INT64_MAX, expiry = INT64_MAX, wake;

	for (size_t i = 0; i < r->cfg->n_routes && !r->stopping; i++) {
		const char *name = r->cfg->routes[i].name;
		int64_t due = route_next_due(r, name), waits;

		if (due == INT64_MAX)
			continue;
		if (due <= wall && agents_on(r, name) >= r->cfg->routes[i].connections) {
			due = next_checking(r, name);
			at = due < at ? due : at;
			continue;
		}
		waits = link_waits_until(r, name, wall);
		due = waits > due ? waits : due;
		at = due < at ? due : at;
	}
	if (sq_queue_next_expiry(r->q, &expiry, NULL) == SQ_OK && expiry < at)
		at = expiry;
	if (r->next_warning < at)
		at = r->next_warning;
	if (!r->stopping)
		at = r->fallback_due ? wall : r->fallback_at < at ? r->fallback_at : at;
	wake = at == INT64_MAX ? INT64_MAX : boot + (at > wall ? at - wall : 0);
	for (struct agent *a = r->agents; a; a = a->next) {
		int64_t by = a->state == AGENT_SECRET ? a->secret.deadline : a->deadline;

		if (by > 0 && by < wake)
			wake = by;
	}
	/* Due since doubts were looked at in this round: an agent that was freed makes room for the next question. */
	if (!r->stopping && (r->doubts_due ? boot : r->doubts_wake) < wake)
		wake = r->doubts_due ? boot : r->doubts_wake;
	if (bus_deadline(r) < wake)
		wake = bus_deadline(r);
	if (mtalog_deadline(r) < wake)
		wake = mtalog_deadline(r);
	if (r->hook.pid > 0 && r->hook.deadline < wake)
		wake = r->hook.deadline;
	if (r->stopping && r->stop_by < wake)
		wake = r->stop_by;
	return wake;
}
