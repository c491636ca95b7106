/*
 * What is due, and taking it: candidates of a route, the next time to look,
 * and the claim that opens an attempt. It applies no policy: a route's own
 * wait is the runner's business.
 */
#include "db.h"

enum { DAY_MS = 24 * 3600 * 1000 };

/* The next lower priority in use among queued recipients of a route: one descent of the index. */
static enum sq_err
next_priority(struct sq_queue *q, int64_t route, int64_t *priority, bool *out_have, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_DUE_PRIORITY);

	sq_stmt_bind(&s, "ii", route, *priority);
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return e->code;
	*out_have = sqlite3_column_type(s.st, 0) != SQLITE_NULL;
	*priority = sq_col(&s, 0);
	return SQ_OK;
}

/* Message ids in order of next try; a message with several due recipients counts once. */
static enum sq_err
due_of_priority(struct sq_queue *q, int64_t route, int64_t priority, int64_t now_ms, struct sq_candidate *out, size_t max, size_t *n, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step = SQ_DONE;
	SQ_STMT(s, q, SQL_DUE);

	sq_stmt_bind(&s, "iii", route, priority, now_ms);
	while (*n < max && (step = sq_stmt_step(&s, e)) == SQ_ROW) {
		int64_t id = sq_col(&s, 0);
		size_t i = *n;

		while (i > 0 && out[i - 1].id.v != id)
			i--;
		if (i == 0)
			out[(*n)++] = (struct sq_candidate){ .id = { id } };
	}
	return step == SQ_FAILED ? e->code : SQ_OK;
}

/* Newer messages only: a range of ids, in their order. */
static enum sq_err
due_after(struct sq_queue *q, int64_t route, struct sq_message_id after, int64_t now_ms, struct sq_candidate *out, size_t max, size_t *n, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step = SQ_DONE;
	SQ_STMT(s, q, SQL_DUE_AFTER);

	sq_stmt_bind(&s, "iii", route, after.v, now_ms);
	while (*n < max && (step = sq_stmt_step(&s, e)) == SQ_ROW)
		out[(*n)++] = (struct sq_candidate){ .id = { sq_col(&s, 0) } };
	return step == SQ_FAILED ? e->code : SQ_OK;
}

static enum sq_err
fill_candidate(struct sq_queue *q, struct sq_candidate *c, int64_t now_ms, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_DUE_MESSAGE);

	sq_stmt_bind(&s, "iii", c->id.v, now_ms - DAY_MS, now_ms);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_DONE)
		return sq_error_set(err, SQ_ENOENT, "no such message");
	c->size = (uint64_t)sq_col(&s, 0);
	c->submitted_ms = sq_col(&s, 1);
	c->priority = (int)sq_col(&s, 2);
	c->tries = (int)sq_col(&s, 3);
	c->durable = (uint64_t)sq_col(&s, 4);
	c->tries_day = (int)sq_col(&s, 5);
	c->last_try_ms = sq_col(&s, 6);
	c->forced = sq_col(&s, 7) != 0;
	c->recipients = (int)sq_col(&s, 8);
	c->cuts_day = (int)sq_col(&s, 9);
	return SQ_OK;
}

