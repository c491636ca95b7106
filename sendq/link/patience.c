/*
 * When a connection is given up: by what giving up costs (DESIGN §5).
 */
#include <sendq/link.h>

enum {
	LEAST_MS = 15000,
	SLOW_MS = 1800000,            /* a server that takes nothing, on a link that lives */
	PAST_MOST_MS = 3600000,
	MIB_MS = 10000,
	BACK_MS = 10000,              /* for an address to come back */
};

static int64_t
longer(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static int64_t
shorter(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Without any sign of life. */
static int64_t
quiet_limit(const struct sq_patience_in *in)
{
	if (in->at == SQ_AT_IDLE || in->at == SQ_AT_ENVELOPE || in->resumes)
		return longer(in->patient ? in->reply_ms : LEAST_MS, 8 * ((int64_t)in->rtt_us + 4 * (int64_t)in->rttvar_us) / 1000);
	return in->at == SQ_AT_CONTENT ? in->content_ms : INT64_MAX;
}

/* Without progress, however alive the other side's kernel is. */
static int64_t
stuck_limit(const struct sq_patience_in *in)
{
	switch (in->at) {
	case SQ_AT_IDLE:
		return INT64_MAX;
	case SQ_AT_ENVELOPE:
		return in->reply_ms;
	case SQ_AT_CONTENT:
		return in->taken ? in->content_ms : longer(in->content_ms, SLOW_MS);
	case SQ_AT_VERDICT:
		return longer(in->verdict_ms, shorter(4 * in->past_ms, PAST_MOST_MS)) + (int64_t)(in->octets >> 20) * MIB_MS;
	}
	return INT64_MAX;
}

/* Without the address that the connection came from. */
static int64_t
gone_limit(const struct sq_patience_in *in)
{
	return in->at == SQ_AT_VERDICT && !in->resumes ? BACK_MS : 0;
}

struct sq_patience
sq_patience(const struct sq_patience_in *in)
{
	int64_t quiet = quiet_limit(in), stuck = stuck_limit(in), gone = gone_limit(in);
	struct sq_patience out = { SQ_PATIENCE_WAIT, INT64_MAX };

	if (in->address_gone && in->gone_ms >= gone)
		out.end = SQ_PATIENCE_ADDRESS;
	else if (in->quiet_ms != SQ_QUIET_UNKNOWN && in->quiet_ms >= quiet)
		out.end = SQ_PATIENCE_DEAD;
	else if (in->stuck_ms >= stuck)
		out.end = SQ_PATIENCE_SILENT;
	if (out.end != SQ_PATIENCE_WAIT)
		return (struct sq_patience){ out.end, 0 };
	if (in->quiet_ms != SQ_QUIET_UNKNOWN && quiet != INT64_MAX)
		out.wait_ms = quiet - in->quiet_ms;
	if (stuck != INT64_MAX)
		out.wait_ms = shorter(out.wait_ms, stuck - in->stuck_ms);
	if (in->address_gone)
		out.wait_ms = shorter(out.wait_ms, gone - in->gone_ms);
	return out;
}
