/*
 * How routes fare: what their links were seen to carry, the state that
 * follows, and the wait that their last failure earned. One row a route on
 * each network; what a server asked for (quota, login, come back later) goes
 * along when the network changes, what the link earned does not.
 */
#include <sendq/io.h>
#include <sendq/link.h>
#include <sendq/log.h>

#include "inside.h"

enum { SAVE_MS = 10000, PAST_MS = 10000, RELEASE_PERCENT = 125, FOREIGN_CHECKPOINT_MS = 300000, SILENT_SESSIONS = 3 };
#define SPENT_MAX 64e6

/* ---- the rows ---- */

struct link *
route_link(struct runner *r, const char *route)
{
	struct sq_error err = { 0 };
	struct link *l;

	for (l = r->links; l; l = l->next)
		if (strcmp(l->row.route, route) == 0)
			return l;
	if (!(l = calloc(1, sizeof(*l))))
		sq_bug("out of memory for a link");
	if (sq_queue_link_get(r->q, route, r->network.id, &l->row, &err) != SQ_OK) {
		sq_log(SQ_LOG_WARN, "cannot read the state of route=%s: %s", route, err.text);
		snprintf(l->row.route, sizeof(l->row.route), "%s", route);
		snprintf(l->row.network, sizeof(l->row.network), "%s", r->network.id);
	}
	l->waited_mean = sq_quality_estimate(&l->row.quality, sq_wall_ms()).mean_octets;
	l->next = r->links;
	r->links = l;
	return l;
}

void
links_forget(struct runner *r)
{
	while (r->links) {
		struct link *l = r->links;

		r->links = l->next;
		free(l);
	}
}

