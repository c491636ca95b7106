/*
 * Reading for people and for reports: whole messages with recipients and
 * attempts, lists, counts. Each message is one consistent view of its own, so
 * that a slow reader never keeps the log from being checkpointed.
 */
#include "db.h"

void
sq_message_free(struct sq_message *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n_recipients; i++) {
		free(m->recipients[i].address);
		free(m->recipients[i].orcpt);
		free((char *)(uintptr_t)m->recipients[i].reply.text.p);
	}
	for (size_t i = 0; i < m->n_attempts; i++) {
		free(m->attempts[i].route);
		free((char *)(uintptr_t)m->attempts[i].reply.text.p);
	}
	free(m->recipients);
	free(m->attempts);
	free(m->message_id);
	free(m->sender);
	free(m->header_from);
	free(m->subject);
	free(m->route);
	free(m->source);
	free(m->envid);
	free(m);
}

static void
message_freep(struct sq_message **m)
{
	sq_message_free(*m);
}

static bool
read_reply(struct sq_stmt *s, int column, struct sq_reply *r)
{
	struct sq_str enhanced = sq_col_str(s, column + 1);
	char *text = sq_col_dup(s, column + 2);

	r->code = (int)sq_col(s, column);
	snprintf(r->enhanced, sizeof(r->enhanced), "%.*s", (int)enhanced.n, enhanced.n ? enhanced.p : "");
	r->text = sq_str(text);
	return text != NULL;
}

static enum sq_err
read_message(struct sq_queue *q, struct sq_message *m, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	struct sq_str hash;
	enum sq_step step;
	SQ_STMT(s, q, SQL_MESSAGE);

	sq_stmt_bind(&s, "i", m->id.v);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	if (step == SQ_DONE || (q->restricted && sq_col(&s, 11) != q->only_uid))
		return sq_error_set(err, SQ_ENOENT, "there is no such message");
	m->message_id = sq_col_dup(&s, 1);
	m->sender = sq_col_dup(&s, 2);
	m->header_from = sq_col_dup(&s, 3);
	m->subject = sq_col_dup(&s, 4);
	m->route = sq_col_dup(&s, 5);
	m->source = sq_col_dup(&s, 6);
	m->envid = sq_col_dup(&s, 7);
	m->size = (uint64_t)sq_col(&s, 8);
	m->has_content = sq_col(&s, 9) != 0;
	hash = sq_col_str(&s, 10);
	for (size_t i = 0; hash.n == 32 && i < hash.n; i++)
		snprintf(m->sha256 + 2 * i, 3, "%02x", (unsigned char)hash.p[i]);
	m->uid = sq_col(&s, 11);
	m->submitted_ms = sq_col(&s, 12);
	m->not_before_ms = sq_col(&s, 13);
	m->expires_ms = sq_col(&s, 14);
	m->priority = (int)sq_col(&s, 15);
	m->ret = (enum sq_ret)sq_col(&s, 16);
	m->flags = (uint32_t)sq_col(&s, 17);
	m->auto_submitted = sq_col(&s, 18) != 0;
	m->duplicates = (enum sq_own_duplicates)sq_col(&s, 19);
	if (!m->message_id || !m->sender || !m->header_from || !m->subject || !m->route || !m->source || !m->envid)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	return SQ_OK;
}

void
sq_queue_restrict(struct sq_queue *q, int64_t uid)
{
	q->restricted = true;
	q->only_uid = uid;
}

bool
sq_queue_is_restricted(const struct sq_queue *q)
{
	return q->restricted;
}

enum sq_err
sq_message_visible(struct sq_queue *q, struct sq_message_id id, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_MESSAGE_UID);

	if (!q->restricted)
		return SQ_OK;
	sq_stmt_bind(&s, "i", id.v);
	if ((step = sq_stmt_step(&s, e)) == SQ_FAILED)
		return e->code;
	return step == SQ_ROW && sq_col(&s, 0) == q->only_uid ? SQ_OK : sq_error_set(err, SQ_ENOENT, "there is no such message");
}

static enum sq_err
route_wait(struct sq_queue *q, struct sq_message_id id, int64_t *out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	SQ_STMT(s, q, SQL_ROUTE_WAIT);

	sq_stmt_bind(&s, "i", id.v);
	if (sq_stmt_step(&s, e) == SQ_FAILED)
		return e->code;
	*out = sq_col(&s, 0);
	return SQ_OK;
}

