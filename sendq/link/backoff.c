/* How long to wait, by cause. One table; pure. */
#include <sendq/link.h>

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE };

struct schedule { int64_t first, longest; int grow_percent; };

static struct schedule
schedule_of(const struct sq_backoff_in *in)
{
	switch (in->cause) {
	case SQ_OUTCOME_OFFLINE:
	case SQ_OUTCOME_UNREACHABLE:
		return (struct schedule){ 30 * SECOND, 15 * MINUTE, 150 };
	case SQ_OUTCOME_CUT:
	case SQ_OUTCOME_DOUBT:
	case SQ_OUTCOME_STALLED:
		if (in->progressed)
			return (struct schedule){ 15 * SECOND, 10 * MINUTE, 150 };
		return (struct schedule){ 60 * SECOND, 30 * MINUTE, 200 };
	case SQ_OUTCOME_QUOTA:
		return (struct schedule){ HOUR, 6 * HOUR, 200 };
	case SQ_OUTCOME_LOGIN_LATER:
		return (struct schedule){ 10 * MINUTE, 2 * HOUR, 200 };
	case SQ_OUTCOME_SECRET:
		return (struct schedule){ MINUTE, 30 * MINUTE, 200 };
	case SQ_OUTCOME_CERTIFICATE:
	case SQ_OUTCOME_TLS:
		return (struct schedule){ 30 * MINUTE, 30 * MINUTE, 100 };
	case SQ_OUTCOME_LOGIN:
		return (struct schedule){ 5 * SECOND, HOUR, 72000 };
	case SQ_OUTCOME_DEFERRED:
	case SQ_OUTCOME_MIXED:
	case SQ_OUTCOME_REFUSED:
	case SQ_OUTCOME_ACCEPTED:
		return (struct schedule){ in->retry_min_ms, in->retry_max_ms, 200 };
	case SQ_OUTCOME_RUNNING:
	case SQ_OUTCOME_PROTOCOL:
	case SQ_OUTCOME_LOCAL:
	case SQ_OUTCOME_CANCELLED:
	case SQ_OUTCOME_COUNT:
		break;
	}
	return (struct schedule){ 60 * SECOND, 30 * MINUTE, 200 };
}

struct sq_backoff_out
sq_backoff(const struct sq_backoff_in *in)
{
	struct schedule s = schedule_of(in);
	int64_t wait = s.first;

	if (in->cause == SQ_OUTCOME_LOGIN && in->failures >= 3)
		return (struct sq_backoff_out){ .stop = true };
	if (in->hint_ms > 0)
		return (struct sq_backoff_out){ .wait_ms = in->hint_ms };
	for (int64_t i = 1; i < in->failures && wait < s.longest; i++)
		wait = wait * s.grow_percent / 100;
	if (wait > s.longest)
		wait = s.longest;
	return (struct sq_backoff_out){ .wait_ms = wait * 4 / 5 + wait * 2 / 5 * (int64_t)(in->random % 1000) / 1000 };
}