static void
link_save(struct runner *r, struct link *l)
{
	enum sq_link_state before = sq_link_state_of(l->row.state), now;
	struct sq_error err = { 0 };
	enum sq_link_reason reason;
	int64_t wall = sq_wall_ms();
	double value;

	now = sq_quality_state(&l->row.quality, wall, before, &reason, &value);
	if (now != before || l->row.since_ms == 0) {
		snprintf(l->row.state, sizeof(l->row.state), "%s", sq_link_state_name(now));
		l->row.since_ms = wall;
	}
	l->row.rtt_us = (int64_t)(l->row.quality.rtt * 1e6);
	l->row.goodput_bps = (int64_t)(sq_quality_estimate(&l->row.quality, wall).rate * 8) * (l->row.quality.speed_weight > 0);
	l->saved_ms = sq_boot_ms();
	if (sq_queue_link_put(r->q, &l->row, &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot note the state of route=%s: %s", l->row.route, err.text);
}

/* What waits for a better link goes when there is one. */
static void
release_waiting(struct runner *r, struct link *l)
{
	double mean = sq_quality_estimate(&l->row.quality, sq_wall_ms()).mean_octets;
	struct sq_error err = { 0 };
	int n = 0;

	if (l->waited_mean <= 0 || mean * 100 < l->waited_mean * RELEASE_PERCENT)
		return;
	l->waited_mean = 0;
	if (sq_queue_wait_over(r->q, l->row.route, SQ_WAITS_BETTER_LINK, sq_wall_ms(), &n, &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "%s", err.text);
	if (n > 0)
		picks_forget(r, l->row.route);
}

/* ---- what is measured ---- */

/* Keep one sample of what was gathered since the last. */
static void
past_save(struct runner *r, struct link *l)
{
	struct sq_error err = { 0 };
	int64_t now = sq_wall_ms();

	if (l->past_since == 0)
		return;
	memcpy(l->past.route, l->row.route, sizeof(l->past.route));
	memcpy(l->past.network, l->row.network, sizeof(l->past.network));
	l->past.at_ms = now;
	l->past.rtt_us = (int64_t)(l->row.quality.rtt * 1e6);
	if (sq_queue_link_past_put(r->q, &l->past, &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "cannot keep a sample of route=%s: %s", l->row.route, err.text);
	l->past = (struct sq_link_past){ 0 };
	l->past_since = 0;
}

/* Credit the octets and the time since the last credit to the link. */
static void
credit(struct runner *r, struct agent *a, bool steady, bool cut)
{
	struct link *l = route_link(r, a->route);
	struct meter *m = &a->meter;
	int64_t now = sq_boot_ms();
	uint64_t seen = m->wire > m->content + m->open ? m->wire : m->content + m->open;
	struct sq_stretch s = { .octets = seen > m->credited ? (double)(seen - m->credited) : 0,
		.seconds = m->since > 0 && now > m->since ? (double)(now - m->since) / 1000 : 0, .steady = steady, .cut = cut };

	/* The rate at a cut is that of the last whole second, where there was one. */
	if (s.seconds >= 0.5 && !cut)
		m->rate = s.octets / s.seconds;
	s.rate = m->rate > 0 ? m->rate : s.seconds > 0 ? s.octets / s.seconds : 0;
	m->credited += (uint64_t)s.octets;
	m->since = m->since > 0 ? now : 0;
	sq_quality_stretch(&l->row.quality, sq_wall_ms(), &s);
	l->row.octets += (int64_t)s.octets;
	l->row.seconds += (int64_t)(s.seconds + 0.5);
	l->spent += s.octets;
	if (a->work && a->work->id.v == l->oldest.v)
		l->spent_oldest += s.octets;
	if (l->spent > SPENT_MAX) {
		l->spent /= 2;
		l->spent_oldest /= 2;
	}
	l->past_since = l->past_since > 0 ? l->past_since : now - (int64_t)(s.seconds * 1000);
	l->past.octets += (int64_t)s.octets;
	l->past.ms += (int64_t)(s.seconds * 1000);
	l->past.cuts += cut;
	if (now - l->past_since >= PAST_MS)
		past_save(r, l);
}

void
meter_begin(struct agent *a)
{
	int64_t now = sq_boot_ms();

	if (a->meter.since == 0)
		a->meter.since = now;
	a->meter.asked = now;
	a->meter.go = 0;
}

void
meter_envelope(struct runner *r, struct agent *a)
{
	if (a->meter.asked > 0)
		sq_quality_reply(&route_link(r, a->route)->row.quality, (double)(sq_boot_ms() - a->meter.asked) / 1000);
	a->meter.asked = 0;
}

void
meter_go(struct agent *a)
{
	a->meter.go = sq_boot_ms();
	a->meter.go_awake = sq_awake_ms();
}

void
meter_sample(struct runner *r, struct agent *a, const struct sq_link_sample *s)
{
	struct link *l = route_link(r, a->route);
	struct meter *m = &a->meter;

	if (s->rtt_us)
		sq_quality_rtt(&l->row.quality, s->rtt_us / 1e6);
	l->past.retransmits += s->retransmits > m->retransmits ? s->retransmits - m->retransmits : 0;
	m->retransmits = s->retransmits;
	m->wire = s->acked > m->wire ? s->acked : m->wire;
	if (!a->work)
		return;
	/* Steady: content was going all the while since the last credit. */
	credit(r, a, m->in_content, false);
	m->in_content = a->mark == TXN_ENVELOPE && !a->go_due;
	if (sq_boot_ms() - l->saved_ms >= SAVE_MS)
		link_save(r, l);
}

void
meter_progress(struct agent *a, uint64_t acked)
{
	a->meter.open = acked;
}

void
meter_verdict(struct runner *r, struct agent *a, uint64_t octets)
{
	struct meter *m = &a->meter;
	uint64_t before = m->credited;

	if (m->go > 0)
		sq_quality_verdict(&route_link(r, a->route)->row.quality, (double)(sq_awake_ms() - m->go_awake) / 1000);
	m->go = 0;
	m->open = 0;
	m->content += octets;
	/* Of a small message the time is that of its round trips. */
	credit(r, a, octets >= 256 * 1024 && m->content > before, false);
	m->in_content = false;
}

uint32_t
link_verdict_ms(struct runner *r, const char *route)
{
	const struct sq_quality *q = &route_link(r, route)->row.quality;
	double ms = (q->verdict + 4 * q->verdict_var) * 1000;

	return ms > 0 && ms < UINT32_MAX ? (uint32_t)ms : 0;
}

bool
link_went_silent(struct runner *r, const char *route)
{
	const struct sq_link_row *row = &route_link(r, route)->row;

	return row->failures >= SILENT_SESSIONS && strcmp(row->cause, sq_outcome_name(SQ_OUTCOME_STALLED)) == 0;
}

void
meter_idle(struct agent *a)
{
	a->meter.since = 0;
	a->meter.in_content = false;
}

static bool
link_lost(enum sq_outcome cause)
{
	return cause == SQ_OUTCOME_CUT || cause == SQ_OUTCOME_DOUBT || cause == SQ_OUTCOME_STALLED;
}

/* The session ended, by a cut or otherwise. */
static void
meter_end(struct runner *r, struct agent *a, enum sq_outcome cause)
{
	/* A server may close a session that has nothing to do. */
	if (!a->was_ready || (a->meter.since == 0 && !a->work))
		return;
	credit(r, a, false, link_lost(cause));
	past_save(r, route_link(r, a->route));
	a->meter.since = 0;
}

/* ---- how attempts end, and what follows ---- */

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
	struct link *l;
	struct sq_link_row *row;
	bool news;

	/* Once something was sent the gateway has shown its address. */
	if (ready)
		netwatch_refine(r);
	l = route_link(r, route);
	row = &l->row;
	news = row->failures > 0 || row->cause[0] || row->next_try_ms > 0 || row->stopped || row->reply_text[0];

	doubt_link(r, route, true);
	r->fallback_due |= ready != NULL;
	row->last_ok_ms = sq_wall_ms();
	row->stopped = false;
	row->next_try_ms = 0;
	if (ready) {
		row->connects++;
		row->caps = ready->caps;
		row->size_limit = (int64_t)ready->size_limit;
		snprintf(row->address, sizeof(row->address), "%.*s", (int)(ready->address.n < 79 ? ready->address.n : 79), ready->address.p ? ready->address.p : "");
		sq_quality_connect(&row->quality, row->last_ok_ms, true);
		if (row->quality.rtt <= 0)
			sq_quality_rtt(&row->quality, (double)connect_ms / 1000);
		/* A login that works ends what a login that failed began. */
		if (strcmp(row->cause, "login") == 0 || strcmp(row->cause, "certificate") == 0 || strcmp(row->cause, "secret") == 0) {
			row->failures = 0;
			row->cause[0] = '\0';
		}
		link_save(r, l);
		return;
	}
	row->failures = 0;
	row->cause[0] = '\0';
	set_reply(row, &(struct sq_reply){ 0 });
	release_waiting(r, l);
	/* Of a thousand messages in a second not each is worth a row. */
	if (news || sq_boot_ms() - l->saved_ms >= 1000)
		link_save(r, l);
}

/* Of the network rather than of the server or a person: ends when the world changes. */
static bool
of_the_link(enum sq_outcome cause)
{
	return link_lost(cause) || cause == SQ_OUTCOME_OFFLINE || cause == SQ_OUTCOME_UNREACHABLE ||
		cause == SQ_OUTCOME_CERTIFICATE || cause == SQ_OUTCOME_TLS || cause == SQ_OUTCOME_PROTOCOL;
}

/* A server that keeps a partial transfer without our promises must first notice that the session is dead (RFC 1845 §3). */
static bool
must_notice(const struct sq_link_row *row, enum sq_outcome cause)
{
	return (row->caps & (SQ_CAP_CHECKPOINT | SQ_CAP_XSENDQ)) == SQ_CAP_CHECKPOINT && link_lost(cause);
}

static bool
row_waits_for_link(const struct sq_link_row *row)
{
	for (enum sq_outcome o = SQ_OUTCOME_RUNNING; o < SQ_OUTCOME_COUNT; o++)
		if (strcmp(row->cause, sq_outcome_name(o)) == 0)
			return of_the_link(o) && !must_notice(row, o);
	return false;
}

/* Does this cause continue the series that is being counted? */
static bool
same_series(const char *before, enum sq_outcome cause)
{
	static const enum sq_outcome series[] = { SQ_OUTCOME_CUT, SQ_OUTCOME_DOUBT, SQ_OUTCOME_STALLED, SQ_OUTCOME_OFFLINE, SQ_OUTCOME_UNREACHABLE };
	bool link_before = false, link_now = false;

	for (size_t i = 0; i < SQ_LEN(series); i++) {
		link_before |= strcmp(before, sq_outcome_name(series[i])) == 0;
		link_now |= cause == series[i];
	}
	return strcmp(before, sq_outcome_name(cause)) == 0 || (link_before && link_now);
}

void
link_note(struct runner *r, const char *route, enum sq_outcome cause, const struct sq_end *end, bool progressed)
{
	const struct sq_route *cfg = sq_config_route(r->cfg, route);
	struct sq_backoff_in in = { .cause = cause, .progressed = progressed, .hint_ms = (int64_t)end->wait_s * 1000,
		.retry_min_ms = cfg ? cfg->retry_min_ms : 1800000, .retry_max_ms = cfg ? cfg->retry_max_ms : 7200000 };
	struct link *l = route_link(r, route);
	struct sq_link_row *row = &l->row;
	struct sq_backoff_out out;

	/* A refusal comes over a link that works. */
	if (cause != SQ_OUTCOME_DEFERRED && cause != SQ_OUTCOME_QUOTA && cause != SQ_OUTCOME_REFUSED)
		doubt_link(r, route, false);
	if (must_notice(row, cause) && in.hint_ms < FOREIGN_CHECKPOINT_MS)
		in.hint_ms = FOREIGN_CHECKPOINT_MS;
	row->failures = same_series(row->cause, cause) && !progressed ? row->failures + 1 : 1;
	in.failures = row->failures;
	sq_random(&in.random, sizeof(in.random));
	out = sq_backoff(&in);
	row->last_fail_ms = sq_wall_ms();
	r->fallback_due = true;
	if (cause == SQ_OUTCOME_UNREACHABLE)
		sq_quality_connect(&row->quality, row->last_fail_ms, false);
	else if (cause == SQ_OUTCOME_OFFLINE)
		sq_quality_offline(&row->quality);
	row->connect_failures += cause == SQ_OUTCOME_OFFLINE || cause == SQ_OUTCOME_UNREACHABLE;
	row->cuts += link_lost(cause);
	row->stopped = out.stop || cause == SQ_OUTCOME_CERTIFICATE;
	row->next_try_ms = out.stop ? 0 : row->last_fail_ms + out.wait_ms;
	snprintf(row->cause, sizeof(row->cause), "%s", sq_outcome_name(cause));
	set_reply(row, &end->reply);
	link_save(r, l);
	if (out.stop)
		sq_log(SQ_LOG_WARN, "route=%s is stopped: cause=%s failures=%lld", route, row->cause, (long long)row->failures);
	else
		sq_log(SQ_LOG_INFO, "route=%s waits cause=%s failures=%lld wait_ms=%lld", route, row->cause, (long long)row->failures, (long long)out.wait_ms);
	if (sq_log_enabled(SQ_LOG_DEBUG))
		sq_log(SQ_LOG_DEBUG, "route=%s words=\"%.*s\"", route, (int)end->reply.text.n, end->reply.text.p ? end->reply.text.p : "");
}

void
link_ended(struct runner *r, struct agent *a, enum sq_outcome cause, const struct sq_end *end)
{
	meter_end(r, a, cause);
	link_note(r, a->route, cause, end, a->progressed);
}

/* ---- waits ---- */

int64_t
link_waits_until(struct runner *r, const char *route, int64_t now)
{
	const struct sq_link_row *row = &route_link(r, route)->row;
	int64_t held = bus_holds_until(r, route);

	if (held > now)
		return held;
	if (row->stopped && row->next_try_ms == 0)
		return INT64_MAX;
	return row->next_try_ms > now ? row->next_try_ms : 0;
}

static void
clear_wait(struct runner *r, struct link *l)
{
	if (l->row.next_try_ms == 0 && !l->row.stopped)
		return;
	l->row.next_try_ms = 0;
	l->row.stopped = false;
	link_save(r, l);
}

static void
end_message_waits(struct runner *r, const char *route, enum sq_waits waits)
{
	struct sq_error err = { 0 };
	int n = 0;

	if (sq_queue_wait_over(r->q, route, waits, sq_wall_ms(), &n, &err) != SQ_OK)
		sq_log(SQ_LOG_WARN, "%s", err.text);
}

/* End waits: all of them (flush), or those that wait for a person (a new configuration, a new secret). */
void
link_clear_waits(struct runner *r, bool stopped_only)
{
	for (size_t i = 0; i < r->cfg->n_routes; i++) {
		struct link *l = route_link(r, r->cfg->routes[i].name);

		if (stopped_only && !l->row.stopped && strcmp(l->row.cause, "login") != 0 && strcmp(l->row.cause, "secret") != 0)
			continue;
		clear_wait(r, l);
		if (stopped_only)
			end_message_waits(r, l->row.route, SQ_WAITS_LINK);
	}
	picks_forget(r, NULL);
}

/* Something came back: whatever waits for the link is tried at once. What a server asked for stays. */
void
links_stirred(struct runner *r)
{
	for (size_t i = 0; i < r->cfg->n_routes; i++) {
		struct link *l = route_link(r, r->cfg->routes[i].name);

		if (row_waits_for_link(&l->row)) {
			l->row.failures = 0;
			clear_wait(r, l);
		}
		end_message_waits(r, l->row.route, SQ_WAITS_LINK);
	}
	picks_forget(r, NULL);
}

/* The same network under the name that it has now, its gateway's address being known; or another one. */
void
links_moved(struct runner *r, const struct sq_network *to, bool same)
{
	struct sq_error err = { 0 };

	for (size_t i = 0; i < r->cfg->n_routes; i++) {
		struct sq_link_row was = route_link(r, r->cfg->routes[i].name)->row, row;

		if (sq_queue_link_get(r->q, was.route, to->id, &row, &err) != SQ_OK) {
			sq_log(SQ_LOG_WARN, "cannot read the state of route=%s: %s", was.route, err.text);
			continue;
		}
		if (same && row.since_ms == 0) {
			row = was;
		} else if (same || !row_waits_for_link(&was)) {
			row.next_try_ms = was.next_try_ms;
			row.stopped = was.stopped;
			row.failures = was.failures;
			memcpy(row.cause, was.cause, sizeof(row.cause));
			row.reply_code = was.reply_code;
			memcpy(row.reply_enhanced, was.reply_enhanced, sizeof(row.reply_enhanced));
			memcpy(row.reply_text, was.reply_text, sizeof(row.reply_text));
		} else if (row_waits_for_link(&row)) {
			row.next_try_ms = 0;
			row.stopped = false;
		}
		memcpy(row.network, to->id, sizeof(row.network));
		if (was.since_ms > 0 && sq_queue_link_put(r->q, &row, &err) != SQ_OK)
			sq_log(SQ_LOG_WARN, "cannot note the state of route=%s: %s", was.route, err.text);
		if (!same) {
			end_message_waits(r, was.route, SQ_WAITS_LINK);
			end_message_waits(r, was.route, SQ_WAITS_BETTER_LINK);
		}
	}
	r->network = *to;
	links_forget(r);
	picks_forget(r, NULL);
}

struct sq_order_link
link_order(struct runner *r, const struct sq_route *route)
{
	struct link *l = route_link(r, route->name);
	int64_t now = sq_wall_ms();

	struct sq_order_link o = { .est = sq_quality_estimate(&l->row.quality, now), .now_ms = now, .network_ms = r->network.since_ms,
		.resume = (l->row.caps & SQ_CAP_CHECKPOINT) != 0, .keeps_partial = route->keeps_partial == SQ_YES,
		.spent = l->spent, .spent_oldest = l->spent_oldest };

	sq_order_prepare(&o);
	return o;
}