static enum sq_err
due(struct sq_queue *q, const char *route, struct sq_message_id after, int64_t now_ms, struct sq_candidate *out, size_t max, size_t *n, struct sq_error *err)
{
	int64_t number = 0, priority = INT64_MAX;
	size_t found = 0;
	bool have = true;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_read(&tx, q, __func__, err)) != SQ_OK)
		return e;
	if ((e = sq_route_id(q, route, false, &number, err)) == SQ_ENOENT)
		have = false;
	else if (e != SQ_OK)
		return e;
	if (have && after.v != 0) {
		have = false;
		if ((e = due_after(q, number, after, now_ms, out, max, &found, err)) != SQ_OK)
			return e;
	}
	while (have && found < max) {
		if ((e = next_priority(q, number, &priority, &have, err)) != SQ_OK)
			return e;
		if (have && (e = due_of_priority(q, number, priority, now_ms, out, max, &found, err)) != SQ_OK)
			return e;
	}
	for (size_t i = 0; i < found; i++) {
		if ((e = fill_candidate(q, &out[i], now_ms, err)) == SQ_ENOENT)
			return sq_error_set(err, SQ_ECORRUPT, "queue '%s' has recipients without their message", q->path);
		if (e != SQ_OK)
			return e;
	}
	*n = found;
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_candidate(struct sq_queue *q, struct sq_message_id id, int64_t now_ms, struct sq_candidate *out, struct sq_error *err)
{
	enum sq_err e;
	SQ_TX(tx);

	*out = (struct sq_candidate){ .id = id };
	if ((e = sq_tx_read(&tx, q, __func__, err)) != SQ_OK || (e = fill_candidate(q, out, now_ms, err)) != SQ_OK)
		return e;
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_due(struct sq_queue *q, const char *route, int64_t now_ms, struct sq_candidate *out, size_t max, size_t *n, struct sq_error *err)
{
	return due(q, route, (struct sq_message_id){ 0 }, now_ms, out, max, n, err);
}

enum sq_err
sq_queue_due_new(struct sq_queue *q, const char *route, struct sq_message_id after, int64_t now_ms, struct sq_candidate *out, size_t max, size_t *n, struct sq_error *err)
{
	return due(q, route, after, now_ms, out, max, n, err);
}

/* The least value of a one-row, one-column statement on a route; *least is left alone where it is NULL. */
static enum sq_err
least(struct sq_queue *q, enum sq_sql id, int64_t route, int64_t priority, int64_t from_ms, int64_t *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, id);

	if (id == SQL_NEXT_DOUBT)
		sq_stmt_bind(&s, "ii", route, from_ms);
	else
		sq_stmt_bind(&s, "iii", route, priority, from_ms);
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return e->code;
	if (sqlite3_column_type(s.st, 0) != SQLITE_NULL && sq_col(&s, 0) < *out)
		*out = sq_col(&s, 0);
	return SQ_OK;
}

enum sq_err
sq_queue_next_due_from(struct sq_queue *q, const char *route, int64_t from_ms, int64_t *out, struct sq_error *err)
{
	int64_t number = 0, priority = INT64_MAX, next = INT64_MAX;
	bool have = true;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_read(&tx, q, __func__, err)) != SQ_OK)
		return e;
	if ((e = sq_route_id(q, route, false, &number, err)) == SQ_ENOENT)
		have = false;
	else if (e != SQ_OK)
		return e;
	while (have) {
		if ((e = next_priority(q, number, &priority, &have, err)) != SQ_OK)
			return e;
		if (have && (e = least(q, SQL_NEXT_DUE, number, priority, from_ms, &next, err)) != SQ_OK)
			return e;
	}
	if (number && (e = least(q, SQL_NEXT_DOUBT, number, 0, from_ms, &next, err)) != SQ_OK)
		return e;
	*out = next;
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_newest(struct sq_queue *q, struct sq_message_id *out, struct sq_error *err)
{
	return sq_db_int(q, SQL_NEWEST, &out->v, err);
}

enum sq_err
sq_queue_next_doubt(struct sq_queue *q, const char *route, int64_t *out, struct sq_error *err)
{
	int64_t number = 0, next = INT64_MAX;
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_read(&tx, q, __func__, err)) != SQ_OK)
		return e;
	if ((e = sq_route_id(q, route, false, &number, err)) == SQ_OK)
		e = least(q, SQL_NEXT_DOUBT, number, 0, INT64_MIN, &next, err);
	if (e != SQ_OK && e != SQ_ENOENT)
		return e;
	*out = next;
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_next_due(struct sq_queue *q, const char *route, int64_t *out, struct sq_error *err)
{
	return sq_queue_next_due_from(q, route, INT64_MIN, out, err);
}

/* ---- waits ---- */

