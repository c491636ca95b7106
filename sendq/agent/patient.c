/*
 * Looks at a connection now and then.
 */
#include "patient.h"

enum { LOOK_MS = 1000 };

void
patient_begin(struct patient *p, const struct carry_io *io, int64_t now)
{
	*p = (struct patient){ .since = now, .next_look = now + LOOK_MS, .state = -1 };
	io->probe(io->arg, false);
}

void
patient_addresses(struct patient *p, const struct carry_io *io, int64_t now)
{
	if (!io->homeless(io->arg))
		p->gone_since = 0;
	else if (p->gone_since == 0)
		p->gone_since = now;
}

static void
say(char why[160], enum sq_patience_end end, const struct sq_patience_in *in)
{
	long long stuck = (long long)in->stuck_ms / 1000;

	if (end == SQ_PATIENCE_ADDRESS)
		snprintf(why, 160, "the address of this machine that the connection came from is gone");
	else if (end == SQ_PATIENCE_DEAD)
		snprintf(why, 160, "no sign of life from the server for %lld s", (long long)in->quiet_ms / 1000);
	else if (in->quiet_ms > in->stuck_ms)
		snprintf(why, 160, "nothing from the server for %lld s", stuck);
	else
		snprintf(why, 160, "the server's machine answers, but the server has %s for %lld s", in->taken ? "said nothing" : "taken nothing", stuck);
}

enum sq_patience_end
patient_look(struct patient *p, const struct carry_io *io, struct sq_patience_in *in, int state, int64_t now, char why[160])
{
	struct sq_link_sample line = { 0 };
	struct sq_patience out;

	if (state != p->state || in->at != p->at) {
		p->state = state;
		p->at = in->at;
		p->since = now;
		p->next_look = now + LOOK_MS;
	}
	if (now < p->next_look && p->gone_since == 0)
		return SQ_PATIENCE_WAIT;
	if (io->sample(io->arg, &line)) {
		in->rtt_us = line.rtt_us;
		in->rttvar_us = line.rttvar_us;
	}
	if (p->probed != (in->at == SQ_AT_VERDICT && !in->resumes)) {
		p->probed = !p->probed;
		io->probe(io->arg, p->probed);
	}
	in->address_gone = p->gone_since != 0;
	in->gone_ms = now - p->gone_since;
	in->taken = io->drained(io->arg);
	in->quiet_ms = io->quiet_ms(io->arg);
	in->stuck_ms = now - p->since;
	out = sq_patience(in);
	p->next_look = out.wait_ms == INT64_MAX ? INT64_MAX : now + out.wait_ms;
	if (out.end != SQ_PATIENCE_WAIT)
		say(why, out.end, in);
	return out.end;
}
