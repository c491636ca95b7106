/*
 * The server's half of SMTP (RFC 5321), for `sendmail -bs` and for the
 * submission socket: octets in, replies out, and calls for what happens to a
 * message. No input or output of its own, no clock, no queue; so it is tested
 * with strings and fuzzed.
 *
 * Commands end as the first one did, in CRLF, or in LF alone as people and
 * scripts type it; the other kind ends the session. In DATA both are line
 * ends, but only a dot alone between two line ends of the session's own kind
 * ends the message. A dot alone between others (or before a bare CR) is what
 * smuggling is made of: the message is refused and the session ends with it,
 * so that nothing behind it is carried out. BDAT counts octets and has no
 * such question.
 *
 * Inside sendq/submit only.
 */
#ifndef SENDQ_SUBMIT_SESSION_H
#define SENDQ_SUBMIT_SESSION_H

#include <sendq/agent.h>
#include <sendq/buf.h>

enum {
	SMTP_LINE_MAX = 4096,        /* octets of a command with its line end; RFC 5321 asks for 512 */
	SMTP_ERRORS_MAX = 30,        /* refused commands before the session is ended */
	SMTP_OUT_HIGH = 16 * 1024,   /* with so much to say, no more is taken in */
};

/* MAIL, as read. Views live during the call only. */
struct smtp_mail {
	struct sq_str sender;      /* without brackets; empty: <> */
	struct sq_str envid;       /* decoded; empty: none */
	enum sq_ret ret;
	uint64_t size;             /* as announced; 0: not */
	bool utf8;                 /* SMTPUTF8 was said */
	/* only where the session is `private` */
	struct sq_str full_name;   /* decoded */
	int64_t not_before_ms, deadline_ms;
	int duplicates;            /* 0: none said; as the caller of both ends counts them */
	bool none;                 /* no sender was given: the configuration's */
};

struct smtp_rcpt {
	struct sq_str address;     /* without brackets */
	uint8_t notify;
	struct sq_str orcpt;       /* xtext with its type, or empty */
};

/*
 * What the session asks for. An error's code chooses the reply's code, its
 * text is the reply's text. `mail` begins a message; after it exactly one of
 * `commit` or `reset` ends it. An error from `content` ends what is written,
 * the session swallows the rest and calls `reset`. `commit` answers 250 only
 * with SQ_OK: the message must be durable then; `words` is the text behind
 * "250 2.0.0 ".
 */
struct smtp_ops {
	enum sq_err (*mail)(void *arg, const struct smtp_mail *m, struct sq_error *err);
	enum sq_err (*rcpt)(void *arg, const struct smtp_rcpt *r, struct sq_error *err);
	enum sq_err (*content)(void *arg, const void *p, size_t n, struct sq_error *err);
	enum sq_err (*commit)(void *arg, char words[200], struct sq_error *err);
	void (*reset)(void *arg);
	void *arg;
};

struct smtp_options {
	uint64_t size_max;         /* octets of a message, announced; 0: no limit */
	bool private;              /* the other side is sendq's own: XSENDQ */
};

struct smtp;
SQ_MUST_USE enum sq_err smtp_new(struct smtp_options options, struct smtp_ops ops, struct smtp **out, struct sq_error *err);
void smtp_free(struct smtp *s);   /* calls `reset` where a message is open; NULL-safe */

/* What is to be sent; the caller consumes it as it goes out. Holds the greeting from the start. */
struct sq_buf *smtp_out(struct smtp *s);

/* Take octets; returns how many. Fewer than n: there is much to say first, or the session is over. */
size_t smtp_feed(struct smtp *s, const void *p, size_t n);

/* The session is over when everything of smtp_out() is sent. */
bool smtp_over(const struct smtp *s);

/* End it with "421 4.x.x words". */
void smtp_end(struct smtp *s, const char *words);

/* A message is under way (MAIL was accepted). */
bool smtp_busy(const struct smtp *s);

#endif
