/*
 * Which message goes next on a route. What is due is read once and kept in
 * memory until something changes; new mail is added to it. What had better
 * wait for a better link is told so in the queue, so that it is seen, and
 * costs nobody a wake-up.
 */
#include <sendq/fault.h>
#include <sendq/io.h>
#include <sendq/link.h>
#include <sendq/log.h>

#include "inside.h"

enum { PICKS_READ = 256, PICKS_NEW = 64 };

struct picks {
	struct picks *next;
	char route[65];
	bool stale, whole;         /* to be read anew; there is nothing due beside it */
	bool new_mail;
	int64_t next_due;          /* wall time at which more is due */
	struct sq_message_id newest;
	size_t n;
	struct sq_message_id ids[PICKS_READ + PICKS_NEW];
	struct sq_order_item items[PICKS_READ + PICKS_NEW];
	int recipients[PICKS_READ + PICKS_NEW]; /* due of each */
};

void
picks_forget(struct runner *r, const char *route)
{
	for (struct picks *p = r->picks; p; p = p->next)
		p->stale |= !route || strcmp(p->route, route) == 0;
}

void
picks_new_mail(struct runner *r)
{
	for (struct picks *p = r->picks; p; p = p->next)
		p->new_mail = true;
}

void
picks_free(struct runner *r)
{
	while (r->picks) {
		struct picks *p = r->picks;

		r->picks = p->next;
		free(p);
	}
}

static void
add(struct picks *p, const struct sq_candidate *c)
{
	p->ids[p->n] = c->id;
	p->recipients[p->n] = c->recipients;
	p->items[p->n++] = (struct sq_order_item){ .size = c->size, .durable = c->durable, .submitted_ms = c->submitted_ms,
		.last_try_ms = c->last_try_ms, .tries_day = c->tries_day, .cuts_day = c->cuts_day, .priority = c->priority, .forced = c->forced };
	if (c->id.v > p->newest.v)
		p->newest = c->id;
}

static void
take_out(struct picks *p, size_t i)
{
	p->n--;
	p->ids[i] = p->ids[p->n];
	p->items[i] = p->items[p->n];
	p->recipients[i] = p->recipients[p->n];
}

static bool
read_due(struct runner *r, struct picks *p, bool anew, int64_t now)
{
	struct sq_candidate *due = calloc(PICKS_READ, sizeof(*due));
	struct sq_error err = { 0 };
	size_t n = 0;
	enum sq_err e;

	if (!due)
		sq_bug("out of memory for what is due");
	if (anew)
		e = sq_queue_due(r->q, p->route, now, due, PICKS_READ, &n, &err);
	else
		e = sq_queue_due_new(r->q, p->route, p->newest, now, due, SQ_LEN(p->ids) - p->n < PICKS_NEW ? SQ_LEN(p->ids) - p->n : PICKS_NEW, &n, &err);
	if (e == SQ_OK && anew) {
		p->n = 0;
		p->whole = n < PICKS_READ;
		e = p->whole ? SQ_OK : sq_queue_newest(r->q, &p->newest, &err);
	}
	for (size_t i = 0; e == SQ_OK && i < n; i++)
		add(p, &due[i]);
	free(due);
	if (e == SQ_OK)
		e = sq_queue_next_due_from(r->q, p->route, now + 1, &p->next_due, &err);
	if (e != SQ_OK)
		runner_store_failed(r, &err);
	/* New mail may have an older id than what is known, where its submission took its time, and there may be more of it. */
	p->whole &= anew;
	p->stale = p->new_mail = false;
	return e == SQ_OK;
}

/* What is due on the route as of now; NULL: the store failed. */
static struct picks *
picks_of(struct runner *r, const char *route)
{
	int64_t now = sq_wall_ms();
	struct picks *p;

	for (p = r->picks; p && strcmp(p->route, route) != 0; p = p->next)
		;
	if (!p) {
		if (!(p = calloc(1, sizeof(*p))))
			sq_bug("out of memory for what is due");
		snprintf(p->route, sizeof(p->route), "%s", route);
		p->stale = true;
		p->next = r->picks;
		r->picks = p;
	}
	if (p->stale || now >= p->next_due || (p->n == 0 && (p->new_mail || !p->whole)))
		return read_due(r, p, true, now) ? p : NULL;
	if (p->new_mail && p->n < SQ_LEN(p->ids))
		return read_due(r, p, false, now) ? p : NULL;
	return p;
}

