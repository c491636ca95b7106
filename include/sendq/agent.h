/*
 * The language of sendqd (R, the runner) and sendq-smtp (A, the agent).
 *
 * Runner and agent share one SOCK_STREAM socketpair: it is descriptor 3 of
 * the agent; descriptor 4 is the runner lock, inherited so that a new runner
 * waits for orphans. The agent takes no arguments and no environment of ours.
 *
 * A frame is: u32 payload length, u16 type, u16 transaction, payload;
 * integers little-endian, strings u32 length + octets, bool u8. A frame that
 * breaks a limit below, has octets left over, or comes in the wrong state
 * ends the connection: the agent exits, the runner kills the agent. Both
 * sides treat the other as hostile.
 *
 * A session, as frames (n in brackets is the transaction):
 *
 *   A→R HELLO            R→A HELLO, JOB, SECRET?
 *   A→R READY            connected, logged in; or END
 *   R→A TXN[n]           any number, up to SQ_TXN_OPEN_MAX open at a time
 *   A→R READ[n]          content wanted; R→A CONTENT[n], in the order asked
 *   A→R ENVELOPE[n]      MAIL and RCPT are answered; R commits; R→A GO
 *   A→R TERMINATOR       all content is handed over (and, where the small
 *                        commit is used, answered); R commits sending →
 *                        committing; R→A GO. Only then one octet of the
 *                        terminator may go to the kernel.
 *   A→R VERDICT[n]       the outcome of every recipient of the transaction
 *   A→R IDLE             no transaction open; the session can take another
 *   R→A BYE              QUIT, close, END. R commits every VERDICT it has
 *                        read before it sends BYE or the next TXN.
 *   A→R END              last frame: why the session ended. A transaction
 *                        without VERDICT ended here: in doubt where its
 *                        TERMINATOR had GO, certainly not accepted else.
 *
 * A session that asks for evidence (JOB of kind EVIDENCE, the URL is the
 * IMAP server's) or only tries the connection (PROBE):
 *
 *   A→R HELLO            R→A HELLO, JOB, SECRET?
 *   A→R READY            or END
 *   R→A ASK[n]           is there a copy of this message? One at a time.
 *   A→R EVIDENCE[n]      what was found; the runner judges what it means
 *   R→A BYE              A→R END
 *
 * An ASK without a Message-ID asks only for the folder of sent mail: POSITIVE
 * with its name as the quote, or UNKNOWN. Where JOB says `tell`, A→R STAGE for
 * each part of the way, as it is over, and CERTIFICATE, good or not, come
 * before READY or END; and PROBE ends with QUIT. For people who look
 * (`sendq doctor`), not for the runner.
 *
 * A transaction whose envelope was refused whole (no RCPT accepted, MAIL
 * refused, too large) gets its VERDICT without ENVELOPE and TERMINATOR.
 * In a transaction with some recipients refused, ENVELOPE tells which, and
 * VERDICT repeats them: VERDICT always lists all recipients.
 *
 * A window: several small messages whose commands go out in one group
 * (DESIGN §5), where JOB permits it and the session is idle. Nothing is
 * answered before all is sent, so there is no ENVELOPE:
 *
 *   R→A TXN[n] CONTENT[n]  for each, all of its content unasked in one frame;
 *                        all but the last with SQ_TXN_MORE
 *   A→R TERMINATOR       those that are to be sent; R commits the intent for
 *                        all recipients of all of them; R→A GO. Only then one
 *                        octet of the group may go to the kernel.
 *   A→R VERDICT[n]       as they are answered
 *   A→R LEARNED          "window" = what the server did wrong, if it did
 *   A→R IDLE, or END
 *
 * Death of the agent without END means the same as END at that point.
 * EOF from the runner: the agent ends within a second, by RST when a
 * terminator is under way (DESIGN §5).
 */
#ifndef SENDQ_AGENT_H
#define SENDQ_AGENT_H

#include <sendq/buf.h>
#include <sendq/outcome.h>

