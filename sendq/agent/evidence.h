/*
 * The agent's other job: look for copies of messages, or only prove that the
 * server can be reached. Speaks with the runner as include/sendq/agent.h says.
 */
#ifndef SENDQ_AGENT_EVIDENCE_H
#define SENDQ_AGENT_EVIDENCE_H

#include <sendq/net.h>

/*
 * Answer ASKs until BYE, EOF of the runner, or the end of the IMAP session;
 * puts END into the stream in the latter case and after BYE. False: the
 * runner is gone, nobody waits for last words.
 */
bool sq_evidence(struct sq_stream *runner, const struct sq_job *job, struct sq_conn *conn, bool (*runner_gone)(void *), void *arg);

#endif