enum sq_err
sq_queue_wait(struct sq_queue *q, struct sq_message_id id, enum sq_waits waits, int64_t next_try_ms, int64_t now_ms, struct sq_error *err)
{
	enum sq_err e;
	SQ_TX(tx);

	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_WAIT);
		sq_stmt_bind(&s, "iiii", id.v, next_try_ms, (int64_t)waits, now_ms);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_wait_over(struct sq_queue *q, const char *route, enum sq_waits waits, int64_t now_ms, int *n, struct sq_error *err)
{
	int64_t number = 0;
	enum sq_err e;
	SQ_TX(tx);

	*n = 0;
	if ((e = sq_tx_begin(&tx, q, false, __func__, err)) != SQ_OK)
		return e;
	if ((e = sq_route_id(q, route, false, &number, err)) == SQ_ENOENT)
		return sq_tx_commit(&tx, err);
	if (e != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_WAIT_OVER);
		sq_stmt_bind(&s, "iii", number, (int64_t)waits, now_ms);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
		*n = sqlite3_changes(q->db);
	}
	return sq_tx_commit(&tx, err);
}

enum sq_err
sq_queue_first_waiting(struct sq_queue *q, const char *route, struct sq_message_id after, struct sq_message_id *out, int64_t *submitted_ms, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	int64_t number = 0;
	enum sq_step step;
	enum sq_err found = sq_route_id(q, route, false, &number, err);

	if (found == SQ_OK) {
		SQ_STMT(s, q, SQL_FIRST_WAITING);
		sq_stmt_bind(&s, "ii", number, after.v);
		if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
			return e->code;
		if (step == SQ_ROW) {
			out->v = sq_col(&s, 0);
			*submitted_ms = sq_col(&s, 1);
			return SQ_OK;
		}
	}
	return found != SQ_OK && found != SQ_ENOENT ? found : sq_error_set(err, SQ_ENOENT, "nothing waits on route '%s'", route);
}

/* ---- the claim ---- */

static void
work_free(struct sq_work *w)
{
	for (uint32_t i = 0; w->recipients && i < w->n_recipients; i++) {
		free(w->recipients[i].address);
		free(w->recipients[i].orcpt);
	}
	free(w->recipients);
	free(w->message_id);
	free(w->sender);
	free(w->envid);
	free(w->transid);
	free(w->ehlo_name);
	free(w->login);
	free(w->address);
	free(w->store);
	free(w);
}

void
sq_work_free(struct sq_work *w)
{
	if (w)
		work_free(w);
}

static void
work_freep(struct sq_work **w)
{
	sq_work_free(*w);
}

static enum sq_err
nothing_due(struct sq_error *err)
{
	return sq_error_set(err, SQ_ENOENT, "nothing of this message is due");
}

/*
 * Which recipients go together: those of a stored transaction if all of them
 * can go (a resume must name exactly the recipients it began with), else those
 * with the epoch of the first one that is due.
 */
static enum sq_err
choose_group(struct sq_queue *q, struct sq_message_id id, int64_t force, int64_t now_ms, int64_t *txn, int64_t *epoch, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;

	*txn = 0;
	{
		SQ_STMT(s, q, SQL_CLAIM_TXN);
		sq_stmt_bind(&s, "iii", id.v, now_ms, force);
		if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
			return e->code;
		if (step == SQ_ROW) {
			*txn = sq_col(&s, 0);
			*epoch = sq_col(&s, 1);
		}
	}
	if (*txn) {
		SQ_STMT(s, q, SQL_CLAIM_TXN_WHOLE);
		sq_stmt_bind(&s, "iiii", id.v, *txn, now_ms, force);
		if (sq_stmt_step(&s, e) != SQ_ROW)
			return e->code;
		if (sq_col(&s, 0) == sq_col(&s, 1))
			return SQ_OK;
		*txn = 0;
	}
	SQ_STMT(s, q, SQL_CLAIM_EPOCH);
	sq_stmt_bind(&s, "iii", id.v, now_ms, force);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_DONE)
		return nothing_due(err);
	*epoch = sq_col(&s, 0);
	return SQ_OK;
}