enum {
	SQ_AGENT_VERSION = 4,
	SQ_AGENT_FD = 3,
	SQ_AGENT_LOCK_FD = 4,

	SQ_FRAME_HEADER = 8,
	SQ_FRAME_MAX = 320 * 1024,   /* payload octets */
	SQ_CONTENT_MAX = 256 * 1024, /* octets in one CONTENT */
	SQ_SECRET_MAX = 64 * 1024,
	SQ_GROUP_MAX = 100,          /* recipients in one transaction (RFC 5321 §4.5.3.1.8) */
	SQ_TXN_OPEN_MAX = 64,
	SQ_READ_OPEN_MAX = 4,        /* READs without their CONTENT */
	SQ_ADDRESS_MAX = 1024,       /* octets of an address with UTF-8 in it */
	SQ_TRANSID_MAX = 80,         /* RFC 1845 §2, brackets included */
	SQ_STORE_MAX = 64,           /* octets of the name a server gives its store of partial transfers */
};

enum sq_frame_type {
	SQ_FRAME_HELLO = 1,
	SQ_FRAME_JOB,
	SQ_FRAME_SECRET,
	SQ_FRAME_TXN,
	SQ_FRAME_READY,
	SQ_FRAME_READ,
	SQ_FRAME_CONTENT,
	SQ_FRAME_ENVELOPE,
	SQ_FRAME_TERMINATOR,
	SQ_FRAME_GO,
	SQ_FRAME_PROGRESS,
	SQ_FRAME_VERDICT,
	SQ_FRAME_LINK,
	SQ_FRAME_LEARNED,
	SQ_FRAME_EVIDENCE,
	SQ_FRAME_IDLE,
	SQ_FRAME_CANCEL,
	SQ_FRAME_BYE,
	SQ_FRAME_END,
	SQ_FRAME_ASK,
	SQ_FRAME_STAGE,
	SQ_FRAME_CERTIFICATE,
	SQ_FRAME_TOKEN_JOB,
	SQ_FRAME_TOKEN_PROMPT,
	SQ_FRAME_TOKEN,
	SQ_FRAME_LOOKUP_JOB,
	SQ_FRAME_LOOKUP,
	SQ_FRAME_LAST = SQ_FRAME_LOOKUP,
};

enum sq_job_kind { SQ_JOB_DELIVER = 0, SQ_JOB_PROBE = 1, SQ_JOB_EVIDENCE = 2, SQ_JOB_FETCH = 3 };

/* How the connection is protected. */
enum sq_tls { SQ_TLS_REQUIRED = 0, SQ_TLS_NONE = 1 };

/* Facts learned on earlier sessions of the route, each yes, no or unknown. */
enum sq_fact { SQ_FACT_UNKNOWN = 0, SQ_FACT_YES = 1, SQ_FACT_NO = 2 };

/* R→A: what this agent is for. Strings are empty where there is nothing to say. */
struct sq_job {
	enum sq_job_kind kind;
	struct sq_str url;          /* smtp[s]://host:port, for EVIDENCE imap[s]://host:port; nothing behind */
	struct sq_str user;         /* empty: no login */
	struct sq_str auth;         /* mechanism in capitals; empty: PLAIN, else LOGIN; OAUTH: OAUTHBEARER, else XOAUTH2 */
	enum sq_tls tls;
	struct sq_str ehlo_name;
	struct sq_str proxy;        /* as CURLOPT_PROXY */
	struct sq_str ca_file;      /* empty: the system's */
	struct sq_str fingerprint;  /* "sha256:<hex>" of the certificate; empty: none pinned */
	struct sq_str client_cert;  /* files */
	struct sq_str client_key;
	uint32_t connect_timeout_ms;  /* name, TCP, TLS, greeting, EHLO and AUTH together */
	uint32_t reply_timeout_ms;    /* MAIL, RCPT, DATA (RFC 5321 §4.5.3.2: 5 min, 5 min, 2 min) */
	uint32_t content_timeout_ms;  /* no sign of life while content is handed over that cannot be resumed */
	uint32_t verdict_timeout_ms;  /* after the terminator; at least 10 min (DESIGN §5) */
	uint32_t verdict_past_ms;     /* how long this route's verdicts have taken, with their spread; 0: unknown */
	bool patient;                 /* for sq_patience() (link.h) */
	bool eightbit_send;           /* 8-bit content goes as it is to a server without 8BITMIME */
	enum sq_fact ehlo_after_auth; /* an own EHLO after AUTH is needed / does harm */
	enum sq_fact bdat;            /* NO: use DATA although CHUNKING is offered */
	enum sq_fact pipelining;      /* NO: one command at a time although PIPELINING is offered */
	bool pipeline_messages;       /* windows may come on this session (DESIGN §5) */
	enum sq_fact checkpoint;      /* NO: no TRANSID although CHECKPOINT is offered */
	struct sq_str prefer;         /* "192.0.2.1:587": the server address that holds a partial transfer; empty: any */
	bool prefer_only;             /* and no other (a message in doubt); else the others follow */
	bool tell;                    /* STAGE and CERTIFICATE are wanted */
};

