/*
 * The store: store.db (who sent what, how far, and how it ended) and spool/,
 * where content lies, one file for each session that added to it. What
 * store.c, transaction.c, settle.c and admin.c share. All SQL of the gateway
 * stands in these.
 *
 * Whoever has the number in txn.owner has the transaction. A resume fixes how
 * much of the older session's file counts and writes a new number, in one
 * commit: whatever the older session still writes, counts or ends after that
 * is void.
 */
#ifndef GATEWAY_STORE_H
#define GATEWAY_STORE_H

#include "gateway.h"

#include <sqlite3.h>

struct gw_store {
	sqlite3 *db;
	int locks;                 /* a byte of this file is held while a content is settled */
	int spool;                 /* directory */
	int mark;                  /* what tells a store that was put back from a backup */
	char id[37];
	const struct gw_limits *limits;
	bool inside, lazy;         /* lazy: commits are not fsynced */
};

/* ---- store.c */

/*
 * Open <dir>/store.db, making it where it is missing. Never across fork.
 * SQ_EBUSY, SQ_EIO, SQ_ECORRUPT, SQ_ENEWER.
 */
SQ_MUST_USE enum sq_err gw_store_open(const char *dir, const struct gw_limits *limits, struct gw_store **out,
    struct sq_error *err);
void gw_store_free(struct gw_store *s);
void gw_store_freep(struct gw_store **s);
/*
 * Once at the start. A store that is older than what was written beside it
 * (restored from a backup) or has lost its mark gets a new id, and its
 * interrupted transactions go: nobody can know whether they were delivered
 * after the copy was made.
 */
SQ_MUST_USE enum sq_err gw_store_check_mark(struct gw_store *s, struct sq_error *err);

#define STMT SQ_CLEANUP(gw_stmt_freep) sqlite3_stmt *
void gw_stmt_freep(sqlite3_stmt **st);

/*
 * Run one statement. `types` has a letter for each ?: i (int64_t), s (char *,
 * NULL is NULL). With `row` NULL rows are passed over;
 * else *row stands on the first row, or is NULL when there is none; the caller
 * finalizes it.
 */
SQ_MUST_USE enum sq_err gw_sql(struct gw_store *s, sqlite3_stmt **row, struct sq_error *err, const char *sql,
    const char *types, ...);
/* The same for what must change a row: SQ_EPERM when there was none. */
#define gw_changed(s) (sqlite3_changes((s)->db) > 0 ? SQ_OK : SQ_EPERM)

/* BEGIN IMMEDIATE. GW_LAZY: a crash of the machine may undo the commit. */
enum gw_durability { GW_DURABLE, GW_LAZY };
SQ_MUST_USE enum sq_err gw_store_lock(struct gw_store *s, enum gw_durability how, struct sq_error *err);
/* Commit when all went well so far (e), else undo; the first error is the one that counts. */
SQ_MUST_USE enum sq_err gw_store_end(struct gw_store *s, enum sq_err e, struct sq_error *err);

/* Text of a column, cut to fit. */
void gw_column(sqlite3_stmt *row, int at, char *out, size_t room);

/* ---- spool.c */

/* What has been seen of a content, over all its octets: nothing of it is read twice. */
struct gw_seen {
	struct evp_md_ctx_st *md;
	struct sq_buf head;        /* the header block, as far as it is kept */
	bool head_done, bare;      /* bare: a CR or LF that is no line end */
	char last;
};

SQ_MUST_USE enum sq_err gw_seen_init(struct gw_seen *s, struct sq_error *err);
void gw_seen_fini(struct gw_seen *s);
SQ_MUST_USE enum sq_err gw_seen_take(void *seen, const char *p, size_t n, struct sq_error *err);
/* SHA-256 of what was seen so far, in hex. */
SQ_MUST_USE enum sq_err gw_seen_hash(const struct gw_seen *s, char out[65], struct sq_error *err);
/* The value of a field of the header block, on one line; "" when it is not there. */
void gw_seen_field(const struct gw_seen *s, const char *name, char *out, size_t room);

enum { GW_FILE_NAME = 24 };

/* A new file in the spool, or one without a name. */
SQ_MUST_USE enum sq_err gw_spool_create(struct gw_store *s, const char *name, int *out, struct sq_error *err);
SQ_MUST_USE enum sq_err gw_spool_anonymous(struct gw_store *s, int *out, struct sq_error *err);
/* What an ended session left in a file: durable on return, cut to whole lines with `lines`. 0 where it is missing. */
SQ_MUST_USE enum sq_err gw_spool_settle(struct gw_store *s, const char *name, bool lines, int64_t *out,
    struct sq_error *err);