static enum sq_err
read_recipients(struct sq_queue *q, struct sq_message *m, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	int64_t wait_ms = 0;
	enum sq_step step;
	SQ_STMT(s, q, SQL_RECIPIENTS);

	if (route_wait(q, m->id, &wait_ms, e) != SQ_OK)
		return e->code;
	sq_stmt_bind(&s, "i", m->id.v);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		struct sq_recipient *r;

		if ((m->n_recipients & (m->n_recipients - 1)) == 0) {
			if (!(r = reallocarray(m->recipients, m->n_recipients ? 2 * m->n_recipients : 1, sizeof(*r))))
				return sq_error_set(err, SQ_ENOMEM, "out of memory");
			m->recipients = r;
		}
		r = &m->recipients[m->n_recipients++];
		*r = (struct sq_recipient){
			.id = { sq_col(&s, 0) }, .address = sq_col_dup(&s, 1), .state = (enum sq_state)sq_col(&s, 2), .notify = (uint8_t)sq_col(&s, 3),
			.epoch = (int)sq_col(&s, 4), .state_ms = sq_col(&s, 6), .reported_ms = sq_col(&s, 10),
			.durable_octets = sq_col(&s, 11), .acked_octets = sq_col(&s, 12), .waits = (enum sq_waits)sq_col(&s, 13),
			.unknown_copies = (int)sq_col(&s, 14), .orcpt = sq_col_dup(&s, 15), .resumable = sq_col(&s, 16) != 0,
		};
		if (r->state == SQ_STATE_QUEUED)
			r->next_try_ms = sq_col(&s, 5) > wait_ms ? sq_col(&s, 5) : wait_ms;
		m->hold = m->hold || r->state == SQ_STATE_HELD;
		if (!read_reply(&s, 7, &r->reply) || !r->address || !r->orcpt)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
	}
	return step == SQ_DONE ? SQ_OK : e->code;
}

static enum sq_err
read_attempts(struct sq_queue *q, struct sq_message *m, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, SQL_ATTEMPTS);

	sq_stmt_bind(&s, "i", m->id.v);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		struct sq_attempt *a = reallocarray(m->attempts, m->n_attempts + 1, sizeof(*a));

		if (!a)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
		m->attempts = a;
		a = &m->attempts[m->n_attempts++];
		*a = (struct sq_attempt){
			.id = { sq_col(&s, 0) }, .route = sq_col_dup(&s, 1), .started_ms = sq_col(&s, 2), .ended_ms = sq_col(&s, 3),
			.phase = (enum sq_phase)sq_col(&s, 4), .octets_sent = sq_col(&s, 5), .octets_acked = sq_col(&s, 6),
			.octets_durable = sq_col(&s, 7), .outcome = (enum sq_outcome)sq_col(&s, 8),
		};
		if (!read_reply(&s, 9, &a->reply) || !a->route)
			return sq_error_set(err, SQ_ENOMEM, "out of memory");
	}
	return step == SQ_DONE ? SQ_OK : e->code;
}

static enum sq_err
load(struct sq_queue *q, struct sq_message_id id, bool attempts, struct sq_message **out, struct sq_error *err)
{
	SQ_CLEANUP(message_freep) struct sq_message *m = calloc(1, sizeof(*m));
	enum sq_err e;
	SQ_TX(tx);

	if (!m)
		return sq_error_set(err, SQ_ENOMEM, "out of memory");
	m->id = id;
	if ((e = sq_tx_read(&tx, q, __func__, err)) != SQ_OK || (e = read_message(q, m, err)) != SQ_OK ||
	    (e = read_recipients(q, m, err)) != SQ_OK || (attempts && (e = read_attempts(q, m, err)) != SQ_OK) ||
	    (e = sq_tx_commit(&tx, err)) != SQ_OK)
		return e;
	*out = m;
	m = NULL;
	return SQ_OK;
}

enum sq_err
sq_queue_show(struct sq_queue *q, struct sq_message_id id, struct sq_message **out, struct sq_error *err)
{
	return load(q, id, true, out, err);
}

struct ids {
	int64_t *v;
	size_t n;
};

static void
ids_fini(struct ids *l)
{
	free(l->v);
}

static enum sq_err
ids_load(struct sq_queue *q, enum sq_sql id, int64_t max, struct ids *l, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	enum sq_step step;
	SQ_STMT(s, q, id);

	if (max > 0)
		sq_stmt_bind(&s, "i", max);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW) {
		if ((l->n & (l->n - 1)) == 0) {
			int64_t *more = reallocarray(l->v, l->n ? 2 * l->n : 1, sizeof(*more));

			if (!more)
				return sq_error_set(err, SQ_ENOMEM, "out of memory");
			l->v = more;
		}
		l->v[l->n++] = sq_col(&s, 0);
	}
	return step == SQ_DONE ? SQ_OK : e->code;
}

/* Up to so many in one view: a view each costs more than what is read in it. */
enum { VIEW = 256 };

struct view {
	struct sq_message *v[VIEW];
	size_t n;
};

static void
view_fini(struct view *w)
{
	while (w->n > 0)
		sq_message_free(w->v[--w->n]);
}