/* Parts of the way to a session, in the order in which they come; TLS from the start stands before GREETING, STARTTLS behind EHLO. */
enum sq_stage_kind { SQ_STAGE_NAME = 0, SQ_STAGE_CONNECT, SQ_STAGE_TLS, SQ_STAGE_GREETING, SQ_STAGE_EHLO, SQ_STAGE_LOGIN, SQ_STAGE_COUNT };

/* A→R: this part is done. What fails is told by END. */
struct sq_stage {
	enum sq_stage_kind kind;
	uint32_t ms;                /* it took */
	uint64_t server_ms;         /* GREETING: the server's wall time where it says one; 0: it does not */
	struct sq_str words;        /* the address, the protocol, or the server's words */
};

/* A→R: what the server showed. Names and problem in printable ASCII. */
struct sq_certificate {
	struct sq_str subject, issuer;
	struct sq_str names;        /* DNS names and addresses it is for, separated by blanks */
	uint64_t not_before_s, not_after_s; /* Unix time */
	uint8_t sha256[32];
	struct sq_str problem;      /* of the chain, in OpenSSL's words; empty: none. The name is checked behind it: see END. */
};

/* RFC 3461 NOTIFY; 0: parameter not given. */
enum { SQ_NOTIFY_NEVER = 1, SQ_NOTIFY_SUCCESS = 2, SQ_NOTIFY_FAILURE = 4, SQ_NOTIFY_DELAY = 8 };
/* RFC 3461 RET. */
enum sq_ret { SQ_RET_NONE = 0, SQ_RET_FULL = 1, SQ_RET_HDRS = 2 };

enum {
	SQ_TXN_8BIT = 1,      /* content has octets above 127: BODY=8BITMIME */
	SQ_TXN_SMTPUTF8 = 2,  /* an address or header field needs RFC 6531 */
	SQ_TXN_RESEND = 4,    /* a person asked for this copy knowing that it may be the second */
	SQ_TXN_MORE = 8,      /* of a window: another TXN of the same group follows */
	SQ_TXN_DOUBT = 16,     /* in doubt: only ask CHECKPOINT what became of it, go on where it says so */
};

struct sq_txn_recipient {
	int64_t id;            /* the runner's; comes back in ENVELOPE and VERDICT */
	struct sq_str address; /* without angle brackets */
	struct sq_str orcpt;   /* xtext with its type ("rfc822;a@b"), or empty */
	uint8_t notify;
};

/* What one recipient was answered. `wait_s` 0: no hint, the runner's schedule decides. */
struct sq_recipient_result {
	int64_t id;
	enum sq_class cls;
	enum sq_scope scope;
	enum sq_outcome cause; /* ACCEPTED, DEFERRED, REFUSED, DOUBT, or what the deferral is about: QUOTA, LOGIN … */
	uint32_t wait_s;
	struct sq_reply reply;
};

