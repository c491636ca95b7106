/*
 * The queue: one SQLite database, the only state that the programs share.
 *
 * It knows messages, recipients and times as numbers; no SMTP, no clock, no
 * configuration file, no log. All times are Unix milliseconds and are given
 * by the caller. Settings and transactions follow the measured recipe
 * (WAL, own checkpoints, BEGIN IMMEDIATE always, own busy handler).
 *
 * Errors common to all functions: SQ_EBUSY (another writer kept the lock
 * past the deadline: 30 s for SUBMIT, 5 s for READ, 30 s for RUN; nothing was
 * changed), SQ_ENOSPC (disk full; nothing was changed), SQ_EIO, SQ_ECORRUPT,
 * SQ_ENOMEM. After SQ_EIO from a commit the handle is closed and must be
 * opened anew; what the commit carried is verified on the new handle.
 *
 * "Durable" means: survives power loss once the function has returned.
 * Every change is one transaction; a crash in the middle leaves the state
 * before it. Only the functions that say so write more than one transaction.
 */
#ifndef SENDQ_QUEUE_H
#define SENDQ_QUEUE_H

#include <sendq/agent.h>
#include <sendq/outcome.h>
#include <sendq/quality.h>

struct sq_queue;

/* Ids are one-field structs, so that one cannot be passed for another. */
struct sq_message_id { int64_t v; };      /* ascending with submission; shown as sq_id_format() */
struct sq_recipient_id { int64_t v; };    /* message.v << 16 | n: the message is sq_recipient_message() */
struct sq_attempt_id { int64_t v; };

static inline struct sq_message_id
sq_recipient_message(struct sq_recipient_id r)
{
	return (struct sq_message_id){ r.v >> 16 };
}

enum { SQ_ID_TEXT = 16, SQ_RECIPIENTS_MAX = 65535 };

/* Short base-32 text (0-9a-z without i l o u), at least 4 characters. */
void sq_id_format(struct sq_message_id id, char out[SQ_ID_TEXT]);

/* ---- opening ------------------------------------------------------- */

enum sq_queue_role {
	SQ_QUEUE_SUBMIT, /* sendmail: creates the database, prepares only what it uses, never checkpoints at close */
	SQ_QUEUE_RUN,    /* under the runner lock: creates, migrates, checkpoints, sweeps */
	SQ_QUEUE_READ,   /* sendq: reads and writes requests; SQ_ENOENT when there is no database */
};

/*
 * Open `path`. Creates its directory (0700) and the file (0600) for SUBMIT and
 * RUN. Migrates an older schema (all roles but READ wait for the lock; READ
 * migrates too, as migrations are short).
 *
 * SQ_EPERM    belongs to another uid, or the directory may be written by others;
 *             the sentence names both users
 * SQ_ENEWER   user_version above ours; says both numbers and what to do
 * SQ_ECORRUPT not a database, application_id of something else, or quick
 *             checks failed; the file is left as it is
 * SQ_EINVAL   on a network file system (NFS, CIFS, 9p, …); names the `queue` setting
 */
SQ_MUST_USE enum sq_err sq_queue_open(const char *path, enum sq_queue_role role, struct sq_queue **out, struct sq_error *err);
void sq_queue_close(struct sq_queue *q);
void sq_queue_closep(struct sq_queue **q);

/* Give memory that only saves time back to the system (pages of the file, freed heap): for a process that goes to sleep. */
void sq_queue_rest(struct sq_queue *q);

/* How the database is. Reads all of it: `go_on` (may be NULL) is asked now and then and ends it when false. */
struct sq_queue_health {
	int64_t octets, free_octets; /* of the file, without its log */
	int version;                 /* of the schema */
	bool checked;                /* to the end */
	char problem[512];           /* what SQLite found; "": nothing */
};
SQ_MUST_USE enum sq_err sq_queue_health(struct sq_queue *q, bool (*go_on)(void *), void *arg, struct sq_queue_health *out, struct sq_error *err);

/*
 * From now on this handle (READ) knows only messages of that user: others are
 * not listed, found, counted or remembered (SQ_ENOENT), requests about them
 * refused, and a flush, which moves whole routes, is not to be had (RETRY is).
 */
void sq_queue_restrict(struct sq_queue *q, int64_t uid);
bool sq_queue_is_restricted(const struct sq_queue *q);

/* The stable EHLO name of this queue, "<16 hex>.invalid"; made at creation. Heap. */
SQ_MUST_USE enum sq_err sq_queue_ehlo_name(struct sq_queue *q, char **out, struct sq_error *err);

/*
 * Restored from a backup? At creation the queue gets a random identity; each
 * run of the runner raises a counter in it and in `<queue>.epoch` beside it
 * (which also names inode and device). *restored is true when the file
 * outside is ahead of the database or names another inode: mail in it may
 * have been sent already. RUN only; call once under the lock, then
 * sq_queue_hold_restored().
 */
SQ_MUST_USE enum sq_err sq_queue_check_restored(struct sq_queue *q, bool *restored, struct sq_error *err);

