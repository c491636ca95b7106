/*
 * Forgetting: rows of the ledger and what is kept of finished messages. The
 * message with the largest id keeps an empty row, because ids must not come
 * back.
 */
#include "db.h"

static enum sq_err
one(struct sq_queue *q, enum sq_sql what, int64_t id, struct sq_error *err)
{
	SQ_STMT(s, q, what);

	sq_stmt_bind(&s, "i", id);
	return sq_stmt_run(&s, err);
}

/* The next finished message that the filter names; 0: none. */
static enum sq_err
next(struct sq_queue *q, const struct sq_forget *f, int64_t *id, bool *stored, bool *last, bool *in_ledger, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_FORGET_MESSAGE);

	sq_stmt_bind(&s, "izzii", f->message.v, f->recipient, f->message_id, f->until_ms, *id);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	*id = step == SQ_ROW ? sq_col(&s, 0) : 0;
	*stored = step == SQ_ROW && sq_col(&s, 1) != 0;
	*last = step == SQ_ROW && sq_col(&s, 2) != 0;
	*in_ledger = step == SQ_ROW && sq_col(&s, 3) != 0;
	return SQ_OK;
}

static enum sq_err
forget_message(struct sq_queue *q, int64_t id, bool stored, bool last, struct sq_error *err)
{
	static const enum sq_sql parts[] = { SQL_DELETE_RECIPIENTS, SQL_DELETE_ATTEMPTS, SQL_DELETE_TXNS, SQL_DOUBT_DELETE };
	enum sq_err e = SQ_OK;

	/* Content that was not swept yet goes as that of a dead ingest does. */
	if (stored && ((e = one(q, SQL_MESSAGE_UNSTORED, id, err)) != SQ_OK || (e = one(q, SQL_INGEST_ADD, id, err)) != SQ_OK))
		return e;
	for (size_t i = 0; e == SQ_OK && i < SQ_LEN(parts); i++)
		e = one(q, parts[i], id, err);
	return e == SQ_OK ? one(q, last ? SQL_FORGET_LAST : SQL_DELETE_MESSAGE, id, err) : e;
}

enum sq_err
sq_queue_forget(struct sq_queue *q, const struct sq_forget *f, int *n, struct sq_error *err)
{
	int64_t id = 0;
	bool stored, last, in_ledger;
	int found = 0;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK)
		return e;
	for (;;) {
		if ((e = next(q, f, &id, &stored, &last, &in_ledger, err)) != SQ_OK)
			return e;
		if (id == 0)
			break;
		found += !in_ledger;
		if ((e = forget_message(q, id, stored, last, err)) != SQ_OK)
			return e;
	}
	{
		SQ_STMT(s, q, SQL_FORGET);
		sq_stmt_bind(&s, "izzi", f->message.v, f->recipient, f->message_id, f->until_ms);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
		found += sqlite3_changes(q->db);
	}
	if ((e = sq_tx_commit(&tx, err)) != SQ_OK)
		return e;
	*n = found;
	return SQ_OK;
}
