/*
 * What became of a recipient and of an attempt: the words that the queue, the
 * session, the runner and the status programs share. The names are part of
 * the interface (JSON): they never change, new ones are appended. Numbers are
 * stored in the database: they never change either.
 */
#ifndef SENDQ_OUTCOME_H
#define SENDQ_OUTCOME_H

#include <sendq/base.h>

/*
 * States of a recipient (DESIGN §4). Which moves exist is said by one table in
 * queue/state.c, and nothing else writes the column.
 */
#define SQ_STATE_LIST(X) \
	X(0, QUEUED, "queued")         /* waits for its next try */ \
	X(1, SENDING, "sending")       /* an agent has it; nothing irrevocable was said */ \
	X(2, COMMITTING, "committing") /* the terminator may be on its way; durable before it is */ \
	X(3, DOUBT, "doubt")           /* the terminator went out and no complete reply was read */ \
	X(4, HELD, "held")             /* waits for a person */ \
	X(5, SENT, "sent")             /* accepted by the next hop */ \
	X(6, FAILED, "failed")         /* refused for good; a report is due or delivered */ \
	X(7, EXPIRED, "expired")       /* given up by the clock; a report is due or delivered */ \
	X(8, REMOVED, "removed")       /* taken out by a person */

/* How far an attempt came: the last step that was begun. */
#define SQ_PHASE_LIST(X) \
	X(0, NONE, "none") \
	X(1, CONNECT, "connect")       /* name, TCP, proxy */ \
	X(2, GREETING, "greeting") \
	X(3, TLS, "tls") \
	X(4, EHLO, "ehlo") \
	X(5, AUTH, "auth") \
	X(6, MAIL, "mail") \
	X(7, RCPT, "rcpt") \
	X(8, DATA, "data")             /* the envelope stands; no content octet was handed over */ \
	X(9, CONTENT, "content") \
	X(10, TERMINATOR, "terminator")/* GO was given for the terminator; from here a cut is doubt */ \
	X(11, VERDICT, "verdict")      /* the complete final reply was read */

/*
 * How an attempt ended; also the cause by which the runner backs off.
 * An attempt belongs to one message in one session.
 */
#define SQ_OUTCOME_LIST(X) \
	X(0, RUNNING, "running")       /* not ended yet */ \
	X(1, ACCEPTED, "accepted")     /* every recipient of the attempt */ \
	X(2, MIXED, "mixed")           /* some accepted, others deferred or refused */ \
	X(3, DEFERRED, "deferred")     /* 4yz */ \
	X(4, REFUSED, "refused")       /* 5yz */ \
	X(5, CUT, "cut")               /* connection lost before the terminator: certainly not accepted */ \
	X(6, DOUBT, "doubt")           /* connection lost after the terminator, no complete reply */ \
	X(7, OFFLINE, "offline")       /* no network, no name, no route: not counted as an attempt */ \
	X(8, UNREACHABLE, "unreachable") /* refused or silent at connect */ \
	X(9, TLS, "tls")               /* the server speaks no TLS, or TLS failed other than by certificate */ \
	X(10, CERTIFICATE, "certificate") \
	X(11, LOGIN, "login")          /* 535 and its like: the secret or the account */ \
	X(12, LOGIN_LATER, "login_later") /* 454, 432, 421 while logging in */ \
	X(13, SECRET, "secret")        /* the password could not be had; nothing was sent */ \
	X(14, QUOTA, "quota")          /* the provider's limit: the route pauses, nothing bounces */ \
	X(15, STALLED, "stalled")      /* no sign of life for longer than patience allows, before the terminator */ \
	X(16, PROTOCOL, "protocol")    /* the server broke SMTP */ \
	X(17, LOCAL, "local")          /* trouble on this machine: disk, memory, agent died before the terminator */ \
	X(18, CANCELLED, "cancelled")  /* by a person or by shutdown, before the terminator */

enum sq_state {
#define X(n, id, name) SQ_STATE_##id = n,
	SQ_STATE_LIST(X)
#undef X
	SQ_STATE_COUNT
};
enum sq_phase {
#define X(n, id, name) SQ_PHASE_##id = n,
	SQ_PHASE_LIST(X)
#undef X
	SQ_PHASE_COUNT
};
enum sq_outcome {
#define X(n, id, name) SQ_OUTCOME_##id = n,
	SQ_OUTCOME_LIST(X)
#undef X
	SQ_OUTCOME_COUNT
};

/* Names as in the tables above; "?" for a number that is not in them. */
const char *sq_state_name(enum sq_state s);
const char *sq_phase_name(enum sq_phase p);
const char *sq_outcome_name(enum sq_outcome o);

/* A finished recipient needs nothing more from the runner but its report. */
static inline bool
sq_state_is_final(enum sq_state s)
{
	return s >= SQ_STATE_SENT;
}

/* What a reply means for one recipient. */
enum sq_class {
	SQ_CLASS_ACCEPTED = 0, /* 2yz after the terminator */
	SQ_CLASS_DEFERRED = 1, /* certainly not accepted, try again */
	SQ_CLASS_REFUSED = 2,  /* certainly not accepted, never will be */
	SQ_CLASS_DOUBT = 3,    /* unknown */
};

/* Whom a deferral concerns (DESIGN §5, notes/protocols.md §3.4). */
enum sq_scope {
	SQ_SCOPE_RECIPIENT = 0,
	SQ_SCOPE_MESSAGE = 1,
	SQ_SCOPE_ROUTE = 2,    /* everything on the route waits */
};

/* Limits of a stored reply. Longer text is cut at the limit and marked with "…" at its end. */
enum { SQ_REPLY_TEXT_MAX = 2048, SQ_ENHANCED_MAX = 12 };

/*
 * A complete reply of a server, as it is stored and shown. `code` 0: there was
 * none, `text` then holds our own words (an error, "connection reset by
 * peer"). Lines of a multi-line reply are joined by '\n', codes removed;
 * octets that are not printable UTF-8 are replaced by '?'.
 */
struct sq_reply {
	int code;              /* 200…599, or 0 */
	char enhanced[SQ_ENHANCED_MAX]; /* "4.7.1", or "" */
	struct sq_str text;    /* owner as the user of the struct says */
};

#endif
