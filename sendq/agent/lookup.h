/* Inside sendq/agent: where the servers of a domain are told. */
#ifndef SENDQ_AGENT_LOOKUP_H
#define SENDQ_AGENT_LOOKUP_H

#include <sendq/agent.h>

struct lookup {
	const struct sq_lookup_job *job;
	void (*found)(void *arg, const struct sq_lookup *l);
	bool (*gone)(void *arg);
	void *arg;
};

/* Ask all, best first; what was not to be had is put into words, which have room for 2 KiB. */
void lookup_run(const struct lookup *l, char words[SQ_REPLY_TEXT_MAX]);

#endif
