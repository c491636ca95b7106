/*
 * What it is expected to cost to bring octets over a link that breaks, with
 * and without resume. Closed formulas; pure.
 */
#include <math.h>

#include <sendq/link.h>

/* Beyond this many mean stretches the answer is "never"; it stays a number that can be compared. */
#define EXPONENT_MAX 300.0

/* m (e^(x/m) − 1), growing with x for ever. */
static double
until_through(double x, double m)
{
	double t = x / m;

	return t <= EXPONENT_MAX ? m * expm1(t) : m * expm1(EXPONENT_MAX) * (1 + t - EXPONENT_MAX);
}

struct sq_cost
sq_cost(const struct sq_estimate *e, double octets, double setup, double grain)
{
	double m = e->mean_octets;
	struct sq_cost c = { .chance = sq_chance(e, octets + setup) };

	if (grain <= 0 || grain >= octets)
		c.expected = until_through(octets + setup, m);
	else
		c.expected = octets / grain * exp(fmin(setup / m, EXPONENT_MAX)) * until_through(grain, m) + setup;
	return c;
}
