/*
 * The early alert: a message about a message of which only a part has come.
 * Octets in, octets out.
 */
#ifndef GATEWAY_ALERT_H
#define GATEWAY_ALERT_H

#include "gateway.h"

struct gw_alert {
	const char *hostname, *name;   /* of the gateway; of the transaction */
	const char *sender, *message_id;
	int64_t octets, declared;      /* declared 0: unknown */
	int64_t begun_ms, now_ms;
	struct sq_str head;            /* the first octets of the content */
};

enum { GW_ALERT_HEAD_MAX = 256 * 1024, GW_ALERT_MAX = 1024 * 1024 };

/* The alert with CRLF line ends, appended to out. */
void gw_alert_write(const struct gw_alert *a, struct sq_buf *out);

#endif
