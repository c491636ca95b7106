/*
 * Which messages broke off on the way and have yet to be told of: once in a
 * while at most, and over restarts.
 */
#include "db.h"

enum sq_err
sq_queue_cut(struct sq_queue *q, struct sq_message_id id, int64_t quiet_ms, int64_t now_ms, bool *due, struct sq_error *err)
{
	enum sq_err e;
	int changed;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_CUT_NOTE);
		sq_stmt_bind(&s, "iii", id.v, now_ms, quiet_ms);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
		changed = sqlite3_changes(q->db);
	}
	if ((e = sq_tx_commit(&tx, err)) != SQ_OK)
		return e;
	*due = changed > 0;
	return SQ_OK;
}

enum sq_err
sq_queue_next_cut(struct sq_queue *q, struct sq_message_id *out, int64_t *cut_ms, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_CUT_NEXT);

	switch (sq_stmt_step(&s, e)) {
	case SQ_ROW:
		out->v = sq_col(&s, 0);
		*cut_ms = sq_col(&s, 1);
		return SQ_OK;
	case SQ_DONE:
		return sq_error_set(err, SQ_ENOENT, "nothing broke off that is to be told of");
	case SQ_FAILED:
		break;
	}
	return e->code;
}

enum sq_err
sq_queue_cut_told(struct sq_queue *q, struct sq_message_id id, struct sq_error *err)
{
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_CUT_TOLD);
		sq_stmt_bind(&s, "i", id.v);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return sq_tx_commit(&tx, err);
}
