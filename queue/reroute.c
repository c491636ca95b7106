/* Mail that goes by another route than the one it was queued for. When is its caller's business. */
#include "db.h"

enum sq_err
sq_queue_reroutable(struct sq_queue *q, const char *route, int64_t now_ms, int64_t *submitted_ms, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	int64_t number = 0;
	enum sq_step step;
	enum sq_err code;

	*submitted_ms = INT64_MAX;
	if ((code = sq_route_id(q, route, false, &number, err)) != SQ_OK)
		return code == SQ_ENOENT ? SQ_OK : code;
	SQ_STMT(s, q, SQL_REROUTABLE);
	sq_stmt_bind(&s, "iiii", number, now_ms, INT64_MAX, INT64_C(1));
	if ((step = sq_stmt_step(&s, e)) == SQ_ROW)
		*submitted_ms = sq_col(&s, 1);
	return step == SQ_FAILED ? e->code : SQ_OK;
}

/* Ids of what is moved; read before anything is changed under the reader. */
static enum sq_err
find(struct sq_queue *q, int64_t route, int64_t before_ms, int64_t now_ms, int64_t *ids, int max, int *n, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_REROUTABLE);

	sq_stmt_bind(&s, "iiii", route, now_ms, before_ms, (int64_t)max);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW)
		ids[(*n)++] = sq_col(&s, 0);
	return step == SQ_FAILED ? e->code : SQ_OK;
}

static enum sq_err
move(struct sq_queue *q, int64_t id, int64_t route, int64_t now_ms, struct sq_error *err)
{
	enum sq_err e;

	{
		SQ_STMT(s, q, SQL_REROUTE_MESSAGE);
		sq_stmt_bind(&s, "ii", id, route);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	SQ_STMT(s, q, SQL_REROUTE_RECIPIENTS);
	sq_stmt_bind(&s, "iii", id, route, now_ms);
	return sq_stmt_run(&s, err);
}

enum sq_err
sq_queue_reroute(struct sq_queue *q, const char *from, const char *to, int64_t before_ms, int max, int64_t now_ms, int *n, struct sq_error *err)
{
	SQ_CLEANUP(sq_freep) int64_t *ids = calloc((size_t)max, sizeof(*ids));
	int64_t old = 0, new = 0;
	enum sq_err e;
	SQ_TX(tx);

	*n = 0;
	if (!ids)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK)
		return e;
	if ((e = sq_route_id(q, from, false, &old, err)) != SQ_OK)
		return e == SQ_ENOENT ? sq_tx_commit(&tx, err) : e;
	if ((e = sq_route_id(q, to, true, &new, err)) != SQ_OK || (e = find(q, old, before_ms, now_ms, ids, max, n, err)) != SQ_OK)
		return e;
	for (int i = 0; i < *n; i++)
		if ((e = move(q, ids[i], new, now_ms, err)) != SQ_OK)
			return e;
	return sq_tx_commit(&tx, err);
}
