/*
 * SMTP as a client speaks it: parser of replies, capabilities, the policy of
 * refusals, and the session machine. Pure: no I/O, no clock. The machine is
 * fed octets and decisions and says what it wants; whoever drives it
 * (agent/carry.c, or a test) owns the socket, the time and the runner.
 */
#ifndef SENDQ_SMTP_H
#define SENDQ_SMTP_H

#include <sendq/agent.h>

/* ---- replies ---- */

enum { SQ_REPLY_OCTETS_MAX = 64 * 1024 }; /* of one reply, all lines; more is a broken server */

/* Incremental: any split of the octets gives the same reply. Zeroed is ready. */
struct sq_reply_parser {
	int code;              /* of the first line */
	bool last;             /* this line has no '-' */
	size_t column;         /* octets of this line read */
	size_t octets;         /* of this reply */
	int line_code;
	size_t line_start;     /* in text */
	bool cut;              /* text did not fit */
	bool done;             /* reply holds a whole one; the next octet starts anew */
	bool first;            /* first line is over */
	size_t n;
	struct sq_reply reply; /* valid after SQ_REPLY_DONE until the next feed; text points to `text` */
	char text[SQ_REPLY_TEXT_MAX];
};

enum sq_reply_step { SQ_REPLY_MORE, SQ_REPLY_DONE, SQ_REPLY_BAD };

/*
 * Take octets up to the end of one reply; *used tells how many. A reply is
 * done when the line end of its last line was read, not before (RFC 5321
 * §4.2). SQ_REPLY_BAD: not SMTP, or too long; the session is over.
 */
enum sq_reply_step sq_reply_feed(struct sq_reply_parser *p, const char *octets, size_t n, size_t *used);

/* Octets of an incomplete reply have been read. */
bool sq_reply_partial(const struct sq_reply_parser *p);

/* ---- EHLO ---- */

struct sq_ehlo {
	uint32_t caps;         /* SQ_CAP_… */
	uint64_t size_limit;   /* 0: none told */
	uint32_t rcpt_max;     /* LIMITS RCPTMAX (RFC 9422), 0: none */
	/* XSENDQ RETAIN=<seconds> STORE=<name>: what became of a transfer is remembered so long, under this name. */
	uint32_t retain_s;
	char store[SQ_STORE_MAX + 1]; /* "": no promise */
};

/* From a reply's text (lines joined by '\n', the first is the greeting). */
void sq_ehlo_parse(struct sq_str text, struct sq_ehlo *out);

/* ---- DATA's transparency (RFC 5321 §4.5.2) ---- */

struct sq_stuff { bool inside; }; /* zeroed: at the start of a line */

/* Append content with leading dots doubled; any split of the content gives the same octets. */
void sq_stuff_add(struct sq_stuff *st, struct sq_str content, struct sq_buf *out);

/* ---- CHECKPOINT (RFC 1845) ---- */

/* The answer to a MAIL with a known TRANSID: "355 <offset> [sha256=<hex of the octets before it>] …". */
struct sq_checkpoint {
	uint64_t offset;       /* next octet expected, in canonical octets from 0 (RFC 1845 §3) */
	bool hashed;
	uint8_t sha256[32];
};

/* False: not code 355, or no number at the start of its first line. */
bool sq_checkpoint_parse(const struct sq_reply *r, struct sq_checkpoint *out);

/*
 * May be said as a TRANSID: "<local@domain>", at most SQ_TRANSID_MAX octets,
 * atoms as in RFC 1845 §2 joined by single dots on both sides.
 */
bool sq_transid_valid(struct sq_str s);

/* ---- what a refusal means ---- */

struct sq_policy {
	enum sq_class cls;
	enum sq_scope scope;
	uint32_t wait_s;          /* 0: the runner's schedule */
	enum sq_outcome outcome;  /* of the session, should it end with this reply */
};

