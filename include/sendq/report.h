/*
 * Reports to the sender, in the form of RFC 3464 (multipart/report), and
 * their delivery into a Maildir. Knows no queue: the caller says what happened.
 */
#ifndef SENDQ_REPORT_H
#define SENDQ_REPORT_H

#include <sendq/buf.h>
#include <sendq/outcome.h>

enum sq_report_kind {
	SQ_REPORT_FAILED,   /* refused for good, or expired: Action: failed */
	SQ_REPORT_DOUBT,    /* the answer was lost: Action: delayed, 4.4.2, X-Sendq-State: in-doubt */
	SQ_REPORT_SETTLED,  /* a doubt ended: the server has it. Action: relayed */
	SQ_REPORT_RESENT,   /* a doubt ended: it is sent again. Action: delayed */
	SQ_REPORT_DELAYED,  /* it waits longer than people expect. Action: delayed */
	SQ_REPORT_CUT,      /* the connection broke on the way; it goes on by itself. Action: delayed, 4.4.2 */
};

struct sq_report_recipient {
	const char *address;
	const char *orcpt;          /* as given by the submitter, xtext with its type; NULL or empty: none */
	bool expired;
	struct sq_reply reply;      /* code 0: ours */
};

struct sq_report {
	enum sq_report_kind kind;
	const char *id;             /* as typed to sendq */
	const char *to;             /* whom it tells; NULL or empty: the local user */
	const char *from;           /* where it goes by mail: the address it comes from; NULL: this machine */
	const char *own_id;         /* of the report, where it is known before; NULL: one is made */
	const char *message_id;     /* of the message */
	const char *subject;
	const char *envid;          /* xtext; NULL or empty: none */
	const char *route;
	int64_t submitted_ms, now_ms;
	int64_t until_ms;           /* DELAYED, CUT: when it is given up */
	const struct sq_report_recipient *recipients;
	size_t n_recipients;
	const char *words;          /* SETTLED, RESENT: the evidence, the reason; CUT: how far it came, what is next; NULL: none */
	struct sq_str header;       /* header block of the message, CRLF line ends; may be empty */
};

/*
 * Append the whole report, LF line ends, to `out`: ASCII but for the words and
 * what is quoted of the message; no line over 998 octets but in the latter.
 * SQ_ELIMIT, SQ_ENOMEM as of the buffer.
 */
SQ_MUST_USE enum sq_err sq_report_build(const struct sq_report *r, struct sq_buf *out, struct sq_error *err);

/*
 * Deliver into a Maildir, which is made (0700) when it is not there: written
 * to tmp, fsynced, renamed into new, the directory fsynced. Durable on SQ_OK;
 * a crash before leaves nothing, or a file in tmp. The name is made of
 * `when_ms` and `unique`: a second delivery under the same two replaces the first.
 */
SQ_MUST_USE enum sq_err sq_maildir_deliver(const char *maildir, const char *unique, struct sq_str message, int64_t when_ms, struct sq_error *err);

/*
 * Append to a user's mailbox on this machine (mbox), which is made where it is
 * not there. Durable on SQ_OK; after an error it is as it was. A crash between
 * this and whatever notes that it was done leaves it to be done twice. SQ_EBUSY:
 * locked by a mail program for 5 s; SQ_EPERM: not a mailbox of that user.
 */
SQ_MUST_USE enum sq_err sq_mbox_deliver(const char *path, int64_t uid, struct sq_str message, int64_t when_ms, struct sq_error *err);

#endif
