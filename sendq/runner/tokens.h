/* Between tokens.c and consent.c. */
#ifndef SENDQ_RUNNER_TOKENS_H
#define SENDQ_RUNNER_TOKENS_H

#include "inside.h"

/* Keep a refresh token where the route says: durable, readable by nobody else. */
SQ_MUST_USE enum sq_err token_store(const struct sq_route *route, struct sq_str token, struct sq_error *err);

/* A sendq-oauth that has its job; its answer comes by *fd. */
SQ_MUST_USE enum sq_err token_helper(const struct sq_route *route, enum sq_token_kind kind, struct sq_str client, struct sq_str refresh, pid_t *pid, int *fd, struct sq_error *err);

#endif
