/* link: the estimators against links that are made up by a seed, the cost formulas against sending it out, the order against queues. */
#include "harness.h"

#include <math.h>

#include <sendq/link.h>

enum { HOUR = 3600 * 1000 };
static const int64_t start_ms = INT64_C(1800000000000);

/* ---- chance by seed ---- */

static uint64_t seed;

static double
uniform(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return ((double)(seed >> 11) + 0.5) / 9007199254740992.0;
}

static double
exponential(double mean)
{
	return -mean * log(uniform());
}

/* A link of constant rate (or of two) that is cut by octets or by time; sessions want to send `want` octets each. */
static void
run_link(struct sq_quality *q, int64_t *now, int sessions, double mean, bool by_time, double slow, double fast, double want)
{
	for (int i = 0; i < sessions; i++) {
		double rate = uniform() < 0.5 ? slow : fast, until = exponential(mean);
		double octets = by_time ? until * rate : until;
		bool cut = octets < want;
		struct sq_stretch s = { .octets = cut ? octets : want, .cut = cut, .rate = rate, .steady = true };

		s.seconds = s.octets / rate;
		*now += (int64_t)(s.seconds * 1000) + 1;
		sq_quality_connect(q, *now, true);
		sq_quality_stretch(q, *now, &s);
	}
}

/* ---- quality ---- */

static const struct { double mean, want; bool by_time; double slow, fast; } hazards[] = {
	{ 1e6, 20e6, false, 100e3, 100e3 },
	{ 1e6, 500e3, false, 100e3, 100e3 },  /* most sessions end well: they count too */
	{ 200e3, 1e6, false, 10e3, 300e3 },
	{ 8e6, 4e6, false, 1e6, 1e6 },
	{ 20, 20e6, true, 10e3, 500e3 },      /* seconds */
	{ 60, 2e6, true, 20e3, 400e3 },
};

START_TEST(hazard)
{
	struct sq_quality q = { 0 };
	int64_t now = start_ms;
	struct sq_estimate e;
	double rate, truth;

	seed = 88172645463325252u + (uint64_t)_i;
	run_link(&q, &now, 1500, hazards[_i].mean, hazards[_i].by_time, hazards[_i].slow, hazards[_i].fast, hazards[_i].want);
	e = sq_quality_estimate(&q, now);
	rate = e.rate;
	truth = hazards[_i].by_time ? hazards[_i].mean * rate : hazards[_i].mean;
	if (hazards[_i].slow < hazards[_i].fast)
		ck_assert_int_eq(e.by_time, hazards[_i].by_time);
	ck_assert_msg(e.mean_octets > truth / 1.35 && e.mean_octets < truth * 1.35, "mean %g, truth %g, cuts %g", e.mean_octets, truth, e.cuts);
}
END_TEST

/* Leaving well-ended sessions out of the exposure would be off by this much. */
START_TEST(censored_exposure_counts)
{
	struct sq_quality with = { 0 }, without = { 0 };
	double cuts = 0;

	seed = 7;
	for (int i = 0; i < 4000; i++) {
		double at = exponential(1e6);
		struct sq_stretch s = { .octets = at < 250e3 ? at : 250e3, .seconds = 1, .cut = at < 250e3 };

		cuts += s.cut;
		sq_quality_stretch(&with, start_ms, &s);
		if (s.cut)
			sq_quality_stretch(&without, start_ms, &s);
	}
	ck_assert_double_gt(cuts, 500);
	ck_assert_double_gt(sq_quality_estimate(&with, start_ms).mean_octets, 0.85e6);
	ck_assert_double_lt(sq_quality_estimate(&without, start_ms).mean_octets, 0.2e6);
}
END_TEST

/* Told as one stretch or as many: the same. */
START_TEST(stretches_add_up)
{
	struct sq_quality one = { 0 }, many = { 0 };
	struct sq_stretch whole = { .octets = 1e6, .seconds = 100, .cut = true, .steady = true, .rate = 1e4 }, part = { .octets = 1e4, .seconds = 1, .steady = true };

	sq_quality_stretch(&one, start_ms, &whole);
	for (int i = 0; i < 100; i++) {
		part.cut = i == 99;
		part.rate = i == 99 ? 1e4 : 0;
		sq_quality_stretch(&many, start_ms, &part);
	}
	ck_assert_double_eq_tol(one.octets, many.octets, 1);
	ck_assert_double_eq_tol(one.seconds, many.seconds, 1e-6);
	ck_assert_double_eq_tol(one.cuts, many.cuts, 1e-9);
	ck_assert_double_eq_tol(one.speed / one.speed_weight, many.speed / many.speed_weight, 1);
}
END_TEST

