/*
 * What people see and do of partial messages and duplicates: a message of the
 * store by its index data.
 */
#ifndef GATEWAY_COPIES_H
#define GATEWAY_COPIES_H

#include "store.h"

struct gw_copy {
	int64_t id, octets, begun_ms;
	bool partial;              /* else a duplicate */
	struct gw_envelope env;
	char name[33], message_id[512];
	struct gw_rcpt *rcpt;
	size_t rcpts;
};

/* SQ_ENOENT: no message with a body has this number. *out may be given to gw_copy_fini() in any case. */
SQ_MUST_USE enum sq_err gw_copy_load(struct gw_store *s, int64_t id, struct gw_copy *out, struct sq_error *err);
void gw_copy_fini(struct gw_copy *c);

/* Deliver to those recipients that are local; with none, to `instead` (NULL: to nobody). SQ_ENOENT: to nobody. */
SQ_MUST_USE enum sq_err gw_deliver_local(const struct gw_settings *s, struct gw_message *m, const char *instead,
    struct sq_error *err);
/* Tell of a partial message. */
SQ_MUST_USE enum sq_err gw_alert_send(const struct gw_settings *s, struct gw_store *store, struct gw_copy *c,
    struct sq_error *err);

#endif