/* Put aside what may not start; false: the store failed. */
static bool
put_aside(struct runner *r, struct picks *p, const struct sq_order_link *l)
{
	struct sq_error err = { 0 };
	char id[SQ_ID_TEXT];

	for (size_t i = 0; i < p->n; i++) {
		struct sq_start_out s = sq_order_start(&p->items[i], l);

		if (s.start == SQ_START_NOW)
			continue;
		if (!runner_mark(r) || sq_queue_wait(r->q, p->ids[i], s.start == SQ_START_PARTIAL ? SQ_WAITS_PARTIAL : SQ_WAITS_BETTER_LINK,
			s.when_ms, l->now_ms, &err) != SQ_OK) {
			runner_store_failed(r, &err);
			return false;
		}
		sq_id_format(p->ids[i], id);
		sq_log(SQ_LOG_INFO, "put aside msg=%s route=%s chance=%.4f octets_between_cuts=%.0f", id, p->route, s.chance, l->est.mean_octets);
		route_link(r, p->route)->waited_mean = l->est.mean_octets;
		p->next_due = s.when_ms < p->next_due ? s.when_ms : p->next_due;
		take_out(p, i--);
	}
	return true;
}

/* The place of what goes next; p->n: nothing may. */
static size_t
next_of(struct runner *r, const struct sq_route *route, struct picks *p)
{
	struct sq_order_link l = link_order(r, route);

	return put_aside(r, p, &l) ? sq_order_pick(p->items, p->n, &l) : p->n;
}

static void
note_oldest(struct runner *r, const struct picks *p)
{
	size_t oldest = 0;

	for (size_t i = 1; i < p->n; i++)
		if (p->items[i].submitted_ms < p->items[oldest].submitted_ms)
			oldest = i;
	route_link(r, p->route)->oldest = p->ids[oldest];
}

/* Something is in doubt that the server itself can be asked about now. */
static bool
doubt_is_due(struct runner *r, const struct sq_route *route)
{
	struct sq_error err = { 0 };
	int64_t at = INT64_MAX;

	if (sq_queue_next_doubt(r->q, route->name, &at, &err) != SQ_OK) {
		runner_store_failed(r, &err);
		return false;
	}
	return at <= sq_wall_ms();
}

bool
picks_any(struct runner *r, const struct sq_route *route)
{
	struct picks *p = picks_of(r, route->name);

	return p && (next_of(r, route, p) < p->n || doubt_is_due(r, route));
}

bool
picks_nothing(struct runner *r, const struct sq_route *route)
{
	struct picks *p = picks_of(r, route->name);
	struct sq_order_link l = link_order(r, route);

	return !p || (sq_order_pick(p->items, p->n, &l) == p->n && !doubt_is_due(r, route));
}

bool
picks_express(struct runner *r, const struct sq_route *route)
{
	struct picks *p = picks_of(r, route->name);
	struct sq_order_link l = link_order(r, route);
	size_t best = p ? next_of(r, route, p) : 0;

	if (!p || best == p->n)
		return false;
	for (struct agent *a = r->agents; a; a = a->next) {
		if (a->kind != SQ_JOB_DELIVER || a->state >= AGENT_LEAVING || strcmp(a->route, route->name) != 0 || agent_checking(a))
			continue;
		if (a->state != AGENT_BUSY || !a->work || !l.est.rate_known)
			return false;
		if (!sq_order_express(&(struct sq_order_item){ .size = a->work->size, .submitted_ms = a->work->submitted_ms }, a->meter.open, &p->items[best], &l))
			return false;
	}
	return true;
}

int
claim_some(struct runner *r, const struct sq_route *route, const struct claim_limits *l, struct sq_work **out)
{
	struct picks *p = picks_of(r, route->name);
	struct sq_error err = { 0 };
	uint64_t octets = 0;
	uint32_t recipients = 0;
	int got = 0;

	while (p && got < l->messages && recipients < l->recipients) {
		size_t i = next_of(r, route, p);
		enum sq_err e;

		if (i == p->n || p->items[i].size > l->each || p->items[i].size > l->octets - octets)
			break;
		note_oldest(r, p);
		if (!runner_mark(r)) {
			runner_store_failed(r, NULL);
			break;
		}
		e = sq_queue_claim(r->q, p->ids[i], false, r->network.id, sq_wall_ms(), &out[got], &err);
		if (e == SQ_OK) {
			SQ_FAULT(runner_claimed);
			octets += out[got]->size;
			recipients += out[got]->n_recipients;
			/* A message of many goes in groups. */
			if ((p->recipients[i] -= (int)out[got]->n_recipients) <= 0)
				take_out(p, i);
			got++;
		} else if (e == SQ_ENOENT) {
			take_out(p, i);
		} else {
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
	enum sq_err e = SQ_ENOENT;

	/* What is in doubt and can be asked about comes first: it is nearly done, and others wait for the answer. */
	if (doubt_is_due(r, route)) {
		if (!runner_mark(r)) {
			runner_store_failed(r, NULL);
			return false;
		}
		e = sq_queue_claim_doubt(r->q, route->name, r->network.id, sq_wall_ms(), out, &err);
	}
	if (e == SQ_OK)
		return true;
	if (e != SQ_ENOENT)
		runner_store_failed(r, &err);
	return !r->store_failed && claim_some(r, route, &one, out) == 1;
}
