/*
 * Inside the queue only: the handle, borrowed statements, transactions, and
 * the small helpers that the queue's files share.
 */
#ifndef SENDQ_QUEUE_DB_H
#define SENDQ_QUEUE_DB_H

#include <sqlite3.h>

#include <sendq/buf.h>
#include <sendq/queue.h>

#include "sql.h"

enum {
	SQ_APPLICATION_ID = 0x736e6471,
	SQ_CHUNK = 256 * 1024,          /* octets in a content row, but for the last */
	SQ_CHUNK_BITS = 20,             /* content.id = message << 20 | chunk */
	SQ_ATTEMPT_BITS = 20,
	SQ_FIRST_ID = 32768,            /* 1000 in base 32: ids have four characters from the first */
	SQ_SLICE = 4 * 1024 * 1024,     /* octets of content deleted in one transaction */
	SQ_PRIORITY_MAX = 100,
};

struct sq_queue {
	sqlite3 *db;            /* NULL after the disk failed inside a commit */
	char *path;
	enum sq_queue_role role;
	int64_t busy_until_ns;  /* deadline of the wait for the lock that is under way */
	int waiting_fd;         /* by which it is said that we wait; -1: not opened yet, or it cannot be */
	bool full;              /* synchronous is FULL */
	const char *writer;     /* who opened the transaction, NULL: none is open */
	bool batch;
	enum sq_err batch_failed;
	int wal_frames;         /* as of our last commit */
	bool restricted;        /* to the messages of `only_uid` */
	int64_t only_uid;
	struct {
		sqlite3_stmt *st;
		const char *user;
	} slot[SQL_COUNT];
};

/* ---- statements ---- */

/*
 * A statement is borrowed by name and goes back at the end of the scope
 * (reset, bindings cleared). Borrowing it twice is a bug. Failures of
 * preparing and binding are kept and come out of the step.
 */
struct sq_stmt {
	struct sq_queue *q;
	sqlite3_stmt *st;
	enum sq_sql id;
	int rc;
};
#define SQ_STMT(name, q, id) SQ_CLEANUP(sq_stmt_return) struct sq_stmt name = sq_stmt_borrow((q), (id), __func__)

enum sq_step { SQ_ROW, SQ_DONE, SQ_FAILED };

struct sq_stmt sq_stmt_borrow(struct sq_queue *q, enum sq_sql id, const char *user);
void sq_stmt_return(struct sq_stmt *s);

/*
 * Bind parameters 1…: 'i' int64_t, 't' struct sq_str as text, 'z' const char *
 * as text, 'b' const void *, size_t as blob (NULL pointer: NULL), 'd' double. Text and
 * blobs must outlive the statement's scope.
 */
void sq_stmt_bind(struct sq_stmt *s, const char *kinds, ...);
void sq_stmt_again(struct sq_stmt *s);  /* reset for another round of bind and step */
enum sq_step sq_stmt_step(struct sq_stmt *s, struct sq_error *err);  /* on SQ_FAILED err->code is set: err must not be NULL */
enum sq_err sq_stmt_run(struct sq_stmt *s, struct sq_error *err);    /* to the end, rows ignored */

static inline double sq_col_real(struct sq_stmt *s, int i) { return sqlite3_column_double(s->st, i); }
static inline int64_t sq_col(struct sq_stmt *s, int i) { return sqlite3_column_int64(s->st, i); }
struct sq_str sq_col_str(struct sq_stmt *s, int i);      /* valid until the next step */
char *sq_col_dup(struct sq_stmt *s, int i);              /* heap, NULL: memory */

