/* Inside sendq/agent: a token from a provider (agent.h), by one of three ways. */
#ifndef SENDQ_AGENT_OAUTH_H
#define SENDQ_AGENT_OAUTH_H

#include <sendq/agent.h>

/* A token, or why there is none; its strings live in `room`. The caller wipes it. */
struct oauth_answer {
	struct sq_token token;
	char access[SQ_TOKEN_MAX + 1], refresh[SQ_TOKEN_MAX + 1], words[SQ_REPLY_TEXT_MAX + 1];
};

struct oauth {
	const struct sq_token_job *job;
	void (*prompt)(void *arg, const struct sq_token_prompt *p);
	bool (*gone)(void *arg);    /* nobody waits for it any more */
	void *arg;
};

/* What the job asks for; blocks as long as a person may take. */
void oauth_run(const struct oauth *o, struct oauth_answer *out);

#endif