START_TEST(forgets_by_half_life)
{
	struct sq_quality q = { 0 };
	struct sq_stretch cut = { .octets = 1000, .seconds = 1, .cut = true };

	for (int i = 0; i < 8; i++)
		sq_quality_stretch(&q, start_ms, &cut);
	ck_assert_double_eq_tol(sq_quality_estimate(&q, start_ms + SQ_HALF_LIFE_MS).cuts, 4, 1e-6);
	ck_assert_double_eq_tol(sq_quality_estimate(&q, start_ms + 3 * SQ_HALF_LIFE_MS).cuts, 1, 1e-6);
	/* A clock that went back changes nothing. */
	ck_assert_double_eq_tol(sq_quality_estimate(&q, start_ms - 100 * HOUR).cuts, 8, 1e-6);
	ck_assert(SQ_HALF_LIFE_MS >= 12 * (int64_t)HOUR && SQ_HALF_LIFE_MS <= 24 * (int64_t)HOUR);
}
END_TEST

/* A bad spell of a day, then a good link: two days later it is trusted again with 20 MB. */
START_TEST(a_bad_spell_passes)
{
	struct sq_quality q = { 0 };
	int64_t now = start_ms;
	struct sq_estimate e;

	seed = 99;
	for (int i = 0; i < 24; i++, now += HOUR)
		run_link(&q, &now, 4, 300e3, false, 50e3, 50e3, 2e6);
	e = sq_quality_estimate(&q, now);
	ck_assert_double_lt(sq_chance(&e, 20e6), 0.001);
	for (int i = 0; i < 48; i++, now += HOUR)
		run_link(&q, &now, 4, 1e12, false, 500e3, 500e3, 1e6);
	e = sq_quality_estimate(&q, now);
	ck_assert_double_gt(sq_chance(&e, 20e6), 0.3);
}
END_TEST

START_TEST(unknown_is_hopeful)
{
	struct sq_quality q = { 0 };
	struct sq_estimate e = sq_quality_estimate(&q, start_ms);
	struct sq_stretch cut = { .octets = 300e3, .seconds = 30, .cut = true };

	ck_assert_double_gt(sq_chance(&e, 20e6), 0.5);
	ck_assert_double_gt(sq_chance(&e, 150e6), SQ_START_CHANCE);
	/* Two cuts early in a large message are enough to doubt the third try; a small one still goes. */
	sq_quality_stretch(&q, start_ms, &cut);
	sq_quality_stretch(&q, start_ms, &cut);
	e = sq_quality_estimate(&q, start_ms);
	ck_assert_double_lt(sq_chance(&e, 20e6), SQ_START_CHANCE);
	ck_assert_double_gt(sq_chance(&e, 50e3), 0.9);
}
END_TEST

/* The predictive chance against sending it: hazards drawn from what is believed. */
START_TEST(chance_is_calibrated)
{
	struct sq_estimate e = { .shape = 3, .exposure = 4e6, .mean_octets = 4e6 / 3 };
	int through = 0, n = 40000;

	seed = 4242;
	for (int i = 0; i < n; i++) {
		/* Gamma(3): three exponentials. */
		double drawn = (exponential(1) + exponential(1) + exponential(1)) / e.exposure;

		through += exponential(1 / drawn) > 1.5e6;
	}
	ck_assert_double_eq_tol((double)through / n, sq_chance(&e, 1.5e6), 0.01);
}
END_TEST

START_TEST(replies_follow_rfc6298)
{
	struct sq_quality q = { 0 };

	sq_quality_reply(&q, 1.0);
	ck_assert_double_eq_tol(q.reply, 1.0, 1e-9);
	ck_assert_double_eq_tol(q.reply_var, 0.5, 1e-9);
	sq_quality_reply(&q, 2.0);
	ck_assert_double_eq_tol(q.reply_var, 0.75 * 0.5 + 0.25 * 1.0, 1e-9); /* with the mean of before */
	ck_assert_double_eq_tol(q.reply, 0.875 * 1.0 + 0.125 * 2.0, 1e-9);
}
END_TEST