static enum sq_err
load_group(struct sq_queue *q, struct sq_work *w, int64_t force, int64_t now_ms, int64_t txn, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_CLAIM);

	if (!(w->recipients = calloc(SQ_GROUP_MAX, sizeof(*w->recipients))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	sq_stmt_bind(&s, "iiiiii", w->id.v, now_ms, force, (int64_t)w->epoch, txn, (int64_t)SQ_GROUP_MAX);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW && w->n_recipients < SQ_GROUP_MAX) {
		struct sq_work_recipient *r = &w->recipients[w->n_recipients++];

		r->id.v = sq_col(&s, 0);
		r->address = sq_col_dup(&s, 1);
		r->orcpt = sq_col_dup(&s, 2);
		r->notify = (uint8_t)sq_col(&s, 3);
		r->epoch = (int)sq_col(&s, 4);
		w->by_hand |= sq_col(&s, 5) != 0;
		if (!r->address || !r->orcpt)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
	}
	if (step == SQ_FAILED)
		return e->code;
	return w->n_recipients > 0 ? SQ_OK : nothing_due(err);
}

/* ENVID of our own where the user gave none: tells queue, message and epoch, and no name of host or user. */
static enum sq_err
make_envid(struct sq_queue *q, struct sq_work *w, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_CLEANUP(sq_buf_fini) struct sq_buf b = SQ_BUF_INIT(64);
	char id[SQ_ID_TEXT];
	SQ_STMT(s, q, SQL_META_GET);

	free(w->envid);
	w->envid = NULL;
	sq_stmt_bind(&s, "z", "identity");
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return sq_error_set(err, SQ_ECORRUPT, "queue '%s' has no identity", q->path);
	sq_id_format(w->id, id);
	sq_buf_add_str(&b, (struct sq_str){ sq_col_str(&s, 0).p, 8 });
	sq_buf_addf(&b, "-%s-%d", id, w->epoch);
	return sq_buf_take(&b, &w->envid, err);
}

static enum sq_err
load_message(struct sq_queue *q, struct sq_work *w, int64_t *route, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	struct sq_str hash;
	enum sq_step step;
	SQ_STMT(s, q, SQL_WORK);

	sq_stmt_bind(&s, "i", w->id.v);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_DONE)
		return nothing_due(err);
	if (!sq_col(&s, 9))
		return sq_error_set(err, SQ_ECORRUPT, "queue '%s' lost the content of a message that is due", q->path);
	w->message_id = sq_col_dup(&s, 0);
	w->sender = sq_col_dup(&s, 1);
	w->envid = sq_col_dup(&s, 2);
	w->size = (uint64_t)sq_col(&s, 3);
	w->submitted_ms = sq_col(&s, 4);
	hash = sq_col_str(&s, 5);
	w->hash_known = hash.n == sizeof(w->sha256);
	if (w->hash_known)
		memcpy(w->sha256, hash.p, hash.n);
	w->ret = (enum sq_ret)sq_col(&s, 6);
	w->flags = (uint32_t)sq_col(&s, 7) | (w->by_hand ? SQ_TXN_RESEND : 0);
	*route = sq_col(&s, 8);
	if (!w->message_id || !w->sender || !w->envid)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	w->envid_is_users = w->envid[0] != '\0';
	return w->envid_is_users ? SQ_OK : make_envid(q, w, err);
}

static enum sq_err
load_txn(struct sq_queue *q, struct sq_work *w, int64_t txn, int64_t now_ms, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_TXN_GET);

	if (txn == 0)
		return SQ_OK;
	sq_stmt_bind(&s, "i", txn);
	if (sq_stmt_step(&s, e) != SQ_ROW)
		return sq_error_set(err, SQ_ECORRUPT, "queue '%s' lost a transaction", q->path);
	w->transid = sq_col_dup(&s, 0);
	w->ehlo_name = sq_col_dup(&s, 1);
	w->address = sq_col_dup(&s, 2);
	w->verb = (uint8_t)sq_col(&s, 3);
	w->durable = (uint64_t)sq_col(&s, 4);
	w->store = sq_col_dup(&s, 5);
	w->retained = sq_col(&s, 6) > now_ms;
	w->login = sq_col_dup(&s, 7);
	return w->transid && w->ehlo_name && w->login && w->address && w->store ? SQ_OK : sq_error_set(err, SQ_ENOMEM, "out of memory");
}

