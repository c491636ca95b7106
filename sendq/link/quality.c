/*
 * How good a link is, from what was seen of it: hazards with censored
 * exposure and forgetting, goodput, connections, reply times, and the state
 * for people that follows from them. Pure.
 */
#include <math.h>

#include <sendq/link.h>

#define SPEED_TIME 60.0          /* seconds of transfer after which goodput has mostly followed */
#define RTT_GAIN 0.125

/* ---- what is seen ---- */

static void
decay(struct sq_quality *q, int64_t now_ms)
{
	double *sums[] = { &q->cuts, &q->octets, &q->seconds, &q->rated, &q->log_rate, &q->connects, &q->refusals };
	double d;

	/* A clock that went back forgets nothing. */
	if (q->at_ms > 0 && now_ms > q->at_ms) {
		d = exp2(-(double)(now_ms - q->at_ms) / (double)SQ_HALF_LIFE_MS);
		for (size_t i = 0; i < SQ_LEN(sums); i++)
			*sums[i] *= d;
	}
	q->at_ms = now_ms;
}

void
sq_quality_stretch(struct sq_quality *q, int64_t now_ms, const struct sq_stretch *s)
{
	double w = 1 - exp(-s->seconds / SPEED_TIME);

	decay(q, now_ms);
	q->octets += s->octets;
	q->seconds += s->seconds;
	/* An average whose weight starts at nothing: the first seconds count for what they are. */
	if (s->seconds > 0 && s->steady) {
		q->speed += w * (s->octets / s->seconds - q->speed);
		q->speed_weight += w * (1 - q->speed_weight);
	}
	if (!s->cut)
		return;
	q->cuts += 1;
	if (s->rate > 0) {
		q->rated += 1;
		q->log_rate += log(s->rate);
	}
}

void
sq_quality_connect(struct sq_quality *q, int64_t now_ms, bool stood)
{
	decay(q, now_ms);
	q->connects += stood;
	q->refusals += !stood;
	q->unreached = stood ? 0 : q->unreached + 1;
}

void
sq_quality_offline(struct sq_quality *q)
{
	q->unreached += 1;
}

void
sq_quality_rtt(struct sq_quality *q, double seconds)
{
	if (seconds > 0)
		q->rtt = q->rtt > 0 ? q->rtt + RTT_GAIN * (seconds - q->rtt) : seconds;
}

/* RFC 6298 §2.2, §2.3. */
static void
follow(double *mean, double *var, double seconds)
{
	if (seconds < 0)
		return;
	if (*mean <= 0) {
		*mean = seconds;
		*var = seconds / 2;
		return;
	}
	*var += 0.25 * (fabs(*mean - seconds) - *var);
	*mean += 0.125 * (seconds - *mean);
}

void
sq_quality_reply(struct sq_quality *q, double seconds)
{
	follow(&q->reply, &q->reply_var, seconds);
}

void
sq_quality_verdict(struct sq_quality *q, double seconds)
{
	follow(&q->verdict, &q->verdict_var, seconds);
}

/* ---- what follows from it ---- */

/* Do cuts follow time rather than octets? Told from two of them on. */
static bool
follows_time(const struct sq_quality *q)
{
	return q->rated >= 1.5 && q->octets > 0 && q->seconds > 0 && q->log_rate / q->rated < log(q->octets / q->seconds);
}

struct sq_estimate
sq_quality_estimate(const struct sq_quality *at_that_time, int64_t now_ms)
{
	struct sq_quality now = *at_that_time, *q = &now;
	struct sq_estimate e = { .rate = SQ_UNKNOWN_RATE };

	decay(q, now_ms);
	if (q->speed_weight > 0) {
		e.rate = fmax(q->speed / q->speed_weight, 1);
		e.rate_known = true;
	}
	e.cuts = q->cuts;
	e.by_time = follows_time(q);
	e.shape = q->cuts + SQ_PRIOR_CUTS;
	e.exposure = e.by_time ? (q->seconds + SQ_PRIOR_SECONDS) * e.rate : q->octets + SQ_PRIOR_OCTETS;
	e.mean_octets = e.exposure / e.shape;
	e.connect_chance = (q->connects + 1) / (q->connects + q->refusals + 1);
	return e;
}