/* ---- states ---- */

static const struct {
	const char *what;
	struct sq_quality q;
	enum sq_link_state before, want;
	enum sq_link_reason reason;
} states[] = {
	{ "nothing was seen", { 0 }, SQ_LINK_UNKNOWN, SQ_LINK_UNKNOWN, SQ_REASON_NOTHING },
	{ "it connected", { .connects = 1 }, SQ_LINK_UNKNOWN, SQ_LINK_GOOD, SQ_REASON_NOTHING },
	{ "cut early", { .connects = 1, .octets = 300e3, .cuts = 1 }, SQ_LINK_GOOD, SQ_LINK_POOR, SQ_REASON_CUTS },
	{ "cut now and then", { .connects = 9, .octets = 9e6, .cuts = 1 }, SQ_LINK_GOOD, SQ_LINK_FAIR, SQ_REASON_CUTS },
	{ "cut long ago", { .connects = 9, .octets = 9e6, .cuts = 0.15 }, SQ_LINK_FAIR, SQ_LINK_GOOD, SQ_REASON_NOTHING },
	{ "cut seldom", { .connects = 9, .octets = 60e6, .cuts = 1 }, SQ_LINK_GOOD, SQ_LINK_GOOD, SQ_REASON_NOTHING },
	{ "3 MB between cuts is fair", { .connects = 9, .octets = 1.75e6, .cuts = 1 }, SQ_LINK_GOOD, SQ_LINK_FAIR, SQ_REASON_CUTS },
	{ "but not for who was poor", { .connects = 9, .octets = 1.75e6, .cuts = 1 }, SQ_LINK_POOR, SQ_LINK_POOR, SQ_REASON_CUTS },
	{ "nor after being down", { .connects = 9, .octets = 1.75e6, .cuts = 1 }, SQ_LINK_DOWN, SQ_LINK_FAIR, SQ_REASON_CUTS },
	{ "slow", { .connects = 1, .octets = 1e5, .speed = 300, .speed_weight = 0.1 }, SQ_LINK_GOOD, SQ_LINK_POOR, SQ_REASON_SPEED },
	{ "rather slow", { .connects = 1, .octets = 1e6, .speed = 20e3, .speed_weight = 1 }, SQ_LINK_GOOD, SQ_LINK_FAIR, SQ_REASON_SPEED },
	{ "small mail tells nothing of speed", { .connects = 1, .octets = 2e3, .speed = 30, .speed_weight = 0.01 }, SQ_LINK_UNKNOWN, SQ_LINK_GOOD, SQ_REASON_NOTHING },
	{ "half of the connections fail", { .connects = 3, .refusals = 4 }, SQ_LINK_GOOD, SQ_LINK_POOR, SQ_REASON_CONNECTS },
	{ "a long round trip", { .connects = 3, .rtt = 1.2 }, SQ_LINK_GOOD, SQ_LINK_FAIR, SQ_REASON_RTT },
	{ "a satellite", { .connects = 3, .rtt = 0.6 }, SQ_LINK_GOOD, SQ_LINK_GOOD, SQ_REASON_NOTHING },
	{ "unreached", { .connects = 3, .unreached = 1, .refusals = 1 }, SQ_LINK_GOOD, SQ_LINK_DOWN, SQ_REASON_UNREACHED },
};

START_TEST(state)
{
	struct sq_quality q = states[_i].q;
	enum sq_link_reason reason;
	double value;

	q.at_ms = start_ms;
	ck_assert_msg(sq_quality_state(&q, start_ms, states[_i].before, &reason, &value) == states[_i].want, "%s", states[_i].what);
	ck_assert_msg(reason == states[_i].reason, "%s: for reason %d", states[_i].what, (int)reason);
}
END_TEST