static enum sq_err
view_load(struct sq_queue *q, const int64_t *ids, size_t n, struct view *w, struct sq_error *err)
{
	SQ_TX(tx);
	enum sq_err code = sq_tx_read(&tx, q, __func__, err);

	for (size_t i = 0; code == SQ_OK && i < n; i++) {
		code = load(q, (struct sq_message_id){ ids[i] }, false, &w->v[w->n], err);
		w->n += code == SQ_OK;
		if (code == SQ_ENOENT)
			code = SQ_OK;   /* swept in between */
	}
	return code == SQ_OK ? sq_tx_commit(&tx, err) : code;
}

/* Those of a statement, in its order; max: its parameter, 0: it has none. */
static enum sq_err
list(struct sq_queue *q, enum sq_sql which, int64_t max, bool (*each)(void *arg, const struct sq_message *m), void *arg, struct sq_error *err)
{
	SQ_CLEANUP(ids_fini) struct ids l = { 0 };
	struct sq_error *e = SQ_ERR(err);
	enum sq_err code = ids_load(q, which, max, &l, err);

	for (size_t i = 0; code == SQ_OK && i < l.n; i += VIEW) {
		SQ_CLEANUP(view_fini) struct view w = { .n = 0 };

		code = view_load(q, l.v + i, l.n - i < VIEW ? l.n - i : VIEW, &w, e);
		/* Behind the view: whoever reads what is printed may be slow, and a view that stands keeps the log from being reused. */
		for (size_t k = 0; code == SQ_OK && k < w.n; k++)
			if (!each(arg, w.v[k]))
				return SQ_OK;
	}
	return code;
}

enum sq_err
sq_queue_list(struct sq_queue *q, bool all, bool (*each)(void *arg, const struct sq_message *m), void *arg, struct sq_error *err)
{
	return list(q, all ? SQL_LIST_ALL : SQL_LIST_OPEN, 0, each, arg, err);
}

enum sq_err
sq_queue_moving(struct sq_queue *q, bool (*each)(void *arg, const struct sq_message *m), void *arg, struct sq_error *err)
{
	return list(q, SQL_LIST_MOVING, 0, each, arg, err);
}

enum sq_err
sq_queue_soonest(struct sq_queue *q, int max, bool (*each)(void *arg, const struct sq_message *m), void *arg, struct sq_error *err)
{
	return list(q, SQL_LIST_SOONEST, max > 0 ? max : 1, each, arg, err);
}

enum sq_err
sq_queue_counts(struct sq_queue *q, struct sq_message_id id, int64_t out[SQ_STATE_COUNT], struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	int64_t counts[SQ_STATE_COUNT] = { 0 };
	enum sq_step step;
	SQ_STMT(s, q, id.v ? SQL_COUNTS_OF : q->restricted ? SQL_COUNTS_UID : SQL_COUNTS);

	if (id.v && sq_message_visible(q, id, e) != SQ_OK)
		return e->code;
	if (id.v || q->restricted)
		sq_stmt_bind(&s, "i", id.v ? id.v : q->only_uid);
	while ((step = sq_stmt_step(&s, e)) == SQ_ROW)
		if (sq_col(&s, 0) >= 0 && sq_col(&s, 0) < SQ_STATE_COUNT)
			counts[sq_col(&s, 0)] = sq_col(&s, 1);
	if (step == SQ_FAILED)
		return e->code;
	memcpy(out, counts, sizeof(counts));
	return SQ_OK;
}

/* ---- reports ---- */

enum sq_err
sq_queue_next_report(struct sq_queue *q, struct sq_message **out, struct sq_error *err)
{
	struct sq_error *e = SQ_ERR(err);
	struct sq_message_id id = { 0 };

	{
		SQ_STMT(s, q, SQL_REPORT_NEXT);
		switch (sq_stmt_step(&s, e)) {
		case SQ_ROW:
			id.v = sq_col(&s, 0);
			break;
		case SQ_DONE:
			return sq_error_set(err, SQ_ENOENT, "no report is due");
		case SQ_FAILED:
			return e->code;
		}
	}
	return load(q, id, true, out, err);
}

enum sq_err
sq_queue_reported(struct sq_queue *q, struct sq_message_id id, const struct sq_recipient_id *r, size_t n, int64_t now_ms, struct sq_error *err)
{
	enum sq_err e;
	SQ_TX(tx);

	for (size_t i = 0; i < n; i++)
		if (sq_recipient_message(r[i]).v != id.v)
			return sq_error_set(err, SQ_EINVAL, "a recipient of another message");
	if ((e = sq_tx_begin(&tx, q, true, __func__, err)) != SQ_OK)
		return e;
	{
		SQ_STMT(s, q, SQL_REPORT_MARK);
		for (size_t i = 0; i < n; i++) {
			sq_stmt_again(&s);
			sq_stmt_bind(&s, "ii", r[i].v, now_ms > 0 ? now_ms : INT64_C(1));
			if ((e = sq_stmt_run(&s, err)) != SQ_OK)
				return e;
		}
	}
	if ((e = sq_state_settle_message(q, id, now_ms, err)) != SQ_OK)
		return e;
	return sq_tx_commit(&tx, err);
}
