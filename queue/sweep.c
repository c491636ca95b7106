/*
 * Housekeeping in slices: content of messages that need it no longer, dead
 * ingests, old rows, free pages, the log. Each slice is small, so that no
 * submission waits for it. It never removes what a recipient still needs, and
 * never the message with the largest id: ids must not come back.
 */
#include "db.h"

enum { MESSAGES_A_SLICE = 64, FREE_PAGES_KEPT = 1024 };
#define DAY_MS (24 * 3600 * INT64_C(1000))
static const int64_t request_ms = DAY_MS;

static enum sq_err
first_id(struct sq_queue *q, enum sq_sql id, const char *kinds, int64_t bound, int64_t *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, id);

	sq_stmt_bind(&s, kinds, bound);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	*out = step == SQ_ROW ? sq_col(&s, 0) : 0;
	return SQ_OK;
}

static enum sq_err
with_id(struct sq_queue *q, enum sq_sql id, int64_t value, struct sq_error *err)
{
	SQ_STMT(s, q, id);

	sq_stmt_bind(&s, "i", value);
	return sq_stmt_run(&s, err);
}

/* At most SQ_SLICE octets. Reads first: an idle queue takes no write lock. */
static enum sq_err
sweep_content(struct sq_queue *q, bool *more, struct sq_error *err)
{
	int64_t id = 0;
	bool left = false;
	enum sq_err e = first_id(q, SQL_SWEEP_CONTENT, "", 0, &id, err);

	if (e != SQ_OK || id == 0)
		return e;

	SQ_TX(tx);
	/* Again under the lock: a person may have asked for another copy. */
	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK || (e = first_id(q, SQL_SWEEP_CONTENT, "", 0, &id, err)) != SQ_OK)
		return e;
	for (int i = 0; id != 0 && i < MESSAGES_A_SLICE && !left; i++) {
		if ((e = with_id(q, SQL_MESSAGE_UNSTORED, id, err)) != SQ_OK || (e = sq_content_delete(q, id, &left, err)) != SQ_OK)
			return e;
		/* Half of it is gone: from now on it is no content any more, the rest goes as a dead ingest's does. */
		if (left && (e = with_id(q, SQL_INGEST_ADD, id, err)) != SQ_OK)
			return e;
		if ((e = first_id(q, SQL_SWEEP_CONTENT, "", 0, &id, err)) != SQ_OK)
			return e;
	}
	*more = *more || left || id != 0;
	return sq_tx_commit(&tx, err);
}

static enum sq_err
sweep_messages(struct sq_queue *q, int64_t before_ms, bool *more, struct sq_error *err)
{
	static const enum sq_sql all[] = { SQL_DELETE_RECIPIENTS, SQL_DELETE_ATTEMPTS, SQL_DELETE_TXNS, SQL_DOUBT_DELETE, SQL_DELETE_MESSAGE };
	int64_t id = 0;
	enum sq_err e = first_id(q, SQL_SWEEP_MESSAGE, "i", before_ms, &id, err);

	if (e != SQ_OK || id == 0)
		return e;

	SQ_TX(tx);
	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK || (e = first_id(q, SQL_SWEEP_MESSAGE, "i", before_ms, &id, err)) != SQ_OK)
		return e;
	for (int i = 0; id != 0 && i < MESSAGES_A_SLICE; i++) {
		for (size_t k = 0; k < SQ_LEN(all); k++)
			if ((e = with_id(q, all[k], id, err)) != SQ_OK)
				return e;
		if ((e = first_id(q, SQL_SWEEP_MESSAGE, "i", before_ms, &id, err)) != SQ_OK)
			return e;
	}
	*more = *more || id != 0;
	return sq_tx_commit(&tx, err);
}

/* Rows whose table is in order of age: one look at the oldest tells whether there is anything to do. */
static enum sq_err
sweep_old(struct sq_queue *q, enum sq_sql oldest, enum sq_sql del, int64_t before_ms, bool *more, struct sq_error *err)
{
	int64_t id = 0;
	enum sq_err e = first_id(q, oldest, "i", before_ms, &id, err);

	if (e != SQ_OK || id == 0)
		return e;

	SQ_TX(tx);
	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK || (e = with_id(q, del, before_ms, err)) != SQ_OK ||
	    (e = first_id(q, oldest, "i", before_ms, &id, err)) != SQ_OK)
		return e;
	*more = *more || id != 0;
	return sq_tx_commit(&tx, err);
}

/* Samples of links: fewer the older. The table is in order of time: one look tells whether any is old. */
static enum sq_err
thin_past(struct sq_queue *q, int64_t now_ms, struct sq_error *err)
{
	int64_t old = 0;
	enum sq_err e = first_id(q, SQL_LINK_PAST_OLDEST, "i", now_ms - DAY_MS, &old, err);

	if (e != SQ_OK || old == 0)
		return e;

	SQ_TX(tx);
	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_LINK_PAST_THIN);
		sq_stmt_bind(&s, "iii", now_ms - 90 * DAY_MS, now_ms - DAY_MS, now_ms - 7 * DAY_MS);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return sq_tx_commit(&tx, err);
}

static enum sq_err
give_back_pages(struct sq_queue *q, bool idle, bool *more, struct sq_error *err)
{
	int64_t free_pages = 0;
	enum sq_err e;

	if ((e = sq_db_int(q, SQL_FREE_PAGES, &free_pages, err)) != SQ_OK)
		return e;
	/* Some are kept: the next message takes them. */
	if (!idle || free_pages <= FREE_PAGES_KEPT)
		return SQ_OK;

	SQ_TX(tx);
	SQ_STMT(s, q, SQL_VACUUM_SLICE);
	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK || (e = sq_stmt_run(&s, err)) != SQ_OK)
		return e;
	sq_stmt_again(&s);
	*more = *more || free_pages - 256 > FREE_PAGES_KEPT;
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_sweep(struct sq_queue *q, int64_t now_ms, int64_t ledger_ms, bool idle, bool *more, struct sq_error *err)
{
	int64_t old_ms = now_ms - ledger_ms;
	int swept = 0;
	bool left = false;
	enum sq_err e;

	if (q->batch)
		sq_bug("a sweep inside a batch");
	if ((e = sq_ingest_sweep(q, &swept, &left, err)) != SQ_OK ||
	    (!left && (e = sweep_content(q, &left, err)) != SQ_OK) ||
	    (e = sweep_messages(q, old_ms, &left, err)) != SQ_OK ||
	    (e = sweep_old(q, SQL_LEDGER_OLDEST, SQL_SWEEP_LEDGER, old_ms, &left, err)) != SQ_OK ||
	    (e = sweep_old(q, SQL_REQUEST_OLDEST, SQL_SWEEP_REQUESTS, now_ms - request_ms, &left, err)) != SQ_OK ||
	    (e = thin_past(q, now_ms, err)) != SQ_OK ||
	    (e = give_back_pages(q, idle, &left, err)) != SQ_OK ||
	    (e = sq_db_checkpoint(q, idle && !left, err)) != SQ_OK)
		return e;
	*more = left;
	return SQ_OK;
}