/* Around a limit the state must not flap: hysteresis against none, on the same link. */
START_TEST(states_do_not_flap)
{
	struct sq_quality q = { 0 };
	enum sq_link_state with = SQ_LINK_UNKNOWN, without = SQ_LINK_UNKNOWN, s;
	int flaps_with = 0, flaps_without = 0;
	int64_t now = start_ms;
	enum sq_link_reason reason;
	double value;

	seed = 31337;
	for (int i = 0; i < 3000; i++, now += HOUR / 4) {
		run_link(&q, &now, 1, 2e6, false, 200e3, 200e3, 1e6);
		s = sq_quality_state(&q, now, with, &reason, &value);
		flaps_with += s != with;
		with = s;
		s = sq_quality_state(&q, now, SQ_LINK_UNKNOWN, &reason, &value);
		flaps_without += s != without;
		without = s;
	}
	ck_assert_int_gt(flaps_without, 20);
	ck_assert_int_lt(flaps_with * 4, flaps_without);
}
END_TEST

START_TEST(names)
{
	for (enum sq_link_state s = SQ_LINK_UNKNOWN; s <= SQ_LINK_DOWN; s++)
		ck_assert_int_eq(sq_link_state_of(sq_link_state_name(s)), s);
	ck_assert_int_eq(sq_link_state_of("splendid"), SQ_LINK_UNKNOWN);
}
END_TEST

/* ---- cost ---- */

static struct sq_estimate
known(double mean)
{
	return (struct sq_estimate){ .mean_octets = mean, .shape = 1e6, .exposure = mean * 1e6, .rate = 1e5, .cuts = 1e6 };
}

/* Send it until it is through; octets used. grain 0: from the start each time. */
static double
send_out(double octets, double setup, double grain, double mean)
{
	double done = 0, used = 0;

	for (;;) {
		double until = exponential(mean), left = octets - done;

		if (until >= setup + left)
			return used + setup + left;
		used += until;
		if (grain > 0 && until > setup)
			done += floor((until - setup) / grain) * grain;
	}
}

static const struct { double octets, setup, grain, mean; } costs[] = {
	{ 100e3, 6e3, 0, 1e6 },
	{ 1e6, 6e3, 0, 1e6 },
	{ 3e6, 6e3, 0, 1e6 },
	{ 2e6, 8e3, 20e3, 200e3 },
	{ 2e6, 8e3, 64e3, 200e3 },
	{ 10e6, 6e3, 65536, 1e6 },
	{ 50e3, 6e3, 65536, 1e5 },            /* smaller than the grain: as without */
};

START_TEST(cost)
{
	struct sq_estimate e = known(costs[_i].mean);
	struct sq_cost c = sq_cost(&e, costs[_i].octets, costs[_i].setup, costs[_i].grain);
	double sum = 0;
	int n = costs[_i].grain > 0 ? 3000 : 20000;

	seed = 1234567 + (uint64_t)_i;
	for (int i = 0; i < n; i++)
		sum += send_out(costs[_i].octets, costs[_i].setup, costs[_i].grain, costs[_i].mean);
	ck_assert_msg(fabs(sum / n / c.expected - 1) < 0.05, "formula %g, simulation %g", c.expected, sum / n);
	ck_assert_double_eq_tol(c.chance, exp(-(costs[_i].octets + costs[_i].setup) / costs[_i].mean), 0.001);
}
END_TEST

START_TEST(costs_stay_numbers)
{
	struct sq_estimate e = known(1e3);
	double last = 0;

	for (double octets = 1; octets < 1e12; octets *= 1.5) {
		double c = sq_cost(&e, octets, 6000, 0).expected;

		ck_assert(isfinite(c));
		ck_assert_double_gt(c, last);
		last = c;
	}
	ck_assert(isfinite(sq_cost(&e, 1e12, 1e9, 65536).expected));
}
END_TEST

/* ---- order ---- */

#define MIN_MS INT64_C(60000)
#define NOW start_ms