static enum sq_err
open_attempt(struct sq_queue *q, struct sq_work *w, int64_t route, const char *network, int64_t txn, int64_t now_ms, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);

	{
		SQ_STMT(next, q, SQL_ATTEMPT_NEXT);
		sq_stmt_bind(&next, "i", w->id.v);
		if (sq_stmt_step(&next, e) != SQ_ROW)
			return e->code;
		w->attempt.v = sq_col(&next, 0);
	}
	if (sq_attempt_message(w->attempt) != w->id.v)
		return sq_error_set(err, SQ_ELIMIT, "a message had too many attempts");

	SQ_STMT(s, q, SQL_ATTEMPT_ADD);
	sq_stmt_bind(&s, "iiziiii", w->attempt.v, route, network ? network : "", w->recipients[0].id.v,
		w->recipients[w->n_recipients - 1].id.v, txn, now_ms);
	return sq_stmt_run(&s, err);
}

static enum sq_err
mark_group(struct sq_queue *q, const struct sq_work *w, int64_t txn, int64_t now_ms, struct sq_error *err)
{
	enum sq_err e;
	SQ_STMT(s, q, SQL_CLAIM_MARK);

	for (uint32_t i = 0; i < w->n_recipients; i++) {
		struct sq_move m = { .id = w->recipients[i].id, .from = SQ_STATE_QUEUED, .to = SQ_STATE_SENDING, .now_ms = now_ms };

		sq_stmt_again(&s);
		sq_stmt_bind(&s, "iii", m.id.v, w->attempt.v, txn);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK || (e = sq_state_move(q, &m, err)) != SQ_OK)
			return e;
	}
	return SQ_OK;
}

enum sq_err
sq_queue_claim(struct sq_queue *q, struct sq_message_id id, bool force, const char *network, int64_t now_ms, struct sq_work **out, struct sq_error *err)
{
	SQ_CLEANUP(work_freep) struct sq_work *w = calloc(1, sizeof(*w));
	int64_t txn = 0, epoch = 0, route = 0;
	enum sq_err e;
	SQ_TX(tx);

	if (!w)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	w->id = id;
	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK ||
	    (e = choose_group(q, id, force, now_ms, &txn, &epoch, err)) != SQ_OK)
		return e;
	w->epoch = (int)epoch;
	if ((e = load_group(q, w, force, now_ms, txn, err)) != SQ_OK ||
	    (e = load_message(q, w, &route, err)) != SQ_OK ||
	    (e = load_txn(q, w, txn, now_ms, err)) != SQ_OK ||
	    (e = open_attempt(q, w, route, network, txn, now_ms, err)) != SQ_OK ||
	    (e = mark_group(q, w, txn, now_ms, err)) != SQ_OK ||
	    (e = sq_tx_commit(&tx, err)) != SQ_OK)
		return e;
	*out = w;
	w = NULL;
	return SQ_OK;
}

/* ---- a doubt that its server can be asked about ---- */

static enum sq_err
due_doubt(struct sq_queue *q, const char *route, int64_t now_ms, int64_t *message, int64_t *txn, int64_t *epoch, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	int64_t number = 0;
	enum sq_step step;
	enum sq_err found = sq_route_id(q, route, false, &number, err);

	if (found != SQ_OK)
		return found == SQ_ENOENT ? nothing_due(err) : found;
	{
		SQ_STMT(s, q, SQL_DUE_DOUBT);

		sq_stmt_bind(&s, "ii", number, now_ms);
		if ((step = sq_stmt_step(&s, e)) != SQ_ROW)
			return step == SQ_FAILED ? e->code : nothing_due(err);
		*message = sq_col(&s, 0);
	}
	SQ_STMT(s, q, SQL_CLAIM_DOUBT);
	sq_stmt_bind(&s, "i", *message);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_DONE)
		return sq_error_set(err, SQ_ECORRUPT, "queue '%s' lost a transaction", q->path);
	*txn = sq_col(&s, 0);
	*epoch = sq_col(&s, 1);
	return SQ_OK;
}

