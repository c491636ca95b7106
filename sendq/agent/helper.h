/* Inside sendq/agent: the small processes that do one job and end. */
#ifndef SENDQ_AGENT_HELPER_H
#define SENDQ_AGENT_HELPER_H

#include <sendq/agent.h>

/* Read HELLO and the job from descriptor 3. Its views point into the stream, which is not read any more. Exits where there is none. */
void helper_job(struct sq_stream *s, enum sq_frame_type type, struct sq_frame *f);
/* Send; exits when nobody listens. */
void helper_put(struct sq_stream *s, const struct sq_frame *f);
/* Nobody listens any more; `arg` is the stream. */
bool helper_gone(void *arg);

#endif