static const struct {
	const char *what;
	double mean;            /* octets between cuts */
	bool resume, partial;
	struct sq_order_item item;
	int64_t network_ms;
	enum sq_start want;
	int64_t when_ms;
} starts[] = {
	{ "small on a poor link", 1e6, 0, 0, { .size = 50000, .submitted_ms = NOW }, 0, SQ_START_NOW, 0 },
	{ "large on a poor link", 1e6, 0, 0, { .size = 20000000, .submitted_ms = NOW - MIN_MS }, 0, SQ_START_BETTER_LINK, NOW - MIN_MS + SQ_TRY_EVERY_MS },
	{ "large on a good link", 100e6, 0, 0, { .size = 20000000, .submitted_ms = NOW }, 0, SQ_START_NOW, 0 },
	{ "by hand", 1e6, 0, 0, { .size = 20000000, .submitted_ms = NOW, .forced = true }, 0, SQ_START_NOW, 0 },
	{ "six hours after it came", 1e6, 0, 0, { .size = 20000000, .submitted_ms = NOW - SQ_TRY_EVERY_MS }, 0, SQ_START_NOW, 0 },
	{ "within six hours after its last try", 1e6, 0, 0, { .size = 20000000, .submitted_ms = NOW - 2 * (int64_t)SQ_TRY_EVERY_MS, .last_try_ms = NOW - MIN_MS }, 0,
		SQ_START_BETTER_LINK, NOW - MIN_MS + SQ_TRY_EVERY_MS },
	{ "on a network that is new to it", 1e6, 0, 0, { .size = 20000000, .submitted_ms = NOW - 9 * MIN_MS, .last_try_ms = NOW - 5 * MIN_MS }, NOW - MIN_MS, SQ_START_NOW, 0 },
	{ "on a network on which it was tried", 1e6, 0, 0, { .size = 20000000, .submitted_ms = NOW - 9 * MIN_MS, .last_try_ms = NOW - MIN_MS }, NOW - 5 * MIN_MS,
		SQ_START_BETTER_LINK, NOW - MIN_MS + SQ_TRY_EVERY_MS },
	{ "its own record: often cut on a link that looks good", 100e6, 0, 0, { .size = 20000000, .submitted_ms = NOW - HOUR, .last_try_ms = NOW - MIN_MS, .cuts_day = 19 }, 0,
		SQ_START_BETTER_LINK, NOW - MIN_MS + SQ_TRY_EVERY_MS },
	{ "not cut so often", 100e6, 0, 0, { .size = 20000000, .submitted_ms = NOW - HOUR, .last_try_ms = NOW - MIN_MS, .cuts_day = 18 }, 0, SQ_START_NOW, 0 },
	{ "small mail has no record", 100e6, 0, 0, { .size = 65000, .submitted_ms = NOW - HOUR, .last_try_ms = NOW - MIN_MS, .cuts_day = 200 }, 0, SQ_START_NOW, 0 },
	{ "often cut, but now on another network", 100e6, 0, 0, { .size = 20000000, .submitted_ms = NOW - HOUR, .last_try_ms = NOW - MIN_MS, .cuts_day = 19 }, NOW - 1, SQ_START_NOW, 0 },
	{ "often cut, with resume", 100e6, 1, 0, { .size = 20000000, .submitted_ms = NOW - HOUR, .last_try_ms = NOW - MIN_MS, .cuts_day = 19 }, 0, SQ_START_NOW, 0 },
	{ "with resume every attempt is progress", 1e6, 1, 0, { .size = 20000000, .submitted_ms = NOW }, 0, SQ_START_NOW, 0 },
	{ "partial copies: even chance is asked for", 4e6, 0, 1, { .size = 4000000, .submitted_ms = NOW }, 0, SQ_START_BETTER_LINK, NOW + SQ_TRY_EVERY_MS },
	{ "partial copies: a better chance goes", 8e6, 0, 1, { .size = 4000000, .submitted_ms = NOW }, 0, SQ_START_NOW, 0 },
	{ "partial copies: an hour between tries", 8e6, 0, 1, { .size = 4000000, .submitted_ms = NOW - HOUR, .last_try_ms = NOW - 5 * MIN_MS, .tries_day = 1 }, 0,
		SQ_START_PARTIAL, NOW - 5 * MIN_MS + HOUR },
	{ "partial copies: six a day", 8e6, 0, 1, { .size = 4000000, .submitted_ms = NOW - 20 * (int64_t)HOUR, .last_try_ms = NOW - 2 * (int64_t)HOUR, .tries_day = 6 }, 0,
		SQ_START_PARTIAL, NOW + 2 * (int64_t)HOUR },
	{ "partial copies: neither six hours nor a new network overrides", 1e6, 0, 1,
		{ .size = 20000000, .submitted_ms = NOW - 20 * (int64_t)HOUR, .last_try_ms = NOW - 9 * (int64_t)HOUR, .tries_day = 1 }, NOW - MIN_MS,
		SQ_START_BETTER_LINK, NOW + SQ_TRY_EVERY_MS },
	{ "partial copies: a person does", 1e6, 0, 1, { .size = 20000000, .submitted_ms = NOW, .forced = true }, 0, SQ_START_NOW, 0 },
};

