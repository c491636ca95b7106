/*
 * What goes next on a link, and what had better wait. Index rule: weight over
 * expected remaining cost (for memoryless cuts that is the Gittins index),
 * with ageing and a share for the oldest, so that nothing starves. Pure.
 */
#include <math.h>

#include <sendq/link.h>

enum { DAY_MS = 24 * 3600 * 1000 };

static double
remaining(const struct sq_order_item *i)
{
	return i->size > i->durable ? (double)(i->size - i->durable) : 0;
}

static struct sq_cost
cost_of(const struct sq_order_item *i, const struct sq_order_link *l)
{
	return sq_cost(&l->est, remaining(i), SQ_SETUP_OCTETS, l->resume ? SQ_RESUME_GRAIN : 0);
}

static double
weight(const struct sq_order_item *i, int64_t now_ms)
{
	double age = now_ms > i->submitted_ms ? (double)(now_ms - i->submitted_ms) : 0, w = 1 + age / SQ_AGE_MS;

	return w * w;
}

double
sq_order_index(const struct sq_order_item *i, const struct sq_order_link *l)
{
	return weight(i, l->now_ms) / cost_of(i, l).expected;
}

/* Where what came before a cut is delivered, an attempt that will be cut makes a mess. */
static struct sq_start_out
start_partial(const struct sq_order_item *i, const struct sq_order_link *l, double chance)
{
	struct sq_start_out out = { SQ_START_NOW, chance, 0 };

	if (i->tries_day >= SQ_PARTIAL_TRIES_DAY)
		return (struct sq_start_out){ SQ_START_PARTIAL, chance, i->last_try_ms + DAY_MS / SQ_PARTIAL_TRIES_DAY };
	if (i->last_try_ms > 0 && l->now_ms - i->last_try_ms < SQ_PARTIAL_PAUSE_MS)
		return (struct sq_start_out){ SQ_START_PARTIAL, chance, i->last_try_ms + SQ_PARTIAL_PAUSE_MS };
	if (chance < SQ_START_CHANCE_PARTIAL)
		return (struct sq_start_out){ SQ_START_BETTER_LINK, chance, l->now_ms + SQ_TRY_EVERY_MS };
	return out;
}

double
sq_order_chance(const struct sq_estimate *e, double octets, int cuts_day)
{
	double chance = sq_chance(e, octets + SQ_SETUP_OCTETS);

	return octets > SQ_RECORD_OCTETS && cuts_day > 0 ? fmin(chance, 1.0 / (cuts_day + 2)) : chance;
}

void
sq_order_prepare(struct sq_order_link *l)
{
	/* sq_chance() solved for the octets. */
	l->easy = l->keeps_partial ? 0 : l->est.exposure * (pow(SQ_START_CHANCE, -1 / l->est.shape) - 1) - SQ_SETUP_OCTETS;
}

struct sq_start_out
sq_order_start(const struct sq_order_item *i, const struct sq_order_link *l)
{
	struct sq_start_out out = { SQ_START_NOW, 1, 0 };
	int64_t since = i->last_try_ms > i->submitted_ms ? i->last_try_ms : i->submitted_ms;

	if (i->forced || l->resume || (remaining(i) <= l->easy && i->cuts_day == 0))
		return out;
	if (l->keeps_partial)
		return start_partial(i, l, sq_chance(&l->est, remaining(i) + SQ_SETUP_OCTETS));
	out.chance = sq_order_chance(&l->est, remaining(i), i->cuts_day);
	if (out.chance >= SQ_START_CHANCE || l->network_ms > since || l->now_ms - since >= SQ_TRY_EVERY_MS)
		return out;
	return (struct sq_start_out){ SQ_START_BETTER_LINK, out.chance, since + SQ_TRY_EVERY_MS };
}

/* Class before index: forced ones, then priority. */
static int
class_cmp(const struct sq_order_item *a, const struct sq_order_item *b)
{
	if (a->forced != b->forced)
		return a->forced ? 1 : -1;
	return a->priority != b->priority ? (a->priority > b->priority ? 1 : -1) : 0;
}

/* Octets that the next try of it is expected to take of the link. */
static double
next_try(const struct sq_order_item *i, const struct sq_order_link *l)
{
	return fmin(remaining(i) + SQ_SETUP_OCTETS, fmin(l->est.mean_octets, SQ_OLDEST_TRY_MAX));
}

/*
 * The share of the oldest is saved up until it pays for a try: a large message
 * would else break off on the first small one's change, and the others wait for it.
 */
size_t
sq_order_pick(const struct sq_order_item *items, size_t n, const struct sq_order_link *l)
{
	size_t best = n, oldest = n;
	double best_index = 0;

	for (size_t k = 0; k < n; k++) {
		int better = best < n ? class_cmp(&items[k], &items[best]) : 1;
		double index;

		if (better < 0 || sq_order_start(&items[k], l).start != SQ_START_NOW)
			continue;
		if (better > 0 || items[k].submitted_ms < items[oldest].submitted_ms)
			oldest = k;
		index = sq_order_index(&items[k], l);
		if (better == 0 && index <= best_index)
			continue;
		best = k;
		best_index = index;
	}
	return oldest < n && SQ_OLDEST_SHARE * l->spent - l->spent_oldest >= next_try(&items[oldest], l) ? oldest : best;
}

bool
sq_order_express(const struct sq_order_item *running, uint64_t acked, const struct sq_order_item *next, const struct sq_order_link *l)
{
	double left = running->size > acked ? (double)(running->size - acked) : 0;
	/* It has its connection: only the remaining octets count, and no set-up. */
	double index = weight(running, l->now_ms) / fmax(sq_cost(&l->est, left, 0, l->resume ? SQ_RESUME_GRAIN : 0).expected, 1);

	return left / l->est.rate * 1000 > SQ_EXPRESS_MS && sq_order_index(next, l) >= 2 * index;
}
