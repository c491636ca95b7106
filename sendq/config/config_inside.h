/* Between the files of sendq/config only. */
#ifndef SENDQ_CONFIG_INSIDE_H
#define SENDQ_CONFIG_INSIDE_H

#include <sendq/config.h>

/* What the members of one route must fulfil together; brings `server` into its normal form. */
SQ_MUST_USE enum sq_err sq_route_check(const char *path, struct sq_route *r, struct sq_error *err);

#endif
