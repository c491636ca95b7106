/*
 * A session's patience: when the facts of its connection are looked at, and
 * what to say when they are enough. sq_patience() of link.h decides.
 */
#ifndef SENDQ_AGENT_PATIENT_H
#define SENDQ_AGENT_PATIENT_H

#include <sendq/link.h>

#include "carry.h"

struct patient {
	int64_t since;                /* awake ms (asleep nobody is heard) of the last progress; the owner's to move */
	int64_t next_look;            /* awake ms; INT64_MAX: nothing to wait for */
	int state;                    /* of the last look */
	enum sq_patience_at at;
	bool probed;                  /* the kernel was told to be patient */
	int64_t gone_since;           /* the connection's address is gone; 0: it is there */
};

void patient_begin(struct patient *p, const struct carry_io *io, int64_t now);

/* Addresses have changed, or it is worth a look. */
void patient_addresses(struct patient *p, const struct carry_io *io, int64_t now);

/*
 * Once a round. `in` without the facts that `io` knows; `state` is any number
 * that changes when the session moves on, which counts as progress. Costs
 * nothing while a step takes under a second. Not WAIT: end the session; `why`
 * says in words what was missing.
 */
enum sq_patience_end patient_look(struct patient *p, const struct carry_io *io, struct sq_patience_in *in, int state, int64_t now, char why[160]);

#endif
