/*
 * The arithmetic of links: numbers in, numbers out. No clock, no state, no
 * randomness of its own.
 */
#ifndef SENDQ_LINK_H
#define SENDQ_LINK_H

#include <sendq/outcome.h>

/* What is known when an attempt has failed. */
struct sq_backoff_in {
	enum sq_outcome cause;
	int64_t failures;       /* of this cause's kind in a row on the route, this one included: ≥ 1 */
	bool progressed;        /* content octets were acknowledged in the attempt */
	int64_t hint_ms;        /* what the server or the policy asks for; 0: nothing */
	int64_t retry_min_ms, retry_max_ms; /* the route's, for refusals of the server */
	uint32_t random;        /* any: spreads the wait by ±20 % */
};

struct sq_backoff_out {
	int64_t wait_ms;        /* until the next try */
	bool stop;              /* no next try by itself: a person, a new secret or a new configuration ends it */
};

/*
 * Back off by cause, not by count alone (DESIGN §8):
 *
 *   offline, unreachable   30 s × 1.5 → 15 min
 *   cut or doubt, with progress  15 s × 1.5 → 10 min
 *   cut, without, stalled, protocol, local  60 s × 2 → 30 min
 *   a 4yz                  retry_min × 2 → retry_max, or the hint
 *   quota                  the hint, else 1 h × 2 → 6 h
 *   login                  at once (5 s), 1 h, then stop
 *   login_later            10 min × 2 → 2 h
 *   secret                 1 min × 2 → 30 min
 *   certificate, tls       30 min
 *
 * Waits are spread by ±20 % except hints, which are never undercut.
 */
struct sq_backoff_out sq_backoff(const struct sq_backoff_in *in);

#endif