/* The first column of the only row of a statement without parameters; 0 when there is no row. */
SQ_MUST_USE enum sq_err sq_db_int(struct sq_queue *q, enum sq_sql id, int64_t *out, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_db_exec(struct sq_queue *q, const char *sql, struct sq_error *err);

/* Fill *err from the handle's last error; returns its code. */
enum sq_err sq_db_error(struct sq_queue *q, int rc, const char *what, struct sq_error *err);

/* ---- transactions ---- */

/*
 * Leaves by commit or, at the end of the scope, by rollback. Inside a batch
 * it joins: commit does nothing, and leaving without commit spoils the batch
 * if something was changed.
 */
struct sq_tx {
	struct sq_queue *q;
	bool joined, reading;
	bool submission;       /* wants SQ_ECOMMIT told apart from SQ_EIO */
	int64_t changes;
};
#define SQ_TX(name) SQ_CLEANUP(sq_tx_leave) struct sq_tx name = { 0 }

SQ_MUST_USE enum sq_err sq_tx_begin(struct sq_tx *tx, struct sq_queue *q, bool durable, const char *who, struct sq_error *err);
/* One consistent view for several reads; joins whatever transaction is open. */
SQ_MUST_USE enum sq_err sq_tx_read(struct sq_tx *tx, struct sq_queue *q, const char *who, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_tx_commit(struct sq_tx *tx, struct sq_error *err);
void sq_tx_leave(struct sq_tx *tx);

/* Errors are always reported somewhere: `err`, or a scratch one where the caller passed NULL. */
#define SQ_ERR(err) ((err) ? (err) : &(struct sq_error){ 0 })

/* ---- shared between files ---- */

int sq_migrate_latest(void);
SQ_MUST_USE enum sq_err sq_migrate(struct sq_queue *q, struct sq_error *err);

/* Is this statfs type a network file system? Its name, or NULL. */
const char *sq_db_network_fs(long type);

SQ_MUST_USE enum sq_err sq_db_checkpoint(struct sq_queue *q, bool idle, struct sq_error *err);

int64_t sq_hash64(struct sq_str s);              /* stored: never changes */
bool sq_address_eq(struct sq_str a, struct sq_str b); /* the domain without case */
int sq_address_cmp(struct sq_str a, struct sq_str b);

/* The number of a route. SQ_ENOENT (err untouched) unless `make`, which needs a transaction. */
/*
 * content.c: say that this process waits for the write lock, or no more. Whoever writes a large
 * message pauses between its chunks only where somebody says so.
 */
void sq_queue_waits(struct sq_queue *q, bool waits);

SQ_MUST_USE enum sq_err sq_route_id(struct sq_queue *q, const char *name, bool make, int64_t *out, struct sq_error *err);

/* list.c: may this handle know of the message? SQ_ENOENT when it is somebody else's. */
SQ_MUST_USE enum sq_err sq_message_visible(struct sq_queue *q, struct sq_message_id id, struct sq_error *err);

/* state.c: the only writer of recipient.state. */
struct sq_move {
	struct sq_recipient_id id;
	enum sq_state from, to;
	uint8_t notify;
	int64_t next_try_ms;   /* used where `to` is queued */
	enum sq_waits waits;   /* so */
	int64_t now_ms;
};
bool sq_state_may(enum sq_state from, enum sq_state to);
SQ_MUST_USE enum sq_err sq_state_move(struct sq_queue *q, const struct sq_move *m, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_state_reply(struct sq_queue *q, struct sq_recipient_id id, const struct sq_reply *r, struct sq_error *err);
/* Mark the message as done where nothing of it is open, as open otherwise. */
SQ_MUST_USE enum sq_err sq_state_settle_message(struct sq_queue *q, struct sq_message_id id, int64_t now_ms, struct sq_error *err);

/* ledger.c */
struct sq_ledger_new {
	struct sq_recipient_id recipient;
	int64_t accepted_ms;
	struct sq_str provider_id;
	const char *source;
	const struct sq_reply *reply;
	bool earlier;          /* the copy of `epoch`, not the recipient's latest */
	int epoch;
};
SQ_MUST_USE enum sq_err sq_ledger_add(struct sq_queue *q, const struct sq_ledger_new *n, struct sq_error *err);

/* attempt.c: close an attempt's row and thin the history of its message. */
struct sq_attempt_close {
	struct sq_attempt_id id;
	enum sq_phase phase;     /* the later of this and the stored one is kept */
	enum sq_outcome outcome;
	const struct sq_reply *reply;
	int64_t octets;          /* handed and acknowledged; -1: as last told */
	bool counts;
	int64_t now_ms;
};
SQ_MUST_USE enum sq_err sq_attempt_close(struct sq_queue *q, const struct sq_attempt_close *c, struct sq_error *err);
static inline int64_t sq_attempt_message(struct sq_attempt_id a) { return a.v >> SQ_ATTEMPT_BITS; }

/* The recipients of an attempt that are still with it (sending, committing, or in doubt and being asked about). Heap. */
struct sq_member {
	struct sq_recipient_id id;
	enum sq_state state;
	uint8_t notify;
	bool accepted;
};
SQ_MUST_USE enum sq_err sq_attempt_members(struct sq_queue *q, struct sq_attempt_id a, struct sq_member **out, size_t *n, struct sq_error *err);

/* content.c: remove up to SQ_SLICE octets of content; *left tells whether some remain. Inside a transaction. */
SQ_MUST_USE enum sq_err sq_content_delete(struct sq_queue *q, int64_t id, bool *left, struct sq_error *err);
SQ_MUST_USE enum sq_err sq_ingest_sweep(struct sq_queue *q, int *out_swept, bool *more, struct sq_error *err);

#endif