/* Hand the first `octets` of a file to `take`. SQ_ECORRUPT when it is shorter. */
SQ_MUST_USE enum sq_err gw_spool_read(int fd, int64_t octets, gw_reader *take, void *ctx, struct sq_error *err);
void gw_spool_remove(struct gw_store *s, const char *name);

/* ---- transaction.c */

struct gw_txn {
	int64_t id;                /* 0: not in the store */
	int64_t owner;             /* this session's claim: random, so that a voided one fits no row */
	int64_t octets;            /* of content, this session's included */
	enum gw_verb verb;
	bool durable;              /* the row and the file's name are */
	bool complete;             /* its end was seen: nothing can be added */
	bool settled;              /* its verdict is stored */
	bool resend;
	char name[33], sha256[65];
	char file[GW_FILE_NAME];   /* of this session; "" before content */
};

/*
 * Find the transaction and take it over; an older session that is still reading what its link had carried is
 * given up to 5 s for it, 200 ms where nothing more comes in. GW_FRESH: there is none, *out is empty.
 * GW_REFUSED: parameters differ.
 */
SQ_MUST_USE enum sq_err gw_txn_take(struct gw_store *s, const struct gw_envelope *env, enum gw_found *found,
    struct gw_txn *out, struct sq_error *err);
/* SQ_ENOSPC when this user or all of them have no room for so much more. */
SQ_MUST_USE enum sq_err gw_store_quota(struct gw_store *s, const char *auth, int64_t more, bool another,
    struct sq_error *err);
/* Put a fresh one into the store. SQ_EPERM: somebody else's has come meanwhile. */
SQ_MUST_USE enum sq_err gw_txn_create(struct gw_store *s, const struct gw_envelope *env, const struct gw_rcpt *rcpt,
    size_t rcpts, struct gw_txn *t, struct sq_error *err);
/* Give this session a file of its own in the spool. */
SQ_MUST_USE enum sq_err gw_txn_segment(struct gw_store *s, struct gw_txn *t, int *fd, struct sq_error *err);
/* Count what is durable in the file by now. SQ_EPERM: not ours any more. */
SQ_MUST_USE enum sq_err gw_txn_count(struct gw_store *s, struct gw_txn *t, const struct gw_seen *seen,
    struct sq_error *err);
SQ_MUST_USE enum sq_err gw_txn_recipients(struct gw_store *s, int64_t id, struct gw_rcpt **out, size_t *n,
    struct sq_error *err);
/* Its first `octets`, from all the files. SQ_ECORRUPT. */
SQ_MUST_USE enum sq_err gw_txn_read(struct gw_store *s, int64_t id, int64_t octets, gw_reader *take, void *ctx,
    struct sq_error *err);
/* The body goes, and the row too unless its verdict is to be remembered. */
void gw_txn_drop(struct gw_store *s, const struct gw_txn *t);
/* Remove a transaction whole, whoever has it: its session finds it gone. SQ_ENOENT. */
SQ_MUST_USE enum sq_err gw_txn_remove(struct gw_store *s, int64_t id, struct sq_error *err);
/* Remove what is too old, and files that no row knows. */
SQ_MUST_USE enum sq_err gw_store_sweep(struct gw_store *s, struct sq_error *err);

/* Duplicates that were set aside are kept for people to look at, in a quarter of a user's quota. */
SQ_MUST_USE enum sq_err gw_copy_has_room(struct gw_store *s, const char *auth, int64_t octets, bool *out,
    struct sq_error *err);
/* Keep the content of a file without a name as a duplicate. */
SQ_MUST_USE enum sq_err gw_copy_keep(struct gw_store *s, const struct gw_envelope *env, const struct gw_rcpt *rcpt,
    size_t rcpts, const struct gw_txn *t, int fd, const char *message_id, const char *verdict, struct sq_error *err);

/* ---- settle.c */

struct gw_settling {
	struct gw_store *store;
	struct gw_backend *backend;
	const struct gw_envelope *env;
	struct gw_txn *txn;
	const struct gw_seen *seen;
	struct gw_rcpt *rcpt;
	size_t rcpts;
	const char *trace;
	int anonymous;             /* the content's file where the store has none; else -1 */
	enum sq_err uncommitted;   /* why the backend was not to have it */
};

/* The end of a message: duplicates set aside, the rest delivered once, the verdict stored. */
SQ_MUST_USE enum sq_err gw_settle(struct gw_settling *m, struct gw_reply *verdict, struct sq_error *err);

#endif
