/*
 * Named fault points, for the crash tests. In releases they compile to
 * nothing. With -Dfaults=true the environment arms them:
 *
 *   SENDQ_FAULT="name[:n]=action[,name=action…]"
 *
 * `n` is the hit that fires (1 = the first). Actions: `kill` (SIGKILL
 * oneself), `stop` (SIGSTOP oneself), `eio`, `enospc` (the point reports that
 * errno: SQ_FAULT_ERRNO gives it), `exit` (_exit(1)). An armed name that does
 * not stand in the list below ends the program with a sentence, so a test
 * cannot guard nothing. `SENDQ_FAULT_PROGRAM=sendqd` limits arming to the
 * program of that name (program_invocation_short_name).
 *
 * The list is the only place where points are named; tests/crash reads it from here.
 */
#ifndef SENDQ_FAULT_H
#define SENDQ_FAULT_H

#define SQ_FAULT_LIST(X) \
	/* sendq-sendmail */ \
	X(submit_start) \
	X(submit_chunk)          /* between two chunks of a large message */ \
	X(submit_before_commit) \
	X(submit_after_commit)   /* durable, exit 0 not yet said */ \
	/* sendqd */ \
	X(runner_recovered)      /* after recovery, before the first scan */ \
	X(runner_rerouted)       /* messages moved to the fallback, not committed */ \
	X(runner_claimed)        /* queued -> sending is durable */ \
	X(runner_before_envelope) \
	X(runner_after_envelope) /* committed, GO not yet sent */ \
	X(runner_before_intent) \
	X(runner_after_intent)   /* committing is durable, GO not yet sent */ \
	X(runner_after_go)       /* terminator may be on the wire */ \
	X(runner_before_verdict) /* verdict read, not yet durable */ \
	X(runner_after_verdict) \
	X(runner_before_settle) \
	X(runner_before_report) \
	X(runner_after_report)   /* report on disk, row not yet marked */ \
	/* sendq-smtp */ \
	X(agent_start) \
	X(agent_connected) \
	X(agent_after_envelope) \
	X(agent_content)         /* after the first content write */ \
	X(agent_before_terminator) /* GO received, nothing of it handed over */ \
	X(agent_after_terminator)  /* terminator handed to the kernel */ \
	X(agent_after_reply)       /* verdict read, not yet reported */ \
	X(agent_after_verdict)     /* reported */

#ifdef SENDQ_FAULTS

enum sq_fault {
#define X(name) SQ_FAULT_##name,
	SQ_FAULT_LIST(X)
#undef X
	SQ_FAULT_COUNT
};

/* Act if armed. Returns the errno to pretend, or 0. */
int sq_fault_hit(enum sq_fault point);
#define SQ_FAULT(name) ((void)sq_fault_hit(SQ_FAULT_##name))
#define SQ_FAULT_ERRNO(name) sq_fault_hit(SQ_FAULT_##name)

#else
#define SQ_FAULT(name) ((void)0)
#define SQ_FAULT_ERRNO(name) 0
#endif

#endif