/* Every queued, sending or committing recipient becomes held, with `why` as its note. */
SQ_MUST_USE enum sq_err sq_queue_hold_restored(struct sq_queue *q, const char *why, int64_t now_ms, int *out_n, struct sq_error *err);

/* ---- submission ---------------------------------------------------- */

struct sq_new_recipient {
	struct sq_str address;   /* qualified, no brackets */
	struct sq_str orcpt;     /* xtext with type, or empty */
	uint8_t notify;
};

/* What a message says itself about second copies (DESIGN §7). Stored: never renumbered. */
enum sq_own_duplicates { SQ_OWN_ROUTES = 0, SQ_OWN_AVOID = 1, SQ_OWN_ALLOW = 2, SQ_OWN_ASK = 3 };

struct sq_submission {
	struct sq_str message_id;   /* header value with brackets */
	struct sq_str sender;       /* envelope; empty: <> */
	struct sq_str header_from;  /* address of the From field, for people */
	struct sq_str subject;      /* ≤ 200 octets of UTF-8, for people */
	const char *route;
	const char *source;         /* "argv", "bs", "socket" */
	int64_t uid;
	int64_t submitted_ms;
	int64_t not_before_ms;      /* 0: now */
	int64_t expires_ms;
	int64_t duplicate_window_ms; /* 0: no check */
	int64_t queue_size_max;     /* 0: no limit; beyond it SQ_ENOSPC */
	bool hold;
	int priority;               /* higher goes first; 0 */
	enum sq_ret ret;
	struct sq_str envid;        /* xtext; empty: none given by the user */
	uint32_t flags;             /* SQ_TXN_8BIT, SQ_TXN_SMTPUTF8 */
	bool auto_submitted;        /* Auto-Submitted: auto-* */
	enum sq_own_duplicates duplicates;
	struct sq_new_recipient *recipients;
	size_t n_recipients;        /* 1…SQ_RECIPIENTS_MAX */
};

struct sq_submitted {
	struct sq_message_id id;       /* the new message; 0 where all recipients were duplicates */
	struct sq_message_id same_as;  /* an earlier message with same Message-ID, content and recipient; 0: none */
	size_t n_duplicates;           /* recipients left out because of it */
};

/*
 * Content goes in while it is read; the message exists only from
 * sq_ingest_commit() on. Up to 256 KiB all is one transaction; beyond that
 * chunks are committed as they fill (short transactions, NORMAL; 1 ms apart
 * while another process waits for the write lock, and for a while after that)
 * and the last commit is durable. The ingest holds an OFD lock on
 * `<queue>.ingest`, so that leftovers of a killed process, and only those,
 * can be swept. Never holds the write lock while the caller reads its input.
 */
