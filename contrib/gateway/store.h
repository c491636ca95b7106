/*
 * Inside the store: what store.c (transactions), settle.c (the end of one)
 * and admin.c (the people's commands) share. All SQL of the gateway stands in
 * these three.
 */
#ifndef GATEWAY_STORE_H
#define GATEWAY_STORE_H

#include "gateway.h"

#include <sqlite3.h>

struct gw_store {
	sqlite3 *db;
	int locks;                 /* a byte of this file is held while a content is settled */
	char id[37];
	const struct gw_limits *limits;
	const char *maildir;
	bool inside;
};

#define STMT SQ_CLEANUP(gw_stmt_freep) sqlite3_stmt *
void gw_stmt_freep(sqlite3_stmt **st);

/*
 * Run one statement. `types` has a letter for each ?: i (int64_t), s (char *,
 * NULL is NULL), b (pointer, size_t). With `row` NULL rows are passed over;
 * else *row stands on the first row, or is NULL when there is none; the caller
 * finalizes it.
 */
SQ_MUST_USE enum sq_err gw_sql(struct gw_store *s, sqlite3_stmt **row, struct sq_error *err, const char *sql,
    const char *types, ...);

/* BEGIN IMMEDIATE; COMMIT; ROLLBACK when one is open. */
SQ_MUST_USE enum sq_err gw_store_lock(struct gw_store *s, struct sq_error *err);
SQ_MUST_USE enum sq_err gw_store_commit(struct gw_store *s, struct sq_error *err);
/* Commit when all went well so far (e), else undo; the first error is the one that counts. */
SQ_MUST_USE enum sq_err gw_store_end(struct gw_store *s, enum sq_err e, struct sq_error *err);
void gw_store_rollback(struct gw_store *s);

/* SQ_EPERM when the transaction is no longer this session's. */
SQ_MUST_USE enum sq_err gw_store_owned(struct gw_store *s, const struct gw_txn *txn, struct sq_error *err);

typedef enum sq_err gw_store_reader(void *ctx, const char *p, size_t n, struct sq_error *err);
/* Hand the stored octets to `take`, in order. SQ_ECORRUPT when they are not `octets` in number. */
SQ_MUST_USE enum sq_err gw_store_read(struct gw_store *s, int64_t id, int64_t octets, gw_store_reader *take, void *ctx,
    struct sq_error *err);
/* SHA-256 of them as hex. */
SQ_MUST_USE enum sq_err gw_store_hash(struct gw_store *s, int64_t id, int64_t octets, char out[65],
    struct sq_error *err);

#endif
