/*
 * Delivery reports read: what RFC 3464 reports and plain bounces say of a
 * message that was sent. Octets in, facts out; whether it is a message of
 * ours is asked of the queue.
 */
#ifndef SENDQ_BOUNCE_H
#define SENDQ_BOUNCE_H

#include <sendq/buf.h>
#include <sendq/outcome.h>

enum {
	SQ_BOUNCE_MAX = 1024 * 1024,   /* octets that are looked at: the report stands before what it returns */
	SQ_BOUNCE_RECIPIENTS_MAX = 100,
	SQ_BOUNCE_IDS_MAX = 8,
	SQ_BOUNCE_ADDRESS_MAX = 1024,
};

struct sq_bounce_recipient {
	char original[SQ_BOUNCE_ADDRESS_MAX];  /* as the sender wrote it; "" where the report does not say */
	char final[SQ_BOUNCE_ADDRESS_MAX];     /* as it was delivered to; "" */
	bool failed;                           /* else it was delivered, relayed, expanded, or still waits: taken by a server */
	int code;                              /* of a failure: the SMTP reply, 0: none */
	char enhanced[SQ_ENHANCED_MAX];        /* "" */
	char words[512];                       /* printable, one line */
};

struct sq_bounce {
	bool is_report;         /* false: an ordinary message, or a notice of sendq's own; nothing else is set */
	char envid[256];        /* Original-Envelope-Id, "" */
	char by[128];           /* Reporting-MTA, "" */
	char message_ids[SQ_BOUNCE_IDS_MAX][1000]; /* of what it returns, with brackets */
	size_t n_message_ids;
	struct sq_bounce_recipient *recipients;    /* heap */
	size_t n_recipients;    /* may be 0: a plain bounce that names none */
};
void sq_bounce_fini(struct sq_bounce *b);

/*
 * Read a message as it stands in a mailbox (LF or CRLF line ends, a "From "
 * line in front is skipped). A report is multipart/report with a delivery
 * status; a plain bounce is a message with X-Failed-Recipients, or from the
 * null sender (Return-Path: <>) or a mailer-daemon. Of the Message-ID of an
 * ordinary message, its References and its text nothing is believed.
 * SQ_ENOMEM only; what cannot be understood is no report.
 */
SQ_MUST_USE enum sq_err sq_bounce_read(struct sq_str mail, struct sq_bounce *out, struct sq_error *err);

#endif
