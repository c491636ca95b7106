/*
 * A route that takes nothing hands its mail to its fallback: what has waited
 * long enough, while nothing of it is in doubt or half sent, and only after
 * the fallback's server has been seen to let us in. Both routes being down is
 * therefore no reason to move anything.
 */
#include <stdlib.h>

#include <sendq/fault.h>
#include <sendq/io.h>
#include <sendq/log.h>

#include "inside.h"

enum { MOVE_MAX = 500, PROBE_AGAIN_MS = 60000 };

/* The server or a person is at fault, not the link: another server may do better. */
static bool
another_may_do(const char *cause)
{
	static const enum sq_outcome causes[] = { SQ_OUTCOME_UNREACHABLE, SQ_OUTCOME_TLS, SQ_OUTCOME_CERTIFICATE, SQ_OUTCOME_LOGIN,
		SQ_OUTCOME_LOGIN_LATER, SQ_OUTCOME_SECRET, SQ_OUTCOME_QUOTA, SQ_OUTCOME_PROTOCOL };

	for (size_t i = 0; i < SQ_LEN(causes); i++)
		if (strcmp(cause, sq_outcome_name(causes[i])) == 0)
			return true;
	return false;
}

static bool
has_agent(struct runner *r, const char *route)
{
	for (struct agent *a = r->agents; a; a = a->next)
		if (strcmp(a->route, route) == 0 && a->state < AGENT_LEAVING)
			return true;
	return false;
}

/* Connect and log in, nothing else; how it ends is noted with the link as always. */
static void
probe(struct runner *r, const struct sq_route *to)
{
	struct agent *a = calloc(1, sizeof(*a));

	if (!a)
		return;
	a->fd = a->secret.out = a->secret.err = -1;
	snprintf(a->route, sizeof(a->route), "%s", to->name);
	a->kind = SQ_JOB_PROBE;
	a->state = AGENT_SECRET;
	a->next = r->agents;
	r->agents = a;
	route_link(r, to->name)->probed_ms = sq_boot_ms();
	sq_log(SQ_LOG_INFO, "is the fallback there? route=%s", to->name);
	route_open(r, to, a);
}

static bool
move(struct runner *r, const struct sq_route *from, const struct sq_route *to, int64_t before_ms, int64_t now)
{
	struct sq_error err = { 0 };
	int n = 0;

	if (!runner_mark(r) || sq_queue_reroute(r->q, from->name, to->name, before_ms, MOVE_MAX, now, &n, &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return false;
	}
	SQ_FAULT(runner_rerouted);
	if (n == 0)
		return false;
	picks_forget(r, from->name);
	picks_forget(r, to->name);
	sq_log(SQ_LOG_WARN, "route=%s takes nothing cause=%s: messages=%d go by its fallback route=%s", from->name,
		route_link(r, from->name)->row.cause, n, to->name);
	return true;
}

/* Wall time at which to look again; INT64_MAX: when something happens. */
static int64_t
look(struct runner *r, const struct sq_route *from, int64_t now)
{
	const struct sq_route *to = from->fallback ? sq_config_route(r->cfg, from->fallback) : NULL;
	const struct sq_link_row *row;
	struct sq_error err = { 0 };
	int64_t oldest = INT64_MAX, since, waits;
	struct link *there;

	if (!to || link_waits_until(r, from->name, now) == 0)
		return INT64_MAX;
	row = &route_link(r, from->name)->row;
	if (!another_may_do(row->cause))
		return INT64_MAX;
	if (sq_queue_reroutable(r->q, from->name, now, &oldest, &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return INT64_MAX;
	}
	if (oldest == INT64_MAX)
		return INT64_MAX;
	since = row->last_ok_ms > oldest ? row->last_ok_ms : oldest;
	if (since + from->fallback_after_ms > now)
		return since + from->fallback_after_ms;
	if ((waits = link_waits_until(r, to->name, now)) > 0)
		return waits;
	there = route_link(r, to->name);
	/* Seen since the other failed: it would take mail now. */
	if (there->row.last_ok_ms >= row->last_fail_ms)
		return move(r, from, to, now - from->fallback_after_ms, now) ? now : now + PROBE_AGAIN_MS;
	/* A session that has nothing to do ends without a word about it. */
	if (has_agent(r, to->name))
		return now + PROBE_AGAIN_MS;
	if (there->probed_ms > 0 && sq_boot_ms() - there->probed_ms < PROBE_AGAIN_MS)
		return now + PROBE_AGAIN_MS;
	probe(r, to);
	return INT64_MAX; /* how it fares is noted, and looked at */
}

void
fallback(struct runner *r)
{
	int64_t now = sq_wall_ms(), next = INT64_MAX;

	if (r->stopping || (!r->fallback_due && now < r->fallback_at))
		return;
	r->fallback_due = false;
	for (size_t i = 0; i < r->cfg->n_routes && !r->store_failed; i++) {
		int64_t at = look(r, &r->cfg->routes[i], now);

		next = at < next ? at : next;
	}
	r->fallback_at = next;
}
