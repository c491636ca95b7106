/*
 * A window of several messages inside a session (agent.h says how it looks in
 * frames): its transactions and their content, the GO for all of them, and
 * the group machine that knows what the replies mean. While a window is open
 * the connection is its own; carry.c asks it instead of the session.
 */
#ifndef SENDQ_AGENT_CARRY_GROUP_H
#define SENDQ_AGENT_CARRY_GROUP_H

#include "carry.h"

struct window;

/* Exits when there is no memory. `runner_gone` is set when it cannot be written to. */
struct window *window_new(struct sq_stream *runner, const struct sq_job *job, const struct carry_io *io, struct sq_session *s, bool *runner_gone);
void window_free(struct window *w);
bool window_open(const struct window *w);

/* Frames of the runner. What is wrong with it, or NULL. */
const char *window_txn(struct window *w, const struct sq_frame *f);
const char *window_content(struct window *w, const struct sq_frame *f);
const char *window_go(struct window *w, const struct sq_frame *f);
bool window_cancel(struct window *w);   /* false: GO was given, it cannot be called back */

/* The connection. */
void window_receive(struct window *w, const char *p, size_t n);
void window_lost(struct window *w, enum sq_outcome outcome, const char *why, bool by_server);
struct sq_str window_out(struct window *w, size_t max); /* what to hand over now; it counts as offered */
void window_sent(struct window *w, size_t n);

/* Do what it wants, as far as it goes without waiting. SEND: hand window_out() over; REPLY: wait; NOTHING: it is closed. */
enum sq_want window_step(struct window *w);

bool window_given(const struct window *w);      /* GO was given: giving up makes doubt */
uint64_t window_octets(const struct window *w); /* of content, of all its messages */

#endif