double
sq_chance(const struct sq_estimate *e, double octets)
{
	return octets <= 0 ? 1 : pow(e->exposure / (e->exposure + octets), e->shape);
}

/* ---- the state ---- */

/* Of a criterion of which more is better. */
struct limit { double poor, fair; };

static enum sq_link_state
level(double v, struct limit l, enum sq_link_state before)
{
	/* Whoever was down has no past: it begins as what it shows. */
	bool was_poor = before == SQ_LINK_POOR, was_fair = was_poor || before == SQ_LINK_FAIR;

	if (v < l.poor * (was_poor ? 2 : 1))
		return SQ_LINK_POOR;
	return v < l.fair * (was_fair ? 2 : 1) ? SQ_LINK_FAIR : SQ_LINK_GOOD;
}

enum sq_link_state
sq_quality_state(const struct sq_quality *q, int64_t now_ms, enum sq_link_state before, enum sq_link_reason *reason, double *value)
{
	struct sq_estimate e = sq_quality_estimate(q, now_ms);
	struct sq_quality now = *q;
	struct { bool known; double v, shown; struct limit limit; enum sq_link_reason reason; } rows[4];
	enum sq_link_state worst = SQ_LINK_GOOD;

	decay(&now, now_ms);
	rows[0].known = e.cuts >= 0.2;          /* an older one is nearly forgotten */
	rows[0].v = rows[0].shown = e.mean_octets;
	rows[0].limit = (struct limit){ 2e6, 16e6 };
	rows[0].reason = SQ_REASON_CUTS;
	rows[1].known = q->speed_weight >= 0.05; /* three seconds of transfer */
	rows[1].v = rows[1].shown = e.rate;
	rows[1].limit = (struct limit){ 4e3, 50e3 };
	rows[1].reason = SQ_REASON_SPEED;
	rows[2].known = now.refusals >= 0.2;
	rows[2].v = (now.connects + 1) / (now.refusals + 0.25);
	rows[2].shown = now.refusals / (now.connects + now.refusals + 1e-9);
	rows[2].limit = (struct limit){ 1, 4 };
	rows[2].reason = SQ_REASON_CONNECTS;
	rows[3].known = q->rtt > 0;
	rows[3].v = q->rtt > 0 ? 1 / q->rtt : 0;
	rows[3].shown = q->rtt;
	rows[3].limit = (struct limit){ 1 / 3.0, 1 / 0.8 };
	rows[3].reason = SQ_REASON_RTT;

	*reason = SQ_REASON_NOTHING;
	*value = 0;
	if (q->unreached > 0) {
		*reason = SQ_REASON_UNREACHED;
		*value = q->unreached;
		return SQ_LINK_DOWN;
	}
	if (q->connects <= 0 && q->octets <= 0 && q->cuts <= 0)
		return SQ_LINK_UNKNOWN;
	for (size_t i = 0; i < SQ_LEN(rows); i++) {
		enum sq_link_state s = rows[i].known ? level(rows[i].v, rows[i].limit, before) : SQ_LINK_GOOD;

		if (s > worst) {
			worst = s;
			*reason = rows[i].reason;
			*value = rows[i].shown;
		}
	}
	return worst;
}

static const char *const names[] = { [SQ_LINK_UNKNOWN] = "", [SQ_LINK_GOOD] = "good", [SQ_LINK_FAIR] = "fair",
	[SQ_LINK_POOR] = "poor", [SQ_LINK_DOWN] = "down" };

const char *
sq_link_state_name(enum sq_link_state s)
{
	return s < SQ_LEN(names) ? names[s] : "";
}

enum sq_link_state
sq_link_state_of(const char *name)
{
	for (size_t i = 0; i < SQ_LEN(names); i++)
		if (strcmp(names[i], name) == 0)
			return (enum sq_link_state)i;
	return SQ_LINK_UNKNOWN;
}
