/*
 * One message on its way into the queue, whoever brings it: the argument list
 * of sendmail, an SMTP session on standard input, a client of the submission
 * socket. Sender, route, recipients and what is added to the header are
 * decided here and nowhere else.
 *
 *   new, add (any number), feed (any number), commit, free
 *
 * Inside sendq/submit only.
 */
#ifndef SENDQ_SUBMIT_SUBMISSION_H
#define SENDQ_SUBMIT_SUBMISSION_H

#include <sendq/config.h>
#include <sendq/message.h>
#include <sendq/queue.h>

struct aliases;

/* Who submits, and where to: made once for all messages of a process. */
struct submitter {
	const struct sq_config *cfg;
	const char *source;        /* "argv", "bs", "socket" */
	int64_t uid;               /* whose message it is */
	int priority;              /* 0, or less where he has much waiting: so that others go between */
	struct sq_queue *q;        /* opened with the first message; NULL before */
	struct aliases *aliases;   /* read with the first name that may be one; NULL before */
};
void submitter_fini(struct submitter *by);

/* What the caller wants of one message. Strings are the caller's and must live as long as the submission. */
struct wish {
	const char *sender;        /* NULL: none given; "" or "<>": the null sender */
	const char *full_name;     /* for a From that is added; NULL: none */
	const char *envid;         /* as given, not xtext; NULL: none */
	enum sq_ret ret;
	enum sq_own_duplicates duplicates;
	int64_t not_before_ms;     /* 0: at once (or after undo_window) */
	int64_t deadline_ms;       /* given up then; 0: when the route says */
	bool dot_ends;             /* a line of "." ends the message */
	bool want_recipients;      /* those of the header too */
	uint8_t notify;            /* of recipients that the header names */
};

struct submission;

/* Opens the queue, if need be, and refuses early where there is no room. */
SQ_MUST_USE enum sq_err submission_new(struct submitter *by, const struct wish *wish, struct submission **out, struct sq_error *err);
void submission_free(struct submission *s);   /* NULL-safe; nothing of an uncommitted one is left */
void submission_freep(struct submission **s);

/* Recipients (a list of addresses), with what RCPT said of them; `orcpt` in xtext with its type, or empty. */
SQ_MUST_USE enum sq_err submission_add(struct submission *s, struct sq_str addresses, uint8_t notify, struct sq_str orcpt, struct sq_error *err);

SQ_MUST_USE enum sq_err submission_feed(struct submission *s, const void *p, size_t n, bool *ended, struct sq_error *err);

/* The input is at its end: durable on SQ_OK. As for sq_ingest_commit() otherwise. */
SQ_MUST_USE enum sq_err submission_commit(struct submission *s, struct sq_submitted *done, struct sq_error *err);

/* The sysexits status of an error, where it is not the one of its code; 0: it is. */
int submission_exit(const struct submission *s);

/* Where would mail to these go (-bv)? Queues and opens nothing. `out` is the caller's to free, on SQ_OK. */
struct to_list;
SQ_MUST_USE enum sq_err submission_where(struct submitter *by, const struct wish *wish, struct sq_str addresses, struct to_list *out, char route[65],
	struct sq_error *err);

/* What was mended, for people; false: nothing. */
bool submission_mended(const struct submission *s, char out[160]);

/*
 * Where a recipient's name leads: aliases, names of this machine, the domain
 * of the sender. Replaces the list by what is really sent to. `sender` and
 * `domain` as chosen for the message.
 */
struct to {
	struct sq_address address;
	uint8_t notify;
	char *orcpt;               /* heap; NULL: none */
};
struct to_list {
	struct to *v;
	size_t n, cap;
};
void to_list_fini(struct to_list *l);
SQ_MUST_USE enum sq_err to_list_add(struct to_list *l, struct sq_address *take, uint8_t notify, struct sq_str orcpt, struct sq_error *err);

struct resolve {
	struct submitter *by;
	const char *domain;        /* completes names */
	const char *own;           /* the address for mail to this machine's own names; NULL: none */
};
SQ_MUST_USE enum sq_err resolve_recipients(const struct resolve *r, struct to_list *l, struct sq_error *err);

/* The domain names this machine, not a place in the Internet: localhost, the bare host name, `local_domains`. */
bool is_local_domain(const struct sq_config *cfg, const char *domain);

#endif