/* `phase` is the step that was answered. A code outside 2yz, 4yz, 5yz is deferred. */
struct sq_policy sq_policy_decide(const struct sq_reply *r, enum sq_phase phase);

/* ---- the session ---- */

#define SQ_SESSION_STATES(X) \
	/* id, name, phase, deadline, what a lost connection means */ \
	X(IDLE, "idle", NONE, REPLY, NOT_ACCEPTED) \
	X(MAIL, "mail", MAIL, REPLY, NOT_ACCEPTED) \
	X(RCPT, "rcpt", RCPT, REPLY, NOT_ACCEPTED) \
	X(DATA, "data", DATA, REPLY, NOT_ACCEPTED) \
	X(ENVELOPE, "envelope", DATA, RUNNER, NOT_ACCEPTED) \
	X(CONTENT, "content", CONTENT, CONTENT, NOT_ACCEPTED) \
	X(CHUNKS, "chunks", CONTENT, CONTENT, NOT_ACCEPTED)   /* all handed over, 250s outstanding */ \
	X(DRAIN, "drain", CONTENT, CONTENT, NOT_ACCEPTED)     /* DATA: the kernel still holds octets */ \
	X(ASK, "ask", CONTENT, RUNNER, NOT_ACCEPTED)          /* TERMINATOR asked, no GO yet */ \
	X(TERMINATOR, "terminator", TERMINATOR, VERDICT, DOUBT) /* from GO until a complete reply */ \
	X(VERDICT, "verdict", VERDICT, RUNNER, STANDS)        /* to be reported */ \
	X(LONE_DOT, "lone dot", RCPT, REPLY, NOT_ACCEPTED)    /* no recipient, but 354 came */ \
	X(RSET, "rset", NONE, REPLY, NOT_ACCEPTED) \
	X(QUIT, "quit", NONE, QUIT, NOT_ACCEPTED) \
	X(ENDED, "ended", NONE, RUNNER, NOT_ACCEPTED)

enum sq_session_state {
#define X(id, name, phase, deadline, loss) SQ_SESSION_##id,
	SQ_SESSION_STATES(X)
#undef X
	SQ_SESSION_STATE_COUNT
};

enum sq_deadline { SQ_DEADLINE_RUNNER, SQ_DEADLINE_REPLY, SQ_DEADLINE_CONTENT, SQ_DEADLINE_VERDICT, SQ_DEADLINE_QUIT };
enum sq_loss { SQ_LOSS_NOT_ACCEPTED, SQ_LOSS_DOUBT, SQ_LOSS_STANDS };

struct sq_session_fact {
	const char *name;
	enum sq_phase phase;
	enum sq_deadline deadline;
	enum sq_loss loss;     /* notes: the cut classifier */
};
const struct sq_session_fact *sq_session_fact(enum sq_session_state s);

/* What the machine waits for. SEND comes first: nothing else is wanted while `out` holds octets. */
enum sq_want {
	SQ_WANT_SEND,        /* hand s->out over, then sq_session_sent() */
	SQ_WANT_REPLY,       /* octets of the server */
	SQ_WANT_TXN,         /* idle: sq_session_begin() or sq_session_quit() */
	SQ_WANT_ENVELOPE_GO, /* results are the RCPT replies: report, check the octets before resumed.offset, then sq_session_go() */
	SQ_WANT_CONTENT,     /* sq_session_content(), the octets at s->content_at */
	SQ_WANT_DRAINED,     /* the kernel's send buffer is empty: sq_session_drained() */
	SQ_WANT_TERMINATOR_GO, /* make the intent durable, arm the RST, then sq_session_go() */
	SQ_WANT_VERDICT,     /* report results, then sq_session_reported() */
	SQ_WANT_NOTHING,     /* ended: see s->end */
};

