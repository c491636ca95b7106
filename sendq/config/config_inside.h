/* Between the files of sendq/config only. */
#ifndef SENDQ_CONFIG_INSIDE_H
#define SENDQ_CONFIG_INSIDE_H

#include <sendq/config.h>

/* What the members of one route must fulfil together; brings `server` into its normal form. */
SQ_MUST_USE enum sq_err sq_route_check(const char *path, struct sq_route *r, struct sq_error *err);

/* With auth = "oauth": what it needs is there, the provider's addresses filled in. Any other route: SQ_OK. */
SQ_MUST_USE enum sq_err sq_oauth_check(const char *path, struct sq_route *r, struct sq_error *err);
/* Where refresh tokens are kept, where the route does not say; once the queue is known. */
SQ_MUST_USE enum sq_err sq_oauth_files(struct sq_config *cfg, struct sq_error *err);

#endif