struct sq_ingest;
SQ_MUST_USE enum sq_err sq_ingest_begin(struct sq_queue *q, struct sq_ingest **out, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_ingest_write(struct sq_ingest *in, const void *p, size_t n, struct sq_error *err);
uint64_t sq_ingest_size(const struct sq_ingest *in);

/*
 * Make the message exist: durable on SQ_OK. Local duplicates (DESIGN §4) are
 * recognised here, in the same transaction, per recipient; content is compared
 * octet by octet with a stored one, by SHA-256 with the ledger.
 * SQ_ECOMMIT: the disk failed inside COMMIT; `out->id` is set and may exist.
 * Any other error: nothing exists. The ingest is freed in every case.
 */
SQ_MUST_USE enum sq_err sq_ingest_commit(struct sq_ingest *in, const struct sq_submission *s, struct sq_submitted *out, struct sq_error *err);
void sq_ingest_abort(struct sq_ingest *in);  /* frees; removes what was stored; NULL-safe */

/* How many messages of the user that came through the submission socket wait. All roles. */
SQ_MUST_USE enum sq_err sq_queue_open_of(struct sq_queue *q, int64_t uid, int64_t *out, struct sq_error *err);

/* ---- content ------------------------------------------------------- */

/*
 * Append octets [offset, offset+length) of the frozen stream to `out`, in a
 * short read transaction. SQ_ENOENT when content is gone, SQ_ECORRUPT when the
 * stored octets are not as many as the message says.
 */
SQ_MUST_USE enum sq_err sq_queue_read_content(struct sq_queue *q, struct sq_message_id id, uint64_t offset, size_t length, struct sq_buf *out, struct sq_error *err);

/* ---- the runner's side (RUN role, under the runner lock) ------------ */

/*
 * Batches: marks that arrive together are committed together. Between begin
 * and commit every call of this section joins one transaction. `durable`
 * false uses synchronous=NORMAL (progress, samples, sweeps). On an error from
 * any call inside, the batch is rolled back and sq_queue_batch_commit says so.
 */
SQ_MUST_USE enum sq_err sq_queue_batch_begin(struct sq_queue *q, bool durable, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_batch_commit(struct sq_queue *q, struct sq_error *err);

/*
 * After a start: committing → doubt (attempt ended DOUBT), sending → queued
 * (attempt ended LOCAL, due at once), ingests of dead owners swept. Durable.
 */
struct sq_recovered { int doubt, requeued, swept; };
SQ_MUST_USE enum sq_err sq_queue_recover(struct sq_queue *q, int64_t now_ms, struct sq_recovered *out, struct sq_error *err);

/* Candidates: messages with queued recipients due on `route`, ordered by priority, then next try, then id. */
struct sq_candidate {
	struct sq_message_id id;
	uint64_t size;
	uint64_t durable;       /* kept by the far side */
	int64_t submitted_ms;
	int priority;
	int tries;              /* attempts that reached content */
	int tries_day;          /* those of the last 24 hours, as far as they are kept */
	int cuts_day;           /* those of tries_day that the link cut, on the network of the last one */
	int64_t last_try_ms;    /* the last of them, 0: none */
	bool forced;            /* a person wants it tried now (SQ_WAITS_FORCED) */
	int recipients;         /* of it that are due */
};
SQ_MUST_USE enum sq_err sq_queue_due(struct sq_queue *q, const char *route, int64_t now_ms, struct sq_candidate *out, size_t max, size_t *n, struct sq_error *err);
/* The same of messages with an id above `after`, in the order of ids. */
SQ_MUST_USE enum sq_err sq_queue_due_new(struct sq_queue *q, const char *route, struct sq_message_id after, int64_t now_ms, struct sq_candidate *out, size_t max, size_t *n, struct sq_error *err);
/* One message as a candidate, due or not: what the runner goes by. SQ_ENOENT: it is not there. */
SQ_MUST_USE enum sq_err sq_queue_candidate(struct sq_queue *q, struct sq_message_id id, int64_t now_ms, struct sq_candidate *out, struct sq_error *err);

/* The message with the highest id there is; v 0: none. */
SQ_MUST_USE enum sq_err sq_queue_newest(struct sq_queue *q, struct sq_message_id *out, struct sq_error *err);

/* The earliest time at which a message of `route` in doubt has something to resume, INT64_MAX: none. */
SQ_MUST_USE enum sq_err sq_queue_next_doubt(struct sq_queue *q, const char *route, int64_t *out, struct sq_error *err);

/* The earliest time at which a recipient of `route` is due: queued, or in doubt with something to resume. INT64_MAX: none. */
SQ_MUST_USE enum sq_err sq_queue_next_due(struct sq_queue *q, const char *route, int64_t *out, struct sq_error *err);
/* The same of those that are due from `from_ms` on. */
SQ_MUST_USE enum sq_err sq_queue_next_due_from(struct sq_queue *q, const char *route, int64_t from_ms, int64_t *out, struct sq_error *err);

/*
 * Why a queued recipient waits, beside its next try. Stored; numbers never
 * change. LINK: a session failed under it, so that the wait ends with the
 * route's. FORCED is no wait: it is what a flush leaves until the next attempt.
 */
enum sq_waits { SQ_WAITS_OWN = 0, SQ_WAITS_BETTER_LINK = 1, SQ_WAITS_FORCED = 2, SQ_WAITS_LINK = 3, SQ_WAITS_PARTIAL = 4 };

/* The due, unforced recipients of a message wait until next_try_ms. NORMAL. */
SQ_MUST_USE enum sq_err sq_queue_wait(struct sq_queue *q, struct sq_message_id id, enum sq_waits waits, int64_t next_try_ms, int64_t now_ms, struct sq_error *err);
/* What waits on `route` for the reason `waits` is due now; *n: how many recipients. NORMAL. */
SQ_MUST_USE enum sq_err sq_queue_wait_over(struct sq_queue *q, const char *route, enum sq_waits waits, int64_t now_ms, int *n, struct sq_error *err);

/*
 * The first message behind `after` (v 0: of all) with a recipient that is queued or being sent on `route`, by
 * submission: which waits longest. SQ_ENOENT: none.
 */
SQ_MUST_USE enum sq_err sq_queue_first_waiting(struct sq_queue *q, const char *route, struct sq_message_id after, struct sq_message_id *out, int64_t *submitted_ms, struct sq_error *err);

/*
 * Mail that may go by another route: every recipient of it is queued or
 * finished, none in doubt, under way or held; at least one is due but for its
 * link; the server keeps nothing of it. *submitted_ms: of the oldest,
 * INT64_MAX: there is none.
 */
SQ_MUST_USE enum sq_err sq_queue_reroutable(struct sq_queue *q, const char *route, int64_t now_ms, int64_t *submitted_ms, struct sq_error *err);
/*
 * At most `max` such messages, oldest first, submitted by before_ms, are from now on those of
 * route `to`, and due; their octets, ids and history stay. In one transaction; *n: how many.
 */
SQ_MUST_USE enum sq_err sq_queue_reroute(struct sq_queue *q, const char *from, const char *to, int64_t before_ms, int max, int64_t now_ms, int *n,
	struct sq_error *err);

/* Routes by name that have unfinished recipients; calls `each` for every one. */
SQ_MUST_USE enum sq_err sq_queue_busy_routes(struct sq_queue *q, void (*each)(void *arg, const char *route, int64_t n), void *arg, struct sq_error *err);

/* One claimed transaction; strings are heap, released by sq_work_free(). */
struct sq_work {
	struct sq_message_id id;
	struct sq_attempt_id attempt;
	uint64_t size;
	int64_t submitted_ms;
	bool hash_known;
	uint8_t sha256[32];
	char *message_id, *sender, *envid;
	bool envid_is_users;
	enum sq_ret ret;
	uint32_t flags;
	uint32_t n_recipients;        /* ≤ SQ_GROUP_MAX */
	struct sq_work_recipient {
		struct sq_recipient_id id;
		char *address, *orcpt;
		uint8_t notify;
		int epoch;            /* 0 first; +1 at each resend after doubt */
	} *recipients;
	int epoch;
	bool by_hand;                 /* a person asked for this copy */
	bool in_doubt;                /* from sq_queue_claim_doubt() */
	/* what a resume needs; transid NULL: none stored */
	char *transid, *ehlo_name, *login, *address, *store;
	bool retained;                /* the server's promise to remember still holds */
	uint8_t verb;
	uint64_t durable;
};

/*
 * Take up to SQ_GROUP_MAX due queued recipients of one message (same epoch):
 * queued → sending, and open an attempt. `force`: take those whose next try is
 * in the future as well. Groups are deterministic (lowest recipient ids).
 * SQ_ENOENT: nothing of it is due any more; nothing changed.
 */
SQ_MUST_USE enum sq_err sq_queue_claim(struct sq_queue *q, struct sq_message_id id, bool force, const char *network, int64_t now_ms, struct sq_work **out, struct sq_error *err);
void sq_work_free(struct sq_work *w);

/*
 * A message of `route` in doubt whose server can be asked itself, because it
 * offered CHECKPOINT and its TRANSID is stored: open an attempt for all
 * recipients of that transaction. They stay in doubt; sq_queue_envelope()
 * moves them where the server shows that it had accepted nothing, and
 * sq_queue_verdict() by the final reply. Where a person has settled some of
 * them meanwhile the TRANSID is given up: a resume would be for all.
 * SQ_ENOENT: none is due.
 */
SQ_MUST_USE enum sq_err sq_queue_claim_doubt(struct sq_queue *q, const char *route, const char *network, int64_t now_ms, struct sq_work **out, struct sq_error *err);

/* As whom a session spoke; strings are the caller's. */
struct sq_said { const char *ehlo_name, *login; };

/*
 * The envelope's replies (all recipients), TRANSID, verb, address and offset of
 * the attempt, and the EHLO name and login it was said under ("": without a login). Recipients in doubt become
 * sending where the offset shows that their terminator cannot have been
 * processed; with an offset of the whole size they stay in doubt. Durable.
 */
SQ_MUST_USE enum sq_err sq_queue_envelope(struct sq_queue *q, struct sq_attempt_id a, const struct sq_envelope *e, const struct sq_said *said, int64_t now_ms, struct sq_error *err);

/*
 * Intent: those recipients of the attempt that its envelope accepted go
 * sending → committing (those in doubt stay in doubt); the content's hash is stored, or compared with the
 * stored one (SQ_ECORRUPT when it differs; nothing changed). Durable.
 */
SQ_MUST_USE enum sq_err sq_queue_committing(struct sq_queue *q, struct sq_attempt_id a, const uint8_t sha256[32], int64_t now_ms, struct sq_error *err);
/*
 * The same for a message of a window, whose terminator goes out before its envelope is answered: all its recipients.
 * It goes without a TRANSID, so there is nothing to resume any more.
 */
SQ_MUST_USE enum sq_err sq_queue_committing_unasked(struct sq_queue *q, struct sq_attempt_id a, const uint8_t sha256[32], int64_t now_ms, struct sq_error *err);

/*
 * The verdict: each recipient moves to sent (with a ledger row), queued (with
 * next_try_ms), failed, or doubt. `next_try_ms[i]` is used where results[i] is
 * deferred, and where it is doubt for when the server is asked again. What a
 * later try resumes is kept for deferred and doubt, unless v->forget. Ends the attempt with `outcome`. Content whose recipients are all
 * final and reported is removed later by sq_queue_sweep(). Durable.
 */
SQ_MUST_USE enum sq_err sq_queue_verdict(struct sq_queue *q, struct sq_attempt_id a, const struct sq_verdict *v, const int64_t *next_try_ms, enum sq_outcome outcome, int64_t now_ms, struct sq_error *err);

/*
 * The attempt ended without a verdict: its committing recipients → doubt, its
 * sending ones → queued at next_try_ms; those in doubt stay, to be asked about then. `reply` is what the user is told; the
 * outcome stored is DOUBT where any recipient was committing. Durable.
 */
struct sq_attempt_end {
	enum sq_outcome outcome;
	enum sq_phase phase;
	struct sq_reply reply;
	int64_t next_try_ms;
	enum sq_waits waits;    /* why those that are queued again wait: OWN or LINK */
	bool counts;            /* false: offline; not counted as a try */
};
SQ_MUST_USE enum sq_err sq_queue_attempt_end(struct sq_queue *q, struct sq_attempt_id a, const struct sq_attempt_end *end, int64_t now_ms, int *out_doubt, struct sq_error *err);

/*
 * A message broke off on the way. *due: its sender is to be told now, because
 * he was not within the last quiet_ms; that stays due until it is said that he
 * was told. Joins a batch.
 */
SQ_MUST_USE enum sq_err sq_queue_cut(struct sq_queue *q, struct sq_message_id id, int64_t quiet_ms, int64_t now_ms, bool *due, struct sq_error *err);
/* One of those; *cut_ms: when it broke off, until it is told. SQ_ENOENT: none. */
SQ_MUST_USE enum sq_err sq_queue_next_cut(struct sq_queue *q, struct sq_message_id *out, int64_t *cut_ms, struct sq_error *err);
/* He was told. Durable. */
SQ_MUST_USE enum sq_err sq_queue_cut_told(struct sq_queue *q, struct sq_message_id id, struct sq_error *err);

/* Not durable; at most one row a message. */
SQ_MUST_USE enum sq_err sq_queue_progress(struct sq_queue *q, struct sq_attempt_id a, enum sq_phase phase, const struct sq_progress *p, int64_t now_ms, struct sq_error *err);

/* Queued recipients past expires_ms → expired. Durable. Doubt is not expired here. */
SQ_MUST_USE enum sq_err sq_queue_expire(struct sq_queue *q, int64_t now_ms, int *out_n, struct sq_error *err);

/* Earliest expiry of a queued recipient, INT64_MAX: none. */
SQ_MUST_USE enum sq_err sq_queue_next_expiry(struct sq_queue *q, int64_t *out, struct sq_error *err);

/*
 * Reports due: failed or expired recipients for which none was delivered and
 * whose NOTIFY asks for one (not NEVER; default or FAILURE) and doubts not yet
 * told. One message a call: SQ_ENOENT when there is none. Free with sq_message_free().
 * sq_queue_reported() marks those recipients. Durable.
 */
struct sq_message;
SQ_MUST_USE enum sq_err sq_queue_next_report(struct sq_queue *q, struct sq_message **out, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_reported(struct sq_queue *q, struct sq_message_id id, const struct sq_recipient_id *r, size_t n, int64_t now_ms, struct sq_error *err);

/*
 * Housekeeping in slices: content of messages that are final and reported,
 * old attempts, finished messages and ledger rows older than `ledger_ms`,
 * vacuum, checkpoint. Does at most ~4 MB of work; *more tells whether there is
 * something left. Never inside a batch.
 */
SQ_MUST_USE enum sq_err sq_queue_sweep(struct sq_queue *q, int64_t now_ms, int64_t ledger_ms, bool idle, bool *more, struct sq_error *err);

/* ---- messages in doubt ------------------------------------------------ */

/*
 * A message with recipients in doubt and what is being done about it. The
 * row is as old as the doubt: a message that comes into doubt again begins
 * with zeros. Content, state and recipients are read with sq_queue_show().
 */
struct sq_doubt {
	struct sq_message_id id;
	char message_id[1000];
	char submitted_by[24];     /* message.source: "argv", … */
	uint64_t size;
	int64_t submitted_ms, expires_ms;
	bool auto_submitted;
	enum sq_own_duplicates duplicates;
	bool resumable;            /* the server itself can be asked (sq_queue_claim_doubt) */
	int recipients;            /* in doubt */
	int64_t since_ms;          /* the latest cut */
	int64_t usable_ms;         /* for how long the link was usable since then */
	int asked;                 /* answers got */
	int64_t next_ask_ms;       /* 0: not asked yet */
	int negatives;             /* that count, in a row */
	int64_t told_ms;           /* the last notice, the first one included; 0: none yet */
	char source[64];           /* of the last answer, "" before it */
	enum sq_evidence_kind answer;
	char quote[512];
};

/* Messages of `route` in doubt, oldest first; or only `id` where id.v is not 0. RUN and READ. */
SQ_MUST_USE enum sq_err sq_queue_doubts(struct sq_queue *q, const char *route, struct sq_message_id id, void (*each)(void *arg, const struct sq_doubt *d), void *arg, struct sq_error *err);
/* doubt → expired for all recipients of the message in doubt: a report is due. Durable. */
SQ_MUST_USE enum sq_err sq_queue_doubt_expire(struct sq_queue *q, struct sq_message_id id, int64_t now_ms, int *n, struct sq_error *err);
/* Keep usable_ms … quote of the message's doubt. RUN; joins a batch, else NORMAL. */
SQ_MUST_USE enum sq_err sq_queue_doubt_put(struct sq_queue *q, const struct sq_doubt *d, struct sq_error *err);

/* ---- routes and links (runner writes, status reads) ------------------ */

struct sq_link_row {
	char route[65];
	char network[65];          /* fingerprint, "" while unknown */
	char state[8];             /* good fair poor down, or "" before the first contact */
	int64_t since_ms;
	int64_t next_try_ms;       /* the route waits until then; 0: ready */
	char cause[16];            /* outcome name of what it waits for, "" */
	bool stopped;              /* login or certificate: waits for a person, a change, or the slow schedule */
	int64_t failures;          /* in a row */
	int64_t connects, connect_failures, cuts, octets, seconds;
	int64_t rtt_us, goodput_bps;
	int64_t last_ok_ms, last_fail_ms;
	uint32_t caps;
	int64_t size_limit;
	char address[80];
	int reply_code;
	char reply_enhanced[SQ_ENHANCED_MAX];
	char reply_text[SQ_REPLY_TEXT_MAX + 1];
	struct sq_quality quality;
};

/* Read (SQ_OK with a zeroed row but route and network set, when there is none) and write a row (NORMAL). */
SQ_MUST_USE enum sq_err sq_queue_link_get(struct sq_queue *q, const char *route, const char *network, struct sq_link_row *out, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_link_put(struct sq_queue *q, const struct sq_link_row *row, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_links(struct sq_queue *q, void (*each)(void *arg, const struct sq_link_row *row), void *arg, struct sq_error *err);

/*
 * What was seen of a link in a span of at most a minute, for plots. Thinned
 * with age by sq_queue_sweep(): after a day one in ten minutes, after a week
 * one an hour, none after 90 days.
 */
struct sq_link_past {
	char route[65], network[65];
	int64_t at_ms, ms;         /* its end; how long */
	int64_t octets;            /* acknowledged */
	int64_t rtt_us, retransmits;
	int cuts;
};
SQ_MUST_USE enum sq_err sq_queue_link_past_put(struct sq_queue *q, const struct sq_link_past *p, struct sq_error *err);
/* Since `since_ms`, oldest first; `route` NULL: all. */
SQ_MUST_USE enum sq_err sq_queue_link_past(struct sq_queue *q, const char *route, int64_t since_ms, bool (*each)(void *arg, const struct sq_link_past *p), void *arg, struct sq_error *err);

/* The network this machine is on, as the runner saw it last. `id` is its fingerprint, "" where there is no default route. */
struct sq_network {
	char id[65], interface[32];
	int64_t since_ms;
	int64_t portal_ms;         /* since when it asks for a sign-in (captive portal), by the runner that is up; 0: it does not */
};
SQ_MUST_USE enum sq_err sq_queue_network_put(struct sq_queue *q, const struct sq_network *n, struct sq_error *err);
/* Zeroed where none was ever seen. */
SQ_MUST_USE enum sq_err sq_queue_network_get(struct sq_queue *q, struct sq_network *out, struct sq_error *err);

/* What a route has learned: small key and value texts. Heap value or NULL. */
SQ_MUST_USE enum sq_err sq_queue_learn(struct sq_queue *q, const char *route, const char *key, const char *value, int64_t now_ms, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_learned(struct sq_queue *q, const char *route, const char *key, char **out, struct sq_error *err);

/* ---- requests of people ---------------------------------------------- */

enum sq_request_kind {
	SQ_REQUEST_FLUSH = 1, SQ_REQUEST_HOLD, SQ_REQUEST_RELEASE, SQ_REQUEST_REMOVE,
	SQ_REQUEST_RESEND, SQ_REQUEST_SETTLE_SENT, SQ_REQUEST_SETTLE_UNSENT,
	SQ_REQUEST_REPORTED,        /* a delivery report says that the server accepted it: number is the epoch, -1 where unknown; words */
	SQ_REQUEST_REPORTED_FAILED, /* the same, and that delivery failed for `address`: code, enhanced, words */
	SQ_REQUEST_FORGET,          /* the ledger: of message, address, Message-ID (words), older than number ms; what is not given is any */
	SQ_REQUEST_UNDO, SQ_REQUEST_EDIT,
	SQ_REQUEST_RETRY,   /* due now; unlike a flush it moves no route's wait */
};

/* What is to be changed of a message; "" and 0: nothing. */
struct sq_edit {
	int64_t at_ms, deadline_ms;
	bool utf8;                         /* `to` needs SMTPUTF8 */
	char to[SQ_ADDRESS_MAX];           /* a new recipient, qualified */
	char instead_of[SQ_ADDRESS_MAX];   /* whom it replaces; "": the only one that waits */
};

struct sq_request {
	int64_t id;
	enum sq_request_kind kind;
	struct sq_message_id message;  /* 0: all (flush only) */
	char address[SQ_ADDRESS_MAX];  /* "": every recipient */
	int64_t asked_ms;
	int64_t done_ms;               /* 0: not yet */
	bool ok;
	char result[512];              /* a sentence */
	int64_t number;                /* these four as the kind says */
	int code;
	char enhanced[SQ_ENHANCED_MAX];
	char words[1024];
	struct sq_edit edit;           /* EDIT only */
};

/* READ role too; durable. */
SQ_MUST_USE enum sq_err sq_queue_request_add(struct sq_queue *q, enum sq_request_kind kind, struct sq_message_id m, const char *address, int64_t now_ms, int64_t *out_id, struct sq_error *err);
/* The same with all that a request can say; id, done_ms, ok and result are not read. */
SQ_MUST_USE enum sq_err sq_queue_request_put(struct sq_queue *q, const struct sq_request *r, int64_t *out_id, struct sq_error *err);
/* SQ_ENOENT: no such request. */
SQ_MUST_USE enum sq_err sq_queue_request_get(struct sq_queue *q, int64_t id, struct sq_request *out, struct sq_error *err);
/* The oldest not done with an id above `after` (0: of all); SQ_ENOENT: none. RUN. */
SQ_MUST_USE enum sq_err sq_queue_request_next(struct sq_queue *q, int64_t after, struct sq_request *out, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_request_done(struct sq_queue *q, int64_t id, bool ok, const char *result, int64_t now_ms, struct sq_error *err);

/*
 * What a person may do (RUN; durable). Each acts on all recipients of the
 * message, or on the one with `address` (not empty). *n: how many moved.
 * SQ_EPERM with a sentence: the state forbids it ("bob@x is being committed;
 * it can be removed when the server has answered").
 *
 *   hold     queued → held (a recipient being sent is for the runner to cancel first)
 *   release  held → queued, due now
 *   remove   queued, held, doubt → removed
 *   resend   doubt, held → queued with epoch + 1, due now; a copy may arrive twice
 *            and the ledger will say so (unknown_copies, where it was in doubt); failed, expired, sent, removed too while content is there;
 *            a server that recognises duplicates is told that a person asked for it (XRESEND)
 *   settle   doubt → sent (ledger row "settled by hand") or queued (unsent; same epoch)
 *   retry    queued: due now (flush), whatever the link is like; m.v 0: of all messages
 */
SQ_MUST_USE enum sq_err sq_queue_hold(struct sq_queue *q, struct sq_message_id m, const char *address, int64_t now_ms, int *n, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_release(struct sq_queue *q, struct sq_message_id m, const char *address, int64_t now_ms, int *n, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_remove(struct sq_queue *q, struct sq_message_id m, const char *address, int64_t now_ms, int *n, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_resend(struct sq_queue *q, struct sq_message_id m, const char *address, int64_t now_ms, int *n, struct sq_error *err);
/* The same by policy, of those in doubt (nobody asked: a server that recognises duplicates may drop the copy). */
SQ_MUST_USE enum sq_err sq_queue_resend_doubt(struct sq_queue *q, struct sq_message_id m, int64_t now_ms, int *n, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_settle(struct sq_queue *q, struct sq_message_id m, const char *address, bool sent, const char *source, int64_t now_ms, int *n, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_retry(struct sq_queue *q, struct sq_message_id m, int64_t now_ms, int *n, struct sq_error *err);

/* ---- proof of acceptance --------------------------------------------- */

/*
 * What a report says of a message: that the server accepted the copy of this
 * epoch. With an address, that of the transaction which carried it; without
 * one (or with one that is none of ours) only where all doubt of the message
 * belongs to one transaction. RUN; durable.
 *
 *   in doubt, this epoch          → sent, with a ledger row; the one named by `failed` → failed
 *   in doubt or queued again,
 *   an earlier epoch              → sent, with a ledger row of that epoch: no second copy is needed
 *   sent, being sent, … later     stays; a ledger row says that the earlier copy was accepted too
 *   expired in doubt              → sent
 *   anything else                 stays: a report is not believed where there was no doubt
 *
 * What came twice changes nothing the second time.
 */
struct sq_proof {
	struct sq_message_id id;
	int epoch;                 /* -1: not known */
	const char *address;       /* "": none */
	bool failed;               /* `address` got nothing in the end */
	struct sq_reply reply;     /* failed: the reason */
	const char *source;        /* for the ledger: who says so */
};
struct sq_proved { int sent, failed, earlier; };
SQ_MUST_USE enum sq_err sq_queue_prove(struct sq_queue *q, const struct sq_proof *p, int64_t now_ms, struct sq_proved *out, struct sq_error *err);

/*
 * Messages that an ENVID (as reports quote it, not xtext) or a Message-ID
 * (with brackets) names; either may be empty. epoch -1: it does not say which
 * copy. Calls `each` once a message. RUN and READ.
 */
SQ_MUST_USE enum sq_err sq_queue_named(struct sq_queue *q, struct sq_str envid, struct sq_str message_id,
	void (*each)(void *arg, struct sq_message_id id, int epoch), void *arg, struct sq_error *err);
/*
 * Change times and recipients of what is queued or held; content is never
 * touched. Undo takes a message out, all of it or nothing: SQ_EPERM when a
 * recipient does not wait any more, or an attempt came as far as the
 * envelope. RUN; durable.
 */
SQ_MUST_USE enum sq_err sq_queue_edit(struct sq_queue *q, struct sq_message_id m, const struct sq_edit *edit, int *n, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_undo(struct sq_queue *q, struct sq_message_id m, int64_t now_ms, int *n, struct sq_error *err);

/* ---- reading (all roles but SUBMIT) ----------------------------------- */

struct sq_recipient {
	struct sq_recipient_id id;
	char *address, *orcpt;
	enum sq_state state;
	uint8_t notify;
	int epoch;
	int64_t next_try_ms;      /* its own or the route's, whichever is later; 0 where it does not wait */
	enum sq_waits waits;
	int64_t state_ms;         /* since when */
	struct sq_reply reply;    /* last; text is heap, NUL-terminated */
	int64_t durable_octets, acked_octets;
	bool resumable;           /* a transfer of it is stored that the server may go on with */
	int64_t reported_ms;      /* 0: not yet */
	int unknown_copies;       /* earlier copies of which nobody knows whether they were accepted */
};

struct sq_attempt {
	struct sq_attempt_id id;
	char *route;
	int64_t started_ms, ended_ms;  /* 0: running */
	enum sq_phase phase;
	int64_t octets_sent, octets_acked, octets_durable;
	enum sq_outcome outcome;
	struct sq_reply reply;    /* heap text */
};

struct sq_message {
	struct sq_message_id id;
	char *message_id, *sender, *header_from, *subject, *route, *source, *envid;
	uint64_t size;
	bool has_content;
	char sha256[65];          /* hex, "" while unknown */
	int64_t uid, submitted_ms, not_before_ms, expires_ms;
	bool hold;                /* any recipient is held */
	int priority;
	enum sq_ret ret;
	uint32_t flags;
	bool auto_submitted;
	enum sq_own_duplicates duplicates;
	struct sq_recipient *recipients;
	size_t n_recipients;
	struct sq_attempt *attempts; /* only from sq_queue_show() and sq_queue_next_report() */
	size_t n_attempts;
};
void sq_message_free(struct sq_message *m);

/* An id by its text or a unique prefix. SQ_ENOENT, SQ_EAMBIGUOUS (the sentence names some). */
SQ_MUST_USE enum sq_err sq_queue_find(struct sq_queue *q, const char *text, struct sq_message_id *out, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_show(struct sq_queue *q, struct sq_message_id id, struct sq_message **out, struct sq_error *err);

/*
 * Every unfinished message (all of them with `all`), oldest first; the row is valid during the call; each returns false to
 * stop. Read in views of up to 256, and none stands while `each` runs: it may be slow.
 */
SQ_MUST_USE enum sq_err sq_queue_list(struct sq_queue *q, bool all, bool (*each)(void *arg, const struct sq_message *m), void *arg, struct sq_error *err);

/* The same of those with a recipient that is being sent or committed; and of at most `max` that are queued, the soonest next try first. */
SQ_MUST_USE enum sq_err sq_queue_moving(struct sq_queue *q, bool (*each)(void *arg, const struct sq_message *m), void *arg, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_queue_soonest(struct sq_queue *q, int max, bool (*each)(void *arg, const struct sq_message *m), void *arg, struct sq_error *err);

/* Recipients by state, of `id` or (id.v == 0) of all messages. */
SQ_MUST_USE enum sq_err sq_queue_counts(struct sq_queue *q, struct sq_message_id id, int64_t out[SQ_STATE_COUNT], struct sq_error *err);

struct sq_ledger_row {
	const char *message_id, *recipient, *sha256, *route, *provider_id, *source;
	int64_t accepted_ms;
	struct sq_message_id message;
	int epoch;
	int copies;             /* ledger rows with this (Message-ID, recipient): > 1 is "sent twice" */
	int unknown_copies;     /* earlier ones that may have been accepted too */
	struct sq_reply reply;
};
/* What the provider calls a message of ours: into its rows of the ledger that have no such id. NORMAL. */
SQ_MUST_USE enum sq_err sq_queue_provider_id(struct sq_queue *q, const char *message_id, const char *provider_id, struct sq_error *err);
struct sq_ledger_filter { const char *recipient, *message_id; int64_t since_ms; };  /* NULL, 0: any */
SQ_MUST_USE enum sq_err sq_queue_sent(struct sq_queue *q, const struct sq_ledger_filter *f, bool (*each)(void *arg, const struct sq_ledger_row *row), void *arg, struct sq_error *err);

/*
 * Forget what was sent: rows of the ledger, and finished messages with all
 * that belongs to them (of a filter by recipient only those that went to
 * nobody else). What is not finished stays. *n: rows of the ledger, and
 * finished messages that had none. RUN; durable.
 */
struct sq_forget {
	struct sq_message_id message;     /* 0: any */
	const char *recipient, *message_id; /* NULL: any */
	int64_t until_ms;                 /* accepted or finished until then; 0: any */
};
SQ_MUST_USE enum sq_err sq_queue_forget(struct sq_queue *q, const struct sq_forget *f, int *n, struct sq_error *err);

#endif