struct sq_session {
	enum sq_session_state state, after_verdict;
	struct sq_ehlo ehlo;
	bool eightbit_send, pipelining;
	bool chunking, checkpointing;    /* offered, and nothing speaks against them */
	struct sq_reply_parser parser;
	struct sq_buf out;               /* octets to hand over */
	const struct sq_txn *txn;        /* the caller's, from begin until reported */
	bool bdat;                       /* this transaction's verb */
	/* CHECKPOINT, of this transaction */
	bool transid;                    /* MAIL said TRANSID */
	bool mail_alone;                 /* nothing is pipelined behind MAIL: 250 and 355 go on differently */
	bool in_doubt;                   /* nothing that comes is a verdict until this is false */
	bool keep;                       /* the server keeps what it has: end by closing, never by RSET or QUIT (RFC 1845 §3) */
	bool forget;                     /* for the verdict: this TRANSID is of no more use */
	bool checkpoint_refused;         /* TRANSID is not understood although offered: to be learned */
	struct sq_checkpoint resumed;    /* offset 0: from the start */
	struct sq_recipient_result *results; /* SQ_GROUP_MAX */
	char *texts;                     /* SQ_GROUP_MAX × SQ_REPLY_TEXT_MAX */
	uint32_t rcpt_sent, rcpt_answered, accepted, rcpt_limit;
	bool mail_answered, mail_refused, data_sent, data_answered, data_354, refused_content;
	uint64_t content_at, chunk_left, chunks_sent, chunks_answered;
	struct sq_stuff stuff;
	struct sq_end end;               /* valid in ENDED */
	char end_text[SQ_REPLY_TEXT_MAX];
};

/* SQ_ENOMEM. Starts idle, behind EHLO and AUTH. `bdat`, `pipelining`: use where offered. */
SQ_MUST_USE enum sq_err sq_session_init(struct sq_session *s, const struct sq_ehlo *ehlo, const struct sq_job *job, struct sq_error *err);
void sq_session_fini(struct sq_session *s);

enum sq_want sq_session_want(const struct sq_session *s);

/*
 * Start a transaction; only when SQ_WANT_TXN. What this server can never take
 * (SIZE, 8BITMIME, SMTPUTF8, an address with a control character) goes to the
 * verdict at once, and nothing is sent.
 */
void sq_session_begin(struct sq_session *s, const struct sq_txn *t);
void sq_session_quit(struct sq_session *s);             /* when idle; does nothing elsewhere */
void sq_session_sent(struct sq_session *s, size_t n);   /* n octets of out were handed over */
void sq_session_receive(struct sq_session *s, const char *p, size_t n);
void sq_session_go(struct sq_session *s);
void sq_session_content(struct sq_session *s, struct sq_str octets);
void sq_session_drained(struct sq_session *s);

/* Instead of sq_session_go() behind ENVELOPE: what the server has is not a beginning of this message. */
void sq_session_mismatch(struct sq_session *s, const char *why);

/* Content octets that the server has promised to keep, from 0 (DESIGN §6): 0 without CHECKPOINT. */
uint64_t sq_session_durable(const struct sq_session *s);
void sq_session_reported(struct sq_session *s);

/*
 * The connection is lost, or given up (outcome STALLED, CANCELLED, …), with
 * our own words. After the terminator the outcome is DOUBT whatever is given.
 * A verdict that was read stands. No effect once ended.
 */
void sq_session_lost(struct sq_session *s, enum sq_outcome outcome, const char *why);

/* ---- a window: several messages in one group (DESIGN §5) ---- */

/*
 * Each message but the first is `RSET MAIL RCPT… BDAT n LAST content`, and all
 * of them are handed over before a reply is read: one GO covers the group. The
 * machine borrows an idle session, whose words, replies and end it uses, and
 * gives it back idle, in RSET, or ended.
 *
 * What a reply means is found by counting. A message is accepted only if its
 * own MAIL, one RCPT and its BDAT were; a BDAT that is accepted behind a
 * refused MAIL is an anomaly: that message is in doubt, and the session ends.
 * Behind a 421 nothing is accepted. At any other end a message without a reply
 * to its BDAT is in doubt where its last octet was offered to the kernel, and
 * certainly not accepted where it was not.
 *
 * On a route that is not proved nothing of the next message goes out behind a
 * terminator, though RFC 2920 §3.1 allows MAIL and RCPT there: Dovecot's
 * submission server dies of them after it has relayed the message and before
 * it says so, and Exim takes the next message for the former sender's.
 */
