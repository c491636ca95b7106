/*
 * Over all routes: which have work, and what has expired. It reads no clock.
 */
#include "db.h"

enum { COUNT_MAX = 1000 };

struct route_name {
	int64_t id;
	char *name;
};

struct routes {
	struct route_name *v;
	size_t n;
};

static void
routes_fini(struct routes *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->v[i].name);
	free(r->v);
}

static enum sq_err
routes_load(struct sq_queue *q, struct routes *r, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_ROUTE_EACH);

	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		struct route_name *more = reallocarray(r->v, r->n + 1, sizeof(*more));

		if (!more)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		r->v = more;
		r->v[r->n] = (struct route_name){ sq_col(&s, 0), sq_col_dup(&s, 1) };
		if (!r->v[r->n].name)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		r->n++;
	}
	return step == SQ_DONE ? SQ_OK : e->code;
}

static enum sq_err
route_open(struct sq_queue *q, int64_t route, int64_t *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_ROUTE_OPEN);

	*out = 0;
	for (int64_t state = SQ_STATE_QUEUED; !sq_state_is_final((enum sq_state)state); state++) {
		sq_stmt_again(&s);
		sq_stmt_bind(&s, "iii", route, state, (int64_t)COUNT_MAX);
		if (sq_stmt_step(&s, e) != SQ_ROW)
			return e->code;
		*out += sq_col(&s, 0);
	}
	return SQ_OK;
}

enum sq_err
sq_queue_busy_routes(struct sq_queue *q, void (*each)(void *arg, const char *route, int64_t n), void *arg, struct sq_error *err)
{
	SQ_CLEANUP(routes_fini) struct routes r = { 0 };
	enum sq_err e = routes_load(q, &r, err);

	for (size_t i = 0; e == SQ_OK && i < r.n; i++) {
		int64_t n;

		if ((e = route_open(q, r.v[i].id, &n, err)) == SQ_OK && n > 0)
			each(arg, r.v[i].name, n);
	}
	return e;
}

/* The earliest expiry on the route, where it is earlier than *next. */
static enum sq_err
route_expiry(struct sq_queue *q, int64_t route, int64_t *next, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_NEXT_EXPIRY);

	sq_stmt_bind(&s, "i", route);
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return e->code;
	if (sqlite3_column_type(s.st, 0) != SQLITE_NULL && sq_col(&s, 0) < *next)
		*next = sq_col(&s, 0);
	return SQ_OK;
}

enum sq_err
sq_queue_next_expiry(struct sq_queue *q, int64_t *out, struct sq_error *err)
{
	SQ_CLEANUP(routes_fini) struct routes r = { 0 };
	int64_t next = INT64_MAX;
	enum sq_err e = routes_load(q, &r, err);

	for (size_t i = 0; e == SQ_OK && i < r.n; i++)
		e = route_expiry(q, r.v[i].id, &next, err);
	if (e == SQ_OK)
		*out = next;
	return e;
}

static enum sq_err
expire_route(struct sq_queue *q, int64_t route, int64_t now_ms, int *n, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	struct sq_move *m = NULL;
	size_t count = 0;
	enum sq_err code = SQ_OK;

	{
		SQ_STMT(s, q, SQL_EXPIRED);
		sq_stmt_bind(&s, "ii", route, now_ms);
		while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
			if ((count & (count + 1)) == 0) {
				struct sq_move *more = reallocarray(m, 2 * count + 2, sizeof(*m));

				if (!more) {
					free(m);
					return sq_error_set(err, SQ_ENOMEM, "out of memory");
				}
				m = more;
			}
			m[count++] = (struct sq_move){ .id = { sq_col(&s, 0) }, .from = SQ_STATE_QUEUED, .to = SQ_STATE_EXPIRED,
				.notify = (uint8_t)sq_col(&s, 1), .now_ms = now_ms };
		}
		if (step == SQ_FAILED)
			code = e->code;
	}
	for (size_t i = 0; code == SQ_OK && i < count; i++) {
		code = sq_state_move(q, &m[i], err);
		/* Ids come in order: the last recipient of a message settles it. */
		if (code == SQ_OK && (i + 1 == count || sq_recipient_message(m[i + 1].id).v != sq_recipient_message(m[i].id).v))
			code = sq_state_settle_message(q, sq_recipient_message(m[i].id), now_ms, err);
	}
	*n += (int)count;
	free(m);
	return code;
}

enum sq_err
sq_queue_expire(struct sq_queue *q, int64_t now_ms, int *out_n, struct sq_error *err)
{
	SQ_CLEANUP(routes_fini) struct routes r = { 0 };
	int64_t next = INT64_MAX;
	int n = 0;
	enum sq_err e;
	SQ_TX(tx);

	/* Asked often, seldom true: no write lock for a "no". */
	if ((e = sq_queue_next_expiry(q, &next, err)) != SQ_OK)
		return e;
	if (next <= now_ms) {
		if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK || (e = routes_load(q, &r, err)) != SQ_OK)
			return e;
		for (size_t i = 0; i < r.n; i++)
			if ((e = expire_route(q, r.v[i].id, now_ms, &n, err)) != SQ_OK)
				return e;
		if ((e = sq_tx_commit(&tx, err)) != SQ_OK)
			return e;
	}
	if (out_n)
		*out_n = n;
	return SQ_OK;
}