/* R→A: one message to a group of recipients. */
struct sq_txn {
	uint64_t size;           /* octets of the frozen stream */
	bool hash_known;
	uint8_t sha256[32];      /* of the frozen stream, where known */
	struct sq_str sender;    /* without angle brackets; empty: <> */
	struct sq_str envid;     /* xtext; empty: none */
	enum sq_ret ret;
	uint32_t flags;
	/*
	 * RFC 1845, used where the server offers CHECKPOINT; empty transid: not wanted.
	 * A transaction that is resumed has exactly the recipients whose RCPT was
	 * answered 2yz when it began: behind 355 there are no RCPTs.
	 */
	struct sq_str transid;
	bool resume;             /* an earlier session of this TRANSID got past RCPT */
	uint8_t verb;            /* of that session: 'D' (DATA) or 'B' (BDAT), 0: none */
	struct sq_str store;     /* XSENDQ STORE= of that session; empty: no promise was made */
	bool retained;           /* and its promise to remember (RETAIN=) still holds */
	uint32_t n_recipients;   /* ≤ SQ_GROUP_MAX */
	struct sq_txn_recipient recipients[SQ_GROUP_MAX];
};

enum {
	SQ_CAP_PIPELINING = 1, SQ_CAP_CHUNKING = 2, SQ_CAP_8BITMIME = 4, SQ_CAP_SMTPUTF8 = 8,
	SQ_CAP_DSN = 16, SQ_CAP_SIZE = 32, SQ_CAP_ENHANCED = 64, SQ_CAP_CHECKPOINT = 128,
	SQ_CAP_STARTTLS = 256, SQ_CAP_AUTH = 512, SQ_CAP_BURL = 1024, SQ_CAP_XSENDQ = 2048,
};

/* A→R: the session stands. */
struct sq_ready {
	struct sq_str address;   /* the peer, "127.0.0.1:587" or "[::1]:587"; behind a proxy the proxy's */
	uint32_t caps;
	uint64_t size_limit;     /* 0: none told */
	struct sq_str ehlo;      /* the reply's lines joined by '\n', ≤ SQ_REPLY_TEXT_MAX */
	uint32_t connect_ms;     /* until TCP stood */
	uint32_t setup_ms;       /* until ready */
	struct sq_str tls;       /* "TLSv1.3", or empty */
};

struct sq_read { uint64_t offset; uint32_t length; };       /* length ≤ SQ_CONTENT_MAX, offset + length ≤ size */
struct sq_content { uint64_t offset; struct sq_str octets; }; /* as many as asked */

/* A→R: the envelope stands. */
struct sq_envelope {
	uint32_t seq;
	uint8_t verb;            /* 'D' or 'B' */
	struct sq_str transid;   /* as used; empty: none */
	struct sq_str address;
	struct sq_str store;     /* XSENDQ STORE=; empty: the server promises nothing */
	uint32_t retain_s;       /* and for how long it remembers */
	uint64_t offset;         /* content octets that the server has already (355); size: all, only the verdict is open */
	uint32_t n_results;      /* every recipient; ACCEPTED here means that RCPT was answered 2yz */
	struct sq_recipient_result results[SQ_GROUP_MAX];
};

/* A→R: these transactions' terminators are next. */
struct sq_terminator {
	uint32_t seq;
	uint32_t n;
	struct {
		uint16_t txn;
		uint64_t octets;     /* hashed, = size */
		uint8_t sha256[32];  /* R: a hash that differs from a known one gets CANCEL, not GO */
	} txns[SQ_TXN_OPEN_MAX];
};

struct sq_go { uint32_t seq; };

/* A→R, at most once a second a transaction. */
struct sq_progress { uint64_t handed, acked, durable; };

/* A→R */
struct sq_verdict {
	struct sq_str provider_id;  /* Message-ID or queue id found in the reply; empty: none */
	bool forget;                /* the TRANSID is of no more use: the next try begins anew */
	uint32_t n_results;         /* all recipients of the transaction */
	struct sq_recipient_result results[SQ_GROUP_MAX];
};

/* A→R: from TCP_INFO, at most once a second. 0: not known. */
struct sq_link_sample {
	uint32_t rtt_us, rttvar_us, retransmits, goodput_bps, unacked;
	uint64_t acked;             /* octets of this connection, TLS included */
};

