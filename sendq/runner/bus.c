/*
 * What follows from what the machine's services say (bus.h).
 *
 * A network that asks for a sign-in (NetworkManager: PORTAL) carries no mail,
 * so that nothing is tried on routes that need a network, unless a person
 * says so. It may be mistaken, for ever (a network whose proxy answers for
 * everybody): an attempt in half an hour is made all the same, and a session
 * that stands proves that of its route. Every other answer holds nothing, for the check behind it may be
 * off or blocked; that a network has become whole (FULL) is news.
 *
 * Before the machine sleeps (login1) whatever is short of its terminator is
 * let go; what is behind it gets five seconds for the server's answer.
 */
#include <poll.h>

#include <sendq/io.h>
#include <sendq/log.h>

#include "bus.h"
#include "inside.h"

/* login1 waits no longer either, by default (InhibitDelayMaxSec); AWAKE: it never said that we are awake again. */
enum { VERDICT_MS = 5000, AWAKE_MS = 120000, PORTAL_MS = 1800000 };

/* ---- holding ---- */

static bool
local(struct runner *r, const char *route)
{
	const struct sq_route *cfg = sq_config_route(r->cfg, route);

	return cfg && cfg->local;
}

int64_t
bus_holds_until(struct runner *r, const char *route)
{
	const struct sq_link_row *row;
	int64_t last = r->network.portal_ms;

	if (r->bus.sleeping)
		return INT64_MAX; /* what ends that looks again */
	if (last == 0 || r->n_flushes > 0 || local(r, route))
		return 0;
	row = &route_link(r, route)->row;
	if (row->last_ok_ms >= last)
		return 0;
	last = row->last_fail_ms > last ? row->last_fail_ms : last;
	return last > sq_wall_ms() ? 0 : last + PORTAL_MS; /* else the clock was set back */
}

/* Whatever waited for the network, or to be awake, is looked at. */
static void
look_again(struct runner *r)
{
	r->doubts_due = r->fallback_due = true;
	picks_forget(r, NULL);
}

/* ---- the network ---- */

static void
set_portal(struct runner *r, int64_t since_ms)
{
	struct sq_error err = { 0 };

	r->network.portal_ms = since_ms;
	if (sq_queue_network_put(r->q, &r->network, &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot note the network: %s", err.text);
}

/* The time that a doubt waits for is that of a link which works. */
static void
portal_begins(struct runner *r)
{
	sq_log(SQ_LOG_INFO, "the network asks for a sign-in (captive portal): its routes wait");
	set_portal(r, sq_wall_ms());
	for (size_t i = 0; i < r->cfg->n_routes; i++)
		if (!r->cfg->routes[i].local)
			doubt_link(r, r->cfg->routes[i].name, false);
}

static void
connectivity(struct runner *r)
{
	enum sq_connectivity now = r->bus.news.connectivity;

	if (now == r->bus.connectivity)
		return;
	r->bus.connectivity = now;
	sq_log(SQ_LOG_DEBUG, "NetworkManager connectivity=%d", (int)now);
	if (now == SQ_CONNECTIVITY_PORTAL) {
		portal_begins(r);
	} else if (r->network.portal_ms > 0) {
		sq_log(SQ_LOG_INFO, "the network asks for a sign-in no more");
		set_portal(r, 0);
		look_again(r);
	}
	/* That it was whole before NetworkManager was started anew is no news, nor what it says first. */
	if (now == SQ_CONNECTIVITY_FULL && r->bus.before != SQ_CONNECTIVITY_UNKNOWN && r->bus.before != SQ_CONNECTIVITY_FULL) {
		sq_log(SQ_LOG_INFO, "the network is whole: what waited for it is tried");
		links_stirred(r);
		look_again(r);
	}
	if (now != SQ_CONNECTIVITY_UNKNOWN)
		r->bus.before = now;
}

int64_t
bus_portal_ms(const struct runner *r)
{
	return r->bus.connectivity == SQ_CONNECTIVITY_PORTAL ? sq_wall_ms() : 0;
}

/* ---- sleep ---- */

static void
lie_down(struct runner *r)
{
	int n = 0;

	r->bus.sleeping = true;
	r->bus.let_go_by = sq_boot_ms() + VERDICT_MS;
	r->bus.awake_by = sq_boot_ms() + AWAKE_MS;
	for (struct agent *a = r->agents; a; a = a->next) {
		n += a->mark == TXN_TERMINATOR || window_committing(a);
		if (a->state == AGENT_IDLE)
			agent_bye(r, a);
		else
			agent_cancel(r, a);
	}
	sq_log(SQ_LOG_INFO, "the machine is about to sleep: verdicts awaited=%d", n);
}

static void
get_up(struct runner *r)
{
	r->bus.sleeping = false;
	sq_log(SQ_LOG_INFO, "the machine is awake");
	links_stirred(r);
	look_again(r);
}

/* ---- as the loop sees it ---- */

void
bus_open(struct runner *r)
{
	/* Said by a runner that is no more. */
	if (r->network.portal_ms > 0)
		set_portal(r, 0);
	if (r->o->bus && !r->o->once)
		r->bus.bus = r->o->bus->open();
}

void
bus_close(struct runner *r)
{
	if (!r->bus.bus)
		return;
	r->o->bus->close(r->bus.bus);
	r->bus.bus = NULL;
	if (r->network.portal_ms > 0 && r->q)
		set_portal(r, 0);
}

void
bus_fd(struct runner *r, struct pollfd *out)
{
	*out = (struct pollfd){ .fd = -1 };
	if (r->bus.bus)
		r->o->bus->fd(r->bus.bus, out);
}

void
bus_events(struct runner *r)
{
	if (r->bus.bus)
		r->o->bus->events(r->bus.bus, &r->bus.news);
}

void
bus_act(struct runner *r)
{
	if (!r->bus.bus)
		return;
	connectivity(r);
	if (r->bus.news.sleeping && !r->bus.told)
		lie_down(r);
	else if (r->bus.sleeping && (!r->bus.news.sleeping || sq_boot_ms() >= r->bus.awake_by))
		get_up(r);
	r->bus.told = r->bus.news.sleeping;
}

void
bus_lock(struct runner *r)
{
	bool hold = false;

	if (!r->bus.bus)
		return;
	for (struct agent *a = r->agents; a; a = a->next)
		hold |= a->state < AGENT_LEAVING;
	hold &= !r->bus.sleeping || sq_boot_ms() < r->bus.let_go_by;
	r->o->bus->lock(r->bus.bus, hold);
}

int64_t
bus_deadline(struct runner *r)
{
	int64_t now = sq_boot_ms(), wait = r->bus.bus ? r->o->bus->wait_ms(r->bus.bus) : INT64_MAX, at = wait == INT64_MAX ? wait : now + wait;

	if (r->bus.sleeping) {
		int64_t by = now < r->bus.let_go_by ? r->bus.let_go_by : r->bus.awake_by;

		at = by < at ? by : at;
	}
	return at;
}