/* *whole: every recipient of the transaction is in doubt. */
static enum sq_err
load_doubt_group(struct sq_queue *q, struct sq_work *w, int64_t txn, bool *whole, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_CLAIM_DOUBT_GROUP);

	if (!(w->recipients = calloc(SQ_GROUP_MAX, sizeof(*w->recipients))))
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	*whole = true;
	sq_stmt_bind(&s, "ii", w->id.v, txn);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		struct sq_work_recipient *r;

		if (w->n_recipients == SQ_GROUP_MAX)
			return sq_error_set(err, SQ_ECORRUPT, "queue '%s' has a transaction with too many recipients", q->path);
		r = &w->recipients[w->n_recipients++];
		r->id.v = sq_col(&s, 0);
		r->address = sq_col_dup(&s, 1);
		r->orcpt = sq_col_dup(&s, 2);
		r->notify = (uint8_t)sq_col(&s, 3);
		r->epoch = (int)sq_col(&s, 4);
		*whole = *whole && sq_col(&s, 5) == SQ_STATE_DOUBT;
		w->by_hand |= sq_col(&s, 6) != 0;
		if (!r->address || !r->orcpt)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
	}
	return step == SQ_FAILED ? e->code : SQ_OK;
}

static enum sq_err
mark_doubt_group(struct sq_queue *q, const struct sq_work *w, int64_t txn, struct sq_error *err)
{
	enum sq_err e = SQ_OK;
	SQ_STMT(s, q, SQL_CLAIM_MARK);

	for (uint32_t i = 0; e == SQ_OK && i < w->n_recipients; i++) {
		sq_stmt_again(&s);
		sq_stmt_bind(&s, "iii", w->recipients[i].id.v, w->attempt.v, txn);
		e = sq_stmt_run(&s, err);
	}
	return e;
}

static enum sq_err
forget_txn(struct sq_queue *q, int64_t message, int64_t txn, struct sq_error *err)
{
	enum sq_err e;

	{
		SQ_STMT(s, q, SQL_TXN_FORGET);

		sq_stmt_bind(&s, "ii", message, txn);
		if ((e = sq_stmt_run(&s, err)) != SQ_OK)
			return e;
	}
	SQ_STMT(s, q, SQL_TXN_DELETE);
	sq_stmt_bind(&s, "i", txn);
	return sq_stmt_run(&s, err);
}

/* One candidate: *out is set, or its TRANSID was given up and *out is left alone. */
static enum sq_err
claim_doubt_once(struct sq_queue *q, const char *route, const char *network, int64_t now_ms, struct sq_work **out, struct sq_error *err)
{
	SQ_CLEANUP(work_freep) struct sq_work *w = calloc(1, sizeof(*w));
	int64_t txn = 0, epoch = 0, number = 0;
	bool whole = false;
	enum sq_err e;
	SQ_TX(tx);

	if (!w)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK ||
	    (e = due_doubt(q, route, now_ms, &w->id.v, &txn, &epoch, err)) != SQ_OK ||
	    (e = load_doubt_group(q, w, txn, &whole, err)) != SQ_OK)
		return e;
	w->epoch = (int)epoch;
	w->in_doubt = true;
	if (!whole)
		return (e = forget_txn(q, w->id.v, txn, err)) != SQ_OK ? e : sq_tx_commit(&tx, err);
	if ((e = load_message(q, w, &number, err)) != SQ_OK ||
	    (e = load_txn(q, w, txn, now_ms, err)) != SQ_OK ||
	    (e = open_attempt(q, w, number, network, txn, now_ms, err)) != SQ_OK ||
	    (e = mark_doubt_group(q, w, txn, err)) != SQ_OK ||
	    (e = sq_tx_commit(&tx, err)) != SQ_OK)
		return e;
	*out = w;
	w = NULL;
	return SQ_OK;
}

enum sq_err
sq_queue_claim_doubt(struct sq_queue *q, const char *route, const char *network, int64_t now_ms, struct sq_work **out, struct sq_error *err)
{
	struct sq_work *w = NULL;
	enum sq_err e = SQ_OK;

	while (e == SQ_OK && !w)
		e = claim_doubt_once(q, route, network, now_ms, &w, err);
	if (e == SQ_OK)
		*out = w;
	return e;
}