START_TEST(start)
{
	struct sq_order_link l = { .est = known(starts[_i].mean), .now_ms = NOW, .network_ms = starts[_i].network_ms, .resume = starts[_i].resume,
		.keeps_partial = starts[_i].partial };
	struct sq_start_out out = sq_order_start(&starts[_i].item, &l);

	ck_assert_msg(out.start == starts[_i].want, "%s: %d", starts[_i].what, (int)out.start);
	ck_assert_msg(out.when_ms == starts[_i].when_ms, "%s: %lld", starts[_i].what, (long long)(out.when_ms - NOW));
}
END_TEST

static const struct {
	const char *what;
	double mean;
	bool resume;
	double spent, oldest;
	struct sq_order_item items[3];
	size_t want;
} picks[] = {
	{ "small before large", 4e6, 0, 0, 0, { { .size = 3000000, .submitted_ms = NOW - MIN_MS }, { .size = 3000, .submitted_ms = NOW } }, 1 },
	{ "of equals the older", 4e6, 0, 0, 0, { { .size = 3000, .submitted_ms = NOW }, { .size = 3000, .submitted_ms = NOW - MIN_MS } }, 1 },
	{ "priority before everything", 4e6, 0, 0, 0, { { .size = 300, .submitted_ms = NOW }, { .size = 3000000, .submitted_ms = NOW, .priority = 1 } }, 1 },
	{ "what a person wants first", 4e6, 0, 0, 0, { { .size = 300, .submitted_ms = NOW, .priority = 1 }, { .size = 3000000, .submitted_ms = NOW, .forced = true } }, 1 },
	{ "nearly done before new", 4e6, 1, 0, 0, { { .size = 100000, .submitted_ms = NOW }, { .size = 20000000, .durable = 19990000, .submitted_ms = NOW } }, 1 },
	{ "the share of the oldest is saved up", 4e6, 0, 10e6, 1e6, { { .size = 3000, .submitted_ms = NOW }, { .size = 3000000, .submitted_ms = NOW - MIN_MS } }, 0 },
	{ "the oldest has its share", 4e6, 0, 20e6, 0.5e6, { { .size = 3000, .submitted_ms = NOW }, { .size = 3000000, .submitted_ms = NOW - MIN_MS } }, 1 },
	{ "and not more", 4e6, 0, 10e6, 2.1e6, { { .size = 3000, .submitted_ms = NOW }, { .size = 3000000, .submitted_ms = NOW - MIN_MS } }, 0 },
	{ "what may not start is no candidate", 1e6, 0, 0, 0, { { .size = 20000000, .submitted_ms = NOW }, { .size = 3000, .submitted_ms = NOW } }, 1 },
	{ "not even as the oldest", 1e6, 0, 10e6, 0, { { .size = 20000000, .submitted_ms = NOW - MIN_MS }, { .size = 3000, .submitted_ms = NOW } }, 1 },
	{ "age outweighs size in the end", 4e6, 0, 0, 0, { { .size = 100000, .submitted_ms = NOW - 24 * (int64_t)HOUR }, { .size = 3000, .submitted_ms = NOW } }, 0 },
};

START_TEST(pick)
{
	struct sq_order_link l = { .est = known(picks[_i].mean), .now_ms = NOW, .resume = picks[_i].resume, .spent = picks[_i].spent, .spent_oldest = picks[_i].oldest };

	ck_assert_msg(sq_order_pick(picks[_i].items, 2, &l) == picks[_i].want, "%s", picks[_i].what);
}
END_TEST

START_TEST(none_may_start)
{
	struct sq_order_link l = { .est = known(1e6), .now_ms = NOW };
	struct sq_order_item item = { .size = 20000000, .submitted_ms = NOW };

	ck_assert_uint_eq(sq_order_pick(&item, 1, &l), 1);
	ck_assert_uint_eq(sq_order_pick(&item, 0, &l), 0);
}
END_TEST