struct sq_learned { struct sq_str key, value; };  /* "ehlo_after_auth" = "yes" … */

/* R→A: look for copies of a message. `traces`: Received fields that its frozen header has. */
struct sq_ask { struct sq_str message_id; uint32_t traces; };

/*
 * A→R. POSITIVE: a copy that bears a server's trace. UNKNOWN: a copy without
 * one (a mail program may have filed it), or the folder could not be read.
 * NEGATIVE: the folder was read and has no copy; whether that means anything
 * is the runner's to judge. `quote`: what was seen, for people.
 */
enum sq_evidence_kind { SQ_EVIDENCE_UNKNOWN = 0, SQ_EVIDENCE_POSITIVE = 1, SQ_EVIDENCE_NEGATIVE = 2 };
struct sq_evidence {
	struct sq_str source;
	enum sq_evidence_kind kind;
	struct sq_str quote;
	struct sq_str provider_id;  /* the Message-ID that the provider put in the place of ours; empty: none seen */
};

/*
 * sendq-oauth (O), which speaks to a provider's token server (RFC 6749) and to
 * nobody else, on the same terms: descriptor 3, one job, one process.
 *
 *   R→O HELLO, TOKEN_JOB    O→R TOKEN_PROMPT?  TOKEN  and it ends
 *
 * REFRESH: an access token for the refresh token (§6). DEVICE: consent on
 * another device (RFC 8628): TOKEN_PROMPT has the code, then it asks until the
 * person has answered. BROWSER: consent in a browser of this machine (RFC 8252
 * with PKCE, RFC 7636): TOKEN_PROMPT has the address to open; it listens on
 * loopback for the browser to come back.
 */
enum sq_token_kind { SQ_TOKEN_REFRESH = 0, SQ_TOKEN_DEVICE = 1, SQ_TOKEN_BROWSER = 2 };
enum { SQ_TOKEN_MAX = 16 * 1024, SQ_TOKEN_URL_MAX = 4096 };

struct sq_token_job {
	enum sq_token_kind kind;
	struct sq_str token_url, device_url, auth_url; /* https:// */
	struct sq_str client_id, client_secret;        /* secret empty: none */
	struct sq_str scope;
	struct sq_str refresh;                         /* REFRESH */
	struct sq_str login_hint;                      /* BROWSER: whose mailbox */
	struct sq_str ca_file, proxy;
	uint32_t timeout_ms;                           /* one exchange; a person has as long as the server gives, or 10 min */
};

/* O→R: what the person is to do. */
struct sq_token_prompt {
	struct sq_str url;       /* to open */
	struct sq_str code;      /* to enter there; empty: none */
	uint32_t expires_s;
};

/* O→R: the end. ACCEPTED: tokens. SECRET: the provider says no (consent anew); others: it could not be asked. */
struct sq_token {
	enum sq_outcome outcome;
	struct sq_str access;    /* printable ASCII */
	struct sq_str refresh;   /* a new one, to be kept; empty: the old one stays */
	uint32_t expires_s;      /* of the access token; 0: not told */
	struct sq_str words;     /* for people: the server's where it said any; never a token */
};

/*
 * sendq-lookup (L), which looks for the servers of an address's domain:
 * autoconfig files over HTTPS, SRV and MX records. It logs in nowhere.
 *
 *   R→L HELLO, LOOKUP_JOB   L→R LOOKUP, any number, best first; END
 */
struct sq_lookup_job {
	struct sq_str address, domain;   /* domain: of the address, ASCII */
	struct sq_str autoconfig;        /* https:// of one file to read instead of looking; empty: look */
	struct sq_str ca_file;
	uint32_t timeout_ms;             /* of one question */
};