enum { SQ_WINDOW_OCTETS = 256 * 1024, SQ_WINDOW_RECIPIENTS = 200 };

struct sq_group_message {
	const struct sq_txn *txn;    /* the caller's, until the group is over */
	struct sq_recipient_result *results; /* as many as recipients; valid when decided */
	char *texts;
	uint64_t end;                /* octets of the group up to its last; 0: it is not part of it */
	uint32_t asked, answered, accepted; /* RCPTs */
	bool mail_refused, decided, reported;
};

enum sq_group_state { SQ_GROUP_NONE, SQ_GROUP_ASK, SQ_GROUP_SENT, SQ_GROUP_OVER };

struct sq_group {
	struct sq_session *s;
	enum sq_group_state state;
	uint32_t n, at;              /* messages; the one whose reply is next */
	enum { SQ_GROUP_RSET, SQ_GROUP_MAIL, SQ_GROUP_RCPT, SQ_GROUP_BDAT } step;
	struct sq_buf out;           /* octets to hand over, behind GO */
	uint64_t offered, sent;      /* octets that may have, that have been handed over */
	bool refused;                /* the server refused something */
	bool doubt;                  /* a message has no answer, or one that cannot be believed */
	const char *anomaly;         /* what this server did that it must not, NULL: nothing */
	struct sq_recipient_result *results;
	char *texts;
	struct sq_group_message messages[SQ_TXN_OPEN_MAX];
};

/* The session is idle and its server offers what a window needs, and not CHECKPOINT. */
bool sq_group_may(const struct sq_session *s);

/*
 * Make the group of `n` transactions with their whole content. Zeroed before
 * the first use; only when sq_group_may(). SQ_ELIMIT: more messages, octets or
 * recipients than a window holds; SQ_ENOMEM. Messages that this server can
 * never take are decided at once and are not part of what is sent.
 */
SQ_MUST_USE enum sq_err sq_group_begin(struct sq_group *g, struct sq_session *s, const struct sq_txn *const *txns, const struct sq_str *contents, uint32_t n, struct sq_error *err);
void sq_group_fini(struct sq_group *g);

/* SEND, REPLY, TERMINATOR_GO (those with `end` and not decided), VERDICT, NOTHING (over: go on with the session). */
enum sq_want sq_group_want(const struct sq_group *g);
void sq_group_go(struct sq_group *g);
void sq_group_offer(struct sq_group *g, size_t n);  /* the first n octets of out are about to be handed over */
void sq_group_sent(struct sq_group *g, size_t n);
void sq_group_receive(struct sq_group *g, const char *p, size_t n);
uint32_t sq_group_verdict(const struct sq_group *g); /* which message; when VERDICT is wanted */
void sq_group_reported(struct sq_group *g);

/* As sq_session_lost(). `by_server`: it closed the connection, no link was cut. */
void sq_group_lost(struct sq_group *g, enum sq_outcome outcome, const char *why, bool by_server);

/*
 * What a group asks of its session. prepare: true: the session refuses all of
 * `t` by itself, the results are in s->results; else *asked recipients may be
 * named, and those behind them have their results there.
 */
bool sq_session_prepare(struct sq_session *s, const struct sq_txn *t, uint32_t *asked);
void sq_session_reset(struct sq_session *s);        /* when idle: RSET before the next */
void sq_session_over(struct sq_session *s, const struct sq_reply *r); /* ended by a reply that nothing asked for */

#endif
