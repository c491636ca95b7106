/*
 * What is known of routes on networks, and what routes have learned. Numbers
 * and texts as the runner gives them; nothing is computed here.
 */
#include "db.h"

static void
copy_text(char *out, size_t size, struct sq_str s)
{
	size_t n = s.n < size ? s.n : size - 1;

	if (n)
		memcpy(out, s.p, n);
	out[n] = '\0';
}

#define TEXT(field, column) copy_text(r->field, sizeof(r->field), sq_col_str(s, column))

static void
read_row(struct sq_stmt *s, struct sq_link_row *r)
{
	*r = (struct sq_link_row){
		.since_ms = sq_col(s, 3), .next_try_ms = sq_col(s, 4), .stopped = sq_col(s, 6) != 0, .failures = sq_col(s, 7),
		.connects = sq_col(s, 8), .connect_failures = sq_col(s, 9), .cuts = sq_col(s, 10), .octets = sq_col(s, 11),
		.seconds = sq_col(s, 12), .rtt_us = sq_col(s, 13), .goodput_bps = sq_col(s, 14), .last_ok_ms = sq_col(s, 15),
		.last_fail_ms = sq_col(s, 16), .caps = (uint32_t)sq_col(s, 17), .size_limit = sq_col(s, 18), .reply_code = (int)sq_col(s, 20),
	};
	{
		int column = 23;

		r->quality.at_ms = sq_col(s, column++);
#define TAKE(name) r->quality.name = sq_col_real(s, column++);
		SQ_QUALITY_LIST(TAKE)
#undef TAKE
	}
	TEXT(route, 0);
	TEXT(network, 1);
	TEXT(state, 2);
	TEXT(cause, 5);
	TEXT(address, 19);
	TEXT(reply_enhanced, 21);
	TEXT(reply_text, 22);
}

enum sq_err
sq_queue_link_get(struct sq_queue *q, const char *route, const char *network, struct sq_link_row *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_LINK_GET);

	sq_stmt_bind(&s, "zz", route, network ? network : "");
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_ROW) {
		read_row(&s, out);
		return SQ_OK;
	}
	*out = (struct sq_link_row){ 0 };
	copy_text(out->route, sizeof(out->route), sq_str(route));
	copy_text(out->network, sizeof(out->network), sq_str(network));
	return SQ_OK;
}

#define KIND(name) "d"
#define VALUE(name) , y->name

static enum sq_err
put_quality(struct sq_queue *q, int64_t route, const char *network, const struct sq_quality *y, struct sq_error *err)
{
	SQ_STMT(s, q, SQL_QUALITY_PUT);

	sq_stmt_bind(&s, "izi" SQ_QUALITY_LIST(KIND), route, network, y->at_ms SQ_QUALITY_LIST(VALUE));
	return sq_stmt_run(&s, err);
}

enum sq_err
sq_queue_link_put(struct sq_queue *q, const struct sq_link_row *r, struct sq_error *err)
{
	int64_t route = 0;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK || (e = sq_route_id(q, r->route, true, &route, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_LINK_PUT);
		sq_stmt_bind(&s, "izziiziiiiiiiiiiiiizizz", route, r->network, r->state, r->since_ms, r->next_try_ms, r->cause,
			(int64_t)r->stopped, r->failures, r->connects, r->connect_failures, r->cuts, r->octets, r->seconds, r->rtt_us,
			r->goodput_bps, r->last_ok_ms, r->last_fail_ms, (int64_t)r->caps, r->size_limit, r->address, (int64_t)r->reply_code,
			r->reply_enhanced, r->reply_text);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	if ((e = put_quality(q, route, r->network, &r->quality, err)) != SQ_OK)
		return e;
	return sq_tx_commit(&tx, err);
}

/* All rows first, then the calls: a caller that prints holds no view open. */
enum sq_err
sq_queue_links(struct sq_queue *q, void (*each)(void *arg, const struct sq_link_row *row), void *arg, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_CLEANUP(sq_freep) struct sq_link_row *rows = NULL;
	enum sq_step step;
	size_t n = 0;

	{
		SQ_STMT(s, q, SQL_LINK_EACH);
		while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
			struct sq_link_row *more = reallocarray(rows, n + 1, sizeof(*more));

			if (!more)
				return sq_error_set(err, SQ_ENOMEM, "out of memory");
			rows = more;
			read_row(&s, &rows[n++]);
		}
		if (step == SQ_FAILED)
			return e->code;
	}
	for (size_t i = 0; i < n; i++) {
		if (q->restricted)
			rows[i].reply_text[0] = '\0'; /* it may quote somebody else's recipient */
		each(arg, &rows[i]);
	}
	return SQ_OK;
}

/* ---- what was seen, by time ---- */

enum sq_err
sq_queue_link_past_put(struct sq_queue *q, const struct sq_link_past *p, struct sq_error *err)
{
	int64_t route = 0;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK || (e = sq_route_id(q, p->route, true, &route, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_LINK_PAST_PUT);
		sq_stmt_bind(&s, "iziiiiii", route, p->network, p->at_ms, p->ms, p->octets, p->rtt_us, p->retransmits, (int64_t)p->cuts);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_link_past(struct sq_queue *q, const char *route, int64_t since_ms, bool (*each)(void *arg, const struct sq_link_past *p), void *arg, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_LINK_PAST);

	sq_stmt_bind(&s, "iz", since_ms, route);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		struct sq_link_past p = { .at_ms = sq_col(&s, 2), .ms = sq_col(&s, 3), .octets = sq_col(&s, 4), .rtt_us = sq_col(&s, 5),
			.retransmits = sq_col(&s, 6), .cuts = (int)sq_col(&s, 7) };

		copy_text(p.route, sizeof(p.route), sq_col_str(&s, 0));
		copy_text(p.network, sizeof(p.network), sq_col_str(&s, 1));
		if (!each(arg, &p))
			return SQ_OK;
	}
	return step == SQ_FAILED ? e->code : SQ_OK;
}

/* ---- the network ---- */

enum sq_err
sq_queue_network_put(struct sq_queue *q, const struct sq_network *n, struct sq_error *err)
{
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_NETWORK_PUT);
		sq_stmt_bind(&s, "zzii", n->id, n->interface, n->since_ms, n->portal_ms);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_network_get(struct sq_queue *q, struct sq_network *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_NETWORK_GET);

	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	*out = (struct sq_network){ 0 };
	if (step == SQ_ROW) {
		copy_text(out->id, sizeof(out->id), sq_col_str(&s, 0));
		copy_text(out->interface, sizeof(out->interface), sq_col_str(&s, 1));
		out->since_ms = sq_col(&s, 2);
		out->portal_ms = sq_col(&s, 3);
	}
	return SQ_OK;
}

/* ---- what routes learned ---- */

enum sq_err
sq_queue_learn(struct sq_queue *q, const char *route, const char *key, const char *value, int64_t now_ms, struct sq_error *err)
{
	int64_t number = 0;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK || (e = sq_route_id(q, route, true, &number, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, value ? SQL_LEARN : SQL_UNLEARN);
		sq_stmt_bind(&s, value ? "izzi" : "iz", number, key, value, now_ms);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_learned(struct sq_queue *q, const char *route, const char *key, char **out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	char *value = NULL;
	SQ_STMT(s, q, SQL_LEARNED);

	sq_stmt_bind(&s, "zz", route, key);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_ROW && !(value = sq_col_dup(&s, 0)))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	*out = value;
	return SQ_OK;
}