/* L→R: something that was found. Hosts are names, nothing else. */
struct sq_lookup {
	struct sq_str source;            /* "autoconfig", "ispdb", "srv", "mx", or "mx-ispdb": the collection's file for the owner of the MX */
	struct sq_str where;             /* the address or name that was asked, for people */
	struct sq_str server, imap;      /* as in the configuration; empty: not told. Of "mx": server is the MX host */
	struct sq_str user;              /* empty: not told */
	bool password, oauth;            /* ways to log in, as far as told */
	struct sq_str auth_url, token_url, scope; /* of oauth, where told */
};

/* A→R: why the session ended. */
struct sq_end {
	enum sq_outcome outcome;  /* of the session; ACCEPTED: an orderly end after BYE */
	enum sq_phase phase;
	enum sq_scope scope;      /* ROUTE: nothing else on this route has a chance now */
	uint32_t wait_s;          /* hint, 0: none */
	uint32_t os_error;
	struct sq_reply reply;    /* the server's words; code 0: ours */
};

/* One frame, decoded. Views point into the bytes it was decoded from. */
struct sq_frame {
	enum sq_frame_type type;
	uint16_t txn;            /* 0: the session */
	union {
		struct { uint32_t version; } hello;
		struct sq_job job;
		struct sq_str secret;
		struct sq_txn transaction;
		struct sq_ready ready;
		struct sq_read read;
		struct sq_content content;
		struct sq_envelope envelope;
		struct sq_terminator terminator;
		struct sq_go go;
		struct sq_progress progress;
		struct sq_verdict verdict;
		struct sq_link_sample link;
		struct sq_learned learned;
		struct sq_ask ask;
		struct sq_evidence evidence;
		struct sq_stage stage;
		struct sq_certificate certificate;
		struct sq_token_job token_job;
		struct sq_token_prompt token_prompt;
		struct sq_token token;
		struct sq_lookup_job lookup_job;
		struct sq_lookup lookup;
		struct sq_end end;
	} u;
};

/* The name of a type, for logs: "TERMINATOR". */
const char *sq_frame_type_name(enum sq_frame_type t);

/*
 * Append the frame, header included, to `out`. SQ_ELIMIT when a limit above
 * is broken (a bug of the caller, or a reply that it forgot to bound);
 * nothing is appended then.
 */
SQ_MUST_USE enum sq_err sq_frame_encode(const struct sq_frame *f, struct sq_buf *out, struct sq_error *err);

/*
 * Decode the first frame in `in`. SQ_OK and *used = its octets, or SQ_OK and
 * *used = 0 when more octets are needed; SQ_EPROTO when it can never be a
 * frame. Never reads past in.n; every count and length is checked before use.
 * `out` is large (100 recipients): keep one, do not put it on a small stack.
 */
SQ_MUST_USE enum sq_err sq_frame_decode(struct sq_str in, struct sq_frame *out, size_t *used, struct sq_error *err);

/*
 * A frame stream over a socket: buffers both ways, never blocks by itself.
 *
 * sq_stream_fill   read what is there. SQ_OK, SQ_EEOF (everything received
 *                  before can still be taken), SQ_EIO.
 * sq_stream_next   take the next whole frame into *f; false: none. Views are
 *                  valid until the next fill or next. SQ_EPROTO is sticky.
 * sq_stream_put    encode into the output buffer (bounded at 1 MiB: SQ_ELIMIT).
 * sq_stream_flush  write what the socket takes; sq_stream_pending() tells
 *                  whether something is left, then poll for POLLOUT.
 * sq_stream_wipe   overwrite both buffers and free them (secrets pass through).
 */
struct sq_stream {
	int fd;
	struct sq_buf in, out;
	size_t taken;
	bool eof;
};

void sq_stream_init(struct sq_stream *s, int fd);  /* sets O_NONBLOCK; fd stays the caller's */
SQ_MUST_USE enum sq_err sq_stream_fill(struct sq_stream *s, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_stream_next(struct sq_stream *s, struct sq_frame *f, bool *out_have, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_stream_put(struct sq_stream *s, const struct sq_frame *f, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_stream_flush(struct sq_stream *s, struct sq_error *err);
static inline bool sq_stream_pending(const struct sq_stream *s) { return s->out.n > 0; }
void sq_stream_wipe(struct sq_stream *s);

#endif