static const struct { const char *what; double mean, rate; uint64_t size, acked, next; bool want; } expresses[] = {
	{ "small beside a long one", 8e6, 20e3, 10000000, 100000, 5000, true },
	{ "the long one is nearly through", 8e6, 20e3, 10000000, 9800000, 5000, false },
	{ "a fast link", 8e6, 5e6, 10000000, 100000, 5000, false },
	{ "as long as the one under way", 8e6, 20e3, 10000000, 100000, 10000000, false },
};

START_TEST(express)
{
	struct sq_order_link l = { .est = known(expresses[_i].mean), .now_ms = NOW };
	struct sq_order_item running = { .size = expresses[_i].size, .submitted_ms = NOW }, next = { .size = expresses[_i].next, .submitted_ms = NOW };

	l.est.rate = expresses[_i].rate;
	ck_assert_msg(sq_order_express(&running, expresses[_i].acked, &next, &l) == expresses[_i].want, "%s", expresses[_i].what);
}
END_TEST

/*
 * A poor link for a day: a small message a minute and three large ones. With
 * the order small mail is hardly delayed, and the large ones get their share.
 */
START_TEST(nothing_starves)
{
	enum { N = 1500 };
	static struct sq_order_item items[N];
	static double left_ms[N];
	struct sq_order_link l = { .est = known(1.5e6) };
	double rate = 20e3, worst_small = 0, t = 0, day = 24.0 * HOUR;
	size_t n = 0, big_left = 3, arrived = 0;

	seed = 555;
	memset(left_ms, 0, sizeof(left_ms));
	for (int i = 0; i < 3; i++)
		items[n++] = (struct sq_order_item){ .size = 3000000, .submitted_ms = NOW };
	while (t < day) {
		size_t k;
		double octets, until;
		bool through;

		for (; (double)arrived * 60000 <= t && n < N; arrived++)
			items[n++] = (struct sq_order_item){ .size = 4000, .submitted_ms = NOW + (int64_t)arrived * 60000 };
		l.now_ms = NOW + (int64_t)t;
		k = sq_order_pick(items, n, &l);
		if (k == n) {
			t += 1000;
			continue;
		}
		octets = (double)items[k].size + SQ_SETUP_OCTETS;
		until = exponential(l.est.mean_octets);
		through = until >= octets;
		octets = through ? octets : until;
		t += octets / rate * 1000;
		l.spent += octets;
		for (size_t i = 0, oldest = 0; i < n; i++) {
			if (items[i].submitted_ms < items[oldest].submitted_ms)
				oldest = i;
			if (i == n - 1 && oldest == k)
				l.spent_oldest += octets;
		}
		if (!through) {
			items[k].last_try_ms = l.now_ms;
			continue;
		}
		if (items[k].size > 100000)
			big_left--;
		else
			worst_small = fmax(worst_small, t - (double)(items[k].submitted_ms - NOW));
		items[k] = items[--n];
	}
	ck_assert_uint_eq(big_left, 0);
	/* On one connection a small one waits at worst for the large attempt that is under way. */
	ck_assert_double_lt(worst_small, 4 * 60000);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("link_model");
	TCase *t = tcase_create("link_model");

	tcase_add_loop_test(t, hazard, 0, (int)SQ_LEN(hazards));
	tcase_add_test(t, censored_exposure_counts);
	tcase_add_test(t, stretches_add_up);
	tcase_add_test(t, forgets_by_half_life);
	tcase_add_test(t, a_bad_spell_passes);
	tcase_add_test(t, unknown_is_hopeful);
	tcase_add_test(t, chance_is_calibrated);
	tcase_add_test(t, replies_follow_rfc6298);
	tcase_add_loop_test(t, state, 0, (int)SQ_LEN(states));
	tcase_add_test(t, states_do_not_flap);
	tcase_add_test(t, names);
	tcase_add_loop_test(t, cost, 0, (int)SQ_LEN(costs));
	tcase_add_test(t, costs_stay_numbers);
	tcase_add_loop_test(t, start, 0, (int)SQ_LEN(starts));
	tcase_add_loop_test(t, pick, 0, (int)SQ_LEN(picks));
	tcase_add_test(t, none_may_start);
	tcase_add_loop_test(t, express, 0, (int)SQ_LEN(expresses));
	tcase_add_test(t, nothing_starves);
	suite_add_tcase(s, t);
	return test_main(s);
}
